"""The questions put to KVCR: what it does with claims, what it tells about a loss; every answer comes from a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from residentkv.runtimes.kvcr.casework import (
    OWNER,
    STRANGER,
    claim_prefix,
    count_held,
    expect,
    expect_trace,
    is_refused,
    note_loss,
    offload_then_load,
    press,
    reads_back,
    say_words,
    take_away,
)
from residentkv.runtimes.kvcr.content import BLOCK_BYTES
from residentkv.runtimes.kvcr.desk import SUCCESS
from residentkv.runtimes.kvcr.stage import SLOTS, Stage, load, same_bytes, wipe
from residentkv.runtimes.study import CaseRun, ExpectedTrace

TTL_S = 3600.0


def run_case(name: str, out: Path) -> CaseRun:
    """Run one case on a KVCR of its own."""
    with Stage(name, out) as stage:
        return CASES[name](stage)


def hard_claim(stage: Stage) -> CaseRun:
    """A claimed prefix stays under pressure, with its bytes; after the release it may go."""
    desk = stage.desk()
    node, prompt = desk.node, stage.prompt("claimed", 6)
    answer = claim_prefix(desk, prompt, "hard_protected")
    before = reads_back(desk, prompt)
    press(stage, desk)
    after = reads_back(desk, prompt)
    desk.release(OWNER, "claim")
    press(stage, desk, blocks=10)
    left = count_held(node, prompt)
    desk.close()
    return CaseRun(
        case=stage.case,
        traces=expect_trace(stage),
        checks=(
            expect("the claim is accepted", answer == "accepted", answer),
            expect("its bytes come back", before, f"equal {before}"),
            expect("its bytes come back after pressure", after, f"equal {after}"),
            expect("its blocks go after the release", left == 0, f"{left} of {prompt.blocks} left"),
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
    claim_prefix(desk, stage.prompt("claimed", 8), "hard_protected")
    load(desk.node, extra)
    refused = desk.deposit(extra)
    untouched = count_held(desk.node, extra)
    intact = reads_back(desk, stage.prompt("claimed", 8))
    desk.release(OWNER, "claim")
    load(desk.node, extra)
    served = desk.deposit(extra)
    desk.close()
    return CaseRun(
        case=stage.case,
        traces=expect_trace(stage),
        checks=(
            expect("KVCR claims what it holds", all(r.handle is not None for r in held.values()), say_words(held)),
            expect("KVCR fails what does not fit beside claims", failed == 8 + 6 - SLOTS, ", ".join(words)),
            expect("the desk refuses all of it", refused.finish_status == "refused", refused.finish_status),
            expect("the refusal names the claim", refused.blocking == ("claim",), ", ".join(refused.blocking)),
            expect("nothing of a refused deposit is stored", untouched == 0, f"{untouched} blocks"),
            expect("the claim is intact", intact, f"equal {intact}"),
            expect("after the release it fits", served.finish_status == "stopped", served.finish_status),
        ),
        losses=(
            note_loss(
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
    claim_prefix(desk, prompt, "expiring", ttl_s=TTL_S)
    bare = stage.node()
    bare.deposit(load(bare, prompt), no_evict=True)
    early = reads_back(desk, prompt)
    stage.clock.skip(TTL_S)
    gone = is_refused(lambda: desk.read(OWNER, "claim"))
    press(stage, desk, blocks=10)
    left = count_held(desk.node, prompt)
    desk.close()
    stale = bare.deposit(load(bare, stage.prompt("other", SLOTS)), no_evict=False)
    kept = count_held(bare, prompt)
    return CaseRun(
        case=stage.case,
        traces=expect_trace(stage),
        checks=(
            expect("its bytes come back before the deadline", early, f"equal {early}"),
            expect("a read after the deadline is turned away", gone, f"turned away {gone}"),
            expect("its blocks go after the deadline", left == 0, f"{left} of {prompt.blocks} left"),
            expect("KVCR holds a claim without a term", kept == prompt.blocks, f"{kept} of {prompt.blocks} left"),
        ),
        losses=(
            note_loss(
                "a claim that nobody gives back",
                told="partly" if "FAILED" in say_words(stale) else "silent",
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
    claim_prefix(desk, prompt, "demotable")
    kept = reads_back(desk, prompt)
    extra = stage.prompt("extra", 10)
    load(desk.node, extra)
    served = desk.deposit(extra)
    gone = is_refused(lambda: desk.read(OWNER, "claim"))
    left = count_held(desk.node, prompt)
    desk.close()
    return CaseRun(
        case=stage.case,
        traces=expect_trace(stage),
        checks=(
            expect("its bytes come back", kept, f"equal {kept}"),
            expect("the deposit that needs the room is served", served.finish_status == "stopped", str(served.failed)),
            expect("the claim is over", gone, f"turned away {gone}"),
            expect("some of its blocks went", left < prompt.blocks, f"{left} of {prompt.blocks} left"),
        ),
    )


def offload_and_load(stage: Stage) -> CaseRun:
    """The bytes of a claim come back from the pool; and when a stranger's release took them away, nobody refuses."""
    name = f"{stage.case}_failed"
    prompt = stage.prompt("claimed", 5)
    kept, lost = stage.offloader(stage.case), stage.offloader(name)
    back = offload_then_load(kept, prompt)
    same = same_bytes(kept.node, prompt)
    kept.release()
    kept.log.close("shutdown")
    gone = offload_then_load(lost, prompt, before_load=lambda: take_away(stage, lost.node, lost.handles))
    lost.log.close("shutdown")
    return CaseRun(
        case=stage.case,
        traces=(*expect_trace(stage), ExpectedTrace(path=f"{name}.jsonl", verdict="violating")),
        checks=(
            expect("the bytes are loaded back", back and same, f"loaded {back}, equal {same}"),
            expect("what was taken away is not loaded", not gone, f"loaded {gone}"),
        ),
        losses=(
            note_loss(
                "an offloaded claim cannot be loaded",
                told="partly" if not gone else "silent",
                caught="audit" if not gone else "nobody",
                by="FAILED to whoever called; no scheduler refuses the request in the name of the claim, which the "
                "audit calls a failure without outcome",
            ),
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
            expect("the peer deposits", say_words(given) == SUCCESS, say_words(given)),
            expect("the fetch succeeds", say_words(found) == SUCCESS, say_words(found)),
            expect("each block is claimed for the caller", len(handles) == prompt.blocks, f"{len(handles)} handles"),
            expect("the bytes of the other process arrive", arrived, f"{prompt.blocks} x {BLOCK_BYTES} B: {arrived}"),
            expect("they can be delivered from here", delivered, f"equal {delivered}"),
            expect("every handle can be released once", all(released.values()), str(released)),
            expect("and not twice", not any(again.values()), str(again)),
        ),
    )


def fetch_absent(stage: Stage) -> CaseRun:
    """A block that nobody has, that the peer lacks, and whose holder died: one word for all three."""
    peer, node = stage.peer(), stage.node()
    nowhere, lacking, orphan = (stage.prompt(n, 2) for n in ("nowhere", "lacking", "orphan"))
    peer.deposit(orphan.keys, no_evict=True)
    words = {
        "nobody has it": say_words(node.fetch(nowhere.keys)),
        "the peer lacks it": say_words(node.fetch(lacking.keys, source=peer.endpoint)),
    }
    peer.kill()
    words["its holder died"] = say_words(node.fetch(orphan.keys, source=peer.endpoint))
    one = len(set(words.values())) == 1
    found = "; ".join(f"{why}: {word}" for why, word in words.items())
    return CaseRun(
        case=stage.case,
        checks=tuple(expect(f"{why}: the fetch fails", word == "FAILED", word) for why, word in words.items()),
        losses=(
            note_loss(
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
    left = count_held(node, mine)
    desk = stage.desk()
    claim_prefix(desk, mine, "hard_protected")
    turned = is_refused(lambda: desk.release(STRANGER, "claim"))
    press(stage, desk)
    intact = reads_back(desk, mine)
    desk.release(OWNER, "claim")
    desk.close()
    lost = left < mine.blocks and all(accepted.values())
    return CaseRun(
        case=stage.case,
        traces=expect_trace(stage),
        checks=(
            expect("two instances give out the same numbers", equal, str(numbers)),
            expect("KVCR releases by a number of another process", all(accepted.values()), str(accepted)),
            expect("the claim is lost under pressure", lost, f"{left} of {mine.blocks} left"),
            expect("the desk turns another owner away", turned, f"turned away {turned}"),
            expect("the claim at the desk is intact", intact, f"equal {intact}"),
        ),
        losses=(
            note_loss(
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
    answer = claim_prefix(desk, prompt, "best_effort")
    before = reads_back(desk, prompt)
    press(stage, desk)
    left = count_held(node, prompt)
    after = desk.read(OWNER, "claim")
    desk.close()
    named = left == 0 and set(after.failed) == set(prompt.keys)
    return CaseRun(
        case=stage.case,
        traces=expect_trace(stage),
        checks=(
            expect("the claim is accepted as best effort", answer == "accepted", answer),
            expect("its bytes come back", before, f"equal {before}"),
            expect("it is evicted under pressure", left == 0, f"{left} of {prompt.blocks} left"),
            expect("the next read fails for each block", named, f"{len(after.failed)} failed"),
        ),
        losses=(
            note_loss(
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
            expect("both deposits succeed", {say_words(first), say_words(second)} == {SUCCESS}, say_words(second)),
            expect("the first bytes stay", kept and not taken, f"first {kept}, second {taken}"),
        ),
        losses=(
            note_loss(
                "other bytes deposited under a key that is there",
                told="silent" if say_words(second) == SUCCESS and not taken else "told",
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
    "offload_and_load": offload_and_load,
    "remote_fetch": remote_fetch,
    "fetch_absent": fetch_absent,
    "foreign_handle": foreign_handle,
    "unclaimed_eviction": unclaimed_eviction,
    "overwrite": overwrite,
}
"""All cases by name, in the order in which they run."""
