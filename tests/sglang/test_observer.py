"""The observer of SGLang on made-up events and answers: what it says, and when it says nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from residentkv.audit.api import audit_file
from residentkv.audit.evidence import evidence_of
from residentkv.claims.model import CacheIdentity
from residentkv.claims.modes import Mode
from residentkv.errors import UsageError
from residentkv.runtimes.kvevents import (
    Arrival,
    ClearedBlocks,
    KvBatch,
    KvEvent,
    Order,
    RemovedBlocks,
    StoredBlocks,
)
from residentkv.runtimes.sglang.launch import Usage, usage_of
from residentkv.runtimes.sglang.observer import Observer, Watched
from residentkv.runtimes.sglang.priority import Refusal, refuse
from residentkv.trace.events import TraceOpened
from residentkv.trace.writer import TraceWriter

PAGE = 2
TOKENS = (11, 12, 13, 14, 15)
OTHER = (21, 22, 23, 24, 25)


class Script:
    """A feed that hands out what a test puts in."""

    def __init__(self) -> None:
        self.seq = 0
        self.waiting: list[Arrival] = []

    def put(self, *events: KvEvent, order: Order = Order.NEXT, rank: int = 0) -> None:
        batch = KvBatch(seq=self.seq, time_s=0.0, rank=rank, events=events)
        self.waiting.append(Arrival(order=order, batch=batch))
        self.seq += 1

    def read(self, wait_s: float) -> list[Arrival]:
        out, self.waiting = self.waiting, []
        return out


def name(tokens: tuple[int, ...], i: int) -> str:
    return f"h{tokens[0]}.{i}"


def stored(tokens: tuple[int, ...], medium: str = "GPU") -> StoredBlocks:
    blocks = len(tokens) // PAGE
    return StoredBlocks(
        block_hashes=tuple(name(tokens, i) for i in range(blocks)),
        parent_hash=None,
        token_ids=tokens[: blocks * PAGE],
        block_size=PAGE,
        medium=medium,
    )


def removed(tokens: tuple[int, ...], *which: int, medium: str = "GPU") -> RemovedBlocks:
    return RemovedBlocks(block_hashes=tuple(name(tokens, i) for i in which), medium=medium)


def usage(request_id: str, device: int = 0, host: int = 0, storage: int = 0) -> Usage:
    return Usage(
        request_id=request_id,
        prompt_tokens=len(TOKENS),
        output_ids=(1,),
        finish_status="length",
        cached_tokens=device + host + storage,
        device_tokens=device,
        host_tokens=host,
        storage_tokens=storage,
    )


class Scene:
    """An observer with its script and its trace."""

    def __init__(self, path: Path, adapter: str = "residentkv_observer", depth: str = "observe") -> None:
        self.path = path
        self.feed = Script()
        trace = TraceWriter(path, source="sglang", run_id="made-up")
        trace.emit(
            TraceOpened,
            runtime="sglang",
            runtime_version="0.5.23",
            primitive="radix_cache",
            adapter=adapter,
            adapter_version="0.1.0",
            depth=depth,
            stands_in=(),
        )
        identity = CacheIdentity(
            model="m",
            model_revision="r",
            weights_epoch=0,
            tokenizer="t",
            kv_dtype="f",
            kv_layout="l",
            block_size_tokens=PAGE,
        )
        self.observer = Observer(trace, self.feed, identity, PAGE, patience_s=0.0)  # type: ignore[arg-type]

    def claim(
        self, claim_id: str, tokens: tuple[int, ...] = TOKENS, mode: Mode = Mode.BEST_EFFORT, priority: int = 0
    ) -> Watched:
        watched = self.observer.accept(f"r-{claim_id}", claim_id, "owner", tokens, mode=mode, priority=priority)
        assert watched is not None
        pending = self.observer.begin(f"r-{claim_id}", tokens, watched=watched, first=True)
        self.feed.put(stored(tokens))
        self.observer.end(pending, usage(f"r-{claim_id}"))
        return watched

    def ask(self, request_id: str, watched: Watched, answer: Usage, *during: KvEvent) -> str:
        pending = self.observer.begin(request_id, TOKENS, watched=watched)
        if during:
            self.feed.put(*during)
        return self.observer.end(pending, answer).word

    def verdict(self) -> str:
        self.observer.close()
        return audit_file(self.path).verdict.value


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "trace.jsonl")


def test_a_warm_prompt_is_a_reuse_that_conforms(scene: Scene) -> None:
    """Told and seen agree: the claim is materialized, reused and released, and supports what best_effort asks for."""
    watched = scene.claim("doc")
    assert scene.ask("again", watched, usage("again", device=4)) == "reused"
    scene.observer.release(watched)
    assert scene.verdict() == "conforming"
    shown = {i.obligation for i in evidence_of(audit_file(scene.path)) if i.polarity == "supports"}
    assert {"claim_identity", "cache_identity", "object_identity", "joinability"} <= shown


def test_more_tokens_than_were_seen_is_inconclusive(scene: Scene) -> None:
    """An answer that tells of cached blocks which no event explains is not believed; nothing is said of the claim."""
    watched = scene.claim("doc")
    scene.feed.put(removed(TOKENS, 0, 1))
    assert scene.ask("again", watched, usage("again", device=4), stored(TOKENS)) == "unexplained"
    scene.observer.release(watched)
    assert scene.verdict() == "inconclusive"


def test_fewer_tokens_than_were_seen_were_computed_again(scene: Scene) -> None:
    """A copy in the host pool that did not come back, without a word: the adapter sees it in the answer."""
    watched = scene.claim("doc")
    scene.feed.put(stored(TOKENS, "CPU_PINNED"), removed(TOKENS, 0, 1))
    assert scene.ask("again", watched, usage("again"), stored(TOKENS)) == "recomputed"
    scene.observer.release(watched)
    assert scene.verdict() == "conforming"
    assert '"active_request_recomputed"' in scene.path.read_text()


def test_storage_is_believed_only_when_the_host_copy_came_first(tmp_path: Path) -> None:
    """Storage has no events; host before device is a copy back, device before host is a computation."""
    words = []
    for i, during in enumerate(
        ([stored(TOKENS, "CPU_PINNED"), stored(TOKENS)], [stored(TOKENS), stored(TOKENS, "CPU_PINNED")])
    ):
        scene = Scene(tmp_path / f"{i}.jsonl")
        watched = scene.claim("doc")
        scene.feed.put(removed(TOKENS, 0, 1))
        words.append(scene.ask("again", watched, usage("again", storage=4), *during))
        scene.observer.close()
    assert words == ["reused", "unexplained"]


def test_a_lost_block_of_a_soft_claim_is_harm_by_name(scene: Scene) -> None:
    """The removal names hashes; the adapter says which claim, and which positions."""
    watched = scene.claim("soft", mode=Mode.SOFT_PRIORITY, priority=3)
    scene.feed.put(removed(TOKENS, 1))
    scene.observer.watch(0.0)
    assert not watched.open
    assert scene.verdict() == "conforming"
    assert '"lost_pos":[[1,2]]' in scene.path.read_text()


def test_a_flush_harms_every_soft_claim(scene: Scene) -> None:
    """AllBlocksCleared names nothing; what was there is known."""
    watched = scene.claim("soft", mode=Mode.SOFT_PRIORITY)
    scene.feed.put(ClearedBlocks())
    scene.observer.watch(0.0)
    assert not watched.open
    assert scene.verdict() == "conforming"


@pytest.mark.parametrize("order", [Order.GAP, Order.RESTART])
def test_a_gap_or_a_restart_leaves_the_trace_inconclusive(scene: Scene, order: Order) -> None:
    """After missed events nothing that was known of the cache holds."""
    watched = scene.claim("doc")
    scene.feed.put(stored(OTHER), order=order)
    assert scene.ask("again", watched, usage("again", device=4)) == "reused"
    scene.observer.release(watched)
    assert scene.verdict() == "inconclusive"


def test_a_block_stored_twice_in_one_tier_is_in_doubt(scene: Scene) -> None:
    """One copy or two: a removal then proves nothing, so the trace is inconclusive."""
    watched = scene.claim("soft", mode=Mode.SOFT_PRIORITY)
    scene.feed.put(stored(TOKENS), removed(TOKENS, 0, 1))
    scene.observer.watch(0.0)
    scene.observer.release(watched)
    assert scene.verdict() == "inconclusive"


@pytest.mark.parametrize("which", [(1,), (1, 1)])
def test_a_copy_that_is_removed_twice_is_in_doubt(scene: Scene, which: tuple[int, ...]) -> None:
    """One removal is a loss by name; a second one of the same copy says that there were more than was told."""
    scene.claim("soft", mode=Mode.SOFT_PRIORITY)
    scene.feed.put(removed(TOKENS, *which))
    scene.observer.watch(0.0)
    assert scene.verdict() == ("conforming" if len(which) == 1 else "inconclusive")


@pytest.mark.parametrize("rank", [0, 1])
def test_another_rank_harms_no_claim(scene: Scene, rank: int) -> None:
    """Each rank has a cache of its own: what another one removes is no loss, and leaves the trace inconclusive."""
    watched = scene.claim("soft", mode=Mode.SOFT_PRIORITY)
    scene.feed.put(removed(TOKENS, 1), rank=rank)
    scene.observer.watch(0.0)
    assert watched.open is (rank == 1)
    assert scene.verdict() == ("inconclusive" if rank else "conforming")


@pytest.mark.parametrize("group", [None, 0, 1])
def test_another_cache_group_harms_no_claim(scene: Scene, group: int | None) -> None:
    """Blocks of several groups have one name; what one group removes may be what another still has."""
    watched = scene.claim("soft", mode=Mode.SOFT_PRIORITY)
    scene.feed.put(msgspec.structs.replace(removed(TOKENS, 1), group=group))
    scene.observer.watch(0.0)
    assert watched.open is (group == 1)
    assert scene.verdict() == ("inconclusive" if group else "conforming")


@pytest.mark.parametrize("group", [None, 0, 1])
def test_blocks_of_another_cache_group_alone_are_in_doubt(scene: Scene, group: int | None) -> None:
    """A prefix that only one group of several has can be used by no request."""
    watched = scene.observer.accept("r", "doc", "owner", TOKENS, mode=Mode.BEST_EFFORT)
    pending = scene.observer.begin("r", TOKENS, watched=watched, first=True)
    scene.feed.put(msgspec.structs.replace(stored(TOKENS), group=group))
    scene.observer.end(pending, usage("r"))
    assert watched is not None
    scene.ask("again", watched, usage("again", device=4))
    scene.observer.release(watched)
    assert scene.verdict() == ("inconclusive" if group else "conforming")


@pytest.mark.parametrize("what", ["two contents", "two names"])
def test_a_name_that_does_not_stand_for_one_content_is_in_doubt(scene: Scene, what: str) -> None:
    """Other tokens under a claimed name, or the claimed tokens under another name (a collision, or another model)."""
    watched = scene.claim("soft", mode=Mode.SOFT_PRIORITY)
    mine = stored(TOKENS)
    if what == "two contents":
        other = msgspec.structs.replace(mine, token_ids=OTHER[:4])
    else:
        other = msgspec.structs.replace(mine, block_hashes=("x.0", "x.1"))
    scene.feed.put(removed(TOKENS, 0, 1) if what == "two contents" else stored(OTHER), other)
    scene.observer.watch(0.0)
    scene.observer.release(watched)
    assert scene.verdict() == "inconclusive"


def test_blocks_of_an_adapter_or_a_picture_are_not_the_claims(scene: Scene) -> None:
    """The same tokens in another namespace are other blocks; only those of the claim's own count as seen."""
    watched = scene.claim("doc")
    scene.feed.put(removed(TOKENS, 0, 1))
    foreign = msgspec.structs.replace(stored(TOKENS), block_hashes=("l.0", "l.1"), namespaces=("lora", "lora"))
    scene.feed.put(foreign)
    assert scene.ask("again", watched, usage("again", device=4), stored(TOKENS)) == "unexplained"
    scene.observer.release(watched)
    assert scene.verdict() == "inconclusive"


def test_two_requests_under_way_are_in_doubt(scene: Scene) -> None:
    """Whose blocks the second one found cannot be told."""
    watched = scene.claim("doc")
    first = scene.observer.begin("first", TOKENS, watched=watched)
    second = scene.observer.begin("second", TOKENS, watched=watched)
    scene.observer.end(first, usage("first", device=4))
    scene.observer.end(second, usage("second", device=4))
    scene.observer.release(watched)
    assert scene.verdict() == "inconclusive"


def test_blocks_that_are_never_told_of_leave_the_claim_open(scene: Scene) -> None:
    """Without events the claim is never called materialized, whatever the answer says."""
    watched = scene.observer.accept("r", "doc", "owner", TOKENS, mode=Mode.BEST_EFFORT)
    pending = scene.observer.begin("r", TOKENS, watched=watched, first=True)
    scene.observer.end(pending, usage("r", device=4))
    assert scene.verdict() == "inconclusive"
    assert '"resident_claim_materialized"' not in scene.path.read_text()


@pytest.mark.parametrize("late", [False, True])
def test_a_claim_is_reused_only_after_all_of_its_blocks_were_told_of(scene: Scene, late: bool) -> None:
    """An event that comes after the first answer is a doubt of the observer, and no broken promise of the server."""
    both = stored(TOKENS)
    first, second = (
        msgspec.structs.replace(
            both,
            block_hashes=both.block_hashes[i : i + 1],
            parent_hash=both.block_hashes[0] if i else None,
            token_ids=TOKENS[i * PAGE : (i + 1) * PAGE],
        )
        for i in (0, 1)
    )
    watched = scene.observer.accept("r", "doc", "owner", TOKENS, mode=Mode.BEST_EFFORT)
    assert watched is not None
    pending = scene.observer.begin("r", TOKENS, watched=watched, first=True)
    scene.feed.put(*((first,) if late else (first, second)))
    scene.observer.end(pending, usage("r"))
    if late:
        scene.feed.put(second)
    assert scene.ask("again", watched, usage("again", device=4)) == "reused"
    scene.observer.release(watched)
    assert scene.verdict() == ("inconclusive" if late else "conforming")


def test_other_tokens_or_another_salt_are_not_the_claims_request(scene: Scene) -> None:
    """A request that names a claim has to be about its tokens, in its namespace."""
    watched = scene.claim("doc")
    with pytest.raises(UsageError, match="not about the tokens"):
        scene.observer.begin("x", OTHER, watched=watched)
    with pytest.raises(UsageError, match="salt"):
        scene.observer.begin("y", TOKENS, watched=watched, cache_salt="tenant-b")


def test_a_refused_claim_is_rejected_by_reason(scene: Scene) -> None:
    """The decision is in the trace, and nothing is promised."""
    refusal = Refusal(reason="priority_inverted", detail="the switch is on")
    assert scene.observer.accept("r", "c", "o", TOKENS, mode=Mode.SOFT_PRIORITY, refusal=refusal) is None
    assert '"resident_claim_rejected"' in scene.path.read_text()


GOOD = {
    "radix_eviction_policy": "priority",
    "enable_priority_scheduling": True,
    "schedule_low_priority_values_first": False,
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"radix_eviction_policy": "lru"}, "eviction_ignores_priority"),
        ({"enable_priority_scheduling": False}, "priority_disabled"),
        ({"schedule_low_priority_values_first": True}, "priority_inverted"),
    ],
)
def test_the_policy_refuses_servers_on_which_the_number_does_not_count(
    change: dict[str, object], reason: str | None
) -> None:
    """One reason for each setting; the order of importance turned round is one of them."""
    found = refuse({**GOOD, **change})
    assert (found.reason if found else None) == reason


@pytest.mark.parametrize("missing", GOOD)
def test_a_setting_that_the_server_does_not_tell_is_refused(missing: str) -> None:
    """What is not known is not assumed."""
    found = refuse({k: v for k, v in GOOD.items() if k != missing})
    assert found is not None and found.reason == "setting_unknown"


def test_an_answer_is_read_by_tier() -> None:
    """The counts of `cached_tokens_details`, and an answer of another shape is an error."""
    body = {
        "output_ids": [5],
        "meta_info": {
            "id": "r",
            "prompt_tokens": 9,
            "finish_reason": {"type": "length"},
            "cached_tokens": 8,
            "cached_tokens_details": {"device": 2, "host": 6},
        },
    }
    assert (usage_of(body).device_tokens, usage_of(body).host_tokens, usage_of(body).storage_tokens) == (2, 6, 0)
    with pytest.raises(Exception, match="answered without"):
        usage_of({"meta_info": {}})
