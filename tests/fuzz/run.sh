#!/usr/bin/env bash
# run.sh SECONDS: the fuzzers, for so long in all: a quarter of it the JPEG crop, the rest what reads side files and
# tables. What libFuzzer finds stays in build/fuzz; skipped, with a message, where there is no clang with libFuzzer.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-60} python=.venv/bin/python out=build/fuzz
mkdir -p "$out/found"
jpeg=$(pkg-config --cflags --libs libjpeg 2>/dev/null || true)
sanitize="-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined"
target='extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }'
fuzzes=""
for clang in clang++ $(ls /usr/bin/clang++-[0-9]* 2>/dev/null | sort -rV); do # a compiler may come without libFuzzer
    # shellcheck disable=SC2086
    "$clang" $sanitize -x c++ - -o "$out/probe" <<<"$target" 2>/dev/null && fuzzes=yes && break
done
if [ -n "$fuzzes" ] && [ -n "$jpeg" ]; then
    "$python" tests/fuzz/seeds.py "$out/seeds"
    # shellcheck disable=SC2086
    "$clang" -std=c++17 -g -O1 $sanitize -DDUALFAST_JPEG -Icsrc tests/fuzz/jpeg.cpp csrc/{images,jpeg,resize}.cpp \
        -o "$out/jpeg" $jpeg -lpthread
    echo "== libFuzzer: the JPEG crop"
    mkdir -p "$out/corpus"
    "$out/jpeg" -max_total_time=$((seconds / 4 + 1)) -timeout=5 -rss_limit_mb=1024 -malloc_limit_mb=1024 -max_len=20000 \
        -artifact_prefix="$out/found/" -print_final_stats=1 -verbosity=0 "$out/corpus" "$out/seeds" 2>&1 |
        grep -v -e average_exec -e new_units
    seconds=$((seconds - seconds / 4))
else
    echo "== skipped: no clang++ with libFuzzer, or no libjpeg, for the JPEG crop (apt-get install clang libclang-rt-dev)"
fi
echo "== readers"
"$python" tests/fuzz/readers.py --seconds "$seconds"
