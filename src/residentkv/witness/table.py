"""Aggregate run results: counts and medians, as rows for a terminal, as JSON and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

import msgspec

from residentkv.witness.judge import RunResult


class ScenarioSummary(msgspec.Struct, frozen=True, kw_only=True):
    """All runs of one scenario; `negative` of them must not pass a gate.

    Times in milliseconds or microseconds as the name says, null when no run has one.
    """

    scenario: str
    runs: int
    passed: int
    observation: int
    failure_outcome: int
    negative: int
    false_positives: int
    sequence_valid: int
    verdicts: dict[str, int]
    resident_ttft_median_ms: float | None
    reuse_ttft_median_ms: float | None
    resident_median_ms: float | None
    resident_p95_ms: float | None
    reuse_median_ms: float | None
    reuse_p95_ms: float | None
    restore_median_ms: float | None
    failed_transfer_to_refusal_median_us: float | None
    failed_transfer_to_scheduler_median_us: float | None
    scheduler_to_refusal_median_us: float | None
    event_bytes_median: float | None
    events_median: float | None
    audit_median_us: float | None


def summarize(results: Iterable[RunResult]) -> list[ScenarioSummary]:
    """Return one summary a scenario, in the order in which they first appear."""
    groups: dict[str, list[RunResult]] = {}
    for result in results:
        groups.setdefault(result.scenario, []).append(result)
    return [_summary(name, runs) for name, runs in groups.items()]


def _summary(name: str, runs: list[RunResult]) -> ScenarioSummary:
    verdicts: dict[str, int] = {}
    for r in runs:
        word = r.verdict.value if r.verdict else "no trace"
        verdicts[word] = verdicts.get(word, 0) + 1
    return ScenarioSummary(
        scenario=name,
        runs=len(runs),
        passed=sum(r.passed for r in runs),
        observation=sum(r.observation for r in runs),
        failure_outcome=sum(r.failure_outcome for r in runs),
        negative=sum(r.negative for r in runs),
        false_positives=sum(r.false_positive for r in runs),
        sequence_valid=sum(r.sequence_valid for r in runs),
        verdicts=dict(sorted(verdicts.items())),
        resident_ttft_median_ms=_median([r.resident_ttft_ns for r in runs], 1e6),
        reuse_ttft_median_ms=_median([r.reuse_ttft_ns for r in runs], 1e6),
        resident_median_ms=_median([r.resident_ns for r in runs], 1e6),
        resident_p95_ms=_p95([r.resident_ns for r in runs], 1e6),
        reuse_median_ms=_median([r.reuse_ns for r in runs], 1e6),
        reuse_p95_ms=_p95([r.reuse_ns for r in runs], 1e6),
        restore_median_ms=_median([r.restore_ns for r in runs], 1e6),
        failed_transfer_to_refusal_median_us=_median([r.failed_transfer_to_refusal_ns for r in runs], 1e3),
        failed_transfer_to_scheduler_median_us=_median([r.failed_transfer_to_scheduler_ns for r in runs], 1e3),
        scheduler_to_refusal_median_us=_median([r.scheduler_to_refusal_ns for r in runs], 1e3),
        event_bytes_median=_median([r.event_bytes for r in runs], 1),
        events_median=_median([r.events for r in runs], 1),
        audit_median_us=_median([r.audit_ns for r in runs], 1e3),
    )


def _present(values: Sequence[int | None]) -> list[int]:
    return [v for v in values if v is not None]


def _median(values: Sequence[int | None], unit: float) -> float | None:
    found = _present(values)
    return round(statistics.median(found) / unit, 3) if found else None


def _p95(values: Sequence[int | None], unit: float) -> float | None:
    """Return the value that 95 of 100 do not exceed (nearest rank)."""
    found = sorted(_present(values))
    return round(found[max(0, -(-95 * len(found) // 100) - 1)] / unit, 3) if found else None


def render_markdown(summaries: Iterable[ScenarioSummary]) -> str:
    """Return the aggregate as a Markdown table."""
    head = [
        "scenario",
        "runs",
        "as expected",
        "observation",
        "failure outcome",
        "false positives",
        "seq valid",
        "audit",
        "TTFT resident ms",
        "TTFT reuse ms",
        "failed transfer to refusal us",
        "to scheduler us",
        "scheduler to refusal us",
        "resident ms (p95)",
        "reuse ms (p95)",
        "audit us",
        "event bytes",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for s in summaries:
        audit = ", ".join(f"{n} {v}" for v, n in s.verdicts.items())
        cells = [
            s.scenario,
            s.runs,
            s.passed,
            s.observation,
            s.failure_outcome,
            s.false_positives,
            s.sequence_valid,
            audit,
            s.resident_ttft_median_ms,
            s.reuse_ttft_median_ms,
            s.failed_transfer_to_refusal_median_us,
            s.failed_transfer_to_scheduler_median_us,
            s.scheduler_to_refusal_median_us,
            f"{s.resident_median_ms} ({s.resident_p95_ms})",
            f"{s.reuse_median_ms} ({s.reuse_p95_ms})",
            s.audit_median_us,
            s.event_bytes_median,
        ]
        lines.append("| " + " | ".join("-" if c is None else str(c) for c in cells) + " |")
    return "\n".join(lines) + "\n"
