"""Checked rows and anchors as plain data, versioned apart from the types inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from residentkv.lowering.anchors import AnchorReport
from residentkv.lowering.checking import CheckedRow
from residentkv.lowering.matrix import cell_of
from residentkv.lowering.relation import Exhibit, ObligationResult, RowVerdict

JSON_SCHEMA = "residentkv.check/1"
CAVEAT = (
    "A verdict says what was audited at those versions. It is not a proof about unaudited behaviour, not a "
    "performance claim, and not a survey of runtimes."
)


def check_document(rows: Sequence[CheckedRow], exit_code: int, notes: Sequence[str]) -> dict[str, Any]:
    """Return the report as plain data, `residentkv.check/1`."""
    return {
        "schema": JSON_SCHEMA,
        "exit_code": exit_code,
        "descriptors": [
            {"path": d.path, "sha256": d.sha256, "runtime": d.runtime, "version": d.version}
            for d in {row.descriptor.sha256: row.descriptor for row in rows}.values()
        ],
        "rows": [_row_document(row) for row in rows],
        "notes": list(notes),
        "caveat": calibration(rows),
    }


def _row_document(checked: CheckedRow) -> dict[str, Any]:
    row, descriptor = checked.row, checked.descriptor
    recorded = None
    cell = cell_of(checked)
    if checked.recorded is not None:
        recorded = {**_verdict_document(checked.recorded), "is_verified": False, "from": list(checked.recorded_on)}
    return {
        "runtime": descriptor.runtime,
        "version": descriptor.version,
        "primitive": row.primitive.id,
        "mode": row.mode,
        "depth": row.depth,
        "adapters": [a.id for a in row.adapters],
        "why": [note.why for note in row.notes if note.why],
        "where": [str(note.where) for note in row.notes],
        **_verdict_document(checked.verdict),
        "decided_by": None if cell.obstacle is None else str(cell.obstacle),
        "anchors_state": cell.anchors_state,
        "anchors": [report_document(checked.anchors[name]) for name in sorted(checked.anchors)],
        "recorded": recorded,
    }


def _verdict_document(verdict: RowVerdict) -> dict[str, Any]:
    first = verdict.first_open
    return {
        "verdict": verdict.verdict,
        "evidence_class": verdict.evidence_class,
        "sentence": verdict.sentence,
        "first_open_obligation": None if first is None else first.obligation,
        "obligations": [_obligation_document(o) for o in verdict.obligations],
        "basis_problems": [s.sentence for s in verdict.basis_problems],
        "related": list(verdict.related),
        "related_problems": [s.sentence for s in verdict.related_problems],
    }


def _obligation_document(result: ObligationResult) -> dict[str, Any]:
    return {
        "obligation": result.obligation,
        "status": result.status,
        "sentence": result.sentence,
        "used": None if result.used is None else _exhibit_document(result.used),
        "contradicted_by": [_exhibit_document(e) for e in result.contradictions],
        "not_counted": [{**_exhibit_document(r.exhibit), "why": r.why} for r in result.refused],
    }


def _exhibit_document(exhibit: Exhibit) -> dict[str, Any]:
    return {
        "polarity": exhibit.polarity,
        "kind": exhibit.kind,
        "depth": exhibit.depth,
        "source": exhibit.source,
        "anchor": exhibit.standing.label,
        "state": exhibit.standing.state,
        "note": exhibit.note,
        "where": exhibit.place,
    }


def report_document(report: AnchorReport) -> dict[str, Any]:
    """Return one anchor report as plain data."""
    return {
        "anchor": report.anchor,
        "state": report.state,
        "target": report.target,
        "sentence": report.sentence,
        "lines": report.lines or None,
        "sha256": report.sha256 or None,
        "distribution": report.distribution or None,
        "version": report.version or None,
    }


def calibration(rows: Sequence[CheckedRow]) -> str:
    """Return what was audited, at which versions, and what a verdict does not say."""
    described = sorted({name_of(row) for row in rows})
    read = sorted({f"{r.distribution} {r.version}" for row in rows for r in row.anchors.values() if _was_read(r)})
    seen = f"read in this run: {', '.join(read)}" if read else "no package was read in this run"
    return f"Audited: {', '.join(described)} ({seen}). {CAVEAT}"


def name_of(checked: CheckedRow) -> str:
    """Return runtime and version of a row."""
    return f"{checked.descriptor.runtime} {checked.descriptor.version}"


def json_text(document: Any) -> str:
    """Return plain data as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _was_read(report: AnchorReport) -> bool:
    return bool(report.distribution and report.sha256)
