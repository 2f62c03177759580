"""The adapter before Dynamo: what it concludes from answers that lie, missing events, and workers that are gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from residentkv.audit.api import audit_file
from residentkv.audit.model import AuditReport
from residentkv.claims.model import CacheIdentity
from residentkv.errors import InputError, UsageError
from residentkv.runtimes.dynamo import router as routing
from residentkv.runtimes.dynamo.kvevents import BlockIndex, Continuity, decode_message
from residentkv.runtimes.dynamo.router import ClaimOver, ClaimRouter, Knob
from tests.studies.logs import open_log
from tests.studies.small_dynamo import SmallDynamo, hash_blocks, message

IDENTITY = CacheIdentity(
    model="m",
    model_revision="1",
    weights_epoch=0,
    tokenizer="t",
    kv_dtype="d",
    kv_layout="l",
    block_size_tokens=16,
)
PREFIX = list(range(1000, 1064))


def stored_block(block: int) -> dict[str, Any]:
    blocks = [{"block_hash": block, "tokens_hash": block, "mm_extra_info": None}]
    return {"stored": {"parent_hash": None, "start_position": None, "blocks": blocks}}


def tail(n: int) -> list[int]:
    return [5000 + n, *range(6000, 6015)]


class Bench:
    """A router on a small Dynamo, and the audit of what it wrote."""

    def __init__(self, folder: Path, dynamo: SmallDynamo) -> None:
        self.path = folder / "trace.jsonl"
        log = open_log(
            self.path, "router", runtime="dynamo", version="1.6.1", primitive="direct_worker", depth="policy"
        )
        self.router = ClaimRouter(
            log,
            cast(Any, dynamo),
            cast(Any, dynamo),
            knob=Knob.WORKER,
            identity=IDENTITY,
            hash_blocks=hash_blocks,
            worker_blocks=32,
            workers=dynamo.workers,
            is_alive=dynamo.is_alive,
        )

    def bind(self) -> str:
        wire = {"claim_id": "c", "owner_scope": "o", "mode": "routed_reuse", "predicate": "leading_prefix_at_least(3)"}
        return self.router.bind(wire, PREFIX, tail(0)).verdict.value

    def audit(self) -> AuditReport:
        self.router.close()
        return audit_file(self.path)


@pytest.fixture
def dynamo() -> SmallDynamo:
    return SmallDynamo()


@pytest.fixture
def bench(tmp_path: Path, dynamo: SmallDynamo, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(routing, "PATIENCE_S", 0.0)
    return Bench(tmp_path, dynamo)


def test_a_binding_that_holds_is_conforming(bench: Bench) -> None:
    """Bound to the worker whose events show the blocks, served there, and released: the plain story."""
    assert bench.bind() == "accepted"
    assert [bench.router.serve("o", "c", tail(n)).outcome for n in (1, 2)] == ["served_by_binding"] * 2
    bench.router.release("o", "c")
    assert bench.audit().verdict.value == "conforming"


def test_an_answer_that_names_the_bound_worker_is_not_believed(bench: Bench, dynamo: SmallDynamo) -> None:
    """Another worker's events show the fresh tail: the request moved, whatever the answer says."""
    bench.bind()
    dynamo.elsewhere, dynamo.says = 22, 11
    served = bench.router.serve("o", "c", tail(1))
    assert (served.outcome, served.told, served.computed_by, served.stale) == ("moved", 11, (22,), True)
    assert bench.audit().verdict.value == "conforming"


def test_a_worker_nobody_witnessed_is_not_bound(bench: Bench, dynamo: SmallDynamo) -> None:
    """An answer that names a worker whose events show nothing binds nothing, and the claim is withdrawn by name."""
    dynamo.says = 22
    bench.bind()
    assert bench.router.state("o", "c") == "demoted"
    with pytest.raises(ClaimOver, match="demoted"):
        bench.router.serve("o", "c", tail(1))
    assert bench.audit().verdict.value == "conforming"


def test_an_eviction_harms_before_the_next_request(bench: Bench, dynamo: SmallDynamo) -> None:
    """The removal event is joined to the claim; the owner learns it by name, and not by a slow answer."""
    bench.bind()
    block = sorted(bench.router.kept_blocks("o", "c") & {hash_blocks(PREFIX)[0]})
    dynamo.evict(11, block)
    bench.router.poll()
    assert bench.router.state("o", "c") == "harmed"
    report = bench.audit()
    assert report.verdict.value == "conforming"
    assert report.claims[0].counts["harmed"] == 1


def test_a_dead_worker_is_refused_and_harmed(bench: Bench, dynamo: SmallDynamo) -> None:
    """The request is refused in the name of the claim, which ends; another worker is not a substitute."""
    bench.bind()
    dynamo.dead.add(11)
    assert bench.router.serve("o", "c", tail(1)).outcome == "refused"
    assert bench.router.state("o", "c") == "harmed"
    assert bench.audit().verdict.value == "conforming"


def test_a_worker_that_discovery_forgot_is_lost(bench: Bench, dynamo: SmallDynamo) -> None:
    """It is in no list any more; the claim that is bound to it ends by name all the same."""
    bench.bind()
    dynamo.dead.add(11)
    del dynamo.held[11]
    assert bench.router.serve("o", "c", tail(1)).outcome == "refused"
    assert bench.router.state("o", "c") == "harmed"
    assert bench.audit().verdict.value == "conforming"


def test_a_busy_worker_is_not_a_lost_one(bench: Bench, dynamo: SmallDynamo) -> None:
    """It turns requests away and is alive: the request is refused, the claim stays and is served afterwards."""
    bench.bind()
    dynamo.busy.add(11)
    assert bench.router.serve("o", "c", tail(1)).outcome == "refused"
    assert bench.router.state("o", "c") == "materialized"
    dynamo.busy.clear()
    assert bench.router.serve("o", "c", tail(2)).outcome == "served_by_binding"
    bench.router.release("o", "c")
    assert bench.audit().verdict.value == "conforming"


def test_a_fence_that_another_worker_did_not_serve_leaves_it_open(bench: Bench, dynamo: SmallDynamo) -> None:
    """Whether somebody else computed the request as well is not known, so nothing is said, and nothing is a pass."""
    bench.bind()
    dynamo.busy.add(22)
    assert bench.router.serve("o", "c", tail(1)).outcome is None
    bench.router.release("o", "c")
    assert bench.audit().verdict.value == "inconclusive"


def test_a_restart_under_the_same_id_is_another_incarnation(bench: Bench, dynamo: SmallDynamo) -> None:
    """Event numbers that begin again: what the old incarnation held is gone, and the claim with it."""
    bench.bind()
    bench.router.serve("o", "c", tail(1))
    dynamo.restart(11)
    bench.router.fence()
    bench.router.poll()
    assert bench.router.state("o", "c") == "harmed"
    assert bench.audit().verdict.value == "conforming"


def test_a_gap_in_the_events_leaves_the_trace_inconclusive(bench: Bench, dynamo: SmallDynamo) -> None:
    """Events were missed: neither kept nor lost is said, although the answer counts cached tokens."""
    bench.bind()
    dynamo.muted = True
    dynamo.evict(11, sorted(bench.router.kept_blocks("o", "c"))[:1])
    dynamo.muted = False
    served = bench.router.serve("o", "c", tail(1))
    assert served.outcome is None
    assert bench.router.state("o", "c") == "materialized"
    assert bench.audit().verdict.value == "inconclusive"


def test_a_tail_that_a_worker_has_already_is_refused(bench: Bench) -> None:
    """It would show nobody who computes it: a worker that holds it stores nothing, wherever the request goes."""
    bench.bind()
    assert bench.router.serve("o", "c", tail(1)).outcome == "served_by_binding"
    for again in (0, 1):
        with pytest.raises(UsageError, match="holds already"):
            bench.router.serve("o", "c", tail(again))
    bench.router.release("o", "c")
    assert bench.audit().verdict.value == "conforming"


def test_the_first_event_again_with_other_blocks_is_a_restart() -> None:
    """A worker that published one event and started anew begins with the same number; what it held is gone."""
    index = BlockIndex()
    first, other = message(11, 1, stored_block(1)), message(11, 1, stored_block(2))
    events = [decode_message(frames).events[0] for frames in (first, first, other)]
    assert [index.apply(e)[0] for e in events] == [Continuity.NEXT, Continuity.REPEATED, Continuity.RESTART]
    assert not index.holdings[11, 0].holds(1) and index.holdings[11, 0].holds(2)


def test_the_first_events_again_may_be_a_restart_or_not() -> None:
    """A worker that starts anew may begin as it began before: what it holds is not known then."""
    index = BlockIndex()
    events = [decode_message(message(11, n, stored_block(n))).events[0] for n in (1, 2, 1, 2)]
    found = [index.apply(e)[0] for e in events]
    assert found == [Continuity.NEXT, Continuity.NEXT, Continuity.RESTART, Continuity.NEXT]
    assert not index.holdings[11, 0].whole


def test_a_bound_worker_whose_first_events_come_again_is_neither_harmed_nor_believed(
    bench: Bench, dynamo: SmallDynamo
) -> None:
    """Nobody tells a restart from a repetition: the claim stays open, and the trace is inconclusive."""
    messages: list[list[bytes]] = []
    publish = dynamo.publish

    def keep(worker_id: int, data: Any) -> None:
        publish(worker_id, data)
        messages.extend(dynamo._messages[-1:] if worker_id == 11 else [])

    dynamo.publish = keep  # type: ignore[method-assign]
    bench.bind()
    dynamo._messages.extend(list(messages))
    bench.router.poll()
    assert len(messages) > 1
    assert bench.router.state("o", "c") == "materialized"
    assert bench.router.serve("o", "c", tail(1)).outcome is None
    assert bench.audit().verdict.value == "inconclusive"


def test_an_answer_that_does_not_tell_cached_tokens_is_no_loss(bench: Bench, dynamo: SmallDynamo) -> None:
    """Neither lost nor served is said; the claim stays, and the next answer counts."""
    bench.bind()
    dynamo.silent = True
    assert bench.router.serve("o", "c", tail(1)).outcome is None
    dynamo.silent = False
    assert bench.router.serve("o", "c", tail(2)).outcome == "served_by_binding"
    bench.router.release("o", "c")
    assert bench.audit().verdict.value == "inconclusive"


def test_an_answer_that_tells_no_cached_tokens_is_a_loss(bench: Bench, dynamo: SmallDynamo) -> None:
    """A count of none is a word."""
    bench.bind()
    dynamo.counts = 0
    assert bench.router.serve("o", "c", tail(1)).outcome == "lost"


def test_a_claim_larger_than_a_worker_is_turned_down(bench: Bench) -> None:
    """What a reservation books without a word is rejected with the numbers."""
    wire = {"claim_id": "c", "owner_scope": "o", "mode": "routed_reuse", "predicate": "whole_object"}
    decision = bench.router.bind(wire, list(range(33 * 16)), tail(0))
    assert (decision.verdict.value, decision.reason) == ("rejected", "never_fits")
    assert bench.audit().verdict.value == "conforming"


@pytest.mark.parametrize("spoil", ["header", "topic", "number", "payload", "short"])
def test_a_message_of_another_form_is_refused(spoil: str) -> None:
    """Whatever differs from the form of this version is an error; nothing is guessed."""
    frames = message(11, 1, "cleared")
    assert decode_message(frames).events[0].kind == "cleared"
    if spoil == "header":
        frames[3] = b"\2" + frames[3][1:]
    elif spoil == "topic":
        frames[0] = b"kv-metrics"
    elif spoil == "number":
        frames[2] = (9).to_bytes(8, "big")
    elif spoil == "payload":
        frames = message(11, 1, {"updated": {"block_hashes": [1]}})
    else:
        frames = frames[:3]
    with pytest.raises(InputError, match=r"Dynamo 1\.6\.1"):
        decode_message(frames)


def test_numbers_of_events_tell_next_repeated_gap_and_restart() -> None:
    """After a gap a holding is not whole any more; a restart begins a new one; who listens late sees a gap at once."""
    index = BlockIndex()

    def apply(event_id: int, data: Any = "cleared", worker: int = 11) -> Continuity:
        return index.apply(decode_message(message(worker, event_id, data)).events[0])[0]

    seen = [apply(1), apply(2), apply(2), apply(4), apply(1, stored_block(1))]
    assert [s.value for s in seen] == ["next", "next", "repeated", "gap", "restart"]
    assert (index.holdings[11, 0].epoch, index.holdings[11, 0].whole) == (1, True)
    assert apply(5, worker=22) is Continuity.GAP
    assert not index.holdings[22, 0].whole


def before_the_request(dynamo: SmallDynamo, act: Any) -> None:
    plain, done = dynamo.complete, []

    def complete(tokens: Any, **more: Any) -> Any:
        if len(tokens) > 32 and not done:
            done.append(True)
            act()
        return plain(tokens, **more)

    dynamo.complete = complete  # type: ignore[method-assign]


def codes_of(bench: Bench) -> tuple[str, set[str]]:
    r = bench.audit()
    return r.verdict.value, {f.code for c in r.claims for f in c.findings}


def test_the_real_router_when_the_bound_worker_restarts_under_a_request(bench: Bench, dynamo: SmallDynamo) -> None:
    bench.bind()
    before_the_request(dynamo, lambda: dynamo.restart(11))
    assert bench.router.serve("o", "c", tail(1)).outcome == "lost"
    assert bench.router.state("o", "c") == "harmed"
    assert codes_of(bench) == ("conforming", set())


def test_a_worker_that_restarted_and_was_filled_again_does_not_serve_the_binding(
    bench: Bench, dynamo: SmallDynamo
) -> None:
    """Another request computed the prefix there anew; the claim was bound to what went with the restart."""
    bench.bind()

    def act() -> None:
        dynamo.restart(11)
        dynamo.complete(PREFIX + tail(9), worker_id=11)

    before_the_request(dynamo, act)
    assert bench.router.serve("o", "c", tail(1)).outcome == "lost"
    assert bench.router.state("o", "c") == "harmed"
    assert codes_of(bench) == ("conforming", set())
