"""What the audit remembers about one (source, epoch): open claims, open requests, open jobs, live block copies.

Nothing here grows with the number of events: a claim that has its outcome, and whose requests have ended, collapses
to a `ClaimResult`; a request or a job is forgotten when it has ended.
"""

from __future__ import annotations

from typing import Any

from residentkv.audit.copies import BlockCopies
from residentkv.audit.model import ClaimResult, Finding, Rule, Verdict
from residentkv.audit.table import STATES, SUBMITTED
from residentkv.audit.workers import WorkerLedger
from residentkv.claims.modes import HOLDS_PRIMARY, LOSS_IS_VIOLATION, Mode
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

    __slots__ = ("frees_on_offload", "loss_is_violation", "name", "reports_loss", "reserves")

    def __init__(self, mode: Mode) -> None:
        self.name = mode.value
        self.reserves = mode in HOLDS_PRIMARY or mode is Mode.OFFLOADABLE
        self.frees_on_offload = mode is Mode.OFFLOADABLE
        self.loss_is_violation = mode in LOSS_IS_VIOLATION
        self.reports_loss = mode is not Mode.BEST_EFFORT


TRAITS: dict[str, ModeTraits] = {mode.value: ModeTraits(mode) for mode in Mode}


class JobState:
    """A transfer job; positions are good only when they are good on every worker."""

    __slots__ = (
        "bytes",
        "claim",
        "created_seq",
        "direction",
        "failed_pos",
        "finished_seq",
        "generation",
        "job_id",
        "key",
        "ok_pos",
        "pos",
        "request_id",
        "success",
        "told_seq",
        "workers",
        "workers_total",
    )

    def __init__(
        self,
        job_id: int,
        direction: str,
        request_id: str,
        key: Key | None,
        claim: ClaimState | None,
        generation: int,
        pos: Ranges,
        created_seq: int,
    ) -> None:
        self.job_id = job_id
        self.direction = direction
        self.request_id = request_id
        self.key = key
        self.claim = claim
        self.generation = generation
        self.pos = pos
        self.created_seq = created_seq
        self.workers_total = 0
        self.workers: set[int] | None = None
        self.success = True
        self.ok_pos = pos
        self.failed_pos: Ranges = ()
        self.bytes = 0
        self.finished_seq = -1
        self.told_seq = -1


class Cycle:
    """One restore cycle: who required it, what was loaded, how it ended."""

    __slots__ = (
        "connector_seq",
        "failed_pos",
        "failed_seq",
        "finish_status",
        "generation",
        "job",
        "policy",
        "request_id",
        "required_pos",
        "required_seq",
        "restored_pos",
        "restored_seq",
        "reuse_seq",
        "untold",
    )

    def __init__(self, generation: int, request_id: str | None, required_pos: Ranges, required_seq: int) -> None:
        self.generation = generation
        self.request_id = request_id
        self.required_pos = required_pos
        self.required_seq = required_seq
        self.job: JobState | None = None
        self.untold: JobState | None = None
        self.restored_seq = -1
        self.restored_pos: Ranges = ()
        self.reuse_seq = -1
        self.connector_seq = -1
        self.failed_seq = -1
        self.failed_pos: Ranges = ()
        self.policy = ""
        self.finish_status = ""


class RequestState:
    """An active request and what it owes or is owed."""

    __slots__ = (
        "admitted_seq",
        "capacity_refused_seq",
        "claim",
        "connector_refused_seq",
        "cycle",
        "deferred_seq",
        "denied_seq",
        "failure",
        "init_seq",
        "key",
        "loads",
        "lookup_pos",
        "lookup_seq",
        "lookup_tier",
        "recomputed_pos",
        "recomputed_seq",
        "refused_seq",
        "refused_status",
        "request_id",
        "reused_seq",
        "served_seq",
    )

    def __init__(self, request_id: str, key: Key | None, init_seq: int) -> None:
        self.request_id = request_id
        self.key = key
        self.init_seq = init_seq
        self.claim: ClaimState | None = None
        self.cycle: Cycle | None = None
        self.failure: Cycle | None = None
        self.loads: list[int] | None = None
        self.admitted_seq = -1
        self.deferred_seq = -1
        self.capacity_refused_seq = -1
        self.connector_refused_seq = -1
        self.refused_seq = -1
        self.refused_status = ""
        self.lookup_seq = -1
        self.lookup_pos: Ranges = ()
        self.lookup_tier = ""
        self.recomputed_seq = -1
        self.recomputed_pos: Ranges = ()
        self.reused_seq = -1
        self.denied_seq = -1
        self.served_seq = -1


class ClaimState:
    """One submission of a claim and where it stands."""

    __slots__ = (
        "accepted_seq",
        "blocked_seq",
        "cache_identity",
        "claim_id",
        "counts",
        "cycle",
        "dead_jobs",
        "deadline_ns",
        "end_seq",
        "ended",
        "findings",
        "findings_dropped",
        "first_request",
        "first_seq",
        "footprint_blocks",
        "generation",
        "hashes",
        "instance",
        "join_seq",
        "key",
        "last_request",
        "last_seq",
        "lost_blurred",
        "lost_seq",
        "materialized_seq",
        "needed_hashes",
        "needed_pos",
        "object_blocks",
        "object_id",
        "observed",
        "offload_pos",
        "offload_seqs",
        "offload_tier",
        "on_restore_failure",
        "open_jobs",
        "open_requests",
        "owner_scope",
        "predicate",
        "predicate_text",
        "primary_blurred",
        "primary_loss_seq",
        "primary_tier",
        "priority",
        "protects",
        "result_index",
        "retrievable_pos",
        "revision",
        "skipped",
        "state",
        "step_seq",
        "stored",
        "token_map_id",
        "touched",
        "traits",
        "unaccepted",
        "unaccepted_known",
        "unseen",
        "used_seq",
        "verdict",
        "worker",
        "worker_seq",
    )

    def __init__(self, e: ClaimEvent, instance: int) -> None:
        self.claim_id = e.claim_id
        self.owner_scope = e.owner_scope
        self.key: Key = (e.owner_scope, e.claim_id)
        self.object_id = e.object_id
        self.token_map_id = e.token_map_id
        self.cache_identity = e.cache_identity
        self.predicate_text = e.predicate
        self.predicate: Predicate | None = None
        self.instance = instance
        self.state = SUBMITTED
        self.first_seq = self.last_seq = self.step_seq = e.seq
        self.traits: ModeTraits | None = None
        self.on_restore_failure = ""
        self.footprint_blocks = 0
        self.revision = 0
        self.deadline_ns: int | None = None
        self.generation = 0
        self.accepted_seq = -1
        self.materialized_seq = -1
        self.end_seq = -1
        self.ended = False
        self.unaccepted = False
        self.unaccepted_known = False
        self.skipped: list[str] | None = None
        self.touched = False
        self.priority = 0
        self.used_seq = -1
        self.protects = False
        self.first_request: str | None = None
        self.last_request: str | None = None
        self.join_seq = -1
        self.open_requests = 0
        self.open_jobs = 0
        self.object_blocks = 0
        self.retrievable_pos: Ranges = ()
        self.needed_pos: Ranges = ()
        self.primary_tier = ""
        self.offload_tier = ""
        self.offload_pos: Ranges = ()
        self.offload_seqs: tuple[int, ...] = ()
        self.stored: dict[int, JobState] | None = None
        self.dead_jobs: list[int] | None = None
        self.cycle: Cycle | None = None
        self.hashes: tuple[str, ...] = ()
        self.needed_hashes: tuple[str, ...] = ()
        self.unseen: set[str] | None = None
        self.result_index = -1
        self.lost_seq = -1
        self.lost_blurred = False
        self.primary_loss_seq = -1
        self.primary_blurred = False
        self.blocked_seq = -1
        self.worker: tuple[str, int] | None = None
        self.worker_seq = -1
        self.verdict = Verdict.CONFORMING
        self.findings: list[Finding] | None = None
        self.findings_dropped = 0
        self.observed: dict[str, list[int]] | None = None
        self.counts: dict[str, int] | None = None

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


class EndedClaim:
    """What is kept of a collapsed claim besides its result, to recognise events and submissions that come later."""

    __slots__ = ("first_request", "footprint_blocks", "instance", "result", "revision", "state")

    def __init__(self, c: ClaimState, result: int) -> None:
        self.result = result
        self.instance = c.instance
        self.first_request = c.first_request
        self.revision = c.revision
        self.footprint_blocks = c.footprint_blocks if c.traits is not None and c.traits.reserves else 0
        self.state = c.state


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
        "evicted_seq",
        "findings",
        "findings_dropped",
        "holders",
        "jobs",
        "last_seq",
        "learned",
        "less_recent",
        "lookups",
        "mono_ns",
        "next_seq",
        "opened",
        "owners",
        "plain_events",
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
        self.owners: dict[str, str] = {}
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
        self.evicted_seq: dict[str, int] = {}
        self.authoritative = False
        self.transfers = 0
        self.lookups = 0
        self.admissions = 0
        self.unadmitted = 0
        self.unadmitted_seq = -1
        self.counters = 0
        self.plain_events = 0
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
