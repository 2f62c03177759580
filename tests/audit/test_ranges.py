"""The algebra of ranges gives what sets of positions give, and takes time in proportion to the ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residentkv.audit.ranges import clean, intersect, subtract, union, within
from residentkv.claims.predicates import Ranges, ranges_of

RANGES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12).map(tuple)
"""Ranges as an event may carry them: unsorted, overlapping, adjacent, empty, backwards."""


def positions(ranges: Ranges) -> set[int]:
    return {p for lo, hi in ranges for p in range(lo, hi)}


@given(RANGES, RANGES)
def test_ranges_are_sets(a: Ranges, b: Ranges) -> None:
    """Every operation gives the positions that sets give, as sorted and joined ranges."""
    mine, other = positions(a), positions(b)
    assert clean(a) == ranges_of(mine)
    assert union(a, b) == ranges_of(mine | other)
    assert intersect(a, b) == ranges_of(mine & other)
    assert subtract(a, b) == ranges_of(mine - other)
    assert within(a, b) is (mine <= other)


@pytest.mark.parametrize("shift", [0, 1])
def test_many_ranges_take_linear_time(shift: int) -> None:
    """A hundred thousand ranges on each side, alike but for one or all different: pair by pair it would not end."""
    a = tuple((2 * i, 2 * i + 1) for i in range(100_000))
    b = tuple((lo + shift, hi + shift) for lo, hi in a[1:])
    assert intersect(a, b) == (b if shift == 0 else ())
    assert subtract(a, b) == (a[:1] if shift == 0 else a)
    assert not within(a, b)
