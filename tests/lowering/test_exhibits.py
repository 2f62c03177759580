"""From descriptor, anchors and audited traces to exhibits: what may be placed where."""

from __future__ import annotations

import dataclasses

import pytest

from residentkv.claims.modes import Mode
from residentkv.lowering.anchors import AnchorReport, AnchorState
from residentkv.lowering.checking import check_row
from residentkv.lowering.depth import Depth
from residentkv.lowering.descriptor import decode_descriptor
from residentkv.lowering.exhibits import Findings, TraceItem
from residentkv.lowering.format import EvidenceKind, Polarity
from residentkv.lowering.model import Descriptor, Row
from residentkv.lowering.obligations import BUNDLES, Obligation
from residentkv.lowering.relation import RowVerdict, Status, Verdict

TEXT = """\
schema: residentkv.descriptor/1
runtime: somertime
version: "1.4"
title: t
package: {name: somertime, versions: ">=1.4,<1.5"}
anchors:
  pool: {type: package, package: somertime, file: a.py, symbol: A, sha256: "SHA"}
  run: {type: trace, file: run.jsonl, events: [{source: s, epoch: 0, seqs: ["3-4"]}], sha256: "SHA"}
primitives:
  - {id: lru, title: t, summary: s, where: [pool], rows: [{mode: offloadable}, {mode: best_effort}], evidence: NATIVE}
  - {id: other, title: t, summary: s, where: [pool], rows: [{mode: offloadable}], evidence: []}
adapters:
  - {id: plug, title: t, depth: plugin, primitive: lru, versions: ">=0.2", rows: [{mode: offloadable}], evidence: []}
  - {id: watch, title: t, depth: observe, primitive: lru, rows: [{mode: best_effort}], evidence: []}
"""


def describe(native: str = "[]") -> Descriptor:
    return decode_descriptor(TEXT.replace('"SHA"', '"' + "0" * 64 + '"').replace("NATIVE", native).encode(), "d.yaml")


def item(obligation: Obligation, **changes: object) -> TraceItem:
    made = TraceItem(
        trace="run.jsonl",
        runtime="somertime",
        runtime_version="1.4.2",
        primitive="lru",
        adapter="plug",
        adapter_version="0.2.0",
        depth=Depth.PLUGIN,
        mode=Mode.OFFLOADABLE,
        obligation=obligation,
        polarity=Polarity.SUPPORTS,
        kind=EvidenceKind.TRACE,
        note="seen",
        seqs=(("s", 0, (1, 2, 3, 4)),),
    )
    return dataclasses.replace(made, **changes)


def full(**changes: object) -> tuple[TraceItem, ...]:
    mode = changes.get("mode", Mode.OFFLOADABLE)
    assert isinstance(mode, Mode)
    return tuple(item(o, **changes) for o in BUNDLES[mode])


def row_of(descriptor: Descriptor, primitive: str, mode: Mode, depth: Depth) -> Row:
    return next(r for r in descriptor.rows() if (r.primitive.id, r.mode, r.depth) == (primitive, mode, depth))


def judge(
    traces: tuple[TraceItem, ...] = (),
    descriptor: Descriptor | None = None,
    row: tuple[str, Mode, Depth] = ("lru", Mode.OFFLOADABLE, Depth.PLUGIN),
    audited: dict[str, tuple[TraceItem, ...]] | None = None,
    state: AnchorState = AnchorState.VERIFIED,
) -> RowVerdict:
    descriptor = descriptor or describe()
    reports = {name: AnchorReport(name, state, "s", "t") for name in descriptor.anchors}
    findings = Findings(reports, audited or {}, traces)
    return check_row(row_of(descriptor, *row), descriptor, findings).verdict


def test_traces_of_the_plugin_make_its_row_sound():
    """The whole bundle, audited in this run."""
    assert judge(full()).verdict is Verdict.SOUND_WITH_ADAPTER


def test_without_the_traces_it_is_not_positive():
    """And comes back with them: nothing is remembered."""
    assert judge(()).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("row", [("lru", Mode.OFFLOADABLE, Depth.NATIVE), ("other", Mode.OFFLOADABLE, Depth.NATIVE)])
def test_traces_of_the_plugin_make_no_other_row_sound(row):
    """Neither the runtime as shipped nor another primitive earns what the plugin does."""
    assert judge(full(), row=row).verdict is Verdict.UNKNOWN


def test_traces_of_another_mode_do_not_count():
    """A claim of one mode says nothing about another."""
    offered = full(mode=Mode.HARD_PROTECTED)
    assert {r.status for r in judge(offered).obligations} == {Status.MISSING}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"runtime_version": "1.5.0"}, "is of somertime 1.5.0, expected >=1.4,<1.5"),
        ({"runtime_version": "newest"}, "is of somertime newest"),
        ({"adapter": "plugh"}, "names the adapter plugh"),
        ({"adapter": None}, "names no adapter"),
        ({"depth": Depth.POLICY}, "has plug at depth policy, expected plugin"),
        ({"adapter_version": "0.1.0"}, "has plug 0.1.0, expected >=0.2"),
        ({"adapter_version": ""}, "has plug no version, expected >=0.2"),
        ({"problem": "the trace changed"}, "the trace changed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("polarity", list(Polarity))
def test_a_trace_that_cannot_be_placed_leaves_unknown_for_good_and_bad_news(changes, why, polarity):
    """It is not ignored: ignoring a contradiction would help."""
    verdict = judge(tuple(dataclasses.replace(i, **changes, polarity=polarity) for i in full()))
    assert verdict.verdict is Verdict.UNKNOWN
    assert {r.status for r in verdict.obligations} == {Status.UNKNOWN}
    assert why in verdict.sentence


def test_a_violation_in_a_trace_rejects_the_row():
    """Whatever the other traces show."""
    bad = item(Obligation.RESTORE_BEFORE_REUSE, polarity=Polarity.CONTRADICTS)
    assert judge((*full(), bad)).verdict is Verdict.REJECTED


def test_a_trace_of_another_runtime_is_not_about_the_row():
    """It is neither for nor against."""
    verdict = judge(full(runtime="otherruntime"))
    assert {r.status for r in verdict.obligations} == {Status.MISSING}


def test_what_was_simulated_is_told_with_the_evidence():
    """A stand-in limits what a trace shows."""
    verdict = judge(full(stands_in=("attention kernel",)))
    assert "attention kernel simulated" in verdict.obligations[0].sentence


NATIVE = """\
[{obligation: claim_identity, polarity: supports, kind: trace, anchor: run, note: n, modes: [best_effort]}]"""
BEST = ("lru", Mode.BEST_EFFORT, Depth.NATIVE)


def status(audited: dict[str, tuple[TraceItem, ...]], state: AnchorState = AnchorState.VERIFIED) -> tuple[Status, str]:
    result = judge(descriptor=describe(NATIVE), row=BEST, audited=audited, state=state).obligations[0]
    return result.status, result.sentence


def native(**changes: object) -> TraceItem:
    base = {"adapter": None, "depth": Depth.NATIVE, "mode": Mode.BEST_EFFORT}
    return dataclasses.replace(item(Obligation.CLAIM_IDENTITY), **{**base, **changes})


def test_trace_evidence_of_a_descriptor_is_satisfied_when_the_audit_says_so():
    """Digest and audit agree, and the named events are among those that showed it."""
    assert status({"run": (native(),)})[0] is Status.SATISFIED


def test_a_digest_alone_proves_nothing_about_events():
    """Not audited in this run."""
    assert status({}) == (Status.UNKNOWN, "anchor run: run.jsonl: the trace was not audited in this run")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"obligation": Obligation.JOINABILITY}, "does not say that it supports claim_identity"),
        ({"mode": Mode.OFFLOADABLE}, "does not say that it supports claim_identity"),
        ({"adapter": "watch", "depth": Depth.OBSERVE}, "does not say that it supports claim_identity"),
        ({"runtime_version": "2.0"}, "is of somertime 2.0"),
        ({"seqs": (("s", 0, (1, 2)),)}, "event 3 of s epoch 0"),
        ({"seqs": (("s", 1, (3, 4)),)}, "event 3 of s epoch 0"),
    ],
)
def test_trace_evidence_that_the_audit_does_not_confirm_is_unknown(changes, why):
    """The descriptor's word is not enough."""
    found, sentence = status({"run": (native(**changes),)})
    assert found is Status.UNKNOWN
    assert why in sentence


def test_bad_news_in_a_trace_of_a_descriptor_counts_although_the_descriptor_does_not_tell_it():
    """The descriptor names the good half of its own trace."""
    bad = native(obligation=Obligation.JOINABILITY, polarity=Polarity.CONTRADICTS)
    verdict = judge(descriptor=describe(NATIVE), row=BEST, audited={"run": (native(), bad)})
    assert verdict.verdict is Verdict.REJECTED


def test_trace_evidence_with_another_digest_is_unknown_whatever_the_audit_says():
    """The audited file is another file."""
    assert status({"run": (native(),)}, AnchorState.CHANGED)[0] is Status.UNKNOWN


def test_a_contradiction_that_is_limited_to_some_depths_does_not_reach_others():
    """What the runtime does as shipped need not hold once a plugin replaces it."""
    limited = (
        "[{obligation: restore_before_reuse, polarity: contradicts, kind: source, anchor: pool, note: n,"
        " depths: [native, observe, policy]}]"
    )
    everywhere = limited.replace(", depths: [native, observe, policy]", "")
    assert judge(full(), describe(limited)).verdict is Verdict.SOUND_WITH_ADAPTER
    assert judge(full(), describe(everywhere)).verdict is Verdict.REJECTED
    assert judge((), describe(limited), ("lru", Mode.OFFLOADABLE, Depth.NATIVE)).verdict is Verdict.REJECTED


def test_a_primitive_that_is_not_on_this_machine_is_unknown_with_all_traces():
    """A row whose anchors cannot be read here is unknown."""
    verdict = judge(full(), state=AnchorState.UNREADABLE)
    assert verdict.verdict is Verdict.UNKNOWN
    assert "could not be seen here" in verdict.sentence
