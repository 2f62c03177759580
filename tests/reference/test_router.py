"""Routed reuse: requests go where the claim's blocks are, and the answer says so or says that it failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from residentkv.audit.api import audit_file
from residentkv.errors import UsageError
from residentkv.runtimes.reference.clock import ManualClock
from residentkv.runtimes.reference.config import EngineConfig
from residentkv.runtimes.reference.engine import ClaimNotFound, Request
from residentkv.runtimes.reference.router import Router
from residentkv.trace.codec import decode_trace
from residentkv.trace.writer import TraceWriter
from tests.reference.stages import SIZE, claim_of, prompt_of, tag

KEPT = prompt_of(1, 4)


class Route:
    """A router over a trace file."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.path = folder / "trace.jsonl"
        clock = ManualClock()
        sink = TraceWriter(self.path, source="router", run_id="t", mono_ns=clock.tick, wall_ns=lambda: clock.now_ns)
        fields = {"usable_blocks": 12, "block_size_tokens": SIZE, "block_bytes": 64, **config}
        self.router = Router(EngineConfig(**fields), sink=sink, clock=clock)
        self.count = 0

    def serve(self, prompt: tuple[int, ...], **more: Any) -> Any:
        self.count += 1
        return self.router.serve(Request(request_id=f"r{self.count}", prompt=prompt, owner_scope="a", **more))

    def events(self, about: str) -> list[Any]:
        return [e for e in decode_trace(self.path.read_bytes()) if about in tag(e)]

    def verdict(self) -> str:
        self.router.shutdown()
        return audit_file(self.path).verdict.value


def test_every_request_of_a_claim_is_served_by_its_worker(tmp_path: Path) -> None:
    """Requests in turn would alternate; those of the claim stay, hit, and say so."""
    r = Route(tmp_path)
    r.serve(KEPT, claim=claim_of("c", "routed_reuse", 4))
    for n in range(4):
        r.serve(prompt_of(50 + n, 1))
        assert r.serve((*KEPT, n), reuse="c").hit_blocks == 4
    bound = r.events("route_bound")
    outcomes = r.events("route_outcome")
    assert len(bound) == 1 and len(outcomes) == 4
    assert {(e.worker_id, e.worker_epoch) for e in outcomes} == {(bound[0].worker_id, bound[0].worker_epoch)}
    assert {(e.outcome, e.reused_blocks) for e in outcomes} == {("served_by_binding", 4)}
    assert r.verdict() == "conforming"


def test_request_without_a_claim_goes_round_in_turn(tmp_path: Path) -> None:
    """A router that happened to choose the right worker has promised nothing."""
    r = Route(tmp_path)
    hits = [r.serve((*KEPT, n)).hit_blocks for n in range(4)]
    assert hits == [0, 0, 4, 4] and not r.events("route")


def test_worker_that_restarted_under_its_name_does_not_pass_for_the_old_one(tmp_path: Path) -> None:
    """The binding names an incarnation: the owner is told that the claim is lost, then the request is served."""
    r = Route(tmp_path)
    r.serve(KEPT, claim=claim_of("c", "routed_reuse", 4))
    (bound,) = r.events("route_bound")
    r.router.fail_worker(bound.worker_id)
    result = r.serve((*KEPT, 1), reuse="c")
    assert result.status == "finished" and result.hit_blocks == 0
    (outcome,) = r.events("route_outcome")
    (harmed,) = r.events("claim_harmed")
    assert (outcome.outcome, outcome.outcome_claim_id, outcome.reused_blocks) == ("lost", "c", 0)
    assert harmed.reason == "worker_lost" and harmed.seq > outcome.seq
    assert r.serve((*KEPT, 2), reuse="c").status == "finished"
    assert len(r.events("claim_harmed")) == 1
    assert r.verdict() == "conforming"


def test_claim_of_a_dead_worker_is_harmed_at_shutdown(tmp_path: Path) -> None:
    """Even when nobody asked for it again the claim gets its outcome."""
    r = Route(tmp_path)
    r.serve(KEPT, claim=claim_of("c", "routed_reuse", 4))
    r.router.fail_worker(r.events("route_bound")[0].worker_id)
    assert r.verdict() == "conforming"
    assert [e.reason for e in r.events("claim_harmed")] == ["worker_lost"]


def test_eviction_on_the_worker_is_told(tmp_path: Path) -> None:
    """Routing protects no blocks; when they go the owner is told before the next request."""
    r = Route(tmp_path)
    r.serve(KEPT, claim=claim_of("c", "routed_reuse", 4))
    r.serve(prompt_of(2, 12))
    r.serve(prompt_of(3, 12))
    assert [e.reason for e in r.events("claim_harmed")] == ["evicted"]
    assert r.serve((*KEPT, 1), reuse="c").status == "finished"
    assert r.verdict() == "conforming"


def test_only_the_owner_releases_a_routed_claim(tmp_path: Path) -> None:
    """For others it does not exist, and after the release for nobody."""
    r = Route(tmp_path)
    r.serve(KEPT, claim=claim_of("c", "routed_reuse", 4))
    with pytest.raises(ClaimNotFound):
        r.router.release("b", "c")
    r.router.release("a", "c")
    with pytest.raises(ClaimNotFound):
        r.router.release("a", "c")
    assert r.verdict() == "conforming"


def test_mode_that_would_hold_blocks_is_not_kept_behind_a_router(tmp_path: Path) -> None:
    """What the workers do not keep they reject."""
    r = Route(tmp_path)
    result = r.serve(KEPT, claim=claim_of("c", "hard_protected", 4))
    assert result.decision.reason == "mode_unsupported" and not r.events("route_bound")


def test_unknown_worker_and_no_workers_are_usage_errors(tmp_path: Path) -> None:
    """A mistake of the caller is told as one."""
    with pytest.raises(UsageError, match="expected one of w0, w1"):
        Route(tmp_path).router.fail_worker("w9")
    with pytest.raises(UsageError, match="workers"):
        Router(EngineConfig(usable_blocks=4), workers=0)
