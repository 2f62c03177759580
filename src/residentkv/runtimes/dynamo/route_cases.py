"""Cases of claims that are bound to a worker: the binding holds, blocks go, the worker dies, events are missed."""

from __future__ import annotations

from residentkv.runtimes.dynamo.casework import (
    BLOCKS,
    ask_until_served,
    bind_claim,
    expect,
    expect_trace,
    is_over,
    judge_held,
    names_nobody,
    note_loss,
    say_rate,
    say_workers,
)
from residentkv.runtimes.dynamo.client import Frontend
from residentkv.runtimes.dynamo.stage import DIRECT, HARD, OWNER, SOFT, Stage
from residentkv.runtimes.study import CaseRun

AFFINITY = ("--router-session-affinity-ttl-secs", "600", "--router-session-affinity-mode")


def warm_route(stage: Stage) -> CaseRun:
    """A bound claim is served by the worker that holds it, and that is verified."""
    fleet = stage.fleet()
    router = stage.router(fleet, DIRECT)
    answer, bound = bind_claim(stage, router)
    served = [router.serve(OWNER, "claim", stage.tokens(f"tail-{n}", 1)) for n in range(3)]
    router.release(OWNER, "claim")
    over = is_over(router)
    router.close()
    return CaseRun(
        case=stage.case,
        traces=expect_trace(stage),
        checks=(
            expect("the claim is accepted and bound", bound in fleet.instances(), answer),
            *(expect(f"request {n} is served by the binding", *judge_held(s)) for n, s in enumerate(served)),
            expect("the answers name the worker that computed", not any(s.stale for s in served), say_workers(served)),
            expect("after the release there is no claim", over, f"turned away {over}"),
        ),
    )


def evicted_at_target(stage: Stage) -> CaseRun:
    """The blocks of a bound claim go at its worker: Dynamo answers as ever, the adapter harms the claim by name."""
    fleet = stage.fleet()
    router, frontend = stage.router(fleet, DIRECT), Frontend(fleet.port)
    _, bound = bind_claim(stage, router)
    before = router.serve(OWNER, "claim", stage.tokens("tail", 1))
    stage.press(fleet, bound)
    router.fence()
    router.poll()
    state, over = router.state(OWNER, "claim"), is_over(router)
    after = frontend.complete([*stage.tokens("claimed", BLOCKS), *stage.tokens("alone", 1)])
    router.close()
    return CaseRun(
        case=stage.case,
        traces=expect_trace(stage),
        checks=(
            expect("it is served by the binding before", *judge_held(before)),
            expect("the claim is harmed", state == "harmed" and over, state),
            expect("Dynamo serves the prompt all the same", after.served, f"status {after.status}"),
            expect("and reuses nothing of it", after.cached_tokens == 0, f"{after.cached_tokens} tokens cached"),
        ),
        losses=(
            note_loss(
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
    _, bound = bind_claim(stage, router)
    fleet.kill(bound)
    served = router.serve(OWNER, "claim", stage.tokens("tail", 1))
    state, over = router.state(OWNER, "claim"), is_over(router)
    fresh = fleet.add_worker().instance_id
    router.close()
    return CaseRun(
        case=stage.case,
        traces=expect_trace(stage),
        checks=(
            expect("Dynamo answers with an error", served.answer.status >= 400, f"status {served.answer.status}"),
            expect("which names neither worker nor claim", names_nobody(served.answer, bound), served.answer.error),
            expect("the adapter refuses and harms", (served.outcome, state) == ("refused", "harmed"), state),
            expect("the claim is over", over, f"turned away {over}"),
            expect("a new worker has a new id", fresh != bound, f"{fresh}"),
        ),
        losses=(
            note_loss(
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
    _, bound = bind_claim(stage, router)
    before = router.serve(OWNER, "claim", stage.tokens("tail", 1))
    fleet.kill(bound)
    served = router.serve(OWNER, "claim", stage.tokens("tail-2", 1))
    state = router.state(OWNER, "claim")
    router.close()
    prompt = [*stage.tokens("claimed", BLOCKS), *stage.tokens("later", 1)]
    later = ask_until_served(lambda: frontend.complete(prompt, session=f"{OWNER}/claim"))
    rebound = later.served and later.worker_id != bound
    return CaseRun(
        case=stage.case,
        traces=expect_trace(stage),
        checks=(
            expect("it is served by the binding before", *judge_held(before)),
            expect(
                "the bound worker's death is an error", served.answer.status >= 400, f"status {served.answer.status}"
            ),
            expect("which names neither worker nor session", names_nobody(served.answer, bound), served.answer.error),
            expect("the adapter refuses and harms", (served.outcome, state) == ("refused", "harmed"), state),
            expect("later the session is served elsewhere", rebound, f"status {later.status}"),
            expect("without the blocks", later.cached_tokens == 0, f"{later.cached_tokens} tokens cached"),
        ),
        losses=(
            note_loss(
                "the worker of a hard session died",
                told="partly",
                caught="adapter" if (served.outcome, state) == ("refused", "harmed") else "nobody",
                by="a generic error to the request, and to the next ones until discovery forgets the worker",
            ),
            note_loss(
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
    _, bound = bind_claim(stage, router)
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
        traces=expect_trace(stage),
        checks=(
            expect("it is served by the binding before", *judge_held(before)),
            expect("Dynamo completes the answer", served.answer.served, f"status {served.answer.status}"),
            expect("every chunk names the dead worker", served.answer.workers == (bound,), str(served.answer.workers)),
            expect("another worker computed it", bool(served.computed_by) and stale, say_workers([served])),
            expect("the adapter tells that it moved", served.outcome == "moved", str(served.outcome)),
            expect("and harms the claim", state == "harmed", state),
        ),
        losses=(
            note_loss(
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
    _, bound = bind_claim(stage, router)
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
        traces=expect_trace(stage),
        checks=(
            expect("warm: rate and tokens agree", (warm.cached_tokens or 0) > 0, say_rate(warm)),
            expect("evicted: the rate stays, the tokens are none", predicted, say_rate(cold)),
            expect("the adapter harms the claim", state == "harmed", state),
        ),
        losses=(
            note_loss(
                "an evicted prefix that the router still predicts",
                told="partly" if predicted else "told",
                caught="adapter" if state == "harmed" else "nobody",
                by="kv_hit_rate says a hit and cached_tokens none, in one answer; workers publish the removal, and "
                "this router does not listen",
            ),
        ),
    )


def host_tier(stage: Stage) -> CaseRun:
    """Blocks that went to host memory and came back: the binding holds, and no answer says from where."""
    fleet = stage.fleet(worker=("--num-host-blocks", "256", "--kv-bytes-per-token", "1024"))
    router = stage.router(fleet, DIRECT)
    _, bound = bind_claim(stage, router)
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
        traces=expect_trace(stage),
        checks=(
            expect("under pressure the blocks are on the host only", tiers == ["host_pinned"], ", ".join(tiers)),
            expect("it is served by the binding", *judge_held(served)),
        ),
    )


def event_gap(stage: Stage) -> CaseRun:
    """A subscriber misses events while its claim is evicted: the numbers show a gap, and nothing is concluded."""
    fleet = stage.fleet()
    listener = stage.listener(fleet)
    router = stage.router(fleet, DIRECT, listener)
    _, bound = bind_claim(stage, router)
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
        traces=expect_trace(stage, "inconclusive"),
        checks=(
            expect("the gap is seen", not whole, f"whole {whole}"),
            expect("the claim is neither kept nor harmed for it", state == "materialized", state),
            expect("nothing is said about where its request went", served.outcome is None, str(served.outcome)),
        ),
        losses=(
            note_loss(
                "events that a subscriber missed",
                told="partly" if not whole else "silent",
                caught="adapter" if not whole else "nobody",
                by="only the numbers of the events show it; the adapter stops concluding, the audit is inconclusive",
            ),
        ),
    )
