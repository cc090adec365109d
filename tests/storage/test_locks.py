"""dualfast.storage.locks: one process at a time, until it ends."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from dualfast.storage.locks import lock_folder


def test_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "runs" / "new"
    with lock_folder(out):
        (out / "config.yaml").write_text("")
        with pytest.raises(ValueError, match=r"runs/new' is in use by another run.*--out"), lock_folder(out):
            pass
    with lock_folder(out):
        pass

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with lock_folder(out), lock_folder(out):
        pass


def test_the_lock_of_a_killed_run_is_gone(tmp_path: Path) -> None:
    code = (
        "import os\nfrom dualfast.storage.locks import lock_folder\n"
        f"lock_folder({str(tmp_path)!r}).__enter__()\nos.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    with lock_folder(tmp_path):
        pass
