#!/usr/bin/env bash
# What needs a GPU, in one call under nine minutes: first that the kernels are right, then how fast they are.
#
#   bash benchmarks/gpu.sh
#
# Needs Python 3.11 or later with torch 2.6+, triton, numpy, pytest, setuptools, pybind11, and g++; pytest-xdist helps.
# Nothing is fetched: carry what is missing as wheels in .whl/, with Liger-Kernel (liger_kernel-*.whl), which is measured
# when it is there. FFCV is not needed. The tree need not be a git checkout; DUALFAST_COMMIT says which commit it is.
# Results go to benchmarks/results/ and, where OUT is set, there too, with the log of the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-$(mktemp -d)}
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda} # cpu tries all of it on a machine without a GPU, in the interpreter and on few sizes
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}

site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
if compgen -G '.whl/*.whl' > /dev/null; then
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$site" .whl/*.whl
fi

echo "== build ($(date +%T))"
"$PYTHON" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-build-isolation --target "$site" .
(cd / && "$PYTHON" - << 'PY'
import dualfast, dualfast.ops, torch, triton
print("dualfast", dualfast.__version__, "torch", torch.__version__, "triton", triton.__version__)
print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
PY
)

echo "== correctness ($(date +%T))"
# The tests run from a folder without the package, so that the installed one is what they import.
tests=$(mktemp -d)
cp tests/*.py "$tests"
spread=()
if "$PYTHON" -c 'import xdist' 2> /dev/null; then spread=(-n "$(($(nproc) < 12 ? $(nproc) : 12))"); fi
if [ "$DEVICE" = cuda ]; then
    export DUALFAST_TEST_DEVICE=cuda
    chosen=(interpreted_kernels.py test_training.py test_tdds.py)
else
    export TRITON_INTERPRET=1
    chosen=(interpreted_kernels.py)
fi
red=0
(cd "$tests" && timeout 200 "$PYTHON" -m pytest -q --disable-warnings -p no:cacheprovider "${spread[@]}" "${chosen[@]}") \
    2>&1 | tee "$OUT/tests.log" || red=1
unset TRITON_INTERPRET

echo "== step ($(date +%T))"
few=()
if [ "$DEVICE" = cpu ]; then few=(--size 1024x10 --dtype fp32 --repeats 3 --compile); fi
timeout 270 "$PYTHON" benchmarks/bench_step.py --device "$DEVICE" "${few[@]}" 2>&1 | tee "$OUT/step.md" || {
    echo "bench_step ended early; what it had is saved"
}
find benchmarks/results -name '*-step.json' -newer "$OUT/tests.log" -exec cp {} "$OUT/" \;
echo "== done ($(date +%T)); in $OUT:"
ls "$OUT"
if [ $red = 1 ]; then echo "the tests are red: the times above count for nothing"; fi
exit $red
