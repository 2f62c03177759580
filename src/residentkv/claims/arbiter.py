"""The one arbiter: it decides about claims and about active requests, from numbers, without any runtime.

It never changes anything. A decision names the action and the numbers it used; the runtime carries it out through
the ledger and emits the events (spec section 2, feasibility: protected_resident + active_live <= usable).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from residentkv.claims.ledger import ClaimLedger, ClaimRecord, Key
from residentkv.claims.lifecycle import State
from residentkv.claims.model import ResidentClaim
from residentkv.claims.modes import RESERVES, Mode
from residentkv.errors import UsageError


class Answer(StrEnum):
    """What the runtime answers to a submitted claim."""

    ACCEPTED = "accepted"
    CLIPPED = "clipped"
    DEFERRED = "deferred"
    REJECTED = "rejected"


class Action(StrEnum):
    """The named actions on an active request.

    `wait` is no action of a claim: the request does not fit beside the active work even if there were no claims, and
    waits for that work as the runtime lets it wait without residentkv. The runtime asks again.
    """

    ADMIT = "admit"
    WAIT = "wait"
    PRESERVE_AND_REFUSE = "preserve_and_refuse"
    PRESERVE_AND_DEFER = "preserve_and_defer"


class Relief(StrEnum):
    """What may be done to a protecting claim to make room, each with its event before any loss."""

    EXPIRE = "expire"
    OFFLOAD = "offload"
    DEMOTE = "demote"


UNPROTECTED = frozenset({Mode.BEST_EFFORT, Mode.SOFT_PRIORITY})
"""What a claim that does not fit may be clipped to: modes that bind neither blocks nor a place."""


class ArbiterPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator allows.

    `min_active_blocks` is kept free of protection for active work; `clip_to` is the weaker mode offered when a claim
    does not fit (none: it is deferred or rejected); `defer_claims` leaves the decision open while others hold the
    room; `reliefs` are tried in their order; `defer_s` is how long an active request may wait for claims, 0 refuses
    at once; `max_claims` bounds the open claims.

    Raises:
        UsageError: `clip_to` reserves blocks or is not supported, or a number is negative.
    """

    supported_modes: frozenset[Mode] = frozenset(Mode)
    min_active_blocks: int = 1
    clip_to: Mode | None = None
    defer_claims: bool = False
    reliefs: tuple[Relief, ...] = (Relief.EXPIRE, Relief.OFFLOAD, Relief.DEMOTE)
    defer_s: float = 0.0
    max_claims: int = 1_000_000

    def __post_init__(self) -> None:
        if self.clip_to is not None and self.clip_to not in UNPROTECTED & self.supported_modes:
            words = ", ".join(sorted(m.value for m in UNPROTECTED & self.supported_modes)) or "nothing"
            raise UsageError(
                f"clip_to: found {self.clip_to.value}, expected a supported mode that holds no blocks: {words}"
            )
        for name in ("min_active_blocks", "defer_s", "max_claims"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name}: found {getattr(self, name)}, expected 0 or more")


class ClaimDecision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a claim with the numbers used; `mode` is weaker than asked for when clipped."""

    verdict: Answer
    mode: Mode
    reason: str
    detail: str
    protected_blocks: int
    usable_blocks: int


class RequestDecision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an active request with the numbers used, in blocks.

    `relief` lists (what, claim) to carry out before admission: no part of it could be left out. `blocking` are the
    claims whose blocks stay protected when the request loses to claims; it is empty when claims are not the reason
    (`wait`, or a request larger than the whole tier). `shortfall_blocks` is what is missing while all of them stay.
    Numbers are those before relief.

    Reasons: `fits`, `fits_after_relief`, `active_work` (wait), `claims_hold` (even an idle engine could not serve it
    beside the claims), `claims_hold_now` (it could, once active work has ended), `exceeds_capacity`.
    """

    action: Action
    need_blocks: int
    protected_blocks: int
    active_blocks: int
    usable_blocks: int
    shortfall_blocks: int
    reason: str = "fits"
    relief: tuple[tuple[Relief, ClaimRecord], ...] = ()
    blocking: tuple[ClaimRecord, ...] = ()
    defer_s: float = 0.0


class Arbiter:
    """Decisions over one ledger; `usable_blocks` is what the primary tier can hold in all."""

    def __init__(self, ledger: ClaimLedger, *, usable_blocks: int, policy: ArbiterPolicy) -> None:
        self.ledger = ledger
        self.usable_blocks = usable_blocks
        self.policy = policy

    def decide_claim(self, claim: ResidentClaim, *, object_blocks: int, active_blocks: int = 0) -> ClaimDecision:
        """Answer a claim.

        Args:
            object_blocks: blocks of the object that the claim names.
            active_blocks: blocks of active work that the claim does not cover itself; together with all that is
                protected they must still fit once the claim is accepted.
        """
        policy = self.policy

        def answer(verdict: Answer, reason: str, detail: str, mode: Mode = claim.mode) -> ClaimDecision:
            return ClaimDecision(
                verdict=verdict,
                mode=mode,
                reason=reason,
                detail=detail,
                protected_blocks=self.ledger.protected_blocks,
                usable_blocks=self.usable_blocks,
            )

        if claim.mode not in policy.supported_modes:
            words = ", ".join(sorted(m.value for m in policy.supported_modes))
            return answer(Answer.REJECTED, "mode_unsupported", f"{claim.mode.value}; this engine keeps {words}")
        start, count = claim.predicate.needed(object_blocks)
        if count < 1 or start + count > object_blocks:
            return answer(
                Answer.REJECTED,
                "predicate_unsatisfiable",
                f"{claim.predicate} over an object of {object_blocks} blocks",
            )
        if claim.footprint_blocks < count:
            return answer(
                Answer.REJECTED,
                "footprint_below_predicate",
                f"footprint {claim.footprint_blocks} blocks, {claim.predicate} needs {count}",
            )
        if claim.mode is Mode.EXPIRING and claim.ttl_s is None:
            return answer(Answer.REJECTED, "ttl_missing", "an expiring claim needs ttl_s")
        if self.ledger.open_claims >= policy.max_claims:
            return answer(Answer.REJECTED, "too_many_claims", f"this engine keeps at most {policy.max_claims}")
        if claim.mode not in RESERVES:
            return answer(Answer.ACCEPTED, "fits", "")
        need = claim.footprint_blocks
        protected = self.ledger.protected_blocks
        room = max(self.usable_blocks - policy.min_active_blocks, 0)
        if need > room:
            reason, detail = "never_fits", f"footprint {need} blocks, at most {room} can be protected"
        elif protected + need > room:
            reason = "insufficient_capacity"
            detail = f"footprint {need} + protected {protected} blocks, at most {room} can be protected"
        elif protected + need + active_blocks > self.usable_blocks:
            reason = "active_work"
            detail = (
                f"footprint {need} + protected {protected} + active {active_blocks} blocks, usable {self.usable_blocks}"
            )
        else:
            return answer(Answer.ACCEPTED, "fits", "")
        if policy.clip_to is not None:
            return answer(Answer.CLIPPED, reason, detail, policy.clip_to)
        if policy.defer_claims and reason != "never_fits":
            return answer(Answer.DEFERRED, reason, detail)
        return answer(Answer.REJECTED, reason, detail)

    def decide_request(
        self,
        need_blocks: int,
        *,
        active_blocks: int,
        now_ns: int,
        own: frozenset[Key] = frozenset(),
        busy: frozenset[Key] = frozenset(),
        reused_blocks: int = 0,
    ) -> RequestDecision:
        """Answer an active request that needs `need_blocks` beside `active_blocks` already live at `now_ns`.

        Args:
            need_blocks: blocks that the request adds to the active ones; blocks that are protected already are none.
            active_blocks: blocks of requests being served that no claim protects.
            own: claims whose protected blocks the request reuses itself; never relieved for it, and named as blocking
                only when the others alone do not explain what is missing.
            busy: claims whose blocks requests being served use; never relieved, since that would free nothing.
            reused_blocks: how many protected blocks the request reuses; it would need them without claims, too.

        Raises:
            ValueError: a number is negative.
        """
        if need_blocks < 0 or active_blocks < 0 or reused_blocks < 0:
            raise ValueError(
                f"need {need_blocks}, active {active_blocks} and reused {reused_blocks} blocks, expected 0 or more"
            )
        ledger = self.ledger
        usable = self.usable_blocks
        protected = ledger.protected_blocks
        shortfall = protected + active_blocks + need_blocks - usable
        action, reason, defer_s = Action.ADMIT, "fits", 0.0
        relief: tuple[tuple[Relief, ClaimRecord], ...] = ()
        blocking: tuple[ClaimRecord, ...] = ()
        if shortfall > 0:
            reason = "fits_after_relief"
            relief = self._relieve(shortfall, now_ns, own | busy)
            if not relief:
                unclaimed = need_blocks + reused_blocks
                if unclaimed > usable:
                    action, reason = Action.PRESERVE_AND_REFUSE, "exceeds_capacity"
                elif active_blocks + unclaimed > usable and protected + need_blocks <= usable:
                    action, reason = Action.WAIT, "active_work"
                else:
                    reason = "claims_hold" if protected + need_blocks > usable else "claims_hold_now"
                    defer_s = self.policy.defer_s
                    action = Action.PRESERVE_AND_DEFER if defer_s > 0 else Action.PRESERVE_AND_REFUSE
                    blocking = self._blocking(shortfall, own)
        return RequestDecision(
            action=action,
            need_blocks=need_blocks,
            protected_blocks=protected,
            active_blocks=active_blocks,
            usable_blocks=usable,
            shortfall_blocks=0 if action is Action.ADMIT else shortfall,
            reason=reason,
            relief=relief,
            blocking=blocking,
            defer_s=defer_s,
        )

    def _blocking(self, shortfall: int, own: frozenset[Key]) -> tuple[ClaimRecord, ...]:
        ledger = self.ledger
        own_blocks = sum(r.protected_blocks() for k in own if (r := ledger.get(k)) is not None)
        enough = ledger.protected_blocks - own_blocks >= shortfall
        return ledger.holders_except(own if enough else frozenset())

    def _relieve(self, shortfall: int, now_ns: int, keep: frozenset[Key]) -> tuple[tuple[Relief, ClaimRecord], ...]:
        """Choose claims that together cover the shortfall, none of them in vain; empty when they cannot."""
        ledger = self.ledger
        expired = (
            [r for r in ledger.due(now_ns) if r.protected_blocks()] if Relief.EXPIRE in self.policy.reliefs else []
        )
        most = sum(r.protected_blocks() for r in expired)
        most += sum(ledger.protected_blocks_of(_RELIEVED[w]) for w in self.policy.reliefs if w in _RELIEVED)
        if most < shortfall:
            return ()
        chosen: list[tuple[Relief, ClaimRecord]] = []
        taken = set(keep)
        covered = 0
        for what in self.policy.reliefs:
            for record in expired if what is Relief.EXPIRE else ledger.holders_of(_RELIEVED[what]):
                if covered >= shortfall:
                    break
                if record.claim.key in taken or (what is Relief.OFFLOAD and record.state is not State.MATERIALIZED):
                    continue
                taken.add(record.claim.key)
                chosen.append((what, record))
                covered += record.protected_blocks()
        if covered < shortfall:
            return ()
        needed = chosen[-1:]
        for pair in reversed(chosen[:-1]):
            blocks = pair[1].protected_blocks()
            if covered - blocks >= shortfall:
                covered -= blocks
            else:
                needed.append(pair)
        return tuple(reversed(needed))


_RELIEVED = {Relief.OFFLOAD: Mode.OFFLOADABLE, Relief.DEMOTE: Mode.DEMOTABLE}
"""The mode that gives its blocks up to each relief; expiry takes any claim whose term has ended."""
