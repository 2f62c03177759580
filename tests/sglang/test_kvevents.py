"""KV events as vLLM, SGLang and Dynamo publish them: decoding, numbers, gaps, restarts, replay over real sockets."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import zmq

from residentkv.errors import InputError, NoInputError
from residentkv.runtimes.kvevents import (
    END_OF_REPLAY,
    Arrival,
    ClearedBlocks,
    KvEventFeed,
    Order,
    RemovedBlocks,
    SequenceWatch,
    StoredBlocks,
    decode_batch,
)


def pack(*events: Any, time_s: float = 1.5, rank: int | None = 0) -> bytes:
    return msgspec.msgpack.encode([time_s, list(events), rank])


def stored(*hashes: Any, parent: Any = None, size: int = 2, **more: Any) -> dict[str, Any]:
    tokens = list(range(size * len(hashes)))
    return {
        "type": "BlockStored",
        "block_hashes": list(hashes),
        "parent_block_hash": parent,
        "token_ids": tokens,
        "block_size": size,
        "lora_id": None,
        **more,
    }


def test_maps_and_arrays_say_the_same() -> None:
    """The events of vLLM 0.32 and SGLang 0.5.23 (maps) and of older versions (arrays) decode to the same."""
    as_map = decode_batch(3, pack(stored(7, -1, medium="GPU"), {"type": "BlockRemoved", "block_hashes": [7]}))
    as_array = decode_batch(
        3, pack(["BlockStored", [7, -1], None, [0, 1, 2, 3], 2, None, "GPU"], ["BlockRemoved", [7], None])
    )
    assert as_map == as_array
    first, second = as_map.events
    assert isinstance(first, StoredBlocks) and isinstance(second, RemovedBlocks)
    assert first.block_hashes == ("0000000000000007", "f" * 16)
    assert second.medium == "GPU"
    assert decode_batch(0, pack({"type": "AllBlocksCleared"}, ["AllBlocksCleared"])).events == (
        ClearedBlocks(),
        ClearedBlocks(),
    )


def test_names_and_attributions_are_kept() -> None:
    """Bytes are named by their digits; salt, session, adapter and parent come through; unknown fields do no harm."""
    event = stored(b"\x01\xff", parent=9, cache_salt="s", session_id="t", lora_name="l", medium="CPU_PINNED", later=1)
    (one,) = decode_batch(0, pack(event)).events
    assert isinstance(one, StoredBlocks)
    assert (one.block_hashes, one.parent_hash) == (("01ff",), "0000000000000009")
    assert (one.cache_salt, one.session_id, one.lora_name, one.medium) == ("s", "t", "l", "CPU_PINNED")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        pack(stored(1))[:-2],
        pack(["BlockMoved", [1]]),
        pack({"type": "BlockStored"}),
        pack(stored(1, size=2) | {"token_ids": [1]}),
        pack(stored(1) | {"block_size": 0, "token_ids": []}),
        pack(stored(1, 2, extra_keys=[None])),
        pack(["BlockStored", [7], None, [0, 1], 2, None, "GPU", "a field of another version"]),
        pack(["BlockRemoved", [7], "GPU", 1]),
        pack(3),
    ],
)
def test_what_is_no_batch_of_these_events_is_an_error(payload: bytes) -> None:
    """Nothing of a batch is used when a part of it cannot be read; a later good batch is then a gap."""
    watch = SequenceWatch()
    with pytest.raises(InputError, match="batch 0"):
        watch.note(0, payload)
    assert watch.note(1, pack(stored(1))).order is Order.GAP


def test_what_else_a_hash_was_made_of_is_kept_apart() -> None:
    """vLLM tells salt, adapter and pictures as extra keys of each block; an adapter comes by name or by number."""
    keys = [["tenant-a"], None]
    (salted,) = decode_batch(0, pack(stored(1, 2, extra_keys=keys))).events
    (named,) = decode_batch(0, pack(stored(1, lora_name="l"))).events
    (numbered,) = decode_batch(0, pack(["BlockStored", [7], None, [0, 1], 2, 3, "GPU"])).events
    assert isinstance(salted, StoredBlocks) and isinstance(named, StoredBlocks) and isinstance(numbered, StoredBlocks)
    assert salted.namespaces[0] is not None and salted.namespaces[1] is None
    assert len({salted.namespaces[0], *named.namespaces, *numbered.namespaces, None}) == 4


def test_numbers_tell_next_gap_repetition_and_restart() -> None:
    """The same number with the same bytes is a repetition; with other bytes it is another incarnation."""
    watch = SequenceWatch()
    one, two = pack(stored(1)), pack(stored(2))
    assert [watch.note(0, one).order, watch.note(1, two).order] == [Order.NEXT, Order.NEXT]
    gap = watch.note(4, one)
    assert (gap.order, gap.missing) == (Order.GAP, (2, 4))
    assert watch.note(1, two).order is Order.REPEATED
    again = watch.note(0, two)
    assert (again.order, again.missing) == (Order.RESTART, None)
    assert watch.expected == 1
    late = watch.note(5, two)
    assert (late.order, late.missing) == (Order.GAP, (1, 5))


Connect = Callable[..., KvEventFeed]


class Publisher:
    """A publisher with a replay socket; it publishes when a subscriber is there."""

    def __init__(self, folder: str) -> None:
        self.events, self.replay = f"ipc://{folder}/e", f"ipc://{folder}/r"
        self.kept: list[tuple[int, bytes]] = []
        self._context = zmq.Context()
        self._pub = self._context.socket(zmq.XPUB)
        self._pub.bind(self.events)
        self._router = self._context.socket(zmq.ROUTER)
        self._router.bind(self.replay)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def wait_for_subscriber(self) -> None:
        assert self._pub.poll(5000)
        self._pub.recv()

    def publish(self, seq: int, payload: bytes, *, keep: bool = True) -> None:
        if keep:
            self.kept.append((seq, payload))
        self.send([b"", seq.to_bytes(8, "big"), payload])

    def send(self, frames: list[bytes]) -> None:
        self._pub.send_multipart(frames)

    def _serve(self) -> None:
        while not self._over.is_set():
            if self._router.poll(20):
                client, _, start = self._router.recv_multipart()
                for seq, payload in self.kept:
                    if seq >= int.from_bytes(start, "big"):
                        self._router.send_multipart([client, b"", b"", seq.to_bytes(8, "big"), payload])
                self._router.send_multipart([client, b"", b"", END_OF_REPLAY, b""])

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._pub.close(linger=0)
        self._router.close(linger=0)
        self._context.term()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with tempfile.TemporaryDirectory(prefix="kv-") as folder:
        one = Publisher(folder)
        yield one
        one.close()


@pytest.fixture
def connect(publisher: Publisher) -> Iterator[Connect]:
    """Feeds of the publisher that are closed whatever a test finds."""
    feeds: list[KvEventFeed] = []

    def open_feed(*, replays: bool = True) -> KvEventFeed:
        feeds.append(KvEventFeed(publisher.events, publisher.replay if replays else None))
        publisher.wait_for_subscriber()
        return feeds[-1]

    yield open_feed
    for feed in feeds:
        feed.close()


def test_a_late_subscriber_gets_what_it_missed(publisher: Publisher) -> None:
    """Batches from before the subscription come from the replay socket, in order and once."""
    for seq in range(3):
        publisher.publish(seq, pack(stored(seq + 1)))
    feed = KvEventFeed(publisher.events, publisher.replay)
    publisher.wait_for_subscriber()
    publisher.publish(3, pack(stored(4)))
    arrivals = feed.read(5.0)
    publisher.publish(4, pack(stored(5)))
    arrivals += feed.read(5.0)
    assert [(a.order, a.batch.seq) for a in arrivals] == [(Order.NEXT, seq) for seq in range(5)]
    assert feed.catch_up() == []
    feed.close()


def test_what_the_publisher_no_longer_has_stays_a_gap(publisher: Publisher) -> None:
    """A batch that is neither heard nor replayed is told as missing, before the one that follows it."""
    publisher.publish(0, pack(stored(1)), keep=False)
    publisher.publish(1, pack(stored(2)))
    feed = KvEventFeed(publisher.events, publisher.replay)
    publisher.wait_for_subscriber()
    publisher.publish(2, pack(stored(3)))
    found = [(a.order, a.batch.seq, a.missing) for a in feed.read(5.0)]
    assert found == [(Order.GAP, 1, (0, 1)), (Order.NEXT, 2, None)]
    feed.close()


def test_catching_up_without_a_replay_socket_is_an_error(publisher: Publisher) -> None:
    """Nobody is told that nothing was missed when nobody could be asked."""
    feed = KvEventFeed(publisher.events)
    with pytest.raises(NoInputError, match="no replay socket"):
        feed.catch_up()
    feed.close()


def test_a_replay_of_another_incarnation_does_not_fill_a_gap(publisher: Publisher, connect: Connect) -> None:
    """The publisher started anew and is past the number that was expected; its own batches are no continuation."""
    feed = connect()
    for seq in range(3):
        publisher.publish(seq, pack(stored(seq + 1)))
    assert [a.order for a in read_all(feed, 3)] == [Order.NEXT] * 3
    publisher.kept = [(seq, pack(stored(seq + 100), time_s=9.0)) for seq in range(5)]
    publisher.publish(5, pack(stored(105), time_s=9.0))
    assert next(a.order for a in feed.read(5.0)) is Order.RESTART


@pytest.mark.parametrize("kept", [0, 2, 3])
def test_what_cannot_be_joined_to_what_was_seen_stays_a_gap(publisher: Publisher, connect: Connect, kept: int) -> None:
    """The replay no longer has the last batch that was seen, so nobody knows whose batches the next ones are."""
    feed = connect()
    for seq in range(kept):
        publisher.publish(seq, pack(stored(seq + 1)), keep=False)
    assert len(read_all(feed, kept)) == kept
    publisher.kept = [(seq, pack(stored(seq + 1))) for seq in range(kept, 5)]
    publisher.publish(5, pack(stored(6)))
    orders = [a.order for a in feed.read(5.0)]
    assert orders == [Order.GAP if kept else Order.NEXT] + [Order.NEXT] * (5 - kept)


def test_catching_up_compares_what_was_seen(publisher: Publisher, connect: Connect) -> None:
    """A publisher that started anew and went on with exactly the expected number is found out when it is asked."""
    feed = connect()
    for seq in range(2):
        publisher.publish(seq, pack(stored(seq + 1)))
    publisher.kept = [(seq, pack(stored(seq + 100))) for seq in range(2)]
    publisher.publish(2, pack(stored(102)))
    assert [a.order for a in read_all(feed, 3)] == [Order.NEXT] * 3, "nothing shows it yet"
    assert next(a.order for a in feed.catch_up()) is Order.RESTART
    publisher.kept = []
    with pytest.raises(NoInputError, match="started anew"):
        feed.catch_up()
    publisher.publish(3, pack(stored(103)))
    assert [a.order for a in feed.read(5.0)] == [Order.GAP]


@pytest.mark.parametrize("junk", [[b"", END_OF_REPLAY, pack()], [b"a frame"], [b"", b"short", pack()]])
def test_after_junk_the_next_batch_is_a_gap(publisher: Publisher, connect: Connect, junk: list[bytes]) -> None:
    """What was read before it in the same call is lost to the caller, who has to be told."""
    feed = connect(replays=False)
    publisher.publish(0, pack(stored(1)))
    publisher.send(junk)
    with pytest.raises(InputError):
        read_all(feed, 2)
    publisher.publish(1, pack(stored(2)))
    assert [a.order for a in feed.read(5.0)] == [Order.GAP]


def test_numbers_in_the_other_byte_order_are_gaps(publisher: Publisher, connect: Connect) -> None:
    """Nothing that a publisher counts little-endian passes for a continuation."""
    feed = connect(replays=False)
    for seq in (1, 2, 3):
        publisher.send([b"", seq.to_bytes(8, "little"), pack(stored(seq))])
    assert {a.order for a in read_all(feed, 3)} <= {Order.GAP, Order.RESTART}


def read_all(feed: KvEventFeed, batches: int) -> list[Arrival]:
    out: list[Arrival] = []
    for _ in range(50):
        if len(out) >= batches:
            break
        out += feed.read(0.1)
    return out
