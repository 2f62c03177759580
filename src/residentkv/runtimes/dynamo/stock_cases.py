"""Cases of what Dynamo has that looks like a promise: reservations, hints, scores, salts, and what can be watched."""

from __future__ import annotations

from residentkv.runtimes.dynamo.bindings import hash_blocks, reserve
from residentkv.runtimes.dynamo.casework import (
    BLOCKS,
    bind_claim,
    drain_events,
    expect,
    expect_trace,
    judge_held,
    keep_busy,
    note_loss,
    say_rate,
)
from residentkv.runtimes.dynamo.client import Frontend
from residentkv.runtimes.dynamo.fleet import BLOCK_TOKENS, WORKER_BLOCKS
from residentkv.runtimes.dynamo.stage import DIRECT, MODEL, OWNER, Stage, wire
from residentkv.runtimes.study import CaseRun


def reservation_too_large(stage: Stage) -> CaseRun:
    """A reservation of more blocks than the worker has; the adapter turns such a claim down."""
    booked = reserve(worker_blocks=8, asked_blocks=500)
    fleet = stage.fleet()
    router = stage.router(fleet, DIRECT)
    decision = router.bind(wire(), stage.tokens("large", WORKER_BLOCKS + 8), stage.tokens("tail", 1))
    router.close()
    return CaseRun(
        case=stage.case,
        traces=expect_trace(stage),
        checks=(
            expect("Dynamo books it", booked.accepted and booked.counted_blocks > booked.worker_blocks, booked.said),
            expect("the adapter rejects", decision.verdict.value == "rejected", decision.detail),
        ),
        losses=(
            note_loss(
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
    listener.drain()
    status, said = frontend.post("/v1/messages", body)
    kept = {(e.worker_id, b) for e in drain_events(listener) if e.kind == "stored" for b in e.blocks}
    for worker_id in {w for w, _ in kept}:
        stage.press(fleet, worker_id)
    gone = {(e.worker_id, b) for e in drain_events(listener) if e.kind == "removed" for b in e.blocks}
    evicted = bool(kept) and kept <= gone
    again = frontend.post("/v1/messages", body)
    return CaseRun(
        case=stage.case,
        checks=(
            expect("agent_hints.ttl is refused", ttl.status == 400, f"status {ttl.status}"),
            expect("nvext.cache_control is refused", pinned.status == 400, f"status {pinned.status}"),
            expect("agent_hints.priority is accepted", priority.served, f"status {priority.status}"),
            expect("a time to live on a message part is accepted", status == 200, said.decode(errors="replace")[:80]),
            expect("its blocks are evicted within it", evicted, f"{len(kept)} stored, {len(kept & gone)} removed"),
            expect("and the message is served again", again[0] == 200, f"status {again[0]}"),
        ),
        losses=(
            note_loss(
                "a message part kept for an hour is evicted in seconds",
                told="silent" if evicted and status == again[0] == 200 else "told",
                caught="nobody",
                by="cache_control is accepted and changes nothing that can be seen; there is no claim that the removal "
                "events could be joined to",
            ),
        ),
    )


BUSY = ("--active-decode-blocks-threshold", "0.15")
LARGE = ("--num-gpu-blocks-override", str(2 * WORKER_BLOCKS))
"""Options with which a worker that gives two long answers gets no new requests, and room for them."""


def score_as_binding(stage: Stage) -> CaseRun:
    """Dynamo's scores alone: they find the prefix while it is idle there, and elsewhere nobody says what was bound."""
    fleet = stage.fleet(frontend=BUSY, worker=LARGE)
    belief, frontend = stage.score_belief(fleet), Frontend(fleet.port)
    first = belief.watch(wire(), stage.tokens("claimed", BLOCKS), stage.tokens("first", 1))
    idle, _ = belief.request("claim", stage.tokens("idle", 1))
    with keep_busy(stage, frontend, first.worker_id or 0):
        away, _ = belief.request("claim", stage.tokens("away", 1))
    belief.release("claim")
    belief.close()
    found = idle.worker_id == first.worker_id and (idle.cached_tokens or 0) >= BLOCKS * BLOCK_TOKENS
    elsewhere = away.served and away.worker_id != first.worker_id and away.cached_tokens == 0
    return CaseRun(
        case=stage.case,
        traces=expect_trace(stage, "violating"),
        checks=(
            expect("idle: the score finds the prefix", found, say_rate(idle)),
            expect("busy: the same score sends it elsewhere", elsewhere, say_rate(away)),
        ),
    )


def busy_elsewhere(stage: Stage) -> CaseRun:
    """The worker that holds a prefix is busy: a score sends the request elsewhere, a binding does not."""
    fleet = stage.fleet(frontend=BUSY, worker=LARGE)
    router, frontend = stage.router(fleet, DIRECT), Frontend(fleet.port)
    _, bound = bind_claim(stage, router)
    prompt = stage.tokens("claimed", BLOCKS)
    idle = frontend.complete([*prompt, *stage.tokens("idle", 1)])
    with keep_busy(stage, frontend, bound):
        away = frontend.complete([*prompt, *stage.tokens("away", 1)])
        busy = router.serve(OWNER, "claim", stage.tokens("tail", 1))
    idle_again = router.serve(OWNER, "claim", stage.tokens("tail-2", 1))
    router.release(OWNER, "claim")
    router.close()
    kept = busy.outcome in ("served_by_binding", "refused") and judge_held(idle_again)[0]
    elsewhere = away.served and away.worker_id != bound and away.cached_tokens == 0
    return CaseRun(
        case=stage.case,
        traces=expect_trace(stage),
        checks=(
            expect(
                "idle: the score finds the prefix", idle.worker_id == bound and bool(idle.cached_tokens), say_rate(idle)
            ),
            expect("busy: the request goes elsewhere and is computed again", elsewhere, say_rate(away)),
            expect("busy: the binding holds, or the request is refused", kept, str(busy.outcome)),
            expect("idle again: the binding holds", *judge_held(idle_again)),
        ),
        losses=(
            note_loss(
                "a warm prefix is computed again at another worker",
                told="partly" if elsewhere else "told",
                caught="adapter" if kept else "nobody",
                by="another worker's id and a count of 0 cached tokens; the adapter's requests go where the claim is "
                "bound, or are refused by its name",
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
        traces=expect_trace(stage),
        checks=(
            expect("the salted prompt is computed", first.served and first.cached_tokens == 0, say_rate(first)),
            expect("without the salt it is a hit", crossed, say_rate(second)),
            expect("the events carry unsalted hashes", bool(told_plain), f"{len(told_plain)} worker"),
        ),
        losses=(
            note_loss(
                "a salted prompt is a hit for everybody (engine: dynamo.mocker)",
                told="silent" if crossed else "told",
                caught="adapter" if told_plain else "nobody",
                by="the salt is accepted; the worker's events show the blocks under the hashes that they have without",
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
        traces=expect_trace(stage),
        checks=(
            expect("cold: nothing is cached", first.cached_tokens == 0, say_rate(first)),
            expect(
                "warm: the prefix is cached", warm.cached_tokens == size and holder == warm.worker_id, say_rate(warm)
            ),
            expect("another first block: nothing is cached", other.cached_tokens == 0, say_rate(other)),
            expect("evicted: nothing is cached", cold.cached_tokens == 0, say_rate(cold)),
        ),
    )
