"""What "useful" means: predicates over retrievable logical block positions, never over a count (spec section 2)."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from residentkv.errors import InputError

Ranges = tuple[tuple[int, int], ...]
"""Half-open ranges of logical block positions, sorted, disjoint and not adjacent."""

MAX_BLOCKS = 1 << 32
MAX_TEXT_CHARS = 512

_FORM = re.compile(
    r"(?:(leading_prefix_at_least)\((0|[1-9][0-9]{0,9})\)"
    r"|(contiguous_range)\((0|[1-9][0-9]{0,9}), ?(0|[1-9][0-9]{0,9})\)"
    r"|(whole_object)(?:\(([a-z0-9_]{1,32}(?:, ?[a-z0-9_]{1,32}){0,7})?\))?)"
)


def normalize_ranges(pairs: Iterable[tuple[int, int]]) -> Ranges:
    """Sort and join half-open ranges; empty ones vanish."""
    out: list[tuple[int, int]] = []
    for start, end in sorted(p for p in pairs if p[0] < p[1]):
        if out and start <= out[-1][1]:
            if end > out[-1][1]:
                out[-1] = (out[-1][0], end)
        else:
            out.append((start, end))
    return tuple(out)


def ranges_of(positions: Iterable[int]) -> Ranges:
    """Return the ranges that cover exactly these positions."""
    return normalize_ranges((p, p + 1) for p in positions)


def covers(ranges: Ranges, start: int, count: int) -> bool:
    """Tell whether every position of [start, start + count) lies in one of the normalized ranges."""
    return any(lo <= start and start + count <= hi for lo, hi in ranges)


def leading_blocks(ranges: Ranges) -> int:
    """Return how many blocks are retrievable from position 0 without a hole."""
    return ranges[0][1] if ranges and ranges[0][0] == 0 else 0


class Predicate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One predicate. `start_pos` and `count` are in blocks; `sidecars` name per-layer state a layer needs besides."""

    kind: str
    start_pos: int = 0
    count: int = 0
    sidecars: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind == "leading_prefix_at_least":
            return f"{self.kind}({self.count})"
        if self.kind == "contiguous_range":
            return f"{self.kind}({self.start_pos}, {self.count})"
        return f"{self.kind}({', '.join(self.sidecars)})" if self.sidecars else self.kind

    def needed(self, object_blocks: int) -> tuple[int, int]:
        """Return (start, count) of the positions that must be retrievable for an object of `object_blocks`."""
        if self.kind == "whole_object":
            return (0, object_blocks)
        return (self.start_pos, self.count)

    def holds(self, retrievable: Ranges, object_blocks: int, sidecars: Iterable[str] = ()) -> bool:
        """Evaluate over what can be retrieved now; an object of no blocks never satisfies anything."""
        start, count = self.needed(object_blocks)
        if count < 1 or start + count > object_blocks:
            return False
        return covers(retrievable, start, count) and set(self.sidecars) <= set(sidecars)


def parse_predicate(text: str) -> Predicate:
    """Read `leading_prefix_at_least(n)`, `contiguous_range(start, n)` or `whole_object[(sidecar, ...)]`.

    Decimal numbers carry no sign and no leading zero, sidecars are at most 8; `str` of the result is the one canonical
    text.

    Raises:
        InputError: any other text, n below 1, or more than `MAX_TEXT_CHARS` characters.
    """
    m = _FORM.fullmatch(text) if len(text) <= MAX_TEXT_CHARS else None
    if m is None:
        raise InputError(
            f"predicate: found {text[:60]!r}, expected leading_prefix_at_least(n), contiguous_range(start, n) "
            "or whole_object",
            code="RKV003",
        )
    if m[1]:
        predicate = Predicate(kind=m[1], count=int(m[2]))
    elif m[3]:
        predicate = Predicate(kind=m[3], start_pos=int(m[4]), count=int(m[5]))
    else:
        names = tuple(n.strip() for n in m[7].split(",")) if m[7] else ()
        if len(set(names)) != len(names):
            raise InputError(f"predicate: found a sidecar twice in {text[:60]!r}, expected each once", code="RKV003")
        return Predicate(kind=m[6], sidecars=tuple(sorted(names)))
    if not 1 <= predicate.count <= MAX_BLOCKS or predicate.start_pos > MAX_BLOCKS:
        raise InputError(f"predicate: found {text[:60]!r}, expected n from 1 to {MAX_BLOCKS}", code="RKV003")
    return predicate
