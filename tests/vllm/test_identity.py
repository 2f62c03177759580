"""Cache salt and LoRA adapter are part of the identity, as is everything else that makes blocks interchangeable."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from residentkv.runtimes.vllm.identity import EngineIdentity, KeyPositions
from residentkv.runtimes.vllm.options import PluginOptions

CONFIG = SimpleNamespace(
    model_config=SimpleNamespace(
        model="m", revision=None, tokenizer="t", tokenizer_revision=None, dtype="torch.bfloat16"
    ),
    cache_config=SimpleNamespace(cache_dtype="auto", kv_cache_layout="HND"),
)


def request(salt: str | None = None, lora: tuple[str, int, str] | None = None) -> Any:
    adapter = SimpleNamespace(lora_name=lora[0], lora_int_id=lora[1], lora_path=lora[2]) if lora else None
    return SimpleNamespace(cache_salt=salt, lora_request=adapter)


def test_salt_and_adapter_are_part_of_the_identity() -> None:
    """Each of them by itself, the adapter by name, number and place; no salt shows in the identity."""
    identity = EngineIdentity(CONFIG, PluginOptions(), 16)
    variants = [
        request(),
        request("salt-of-a"),
        request("salt-of-b"),
        request(None, ("a", 1, "/a")),
        request(None, ("a", 2, "/a")),
        request(None, ("b", 1, "/a")),
        request(None, ("a", 1, "/b")),
        request("salt-of-a", ("a", 1, "/a")),
    ]
    digests = [identity.digest(r) for r in variants]
    assert len(set(digests)) == len(variants)
    assert digests == [identity.digest(r) for r in variants]
    assert not any("salt" in d for d in digests)
    assert EngineIdentity(CONFIG, PluginOptions(weights_epoch=1), 16).digest(request()) not in digests


def test_a_key_lies_where_its_hash_is_in_blocks_of_its_own_group() -> None:
    """Keys of several groups in one job each have a position; what a request computes later is found as well."""
    groups = [number.to_bytes(4, "big") for number in range(2)]
    hashes = [bytes([i]) * 32 for i in range(6)]
    positions = KeyPositions({0: 1, 1: 2})
    first = [hashes[0] + groups[0], hashes[2] + groups[0], hashes[1] + groups[1], hashes[3] + groups[1]]
    assert positions.find("r", hashes[:4], first) == (0, 2, 0, 1)
    assert positions.find("r", hashes, [hashes[5] + groups[1], hashes[4] + groups[0]]) == (2, 4)
    positions.forget("r")
    assert positions.find("r", hashes[3:], [hashes[3] + groups[0]]) == (0,)
