"""Cases with host pool and file storage: copies that come back, that are refused, that fail, and that are gone."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from residentkv.claims.modes import Mode
from residentkv.runtimes.sglang.bench import Bench
from residentkv.runtimes.sglang.cases import CLAIM_TOKENS, LESS, MORE, OWNER, conforming_run, serve_claim
from residentkv.runtimes.sglang.launch import Usage
from residentkv.runtimes.sglang.observer import Observer, Reading, Watched
from residentkv.runtimes.sglang.priority import refuse
from residentkv.runtimes.study import CaseRun, Check, ExpectedTrace, Loss

FLOOD_TOKENS = 450
"""Of a device pool of 512 tokens: everything else has to leave it. The host pool has twice the size."""
HOST_FLOODS = 4
OUTPUT_TOKENS = 4


class Tiers(msgspec.Struct, frozen=True, kw_only=True):
    """Where a copy can be made to fail, and where the storage backend keeps its files."""

    fault: Path
    storage: Path


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """A claim whose blocks have a copy in the host pool, and what its prompt gave at first."""

    claim: Watched
    tokens: tuple[int, ...]
    output_ids: tuple[int, ...]
    in_host: bool


def priority_ignored(bench: Bench, tiers: Tiers) -> CaseRun:
    """Under the default policy the more important claim, used less recently, leaves the device first."""
    path = "priority_ignored.jsonl"
    o = bench.observe(path, primitive="radix_cache", adapter="residentkv_observer", depth="observe")
    claims = [
        serve_claim(bench, o, name, bench.prompt(CLAIM_TOKENS), Mode.BEST_EFFORT, importance)
        for name, importance in (("more", MORE), ("less", LESS))
    ]
    bench.ask_plain(o, bench.server.pool_tokens - 2 * CLAIM_TOKENS + 30, {"priority": 0})
    on_device = [w.claim.claim_id for w in claims if all(o.blocks.holds(h, "device") for h in w.hashes)]
    for w in claims:
        o.release(w)
    o.close()
    refusal = refuse(bench.info)
    reason = refusal.reason if refusal is not None else "accepted"
    checks = [
        Check(name="only the less important claim is left", passed=on_device == ["less"], found=f"left: {on_device}"),
        Check(name="the adapter refuses the server", passed=reason == "eviction_ignores_priority", found=reason),
    ]
    loss = Loss(
        name="a priority is ignored under the default eviction policy",
        told="silent",
        caught="adapter" if reason == "eviction_ignores_priority" else "nobody",
        by="the request is served as if the number counted; the adapter reads the policy and refuses the claim",
    )
    return conforming_run("priority_ignored", o, path, checks, (loss,))


def load_back(bench: Bench, tiers: Tiers) -> CaseRun:
    """Copies go to the host pool, leave the device, come back and are counted as host tokens."""
    path = "load_back.jsonl"
    o = _observe(bench, path)
    copied = _copy(bench, o, bench.prompt(100))
    bench.ask_plain(o, FLOOD_TOKENS)
    left = _on_device(o, copied.claim)
    usage, reading = _again(bench, o, copied)
    o.release(copied.claim)
    o.close()
    host = usage.host_tokens if usage else -1
    checks = [
        _told_in_host(copied),
        Check(name="the device has none of it", passed=left == 0, found=f"{left} blocks"),
        _word("it comes back", reading, "reused"),
        Check(name="all of it from the host", passed=host == 8 * copied.claim.blocks, found=f"{host} tokens"),
        _same("the same answer", usage, copied, expected=True),
    ]
    return conforming_run("load_back", o, path, checks)


def load_back_refused(bench: Bench, tiers: Tiers) -> CaseRun:
    """A copy below the threshold of ten tokens is not loaded back; the block is computed again without a word."""
    path = "load_back_refused.jsonl"
    o = _observe(bench, path)
    copied = _copy(bench, o, bench.prompt(12))
    for _ in range(2):  # One prompt leaves room for a claim of one block.
        bench.ask_plain(o, FLOOD_TOKENS)
    left = _on_device(o, copied.claim)
    still = all(o.blocks.holds(h, "host") for h in copied.claim.hashes)
    usage, reading = _again(bench, o, copied)
    o.release(copied.claim)
    o.close()
    told = usage.cached_tokens if usage else -1
    checks = [
        _told_in_host(copied),
        Check(name="the device has none of it", passed=left == 0, found=f"{left} blocks"),
        Check(name="the host has it when it is asked for", passed=still, found=str(still)),
        Check(name="nothing is loaded", passed=told == 0, found=f"{told} tokens"),
        _word("the adapter sees it", reading, "recomputed"),
    ]
    loss = Loss(
        name="a load-back is refused",
        told="silent",
        caught="adapter" if reading is not None and reading.word == "recomputed" else "nobody",
        by="no event; fewer cached tokens than the events showed blocks, so the adapter says recomputed",
    )
    return conforming_run("load_back_refused", o, path, checks, (loss,))


def copy_skipped(bench: Bench, tiers: Tiers) -> CaseRun:
    """A copy back moves nothing and reports success: events and cached tokens say restored, the answer is another."""
    path = "copy_skipped.jsonl"
    o = _observe(bench, path, "the copy back moves nothing and reports success")
    copied = _copy(bench, o, bench.prompt(100))
    bench.ask_plain(o, FLOOD_TOKENS)
    tiers.fault.write_text("skip")
    usage, reading = _again(bench, o, copied)
    tiers.fault.unlink()
    o.release(copied.claim)
    o.close()
    checks = [
        _told_in_host(copied),
        _word("events and answer agree that it came back", reading, "reused"),
        _same("the answer is another one", usage, copied, expected=False),
    ]
    loss = Loss(
        name="a copy back reports success and moved nothing",
        told="silent",
        caught="nobody",
        by="BlockStored and the cached tokens both say that it came back; only the answer differs",
    )
    return conforming_run("copy_skipped", o, path, checks, (loss,))


def storage_deleted(bench: Bench, tiers: Tiers) -> CaseRun:
    """Storage gives a claim back once; then its files are deleted, and nothing tells it."""
    path = "storage_deleted.jsonl"
    o = _observe(bench, path, "files of the storage backend are deleted")
    copied = _copy(bench, o, bench.prompt(100))
    files = _wait_for_files(tiers.storage)
    _flood_host(bench, o)
    gone = not any(o.blocks.tiers_of(h) for h in copied.claim.hashes)
    usage, reading = _again(bench, o, copied)
    storage = usage.storage_tokens if usage else -1
    _flood_host(bench, o)
    o.settle()
    before = o.events_seen
    for file in tiers.storage.iterdir():
        file.unlink()
    o.watch(1.0)
    told = o.events_seen - before
    after, last = _again(bench, o, copied)
    o.release(copied.claim)
    o.close()
    cached = after.cached_tokens if after else -1
    checks = [
        Check(name="files are written", passed=files > 0, found=f"{files} files"),
        Check(name="device and host have none of it", passed=gone, found=str(gone)),
        _word("storage gives it back", reading, "reused"),
        Check(name="all of it from storage", passed=storage == 8 * copied.claim.blocks, found=f"{storage} tokens"),
        _same("the same answer", usage, copied, expected=True),
        Check(name="no event tells the deletion", passed=told == 0, found=f"{told} events"),
        Check(name="then nothing comes back", passed=cached == 0, found=f"{cached} tokens"),
        _word("which looks like never stored", last, "none"),
        _same("computed again", after, copied, expected=True),
    ]
    loss = Loss(
        name="files of the storage backend are deleted",
        told="silent",
        caught="nobody",
        by="no event tells what storage holds or loses; a lost copy looks like one that never was",
    )
    return conforming_run("storage_deleted", o, path, checks, (loss,))


def copy_raised(bench: Bench, tiers: Tiers) -> CaseRun:
    """An exception in the copy back ends the server; the request that needed the claim gets no word about it."""
    path = "copy_raised.jsonl"
    o = _observe(bench, path, "the copy back raises")
    copied = _copy(bench, o, bench.prompt(100))
    bench.ask_plain(o, FLOOD_TOKENS)
    tiers.fault.write_text("raise")
    before = o.events_seen
    pending = o.begin(bench.name_request("again"), copied.tokens, watched=copied.claim)
    served, _ = bench.send(o, pending, output_tokens=OUTPUT_TOKENS, wait_s=30.0)
    for _ in range(60):
        if not bench.server.is_up:
            break
        time.sleep(0.5)
    o.watch(1.0)
    o.close()
    status = served.status if not isinstance(served, Usage) else 200
    dead = not bench.server.is_up
    checks = (
        _told_in_host(copied),
        Check(name="the request gets no answer", passed=status == 0, found=str(served)[:200]),
        Check(name="the server is gone", passed=dead, found="gone" if dead else "still up"),
        Check(name="no event tells why", passed=o.events_seen == before, found=f"{o.events_seen - before} events"),
    )
    loss = Loss(
        name="a copy back raises",
        told="partly" if dead else "silent",
        caught="audit",
        by="the server ends, for everybody; a request without an end leaves the trace inconclusive",
    )
    trace = ExpectedTrace(path=path, verdict="inconclusive")
    return CaseRun(case="copy_raised", traces=(trace,), checks=checks, losses=(loss,))


def _observe(bench: Bench, path: str, fault: str | None = None) -> Observer:
    return bench.observe(
        path, primitive="hicache_load_back", adapter="residentkv_hicache_observer", depth="observe", fault=fault
    )


def _copy(bench: Bench, o: Observer, tokens: tuple[int, ...]) -> Copied:
    """Serve a claimed prompt and wait until the host pool tells of its blocks."""
    request_id = bench.name_request("doc")
    claim = o.accept(request_id, "doc", OWNER, tokens, mode=Mode.BEST_EFFORT)
    if claim is None:
        raise ValueError("a claim without a refusal is accepted")
    pending = o.begin(request_id, tokens, watched=claim, first=True)
    served, _ = bench.send(o, pending, output_tokens=OUTPUT_TOKENS)
    in_host = o.wait_until(lambda: bool(claim.hashes) and all(o.blocks.holds(h, "host") for h in claim.hashes))
    return Copied(
        claim=claim,
        tokens=tokens,
        output_ids=served.output_ids if isinstance(served, Usage) else (),
        in_host=in_host,
    )


def _again(bench: Bench, o: Observer, copied: Copied) -> tuple[Usage | None, Reading | None]:
    pending = o.begin(bench.name_request("again"), copied.tokens, watched=copied.claim)
    served, reading = bench.send(o, pending, output_tokens=OUTPUT_TOKENS)
    return (served if isinstance(served, Usage) else None), reading


def _flood_host(bench: Bench, o: Observer) -> None:
    for _ in range(HOST_FLOODS):
        bench.ask_plain(o, FLOOD_TOKENS)


def _wait_for_files(folder: Path) -> int:
    """Return how many files the storage backend has written, waiting until there are some and no more come."""
    count = -1
    for _ in range(20):
        found = sum(1 for _ in folder.iterdir())
        if found and found == count:
            break
        count = found
        time.sleep(0.5)
    return count


def _on_device(o: Observer, claim: Watched) -> int:
    return sum(o.blocks.holds(h, "device") for h in claim.hashes)


def _told_in_host(copied: Copied) -> Check:
    return Check(name="a copy is told in the host pool", passed=copied.in_host, found=str(copied.in_host))


def _word(name: str, reading: Reading | None, word: str) -> Check:
    found = (
        "not served" if reading is None else f"{reading.word}: told {reading.told_blocks}, seen {reading.seen_blocks}"
    )
    return Check(name=name, passed=reading is not None and reading.word == word, found=found)


def _same(name: str, usage: Usage | None, copied: Copied, *, expected: bool) -> Check:
    outputs = usage.output_ids if usage is not None else ()
    passed = bool(outputs) and (outputs == copied.output_ids) is expected
    return Check(name=name, passed=passed, found=f"{outputs}, at first {copied.output_ids}")
