"""Events in the shape that TensorRT-LLM publishes, made here; no engine was run."""

from __future__ import annotations

from typing import Any

BLOCK = 4
"""Tokens a block."""


def created(event_id: int = 0, blocks: tuple[int, ...] = (8, 4), **envelope: Any) -> dict[str, Any]:
    return {"event_id": event_id, "data": {"type": "created", "num_blocks_per_cache_level": list(blocks)}, **envelope}


def stored(event_id: int, parent: int | None, blocks: dict[int, tuple[int, ...]], **more: Any) -> dict[str, Any]:
    """`blocks` maps hashes to token ids; `level`, `priority` and fields of the envelope by name."""
    level, priority = more.pop("level", 0), more.pop("priority", 35)
    told = [
        {
            "type": "stored_block",
            "block_hash": h,
            "tokens": [{"type": "unique_token", "token_id": t, "token_extra_id": 0} for t in tokens],
            "cache_level": level,
            "priority": priority,
        }
        for h, tokens in blocks.items()
    ]
    return {"event_id": event_id, "data": {"type": "stored", "parent_hash": parent, "blocks": told}, **more}


def removed(event_id: int, *hashes: int, **envelope: Any) -> dict[str, Any]:
    return {"event_id": event_id, "data": {"type": "removed", "block_hashes": list(hashes)}, **envelope}


def moved(event_id: int, block_hash: int, before: int, after: int, **envelope: Any) -> dict[str, Any]:
    level = {"type": "event_diff", "old_value": before, "new_value": after}
    data = {"type": "updated", "block_hash": block_hash, "cache_level": level, "priority": None}
    return {"event_id": event_id, "data": data, **envelope}
