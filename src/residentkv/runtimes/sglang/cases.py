"""Cases on the device pool alone: reuse, priority under pressure, sessions, flush."""

from __future__ import annotations

import time
from collections.abc import Callable

from residentkv.claims.modes import Mode
from residentkv.environments import RuntimeFailed
from residentkv.runtimes.sglang.bench import Bench
from residentkv.runtimes.sglang.launch import Usage
from residentkv.runtimes.sglang.observer import Observer, Watched
from residentkv.runtimes.sglang.priority import refuse, request_fields
from residentkv.runtimes.study import CaseRun, Check, ExpectedTrace, Loss

OWNER = "tenant-a"
CLAIM_TOKENS = 66
"""A claimed prompt: four blocks of 16 tokens and two more."""
SESSION_TOKENS = 320
LESS, MORE = 1, 9


def best_effort(bench: Bench) -> CaseRun:
    """One claim: its own prompt again, another prompt, a prompt that differs in the first token, another salt."""
    o = bench.observe("best_effort.jsonl", primitive="radix_cache", adapter="residentkv_observer", depth="observe")
    tokens = bench.prompt(100)
    claim = serve_claim(bench, o, "doc", tokens, Mode.BEST_EFFORT)
    found = {
        "cold": bench.ask_plain(o, 100).told_blocks,
        "wrong prefix": _ask(bench, o, ((tokens[0] + 1), *tokens[1:])),
        "wrong salt": _ask(bench, o, tokens, cache_salt="tenant-b"),
    }
    warm = _ask(bench, o, tokens, claim)
    o.release(claim)
    o.close()
    checks = [Check(name="warm: every block of the claim", passed=warm == claim.blocks, found=f"{warm} blocks")]
    for name, blocks in found.items():
        checks.append(Check(name=f"{name}: nothing from the cache", passed=blocks == 0, found=f"{blocks} blocks"))
    named = len(claim.hashes) == claim.blocks
    checks.append(Check(name="every block joined to an event", passed=named, found=f"{len(claim.hashes)} hashes"))
    return conforming_run("best_effort", o, "best_effort.jsonl", checks)


def soft_priority(bench: Bench) -> CaseRun:
    """The less important claim goes first, used less recently and, as often, more recently."""
    o = bench.observe(
        "soft_priority.jsonl", primitive="priority_eviction", adapter="residentkv_priority", depth="policy"
    )
    refusal = refuse(bench.info)
    checks = [Check(name="the adapter takes this server", passed=refusal is None, found=str(refusal))]
    lost = _trials(bench, o, ("older", "newer"), request_fields)
    o.close()
    for order, names in lost.items():
        right = sum(name == ["less"] for name in names)
        checks.append(
            Check(
                name=f"less important first, {order} ({bench.trials} of {bench.trials})",
                passed=right == bench.trials == len(names),
                found=f"{right} of {len(names)}: {names}",
            )
        )
    told = Loss(
        name="a prefix is evicted under pressure",
        told="partly",
        caught="adapter",
        by="BlockRemoved names its blocks and no claim; the adapter joins them and says harmed",
    )
    return conforming_run("soft_priority", o, "soft_priority.jsonl", checks, (told,))


def priority_inverted(bench: Bench) -> CaseRun:
    """With the switch on, the adapter refuses; without its check the most important claim goes first."""
    path = "priority_refused.jsonl"
    refused = bench.observe(path, primitive="priority_eviction", adapter="residentkv_priority", depth="policy")
    refusal = refuse(bench.info)
    request_id = bench.name_request("refused")
    tokens = bench.prompt(CLAIM_TOKENS)
    refused.accept(request_id, "urgent", OWNER, tokens, mode=Mode.SOFT_PRIORITY, priority=MORE, refusal=refusal)
    bench.send(refused, refused.begin(request_id, tokens, first=True))
    refused.close()
    unchecked = "priority_unchecked.jsonl"
    o = bench.observe(
        unchecked, primitive="priority_low_values_first", adapter="residentkv_priority_unchecked", depth="policy"
    )
    lost = _trials(bench, o, ("older",), lambda importance: {"priority": MORE + LESS - importance})
    o.close()
    wrong = sum(names == ["more"] for names in lost["older"])
    reason = refusal.reason if refusal is not None else "accepted"
    checks = (
        Check(name="the adapter refuses the server", passed=reason == "priority_inverted", found=reason),
        Check(
            name=f"unchecked, the most important claim goes first ({bench.trials} of {bench.trials})",
            passed=wrong == bench.trials == len(lost["older"]),
            found=f"{wrong} of {len(lost['older'])}: {lost['older']}",
        ),
    )
    silent = Loss(
        name="the most urgent prefix is evicted first (--schedule-low-priority-values-first)",
        told="silent",
        caught="adapter" if reason == "priority_inverted" else "nobody",
        by="the adapter reads the switch from the server and refuses the claim",
    )
    return CaseRun(
        case="priority_inverted",
        traces=(
            ExpectedTrace(path=path, verdict="conforming"),
            ExpectedTrace(path=unchecked, verdict="conforming"),
        ),
        checks=checks,
        losses=(silent,),
    )


def flush(bench: Bench) -> CaseRun:
    """A flush drops everything with one event that names nothing."""
    path = "flush.jsonl"
    o = bench.observe(path, primitive="priority_eviction", adapter="residentkv_priority", depth="policy")
    claim = serve_claim(bench, o, "doc", bench.prompt(CLAIM_TOKENS), Mode.SOFT_PRIORITY, LESS)
    answer = bench.server.ask("/flush_cache", {})
    gone = o.wait_until(lambda: not claim.open)
    o.close()
    checks = (
        Check(name="the flush is answered", passed=answer.status == 200, found=str(answer.status)),
        Check(name="the claim is harmed by name", passed=gone, found="harmed" if gone else "still open"),
    )
    loss = Loss(
        name="the cache is flushed",
        told="partly",
        caught="adapter" if gone else "nobody",
        by="AllBlocksCleared names nothing; the adapter knows what was there and says harmed",
    )
    return CaseRun(
        case="flush", traces=(ExpectedTrace(path=path, verdict="conforming"),), checks=checks, losses=(loss,)
    )


def session_hold(bench: Bench) -> CaseRun:
    """A streaming session holds its blocks: nothing tells of them, and a request that does not fit starves."""
    path = "session_hold.jsonl"
    o = bench.observe(path, primitive="radix_cache", adapter="residentkv_observer", depth="observe")
    o.release(serve_claim(bench, o, "doc", bench.prompt(CLAIM_TOKENS), Mode.BEST_EFFORT))
    session = bench.server.ask("/open_session", {"capacity_of_str_len": 100000, "streaming": True}).body
    first, second = bench.prompt(SESSION_TOKENS), bench.prompt(20)
    one = bench.server.generate(first, output_tokens=4, fields={"session_params": {"id": session}})
    o.watch(1.0)
    bench.ask_plain(o, 100)
    two = bench.server.generate(second, output_tokens=4, fields={"session_params": {"id": session}})
    o.watch(1.0)
    cached = two.cached_tokens if isinstance(two, Usage) else -1
    chain = len(o.blocks.chain_of(first, bench.server.page_tokens, None))
    tokens = bench.prompt(bench.server.pool_tokens - 100)
    starving = o.begin(bench.name_request("starving"), tokens)
    events = o.events_seen
    served, _ = bench.send(o, starving, wait_s=8.0)
    starved = not isinstance(served, Usage) and served.status == 0
    told = o.events_seen - events
    bench.server.ask("/close_session", {"session_id": session})
    after = bench.ask_plain(o, bench.server.pool_tokens - 100)
    o.close()
    checks = (
        Check(name="the session opens and serves", passed=isinstance(one, Usage), found=str(one)[:200]),
        Check(
            name="the next turn finds all of the first",
            passed=cached >= SESSION_TOKENS,
            found=f"{cached} of {SESSION_TOKENS} tokens cached; {chain} blocks were told",
        ),
        Check(name="a feasible request gets no answer in 8 s", passed=starved, found=str(served)[:200]),
        Check(name="no event says so", passed=told == 0, found=f"{told} events"),
        Check(
            name="after the session is closed the same size is served",
            passed=after.told_blocks == 0,
            found=f"{after.told_blocks} blocks cached",
        ),
    )
    losses = (
        Loss(
            name="a session's hold starves a feasible request",
            told="silent" if starved and not told else "told",
            caught="audit" if starved else "nobody",
            by="the request has no end in the trace that the contract knows, so the trace is not conforming",
        ),
    )
    return CaseRun(
        case="session_hold",
        traces=(ExpectedTrace(path=path, verdict="inconclusive"),),
        checks=checks,
        losses=losses,
    )


def session_expiry(bench: Bench) -> CaseRun:
    """A session that was idle for its timeout is gone; its owner learns it from the next request."""
    path = "session_expiry.jsonl"
    o = bench.observe(path, primitive="radix_cache", adapter="residentkv_observer", depth="observe")
    o.release(serve_claim(bench, o, "doc", bench.prompt(CLAIM_TOKENS), Mode.BEST_EFFORT))
    opened = {"capacity_of_str_len": 100000, "streaming": True, "timeout": 1.0}
    session = bench.server.ask("/open_session", opened).body
    bench.server.generate(bench.prompt(CLAIM_TOKENS), fields={"session_params": {"id": session}})
    o.watch(1.0)
    events = o.events_seen
    time.sleep(3.0)
    for _ in range(2):
        bench.ask_plain(o, 20)
        time.sleep(1.2)
    plain = 2
    told = o.events_seen - events - plain
    late = bench.server.generate(bench.prompt(20), fields={"session_params": {"id": session}})
    o.close()
    status = late.status if not isinstance(late, Usage) else 200
    checks = (
        Check(name="the next turn is an error", passed=status == 400, found=str(late)[:200]),
        Check(
            name="no event tells the expiry", passed=told <= 0, found=f"{told} events besides those of plain requests"
        ),
    )
    loss = Loss(
        name="a session expires",
        told="silent" if told <= 0 else "partly",
        caught="nobody",
        by=f"no event; the next turn gets {status}, when it is too late to recompute in time",
    )
    return CaseRun(
        case="session_expiry",
        traces=(ExpectedTrace(path=path, verdict="conforming"),),
        checks=checks,
        losses=(loss,),
    )


def _trials(
    bench: Bench, o: Observer, orders: tuple[str, ...], fields: Callable[[int], dict[str, object]]
) -> dict[str, list[list[str]]]:
    """Two claims and a prompt that needs the room of one, again and again; return which claims were lost each time.

    `older`: the less important claim was used less recently; `newer`: more recently, the swapped assignment.
    """
    lost: dict[str, list[list[str]]] = {order: [] for order in orders}
    pressure = bench.server.pool_tokens - 2 * CLAIM_TOKENS + 30
    for order in orders:
        for trial in range(bench.trials):
            bench.progress(f"priority {order} {trial + 1}/{bench.trials}")
            names = [("less", LESS), ("more", MORE)]
            claims: dict[str, Watched] = {}
            for name, importance in names if order == "older" else reversed(names):
                claims[name] = serve_claim(
                    bench, o, f"{name}-{order}-{trial}", bench.prompt(CLAIM_TOKENS), Mode.SOFT_PRIORITY, importance,
                    fields=fields(importance),
                )  # fmt: skip
            bench.ask_plain(o, pressure, {"priority": 0})
            lost[order].append(sorted(name for name, w in claims.items() if not w.open))
            for w in claims.values():
                o.release(w)
    return lost


def serve_claim(
    bench: Bench,
    o: Observer,
    name: str,
    tokens: tuple[int, ...],
    mode: Mode,
    priority: int = 0,
    *,
    fields: dict[str, object] | None = None,
) -> Watched:
    """Serve the prompt of a new claim, so that it is materialized."""
    request_id = bench.name_request(name)
    watched = o.accept(request_id, name, OWNER, tokens, mode=mode, priority=priority)
    if watched is None:
        raise RuntimeFailed(f"the claim {name} was refused by nobody and not accepted")
    sent = request_fields(priority) if fields is None else fields
    bench.send(o, o.begin(request_id, tokens, watched=watched, first=True), fields=sent)
    return watched


def _ask(
    bench: Bench, o: Observer, tokens: tuple[int, ...], watched: Watched | None = None, cache_salt: str | None = None
) -> int:
    """Serve a prompt; return how many of its blocks were told as cached, -1 when it was not served."""
    pending = o.begin(bench.name_request("ask"), tokens, watched=watched, cache_salt=cache_salt)
    _, reading = bench.send(o, pending)
    return reading.told_blocks if reading is not None else -1


def conforming_run(case: str, o: Observer, path: str, checks: list[Check], losses: tuple[Loss, ...] = ()) -> CaseRun:
    """Return a case whose one trace has to conform, with a check that the observer was in no doubt."""
    doubts = Check(name="nothing in doubt", passed=not o.doubts, found="; ".join(o.doubts) or "nothing")
    trace = ExpectedTrace(path=path, verdict="conforming")
    return CaseRun(case=case, traces=(trace,), checks=(*checks, doubts), losses=losses)
