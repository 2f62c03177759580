"""Descriptors of runtimes that were only read: what holds for every one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import residentkv
from residentkv.lowering.anchors import AnchorVerifier, Scope
from residentkv.lowering.checking import CheckedRow, check_row
from residentkv.lowering.descriptor import decode_descriptor
from residentkv.lowering.exhibits import Findings, row_anchors
from residentkv.lowering.format import DocumentAnchor, EvidenceKind, GitAnchor, PackageAnchor, Polarity
from residentkv.lowering.model import Descriptor
from residentkv.lowering.obligations import BEHAVIOURAL
from residentkv.lowering.relation import Status, Verdict
from tests.descriptors.test_vllm_0_32 import Nothing
from tests.descriptors.vllm_matrix import assume_states, judge

FOLDER = Path(residentkv.__file__).parent / "descriptors"
RUNTIMES = ("tensorrt_llm", "lmcache", "mooncake", "llm_d", "dynamo_router")


@pytest.fixture(params=RUNTIMES)
def descriptor(request: pytest.FixtureRequest) -> Descriptor:
    """One descriptor as it is shipped."""
    (path,) = sorted((FOLDER / request.param).glob("*.yaml"))
    return decode_descriptor(path.read_bytes(), path.name)


def test_reading_alone_makes_no_row_positive(descriptor: Descriptor) -> None:
    """With every anchor verified each row is rejected or approximate; no behavioural obligation is satisfied."""
    for row in descriptor.rows():
        verdict = judge(row, descriptor, assume_states(descriptor))
        assert verdict.verdict in (Verdict.REJECTED, Verdict.APPROXIMATE), (row.primitive.id, row.mode)
        satisfied = {o.obligation for o in verdict.obligations if o.status is Status.SATISFIED}
        assert not satisfied & BEHAVIOURAL


def test_where_nothing_can_be_read_every_row_is_unknown_and_its_record_is_not(descriptor: Descriptor) -> None:
    """A machine without the runtime says unknown; --recorded says, marked, what the digests were written from."""
    scope = Scope("x.yaml", descriptor.package, descriptor.distributions, descriptor.versions)
    findings = Findings(anchors=AnchorVerifier(Nothing()).verify_all(descriptor.anchors, scope), audited={})
    checked: list[CheckedRow] = [check_row(row, descriptor, findings, with_recorded=True) for row in descriptor.rows()]
    assert {c.verdict.verdict for c in checked} == {Verdict.UNKNOWN}
    for one in checked:
        assert one.recorded is not None and one.recorded_on, (one.row.primitive.id, one.row.mode)
        assert one.recorded.verdict in (Verdict.REJECTED, Verdict.APPROXIMATE)


def test_every_statement_is_of_source_or_documentation_with_a_digest(descriptor: Descriptor) -> None:
    """Nothing was run, so nothing claims to be a trace or an experiment; and nobody left a digest out."""
    for primitive in descriptor.primitives:
        for statement in primitive.evidence:
            assert statement.kind in (EvidenceKind.SOURCE, EvidenceKind.DOC)
            assert statement.note.endswith(".")
    for anchor in descriptor.anchors.values():
        assert isinstance(anchor, PackageAnchor | GitAnchor | DocumentAnchor)
        assert isinstance(anchor.sha256, str)


def test_no_anchor_is_left_over_and_every_row_says_why(descriptor: Descriptor) -> None:
    """What nothing leans on would drift unseen."""
    used = {name for row in descriptor.rows() for name in row_anchors(row)}
    assert used == set(descriptor.anchors)
    assert all(note.why for primitive in descriptor.primitives for note in primitive.rows)


def test_losing_sight_of_a_contradiction_is_unknown(descriptor: Descriptor) -> None:
    """One changed anchor under every contradiction of a row leaves the row unknown, never better."""
    for row in descriptor.rows():
        names = {e.anchor for e in row.evidence() if e.polarity is Polarity.CONTRADICTS}
        if judge(row, descriptor, assume_states(descriptor)).verdict is Verdict.REJECTED:
            assert judge(row, descriptor, assume_states(descriptor, names)).verdict is Verdict.UNKNOWN
