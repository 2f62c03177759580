"""Checked rows and anchors as plain data, versioned apart from the types inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from residentkv.lowering.anchors import AnchorReport
from residentkv.lowering.baseline import RowChange
from residentkv.lowering.checking import CheckedRow
from residentkv.lowering.codes import WORSE
from residentkv.lowering.matrix import cell_of
from residentkv.lowering.relation import Exhibit, ObligationResult, RowVerdict
from residentkv.report.plain import escape_json
from residentkv.report.shapes import (
    AnchorDocument,
    BaselineDocument,
    CheckDocument,
    ExhibitDocument,
    ObligationDocument,
    RecordedDocument,
    RowAnchorDocument,
    RowDocument,
    TraceFileDocument,
    VerdictDocument,
)

JSON_SCHEMA: Final = "residentkv.check/1"
CAVEAT = (
    "A verdict says what was audited at those versions. It is not a proof about unaudited behaviour, not a "
    "performance claim, and not a survey of runtimes."
)


def check_document(
    rows: Sequence[CheckedRow],
    exit_code: int,
    notes: Sequence[str],
    *,
    evidence: Sequence[TraceFileDocument] = (),
    baseline: BaselineDocument | None = None,
) -> CheckDocument:
    """Return the report as plain data, `residentkv.check/1`.

    Args:
        rows: what was judged.
        exit_code: what the command ends with.
        notes: sentences for the reader.
        evidence: the traces that were given and audited again.
        baseline: what changed since a baseline, when there is one.
    """
    return {
        "schema": JSON_SCHEMA,
        "exit_code": exit_code,
        "descriptors": [
            {"path": d.path, "sha256": d.sha256, "runtime": d.runtime, "version": d.version}
            for d in {row.descriptor.sha256: row.descriptor for row in rows}.values()
        ],
        "evidence": list(evidence),
        "rows": [_row_document(row) for row in rows],
        "baseline": baseline,
        "notes": list(notes),
        "caveat": calibration(rows),
    }


def baseline_document(path: str, sha256: str, changes: Sequence[RowChange], unchanged: int) -> BaselineDocument:
    """Return what changed since a baseline as plain data."""
    return {
        "path": path,
        "sha256": sha256,
        "unchanged": unchanged,
        "changes": [
            {
                "runtime": c.runtime,
                "primitive": c.primitive,
                "mode": c.mode,
                "depth": c.depth,
                "change": c.change.value,
                "version_before": c.version_before,
                "version_now": c.version_now,
                "verdict_before": None if c.verdict_before is None else c.verdict_before.value,
                "verdict_now": None if c.verdict_now is None else c.verdict_now.value,
                "sentence": c.sentence,
            }
            for c in changes
        ],
    }


def baseline_notes(baseline: BaselineDocument) -> list[str]:
    """Return in sentences what changed since a baseline, worst first."""
    changes = baseline["changes"]
    worse = sum(c["change"] in ("worse", "gone") for c in changes)
    counts = f"{worse} worse, {len(changes) - worse} otherwise changed, {baseline['unchanged']} as they were"
    codes = {"worse": f"{WORSE.code} ", "gone": f"{WORSE.code} "}
    told = [f"{codes.get(c['change'], '')}{c['change']}: {c['sentence']}" for c in changes]
    return [f"since {baseline['path']}: {counts}", *told]


def _row_document(checked: CheckedRow) -> RowDocument:
    row, descriptor = checked.row, checked.descriptor
    recorded: RecordedDocument | None = None
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
        "anchors": [_row_anchor_document(checked, name) for name in sorted(checked.anchors)],
        "recorded": recorded,
    }


def _verdict_document(verdict: RowVerdict) -> VerdictDocument:
    first = verdict.first_open
    return {
        "verdict": verdict.verdict.value,
        "evidence_class": verdict.evidence_class,
        "sentence": verdict.sentence,
        "first_open_obligation": None if first is None else first.obligation,
        "obligations": [_obligation_document(o) for o in verdict.obligations],
        "basis_problems": [s.sentence for s in verdict.basis_problems],
        "related": list(verdict.related),
        "related_problems": [s.sentence for s in verdict.related_problems],
    }


def _obligation_document(result: ObligationResult) -> ObligationDocument:
    return {
        "obligation": result.obligation,
        "status": result.status.value,
        "sentence": result.sentence,
        "used": None if result.used is None else _exhibit_document(result.used),
        "contradicted_by": [_exhibit_document(e) for e in result.contradictions],
        "not_counted": [{**_exhibit_document(r.exhibit), "why": r.why} for r in result.refused],
    }


def _exhibit_document(exhibit: Exhibit) -> ExhibitDocument:
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


def report_document(report: AnchorReport) -> AnchorDocument:
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


def _row_anchor_document(checked: CheckedRow, name: str) -> RowAnchorDocument:
    anchor = checked.descriptor.anchors[name]

    def word(key: str) -> str | None:
        value = getattr(anchor, key, None)
        return value if isinstance(value, str) else None

    return {
        **report_document(checked.anchors[name]),
        "where": str(checked.descriptor.anchor_places[name]),
        "package": word("package"),
        "repository": word("repository"),
        "commit": word("commit"),
        "file": word("file"),
        "symbol": word("symbol"),
        "url": word("url"),
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
    """Return plain data as indented JSON, control characters and bytes of a file name that are no text as escapes."""
    try:
        encoded = msgspec.json.encode(document)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_as_text(msgspec.to_builtins(document)))
    return escape_json(msgspec.json.format(encoded, indent=2).decode())


def _as_text(value: Any) -> Any:
    """Return plain data in which a byte that is no text is shown as `\\udcff`, as every other format shows it."""
    if isinstance(value, Mapping):
        return {key: _as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _was_read(report: AnchorReport) -> bool:
    return bool(report.distribution and report.sha256)
