"""KV cache events as vLLM, SGLang and Dynamo publish them: decoding, sequence numbers, replay.

The three share one wire format: three ZMQ frames (topic, number of the batch as 8 bytes, msgpack), a batch being an
array of time, events and rank. An event is a map with its name under `type`, or, in older versions, an array that
begins with its name. Numbers count from 0 in each incarnation of a publisher; a replay socket hands out what it still
has. Source: `vllm/distributed/kv_events.py` of vLLM 0.32.0, `sglang/srt/disaggregation/kv_events.py` of SGLang 0.5.23.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import msgspec

from residentkv.errors import InputError, NoInputError

SEQ_BYTES = 8
END_OF_REPLAY = (-1).to_bytes(SEQ_BYTES, "big", signed=True)
MAX_REMEMBERED = 10_000
"""Batches whose digests are kept, to tell one that is repeated from one of a new incarnation."""

WireHash = int | bytes


class _Stored(msgspec.Struct, kw_only=False):
    block_hashes: list[WireHash]
    parent_block_hash: WireHash | None
    token_ids: list[Any]
    block_size: int
    lora_id: int | str | None = None
    medium: str | None = None
    lora_name: str | None = None
    cache_salt: str | None = None
    session_id: str | None = None
    group_idx: int | None = None
    extra_keys: list[Any] | None = None


class _StoredMap(_Stored, tag="BlockStored"):
    pass


class _StoredArray(msgspec.Struct, tag="BlockStored", array_like=True, forbid_unknown_fields=True):
    block_hashes: list[WireHash]
    parent_block_hash: WireHash | None
    token_ids: list[Any]
    block_size: int
    lora_id: int | str | None = None
    medium: str | None = None


class _RemovedMap(msgspec.Struct, tag="BlockRemoved"):
    block_hashes: list[WireHash]
    medium: str | None = None
    group_idx: int | None = None


class _RemovedArray(msgspec.Struct, tag="BlockRemoved", array_like=True, forbid_unknown_fields=True):
    block_hashes: list[WireHash]
    medium: str | None = None


class _ClearedMap(msgspec.Struct, tag="AllBlocksCleared"):
    pass


class _ClearedArray(msgspec.Struct, tag="AllBlocksCleared", array_like=True):
    pass


class _Batch(msgspec.Struct, array_like=True):
    time_s: float
    events: list[msgspec.Raw]
    rank: int | None = None


_BATCH = msgspec.msgpack.Decoder(_Batch)
_MAP = msgspec.msgpack.Decoder(_StoredMap | _RemovedMap | _ClearedMap)
_ARRAY = msgspec.msgpack.Decoder(_StoredArray | _RemovedArray | _ClearedArray)
DEFAULT_MEDIUM = "GPU"


class StoredBlocks(msgspec.Struct, frozen=True, kw_only=True):
    """Blocks that a tier says it has now; each follows the one before it, the first follows `parent_hash`.

    Hashes are names: an integer as 16 hexadecimal digits, bytes as hexadecimal digits. `token_ids` has `block_size`
    tokens a block. `medium` is the publisher's word for the tier. `session_id` attributes and owns nothing.
    `namespaces` has for each block what else its hash was made of (adapter, images, salt), as an opaque text, None for
    nothing.
    """

    block_hashes: tuple[str, ...]
    parent_hash: str | None
    token_ids: tuple[Any, ...]
    block_size: int
    medium: str
    lora_name: str | None = None
    cache_salt: str | None = None
    session_id: str | None = None
    group: int | None = None
    namespaces: tuple[str | None, ...] = ()


class RemovedBlocks(msgspec.Struct, frozen=True, kw_only=True):
    """Blocks of which a tier no longer has a copy."""

    block_hashes: tuple[str, ...]
    medium: str
    group: int | None = None


class ClearedBlocks(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the publisher had told of is gone; nothing is named."""


KvEvent = StoredBlocks | RemovedBlocks | ClearedBlocks


class KvBatch(msgspec.Struct, frozen=True, kw_only=True):
    """One numbered batch; `time_s` is of the publisher's wall clock, `rank` its data-parallel rank."""

    seq: int
    time_s: float
    rank: int | None
    events: tuple[KvEvent, ...]


def name_hash(value: WireHash) -> str:
    """Return the name of a block hash: 16 hexadecimal digits for an integer, of either sign, else its bytes in hex."""
    if isinstance(value, int):
        return f"{value & 0xFFFF_FFFF_FFFF_FFFF:016x}"
    return value.hex()


def decode_batch(seq: int, payload: bytes, *, source: str = "") -> KvBatch:
    """Decode the msgpack of one batch.

    Args:
        seq: the number from its frame.
        payload: the third frame.
        source: how the publisher is named in an error.

    Raises:
        InputError: it is not a batch of these events; nothing of it is used.
    """
    try:
        batch = _BATCH.decode(payload)
        events = tuple(_event_of(bytes(raw)) for raw in batch.events)
    except (msgspec.MsgspecError, ValueError) as e:
        raise InputError(
            f"batch {seq}: {e}; expected the KV events of vLLM, SGLang or Dynamo in msgpack", path=source
        ) from None
    return KvBatch(seq=seq, time_s=batch.time_s, rank=batch.rank, events=events)


def _event_of(raw: bytes) -> KvEvent:
    first = raw[0] if raw else 0
    is_array = 0x90 <= first <= 0x9F or first in (0xDC, 0xDD)
    event = _ARRAY.decode(raw) if is_array else _MAP.decode(raw)
    if isinstance(event, _ClearedMap | _ClearedArray):
        return ClearedBlocks()
    hashes = tuple(name_hash(h) for h in event.block_hashes)
    if isinstance(event, _RemovedMap | _RemovedArray):
        group = event.group_idx if isinstance(event, _RemovedMap) else None
        return RemovedBlocks(block_hashes=hashes, medium=event.medium or DEFAULT_MEDIUM, group=group)
    if event.block_size <= 0 or len(event.token_ids) != event.block_size * len(hashes):
        raise ValueError(f"{len(hashes)} blocks of {event.block_size} tokens carry {len(event.token_ids)} tokens")
    parent = None if event.parent_block_hash is None else name_hash(event.parent_block_hash)
    extra = event if isinstance(event, _StoredMap) else None
    return StoredBlocks(
        block_hashes=hashes,
        parent_hash=parent,
        token_ids=tuple(tuple(t) if isinstance(t, list) else t for t in event.token_ids),
        block_size=event.block_size,
        medium=event.medium or DEFAULT_MEDIUM,
        lora_name=extra.lora_name if extra else None,
        cache_salt=extra.cache_salt if extra else None,
        session_id=extra.session_id if extra else None,
        group=extra.group_idx if extra else None,
        namespaces=_namespaces_of(event, extra.extra_keys if extra else None),
    )


def _namespaces_of(event: _StoredMap | _StoredArray, keys: list[Any] | None) -> tuple[str | None, ...]:
    """Return the namespace of each block; the salt that has a field of its own is not in it."""
    if keys is not None and len(keys) != len(event.block_hashes):
        raise ValueError(f"{len(event.block_hashes)} blocks carry {len(keys)} extra keys")
    lora = event.lora_id if not isinstance(event, _StoredMap) or event.lora_name is None else event.lora_name
    of_all = None if lora is None else f"lora={lora!r}"
    return tuple(
        of_all if not key else f"{of_all} {msgspec.msgpack.encode(key).hex()}"
        for key in (keys if keys is not None else [None] * len(event.block_hashes))
    )


class Order(StrEnum):
    """How a batch follows those before it."""

    NEXT = "next"
    REPEATED = "repeated"
    GAP = "gap"
    RESTART = "restart"


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A batch and how it follows; `missing` is the half-open range of numbers that were never seen before it.

    After `gap` and `restart` nothing that was known of the cache holds any more. A repeated batch says nothing new.
    """

    order: Order
    batch: KvBatch
    missing: tuple[int, int] | None = None


class SequenceWatch:
    """Follows the numbers of one publisher; pure.

    A number that was seen before is repeated when the bytes are the same, and the sign of a new incarnation when they
    are not. Limit: a publisher that restarts and next sends exactly the number that was expected is noticed only when
    it is asked for numbers that were seen (`KvEventFeed.catch_up`).
    """

    def __init__(self) -> None:
        self.expected = 0
        self._digests: OrderedDict[int, bytes] = OrderedDict()
        self._is_lost = False

    @property
    def oldest(self) -> int:
        """The first number whose bytes are still known, or the next one when there is none."""
        return next(iter(self._digests), self.expected)

    def lose(self) -> None:
        """Say that something may be missing before whatever comes next, which then is a gap."""
        self._is_lost = True

    def note(self, seq: int, payload: bytes, *, source: str = "") -> Arrival:
        """Enter a batch as it came.

        Raises:
            InputError: its payload cannot be decoded; its number counts as not seen.
        """
        batch = decode_batch(seq, payload, source=source)
        digest = hashlib.blake2b(payload, digest_size=16).digest()
        if seq >= self.expected:
            missing = (self.expected, seq) if seq > self.expected else None
            order = Order.GAP if missing or self._is_lost else Order.NEXT
            self._enter(seq, digest)
            return Arrival(order=order, batch=batch, missing=missing)
        if self._digests.get(seq) == digest:
            return Arrival(order=Order.REPEATED, batch=batch)
        self._digests.clear()
        self._enter(seq, digest)
        return Arrival(order=Order.RESTART, batch=batch, missing=(0, seq) if seq else None)

    def _enter(self, seq: int, digest: bytes) -> None:
        self.expected = seq + 1
        self._is_lost = False
        self._digests[seq] = digest
        while len(self._digests) > MAX_REMEMBERED:
            self._digests.popitem(last=False)


class KvEventFeed:
    """Subscribes to a publisher and asks for what was missed; needs the package pyzmq.

    Not for several threads. `endpoint` and `replay_endpoint` are addresses to connect to.
    """

    def __init__(self, endpoint: str, replay_endpoint: str | None = None, *, topic: str = "") -> None:
        self._zmq = _import_zmq()
        self._context = self._zmq.Context()
        self._endpoint = endpoint
        self._replay_endpoint = replay_endpoint
        self._watch = SequenceWatch()
        self._socket = self._context.socket(self._zmq.SUB)
        self._socket.setsockopt(self._zmq.LINGER, 0)
        self._socket.setsockopt(self._zmq.RCVHWM, 0)
        self._socket.connect(endpoint)
        self._socket.setsockopt(self._zmq.SUBSCRIBE, topic.encode())

    def read(self, wait_s: float) -> list[Arrival]:
        """Return what has come, in order; wait for the first at most `wait_s`.

        A gap is filled from the replay socket when there is one; what it no longer has stays a gap. What it says is
        believed only together with the last batch that was seen before, so that another incarnation is a restart.

        Raises:
            InputError: something came that is no batch of KV events; what came with it is lost, so that the next
                batch is a gap.
        """
        out: list[Arrival] = []
        wait_ms = max(0, int(wait_s * 1000))
        try:
            while self._socket.poll(0 if out else wait_ms):
                seq, payload = _frames(self._socket.recv_multipart(), self._endpoint)
                if seq > self._watch.expected:
                    out.extend(self._replay(max(0, self._watch.expected - 1), seq))
                out.append(self._watch.note(seq, payload, source=self._endpoint))
        except InputError:
            self._watch.lose()
            raise
        return [a for a in out if a.order is not Order.REPEATED]

    def catch_up(self, wait_s: float = 5.0) -> list[Arrival]:
        """Ask the replay socket for everything, also without having seen a gap, and compare it with what was seen.

        Raises:
            InputError: something came that is no batch of KV events.
            NoInputError: there is no replay socket, it does not answer, or it has nothing of what was seen. After an
                error the next batch is a gap.
        """
        if self._replay_endpoint is None:
            raise NoInputError(f"{self._endpoint}: the publisher has no replay socket; name replay_endpoint")
        try:
            found = list(self._replay(self._watch.oldest, None, wait_s=wait_s))
        except (InputError, NoInputError):
            self._watch.lose()
            raise
        return [a for a in found if a.order is not Order.REPEATED]

    def close(self) -> None:
        """Close the sockets."""
        self._socket.close(linger=0)
        self._context.term()

    def _replay(self, start: int, end: int | None, wait_s: float = 5.0) -> Iterable[Arrival]:
        """Note what the replay socket has from `start` on; without the last one seen, what follows it is a gap."""
        if self._replay_endpoint is None:
            return []
        last = self._watch.expected - 1
        is_joined = last < 0
        socket = self._context.socket(self._zmq.DEALER)
        out: list[Arrival] = []
        try:
            socket.setsockopt(self._zmq.LINGER, 0)
            socket.connect(self._replay_endpoint)
            socket.send_multipart([b"", start.to_bytes(SEQ_BYTES, "big")])
            while socket.poll(int(wait_s * 1000)):
                frames = socket.recv_multipart()[1:]
                if frames[-2:-1] == [END_OF_REPLAY]:
                    if end is None and not is_joined and all(a.order is not Order.RESTART for a in out):
                        raise NoInputError(
                            f"{self._replay_endpoint}: no batch {last}, which was seen; the publisher started anew, or "
                            "keeps too few for a replay"
                        )
                    return out
                seq, payload = _frames(frames, self._replay_endpoint)
                if end is None or seq < end:
                    if seq > last and not is_joined:
                        self._watch.lose()
                    is_joined = is_joined or seq >= last
                    out.append(self._watch.note(seq, payload, source=self._replay_endpoint))
        finally:
            socket.close(linger=0)
        if end is None:
            raise NoInputError(f"{self._replay_endpoint}: no end of the replay within {wait_s} s; is the publisher up?")
        return out


def _frames(frames: list[bytes], source: str) -> tuple[int, bytes]:
    """Return number and payload of a message, which has a topic before them or not."""
    if len(frames) not in (2, 3) or len(frames[-2]) != SEQ_BYTES:
        raise InputError(f"found {len(frames)} frames, expected topic, number and payload", path=source)
    seq = int.from_bytes(frames[-2], "big", signed=True)
    if seq < 0:
        raise InputError(f"found the number {seq}, expected one from 0", path=source)
    return seq, frames[-1]


def _import_zmq() -> Any:
    try:
        import zmq
    except ImportError:
        raise NoInputError(
            "reading KV events needs the package pyzmq; install it with 'pip install residentkv[events]'"
        ) from None
    return zmq
