"""Traces as evidence for `check`: every one is read and audited in this run; files only say which ones to read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from residentkv.errors import NoInputError, ResidentKVError
from residentkv.files import read_input
from residentkv.lowering.anchors import AnchorReport
from residentkv.lowering.checking import CheckedRow
from residentkv.lowering.exhibits import TraceItem, is_about
from residentkv.lowering.format import Anchor, Polarity, TraceAnchor
from residentkv.lowering.model import Descriptor
from residentkv.report.shapes import TraceFileDocument

MAX_TOLD = 3
"""Findings of one trace that are told; `residentkv audit` tells all."""


def read_evidence(files: Sequence[str]) -> tuple[tuple[TraceItem, ...], list[str]]:
    """Return what the traces of some evidence files show in this run, and what a reader should know about them.

    Raises:
        NoInputError: an evidence file does not exist.
        InputError: it cannot be understood.
    """
    if not files:
        return (), []
    from residentkv.audit.confirm import confirm_evidence

    items: list[TraceItem] = []
    notes: list[str] = []
    for name in files:
        found = confirm_evidence(name)
        items.extend(found)
        notes.extend(_trace_notes(Path(name), found))
    return tuple(items), notes


def trace_files(files: Sequence[str]) -> list[TraceFileDocument]:
    """Return the traces of some evidence files with the digests of what lies there now; those that are gone are not.

    Raises:
        NoInputError: an evidence file does not exist.
        InputError: it cannot be understood.
    """
    from residentkv.audit.confirm import digest_trace

    found: dict[str, TraceFileDocument] = {}
    for folder, name in _traces_of(files):
        try:
            found[str(folder / name)] = {"path": str(folder / name), "sha256": digest_trace(folder, name)}
        except NoInputError:
            continue  # what it should have shown is a note of the report already
    return [found[path] for path in sorted(found)]


def _traces_of(files: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """Yield the traces that evidence files name, each with the folder that its name starts from."""
    from residentkv.audit.evidence import decode_evidence

    for file in files:
        for trace in decode_evidence(read_input(Path(file)), path=file).traces:
            yield Path(file).parent, trace.path


def named_traces(descriptors: Sequence[Descriptor], evidence: Sequence[str]) -> list[Path]:
    """Return the files of the traces that descriptors bring and evidence files name, of a rotated one every part.

    Raises:
        NoInputError: an evidence file does not exist.
        InputError: it cannot be understood.
    """
    beside = [
        (Path(d.path).parent, anchor.file)
        for d in descriptors
        for anchor in d.anchors.values()
        if isinstance(anchor, TraceAnchor)
    ]
    found: list[Path] = []
    for folder, name in [*beside, *_traces_of(evidence)]:
        from residentkv.audit.confirm import trace_path
        from residentkv.trace.segments import parts_of

        with contextlib.suppress(NoInputError):  # what is not there is not written over
            found.extend(map(Path, parts_of(trace_path(folder, name))))
    return found


def _trace_notes(path: Path, items: Sequence[TraceItem]) -> list[str]:
    """Tell of every trace that shows nothing, or not what the file says, why: the findings of the audit, by event."""
    from residentkv.audit.api import audit_file
    from residentkv.audit.confirm import trace_path
    from residentkv.audit.evidence import decode_evidence
    from residentkv.audit.model import AuditReport, Verdict

    def told(report: AuditReport) -> list[str]:
        lines = []
        for finding in report.all_findings()[:MAX_TOLD]:
            missing = f"; missing event: {finding.missing_event}" if finding.missing_event else ""
            lines.append(f"  {finding.code} {finding.slug}: {' '.join(finding.story)}{missing}")
        return lines

    notes: list[str] = []
    problems = {item.trace: item.problem for item in items if item.problem}
    # Only a conforming trace supports anything, so what supports without a problem needs no second audit.
    sound = {item.trace for item in items if item.polarity is Polarity.SUPPORTS} - problems.keys()
    for trace in decode_evidence(path.read_bytes(), path=str(path)).traces:
        if trace.path in sound:
            continue
        try:
            report = audit_file(trace_path(path.parent, trace.path))
        except ResidentKVError as e:
            notes.append(f"evidence {path}: {problems.get(trace.path) or e}")
            continue
        if report.verdict is Verdict.CONFORMING and trace.path not in problems:
            continue
        problem = f" ({problems[trace.path]})" if trace.path in problems else ""
        notes.append(f"evidence {path}: trace {trace.path} is {report.verdict.value}{problem}")
        notes.extend(told(report))
    return notes


def audit_brought_traces(
    descriptor: Descriptor, anchors: Mapping[str, Anchor], reports: Mapping[str, AnchorReport]
) -> dict[str, tuple[TraceItem, ...]]:
    """Audit the traces that a descriptor brings, those whose digest was verified, and return what each shows."""
    audited: dict[str, tuple[TraceItem, ...]] = {}
    for name, anchor in anchors.items():
        if not isinstance(anchor, TraceAnchor) or not reports[name].state.is_verified:
            continue
        from residentkv.audit.api import audit_file
        from residentkv.audit.confirm import items_of, trace_path

        report = audit_file(trace_path(Path(descriptor.path).parent, anchor.file))
        if report.sha256 == anchor.sha256:  # it could have been replaced since its digest was verified
            audited[name] = items_of(report, anchor.file)
    return audited


def unused_note(traces: Sequence[TraceItem], rows: Sequence[CheckedRow]) -> list[str]:
    """Return a sentence about evidence that is about none of the rows that were asked for, if there is any."""
    strangers = {
        (item.runtime, item.runtime_version, item.primitive, item.mode.value)
        for item in traces
        if not any(is_about(item, r.row, r.descriptor) for r in rows)
    }
    if not strangers:
        return []
    named = "; ".join(
        f"{primitive} of {runtime} {version} as {mode}" for runtime, version, primitive, mode in sorted(strangers)
    )
    return [f"evidence about none of the rows that were asked for: {named}"]
