"""How a claim leaves the state: its outcome, and the collapse into a result once nothing can change it any more."""

from __future__ import annotations

import msgspec

from residentkv.audit.model import ClaimResult, Finding, Verdict, worse
from residentkv.audit.rules import acceptance
from residentkv.audit.state import ClaimState, EndedClaim, SourceState
from residentkv.audit.table import DEMOTED, EXPIRED, REJECTED, RELEASED


def unprotect(s: SourceState, c: ClaimState) -> None:
    """The claim no longer holds blocks in the primary tier."""
    if c.protects:
        c.protects = False
        s.protected_blocks -= c.footprint_blocks
        same_id = s.holders[c.claim_id]
        same_id.remove(c)
        if not same_id:
            del s.holders[c.claim_id]


def collapse(s: SourceState, c: ClaimState) -> None:
    """Turn a claim into its result and forget it; only its key, and what names a resubmission, is kept."""
    if c.unaccepted:
        _never_accepted(s, c)
    conforming = c.verdict is Verdict.CONFORMING
    if conforming:
        _identity_obligations(c)
    observed = c.observed
    result = ClaimResult(
        owner_scope=c.owner_scope,
        claim_id=c.claim_id,
        instance=c.instance,
        source=s.source,
        epoch=s.epoch,
        mode=c.traits.name if c.traits is not None else None,
        state=c.state_name(),
        verdict=c.verdict,
        findings=tuple(c.findings) if c.findings else (),
        findings_dropped=c.findings_dropped,
        observed={name: tuple(seqs) for name, seqs in observed.items()} if conforming and observed else {},
        counts=c.counts or {},
        first_seq=c.first_seq,
        last_seq=c.last_seq,
    )
    c.result_index = len(s.results)
    s.results.append(result)
    s.ended[c.key] = EndedClaim(c, c.result_index)
    if s.claims.get(c.key) is c:
        del s.claims[c.key]
    if c.dead_jobs is not None:
        for job_id in c.dead_jobs:
            s.jobs.pop(job_id, None)
    c.stored = c.cycle = c.dead_jobs = None


def _identity_obligations(c: ClaimState) -> None:
    """What a conforming claim that got its outcome has shown by the identity on its events."""
    if c.materialized_seq < 0 or c.state == REJECTED or not c.ended:
        return
    span = (c.accepted_seq, c.end_seq)
    c.note("claim_identity", *span)
    c.note("cache_identity", *span)
    c.note("object_identity", *span)
    c.note("acceptance", c.accepted_seq, c.materialized_seq)
    c.note("predicate", c.materialized_seq)
    c.note("ordered_lifecycle", c.accepted_seq, c.materialized_seq, c.end_seq)
    if c.join_seq >= 0:
        c.note("joinability", c.join_seq, c.accepted_seq)


def _never_accepted(s: SourceState, c: ClaimState) -> None:
    named = s.prenamed.pop(c.key, c.first_seq)
    first = min(named, c.first_seq)
    skipped = c.skipped or ["resident_claim_accepted"]
    owner = _other_owner(s, c)
    if owner is not None:
        s.find(
            acceptance.CLAIM_OF_ANOTHER_OWNER,
            c,
            (first, c.first_seq, c.last_seq),
            f"Events from {s.seq(first)} on use claim {c.claim_id} as if it belonged to {c.owner_scope}; "
            f"it was decided for {owner} and never for {c.owner_scope}.",
            missing="resident_claim_accepted",
            proven=c.unaccepted_known,
        )
        return
    s.find(
        acceptance.CLAIM_NEVER_ACCEPTED,
        c,
        (first, c.first_seq, c.last_seq),
        f"Claim {c.claim_id} of {c.owner_scope} is used from {s.seq(first)} on; before it there is no "
        f"{' and no '.join(skipped)}.",
        "The lifecycle begins with resident_claim_accepted, then resident_claim_materialized; neither follows from "
        "transfers or outcomes that name a claim.",
        missing=", ".join(skipped),
        proven=c.unaccepted_known,
    )


def _other_owner(s: SourceState, c: ClaimState) -> str | None:
    for owner, claim_id in (*s.claims, *s.ended):
        if claim_id == c.claim_id and owner != c.owner_scope:
            other = s.claims.get((owner, claim_id))
            if other is None or not other.unaccepted:
                return owner
    return None


def amend_result(s: SourceState, index: int, finding: Finding) -> None:
    """Add a finding to a claim that has collapsed; it no longer supports anything."""
    result = s.results[index]
    s.results[index] = msgspec.structs.replace(
        result,
        verdict=worse(result.verdict, finding.verdict),
        findings=(*result.findings, finding)[:8],
        findings_dropped=result.findings_dropped + (len(result.findings) >= 8),
        observed={},
    )


def excused(c: ClaimState) -> bool:
    """Tell whether the claim ended by an outcome that excuses a later loss."""
    return c.state in (RELEASED, EXPIRED, DEMOTED)
