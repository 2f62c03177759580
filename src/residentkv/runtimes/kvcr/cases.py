"""The questions put to KVCR: what it does with claims, what it tells about a loss; every answer comes from a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from residentkv.runtimes.kvcr.content import BLOCK_BYTES, Prompt
from residentkv.runtimes.kvcr.desk import SUCCESS, Desk, NotYourClaim
from residentkv.runtimes.kvcr.node import Node, Outcome
from residentkv.runtimes.kvcr.stage import SLOTS, Stage, load, same_bytes, wipe
from residentkv.runtimes.study import CaseRun, Caught, Check, ExpectedTrace, Loss, Told

OWNER, STRANGER = "tenant-a", "tenant-b"
PRESSURE_ROUNDS = 4
TTL_S = 3600.0


def run_case(name: str, out: Path) -> CaseRun:
    """Run one case on a KVCR of its own."""
    with Stage(name, out) as stage:
        return CASES[name](stage)


def hard_claim(stage: Stage) -> CaseRun:
    """A claimed prefix stays under pressure, with its bytes; after the release it may go."""
    desk = stage.desk()
    node, prompt = desk.node, stage.prompt("claimed", 6)
    answer = _claim(desk, prompt, "hard_protected")
    before = _reads_back(desk, prompt)
    _press(stage, desk)
    after = _reads_back(desk, prompt)
    desk.release(OWNER, "claim")
    _press(stage, desk, blocks=10)
    left = _held(node, prompt)
    desk.close()
    return CaseRun(
        case=stage.case,
        traces=_trace(stage),
        checks=(
            _check("the claim is accepted", answer == "accepted", answer),
            _check("its bytes come back", before, f"equal {before}"),
            _check("its bytes come back after pressure", after, f"equal {after}"),
            _check("its blocks go after the release", left == 0, f"{left} of {prompt.blocks} left"),
        ),
    )


def pool_full_of_claims(stage: Stage) -> CaseRun:
    """What does not fit beside claims: KVCR fails a part without a name; the desk refuses all and names the claim."""
    bare = stage.node()
    held = bare.deposit(load(bare, stage.prompt("held", 8)), no_evict=True)
    extra = stage.prompt("extra", 6)
    found = bare.deposit(load(bare, extra), no_evict=False)
    words = sorted(r.word for r in found.values())
    failed = words.count("FAILED")
    desk = stage.desk()
    _claim(desk, stage.prompt("claimed", 8), "hard_protected")
    load(desk.node, extra)
    refused = desk.deposit(extra)
    untouched = _held(desk.node, extra)
    intact = _reads_back(desk, stage.prompt("claimed", 8))
    desk.release(OWNER, "claim")
    load(desk.node, extra)
    served = desk.deposit(extra)
    desk.close()
    return CaseRun(
        case=stage.case,
        traces=_trace(stage),
        checks=(
            _check("KVCR claims what it holds", all(r.handle is not None for r in held.values()), _words(held)),
            _check("KVCR fails what does not fit beside claims", failed == 8 + 6 - SLOTS, ", ".join(words)),
            _check("the desk refuses all of it", refused.finish_status == "refused", refused.finish_status),
            _check("the refusal names the claim", refused.blocking == ("claim",), ", ".join(refused.blocking)),
            _check("nothing of a refused deposit is stored", untouched == 0, f"{untouched} blocks"),
            _check("the claim is intact", intact, f"equal {intact}"),
            _check("after the release it fits", served.finish_status == "stopped", served.finish_status),
        ),
        losses=(
            _loss(
                "a deposit that does not fit beside claims",
                told="partly" if failed else "silent",
                caught="adapter" if refused.blocking else "nobody",
                by=f"KVCR stores {len(words) - failed} of {len(words)} blocks and says FAILED for the rest, naming no "
                "claim; the desk refuses all and names it",
            ),
        ),
    )


def expiring_claim(stage: Stage) -> CaseRun:
    """A claim with a term: the desk ends it and gives the handles back; KVCR would hold them for ever."""
    desk = stage.desk()
    prompt = stage.prompt("claimed", 4)
    _claim(desk, prompt, "expiring", ttl_s=TTL_S)
    bare = stage.node()
    bare.deposit(load(bare, prompt), no_evict=True)
    early = _reads_back(desk, prompt)
    stage.clock.skip(TTL_S)
    gone = _is_refused(lambda: desk.read(OWNER, "claim"))
    _press(stage, desk, blocks=10)
    left = _held(desk.node, prompt)
    desk.close()
    stale = bare.deposit(load(bare, stage.prompt("other", SLOTS)), no_evict=False)
    kept = _held(bare, prompt)
    return CaseRun(
        case=stage.case,
        traces=_trace(stage),
        checks=(
            _check("its bytes come back before the deadline", early, f"equal {early}"),
            _check("a read after the deadline is turned away", gone, f"turned away {gone}"),
            _check("its blocks go after the deadline", left == 0, f"{left} of {prompt.blocks} left"),
            _check("KVCR holds a claim without a term", kept == prompt.blocks, f"{kept} of {prompt.blocks} left"),
        ),
        losses=(
            _loss(
                "a claim that nobody gives back",
                told="partly" if "FAILED" in _words(stale) else "silent",
                caught="adapter" if left == 0 and gone else "nobody",
                by="KVCR has no term: the blocks stay, and deposits beside them fail; the desk ends the claim at its "
                "deadline",
            ),
        ),
    )


def demotable_claim(stage: Stage) -> CaseRun:
    """A claim that may be withdrawn: it is demoted by name before the first block goes."""
    desk = stage.desk()
    prompt = stage.prompt("claimed", 8)
    _claim(desk, prompt, "demotable")
    kept = _reads_back(desk, prompt)
    extra = stage.prompt("extra", 10)
    load(desk.node, extra)
    served = desk.deposit(extra)
    gone = _is_refused(lambda: desk.read(OWNER, "claim"))
    left = _held(desk.node, prompt)
    desk.close()
    return CaseRun(
        case=stage.case,
        traces=_trace(stage),
        checks=(
            _check("its bytes come back", kept, f"equal {kept}"),
            _check("the deposit that needs the room is served", served.finish_status == "stopped", str(served.failed)),
            _check("the claim is over", gone, f"turned away {gone}"),
            _check("some of its blocks went", left < prompt.blocks, f"{left} of {prompt.blocks} left"),
        ),
    )


def remote_fetch(stage: Stage) -> CaseRun:
    """Blocks of another process are fetched into a claim of one's own, with their bytes."""
    peer, node = stage.peer(), stage.node()
    prompt = stage.prompt("theirs", 5)
    given = peer.deposit(prompt.keys, no_evict=True)
    found = node.fetch(prompt.keys, source=peer.endpoint)
    arrived = all(
        r.slot is not None and node.pool.read(r.slot) == prompt.bytes_of(prompt.keys.index(key))
        for key, r in found.items()
    )
    wipe(node, prompt.blocks)
    node.deliver({key: i for i, key in enumerate(prompt.keys)})
    delivered = same_bytes(node, prompt)
    handles = [r.handle for r in found.values() if r.handle is not None]
    released = node.release(handles)
    again = node.release(handles)
    return CaseRun(
        case=stage.case,
        checks=(
            _check("the peer deposits", _words(given) == SUCCESS, _words(given)),
            _check("the fetch succeeds", _words(found) == SUCCESS, _words(found)),
            _check("each block is claimed for the caller", len(handles) == prompt.blocks, f"{len(handles)} handles"),
            _check("the bytes of the other process arrive", arrived, f"{prompt.blocks} x {BLOCK_BYTES} B: {arrived}"),
            _check("they can be delivered from here", delivered, f"equal {delivered}"),
            _check("every handle can be released once", all(released.values()), str(released)),
            _check("and not twice", not any(again.values()), str(again)),
        ),
    )


def fetch_absent(stage: Stage) -> CaseRun:
    """A block that nobody has, that the peer lacks, and whose holder died: one word for all three."""
    peer, node = stage.peer(), stage.node()
    nowhere, lacking, orphan = (stage.prompt(n, 2) for n in ("nowhere", "lacking", "orphan"))
    peer.deposit(orphan.keys, no_evict=True)
    words = {
        "nobody has it": _words(node.fetch(nowhere.keys)),
        "the peer lacks it": _words(node.fetch(lacking.keys, source=peer.endpoint)),
    }
    peer.kill()
    words["its holder died"] = _words(node.fetch(orphan.keys, source=peer.endpoint))
    one = len(set(words.values())) == 1
    found = "; ".join(f"{why}: {word}" for why, word in words.items())
    return CaseRun(
        case=stage.case,
        checks=tuple(_check(f"{why}: the fetch fails", word == "FAILED", word) for why, word in words.items()),
        losses=(
            _loss(
                "the claims of a process that died",
                told="partly" if words["its holder died"] == "FAILED" else "silent",
                caught="nobody",
                by="no outcome of any claim; " + ("the same word as for a block that never was" if one else found),
            ),
        ),
    )


def foreign_handle(stage: Stage) -> CaseRun:
    """Handles are numbers that every instance counts from 1: one of another process releases a claim here."""
    peer, node = stage.peer(), stage.node()
    mine, theirs = stage.prompt("mine", 3), stage.prompt("theirs", 3)
    held = node.deposit(load(node, mine), no_evict=True)
    given = peer.deposit(theirs.keys, no_evict=True)
    numbers = [r.handle for r in given.values() if r.handle is not None]
    equal = sorted(numbers) == sorted(r.handle for r in held.values() if r.handle is not None)
    accepted = node.release(numbers)
    node.deposit(load(node, stage.prompt("pressure", SLOTS)), no_evict=False)
    left = _held(node, mine)
    desk = stage.desk()
    _claim(desk, mine, "hard_protected")
    turned = _is_refused(lambda: desk.release(STRANGER, "claim"))
    _press(stage, desk)
    intact = _reads_back(desk, mine)
    desk.release(OWNER, "claim")
    desk.close()
    lost = left < mine.blocks and all(accepted.values())
    return CaseRun(
        case=stage.case,
        traces=_trace(stage),
        checks=(
            _check("two instances give out the same numbers", equal, str(numbers)),
            _check("KVCR releases by a number of another process", all(accepted.values()), str(accepted)),
            _check("the claim is lost under pressure", lost, f"{left} of {mine.blocks} left"),
            _check("the desk turns another owner away", turned, f"turned away {turned}"),
            _check("the claim at the desk is intact", intact, f"equal {intact}"),
        ),
        losses=(
            _loss(
                "a claim released by somebody else's handle",
                told="silent" if all(accepted.values()) else "told",
                caught="adapter" if turned and intact else "nobody",
                by="KVCR says true and knows no owner; the desk keeps the handles and asks for the owner",
            ),
        ),
    )


def unclaimed_eviction(stage: Stage) -> CaseRun:
    """A deposit without a claim in KVCR goes under pressure: the inventory names the block, the desk the claim."""
    desk = stage.desk()
    node, prompt = desk.node, stage.prompt("mine", 4)
    answer = _claim(desk, prompt, "best_effort")
    before = _reads_back(desk, prompt)
    _press(stage, desk)
    left = _held(node, prompt)
    after = desk.read(OWNER, "claim")
    desk.close()
    named = left == 0 and set(after.failed) == set(prompt.keys)
    return CaseRun(
        case=stage.case,
        traces=_trace(stage),
        checks=(
            _check("the claim is accepted as best effort", answer == "accepted", answer),
            _check("its bytes come back", before, f"equal {before}"),
            _check("it is evicted under pressure", left == 0, f"{left} of {prompt.blocks} left"),
            _check("the next read fails for each block", named, f"{len(after.failed)} failed"),
        ),
        losses=(
            _loss(
                "a deposit without claim is evicted",
                told="partly" if named else "silent",
                caught="adapter" if named else "nobody",
                by="the inventory sink names the block, no owner and no reason; the desk joins it to its claims",
            ),
        ),
    )


def overwrite(stage: Stage) -> CaseRun:
    """A second deposit under a key that is there: SUCCESS, and the first bytes stay."""
    node, prompt = stage.node(), stage.prompt("mine", 1)
    places = load(node, prompt)
    first = node.deposit(places, no_evict=False)
    other = bytes(255 - b for b in prompt.bytes_of(0)[:16]).ljust(BLOCK_BYTES, b"\0")
    node.buffer.write(0, other)
    second = node.deposit(places, no_evict=False)
    wipe(node, 1)
    node.deliver(places)
    kept, taken = node.buffer.read(0) == prompt.bytes_of(0), node.buffer.read(0) == other
    return CaseRun(
        case=stage.case,
        checks=(
            _check("both deposits succeed", {_words(first), _words(second)} == {SUCCESS}, _words(second)),
            _check("the first bytes stay", kept and not taken, f"first {kept}, second {taken}"),
        ),
        losses=(
            _loss(
                "other bytes deposited under a key that is there",
                told="silent" if _words(second) == SUCCESS and not taken else "told",
                caught="nobody",
                by="SUCCESS, and the bytes are not copied; a key has to name its content, which KVCR does not check",
            ),
        ),
    )


CASES: dict[str, Callable[[Stage], CaseRun]] = {
    "hard_claim": hard_claim,
    "pool_full_of_claims": pool_full_of_claims,
    "expiring_claim": expiring_claim,
    "demotable_claim": demotable_claim,
    "remote_fetch": remote_fetch,
    "fetch_absent": fetch_absent,
    "foreign_handle": foreign_handle,
    "unclaimed_eviction": unclaimed_eviction,
    "overwrite": overwrite,
}
"""All cases by name, in the order in which they run."""


def _claim(desk: Desk, prompt: Prompt, mode: str, **more: Any) -> str:
    load(desk.node, prompt)
    wire = {"claim_id": "claim", "owner_scope": OWNER, "mode": mode, "predicate": "whole_object", **more}
    return desk.claim(wire, prompt).verdict.value


def _reads_back(desk: Desk, prompt: Prompt) -> bool:
    wipe(desk.node, prompt.blocks)
    answer = desk.read(OWNER, "claim")
    return answer.reused_blocks == prompt.blocks and same_bytes(desk.node, prompt)


def _press(stage: Stage, desk: Desk, *, blocks: int = 5) -> None:
    """Deposit unclaimed prefixes until everything unclaimed before them must have gone."""
    for n in range(PRESSURE_ROUNDS):
        prompt = stage.prompt(f"pressure-{blocks}-{n}", blocks)
        load(desk.node, prompt)
        desk.deposit(prompt)


def _present(node: Node, prompt: Prompt) -> list[bytes]:
    return [k for k, (status, _) in zip(prompt.keys, node.query(prompt.keys), strict=True) if status == "HIT"]


def _held(node: Node, prompt: Prompt) -> int:
    return len(_present(node, prompt))


def _words(results: dict[bytes, Outcome]) -> str:
    return ", ".join(sorted({r.word for r in results.values()}))


def _is_refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except NotYourClaim:
        return True
    return False


def _trace(stage: Stage) -> tuple[ExpectedTrace, ...]:
    return (ExpectedTrace(path=f"{stage.case}.jsonl", verdict="conforming"),)


def _check(name: str, passed: bool, found: str) -> Check:
    return Check(name=name, passed=passed, found=found)


def _loss(name: str, *, told: Told, caught: Caught, by: str) -> Loss:
    return Loss(name=name, told=told, caught=caught, by=by)
