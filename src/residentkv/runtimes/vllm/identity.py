"""Who the blocks are: the cache identity as this engine computes it, and the keys of a prompt's blocks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from residentkv.claims.model import CacheIdentity
from residentkv.runtimes.vllm.options import PluginOptions
from residentkv.runtimes.vllm.primary import GROUP_ID_BYTES


class EngineIdentity:
    """What is the same for all requests of one engine; cache salt and LoRA adapter differ a request."""

    def __init__(self, vllm_config: Any, options: PluginOptions, block_tokens: int) -> None:
        model, cache = vllm_config.model_config, vllm_config.cache_config
        dtype = model.dtype if cache.cache_dtype == "auto" else cache.cache_dtype
        self._common = CacheIdentity(
            model=str(model.model),
            model_revision=str(options.model_revision or model.revision or "unrecorded"),
            weights_epoch=options.weights_epoch,
            tokenizer=f"{model.tokenizer}@{model.tokenizer_revision or 'unrecorded'}",
            kv_dtype=str(dtype).removeprefix("torch."),
            kv_layout=str(cache.kv_cache_layout),
            block_size_tokens=block_tokens,
        )
        self._digests: dict[tuple[str | None, str | None], str] = {}

    def digest(self, request: Any) -> str:
        """Return the cache identity of a request's blocks."""
        lora = request.lora_request
        adapter = f"{lora.lora_name}#{lora.lora_int_id}@{lora.lora_path}" if lora is not None else None
        variant = (request.cache_salt, adapter)
        known = self._digests.get(variant)
        if known is None:
            whole = msgspec.structs.replace(self._common, cache_salt=variant[0], lora_adapter=variant[1])
            known = whole.digest()
            if len(self._digests) >= 4096:
                self._digests.clear()
            self._digests[variant] = known
        return known


def block_keys(request: Any, group_id: int, hashes_per_block: int) -> list[tuple[bytes, bytes]]:
    """Return (block hash, tier key) of the full blocks of a request."""
    from vllm.v1.kv_offload.base import make_offload_key  # Here, so that identities can be tested without vLLM.

    hashes = request.block_hashes
    return [
        (bytes(hashes[i]), bytes(make_offload_key(hashes[i], group_id)))
        for i in range(hashes_per_block - 1, len(hashes), hashes_per_block)
    ]


class KeyPositions:
    """Where in its request a tier key lies: its hash says which tokens it ends with, its suffix which group it is of.

    Args:
        hashes_per_block: of each KV cache group; a model with several has keys of all of them in one job.
    """

    def __init__(self, hashes_per_block: Mapping[int, int]) -> None:
        self._hashes_per_block = hashes_per_block
        self._hash_idx: dict[str, dict[bytes, int]] = {}

    def find(self, request_id: str, hashes: Sequence[bytes], keys: Collection[bytes]) -> tuple[int, ...]:
        """Return the logical position of each key, in blocks of its group; `hashes` only grow from call to call."""
        known = self._hash_idx.setdefault(request_id, {})
        known.update({bytes(hashes[i]): i for i in range(len(known), len(hashes))})
        return tuple(
            known[key[:-GROUP_ID_BYTES]] // self._hashes_per_block[int.from_bytes(key[-GROUP_ID_BYTES:], "big")]
            for key in keys
        )

    def forget(self, request_id: str) -> None:
        """The request is over."""
        self._hash_idx.pop(request_id, None)
