"""From a row, the anchors as found and the traces as audited to the exhibits that the relation judges. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet

from residentkv.claims.modes import Mode
from residentkv.lowering.anchors import AnchorReport, AnchorState, version_in
from residentkv.lowering.depth import Depth
from residentkv.lowering.format import EvidenceKind, Polarity, TraceAnchor
from residentkv.lowering.model import Descriptor, Evidence, Row
from residentkv.lowering.obligations import Obligation
from residentkv.lowering.relation import Exhibit, Standing


@dataclass(frozen=True, slots=True)
class TraceItem:
    """What an audit in this run says about one obligation of one mode.

    `problem` says why the item does not count although a file claims it (the trace changed, the audit says otherwise);
    it is empty for what the audit confirmed. `stands_in` names what was simulated in that run.
    """

    trace: str
    runtime: str
    runtime_version: str
    primitive: str
    adapter: str | None
    adapter_version: str
    depth: Depth
    mode: Mode
    obligation: Obligation
    polarity: Polarity
    kind: EvidenceKind
    note: str
    seqs: tuple[tuple[str, int, tuple[int, ...]], ...] = ()
    stands_in: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was read in this run for one descriptor.

    Args:
        anchors: report of every anchor that was looked at.
        audited: for each trace anchor, what the audit of its file says; absent when it was not audited.
        traces: what the audits of other traces say.
    """

    anchors: Mapping[str, AnchorReport]
    audited: Mapping[str, tuple[TraceItem, ...]]
    traces: tuple[TraceItem, ...] = ()


def anchor_standing(name: str, findings: Findings) -> Standing:
    """Return the standing of an anchor; one that was not looked at is not verified."""
    report = findings.anchors.get(name)
    if report is None:
        return Standing(name, False, False, AnchorState.UNREADABLE, f"anchor {name} was not looked at in this run")
    refuted = report.state in (AnchorState.CHANGED, AnchorState.ABSENT)
    sentence = f"anchor {name} {report.state.replace('_', ' ')}: {report.target}: {report.sentence}"
    return Standing(name, report.state.is_verified, refuted, report.state, sentence)


def row_exhibits(row: Row, descriptor: Descriptor, findings: Findings) -> Iterator[Exhibit]:
    """Yield every statement about a row, from the descriptor and from audited traces."""
    for evidence in row.evidence():
        yield Exhibit(
            obligation=evidence.obligation,
            polarity=evidence.polarity,
            kind=evidence.kind,
            depth=evidence.depth,
            standing=_evidence_standing(evidence, row, descriptor, findings),
            source=evidence.source,
            note=evidence.note,
            place=str(evidence.where),
        )
    # A trace that a descriptor brings may say more than the descriptor does: bad news in it counts.
    brought = [i for items in findings.audited.values() for i in items if i.polarity is Polarity.CONTRADICTS]
    for item in (*findings.traces, *brought):
        if is_about(item, row, descriptor):
            yield _item_exhibit(item, row, descriptor)


def is_about(item: TraceItem, row: Row, descriptor: Descriptor) -> bool:
    """Return whether a trace item names the runtime, primitive and mode of a row; its version is judged later."""
    return item.runtime == descriptor.runtime and item.primitive == row.primitive.id and item.mode is row.mode


def row_basis(row: Row, findings: Findings) -> Iterator[Standing]:
    """Yield the standings of what shows where the primitive and its adapters live."""
    return (anchor_standing(name, findings) for name in row.basis)


def row_related(row: Row, findings: Findings) -> Iterator[Standing]:
    """Yield the standings of what shows something like the promise."""
    return (anchor_standing(name, findings) for name in row.related)


def row_anchors(row: Row) -> Iterator[str]:
    """Yield the anchors that a row leans on, each at least once."""
    yield from row.basis
    yield from row.related
    for evidence in row.evidence():
        yield evidence.anchor


def placement_problem(item: TraceItem, row: Row, descriptor: Descriptor) -> str:
    """Return why an item cannot be placed in this descriptor (version, adapter, depth), or nothing."""
    if item.problem:
        return item.problem
    if not _version_fits(item.runtime_version, descriptor):
        return f"{item.trace} is of {item.runtime} {item.runtime_version}, expected {descriptor.versions}"
    if item.adapter is None:
        if item.depth is Depth.NATIVE:
            return ""
        return f"{item.trace} is at depth {item.depth} and names no adapter"
    known = [a for a in descriptor.adapters if a.id == item.adapter and a.primitive == row.primitive.id]
    if not known:
        return f"{item.trace} names the adapter {item.adapter}, which {descriptor.runtime} {descriptor.version} lacks"
    adapter = known[0]
    if adapter.depth is not item.depth:
        return f"{item.trace} has {item.adapter} at depth {item.depth}, expected {adapter.depth}"
    if adapter.versions and not version_in(item.adapter_version, SpecifierSet(adapter.versions)):
        found = item.adapter_version or "no version"
        return f"{item.trace} has {item.adapter} {found}, expected {adapter.versions}"
    return ""


def _version_fits(version: str, descriptor: Descriptor) -> bool:
    return version_in(version, SpecifierSet(descriptor.versions))


def _item_exhibit(item: TraceItem, row: Row, descriptor: Descriptor) -> Exhibit:
    problem = placement_problem(item, row, descriptor)
    simulated = f"; {', '.join(item.stands_in)} simulated" if item.stands_in else ""
    return Exhibit(
        obligation=item.obligation,
        polarity=item.polarity,
        kind=item.kind,
        depth=item.depth,
        standing=Standing(
            label=item.trace,
            is_verified=not problem,
            is_refuted=bool(problem),
            state="not usable" if problem else "audited",
            sentence=problem or f"{item.trace} was audited in this run",
        ),
        source=item.adapter or "native",
        note=item.note + simulated,
        place=item.trace,
        stands_in=item.stands_in,
    )


def _evidence_standing(evidence: Evidence, row: Row, descriptor: Descriptor, findings: Findings) -> Standing:
    standing = anchor_standing(evidence.anchor, findings)
    anchor = descriptor.anchors[evidence.anchor]
    if not isinstance(anchor, TraceAnchor) or not standing.is_verified:
        return standing
    problem = _trace_problem(evidence, anchor, row, descriptor, findings)
    if not problem:
        return standing
    sentence = f"anchor {evidence.anchor}: {anchor.file}: {problem}"
    return Standing(standing.label, False, evidence.anchor in findings.audited, AnchorState.UNREADABLE, sentence)


def _trace_problem(
    evidence: Evidence, anchor: TraceAnchor, row: Row, descriptor: Descriptor, findings: Findings
) -> str:
    """Return why the audit does not confirm trace evidence of a descriptor; a digest says nothing about events."""
    if evidence.anchor not in findings.audited:
        return "the trace was not audited in this run"
    adapter = None if evidence.source == "native" else evidence.source
    items = [
        item
        for item in findings.audited[evidence.anchor]
        if is_about(item, row, descriptor)
        and (item.obligation, item.polarity, item.kind) == (evidence.obligation, evidence.polarity, evidence.kind)
        and item.adapter == adapter
        and item.depth is evidence.depth
    ]
    if not items:
        return f"the audit does not say that it {evidence.polarity} {evidence.obligation} for {row.mode}"
    problems = [placement_problem(item, row, descriptor) for item in items]
    if all(problems):
        return problems[0]
    named = {(r.source, r.epoch, seq) for r in anchor.events for part in r.seqs for seq in _numbers(part)}
    shown = {(source, epoch, seq) for item in items for source, epoch, seqs in item.seqs for seq in seqs}
    stray = sorted(named - shown)
    if stray:
        source, epoch, seq = stray[0]
        return f"event {seq} of {source} epoch {epoch} is none of those that showed {evidence.obligation} to the audit"
    return ""


def _numbers(part: str) -> Iterable[int]:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)
