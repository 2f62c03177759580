"""The verdicts of stock vLLM 0.32.0 with every anchor verified: the snapshot that tests and the studies page share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import residentkv
from residentkv.claims.modes import Mode
from residentkv.lowering.anchors import AnchorReport, AnchorState
from residentkv.lowering.depth import Depth
from residentkv.lowering.descriptor import decode_descriptor
from residentkv.lowering.exhibits import Findings, TraceItem, row_basis, row_exhibits, row_related
from residentkv.lowering.model import Descriptor, Row
from residentkv.lowering.relation import RowVerdict, judge_row

DESCRIPTOR = Path(residentkv.__file__).parent / "descriptors" / "vllm" / "0.32.yaml"

_COLUMNS = "best_effort soft_priority expiring demotable offloadable hard_protected routed_reuse"

# A approximate, R rejected, - nobody would take it for that
_TABLE = """
prefix_cache                     A A R R - R -
kv_events                        A A R R - R A
cache_salt                       A - - - - R -
request_priority                 - R - - - R -
prefix_cache_retention_interval  - A R - - R -
offloading_connector             A - - A A R -
offload_tier_eviction            - A R R R R -
tier_cache_policy                - A A A A A -
kv_hints                         A A R R R R R
nixl_lease                       A - R - R R -
kv_load_failure_policy           A - - - R - -
admission_watermark              - - - - - R -
queue_limits                     - - - - - R -
block_ref_counting               - - A A - A -
connector_interface              - - A A A A -
prefix_cache_reset               - - R R - R -
cached_tokens_usage              A - - - R - -
block_residency_metrics          - R - - - - -
tiering_promotion                A - - - R - -
simple_cpu_offload               A - - - A - -
lmcache_native                   A - - - R - -
request_abort                    - - A - - A -
data_parallel_rank               - - - - - - A
"""

_WORDS = {"A": "approximate", "R": "rejected"}

MODES = tuple(Mode.parse(word) for word in _COLUMNS.split())

Matrix = dict[tuple[str, Mode], str]


def stock_matrix() -> Matrix:
    """Return the verdict of every native row by (primitive, mode)."""
    matrix: Matrix = {}
    for line in _TABLE.split("\n"):
        if not line.strip():
            continue
        name, *letters = line.split()
        for mode, letter in zip(MODES, letters, strict=True):
            if letter != "-":
                matrix[name, mode] = _WORDS[letter]
    return matrix


def load_vllm() -> Descriptor:
    """Return the descriptor as it is shipped."""
    return decode_descriptor(DESCRIPTOR.read_bytes(), DESCRIPTOR.name)


def assume_states(descriptor: Descriptor, changed: Iterable[str] = ()) -> dict[str, AnchorReport]:
    """Return reports that say that every anchor was verified, except those that are said to have changed."""
    names = frozenset(changed)
    return {
        name: AnchorReport(
            name, AnchorState.CHANGED if name in names else AnchorState.VERIFIED, "assumed by a test", name
        )
        for name in descriptor.anchors
    }


def judge(
    row: Row, descriptor: Descriptor, reports: Mapping[str, AnchorReport], traces: tuple[TraceItem, ...] = ()
) -> RowVerdict:
    """Judge one row of the descriptor."""
    findings = Findings(anchors=reports, audited={}, traces=traces)
    return judge_row(
        row.mode,
        row.depth,
        row_exhibits(row, descriptor, findings),
        basis=row_basis(row, findings),
        related=row_related(row, findings),
    )


def judge_stock(descriptor: Descriptor, reports: Mapping[str, AnchorReport]) -> Matrix:
    """Return the verdict of every native row by (primitive, mode)."""
    return {
        (row.primitive.id, row.mode): judge(row, descriptor, reports).verdict.value
        for row in descriptor.rows()
        if row.depth is Depth.NATIVE
    }
