"""The ledger's sums and orders against recomputation from the records, after any sequence of operations."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residentkv.claims.ledger import ClaimKeyInUse, ClaimLedger, ClaimNotEnded, ClaimRecord, StaleRevision
from residentkv.claims.lifecycle import (
    OPEN,
    TERMINAL,
    AlreadyDecided,
    AlreadyEnded,
    IllegalTransition,
    NotAccepted,
    State,
    Step,
)
from residentkv.claims.model import ResidentClaim
from residentkv.claims.modes import HOLDS_PRIMARY, Mode
from residentkv.claims.predicates import Predicate
from residentkv.errors import ResidentKVError


def make_claim(
    name: str, owner: str = "a", mode: Mode = Mode.HARD_PROTECTED, blocks: int = 4, **more: Any
) -> ResidentClaim:
    fields: dict[str, Any] = {
        "claim_id": name,
        "owner_scope": owner,
        "cache_identity": "cache:1",
        "object_id": "o",
        "token_map_id": "t",
        "predicate": Predicate(kind="leading_prefix_at_least", count=blocks),
        "footprint_blocks": blocks,
        "mode": mode,
    }
    return ResidentClaim(**{**fields, **more})


def protects(record: ClaimRecord) -> int:
    """Say what a record protects, written from the spec and not from the ledger."""
    if record.state not in OPEN:
        return 0
    if record.mode in HOLDS_PRIMARY:
        return record.claim.footprint_blocks
    waits_for_tier = record.state in (State.ACCEPTED, State.MATERIALIZED)
    return record.claim.footprint_blocks if record.mode is Mode.OFFLOADABLE and waits_for_tier else 0


def check_against_recomputation(ledger: ClaimLedger, now_ns: int) -> None:
    records = list(ledger)
    holders = [r for r in records if protects(r)]
    assert ledger.protected_blocks == sum(map(protects, records))
    assert sorted(r.order for r in ledger.holders()) == sorted(r.order for r in holders)
    assert ledger.open_claims == sum(r.state in OPEN for r in records)
    for mode in Mode:
        of_mode = sorted((r for r in holders if r.mode is mode), key=lambda r: (r.claim.priority, r.order))
        assert list(ledger.holders_of(mode)) == of_mode
        assert ledger.protected_blocks_of(mode) == sum(map(protects, of_mode))
    terms = sorted(
        (r for r in records if r.state in OPEN and r.deadline_ns is not None), key=lambda r: (r.deadline_ns, r.order)
    )
    assert ledger.due(now_ns) == [r for r in terms if r.deadline_ns is not None and r.deadline_ns <= now_ns]
    assert ledger.next_deadline_ns() == (terms[0].deadline_ns if terms else None)
    some = frozenset(r.claim.key for r in holders[::2])
    assert {r.order for r in ledger.holders_except(some)} == {r.order for r in holders if r.claim.key not in some}


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 120))
def test_sums_equal_recomputation_after_random_operations(seed: int, length: int) -> None:
    """Whatever happened, every sum, order and deadline is what the records say; a refused step changes nothing."""
    rng = random.Random(seed)
    ledger = ClaimLedger()
    now_ns = 0
    for _ in range(length):
        now_ns += rng.randrange(3) * 10**9
        what = rng.randrange(8)
        records = list(ledger)
        try:
            if what <= 1 or not records:
                ledger.submit(
                    make_claim(
                        f"c{rng.randrange(8)}",
                        rng.choice("ab"),
                        rng.choice(list(Mode)),
                        rng.randrange(1, 9),
                        priority=rng.randrange(-2, 3),
                        ttl_s=rng.choice([None, 1.0, 5.0]),
                    )
                )
            elif what == 2:
                ledger.forget(rng.choice(records).claim.key)
            elif what == 3:
                ledger.renew(
                    rng.choice(records), revision=rng.randrange(4), ttl_s=rng.choice([None, 2.0]), now_ns=now_ns
                )
            elif what == 4:
                ledger.clip(rng.choice(records), rng.choice([Mode.BEST_EFFORT, Mode.SOFT_PRIORITY]))
            else:
                record = rng.choice(records)
                before = (record.state, record.generation, record.deadline_ns, ledger.protected_blocks)
                step = rng.choice(list(Step))
                try:
                    ledger.step(record, step, now_ns=now_ns)
                except IllegalTransition:
                    assert before == (record.state, record.generation, record.deadline_ns, ledger.protected_blocks)
                    raise
        except ResidentKVError:
            pass
        check_against_recomputation(ledger, now_ns)


def test_footprint_is_reserved_from_acceptance_to_outcome() -> None:
    """What was accepted can be materialized: its room is taken from the moment of acceptance."""
    ledger = ClaimLedger()
    record = ledger.submit(make_claim("c", blocks=7))
    assert ledger.protected_blocks == 0
    ledger.step(record, Step.ACCEPT)
    assert ledger.protected_blocks == 7
    ledger.step(record, Step.MATERIALIZE)
    assert ledger.protected_blocks == 7
    ledger.step(record, Step.RELEASE)
    assert ledger.protected_blocks == 0


def test_offloadable_claim_protects_the_primary_tier_only_until_it_is_offloaded() -> None:
    """Once the tier can give the bytes back the primary blocks may go; a restoration does not protect them again."""
    ledger = ClaimLedger()
    record = ledger.submit(make_claim("c", mode=Mode.OFFLOADABLE, blocks=5))
    ledger.step(record, Step.ACCEPT)
    ledger.step(record, Step.MATERIALIZE)
    assert ledger.protected_blocks == 5
    for step in (Step.OFFLOAD, Step.REQUIRE_RESTORE, Step.RESTORE):
        ledger.step(record, step)
        assert ledger.protected_blocks == 0


def test_generation_counts_offloads() -> None:
    """0 before the first offloaded event, n after the n-th."""
    ledger = ClaimLedger()
    record = ledger.submit(make_claim("c", mode=Mode.OFFLOADABLE))
    for step in (Step.ACCEPT, Step.MATERIALIZE):
        ledger.step(record, step)
    assert record.generation == 0
    for n, steps in enumerate([(Step.OFFLOAD, Step.REQUIRE_RESTORE, Step.FAIL_RESTORE), (Step.OFFLOAD,)], 1):
        for step in steps:
            ledger.step(record, step)
        assert record.generation == n


def test_name_is_unique_within_its_owner_only() -> None:
    """Two owners may use one name; one owner may not use it twice while the claim is open."""
    ledger = ClaimLedger()
    ledger.submit(make_claim("c", "a"))
    ledger.submit(make_claim("c", "b"))
    with pytest.raises(ClaimKeyInUse, match="release it first"):
        ledger.submit(make_claim("c", "a"))
    assert len(ledger) == 2


def test_name_is_free_again_after_the_outcome() -> None:
    """An ended claim may be followed by a new one of the same name, which starts anew."""
    ledger = ClaimLedger()
    old = ledger.submit(make_claim("c", ttl_s=1.0))
    ledger.step(old, Step.ACCEPT)
    ledger.step(old, Step.RELEASE)
    new = ledger.submit(make_claim("c", ttl_s=9.0))
    ledger.step(new, Step.ACCEPT, now_ns=5)
    assert new.order > old.order and len(ledger) == 1 and ledger.due(2 * 10**9) == []
    with pytest.raises(AlreadyEnded):
        ledger.step(old, Step.EXPIRE)
    assert ledger.protected_blocks == 4


def test_term_starts_at_acceptance_and_ends_once() -> None:
    """A due claim is offered until it ends or is renewed, then never again."""
    ledger = ClaimLedger()
    record = ledger.submit(make_claim("c", ttl_s=2.0))
    assert ledger.due(10**12) == [], "a submitted claim has no term yet"
    ledger.step(record, Step.ACCEPT, now_ns=10**9)
    assert record.deadline_ns == 3 * 10**9
    assert ledger.due(3 * 10**9 - 1) == []
    assert ledger.due(3 * 10**9) == [record] == ledger.due(3 * 10**9)
    ledger.step(record, Step.EXPIRE)
    assert ledger.due(10**12) == []


def test_term_shorter_than_a_nanosecond_still_ends_after_acceptance() -> None:
    """Rounding never lets a claim expire at the moment of its acceptance."""
    ledger = ClaimLedger()
    record = ledger.submit(make_claim("c", ttl_s=1e-12))
    ledger.step(record, Step.ACCEPT, now_ns=7)
    assert record.deadline_ns == 8


def test_renewal_moves_the_deadline_under_a_higher_revision_only() -> None:
    """A renewal that is sent twice, or late, changes nothing."""
    ledger = ClaimLedger()
    record = ledger.submit(make_claim("c", ttl_s=1.0, revision=3))
    ledger.step(record, Step.ACCEPT)
    ledger.renew(record, revision=4, ttl_s=10.0, now_ns=10**9)
    assert record.deadline_ns == 11 * 10**9 and ledger.due(2 * 10**9) == []
    for stale in (3, 4):
        with pytest.raises(StaleRevision, match="expected above 4"):
            ledger.renew(record, revision=stale, ttl_s=99.0, now_ns=0)
    assert record.deadline_ns == 11 * 10**9
    ledger.renew(record, revision=5, ttl_s=None, now_ns=0)
    assert record.deadline_ns is None and ledger.next_deadline_ns() is None


def test_only_an_open_claim_is_renewed() -> None:
    """A renewal before acceptance or after the outcome is a named error."""
    ledger = ClaimLedger()
    record = ledger.submit(make_claim("c"))
    with pytest.raises(NotAccepted, match="renew from submitted"):
        ledger.renew(record, revision=1, ttl_s=1.0, now_ns=0)
    ledger.step(record, Step.ACCEPT)
    ledger.step(record, Step.DEMOTE)
    with pytest.raises(AlreadyEnded, match="renew from demoted"):
        ledger.renew(record, revision=1, ttl_s=1.0, now_ns=0)


def test_many_renewals_leave_one_deadline() -> None:
    """Memory follows the open claims, not the renewals."""
    ledger = ClaimLedger()
    record = ledger.submit(make_claim("c", ttl_s=1.0))
    ledger.step(record, Step.ACCEPT)
    for revision in range(1, 2000):
        ledger.renew(record, revision=revision, ttl_s=1000.0, now_ns=revision)
    assert ledger.due(10**18) == [record]
    assert len(ledger._terms) == 1


def test_terms_of_an_accepted_claim_are_not_weakened_afterwards() -> None:
    """Clipping happens before the answer, never behind the owner's back."""
    ledger = ClaimLedger()
    record = ledger.submit(make_claim("c"))
    ledger.step(record, Step.ACCEPT)
    with pytest.raises(AlreadyDecided):
        ledger.clip(record, Mode.BEST_EFFORT)
    assert record.mode is Mode.HARD_PROTECTED and ledger.protected_blocks == 4


def test_only_ended_claims_are_forgotten() -> None:
    """An open claim cannot be dropped without an outcome."""
    ledger = ClaimLedger()
    record = ledger.submit(make_claim("c"))
    for step in (None, Step.ACCEPT):
        if step:
            ledger.step(record, step)
        with pytest.raises(ClaimNotEnded):
            ledger.forget(record.claim.key)
    ledger.step(record, Step.RELEASE)
    assert record.state in TERMINAL
    ledger.forget(record.claim.key)
    assert ledger.get(record.claim.key) is None and len(ledger) == 0
    with pytest.raises(KeyError):
        ledger.forget(record.claim.key)
