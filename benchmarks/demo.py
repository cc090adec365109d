"""The results of `make demo` and how long it takes, in an empty folder: python benchmarks/demo.py"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _harness import origin, save

from dualfast.report.summary import COLUMNS, summarise
from dualfast.runs.rundir import RunDir


def main() -> None:
    about = origin()
    with tempfile.TemporaryDirectory() as folder:
        out, start = Path(folder) / "digits", time.perf_counter()
        subprocess.run([sys.executable, "-m", "dualfast", "demo", "--out", str(out)], check=True)
        seconds = time.perf_counter() - start
        results = RunDir(out).records("trained")
    lines = [dict(zip(COLUMNS, cells, strict=True)) for cells in summarise(results)]
    print(save("demo", [{"what": "dualfast demo", "trainings": len(results), "whole_s": seconds}, *lines], about))


if __name__ == "__main__":
    main()
