"""The descriptor of stock SGLang 0.5.23, judged without SGLang: verified anchors are assumed, never read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import residentkv
from residentkv.claims.modes import Mode
from residentkv.lowering.depth import Depth
from residentkv.lowering.descriptor import decode_descriptor
from residentkv.lowering.format import EvidenceKind, PackageAnchor
from residentkv.lowering.model import Descriptor
from residentkv.lowering.obligations import BEHAVIOURAL
from residentkv.lowering.relation import Status, Verdict
from tests.descriptors.vllm_matrix import MODES, assume_states, judge, judge_stock

PAGE = Path(__file__).parents[2] / "docs" / "studies" / "sglang.md"
DESCRIPTOR = Path(residentkv.__file__).parent / "descriptors" / "sglang" / "0.5.23.yaml"

ASKED_FOR = {
    "radix_cache",
    "priority_eviction",
    "priority_low_values_first",
    "node_lock",
    "streaming_session",
    "session_reference",
    "hicache_offload",
    "hicache_load_back",
    "storage_prefetch",
    "external_linker",
    "kv_events",
    "cached_tokens_details",
    "admission",
    "data_parallel_routing",
}


@pytest.fixture(scope="module")
def sglang() -> Descriptor:
    return decode_descriptor(DESCRIPTOR.read_bytes(), DESCRIPTOR.name)


def test_everything_that_was_asked_for_is_there(sglang: Descriptor) -> None:
    """No primitive of the issue is left out, and none is described without a row."""
    assert {p.id for p in sglang.primitives} >= ASKED_FOR
    assert {row.primitive.id for row in sglang.rows()} == {p.id for p in sglang.primitives}


def test_the_page_shows_the_verdicts(sglang: Descriptor) -> None:
    """The matrix in the study is what the rows get when every anchor is verified."""
    table = PAGE.read_text().split("<!-- matrix sglang 0.5.23")[1].split("<!-- end of matrix -->")[0]
    shown = {}
    for line in table.splitlines():
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        if line.startswith("|") and re.fullmatch(r"[a-z_]+", cells[0]) and cells[0] != "primitive":
            shown |= {(cells[0], mode): word for mode, word in zip(MODES, cells[1:], strict=True) if word}
    assert shown == judge_stock(sglang, assume_states(sglang))


def test_source_alone_makes_no_row_positive(sglang: Descriptor) -> None:
    """Without traces nothing here is promised, at any depth; and no behavioural obligation is satisfied."""
    for row in sglang.rows():
        verdict = judge(row, sglang, assume_states(sglang))
        assert verdict.verdict in (Verdict.REJECTED, Verdict.APPROXIMATE), (row.primitive.id, row.mode, row.depth)
        satisfied = {o.obligation for o in verdict.obligations if o.status is Status.SATISFIED}
        assert not satisfied & BEHAVIOURAL


def test_priority_with_the_switch_is_rejected_at_every_depth(sglang: Descriptor) -> None:
    """No adapter makes the order right while the switch turns it round."""
    rows = [r for r in sglang.rows() if r.primitive.id == "priority_low_values_first" and r.mode is Mode.SOFT_PRIORITY]
    assert {r.depth for r in rows} == {Depth.NATIVE, Depth.POLICY}
    for row in rows:
        assert judge(row, sglang, assume_states(sglang)).verdict is Verdict.REJECTED


def test_every_anchor_is_a_pinned_symbol_of_the_package(sglang: Descriptor) -> None:
    """Digests were written by the tool from the version described; statements are of source."""
    for anchor in sglang.anchors.values():
        assert isinstance(anchor, PackageAnchor)
        assert anchor.file.startswith("sglang/srt/") and isinstance(anchor.sha256, str)
    for primitive in sglang.primitives:
        assert {e.kind for e in primitive.evidence} <= {EvidenceKind.SOURCE}
        assert all(e.note.endswith(".") for e in primitive.evidence)
