"""Judge a finished run from its files alone: trace, request records, baseline. Nothing is counted by hand."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from residentkv.audit.api import audit_file
from residentkv.audit.model import AuditReport, Profile, Verdict
from residentkv.audit.rules import sequence
from residentkv.errors import InputError
from residentkv.trace.events import (
    ClaimRestored,
    ClaimRestoreRequired,
    ClaimReusedAfterRestore,
    Event,
    RequestRecomputed,
    RequestTerminated,
    SchedulerRequestRefused,
    SchedulerRestorationFailed,
    TransferFinished,
)
from residentkv.trace.reader import read_trace
from residentkv.witness.scenario import Scenario

OBSERVATION = "observation"
FAILURE_OUTCOME = "failure_outcome"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One expectation of a scenario and what was found."""

    name: str
    passed: bool
    found: str


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one run shows.

    `negative`: a gate must not pass here; `false_positive`: one did all the same. Times are in nanoseconds of the
    engine's clock, null where the run has no such interval.
    """

    scenario: str
    run_id: str
    observation: bool
    failure_outcome: bool
    negative: bool
    false_positive: bool
    verdict: Verdict | None
    sequence_valid: bool
    checks: tuple[Check, ...]
    restore_ns: int | None
    failed_transfer_to_refusal_ns: int | None
    failed_transfer_to_scheduler_ns: int | None
    scheduler_to_refusal_ns: int | None
    resident_ttft_ns: int | None
    reuse_ttft_ns: int | None
    resident_ns: int | None
    reuse_ns: int | None
    event_bytes: int
    events: int
    audit_ns: int | None

    @property
    def passed(self) -> bool:
        """Whether everything that the scenario expects was found."""
        return all(c.passed for c in self.checks)


def judge_run(scenario: Scenario, folder: Path) -> tuple[RunResult, AuditReport | None]:
    """Audit the trace of a run and compare the run with what its scenario expects."""
    answers = _records(folder / "requests.json")
    baseline_path = folder / "baseline.json"
    baseline = _records(baseline_path) if baseline_path.is_file() else {}
    run_id = msgspec.json.decode((folder / "requests.json").read_bytes())["run_id"]
    trace = folder / "trace.jsonl"
    report: AuditReport | None = None
    events: list[Event] = []
    audit_ns = None
    observation = failure_outcome = False
    if trace.is_file():
        events = _events(trace)
        started = time.perf_counter_ns()
        report = audit_file(trace, profile=Profile.SPEC)
        audit_ns = time.perf_counter_ns() - started
        observation, failure_outcome = pass_gates(report, events)
    if any(e.run_id != run_id for e in events):
        observation = failure_outcome = False  # The trace is of another run, and shows nothing of this one.
    times = _times(events)
    resident, reuse = answers.get("resident"), answers.get("reuse")
    result = RunResult(
        scenario=scenario.name,
        run_id=run_id,
        observation=observation,
        failure_outcome=failure_outcome,
        negative=scenario.observes is False or scenario.refuses is False,
        false_positive=(observation and scenario.observes is False) or (failure_outcome and scenario.refuses is False),
        verdict=report.verdict if report else None,
        sequence_valid=report is not None and not _sequence_findings(report),
        checks=_check(scenario, answers, baseline, observation, failure_outcome, report, run_id),
        resident_ttft_ns=_span(resident, "first_token_ns"),
        reuse_ttft_ns=_span(reuse, "first_token_ns"),
        resident_ns=_span(resident, "finished_ns"),
        reuse_ns=_span(reuse, "finished_ns"),
        event_bytes=trace.stat().st_size if trace.is_file() else 0,
        events=len(events),
        audit_ns=audit_ns,
        **times,
    )
    return result, report


def pass_gates(report: AuditReport, events: list[Event]) -> tuple[bool, bool]:
    """Return (observation, failure outcome): both need a conforming audit of a claim of the trace.

    Observation: a conforming claim was restored by a load and reused after it. Failure outcome: a restoration
    failed, and the outcome, the refusal and its termination all name and end what they have to.
    """
    conforming = {(c.owner_scope, c.claim_id) for c in report.claims if c.verdict is Verdict.CONFORMING}
    if report.verdict is not Verdict.CONFORMING:
        return False, False
    restored = {(e.owner_scope, e.claim_id, e.request_id) for e in events if isinstance(e, ClaimRestored)}
    reused = {(e.owner_scope, e.claim_id, e.request_id) for e in events if isinstance(e, ClaimReusedAfterRestore)}
    observed = {x[:2] for x in restored & reused} & conforming
    failed = {(e.owner_scope, e.claim_id, e.request_id) for e in events if isinstance(e, SchedulerRestorationFailed)}
    refused = {
        (e.owner_scope, e.outcome_claim_id, e.request_id) for e in events if isinstance(e, SchedulerRequestRefused)
    }
    recomputed = {
        (e.owner_scope, e.claim_id, e.request_id) for e in events if isinstance(e, RequestRecomputed) and e.claim_id
    }
    ended = {e.request_id for e in events if isinstance(e, RequestTerminated)}
    scoped = {x[:2] for x in failed & (refused | recomputed) if x[2] in ended} & conforming
    return bool(observed), bool(scoped)


def _check(
    scenario: Scenario,
    answers: dict[str, dict[str, Any]],
    baseline: dict[str, dict[str, Any]],
    observation: bool,
    failure_outcome: bool,
    report: AuditReport | None,
    run_id: str,
) -> tuple[Check, ...]:
    out: list[Check] = []

    def add(name: str, passed: bool, found: str) -> None:
        out.append(Check(name=name, passed=passed, found=found))

    for gate, wanted, found in (
        (OBSERVATION, scenario.observes, observation),
        (FAILURE_OUTCOME, scenario.refuses, failure_outcome),
    ):
        if wanted is not None:
            add(f"{gate} {'passes' if wanted else 'does not pass'}", found is wanted, "pass" if found else "no pass")
    wanted_verdict = scenario.verdict or "no trace"
    verdict = report.verdict.value if report else "no trace"
    add(f"audit says {wanted_verdict}", verdict == wanted_verdict, verdict)
    traced = ", ".join(sorted({s.run_id for s in report.sources})) if report else ""
    add("the trace is of the run", traced in ("", run_id), traced or "no trace")
    for label in scenario.served:
        reason = answers.get(label, {}).get("finish_reason")
        add(f"{label} is served", reason in ("length", "stop"), str(reason))
    for label in scenario.refused:
        reason = answers.get(label, {}).get("finish_reason")
        add(f"{label} is refused", reason == "error", str(reason))
    for label, name in scenario.names:
        refusal = (answers.get(label, {}).get("kv_transfer_params") or {}).get("resident_claim_refusal") or {}
        claim_id = refusal.get("claim_id")
        add(f"the refusal of {label} names {name}", claim_id == f"{run_id}:{name}", str(claim_id))
    for label, decision in scenario.decisions:
        answer = (answers.get(label, {}).get("kv_transfer_params") or {}).get("resident_claim") or {}
        add(f"the claim of {label} is {decision}", answer.get("decision") == decision, str(answer.get("decision")))
    for name in sorted({n for n, _ in scenario.outcomes}):
        wanted_states = [state for n, state in scenario.outcomes if n == name]
        ends = [c.state for c in report.claims if c.claim_id == f"{run_id}:{name}"] if report else []
        add(f"{name} ends as {', then '.join(wanted_states)}", ends == wanted_states, ", then ".join(ends) or "nothing")
    for label in scenario.same:
        same = _tokens(answers, label) == _tokens(baseline, label) != []
        add(f"{label} tokens equal vLLM without connector", same, "equal" if same else "different")
    for label in scenario.differ:
        mine, theirs = _tokens(answers, label), _tokens(baseline, label)
        differ = mine != theirs and bool(mine) and bool(theirs)
        add(f"{label} tokens differ from vLLM without connector", differ, "different" if differ else "equal")
    return tuple(out)


def _records(path: Path) -> dict[str, dict[str, Any]]:
    return {r["label"]: r for r in msgspec.json.decode(path.read_bytes())["requests"]}


def _tokens(answers: dict[str, dict[str, Any]], label: str) -> list[int]:
    return list(answers.get(label, {}).get("output_token_ids") or [])


def _span(record: dict[str, Any] | None, end: str) -> int | None:
    if record is None or record.get(end) is None:
        return None
    return int(record[end]) - int(record["started_ns"])


def _events(trace: Path) -> list[Event]:
    """Return the events before the first line that cannot be read; the audit says what is wrong with that line."""
    events: list[Event] = []
    try:
        for chunk in read_trace(trace):
            events.extend(chunk)
    except InputError:
        pass
    return events


def _sequence_findings(report: AuditReport) -> bool:
    codes = {rule.code for rule in sequence.RULES}
    return any(f.code in codes for f in report.all_findings())


def _times(events: list[Event]) -> dict[str, int | None]:
    """Return the intervals of the first restoration, and of the first failure with its own load and its own refusal.

    What the scheduler decided in one instant carries one `mono_ns`, so what it took to get from the failed transfer to
    the refusal is told by `wall_ns`, which every event gets when it is written.
    """
    back = next((e for e in events if isinstance(e, ClaimRestored)), None)
    required = None
    if back is not None:
        needs = (e for e in events if isinstance(e, ClaimRestoreRequired) and e.seq < back.seq)
        required = max(
            (e.mono_ns for e in needs if (e.claim_id, e.request_id) == (back.claim_id, back.request_id)), default=None
        )
    outcome = next((e for e in events if isinstance(e, SchedulerRestorationFailed)), None)
    failed = refused = None
    if outcome is not None:
        failed = next(
            (e for e in events if isinstance(e, TransferFinished) and e.job_id == outcome.job_id and not e.success),
            None,
        )
        refused = next(
            (e for e in events if isinstance(e, SchedulerRequestRefused) and e.request_id == outcome.request_id), None
        )
    to_scheduler = to_refusal = None
    if failed is not None and outcome is not None:
        to_scheduler = failed.mono_ns - failed.worker_end_ns + outcome.wall_ns - failed.wall_ns
    if outcome is not None and refused is not None:
        to_refusal = refused.wall_ns - outcome.wall_ns
    return {
        "restore_ns": None if required is None or back is None else back.mono_ns - required,
        "failed_transfer_to_refusal_ns": None
        if to_scheduler is None or to_refusal is None
        else to_scheduler + to_refusal,
        "failed_transfer_to_scheduler_ns": to_scheduler,
        "scheduler_to_refusal_ns": to_refusal,
    }
