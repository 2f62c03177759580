"""How a claim leaves the state: its outcome, and the collapse into a result once nothing can change it any more."""

from __future__ import annotations

import msgspec

from residentkv.audit.model import ClaimResult, Finding, Verdict, worse
from residentkv.audit.rules import acceptance, sequence, terms
from residentkv.audit.state import ClaimState, EndedClaim, SourceState
from residentkv.audit.table import DEMOTED, EXPIRED, REJECTED, RELEASED
from residentkv.trace.events import Event

MAX_BREAKS = 64
"""Breaks of a source after which open claims are no longer told one by one; every later claim is inconclusive."""


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
    """Turn a claim into its result and forget it; only its key, and what names a resubmission, is kept.

    A claim whose name was submitted anew while requests of it were open collapses once more when they have ended: its
    result is brought up to date and stays one.
    """
    again = c.result_index >= 0
    if again:
        pass
    elif c.unaccepted:
        _never_accepted(s, c)
    elif s.breaks > MAX_BREAKS and not c.touched and c.verdict is Verdict.CONFORMING:
        s.find(sequence.SEQUENCE_GAP, c, (c.last_seq,), f"{s.source}/{s.epoch} is broken in {s.breaks} places.")
    findings = tuple(c.findings) if c.findings else ()
    result = ClaimResult(
        owner_scope=c.owner_scope,
        claim_id=c.claim_id,
        instance=c.instance,
        source=s.source,
        epoch=s.epoch,
        mode=c.traits.name if c.traits is not None else None,
        state=c.state_name(),
        verdict=c.verdict,
        findings=findings,
        findings_dropped=c.findings_dropped,
        observed=_shown(c) if c.verdict is Verdict.CONFORMING else {},
        counts=c.counts or {},
        first_seq=c.first_seq,
        last_seq=c.last_seq,
    )
    if again:
        s.results[c.result_index] = _brought_up_to_date(s.results[c.result_index], result)
    else:
        c.result_index = len(s.results)
        s.results.append(result)
        s.ended[c.key] = EndedClaim(
            c.result_index,
            c.instance,
            c.first_request,
            c.revision,
            c.footprint_blocks if c.traits is not None and c.traits.reserves else 0,
            c.state,
        )
    if s.claims.get(c.key) is c:
        del s.claims[c.key]
    if c.dead_jobs is not None:
        for job_id in c.dead_jobs:
            s.jobs.pop(job_id, None)
    c.stored = c.cycle = c.dead_jobs = None


def _brought_up_to_date(old: ClaimResult, new: ClaimResult) -> ClaimResult:
    """Return the later result of a claim with what was added to the earlier one meanwhile; nothing bad is forgotten."""
    verdict = worse(old.verdict, new.verdict)
    added = tuple(f for f in old.findings if f not in new.findings)
    return msgspec.structs.replace(
        new,
        verdict=verdict,
        findings=(*new.findings, *added),
        findings_dropped=max(old.findings_dropped, new.findings_dropped),
        observed=old.observed | new.observed if verdict is Verdict.CONFORMING else {},
    )


def _shown(c: ClaimState) -> dict[str, tuple[int, ...]]:
    """Return what a conforming claim exercised; by its identity on all events only when it got its outcome."""
    observed = c.observed
    shown: dict[str, tuple[int, ...]] = {}
    if observed:
        for name, seqs in observed.items():
            shown[name] = tuple(seqs)
    start, end = c.materialized_seq, c.end_seq
    if start < 0 or not c.ended or c.state == REJECTED:
        return shown
    accepted = c.accepted_seq
    shown["claim_identity"] = shown["cache_identity"] = shown["object_identity"] = (accepted, end)
    shown["acceptance"] = (accepted, start)
    shown["predicate"] = (start,)
    shown["ordered_lifecycle"] = (accepted, start, end)
    if 0 <= c.join_seq < start:  # From then on pressure may take it; who joins it later was not there before.
        shown["joinability"] = (c.join_seq, accepted)
    return shown


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
    owners = s.owners.get(c.claim_id, {})
    return None if c.owner_scope in owners else next(iter(owners), None)


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


def check_let_go(s: SourceState, e: Event) -> None:
    """File claims that the engine released as at its end, and then went on."""
    let_go, s.let_go = s.let_go, []
    if s.broken_seq >= 0:
        return  # Whatever comes after a break is inconclusive already, and may be of another incarnation.
    for c, seq in let_go:
        story = (f"{s.source}/{s.epoch} released the claim, as at its end, at {s.seq(seq)}, and goes on: {s.at(e)}.",)
        if c.result_index < 0:
            s.find(terms.RELEASED_BY_STRANGER, c, (seq, e.seq), *story)
        else:
            finding = s.make(terms.RELEASED_BY_STRANGER, Verdict.VIOLATING, c.key, (seq, e.seq), story, None)
            amend_result(s, c.result_index, finding)


def excused(c: ClaimState) -> bool:
    """Tell whether the claim ended by an outcome that excuses a later loss."""
    return c.state in (RELEASED, EXPIRED, DEMOTED)
