"""The audit of a run's labels: audit.csv, and a record of how many look wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dualfast.config import Scoring
from dualfast.runs.rundir import RunDir
from dualfast.runs.session import RunSession
from dualfast.selection.audit import FEWEST_VISITS, Audit, audit_table
from dualfast.selection.audit_exports import EXPORTS, export
from dualfast.storage.files import check_folder


def audit(path: str | Path, out: str | Path | None, kind: str = "table") -> tuple[Audit, Path | None]:
    """Audits the labels of a run directory, by the scores of its first seed, or of a score table; returns the audit and
    the path of the file written: `out`, else audit.csv of a run directory, else none. kind: "table", or one of EXPORTS.
    ValueError for a directory without scores, and as audit_table() and export()."""
    if not Path(path).is_dir():
        found = audit_table(path)
    else:
        run_dir = RunDir(path)
        seeds = run_dir.scored_seeds()
        if not seeds:
            raise ValueError(f"{str(path)!r} has no scores; dualfast score --out {path} gathers them")
        found = audit_table(run_dir.scores_path(seeds[0]))
        name = run_dir.audit_path.name if kind == "table" else f"audit-{kind}{EXPORTS[kind][1]}"
        out = out or run_dir.path / name
    if out is None:
        if kind != "table":
            raise ValueError(f"out is missing; name the file for {kind} with --out")
        return found, None
    check_folder(Path(out))
    if kind == "table":
        found.save(out)
    else:
        export(found, kind, out)
    return found, Path(out)


def audit_once(session: RunSession, scoring: Scoring) -> None:
    """Writes audit.csv of a run directory with scores, and records it, unless that is done. Too few epochs leave it
    out; labels that cannot be audited are a line of progress."""
    run_dir = session.run_dir

    def write() -> None:
        if not run_dir.scored_seeds() or run_dir.records("audited"):
            return
        session.progress.step("auditing the labels")
        try:
            found, _ = audit(run_dir.path, None)
        except ValueError as error:
            session.progress.note(f"no {run_dir.audit_path.name}: {error}")
            return
        run_dir.append({"event": "audited", "n_wrong": found.n_wrong, "n_samples": len(found.labels)})

    if scoring.score_epochs >= FEWEST_VISITS:
        session.ranks.run_on_rank0("auditing the labels", write)


def audit_facts(run: Path) -> dict[str, Any]:
    """What a run directory records of its audit: n_wrong, n_samples and the path of its table; empty without one."""
    run_dir = RunDir(run)
    records = run_dir.records("audited")
    if not records:
        return {}
    return {"n_wrong": records[-1]["n_wrong"], "n_samples": records[-1]["n_samples"], "audit": run_dir.audit_path}
