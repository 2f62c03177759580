"""The descriptor of stock vLLM 0.32.0, judged without vLLM: verified anchors are assumed or missing, never read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from residentkv.claims.modes import Mode
from residentkv.lowering.anchors import AnchorVerifier, PackageCopy, Scope, TargetUnreadableError
from residentkv.lowering.depth import Depth
from residentkv.lowering.exhibits import TraceItem
from residentkv.lowering.format import EvidenceKind, PackageAnchor, Polarity
from residentkv.lowering.model import Descriptor, Row
from residentkv.lowering.obligations import BUNDLES, Obligation
from residentkv.lowering.relation import EvidenceClass, Status, Verdict
from tests.descriptors.vllm_matrix import MODES, assume_states, judge, judge_stock, load_vllm, stock_matrix

STUDIES = Path(__file__).parents[2] / "docs" / "studies.md"
PLUGIN = "residentkv_plugin"

ASKED_FOR = {
    "prefix_cache",
    "kv_events",
    "cache_salt",
    "request_priority",
    "prefix_cache_retention_interval",
    "offloading_connector",
    "tier_cache_policy",
    "kv_hints",
    "nixl_lease",
    "kv_load_failure_policy",
    "admission_watermark",
    "block_ref_counting",
}


class Nothing:
    """A machine on which nothing is installed."""

    def package_copies(self, names: object) -> list[PackageCopy]:
        return []

    def git_file(self, repository: str, commit: str, file: str) -> bytes:
        raise TargetUnreadableError("no checkout")

    def document_text(self, url: str) -> str:
        raise TargetUnreadableError("no document")

    def trace_bytes(self, descriptor: str, file: str) -> bytes:
        raise TargetUnreadableError("no trace")


@pytest.fixture(scope="module")
def vllm() -> Descriptor:
    return load_vllm()


def plugin_row(descriptor: Descriptor, mode: Mode = Mode.OFFLOADABLE) -> Row:
    rows = [r for r in descriptor.rows() if r.depth is Depth.PLUGIN and r.mode is mode]
    assert len(rows) == 1
    return rows[0]


def plugin_traces(
    descriptor: Descriptor, leave_out: Obligation | None = None, mode: Mode = Mode.OFFLOADABLE
) -> tuple[TraceItem, ...]:
    """What the audits of the traces of a mode say together, for example of a restored and of a failed load."""
    return tuple(
        TraceItem(
            trace="witness.jsonl",
            runtime=descriptor.runtime,
            runtime_version=descriptor.version,
            primitive="offloading_connector",
            adapter=PLUGIN,
            adapter_version="0.1.0",
            depth=Depth.PLUGIN,
            mode=mode,
            obligation=obligation,
            polarity=Polarity.SUPPORTS,
            kind=EvidenceKind.TRACE,
            note="observed",
        )
        for obligation in BUNDLES[mode]
        if obligation is not leave_out
    )


def test_every_primitive_that_was_asked_for_is_described(vllm: Descriptor) -> None:
    """At least the twelve primitives that users mistake for promises have rows."""
    assert {p.id for p in vllm.primitives} >= ASKED_FOR


def test_verdicts_with_every_anchor_verified_are_the_snapshot(vllm: Descriptor) -> None:
    """The matrix of verdicts changes only on purpose."""
    assert judge_stock(vllm, assume_states(vllm)) == stock_matrix()


def test_no_stock_row_is_positive_on_source_alone(vllm: Descriptor) -> None:
    """Behavioural obligations need traces or experiments, so source can only reject or approximate."""
    verdicts = [judge(row, vllm, assume_states(vllm)).verdict for row in vllm.rows()]
    assert verdicts
    assert not any(v.is_positive for v in verdicts)


def test_every_row_is_unknown_where_vllm_cannot_be_read(vllm: Descriptor) -> None:
    """Without the package nothing is verified, and what is not verified neither supports nor rejects."""
    scope = Scope("0.32.yaml", vllm.package, vllm.distributions, vllm.versions)
    reports = AnchorVerifier(Nothing()).verify_all(vllm.anchors, scope)
    for row in vllm.rows():
        assert judge(row, vllm, reports).verdict is Verdict.UNKNOWN, (row.primitive.id, row.mode)


def test_every_rejection_names_an_anchor_and_says_what_the_code_does(vllm: Descriptor) -> None:
    """A contradiction is a statement about a named piece of source, told in a sentence."""
    for row in vllm.rows():
        verdict = judge(row, vllm, assume_states(vllm))
        against = [e for o in verdict.obligations for e in o.contradictions]
        assert bool(against) == (verdict.verdict is Verdict.REJECTED)
        for exhibit in against:
            anchor = vllm.anchors[exhibit.standing.label]
            assert isinstance(anchor, PackageAnchor)
            assert anchor.symbol
            assert exhibit.note.endswith(".")


def test_a_rejection_falls_back_to_unknown_when_its_code_has_changed(vllm: Descriptor) -> None:
    """Losing sight of bad news is no good news: the obligation becomes unknown, and so does the row."""
    for row in vllm.rows():
        before = judge(row, vllm, assume_states(vllm))
        against = {e.standing.label for o in before.obligations for e in o.contradictions}
        if against:
            assert judge(row, vllm, assume_states(vllm, against)).verdict is Verdict.UNKNOWN, (
                row.primitive.id,
                row.mode,
            )


def test_an_approximate_row_becomes_unknown_when_what_it_resembles_has_changed(vllm: Descriptor) -> None:
    """A row leans on its related anchors; a changed one says that the study is out of date."""
    for row in vllm.rows():
        if judge(row, vllm, assume_states(vllm)).verdict is Verdict.APPROXIMATE:
            assert judge(row, vllm, assume_states(vllm, row.related)).verdict is Verdict.UNKNOWN, row.primitive.id


def test_plugin_is_sound_with_complete_traces_because_nothing_native_stands_against_it(vllm: Descriptor) -> None:
    """What the plugin replaces is rejected as a primitive of its own and does not block the plugin's row."""
    verdict = judge(plugin_row(vllm), vllm, assume_states(vllm), plugin_traces(vllm))
    assert verdict.verdict is Verdict.SOUND_WITH_ADAPTER, verdict.sentence
    assert verdict.evidence_class is EvidenceClass.ADAPTER_POLICY


@pytest.mark.parametrize("mode", Mode)
def test_nothing_against_the_stock_connector_reaches_a_row_at_plugin_depth(vllm: Descriptor, mode: Mode) -> None:
    """What the shipped connector does not do may be done by code at its extension points, in every mode."""
    connector = next(p for p in vllm.primitives if p.id == "offloading_connector")
    against = [e for e in connector.evidence if e.polarity is Polarity.CONTRADICTS]
    assert against
    assert not any(e.applies_to(mode, Depth.PLUGIN) for e in against)


def test_plugin_without_traces_is_approximate(vllm: Descriptor) -> None:
    """The adapter says nothing statically; without audited traces it is a substrate."""
    assert judge(plugin_row(vllm), vllm, assume_states(vllm)).verdict is Verdict.APPROXIMATE


PRESSED = (Mode.HARD_PROTECTED, Mode.EXPIRING, Mode.DEMOTABLE, Mode.SOFT_PRIORITY)


@pytest.mark.parametrize("mode", PRESSED)
def test_plugin_row_of_each_mode_is_positive_only_with_its_own_evidence(vllm: Descriptor, mode: Mode) -> None:
    """Approximate without traces and with those of the other modes; sound with all obligations of its own."""
    row, states = plugin_row(vllm, mode), assume_states(vllm)
    others = tuple(item for other in PRESSED if other is not mode for item in plugin_traces(vllm, mode=other))
    assert judge(row, vllm, states).verdict is Verdict.APPROXIMATE
    assert judge(row, vllm, states, others).verdict is Verdict.APPROXIMATE
    assert judge(row, vllm, states, plugin_traces(vllm, mode=mode)).verdict is Verdict.SOUND_WITH_ADAPTER
    for obligation in set(BUNDLES[mode]) - {Obligation.OBJECT_IDENTITY}:
        assert not judge(row, vllm, states, plugin_traces(vllm, obligation, mode)).verdict.is_positive


@pytest.mark.parametrize("obligation", BUNDLES[Mode.OFFLOADABLE])
def test_plugin_is_not_positive_when_the_traces_miss_one_obligation(vllm: Descriptor, obligation: Obligation) -> None:
    """Only the identity of the object is supported by the runtime's own source; the rest must come from traces."""
    traces = plugin_traces(vllm, leave_out=obligation)
    verdict = judge(plugin_row(vllm), vllm, assume_states(vllm), traces)
    if obligation is Obligation.OBJECT_IDENTITY:
        used = next(o for o in verdict.obligations if o.obligation is obligation)
        assert used.status is Status.SATISFIED
        assert used.used is not None and used.used.depth is Depth.NATIVE
    else:
        assert not verdict.verdict.is_positive
        assert obligation.value in verdict.sentence


def test_traces_of_the_plugin_do_not_lift_the_stock_rows(vllm: Descriptor) -> None:
    """Evidence at plugin depth is out of reach for a row at native depth."""
    for row in vllm.rows():
        if row.depth is Depth.NATIVE and row.primitive.id == "offloading_connector":
            assert not judge(row, vllm, assume_states(vllm), plugin_traces(vllm)).verdict.is_positive


@pytest.mark.parametrize("anchor", ["offload-lookup", "offload-after-alloc", "offload-output"])
def test_plugin_loses_its_verdict_when_the_connector_under_it_has_changed(vllm: Descriptor, anchor: str) -> None:
    """The plugin was audited on this connector; on another one nothing is known."""
    reports = assume_states(vllm, [anchor])
    assert judge(plugin_row(vllm), vllm, reports, plugin_traces(vllm)).verdict is Verdict.UNKNOWN


def test_studies_page_shows_the_same_verdicts(vllm: Descriptor) -> None:
    """The table in docs/studies.md is the snapshot, and every primitive is named in the prose."""
    text = STUDIES.read_text(encoding="utf-8")
    section = text.split("## vLLM 0.32.0", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    header = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert header == ["primitive", *(m.value for m in MODES)]
    shown = {}
    for line in lines[2:]:
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        shown.update({(name, mode): cell for mode, cell in zip(MODES, cells, strict=True) if cell})
    assert shown == stock_matrix()
    titled = set(re.findall(r"`([a-z_]+)`", " ".join(line for line in section.splitlines() if line.startswith("### "))))
    assert {p.id for p in vllm.primitives} | {PLUGIN} <= titled
