"""The one arbiter: it decides about claims and about active requests, from numbers, without any runtime.

It never changes anything. A decision names the action and the numbers it used; the runtime carries it out through
the ledger and emits the events (spec section 2, feasibility: protected_resident + active_live <= usable).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from residentkv.claims.ledger import ClaimLedger, ClaimRecord, Key
from residentkv.claims.model import ResidentClaim
from residentkv.claims.modes import HOLDS_PRIMARY, Mode


class Verdict(StrEnum):
    """What the runtime answers to a submitted claim."""

    ACCEPTED = "accepted"
    CLIPPED = "clipped"
    DEFERRED = "deferred"
    REJECTED = "rejected"


class Action(StrEnum):
    """The named actions on an active request."""

    ADMIT = "admit"
    PRESERVE_AND_REFUSE = "preserve_and_refuse"
    PRESERVE_AND_DEFER = "preserve_and_defer"


class Relief(StrEnum):
    """What may be done to a protecting claim to make room, each with its event before any loss."""

    EXPIRE = "expire"
    OFFLOAD = "offload"
    DEMOTE = "demote"


class ArbiterPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator allows.

    `min_active_blocks` is kept free of protection for active work; `clip_to` is the weaker mode offered when a claim
    does not fit (none: it is rejected); `reliefs` are tried in their order; `defer_s` 0 refuses at once.
    """

    supported_modes: frozenset[Mode] = frozenset(Mode)
    min_active_blocks: int = 1
    clip_to: Mode | None = None
    reliefs: tuple[Relief, ...] = (Relief.EXPIRE, Relief.OFFLOAD, Relief.DEMOTE)
    defer_s: float = 0.0
    max_claims: int = 1_000_000


class ClaimDecision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a claim with the numbers used; `mode` is weaker than asked for when clipped."""

    verdict: Verdict
    mode: Mode
    reason: str
    detail: str
    protected_blocks: int
    usable_blocks: int


class RequestDecision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an active request with the numbers used, in blocks.

    `relief` lists (what, claim) to carry out before admission; `blocking` are the claims that stay protected, with
    those of them that make the request fail; `shortfall_blocks` is what is missing after all allowed relief.
    """

    action: Action
    need_blocks: int
    protected_blocks: int
    active_blocks: int
    usable_blocks: int
    shortfall_blocks: int
    relief: tuple[tuple[Relief, ClaimRecord], ...] = ()
    blocking: tuple[ClaimRecord, ...] = ()
    defer_s: float = 0.0


class Arbiter:
    """Decisions over one ledger; `usable_blocks` is what the primary tier can hold in all."""

    def __init__(self, ledger: ClaimLedger, *, usable_blocks: int, policy: ArbiterPolicy) -> None:
        self.ledger = ledger
        self.usable_blocks = usable_blocks
        self.policy = policy

    def decide_claim(self, claim: ResidentClaim, *, object_blocks: int) -> ClaimDecision:
        """Answer a claim; `object_blocks` is the number of blocks of the object it names."""

        def answer(verdict: Verdict, reason: str, detail: str, mode: Mode = claim.mode) -> ClaimDecision:
            return ClaimDecision(
                verdict=verdict,
                mode=mode,
                reason=reason,
                detail=detail,
                protected_blocks=self.ledger.protected_blocks,
                usable_blocks=self.usable_blocks,
            )

        if claim.mode not in self.policy.supported_modes:
            words = ", ".join(sorted(m.value for m in self.policy.supported_modes))
            return answer(Verdict.REJECTED, "mode_unsupported", f"{claim.mode.value}; this engine keeps {words}")
        start, count = claim.predicate.needed(object_blocks)
        if count < 1 or start + count > object_blocks:
            return answer(
                Verdict.REJECTED,
                "predicate_unsatisfiable",
                f"{claim.predicate} over an object of {object_blocks} blocks",
            )
        if claim.mode is Mode.EXPIRING and claim.ttl_s is None:
            return answer(Verdict.REJECTED, "ttl_missing", "an expiring claim needs ttl_s")
        if len(self.ledger) >= self.policy.max_claims:
            return answer(Verdict.REJECTED, "too_many_claims", f"this engine keeps at most {self.policy.max_claims}")
        reserves = claim.footprint_blocks if claim.mode in _RESERVING else 0
        room = self.usable_blocks - self.policy.min_active_blocks
        if reserves > room:
            reason, detail = "never_fits", f"footprint {reserves} blocks, at most {max(room, 0)} can be protected"
        elif reserves and self.ledger.protected_blocks + reserves > room:
            reason = "insufficient_capacity"
            detail = (
                f"footprint {reserves} + protected {self.ledger.protected_blocks} blocks, "
                f"at most {room} can be protected"
            )
        else:
            return answer(Verdict.ACCEPTED, "fits", "")
        if self.policy.clip_to is not None and self.policy.clip_to not in _RESERVING:
            return answer(Verdict.CLIPPED, reason, detail, self.policy.clip_to)
        return answer(Verdict.REJECTED, reason, detail)

    def decide_request(
        self, need_blocks: int, *, active_blocks: int, now_ns: int, own: frozenset[Key] = frozenset()
    ) -> RequestDecision:
        """Answer an active request that needs `need_blocks` beside `active_blocks` already live at `now_ns`.

        `own` are claims whose protected blocks the request reuses itself; the caller has taken these out of
        `need_blocks`, and they are never relieved for it.
        """
        ledger = self.ledger
        protected_blocks = ledger.protected_blocks
        shortfall = protected_blocks + active_blocks + need_blocks - self.usable_blocks
        relief: list[tuple[Relief, ClaimRecord]] = []
        if shortfall > 0:
            taken: set[Key] = set()
            for what in self.policy.reliefs:
                for record in sorted(ledger.holders(), key=lambda r: (r.claim.priority, r.order)):
                    key = record.claim.key
                    if shortfall <= 0 or key in taken or key in own or not _allows(what, record, now_ns):
                        continue
                    taken.add(key)
                    relief.append((what, record))
                    shortfall -= record.protected_blocks()
        admitted = shortfall <= 0
        defer_s = self.policy.defer_s if not admitted and need_blocks <= self.usable_blocks else 0.0
        if admitted:
            action = Action.ADMIT
        elif defer_s > 0:
            action = Action.PRESERVE_AND_DEFER
        else:
            action = Action.PRESERVE_AND_REFUSE
        return RequestDecision(
            action=action,
            need_blocks=need_blocks,
            protected_blocks=protected_blocks,
            active_blocks=active_blocks,
            usable_blocks=self.usable_blocks,
            shortfall_blocks=0 if admitted else protected_blocks + active_blocks + need_blocks - self.usable_blocks,
            relief=tuple(relief) if admitted else (),
            blocking=() if admitted else tuple(r for r in ledger.holders() if r.claim.key not in own),
            defer_s=defer_s,
        )


_RESERVING = HOLDS_PRIMARY | {Mode.OFFLOADABLE}
"""Modes whose footprint is reserved from acceptance on, so that what was accepted can also be materialized."""


def _allows(what: Relief, record: ClaimRecord, now_ns: int) -> bool:
    if what is Relief.EXPIRE:
        return record.deadline_ns is not None and record.deadline_ns <= now_ns
    if what is Relief.OFFLOAD:
        return record.mode is Mode.OFFLOADABLE
    return record.mode is Mode.DEMOTABLE
