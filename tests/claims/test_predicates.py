"""Predicates against a naive oracle over sets of positions, and hostile texts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residentkv.claims.predicates import (
    MAX_BLOCKS,
    Predicate,
    covers,
    leading_blocks,
    normalize_ranges,
    parse_predicate,
    ranges_of,
)
from residentkv.errors import EXIT_UNKNOWN, InputError

POSITIONS = st.sets(st.integers(0, 40), max_size=40)
PAIRS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=12)


def naive_holds(predicate: Predicate, positions: set[int], object_blocks: int, sidecars: set[str]) -> bool:
    if predicate.kind == "whole_object":
        wanted = set(range(object_blocks))
    elif predicate.kind == "leading_prefix_at_least":
        wanted = set(range(predicate.count))
    else:
        wanted = set(range(predicate.start_pos, predicate.start_pos + predicate.count))
    inside = all(0 <= p < object_blocks for p in wanted)
    return bool(wanted) and inside and wanted <= positions and set(predicate.sidecars) <= sidecars


PREDICATES = st.one_of(
    st.builds(lambda n: Predicate(kind="leading_prefix_at_least", count=n), st.integers(1, 45)),
    st.builds(
        lambda s, n: Predicate(kind="contiguous_range", start_pos=s, count=n), st.integers(0, 45), st.integers(1, 45)
    ),
    st.builds(
        lambda names: Predicate(kind="whole_object", sidecars=tuple(sorted(names))),
        st.sets(st.sampled_from(["ssm_state", "conv", "mla"]), max_size=3),
    ),
)


@settings(max_examples=600, deadline=None)
@given(PREDICATES, POSITIONS, st.integers(0, 42), st.sets(st.sampled_from(["ssm_state", "conv"])))
def test_predicate_equals_the_oracle_over_positions(
    predicate: Predicate, positions: set[int], object_blocks: int, sidecars: set[str]
) -> None:
    """Range arithmetic decides exactly as asking position by position would."""
    assert predicate.holds(ranges_of(positions), object_blocks, sidecars) is naive_holds(
        predicate, positions, object_blocks, sidecars
    )


@settings(max_examples=400, deadline=None)
@given(PREDICATES, POSITIONS, st.integers(0, 42), st.integers(0, 40))
def test_losing_a_position_never_makes_a_predicate_true(
    predicate: Predicate, positions: set[int], object_blocks: int, lost: int
) -> None:
    """Predicates are monotone in what can be retrieved."""
    if not predicate.holds(ranges_of(positions), object_blocks):
        assert not predicate.holds(ranges_of(positions - {lost}), object_blocks)


@settings(max_examples=400, deadline=None)
@given(PAIRS)
def test_normalized_ranges_are_sorted_disjoint_and_cover_the_same_positions(pairs: list[tuple[int, int]]) -> None:
    """Joining ranges loses and invents no position."""
    ranges = normalize_ranges(pairs)
    assert {p for lo, hi in ranges for p in range(lo, hi)} == {p for lo, hi in pairs for p in range(lo, hi)}
    assert all(lo < hi for lo, hi in ranges)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ranges))
    assert normalize_ranges(ranges) == ranges


@settings(max_examples=200, deadline=None)
@given(POSITIONS)
def test_leading_blocks_stop_at_the_first_hole(positions: set[int]) -> None:
    """Only positions from 0 on without a hole count as leading."""
    naive = 0
    while naive in positions:
        naive += 1
    assert leading_blocks(ranges_of(positions)) == naive


def test_fifty_nine_of_sixty_blocks_without_block_zero_are_worth_nothing() -> None:
    """A count of blocks is no predicate: with block 0 lost the leading prefix is empty."""
    retrievable = ranges_of(range(1, 60))
    assert not parse_predicate("leading_prefix_at_least(1)").holds(retrievable, 60)
    assert not parse_predicate("whole_object").holds(retrievable, 60)
    assert parse_predicate("contiguous_range(1, 59)").holds(retrievable, 60)


def test_three_scattered_spans_are_worth_nothing_under_a_leading_prefix() -> None:
    """1,104 cached tokens (69 blocks of 16) in three spans: the leading prefix has length 0."""
    retrievable = normalize_ranges([(10, 33), (40, 63), (70, 93)])
    assert sum(hi - lo for lo, hi in retrievable) * 16 == 1104
    assert leading_blocks(retrievable) == 0
    assert not parse_predicate("leading_prefix_at_least(1)").holds(retrievable, 96)


def test_unnormalized_ranges_err_to_false() -> None:
    """Who passes adjacent ranges unjoined gets a no, never a wrong yes."""
    assert not covers(((0, 5), (5, 10)), 0, 10)


def test_empty_object_never_satisfies_anything() -> None:
    """An object of no blocks has nothing to retrieve."""
    assert not parse_predicate("whole_object").holds((), 0)
    assert not parse_predicate("whole_object").holds(((0, 10),), 0)


@pytest.mark.parametrize(
    "text",
    [
        "leading_prefix_at_least(1)",
        "leading_prefix_at_least(4294967296)",
        "contiguous_range(0, 1)",
        "contiguous_range(17, 23)",
        "whole_object",
        "whole_object(conv, ssm_state)",
    ],
)
def test_canonical_texts_survive_a_round_trip(text: str) -> None:
    """`str` of a parsed predicate is its canonical text."""
    assert str(parse_predicate(text)) == text
    assert parse_predicate(str(parse_predicate(text))) == parse_predicate(text)


def test_two_spellings_have_one_canonical_text() -> None:
    """Spaces after commas and the order of sidecars do not make two predicates."""
    assert parse_predicate("contiguous_range(1,2)") == parse_predicate("contiguous_range(1, 2)")
    assert parse_predicate("whole_object(b,a)") == parse_predicate("whole_object(a, b)")
    assert parse_predicate("whole_object()") == parse_predicate("whole_object")


HOSTILE = [
    "",
    " ",
    "leading_prefix_at_least",
    "leading_prefix_at_least()",
    "leading_prefix_at_least(0)",
    "leading_prefix_at_least(-1)",
    "leading_prefix_at_least(+1)",
    "leading_prefix_at_least(01)",
    "leading_prefix_at_least(1.0)",
    "leading_prefix_at_least(1e3)",
    "leading_prefix_at_least(0x10)",
    "leading_prefix_at_least(1_000)",
    "leading_prefix_at_least(\u0661)",
    "leading_prefix_at_least(\uff11)",
    "leading_prefix_at_least( 1)",
    "leading_prefix_at_least(1) ",
    "leading_prefix_at_least(1)\n",
    "leading_prefix_at_least(1);leading_prefix_at_least(2)",
    "Leading_prefix_at_least(1)",
    "leading_prefix_at_least(4294967297)",
    "leading_prefix_at_least(" + "9" * 100_000 + ")",
    "contiguous_range(1)",
    "contiguous_range(1, 0)",
    "contiguous_range(1,  2)",
    "contiguous_range(1, 2, 3)",
    "contiguous_range(-1, 2)",
    "contiguous_range(4294967297, 1)",
    "whole_object(A)",
    "whole_object(a,,b)",
    "whole_object(a,)",
    "whole_object(a, a)",
    "whole_object(" + "a," * 50_000 + "a)",
    "whole_object(" + ", ".join(f"s{i}" for i in range(9)) + ")",
    "whole_object(a" * 1000,
    "blocks_at_least(59)",
    "count(59)",
    "\x00",
    "leading_prefix_at_least(1)\x00",
    "\ud800",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_predicate_text_is_refused_with_its_code(text: str) -> None:
    """Whatever is not exactly one of the three forms is an input error, short enough to print."""
    with pytest.raises(InputError) as caught:
        parse_predicate(text)
    assert caught.value.code == "RKV003" and caught.value.exit_code == EXIT_UNKNOWN
    assert len(str(caught.value)) < 400


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="leading_prfxatscou()0123456789, whb", max_size=60))
def test_random_text_is_parsed_canonically_or_refused(text: str) -> None:
    """No text crashes the parser, and what it accepts it can print and read again."""
    try:
        predicate = parse_predicate(text)
    except InputError:
        return
    assert parse_predicate(str(predicate)) == predicate
    assert predicate.count <= MAX_BLOCKS
