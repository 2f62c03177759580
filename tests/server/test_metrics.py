"""The numbers are those of the events."""

from __future__ import annotations

from pathlib import Path

from residentkv.server import wire
from residentkv.server.metrics import EngineMetrics
from residentkv.trace.events import ClaimRestorationFailed
from tests.server.counter import Counter
from tests.vllm.bench import claim, prompt


def test_the_numbers_follow_the_events(tmp_path: Path) -> None:
    """Decisions, restores, failed restores, refusals, outcomes, and a log without lag."""
    counter = Counter(tmp_path)
    bench = counter.bench
    bench.serve("r1", prompt(), claim())
    bench.serve("r2", prompt(2), claim("other", mode="routed_reuse"))
    bench.reset_primary()
    bench.serve("r3", prompt(), claim())
    bench.reset_primary()
    bench.serve("r4", prompt(), claim(), fail=[0])
    bench.serve("r5", prompt(3), claim("gone", mode="best_effort"))
    counter.desk.answer(wire.ReleaseClaim(owner_scope="tenant", claim_id="gone"))
    answer = counter.desk.answer(wire.ReadMetrics())
    assert isinstance(answer, wire.Metrics)
    lines = {line for line in answer.text.splitlines() if not line.startswith("#")}
    assert {
        'residentkv_claims{mode="offloadable",state="restoration_failed"} 1.0',
        "residentkv_protected_blocks 0.0",
        'residentkv_claim_decisions_total{decision="accepted",reason="fits"} 2.0',
        'residentkv_claim_decisions_total{decision="rejected",reason="mode_unsupported"} 1.0',
        'residentkv_claim_outcomes_total{outcome="released"} 1.0',
        'residentkv_refusals_total{reason="resident_claim_restoration_failed"} 1.0',
        'residentkv_failed_restores_total{reason="injected"} 1.0',
        "residentkv_restore_seconds_count 1.0",
        "residentkv_event_log_lag_events 0.0",
        f"residentkv_event_log_events {float(len(bench.events()))}",
    } <= lines


def test_a_reason_counts_under_its_kind(tmp_path: Path) -> None:
    """What a failed transfer says in detail (paths, numbers) is for the log: labels without an end fill the memory."""
    metrics = EngineMetrics()
    for i in range(3):
        fields = {"owner_scope": "o", "claim_id": "c", "reason": f"OSError: row {i} of /secret"}
        metrics.observe(ClaimRestorationFailed, fields, 0)
    rendered = metrics.render(Counter(tmp_path).bench.log, [], 0)
    assert 'residentkv_failed_restores_total{reason="OSError"} 3.0' in rendered and "secret" not in rendered
