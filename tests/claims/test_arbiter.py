"""The arbiter: what it may never do, and what it must say."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residentkv.claims.arbiter import Action, Answer, Arbiter, ArbiterPolicy, Relief
from residentkv.claims.ledger import ClaimLedger, ClaimRecord
from residentkv.claims.lifecycle import State, Step
from residentkv.claims.modes import HOLDS_PRIMARY, Mode
from residentkv.claims.predicates import parse_predicate
from residentkv.errors import UsageError
from tests.claims.test_ledger import make_claim, protects

SECOND_NS = 10**9


def enter(ledger: ClaimLedger, name: str, *, materialize: bool = True, now_ns: int = 0, **fields: Any) -> ClaimRecord:
    record = ledger.submit(make_claim(name, **fields))
    ledger.step(record, Step.ACCEPT, now_ns=now_ns)
    if materialize:
        ledger.step(record, Step.MATERIALIZE)
    return record


def make_arbiter(ledger: ClaimLedger, usable_blocks: int = 100, **policy: Any) -> Arbiter:
    return Arbiter(ledger, usable_blocks=usable_blocks, policy=ArbiterPolicy(**policy))


def random_ledger(rng: random.Random) -> ClaimLedger:
    ledger = ClaimLedger()
    for n in range(rng.randrange(0, 12)):
        record = ledger.submit(
            make_claim(
                f"c{n}",
                rng.choice("ab"),
                rng.choice(list(Mode)),
                rng.randrange(1, 30),
                priority=rng.randrange(-1, 3),
                ttl_s=rng.choice([None, 1.0, 3.0]),
            )
        )
        for _ in range(rng.randrange(0, 6)):
            step = rng.choice([Step.ACCEPT, Step.MATERIALIZE, Step.OFFLOAD, Step.REQUIRE_RESTORE, Step.RELEASE])
            try:
                ledger.step(record, step)
            except Exception:
                continue
    return ledger


def may_relieve(what: Relief, record: ClaimRecord, now_ns: int) -> bool:
    """Say whether a mode allows a relief, from the spec: only what each mode permits, and only what can be done."""
    if what is Relief.EXPIRE:
        return record.deadline_ns is not None and record.deadline_ns <= now_ns
    if what is Relief.OFFLOAD:
        return record.mode is Mode.OFFLOADABLE and record.state is State.MATERIALIZED
    return record.mode is Mode.DEMOTABLE


@settings(max_examples=1500, deadline=None)
@given(st.integers(0, 2**48))
def test_request_decisions_are_safe_minimal_pure_and_named(seed: int) -> None:
    """Admitted means it fits after the relief; relief is allowed, needed in every part, and spares own and busy claims.

    Every refusal or deferral names claims that block, and says what is missing while they stay.
    """
    rng = random.Random(seed)
    ledger = random_ledger(rng)
    usable = rng.randrange(0, 160)
    keys = [r.claim.key for r in ledger]
    own = frozenset(k for k in keys if rng.random() < 0.15)
    busy = frozenset(k for k in keys if rng.random() < 0.15)
    reliefs = tuple(rng.sample(list(Relief), rng.randrange(0, 4)))
    arbiter = make_arbiter(ledger, usable, reliefs=reliefs, defer_s=rng.choice([0.0, 2.5]))
    need, active, now_ns = rng.randrange(0, 90), rng.randrange(0, 60), rng.randrange(0, 5) * SECOND_NS
    before = copy.deepcopy(list(ledger))
    reused = rng.randrange(0, 1 + sum(protects(r) for r in ledger if r.claim.key in own))
    asked: dict[str, Any] = {"active_blocks": active, "now_ns": now_ns, "own": own, "busy": busy}
    decision = arbiter.decide_request(need, reused_blocks=reused, **asked)
    again = arbiter.decide_request(need, reused_blocks=reused, **asked)

    assert decision == again, "a decision depends on nothing but its input"
    assert list(ledger) == before and ledger.protected_blocks == sum(map(protects, before)), "and changes nothing"
    protected = sum(map(protects, ledger))
    assert (decision.need_blocks, decision.active_blocks) == (need, active)
    assert (decision.protected_blocks, decision.usable_blocks) == (protected, usable)
    freed = [protects(r) for _, r in decision.relief]
    if decision.action is Action.ADMIT:
        assert protected - sum(freed) + active + need <= usable
        assert decision.shortfall_blocks == 0 and decision.blocking == () and decision.defer_s == 0
        assert all(protected - (sum(freed) - one) + active + need > usable for one in freed), "no relief in vain"
        chosen = [r.claim.key for _, r in decision.relief]
        assert len(set(chosen)) == len(chosen) and not set(chosen) & (own | busy)
        assert all(what in reliefs and may_relieve(what, r, now_ns) for what, r in decision.relief)
        return
    assert decision.relief == (), "nothing is given up for a request that is not served"
    assert decision.shortfall_blocks == protected + active + need - usable > 0
    relievable = sum(
        protects(r)
        for r in ledger
        if r.claim.key not in own | busy and protects(r) and any(may_relieve(w, r, now_ns) for w in reliefs)
    )
    assert protected - relievable + active + need > usable, "what could have been served by allowed relief is served"
    if decision.action is Action.WAIT:
        assert active + need + reused > usable and protected + need <= usable and decision.blocking == ()
        return
    if need + reused > usable:
        assert decision.reason == "exceeds_capacity" and decision.action is Action.PRESERVE_AND_REFUSE
        assert decision.blocking == ()
        return
    assert decision.action is (Action.PRESERVE_AND_DEFER if arbiter.policy.defer_s else Action.PRESERVE_AND_REFUSE)
    holders = {r.claim.key: protects(r) for r in ledger if protects(r)}
    others = {key: blocks for key, blocks in holders.items() if key not in own}
    explained = sum(others.values()) >= decision.shortfall_blocks
    assert {r.claim.key for r in decision.blocking} == set(others if explained else holders) != set()
    assert decision.reason == ("claims_hold" if protected + need > usable else "claims_hold_now")


@settings(max_examples=800, deadline=None)
@given(st.integers(0, 2**48))
def test_accepted_claims_always_fit_beside_each_other_and_active_work(seed: int) -> None:
    """Accepting whatever the arbiter accepts keeps the reserve for active work and never promises a block twice."""
    rng = random.Random(seed)
    ledger = ClaimLedger()
    usable, reserve = rng.randrange(1, 120), rng.randrange(0, 20)
    arbiter = make_arbiter(ledger, usable, min_active_blocks=reserve, defer_claims=rng.random() < 0.5)
    for n in range(25):
        active = rng.randrange(0, 40)
        claim = make_claim(f"c{n}", mode=rng.choice(list(Mode)), blocks=rng.randrange(1, 50), ttl_s=1.0)
        decision = arbiter.decide_claim(claim, object_blocks=rng.randrange(1, 60), active_blocks=active)
        assert decision == arbiter.decide_claim(claim, object_blocks=claim.footprint_blocks, active_blocks=active) or (
            decision.reason == "predicate_unsatisfiable"
        )
        if decision.verdict is Answer.ACCEPTED:
            record = ledger.submit(claim)
            ledger.step(record, Step.ACCEPT)
            if protects(record):
                assert ledger.protected_blocks <= max(usable - reserve, 0)
                assert ledger.protected_blocks + active <= usable
        if rng.random() < 0.2 and len(ledger):
            record = rng.choice(list(ledger))
            if record.state is State.ACCEPTED:
                ledger.step(record, Step.RELEASE)


def test_capacity_litmus_numbers_of_the_arbiter() -> None:
    """60 protected and 70 active blocks: refused with the shortfall up to 120 usable, served from 130 on."""
    for usable, missing in [(80, 50), (90, 40), (100, 30), (110, 20), (120, 10), (130, 0), (150, 0)]:
        ledger = ClaimLedger()
        record = enter(ledger, "resident", blocks=60)
        decision = make_arbiter(ledger, usable).decide_request(70, active_blocks=0, now_ns=0)
        assert decision.shortfall_blocks == missing
        assert decision.action is (Action.PRESERVE_AND_REFUSE if missing else Action.ADMIT)
        assert decision.blocking == ((record,) if missing else ())


def test_live_pressure_of_46_active_beside_40_resident_in_68_is_refused() -> None:
    """40 + 46 > 68: refused, 18 blocks short."""
    ledger = ClaimLedger()
    enter(ledger, "resident", blocks=40)
    decision = make_arbiter(ledger, 68).decide_request(46, active_blocks=0, now_ns=0)
    assert (decision.action, decision.shortfall_blocks) == (Action.PRESERVE_AND_REFUSE, 18)


def test_full_engine_without_claims_waits_as_it_always_did() -> None:
    """Active work that is in the way of active work is no business of claims: no refusal, nobody is blamed."""
    decision = make_arbiter(ClaimLedger(), 100).decide_request(10, active_blocks=95, now_ns=0)
    assert (decision.action, decision.reason, decision.blocking) == (Action.WAIT, "active_work", ())


def test_request_that_claims_block_for_good_is_not_left_waiting_for_active_work() -> None:
    """Waiting would not help: even an idle engine could not serve it beside the claims."""
    ledger = ClaimLedger()
    record = enter(ledger, "c", blocks=60)
    decision = make_arbiter(ledger, 100).decide_request(50, active_blocks=60, now_ns=0)
    assert (decision.reason, decision.blocking) == ("claims_hold", (record,))


def test_request_that_only_claims_and_active_work_together_block_names_the_claims() -> None:
    """Without the claims it would be served now, so it loses to claims: told, and deferred when the policy says so."""
    ledger = ClaimLedger()
    record = enter(ledger, "c", blocks=40)
    decision = make_arbiter(ledger, 100, defer_s=3.0).decide_request(30, active_blocks=50, now_ns=0)
    assert (decision.action, decision.reason) == (Action.PRESERVE_AND_DEFER, "claims_hold_now")
    assert decision.defer_s == 3.0 and decision.blocking == (record,)


def test_request_larger_than_the_tier_blames_no_claim() -> None:
    """It could not be served if there were no claims at all, and deferring it would be pointless."""
    ledger = ClaimLedger()
    enter(ledger, "c", blocks=10)
    decision = make_arbiter(ledger, 50, defer_s=5.0).decide_request(51, active_blocks=0, now_ns=0)
    assert (decision.action, decision.reason) == (Action.PRESERVE_AND_REFUSE, "exceeds_capacity")
    assert decision.blocking == () and decision.defer_s == 0


def test_hard_claims_are_never_relieved() -> None:
    """No policy lets the arbiter give up a hard protected claim before its term."""
    ledger = ClaimLedger()
    enter(ledger, "hard", blocks=60, ttl_s=10.0)
    decision = make_arbiter(ledger, 100).decide_request(50, active_blocks=0, now_ns=9 * SECOND_NS)
    assert decision.action is Action.PRESERVE_AND_REFUSE
    after_term = make_arbiter(ledger, 100).decide_request(50, active_blocks=0, now_ns=10 * SECOND_NS)
    assert [(w, r.claim.claim_id) for w, r in after_term.relief] == [(Relief.EXPIRE, "hard")]


def test_expired_claims_go_before_offloads_and_offloads_before_demotions() -> None:
    """Each relief is tried in the order of the policy, and the later one only for what is still missing."""
    ledger = ClaimLedger()
    enter(ledger, "demotable", mode=Mode.DEMOTABLE, blocks=20)
    enter(ledger, "offloadable", mode=Mode.OFFLOADABLE, blocks=20)
    enter(ledger, "expired", mode=Mode.EXPIRING, blocks=20, ttl_s=1.0)
    arbiter = make_arbiter(ledger, 60)

    def chosen(need: int) -> list[tuple[str, str]]:
        decision = arbiter.decide_request(need, active_blocks=0, now_ns=SECOND_NS)
        return [(w.value, r.claim.claim_id) for w, r in decision.relief]

    assert chosen(20) == [("expire", "expired")]
    assert chosen(40) == [("expire", "expired"), ("offload", "offloadable")]
    assert chosen(41) == [("expire", "expired"), ("offload", "offloadable"), ("demote", "demotable")]


def test_lower_priority_is_demoted_first_and_older_first_among_equals() -> None:
    """The order in which claims give way is told by their priority, then by their age."""
    ledger = ClaimLedger()
    for name, priority in [("high", 9), ("old", 1), ("young", 1)]:
        enter(ledger, name, mode=Mode.DEMOTABLE, blocks=10, priority=priority)
    decision = make_arbiter(ledger, 30).decide_request(15, active_blocks=0, now_ns=0)
    assert [r.claim.claim_id for _, r in decision.relief] == ["old", "young"]


def test_claim_that_alone_suffices_spares_the_ones_before_it() -> None:
    """A small claim is not demoted in vain when a large one has to go anyway."""
    ledger = ClaimLedger()
    enter(ledger, "small", mode=Mode.DEMOTABLE, blocks=4)
    enter(ledger, "large", mode=Mode.DEMOTABLE, blocks=12, priority=1)
    decision = make_arbiter(ledger, 16).decide_request(10, active_blocks=0, now_ns=0)
    assert [r.claim.claim_id for _, r in decision.relief] == ["large"]


def test_claim_that_has_not_materialized_cannot_be_offloaded_for_relief() -> None:
    """There is nothing to offload yet; the lifecycle would not allow it."""
    ledger = ClaimLedger()
    enter(ledger, "c", mode=Mode.OFFLOADABLE, blocks=50, materialize=False)
    decision = make_arbiter(ledger, 60).decide_request(20, active_blocks=0, now_ns=0)
    assert decision.action is Action.PRESERVE_AND_REFUSE and decision.relief == ()


def test_own_claim_does_not_block_the_request_that_reuses_it() -> None:
    """A request is not refused in the name of the claim it came for alone."""
    ledger = ClaimLedger()
    own = enter(ledger, "own", blocks=30)
    other = enter(ledger, "other", blocks=30)
    decision = make_arbiter(ledger, 70).decide_request(20, active_blocks=0, now_ns=0, own=frozenset({own.claim.key}))
    assert decision.blocking == (other,)


def test_own_claim_is_named_when_it_holds_more_than_the_request_reuses() -> None:
    """A request that shares only the beginning of a large claimed object is blocked by the rest of that object."""
    ledger = ClaimLedger()
    own = enter(ledger, "own", blocks=60)
    decision = make_arbiter(ledger, 100).decide_request(
        45, active_blocks=0, now_ns=0, own=frozenset({own.claim.key}), reused_blocks=10
    )
    assert decision.action is Action.PRESERVE_AND_REFUSE and decision.blocking == (own,)


def test_request_beside_nothing_but_its_own_claim_waits_for_active_work() -> None:
    """Without its claim it would need the reused blocks all the same, so the claim is not what is in the way."""
    ledger = ClaimLedger()
    own = enter(ledger, "own", blocks=10)
    decision = make_arbiter(ledger, 100).decide_request(
        10, active_blocks=85, now_ns=0, own=frozenset({own.claim.key}), reused_blocks=10
    )
    assert (decision.action, decision.reason) == (Action.WAIT, "active_work")


def test_negative_numbers_are_a_programming_error() -> None:
    """No miscount makes room out of nothing."""
    arbiter = make_arbiter(ClaimLedger(), 10)
    for need, active, reused in [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]:
        with pytest.raises(ValueError, match="expected 0 or more"):
            arbiter.decide_request(need, active_blocks=active, now_ns=0, reused_blocks=reused)


LEADING_61 = parse_predicate("leading_prefix_at_least(61)")
RANGE_59_2 = parse_predicate("contiguous_range(59, 2)")
FULL = {"min_active_blocks": 36}
CLAIMS: list[tuple[str, dict[str, Any], dict[str, Any], int, Answer, str]] = [
    ("fits", {}, {}, 0, Answer.ACCEPTED, "fits"),
    ("mode", {}, {"supported_modes": frozenset({Mode.BEST_EFFORT})}, 0, Answer.REJECTED, "mode_unsupported"),
    ("beyond", {"predicate": LEADING_61}, {}, 0, Answer.REJECTED, "predicate_unsatisfiable"),
    ("range", {"predicate": RANGE_59_2}, {}, 0, Answer.REJECTED, "predicate_unsatisfiable"),
    ("small", {"footprint_blocks": 59}, {}, 0, Answer.REJECTED, "footprint_below_predicate"),
    ("ttl", {"mode": Mode.EXPIRING}, {}, 0, Answer.REJECTED, "ttl_missing"),
    ("many", {}, {"max_claims": 1}, 0, Answer.REJECTED, "too_many_claims"),
    ("never", {}, {"min_active_blocks": 41}, 0, Answer.REJECTED, "never_fits"),
    ("never deferred", {}, {"min_active_blocks": 41, "defer_claims": True}, 0, Answer.REJECTED, "never_fits"),
    ("never clipped", {}, {"min_active_blocks": 41, "clip_to": Mode.BEST_EFFORT}, 0, Answer.CLIPPED, "never_fits"),
    ("full", {}, FULL, 0, Answer.REJECTED, "insufficient_capacity"),
    ("full clipped", {}, {**FULL, "clip_to": Mode.SOFT_PRIORITY}, 0, Answer.CLIPPED, "insufficient_capacity"),
    ("full deferred", {}, {**FULL, "defer_claims": True}, 0, Answer.DEFERRED, "insufficient_capacity"),
    ("active", {}, {}, 36, Answer.REJECTED, "active_work"),
    ("active deferred", {}, {"defer_claims": True}, 36, Answer.DEFERRED, "active_work"),
    ("active fits", {}, {}, 35, Answer.ACCEPTED, "fits"),
    ("soft needs no room", {"mode": Mode.SOFT_PRIORITY}, {"min_active_blocks": 100}, 0, Answer.ACCEPTED, "fits"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "policy", "active", "verdict", "reason"), [c[1:] for c in CLAIMS], ids=[c[0] for c in CLAIMS]
)
def test_claim_is_answered_with_verdict_reason_and_numbers(
    change: dict[str, Any], policy: dict[str, Any], active: int, verdict: Answer, reason: str
) -> None:
    """One open claim holds 5 of 100 blocks; the new one covers a whole object of 60 blocks."""
    ledger = ClaimLedger()
    enter(ledger, "there", blocks=5)
    claim = make_claim("new", **{"blocks": 60, "predicate": parse_predicate("whole_object"), **change})
    decision = make_arbiter(ledger, 100, **policy).decide_claim(claim, object_blocks=60, active_blocks=active)
    assert (decision.verdict, decision.reason) == (verdict, reason)
    assert (decision.protected_blocks, decision.usable_blocks) == (5, 100)
    assert decision.mode is (policy["clip_to"] if verdict is Answer.CLIPPED else claim.mode)
    assert verdict is Answer.ACCEPTED or decision.detail


def test_ended_claims_do_not_count_against_the_limit() -> None:
    """The limit is on promises that are kept, not on history."""
    ledger = ClaimLedger()
    ledger.step(enter(ledger, "c"), Step.RELEASE)
    submitted = ledger.submit(make_claim("d"))
    decision = make_arbiter(ledger, max_claims=1).decide_claim(submitted.claim, object_blocks=4)
    assert decision.verdict is Answer.ACCEPTED


@pytest.mark.parametrize("mode", sorted(HOLDS_PRIMARY | {Mode.OFFLOADABLE, Mode.ROUTED_REUSE}))
def test_policy_cannot_clip_to_a_mode_that_holds_blocks(mode: Mode) -> None:
    """Clipping is for claims that do not fit: weaker terms must not need the room that is missing."""
    with pytest.raises(UsageError, match="clip_to"):
        ArbiterPolicy(clip_to=mode)


def test_policy_cannot_clip_to_a_mode_that_is_not_kept() -> None:
    """A clipped claim is an accepted claim; its mode must be supported."""
    with pytest.raises(UsageError, match="best_effort"):
        ArbiterPolicy(clip_to=Mode.SOFT_PRIORITY, supported_modes=frozenset({Mode.BEST_EFFORT, Mode.HARD_PROTECTED}))


@pytest.mark.parametrize("field", ["min_active_blocks", "defer_s", "max_claims"])
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_policy_numbers_are_not_negative(field: str, value: float) -> None:
    """A policy that makes no sense is refused at once."""
    with pytest.raises(UsageError, match=field):
        ArbiterPolicy(**{field: value})


def test_decision_among_ten_thousand_claims_visits_few_of_them() -> None:
    """Neither admission nor refusal walks through all claims: counted in records looked at, not in time."""
    ledger = ClaimLedger()
    visited = 0

    class CountingClaim(ClaimRecord):
        def protected_blocks(self) -> int:
            nonlocal visited
            visited += 1
            return ClaimRecord.protected_blocks(self)

    for n in range(10_000):
        mode = (Mode.HARD_PROTECTED, Mode.DEMOTABLE, Mode.OFFLOADABLE, Mode.EXPIRING)[n % 4]
        enter(ledger, f"c{n}", mode=mode, blocks=2, ttl_s=1000.0, priority=n % 7)
    for mode in Mode:
        ledger._holders_of[mode] = [
            (rank, order, CountingClaim(**{f: getattr(r, f) for f in r.__struct_fields__}))
            for rank, order, r in ledger._holders_of[mode]
        ]
    arbiter = make_arbiter(ledger, 21_000)
    fits = arbiter.decide_request(1000, active_blocks=0, now_ns=0)
    assert fits.action is Action.ADMIT and visited == 0
    relieved = arbiter.decide_request(1020, active_blocks=0, now_ns=0)
    assert len(relieved.relief) == 10 and visited <= 40
    visited = 0
    refused = arbiter.decide_request(12_000, active_blocks=0, now_ns=0)
    assert refused.action is Action.PRESERVE_AND_REFUSE and len(refused.blocking) == 10_000 and visited == 0
