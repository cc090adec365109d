#!/usr/bin/env bash
# run.sh [TEST ...]: these tests, or those that do most in C++, with the extension built with AddressSanitizer and
# UndefinedBehaviorSanitizer; then threads.cpp with ThreadSanitizer. What a missing compiler cannot build is skipped, with
# a message.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$PWD/.venv/bin/python out=$PWD/build/sanitize jobs=$(nproc)
[ $# -gt 0 ] || set -- tests/ops/test_{crops,images,philox,step}.py tests/selection/test_{beta,groups,select,streaming}.py \
    tests/loading/test_{buffers,decode,loader}.py
jpeg=$(pkg-config --cflags --libs libjpeg 2>/dev/null) && jpeg="-DDUALFAST_JPEG $jpeg" || jpeg=""
flags="-std=c++17 -O1 -g -fno-omit-frame-pointer -ffp-contract=off -fopenmp -fPIC -Icsrc"
flags+=" -DDUALFAST_VERSION='\"sanitized\"'"

# compiled FOLDER COMPILER-AND-FLAGS SOURCE ...: objects; those that are newer than their source and all headers are kept
compiled() {
    local folder=$1 command=$2
    shift 2
    mkdir -p "$folder"
    newest=$(ls -t csrc/*.h tests/sanitize/run.sh | head -1)
    for source in "$@"; do
        object=$folder/$(basename "$source").o
        { [ "$object" -nt "$newest" ] && [ "$object" -nt "$source" ]; } || printf '%s\n' "$command -c $source -o $object"
    done | xargs -r -d '\n' -P "$jobs" -I{} sh -c '{}'
}

asan=$(g++ -print-file-name=libasan.so 2>/dev/null || true)
if [ -e "$asan" ]; then
    echo "== AddressSanitizer and UndefinedBehaviorSanitizer: $*"
    "$python" -c "import pybind11" 2>/dev/null ||
        "$python" -m pip install -q --disable-pip-version-check -c constraints.txt pybind11
    sanitize="-fsanitize=address,undefined -fno-sanitize-recover=undefined"
    bindings=$(ls csrc/register_*.cpp csrc/module.cpp)
    # The bindings, nearly all of it pybind11, take most of the time to compile: without the optimizer and with
    # AddressSanitizer alone a third of it.
    # shellcheck disable=SC2086
    compiled "$out/asan" "g++ $flags -O0 -fsanitize=address -fvisibility=hidden $("$python" -m pybind11 --includes) $jpeg" \
        $bindings
    # shellcheck disable=SC2086,SC2046
    compiled "$out/asan" "g++ $flags $sanitize -fvisibility=hidden $jpeg" $(ls csrc/*.cpp | grep -v -F "$bindings")
    # shellcheck disable=SC2086
    g++ -shared $sanitize -fopenmp "$out"/asan/*.o -o "$out/_C.so" $jpeg
    # libstdc++, too: AddressSanitizer looks for its exceptions when the process starts. Python's own leaks are many.
    LD_PRELOAD="$asan $(g++ -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
        UBSAN_OPTIONS=print_stacktrace=1 SANITIZED_C=$out/_C.so PYTHONPATH=tests/sanitize \
        "$python" -m pytest -q -p sanitized -k "not memory_that_runs_out" "$@" # which limits the address space
else
    echo "== skipped: g++ has no libasan here, which AddressSanitizer needs"
fi

# Archer tells ThreadSanitizer how OpenMP's threads wait for each other; a compiler may come without it.
archer=""
for clang in clang++ $(ls /usr/bin/clang++-[0-9]* 2>/dev/null | sort -rV); do
    archer=$(dirname "$("$clang" -print-prog-name=clang 2>/dev/null)")/../lib/libarcher.so
    [ -e "$archer" ] && break
done
if [ -e "$archer" ]; then
    echo "== ThreadSanitizer: selection, training step, loading"
    # shellcheck disable=SC2046
    compiled "$out/tsan" "$clang $flags -fsanitize=thread -Wno-unknown-pragmas -Wno-pass-failed $jpeg" \
        tests/sanitize/threads.cpp $(ls csrc/*.cpp | grep -v -e register_ -e module.cpp)
    # shellcheck disable=SC2086
    "$clang" -fsanitize=thread -fopenmp "$out"/tsan/*.o -o "$out/threads" $jpeg
    LD_LIBRARY_PATH=$(dirname "$archer") OMP_TOOL_LIBRARIES=libarcher.so \
        TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1 "$out/threads"
else
    echo "== skipped: no clang++ with libomp and libarcher (apt-get install clang libomp-dev), which ThreadSanitizer needs"
fi
