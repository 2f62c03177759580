"""What became of the anchors of a descriptor, in lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from residentkv.lowering.anchors import AnchorState
from residentkv.lowering.checking import CheckedRow

ANCHOR_CODE = "RKV154"


def anchors_sentence(anchors: Mapping[AnchorState, int]) -> str:
    """Return how many anchors are in which state, in a few words."""
    total = sum(anchors.values())
    told = ", ".join(f"{n} {state.replace('_', ' ')}" for state, n in anchors.items())
    return f"{total} anchors: {told}" if total else "no anchors"


def anchor_lines(rows: Iterable[CheckedRow]) -> Iterator[str]:
    """Yield one line for each anchor that is not plainly verified; those that nobody could reach are told once.

    Args:
        rows: of one descriptor.
    """
    reports = {name: (row.descriptor, report) for row in rows for name, report in row.anchors.items()}
    unreached: Counter[str] = Counter()
    for name, (descriptor, report) in sorted(reports.items()):
        if report.state.is_unreached:
            unreached[f"{report.state.replace('_', ' ')}: {report.sentence}"] += 1
        elif report.state is not AnchorState.VERIFIED:
            code = "warning:" if report.state.is_verified else ANCHOR_CODE
            hint = "; run 'residentkv anchors diff'" if report.state is AnchorState.CHANGED else ""
            place = descriptor.anchor_places[name]
            yield f"{place}: {code} anchor {name} {report.state}: {report.target}: {report.sentence}{hint}"
    for sentence, count in unreached.items():
        yield f"{count} anchor{'s' if count > 1 else ''} {sentence}"
