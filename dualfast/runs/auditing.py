"""The audit of a run's labels: audit.csv, and a record of how many look wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dualfast.config import Scoring
from dualfast.notices import warn
from dualfast.runs.export import beton_of, free_path, new_folder, originals_of
from dualfast.runs.rundir import RunDir
from dualfast.runs.session import RunSession
from dualfast.selection.audit import FEWEST_VISITS, Audit, audit_table
from dualfast.selection.audit_exports import EXPORTS, export, has_decisions
from dualfast.storage.files import check_folder

MAX_NAME = 255  # bytes of a file's name


def audit(path: str | Path, out: str | Path | None, kind: str = "table") -> tuple[Audit, Path | None]:
    """Audits the labels of a run directory, by the scores of its first seed, or of a score table; returns the audit and
    the path of what was written: `out`, else audit.csv of a run directory, else none. kind: "table", one of EXPORTS,
    or, of a run directory, "links". ValueError for a directory without scores, and as audit_table() and export()."""
    if not Path(path).is_dir():
        if kind == "links":
            raise ValueError(f"{str(path)!r} is not a run directory; links need the run's images")
        found = audit_table(path)
    else:
        run_dir = RunDir(path)
        seeds = run_dir.scored_seeds()
        if not seeds:
            raise ValueError(f"{str(path)!r} has no scores; dualfast score --out {path} gathers them")
        found = audit_table(run_dir.scores_path(seeds[0]))
        if kind == "links":
            return found, _write_links(found, run_dir, free_path(Path(out or run_dir.path / "audit-links")))
        name = run_dir.audit_path.name if kind == "table" else f"audit-{kind}{EXPORTS[kind][1]}"
        out = out or run_dir.path / name
    if out is None:
        if kind != "table":
            raise ValueError(f"out is missing; name the file for {kind} with --out")
        return found, None
    check_folder(Path(out))
    if kind == "table" and has_decisions(out):
        warn(f"{out} has decisions in it, and stays as it is; name another file with --out for a new table")
    elif kind == "table":
        found.save(out)
    else:
        export(found, kind, out)
    return found, Path(out)


def _write_links(found: Audit, run_dir: RunDir, out: Path) -> Path:
    """A folder of links to the images whose labels look wrong, which its names sort by suspicion: rank, quality, given
    class, likely class, the last part of the sample's name. An image that is not a file of its own, or has changed, is
    written as it is stored."""
    beton = beton_of(run_dir)
    originals = originals_of(run_dir, beton)
    width = len(str(found.n_wrong))
    with new_folder(out) as folder:
        for rank, id_ in enumerate(found.suspects.tolist(), 1):
            original = originals.path(id_)
            data, suffix = (b"", original.suffix) if original is not None else originals.stored(id_)
            likely = [] if found.likely is None else [found.class_name(int(found.likely[id_]))]
            words = [found.class_name(int(found.labels[id_])), *likely]
            words.append(str(id_) if found.names is None else Path(str(found.names[id_])).stem)
            name = "-".join([f"{rank:0{width}}", f"{found.quality[id_]:.3f}", *words]).replace("/", "_")
            place = folder / (_shortened(name, MAX_NAME - len(suffix.encode())) + suffix)
            if original is None:
                place.write_bytes(data)
            else:
                place.symlink_to(original)
    return out


def _shortened(text: str, most: int) -> str:
    """The text, or as much of its beginning as takes at most so many bytes."""
    return text.encode(errors="surrogateescape")[:most].decode(errors="ignore")


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
