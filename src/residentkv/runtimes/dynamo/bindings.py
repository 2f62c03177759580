"""Dynamo's Python bindings that the study needs; the only module that imports dynamo."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from residentkv.runtimes.dynamo.fleet import BLOCK_TOKENS


def hash_blocks(tokens: Sequence[int]) -> tuple[int, ...]:
    """Return the hash of each whole block's own tokens, as stored events carry it when there is no salt."""
    from dynamo.llm import compute_block_hash_for_seq

    return tuple(compute_block_hash_for_seq(list(tokens), BLOCK_TOKENS))


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """What the selection service says to a reservation, and what it then counts for the worker, in blocks."""

    worker_blocks: int
    asked_blocks: int
    accepted: bool
    counted_blocks: int
    said: str


def reserve(*, worker_blocks: int, asked_blocks: int) -> Reservation:
    """Book a request against a worker that has fewer blocks, in a selection service of this process."""
    from dynamo.llm import SelectionService
    from dynamo.llm.exceptions import SelectionServiceError

    async def ask() -> Reservation:
        service: Any = SelectionService(indexer_threads=1)
        try:
            await service.upsert_worker(
                {
                    "worker_id": 1,
                    "model_name": "study",
                    "endpoint": "http://127.0.0.1:1",
                    "kv_events_endpoint": "tcp://127.0.0.1:1",
                    "block_size": BLOCK_TOKENS,
                    "max_num_batched_tokens": 8192,
                    "total_kv_blocks": worker_blocks,
                }
            )
            asked = {
                "selection_id": "study",
                "worker_id": 1,
                "model_name": "study",
                "token_ids": list(range(asked_blocks * BLOCK_TOKENS)),
            }
            try:
                said, accepted = str(await service.create_reservation(asked)), True
            except (SelectionServiceError, ValueError) as e:
                said, accepted = str(e), False
            loads = service.loads()
            counted = sum(w["potential_decode_blocks"] for group in loads for w in group["loads"])
        finally:
            service.shutdown()
        return Reservation(
            worker_blocks=worker_blocks,
            asked_blocks=asked_blocks,
            accepted=accepted,
            counted_blocks=counted,
            said=said[:300],
        )

    return asyncio.run(ask())
