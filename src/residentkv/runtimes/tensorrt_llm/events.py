"""The dicts of TensorRT-LLM's KV cache events, decoded strictly.

Every event has a running `event_id`, counted from 0 for each rank and incarnation. What is not of the published shape
is an error, never a guess. Source: `KVCacheEventSerializer` in `tensorrt_llm/_utils.py` at ed53795b (ids, window, rank,
level, priority); `docs/source/features/kvcache.md` at 0076e939 (salt, multimodal keys, hash algorithm, layer group).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from residentkv.errors import InputError

WireHash = int | str
_MIN_HASH, _MAX_HASH = -(1 << 63), (1 << 64) - 1


class _Wire(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    pass


class _Token(_Wire, frozen=True, tag="unique_token"):
    token_id: int
    token_extra_id: int = 0


class _MultimodalKey(_Wire, frozen=True, tag="mm_key"):
    hash: str
    start_offset: int
    uuid: str | None = None


class _StoredBlock(_Wire, frozen=True, tag="stored_block"):
    block_hash: WireHash
    tokens: tuple[_Token, ...]
    cache_level: int
    priority: int
    lora_id: int | None = None
    cache_salt: str | None = None
    mm_keys: tuple[_MultimodalKey, ...] = ()


class _Change(_Wire, frozen=True, tag="event_diff"):
    old_value: int
    new_value: int


class _Created(_Wire, frozen=True, tag="created"):
    num_blocks_per_cache_level: tuple[int, ...]


class _Stored(_Wire, frozen=True, tag="stored"):
    parent_hash: WireHash | None
    blocks: tuple[_StoredBlock, ...]
    lora_name: str | None = None


class _Removed(_Wire, frozen=True, tag="removed"):
    block_hashes: tuple[WireHash, ...]


class _Updated(_Wire, frozen=True, tag="updated"):
    block_hash: WireHash
    cache_level: _Change | None
    priority: _Change | None


class _Event(_Wire, frozen=True):
    event_id: int
    data: _Created | _Stored | _Removed | _Updated
    window_size: int | None = None
    attention_dp_rank: int | None = None
    hash_algo: str | None = None
    layer_group_id: int | None = None


class PoolCreated(msgspec.Struct, frozen=True, kw_only=True):
    """The pool begins empty with this many blocks at each level; level 0 is the GPU's."""

    blocks: tuple[int, ...]


class BlockEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A block that can be found now: its name, the tokens that it holds, where it lies and how important it is.

    `namespace` is what else the block was made of but its salt (adapter, further ids of tokens, pictures), as an opaque
    text, None for nothing.
    """

    name: str
    token_ids: tuple[int, ...]
    level: int
    priority: int
    cache_salt: str | None
    namespace: str | None


class ChainStored(msgspec.Struct, frozen=True, kw_only=True):
    """Blocks that follow each other; the first follows `parent`, or begins a sequence when there is none."""

    parent: str | None
    blocks: tuple[BlockEntry, ...]


class BlocksRemoved(msgspec.Struct, frozen=True, kw_only=True):
    """Blocks that can no longer be found. The event gives no reason, and may join several removals."""

    names: tuple[str, ...]


class BlockUpdated(msgspec.Struct, frozen=True, kw_only=True):
    """A block changed its level, its priority, or both: (before, after), None when unchanged."""

    name: str
    level: tuple[int, int] | None
    priority: tuple[int, int] | None


class EngineEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of one rank; `rank` is 0 where there is no attention data parallelism.

    `window` is the attention window of the layers that it is about, in tokens, None where events do not tell it.
    """

    event_id: int
    rank: int
    window: int | None
    data: PoolCreated | ChainStored | BlocksRemoved | BlockUpdated


def decode_event(raw: Mapping[str, Any], *, source: str = "") -> EngineEvent:
    """Decode one event as `LLM.get_kv_cache_events()` hands it out.

    Args:
        raw: the dict.
        source: how to name where it came from in an error.

    Raises:
        InputError: it is not of the published shape.
    """
    try:
        return _understand(msgspec.convert(raw, _Event, strict=True))
    except (msgspec.ValidationError, ValueError) as e:
        shown = raw.get("event_id") if isinstance(raw, Mapping) else None
        message = f"event {shown}: {e}; expected a KV cache event of TensorRT-LLM"
        raise InputError(message, path=source) from None


def decode_events(text: str | bytes, *, source: str = "") -> list[EngineEvent]:
    """Decode a JSON array of events, as the endpoint `/kv_cache_events` answers.

    Raises:
        InputError: it is not JSON, a key occurs twice, or an event is not of the published shape.
    """
    try:
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as e:
        raise InputError(f"not JSON events: {e}", path=source) from None
    if not isinstance(found, list):
        raise InputError(f"found {type(found).__name__}, expected an array of events", path=source)
    return [decode_event(raw, source=source) for raw in found]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError(f"a key occurs twice among {', '.join(k for k, _ in pairs)[:80]}")
    return out


def _refuse(word: str) -> Any:
    raise ValueError(f"found {word}, expected a number")


def _understand(event: _Event) -> EngineEvent:
    if event.event_id < 0 or (event.attention_dp_rank or 0) < 0:
        raise ValueError("a negative id or rank")
    window = event.window_size
    data = event.data
    known: PoolCreated | ChainStored | BlocksRemoved | BlockUpdated
    if isinstance(data, _Created):
        known = PoolCreated(blocks=data.num_blocks_per_cache_level)
    elif isinstance(data, _Stored):
        parent = None if data.parent_hash is None else name_block(data.parent_hash, window)
        known = ChainStored(parent=parent, blocks=tuple(_entry(b, window, data.lora_name) for b in data.blocks))
    elif isinstance(data, _Removed):
        known = BlocksRemoved(names=tuple(name_block(h, window) for h in data.block_hashes))
    else:
        known = BlockUpdated(
            name=name_block(data.block_hash, window), level=_pair(data.cache_level), priority=_pair(data.priority)
        )
        _check_levels(known.level or ())
    return EngineEvent(event_id=event.event_id, rank=event.attention_dp_rank or 0, window=window, data=known)


def _entry(block: _StoredBlock, window: int | None, lora_name: str | None) -> BlockEntry:
    _check_levels((block.cache_level,))
    return BlockEntry(
        name=name_block(block.block_hash, window),
        token_ids=tuple(t.token_id for t in block.tokens),
        level=block.cache_level,
        priority=block.priority,
        cache_salt=block.cache_salt,
        namespace=_namespace_of(block, lora_name),
    )


def _check_levels(levels: Iterable[int]) -> None:
    for level in levels:
        if level < 0:
            raise ValueError(f"level {level}")


def _namespace_of(block: _StoredBlock, lora_name: str | None) -> str | None:
    extra_ids = tuple(t.token_extra_id for t in block.tokens)
    if lora_name is None and block.lora_id is None and not any(extra_ids) and not block.mm_keys:
        return None
    return msgspec.json.encode((lora_name, block.lora_id, extra_ids, block.mm_keys)).decode()


def _pair(change: _Change | None) -> tuple[int, int] | None:
    return None if change is None else (change.old_value, change.new_value)


def name_block(value: WireHash, window_size: int | None) -> str:
    """Return the name of a block: 16 hexadecimal digits of its hash, and its attention window where events tell it.

    Blocks of the same tokens in layers with another window are other blocks.
    """
    if isinstance(value, int):
        if not _MIN_HASH <= value <= _MAX_HASH:
            raise ValueError(f"a hash of more than 64 bits: {value}")
        value = f"{value & _MAX_HASH:016x}"
    elif not value:
        raise ValueError("an empty hash")
    return value if window_size is None else f"{value}@{window_size}"
