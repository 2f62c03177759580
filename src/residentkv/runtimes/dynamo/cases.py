"""The questions put to Dynamo: is a claim routed to its blocks, and what is told when not; answers come from runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from residentkv.runtimes.dynamo.bindings import hash_blocks, reserve
from residentkv.runtimes.dynamo.client import Frontend, Response
from residentkv.runtimes.dynamo.fleet import BLOCK_TOKENS, WORKER_BLOCKS, Fleet
from residentkv.runtimes.dynamo.router import ClaimOver, ClaimRouter, Served
from residentkv.runtimes.dynamo.stage import DIRECT, HARD, MODEL, OWNER, SOFT, Stage, wire
from residentkv.runtimes.study import CaseRun, Caught, Check, ExpectedTrace, Loss, Told, Word

BLOCKS = 8
AFFINITY = ("--router-session-affinity-ttl-secs", "600", "--router-session-affinity-mode")
LEASE_S = 30.0
"""Longer than discovery keeps a worker that died."""


def run_case(name: str, out: Path) -> CaseRun:
    """Run one case on a fleet of its own."""
    with Stage(name, out) as stage:
        return CASES[name](stage)


def warm_route(stage: Stage) -> CaseRun:
    """A bound claim is served by the worker that holds it, and that is verified."""
    fleet = stage.fleet()
    router = stage.router(fleet, DIRECT)
    answer, bound = _bind(stage, router)
    served = [router.serve(OWNER, "claim", stage.tokens(f"tail-{n}", 1)) for n in range(3)]
    router.release(OWNER, "claim")
    over = _over(router)
    router.close()
    return CaseRun(
        case=stage.case,
        traces=_trace(stage),
        checks=(
            _check("the claim is accepted and bound", bound in fleet.instances(), answer),
            *(_check(f"request {n} is served by the binding", *_held(s)) for n, s in enumerate(served)),
            _check("the answers name the worker that computed", not any(s.stale for s in served), _workers(served)),
            _check("after the release there is no claim", over, f"turned away {over}"),
        ),
    )


def evicted_at_target(stage: Stage) -> CaseRun:
    """The blocks of a bound claim go at its worker: Dynamo answers as ever, the adapter harms the claim by name."""
    fleet = stage.fleet()
    router, frontend = stage.router(fleet, DIRECT), Frontend(fleet.port)
    _, bound = _bind(stage, router)
    before = router.serve(OWNER, "claim", stage.tokens("tail", 1))
    stage.press(fleet, bound)
    router.fence()
    router.poll()
    state, over = router.state(OWNER, "claim"), _over(router)
    after = frontend.complete([*stage.tokens("claimed", BLOCKS), *stage.tokens("alone", 1)])
    router.close()
    return CaseRun(
        case=stage.case,
        traces=_trace(stage),
        checks=(
            _check("it is served by the binding before", *_held(before)),
            _check("the claim is harmed", state == "harmed" and over, state),
            _check("Dynamo serves the prompt all the same", after.served, f"status {after.status}"),
            _check("and reuses nothing of it", after.cached_tokens == 0, f"{after.cached_tokens} tokens cached"),
        ),
        losses=(
            _loss(
                "a bound prefix is evicted at its worker",
                told="partly" if after.cached_tokens == 0 and after.served else "told",
                caught="adapter" if state == "harmed" else "nobody",
                by="status 200 and a count of 0 cached tokens in the next answer; the adapter joins the removal events "
                "to the claim before that",
            ),
        ),
    )


def dead_target_direct(stage: Stage) -> CaseRun:
    """The worker that requests name died: an error that names nobody; the adapter refuses in the name of the claim."""
    fleet = stage.fleet()
    router = stage.router(fleet, DIRECT)
    _, bound = _bind(stage, router)
    fleet.kill(bound)
    served = router.serve(OWNER, "claim", stage.tokens("tail", 1))
    state, over = router.state(OWNER, "claim"), _over(router)
    fresh = fleet.add_worker().instance_id
    router.close()
    return CaseRun(
        case=stage.case,
        traces=_trace(stage),
        checks=(
            _check("Dynamo answers with an error", served.answer.status >= 400, f"status {served.answer.status}"),
            _check("which names neither worker nor claim", _names_nobody(served.answer, bound), served.answer.error),
            _check("the adapter refuses and harms", (served.outcome, state) == ("refused", "harmed"), state),
            _check("the claim is over", over, f"turned away {over}"),
            _check("a new worker has a new id", fresh != bound, f"{fresh}"),
        ),
        losses=(
            _loss(
                "the worker named in requests died",
                told="partly",
                caught="adapter" if (served.outcome, state) == ("refused", "harmed") else "nobody",
                by="a generic error to the request; nothing about what was lost there",
            ),
        ),
    )


def dead_target_hard_affinity(stage: Stage) -> CaseRun:
    """The worker of a hard session died: errors, and later, without a word, another worker."""
    fleet = stage.fleet(frontend=(*AFFINITY, "hard"))
    router, frontend = stage.router(fleet, HARD), Frontend(fleet.port)
    _, bound = _bind(stage, router)
    before = router.serve(OWNER, "claim", stage.tokens("tail", 1))
    fleet.kill(bound)
    served = router.serve(OWNER, "claim", stage.tokens("tail-2", 1))
    state = router.state(OWNER, "claim")
    router.close()
    prompt = [*stage.tokens("claimed", BLOCKS), *stage.tokens("later", 1)]
    later = _until_served(lambda: frontend.complete(prompt, session=f"{OWNER}/claim"))
    rebound = later.served and later.worker_id != bound
    return CaseRun(
        case=stage.case,
        traces=_trace(stage),
        checks=(
            _check("it is served by the binding before", *_held(before)),
            _check(
                "the bound worker's death is an error", served.answer.status >= 400, f"status {served.answer.status}"
            ),
            _check("which names neither worker nor session", _names_nobody(served.answer, bound), served.answer.error),
            _check("the adapter refuses and harms", (served.outcome, state) == ("refused", "harmed"), state),
            _check("later the session is served elsewhere", rebound, f"status {later.status}"),
            _check("without the blocks", later.cached_tokens == 0, f"{later.cached_tokens} tokens cached"),
        ),
        losses=(
            _loss(
                "the worker of a hard session died",
                told="partly",
                caught="adapter" if (served.outcome, state) == ("refused", "harmed") else "nobody",
                by="a generic error to the request, and to the next ones until discovery forgets the worker",
            ),
            _loss(
                "a hard session is bound anew",
                told="silent" if rebound and not later.error else "told",
                caught="adapter" if state == "harmed" else "nobody",
                by="status 200 from another worker once discovery forgot the dead one; the claim was harmed before, "
                "and its owner has to claim again",
            ),
        ),
    )


def soft_affinity_migration(stage: Stage) -> CaseRun:
    """The worker of a soft session dies in the middle of an answer, which another one completes under its name."""
    fleet = stage.fleet(frontend=(*AFFINITY, "soft", "--migration-limit", "2"))
    router = stage.router(fleet, SOFT)
    _, bound = _bind(stage, router)
    before = router.serve(OWNER, "claim", stage.tokens("tail", 1))

    def kill_at(chunk: int) -> None:
        if chunk == 8:
            fleet.kill(bound)

    served = router.serve(OWNER, "claim", stage.tokens("tail-2", 1), stream=True, max_tokens=48, on_chunk=kill_at)
    state = router.state(OWNER, "claim")
    router.close()
    stale = served.answer.served and served.answer.workers == (bound,) and served.stale
    return CaseRun(
        case=stage.case,
        traces=_trace(stage),
        checks=(
            _check("it is served by the binding before", *_held(before)),
            _check("Dynamo completes the answer", served.answer.served, f"status {served.answer.status}"),
            _check("every chunk names the dead worker", served.answer.workers == (bound,), str(served.answer.workers)),
            _check("another worker computed it", bool(served.computed_by) and stale, _workers([served])),
            _check("the adapter tells that it moved", served.outcome == "moved", str(served.outcome)),
            _check("and harms the claim", state == "harmed", state),
        ),
        losses=(
            _loss(
                "a migrated answer names the worker that died",
                told="silent" if stale else "told",
                caught="adapter" if served.outcome == "moved" and state == "harmed" else "nobody",
                by="status 200 and the dead worker's id; the survivor's own events show the request's fresh tail",
            ),
        ),
    )


def prediction_without_events(stage: Stage) -> CaseRun:
    """A router that predicts: the rate of hits that it tells and the tokens that were cached, in one answer."""
    fleet = stage.fleet(frontend=("--no-router-kv-events",))
    router, frontend = stage.router(fleet, DIRECT), Frontend(fleet.port)
    _, bound = _bind(stage, router)
    prompt = stage.tokens("claimed", BLOCKS)
    warm = frontend.complete([*prompt, *stage.tokens("warm", 1)])
    stage.press(fleet, bound)
    router.fence()
    router.poll()
    state = router.state(OWNER, "claim")
    cold = frontend.complete([*prompt, *stage.tokens("cold", 1)])
    router.close()
    predicted = cold.cached_tokens == 0 and (cold.kv_hit_rate or 0) > 0.5
    return CaseRun(
        case=stage.case,
        traces=_trace(stage),
        checks=(
            _check("warm: rate and tokens agree", (warm.cached_tokens or 0) > 0, _rate(warm)),
            _check("evicted: the rate stays, the tokens are none", predicted, _rate(cold)),
            _check("the adapter harms the claim", state == "harmed", state),
        ),
        losses=(
            _loss(
                "an evicted prefix that the router still predicts",
                told="partly" if predicted else "told",
                caught="adapter" if state == "harmed" else "nobody",
                by="kv_hit_rate says a hit and cached_tokens none, in one answer; workers publish the removal, and "
                "this router does not listen",
            ),
        ),
    )


def reservation_too_large(stage: Stage) -> CaseRun:
    """A reservation of more blocks than the worker has; the adapter turns such a claim down."""
    booked = reserve(worker_blocks=8, asked_blocks=500)
    fleet = stage.fleet()
    router = stage.router(fleet, DIRECT)
    decision = router.bind(wire(), stage.tokens("large", WORKER_BLOCKS + 8), stage.tokens("tail", 1))
    router.close()
    return CaseRun(
        case=stage.case,
        traces=_trace(stage),
        checks=(
            _check("Dynamo books it", booked.accepted and booked.counted_blocks > booked.worker_blocks, booked.said),
            _check("the adapter rejects", decision.verdict.value == "rejected", decision.detail),
        ),
        losses=(
            _loss(
                f"a reservation of {booked.asked_blocks} blocks on a worker of {booked.worker_blocks}",
                told="silent" if booked.accepted else "told",
                caught="adapter" if decision.reason == "never_fits" else "nobody",
                by="an id as for any other; the adapter knows how many blocks a worker has and says never_fits",
            ),
        ),
    )


def accepted_hints(stage: Stage) -> CaseRun:
    """What looks like a term or an importance: what is refused, what is accepted, and what it changes."""
    fleet = stage.fleet(frontend=("--enable-anthropic-api",))
    frontend, listener = Frontend(fleet.port), stage.listener(fleet)
    prompt = stage.tokens("hinted", BLOCKS)
    ttl = frontend.complete(prompt, agent_hints={"ttl": 60})
    pinned = frontend.complete(prompt, cache_control={"type": "ephemeral", "ttl": "1h"})
    priority = frontend.complete(prompt, agent_hints={"priority": 5, "strict_priority": 5})
    text = {"type": "text", "text": "a lasting prefix " * 60, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    body = {"model": MODEL, "messages": [{"role": "user", "content": [text]}], "max_tokens": 2}
    listener.read(1.0)
    status, said = frontend.post("/v1/messages", body)
    batches = listener.read(2.0)
    kept = {(e.worker_id, b) for batch in batches for e in batch.events if e.kind == "stored" for b in e.blocks}
    for worker_id in {w for w, _ in kept}:
        stage.press(fleet, worker_id)
    gone = {
        (e.worker_id, b) for batch in listener.read(1.0) for e in batch.events if e.kind == "removed" for b in e.blocks
    }
    evicted = bool(kept) and kept <= gone
    again = frontend.post("/v1/messages", body)
    return CaseRun(
        case=stage.case,
        checks=(
            _check("agent_hints.ttl is refused", ttl.status == 400, f"status {ttl.status}"),
            _check("nvext.cache_control is refused", pinned.status == 400, f"status {pinned.status}"),
            _check("agent_hints.priority is accepted", priority.served, f"status {priority.status}"),
            _check("a time to live on a message part is accepted", status == 200, said.decode(errors="replace")[:80]),
            _check("its blocks are evicted within it", evicted, f"{len(kept)} stored, {len(kept & gone)} removed"),
            _check("and the message is served again", again[0] == 200, f"status {again[0]}"),
        ),
        losses=(
            _loss(
                "a message part kept for an hour is evicted in seconds",
                told="silent" if evicted and status == again[0] == 200 else "told",
                caught="nobody",
                by="cache_control is accepted and changes nothing that can be seen; there is no claim that the removal "
                "events could be joined to",
            ),
        ),
    )


def salt_dropped(stage: Stage) -> CaseRun:
    """A prompt under a salt, and the same one without: what the router told apart, the (simulated) engine does not."""
    fleet = stage.fleet()
    observer = stage.observer(fleet)
    observer.watch(wire("best_effort"), stage.tokens("claimed", BLOCKS), stage.tokens("tail", 1))
    salted = stage.tokens("salted", BLOCKS)
    first = observer.probe(salted, salt="tenant-a")
    told_plain = observer.index.holders(hash_blocks(salted))
    second = observer.probe(salted)
    observer.release("claim")
    observer.close()
    crossed = second.served and (second.cached_tokens or 0) > 0
    return CaseRun(
        case=stage.case,
        traces=_trace(stage),
        checks=(
            _check("the salted prompt is computed", first.served and first.cached_tokens == 0, _rate(first)),
            _check("without the salt it is a hit", crossed, _rate(second)),
            _check("the events carry unsalted hashes", bool(told_plain), f"{len(told_plain)} worker"),
        ),
        losses=(
            _loss(
                "a salted prompt is a hit for everybody (engine: dynamo.mocker)",
                told="silent" if crossed else "told",
                caught="adapter" if told_plain else "nobody",
                by="the salt is accepted; the worker's events show the blocks under the hashes that they have without",
            ),
        ),
    )


def host_tier(stage: Stage) -> CaseRun:
    """Blocks that went to host memory and came back: the binding holds, and no answer says from where."""
    fleet = stage.fleet(worker=("--num-host-blocks", "256", "--kv-bytes-per-token", "1024"))
    router = stage.router(fleet, DIRECT)
    _, bound = _bind(stage, router)
    stage.press(fleet, bound, rounds=1)
    router.fence()
    router.poll()
    holding = router.index.holdings[bound, 0]
    tiers = sorted(t for t, blocks in holding.tiers.items() if router.kept_blocks(OWNER, "claim") <= blocks)
    served = router.serve(OWNER, "claim", stage.tokens("tail", 1))
    router.release(OWNER, "claim")
    router.close()
    return CaseRun(
        case=stage.case,
        traces=_trace(stage),
        checks=(
            _check("under pressure the blocks are on the host only", tiers == ["host_pinned"], ", ".join(tiers)),
            _check("it is served by the binding", *_held(served)),
        ),
    )


def event_gap(stage: Stage) -> CaseRun:
    """A subscriber misses events while its claim is evicted: the numbers show a gap, and nothing is concluded."""
    fleet = stage.fleet()
    listener = stage.listener(fleet)
    router = stage.router(fleet, DIRECT, listener)
    _, bound = _bind(stage, router)
    listener.leave()
    stage.press(fleet, bound)
    listener.follow(fleet.event_channels())
    router.fence()
    router.poll()
    whole, state = router.index.holdings[bound, 0].whole, router.state(OWNER, "claim")
    served = router.serve(OWNER, "claim", stage.tokens("tail", 1))
    router.close()
    return CaseRun(
        case=stage.case,
        traces=_trace(stage, "inconclusive"),
        checks=(
            _check("the gap is seen", not whole, f"whole {whole}"),
            _check("the claim is neither kept nor harmed for it", state == "materialized", state),
            _check("nothing is said about where its request went", served.outcome is None, str(served.outcome)),
        ),
        losses=(
            _loss(
                "events that a subscriber missed",
                told="partly" if not whole else "silent",
                caught="adapter" if not whole else "nobody",
                by="only the numbers of the events show it; the adapter stops concluding, the audit is inconclusive",
            ),
        ),
    )


def best_effort_observed(stage: Stage) -> CaseRun:
    """A claim that is only watched: warm, another prefix, and after an eviction."""
    fleet = stage.fleet()
    observer = stage.observer(fleet)
    prompt = stage.tokens("claimed", BLOCKS)
    first = observer.watch(wire("best_effort"), prompt, stage.tokens("tail", 1))
    warm, holder = observer.request("claim", stage.tokens("warm", 1))
    other = observer.probe([*stage.tokens("other", 1), *prompt[BLOCK_TOKENS:], *stage.tokens("wrong", 1)])
    for worker_id in fleet.instances():
        stage.press(fleet, worker_id)
    cold, _ = observer.request("claim", stage.tokens("cold", 1))
    observer.release("claim")
    observer.close()
    size = BLOCKS * BLOCK_TOKENS
    return CaseRun(
        case=stage.case,
        traces=_trace(stage),
        checks=(
            _check("cold: nothing is cached", first.cached_tokens == 0, _rate(first)),
            _check("warm: the prefix is cached", warm.cached_tokens == size and holder == warm.worker_id, _rate(warm)),
            _check("another first block: nothing is cached", other.cached_tokens == 0, _rate(other)),
            _check("evicted: nothing is cached", cold.cached_tokens == 0, _rate(cold)),
        ),
    )


CASES: dict[str, Callable[[Stage], CaseRun]] = {
    "warm_route": warm_route,
    "evicted_at_target": evicted_at_target,
    "dead_target_direct": dead_target_direct,
    "dead_target_hard_affinity": dead_target_hard_affinity,
    "soft_affinity_migration": soft_affinity_migration,
    "prediction_without_events": prediction_without_events,
    "reservation_too_large": reservation_too_large,
    "accepted_hints": accepted_hints,
    "salt_dropped": salt_dropped,
    "host_tier": host_tier,
    "event_gap": event_gap,
    "best_effort_observed": best_effort_observed,
}
"""All cases by name, in the order in which they run."""


def _bind(stage: Stage, router: ClaimRouter) -> tuple[str, int]:
    """Claim a prefix; return the answer and the worker that it was bound to (0 for none)."""
    decision = router.bind(wire(), stage.tokens("claimed", BLOCKS), stage.tokens("first", 1))
    return decision.verdict.value, router.bound_to(OWNER, "claim") or 0


def _over(router: ClaimRouter) -> bool:
    try:
        router.serve(OWNER, "claim", [])
    except ClaimOver:
        return True
    return False


def _until_served(ask: Callable[[], Response]) -> Response:
    until = time.monotonic() + LEASE_S
    answer = ask()
    while not answer.served and time.monotonic() < until:
        time.sleep(1.0)
        answer = ask()
    return answer


def _held(served: Served) -> tuple[bool, str]:
    good = served.outcome == "served_by_binding" and served.reused_blocks == BLOCKS
    return good, f"{served.outcome}, {served.reused_blocks} blocks, {_rate(served.answer)}"


def _names_nobody(answer: Response, worker_id: int) -> bool:
    return answer.worker_id is None and str(worker_id) not in answer.error and "claim" not in answer.error


def _workers(served: list[Served]) -> str:
    return "; ".join(f"told {s.told}, computed by {', '.join(map(str, s.computed_by))}" for s in served)


def _rate(answer: Response) -> str:
    rate = "none" if answer.kv_hit_rate is None else f"{answer.kv_hit_rate:.2f}"
    return f"status {answer.status}, {answer.cached_tokens} of {answer.prompt_tokens} tokens cached, kv_hit_rate {rate}"


def _trace(stage: Stage, verdict: Word = "conforming") -> tuple[ExpectedTrace, ...]:
    return (ExpectedTrace(path=f"{stage.case}.jsonl", verdict=verdict),)


def _check(name: str, passed: bool, found: str) -> Check:
    return Check(name=name, passed=passed, found=found)


def _loss(name: str, *, told: Told, caught: Caught, by: str) -> Loss:
    return Loss(name=name, told=told, caught=caught, by=by)


__all__ = ["CASES", "Fleet", "run_case"]
