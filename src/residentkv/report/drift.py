"""What another version of a package did to the anchors of a descriptor, as a row of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from residentkv.lowering.anchors import AnchorState
from residentkv.lowering.drift import Drift
from residentkv.lowering.exhibits import row_anchors
from residentkv.lowering.model import Descriptor

HEAD = "| described | against | on | verified | moved | changed | absent | rows to study again | anchors |\n" + (
    "|---|---|---|---|---|---|---|---|---|\n"
)


def drift_row(descriptor: Descriptor, against: str, date: str, drifts: Sequence[Drift]) -> str:
    """Return one row: how many anchors are in each state, the rows that lean on a lost one, and which those are.

    Args:
        descriptor: whose anchors were compared.
        against: PACKAGE==VERSION.
        date: of the comparison, YYYY-MM-DD.
        drifts: of this descriptor.
    """
    counts = Counter(d.report.state for d in drifts)
    lost = [d.report.anchor for d in drifts if not d.report.state.is_verified]
    touched = [row for row in descriptor.rows() if set(row_anchors(row)) & set(lost)]
    told = (AnchorState.VERIFIED, AnchorState.MOVED, AnchorState.CHANGED, AnchorState.ABSENT)
    other = sum(n for state, n in counts.items() if state not in told)
    named = ", ".join(f"`{name}`" for name in lost) or "none"
    if other:
        named += f"; {other} could not be read"
    cells = (
        f"{descriptor.runtime} {descriptor.version}",
        against,
        date,
        *(str(counts[state]) for state in told),
        f"{len(touched)} of {len(list(descriptor.rows()))}",
        named,
    )
    return f"| {' | '.join(cells)} |\n"
