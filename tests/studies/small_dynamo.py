"""A Dynamo of a few lines for tests of the adapter: two workers, events as MessagePack, answers that may lie."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from residentkv.runtimes.dynamo.client import Response
from residentkv.runtimes.dynamo.fleet import BLOCK_TOKENS
from residentkv.runtimes.dynamo.kvevents import TOPIC, Batch, decode_message


def hash_blocks(tokens: Sequence[int]) -> tuple[int, ...]:
    """The hash of each whole block's own tokens."""
    ends = range(BLOCK_TOKENS, len(tokens) + 1, BLOCK_TOKENS)
    return tuple(number(str(tokens[end - BLOCK_TOKENS : end]).encode()) for end in ends)


def number(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def message(worker_id: int, event_id: int, data: Any, *, publisher: int = 7, sequence: int = 0) -> list[bytes]:
    """One message of the event plane, in the form of Dynamo 1.6.1."""
    event = {"event_id": event_id, "data": data, "dp_rank": 0}
    routed = {"worker_id": worker_id, "storage_tier": "device", "residency_domain": "worker", "event": event}
    body = msgspec.msgpack.encode(
        {
            "publisher_id": publisher,
            "sequence": sequence,
            "published_at": 0,
            "topic": TOPIC.decode(),
            "payload": msgspec.msgpack.encode([routed]),
        }
    )
    header = bytes([1]) + len(body).to_bytes(4, "big")
    return [TOPIC, publisher.to_bytes(8, "big"), sequence.to_bytes(8, "big"), header + body]


class SmallDynamo:
    """Frontend, listener and workers in one.

    `says` overrides the worker that answers name, `counts` the cached tokens that they tell, and `silent` answers tell
    none; `elsewhere` serves requests of a named worker at another one.
    """

    def __init__(self, workers: Sequence[int] = (11, 22)) -> None:
        self.held: dict[int, dict[int, None]] = {w: {} for w in workers}
        self.next_id = dict.fromkeys(workers, 1)
        self.dead: set[int] = set()
        self.busy: set[int] = set()
        self.muted = False
        self.says: int | None = None
        self.counts: int | None = None
        self.silent = False
        self.elsewhere: int | None = None
        self._messages: list[list[bytes]] = []

    def workers(self) -> list[int]:
        return sorted(self.held)

    def is_alive(self, worker_id: int) -> bool:
        return worker_id in self.held and worker_id not in self.dead

    def complete(
        self, tokens: Sequence[int], *, worker_id: int | None = None, max_tokens: int = 2, **more: Any
    ) -> Response:
        target = worker_id if worker_id is not None else self.workers()[0]
        if self.elsewhere is not None and len(tokens) > 2 * BLOCK_TOKENS:
            target = self.elsewhere
        if target in self.dead | self.busy or target not in self.held:
            return Response(status=500, error="Failed to generate completions")
        held, parent, cached, fresh = self.held[target], None, 0, []
        for local in hash_blocks(tokens):
            block = number(f"{parent}:{local}".encode()) if parent is not None else local
            if block in held and not fresh:
                cached += 1
            elif block not in held:
                fresh.append((parent, block, local))
                held[block] = None
            parent = block
        told = None if self.silent else cached * BLOCK_TOKENS if self.counts is None else self.counts
        if fresh:
            blocks = [{"block_hash": b, "tokens_hash": t, "mm_extra_info": None} for _, b, t in fresh]
            self.publish(target, {"stored": {"parent_hash": fresh[0][0], "start_position": None, "blocks": blocks}})
        return Response(
            status=200,
            worker_id=self.says if self.says is not None else target,
            prompt_tokens=len(tokens),
            output_tokens=max_tokens,
            cached_tokens=told,
            finish_reason="length",
        )

    def evict(self, worker_id: int, blocks: Sequence[int]) -> None:
        for block in blocks:
            del self.held[worker_id][block]
        self.publish(worker_id, {"removed": {"block_hashes": list(blocks)}})

    def restart(self, worker_id: int) -> None:
        """Start again under the same id, with nothing, and with event numbers from the beginning."""
        self.held[worker_id].clear()
        self.next_id[worker_id] = 1

    def publish(self, worker_id: int, data: Any) -> None:
        if not self.muted:
            self._messages.append(message(worker_id, self.next_id[worker_id], data))
        self.next_id[worker_id] += 1

    def read(self, wait_s: float = 0.0) -> list[Batch]:
        messages, self._messages = self._messages, []
        return [decode_message(frames) for frames in messages]
