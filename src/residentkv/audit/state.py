"""What the audit remembers about one (source, epoch): open claims, open requests, open jobs, live block copies.

Nothing here grows with the number of events: a claim that has its outcome, and whose requests have ended, collapses
to a `ClaimResult`; a request or a job is forgotten when it has ended.
"""

from __future__ import annotations

from typing import Any

import msgspec

from residentkv.audit.copies import BlockCopies
from residentkv.audit.model import ClaimResult, Finding, Rule, Verdict
from residentkv.audit.table import STATES, SUBMITTED
from residentkv.audit.workers import WorkerLedger
from residentkv.claims.modes import LOSS_IS_VIOLATION, NEVER_GIVEN_UP, RESERVES, Mode
from residentkv.claims.predicates import Predicate, Ranges
from residentkv.trace.events import ClaimEvent, Event, TraceOpened

Key = tuple[str, str]

MAX_ALIKE_PER_CLAIM = 3
MAX_ALIKE_PER_SOURCE = 16
"""Findings kept of one rule and verdict; more are counted, so that no rule hides another and memory is bounded."""

MAX_SEQS_PER_OBLIGATION = 24


OF_UNACCEPTED = frozenset({"RKV220", "RKV222"})
"""Codes that are filed about a claim that nobody accepted."""


class ModeTraits:
    """What the audit needs to know of a mode."""

    __slots__ = ("frees_on_offload", "is_never_given_up", "loss_is_violation", "name", "reports_loss", "reserves")

    def __init__(self, mode: Mode) -> None:
        self.name = mode.value
        self.reserves = mode in RESERVES
        self.frees_on_offload = mode is Mode.OFFLOADABLE
        self.loss_is_violation = mode in LOSS_IS_VIOLATION
        self.is_never_given_up = mode in NEVER_GIVEN_UP
        self.reports_loss = mode is not Mode.BEST_EFFORT


TRAITS: dict[str, ModeTraits] = {mode.value: ModeTraits(mode) for mode in Mode}


class JobState(msgspec.Struct, gc=False, eq=False):
    """A transfer job; positions are good only when they are good on every worker."""

    job_id: int
    direction: str
    request_id: str
    key: Key | None
    claim: ClaimState | None
    generation: int
    pos: Ranges
    created_seq: int
    ok_pos: Ranges
    failed_pos: Ranges = ()
    success: bool = True
    workers_total: int = 0
    workers: set[int] | None = None
    bytes: int = 0
    finished_seq: int = -1
    told_seq: int = -1


class Cycle(msgspec.Struct, gc=False, eq=False):
    """One restore cycle: who required it, what was loaded, how it ended."""

    generation: int
    request_id: str | None
    required_pos: Ranges
    required_seq: int
    job: JobState | None = None
    untold: JobState | None = None
    restored_seq: int = -1
    restored_pos: Ranges = ()
    reuse_seq: int = -1
    connector_seq: int = -1
    failed_seq: int = -1
    failed_pos: Ranges = ()
    policy: str = ""
    finish_status: str = ""


class RequestState(msgspec.Struct, gc=False, eq=False):
    """An active request and what it owes or is owed."""

    request_id: str
    key: Key | None
    init_seq: int
    claim: ClaimState | None = None
    cycle: Cycle | None = None
    failure: Cycle | None = None
    loads: list[int] | None = None
    admitted_seq: int = -1
    deferred_seq: int = -1
    denied_seq: int = -1
    capacity_refused_seq: int = -1
    connector_refused_seq: int = -1
    refused_seq: int = -1
    refused_status: str = ""
    lookup_seq: int = -1
    lookup_pos: Ranges = ()
    lookup_tier: str = ""
    recomputed_seq: int = -1
    recomputed_pos: Ranges = ()
    reused_seq: int = -1
    reused_pos: Ranges = ()
    served_seq: int = -1


class ClaimState(msgspec.Struct, gc=False, eq=False):
    """One submission of a claim and where it stands; made by `submitted`."""

    claim_id: str
    owner_scope: str
    key: Key
    object_id: str
    token_map_id: str
    cache_identity: str
    predicate_text: str
    instance: int
    first_seq: int
    last_seq: int
    step_seq: int
    state: int = SUBMITTED
    predicate: Predicate | None = None
    traits: ModeTraits | None = None
    on_restore_failure: str = ""
    footprint_blocks: int = 0
    revision: int = 0
    deadline_ns: int | None = None
    generation: int = 0
    accepted_seq: int = -1
    materialized_seq: int = -1
    end_seq: int = -1
    ended: bool = False
    unaccepted: bool = False
    unaccepted_known: bool = False
    skipped: list[str] | None = None
    touched: bool = False
    priority: int = 0
    used_seq: int = -1
    held_seq: int = -1
    tried: bool = False
    spared_seq: int = -1
    protects: bool = False
    first_request: str | None = None
    last_request: str | None = None
    join_seq: int = -1
    open_requests: int = 0
    open_jobs: int = 0
    object_blocks: int = 0
    retrievable_pos: Ranges = ()
    needed_pos: Ranges = ()
    primary_tier: str = ""
    offload_tier: str = ""
    offload_pos: Ranges = ()
    offload_seqs: tuple[int, ...] = ()
    stored: dict[int, JobState] | None = None
    dead_jobs: list[int] | None = None
    cycle: Cycle | None = None
    hashes: tuple[str, ...] = ()
    needed_hashes: tuple[str, ...] = ()
    unseen: set[str] | None = None
    gone: set[str] | None = None
    result_index: int = -1
    lost_seq: int = -1
    lost_blurred: bool = False
    suspended_loss_seq: int = -1
    primary_loss_seq: int = -1
    primary_blurred: bool = False
    worker: tuple[str, int] | None = None
    worker_seq: int = -1
    verdict: Verdict = Verdict.CONFORMING
    findings: list[Finding] | None = None
    findings_dropped: int = 0
    observed: dict[str, list[int]] | None = None
    counts: dict[str, int] | None = None

    def note(self, obligation: str, *seqs: int) -> None:
        """Record that these events exercised an obligation."""
        if self.observed is None:
            self.observed = {}
        have = self.observed.setdefault(obligation, [])
        if len(have) < MAX_SEQS_PER_OBLIGATION:
            have.extend(seqs)

    def count(self, what: str) -> None:
        """Count that something happened to the claim."""
        if self.counts is None:
            self.counts = {}
        self.counts[what] = self.counts.get(what, 0) + 1

    def state_name(self) -> str:
        """Return the word of the lifecycle for where the claim stands."""
        return STATES[self.state].value


def submitted(e: ClaimEvent, instance: int) -> ClaimState:
    """Return the state of a claim that is first named by `e`."""
    seq = e.seq
    return ClaimState(
        e.claim_id,
        e.owner_scope,
        (e.owner_scope, e.claim_id),
        e.object_id,
        e.token_map_id,
        e.cache_identity,
        e.predicate,
        instance,
        seq,
        seq,
        seq,
    )


class EndedClaim(msgspec.Struct, gc=False, eq=False):
    """What is kept of a collapsed claim besides its result, to recognise events and submissions that come later."""

    result: int
    instance: int
    first_request: str | None
    revision: int
    footprint_blocks: int
    state: int


class SourceState:
    """Everything about one (source, epoch)."""

    __slots__ = (
        "admissions",
        "alike",
        "authoritative",
        "block_events",
        "blocks",
        "breaks",
        "broken_seq",
        "claims",
        "closed",
        "counters",
        "decided_seq",
        "ended",
        "epoch",
        "events",
        "evicted",
        "findings",
        "findings_dropped",
        "fresh_losses",
        "holders",
        "jobs",
        "last_seq",
        "learned",
        "less_recent",
        "let_go",
        "lookups",
        "mono_ns",
        "next_seq",
        "opened",
        "owners",
        "predicates",
        "prenamed",
        "protected_blocks",
        "recent",
        "requests",
        "results",
        "run_id",
        "said",
        "source",
        "transfers",
        "unadmitted",
        "unadmitted_seq",
        "unclaimed_failure_seq",
        "unclaimed_stores",
        "usable_blocks",
        "usable_seq",
        "verdict",
    )

    def __init__(self, source: str, epoch: int, run_id: str) -> None:
        self.source = source
        self.epoch = epoch
        self.run_id = run_id
        self.opened: TraceOpened | None = None
        self.closed = False
        self.events = 0
        self.next_seq = 0
        self.last_seq = -1
        self.mono_ns = 0
        self.broken_seq = -1
        self.verdict = Verdict.CONFORMING
        self.findings: list[Finding] = []
        self.findings_dropped = 0
        self.claims: dict[Key, ClaimState] = {}
        self.ended: dict[Key, EndedClaim] = {}
        self.results: list[ClaimResult] = []
        self.requests: dict[str, RequestState] = {}
        self.recent: dict[str, int] = {}
        self.less_recent: dict[str, int] = {}
        self.owners: dict[str, dict[str, None]] = {}
        self.alike: dict[tuple[str, Verdict], int] = {}
        self.breaks = 0
        self.jobs: dict[int, JobState] = {}
        self.unclaimed_stores: dict[int, int] = {}
        self.prenamed: dict[Key, int] = {}
        self.predicates: dict[str, Predicate | None] = {}
        self.protected_blocks = 0
        self.holders: dict[str, list[ClaimState]] = {}
        self.blocks = BlockCopies()
        self.block_events = 0
        self.decided_seq = -1
        self.evicted: dict[str, tuple[int, int]] = {}
        self.fresh_losses: list[ClaimState] = []
        self.let_go: list[tuple[ClaimState, int]] = []
        self.authoritative = False
        self.transfers = 0
        self.lookups = 0
        self.admissions = 0
        self.unadmitted = 0
        self.unadmitted_seq = -1
        self.usable_blocks = 0
        self.usable_seq = -1
        self.counters = 0
        self.unclaimed_failure_seq = -1
        self.learned = WorkerLedger()
        self.said = WorkerLedger()

    def find(
        self,
        rule: Rule,
        claim: ClaimState | None,
        seqs: tuple[int, ...],
        *story: str,
        missing: str | None = None,
        unknown: bool = False,
        proven: bool = False,
    ) -> None:
        """File a finding; it is inconclusive when the rule says so, after a break, or when `unknown` is set.

        With `proven` the events that show it came before any break.
        """
        verdict = rule.verdict
        if unknown or (self.broken_seq >= 0 and not proven):
            verdict = Verdict.INCONCLUSIVE
        if claim is None:
            if self.verdict is not Verdict.VIOLATING:
                self.verdict = verdict
            alike = self.alike.get((rule.code, verdict), 0)
            if alike >= MAX_ALIKE_PER_SOURCE:
                self.findings_dropped += 1
                return
            self.alike[rule.code, verdict] = alike + 1
            self.findings.append(self.make(rule, verdict, None, seqs, story, missing))
            return
        if claim.unaccepted and rule.code not in OF_UNACCEPTED:
            return  # Nobody accepted it: that is the one thing to say, and it is said when the claim collapses.
        if claim.verdict is not Verdict.VIOLATING:
            claim.verdict = verdict
        if claim.findings is None:
            claim.findings = []
        elif _alike(claim.findings, rule, verdict) >= MAX_ALIKE_PER_CLAIM:
            claim.findings_dropped += 1
            return
        claim.findings.append(self.make(rule, verdict, claim.key, seqs, story, missing))

    def make(
        self,
        rule: Rule,
        verdict: Verdict,
        key: Key | None,
        seqs: tuple[int, ...],
        story: tuple[str, ...],
        missing: str | None,
    ) -> Finding:
        """Build a finding of this (source, epoch)."""
        return Finding(
            code=rule.code,
            slug=rule.slug,
            verdict=verdict,
            source=self.source,
            epoch=self.epoch,
            seqs=tuple(sorted({q for q in seqs if q >= 0})),
            owner_scope=key[0] if key else None,
            claim_id=key[1] if key else None,
            story=story,
            required_order=rule.required_order,
            missing_event=missing,
            contradicts=rule.contradicts if verdict is Verdict.VIOLATING else (),
        )

    def at(self, e: Event) -> str:
        """Say which event this is: `resident_claim_restored (scheduler/0 seq 12)`."""
        return f"{event_name(e)} ({self.source}/{self.epoch} seq {e.seq})"

    def seq(self, seq: int) -> str:
        """Say where an event lies: `scheduler/0 seq 12`."""
        return f"{self.source}/{self.epoch} seq {seq}"


def _alike(findings: list[Finding], rule: Rule, verdict: Verdict) -> int:
    return sum(1 for f in findings if f.code == rule.code and f.verdict is verdict)


def event_name(e: Event) -> str:
    """Return the name that an event has in the trace."""
    config: Any = e.__struct_config__
    return str(config.tag)
