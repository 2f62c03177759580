"""The block pool, the second tier, the faults and the content model, each alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residentkv.errors import ResidentKVError, UsageError
from residentkv.runtimes.reference.config import EngineConfig
from residentkv.runtimes.reference.content import Context, chain_hashes, compute_alone
from residentkv.runtimes.reference.faults import Faults, TransferFailed
from residentkv.runtimes.reference.pool import PoolExhausted, PrimaryPool
from residentkv.runtimes.reference.tiers import OffloadTier, TierFull

IDENTITY = EngineConfig(usable_blocks=1, block_size_tokens=4).identity()
KEY = ("a", "c")


def flat(name: str) -> tuple[int, ...]:
    return ()


def fill(pool: PrimaryPool, *names: str) -> None:
    blocks, _ = pool.allocate(len(names), flat)
    for block, name in zip(blocks, names, strict=True):
        assert pool.cache(block, name, name.encode())
    pool.release(blocks)


def test_full_blocks_alone_get_names_that_depend_on_everything_before() -> None:
    """A partial block has no name; a changed first token changes every name; another salt or model shares none."""
    names = chain_hashes(IDENTITY, range(10))
    assert len(names) == 2
    assert chain_hashes(IDENTITY, range(8)) == names
    assert set(chain_hashes(IDENTITY, [9, 1, 2, 3, 4, 5, 6, 7])).isdisjoint(names)
    config = EngineConfig(usable_blocks=1, block_size_tokens=4)
    for other in (config.identity(cache_salt="s"), config.identity(weights_epoch=1)):
        assert set(chain_hashes(other, range(8))).isdisjoint(names)


def test_output_depends_on_every_byte_of_the_context() -> None:
    """One flipped bit in one block that was read changes what comes out."""
    block = bytes(range(64))

    def token(data: bytes) -> int:
        context = Context("m", 0)
        context.read(data)
        return context.next_token([1])

    assert {token(block[:i] + bytes([block[i] ^ 1]) + block[i + 1 :]) for i in range(64)}.isdisjoint({token(block)})


def test_computing_alone_is_a_function_of_prompt_and_weights() -> None:
    """The reference output is deterministic and differs for other weights and other prompts."""
    fields = {"model": "m", "block_size": 4, "block_bytes": 64}
    first = compute_alone(range(10), 3, weights_epoch=0, **fields)
    assert first == compute_alone(range(10), 3, weights_epoch=0, **fields) and len(first) == 3
    assert first != compute_alone(range(10), 3, weights_epoch=1, **fields)
    assert first != compute_alone(range(1, 11), 3, weights_epoch=0, **fields)


def test_empty_blocks_are_taken_before_cached_ones_and_then_the_least_recently_used() -> None:
    """The last block of the older prompt goes first, so that leading blocks live longest."""
    pool = PrimaryPool(6)
    fill(pool, "a0", "a1")
    fill(pool, "b0", "b1")
    taken, evicted = pool.allocate(3, flat)
    assert [e.name for e in evicted] == ["a1"] and len(taken) == 3
    _, evicted = pool.allocate(2, flat)
    assert [e.name for e in evicted] == ["a0", "b1"]


def test_use_counts_as_recency() -> None:
    """A cached block that was read again is evicted later."""
    pool = PrimaryPool(2)
    fill(pool, "a0")
    fill(pool, "b0")
    block = pool.find("a0")
    assert block is not None
    pool.acquire(block)
    pool.release([block])
    _, evicted = pool.allocate(1, flat)
    assert [e.name for e in evicted] == ["b0"]


def test_rank_comes_before_recency() -> None:
    """What is worth more is evicted later, however old it is."""
    pool = PrimaryPool(2)
    fill(pool, "valuable")
    fill(pool, "cheap")
    _, evicted = pool.allocate(1, lambda name: (name == "valuable",))
    assert [e.name for e in evicted] == ["cheap"]


def test_held_and_used_blocks_are_no_victims() -> None:
    """An allocation that would need them fails and takes nothing."""
    pool = PrimaryPool(4)
    fill(pool, "held", "used", "idle")
    pool.hold(["held"], KEY)
    used = pool.find("used")
    assert used is not None
    pool.acquire(used)
    assert pool.busy_claims() == frozenset() and pool.count_active() == 1
    with pytest.raises(PoolExhausted, match="3 blocks wanted, 1 empty, 1 may be evicted"):
        pool.allocate(3, flat)
    assert all(pool.find(name) for name in ("held", "used", "idle"))
    _, evicted = pool.allocate(2, flat)
    assert [e.name for e in evicted] == ["idle"]


def test_two_holds_of_one_block_end_separately() -> None:
    """A block stays protected until the last claim lets it go."""
    pool = PrimaryPool(1)
    fill(pool, "x")
    pool.hold(["x"], ("a", "1"))
    pool.hold(["x"], ("a", "2"))
    pool.unhold(["x"], ("a", "1"))
    with pytest.raises(PoolExhausted):
        pool.allocate(1, flat)
    pool.unhold(["x", "never-there"], ("a", "2"))
    assert [e.name for e in pool.allocate(1, flat)[1]] == ["x"]


def test_exclusion_turned_off_evicts_what_is_held() -> None:
    """The switch for the negative proof does what it says."""
    pool = PrimaryPool(1, exclude_victims=False)
    fill(pool, "x")
    pool.hold(["x"], KEY)
    _, evicted = pool.allocate(1, flat)
    assert evicted[0].held_by == {KEY}


def test_same_content_is_cached_once() -> None:
    """A second block of the same content is not entered."""
    pool = PrimaryPool(2)
    fill(pool, "x")
    (block,), _ = pool.allocate(1, flat)
    assert pool.cache(block, "x", b"x") is False and block.name is None


def test_a_block_without_content_cannot_be_dropped() -> None:
    """There is nothing to tell about it."""
    pool = PrimaryPool(1)
    with pytest.raises(ResidentKVError, match="holds no cached content"):
        pool.drop(pool.blocks[0])


def tier(capacity: int = 3) -> tuple[OffloadTier, Faults]:
    faults = Faults()
    return OffloadTier(capacity, faults), faults


def test_tier_returns_the_stored_bytes() -> None:
    """A load gives back what was stored, and says missing for what was not."""
    t, _ = tier()
    assert t.store([("x", b"1"), ("y", b"2")], None) == ([("x", 0), ("y", 1)], [])
    result = t.load(["x", "z"])
    assert result.data == {"x": b"1"} and result.failed == {"z": "missing"}


def test_unpinned_entries_give_way_least_recently_used_first() -> None:
    """A load is a use; slots of evicted entries are used again."""
    t, _ = tier()
    t.store([("x", b"1"), ("y", b"2"), ("z", b"3")], None)
    t.load(["x"])
    stored, evicted = t.store([("n", b"4")], None)
    assert evicted == [("y", 1)] and stored == [("n", 1)]


def test_pinned_entries_stay_until_the_claim_ends() -> None:
    """A store that would need their room is refused whole."""
    t, _ = tier(2)
    t.reserve(KEY, 2)
    t.store([("x", b"1"), ("y", b"2")], KEY)
    assert t.reserved_blocks == 2
    with pytest.raises(TierFull, match="1 blocks to store, 2 in all, 0 may be evicted"):
        t.store([("z", b"3")], None)
    assert t.holds("x") and t.holds("y") and not t.holds("z")
    t.unreserve(KEY)
    assert t.reserved_blocks == 0
    assert t.store([("z", b"3")], None)[1] == [("x", 0)]


def test_store_of_known_content_pins_it_and_needs_no_room() -> None:
    """Two claims may share a stored block."""
    t, _ = tier(1)
    t.store([("x", b"1")], ("a", "1"))
    assert t.store([("x", b"1")], ("a", "2")) == ([], [])
    t.unreserve(("a", "1"))
    with pytest.raises(TierFull):
        t.store([("y", b"2")], None)


@pytest.mark.parametrize("damage", ["corrupt", "zero"])
def test_damaged_bytes_are_never_returned(damage: str) -> None:
    """The checksum of the stored bytes is compared on every load, and a new store repairs the entry."""
    t, faults = tier()
    t.store([("x", b"good bytes"), ("y", b"2")], None)
    assert getattr(faults, damage)(["x", "unknown"]) == 1
    assert not t.intact("x") and t.intact("y") and t.holds("x")
    assert t.load(["x", "y"]).failed == {"x": "checksum_mismatch"}
    t.store([("x", b"good bytes")], None)
    assert t.load(["x"]).data == {"x": b"good bytes"}


def test_undetectable_zeros_are_returned_as_good() -> None:
    """The negative control: the load succeeds, and only the output can show that the bytes were read."""
    t, faults = tier()
    t.store([("x", b"good")], None)
    faults.zero(undetectably=True)
    assert t.load(["x"]).data == {"x": bytes(4)}


def test_armed_failures_are_used_up() -> None:
    """As many transfers fail as were armed, and leave everything as it was."""
    t, faults = tier()
    faults.fail_stores()
    with pytest.raises(TransferFailed):
        t.store([("x", b"1")], None)
    assert not t.holds("x")
    t.store([("x", b"1")], None)
    faults.fail_loads(2)
    for _ in range(2):
        assert t.load(["x"]).failed == {"x": "transfer_failed"}
    assert t.load(["x"]).data == {"x": b"1"}


def test_dropped_entries_free_their_slots() -> None:
    """A silent loss does not leak capacity."""
    t, faults = tier(2)
    t.store([("x", b"1"), ("y", b"2")], KEY)
    assert faults.drop(["x"]) == 1
    assert not t.holds("x")
    assert t.store([("z", b"3")], None) == ([("z", 0)], [])


@pytest.mark.parametrize("count", [0, -1])
def test_no_failures_cannot_be_armed(count: int) -> None:
    """A fault that does nothing is a mistake of the test that arms it."""
    with pytest.raises(UsageError):
        Faults().fail_loads(count)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([None, "p", "q"])), max_size=30))
def test_tier_never_exceeds_its_capacity_nor_shares_a_slot(stores: list[tuple[str, str | None]]) -> None:
    """Whatever is stored in whatever order: capacity holds, slots are unique, pins survive."""
    t, _ = tier(4)
    pinned: set[str] = set()
    for name, owner in stores:
        key = ("o", owner) if owner else None
        try:
            t.store([(name, name.encode())], key)
        except TierFull:
            continue
        if key:
            pinned.add(name)
        assert len(t.entries) <= 4
        slots = [e.slot_idx for e in t.entries.values()]
        assert len(set(slots)) == len(slots) and set(slots) <= set(range(4))
        assert pinned <= set(t.entries)


@pytest.mark.parametrize(
    "change",
    [{"usable_blocks": 0}, {"block_size_tokens": 0}, {"block_bytes": 8}, {"offload_blocks": -1}],
    ids=lambda c: next(iter(c)),
)
def test_sizes_that_make_no_sense_are_refused(change: dict[str, int]) -> None:
    """The message names the field."""
    with pytest.raises(UsageError, match=next(iter(change))):
        EngineConfig(**{"usable_blocks": 4, **change})
