"""Set algebra over half-open ranges of positions, as events carry them (not necessarily sorted or joined)."""

from __future__ import annotations

from residentkv.claims.predicates import Ranges, normalize_ranges

EMPTY: Ranges = ()


def clean(ranges: Ranges) -> Ranges:
    """Return sorted, joined ranges without empty ones; ranges that are all that come back as they are."""
    before = -1
    for lo, hi in ranges:
        if lo <= before or hi <= lo:
            return normalize_ranges(ranges)
        before = hi
    return ranges


def union(a: Ranges, b: Ranges) -> Ranges:
    """Return every position of either."""
    if not a:
        return clean(b)
    if not b or a == b:
        return clean(a)
    return normalize_ranges((*a, *b))


def intersect(a: Ranges, b: Ranges) -> Ranges:
    """Return every position of both, in time linear in the number of sorted ranges."""
    if a == b:
        return clean(a)
    a, b = clean(a), clean(b)
    out: list[tuple[int, int]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        (lo, hi), (start, end) = a[i], b[j]
        if start < hi and lo < end:
            out.append((max(lo, start), min(hi, end)))
        if hi < end:
            i += 1
        else:
            j += 1
    return tuple(out)


def subtract(a: Ranges, b: Ranges) -> Ranges:
    """Return every position of `a` that is not one of `b`, in time linear in the number of sorted ranges."""
    if a == b:
        return EMPTY
    b = clean(b)
    out: list[tuple[int, int]] = []
    j = 0
    for start, end in clean(a):
        left = start
        while j < len(b) and b[j][0] < end:
            lo, hi = b[j]
            if left < lo:
                out.append((left, lo))
            left = max(left, hi)
            if hi > end:
                break  # It may reach into the next range of `a`.
            j += 1
        if left < end:
            out.append((left, end))
    return tuple(out)


def within(a: Ranges, b: Ranges) -> bool:
    """Tell whether every position of `a` is one of `b`."""
    return a == b or not subtract(a, b)


def say(ranges: Ranges) -> str:
    """Render ranges for a sentence: `0-7, 9` (inclusive), or `none`."""
    parts = [str(lo) if hi - lo == 1 else f"{lo}-{hi - 1}" for lo, hi in clean(ranges)]
    if len(parts) > 8:
        parts = [*parts[:8], f"and {len(parts) - 8} more"]
    return ", ".join(parts) if parts else "none"
