"""One KVCR instance with a pool and a framework buffer of real bytes; the only module that imports kvcr.

Every call waits for its operation: KVCR makes progress only while somebody polls.
"""

from __future__ import annotations

import ctypes
import mmap
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from residentkv.errors import ResidentKVError
from residentkv.runtimes.kvcr.content import BLOCK_BYTES

POLL_S = 0.001
PATIENCE_S = 20.0
"""How long an operation may stay without an answer before the node gives up; KVCR itself times out after a second."""

Inventory = Callable[[tuple[bytes, ...], str, bool], None]
"""Receives (keys, tier, removed) for every change of what KVCR holds."""


class NodeFailed(ResidentKVError):
    """KVCR did not answer an operation at all."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What KVCR says about one key of an operation: a word, and a handle when the block is claimed for the caller."""

    word: str
    handle: int | None
    slot: int | None


class Memory:
    """An anonymous mapping of whole blocks with a fixed address."""

    def __init__(self, blocks: int) -> None:
        self._map = mmap.mmap(-1, blocks * BLOCK_BYTES)
        self._view = ctypes.c_char.from_buffer(self._map)
        self.address = ctypes.addressof(self._view)
        self.bytes = blocks * BLOCK_BYTES

    def write(self, index: int, data: bytes) -> None:
        """Put one block of bytes at an index."""
        if len(data) != BLOCK_BYTES:
            raise ValueError(f"found {len(data)} bytes, expected {BLOCK_BYTES}")
        self._map[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES] = data

    def read(self, index: int) -> bytes:
        """Return the block of bytes at an index."""
        return self._map[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES]


class _Keys:
    """KVCR's key adapter: keys of the study are 8 bytes, hints carry them as numbers."""

    def encode(self, framework_key: object) -> bytes:
        return int(str(framework_key)).to_bytes(8, "big")

    def decode(self, key: bytes) -> int:
        return int.from_bytes(key, "big")


class Node:
    """A KVCR with `slots` blocks of its own and `buffer_blocks` of framework memory.

    `ports` are those of its control channel, where others reach it, and of NIXL.
    """

    def __init__(
        self, name: str, *, slots: int, buffer_blocks: int, ports: tuple[int, int], inventory: Inventory | None = None
    ) -> None:
        from kvcr import KVCR, KVCRBindings
        from kvcr.config import KVCRBackendConfigs, KVCRConfig, LocalDramOptions
        from kvcr.control_channels import ZmqPeerControlChannel
        from kvcr.types import MemoryRef, RegionDescriptor

        self.name = name
        self.slots = slots
        self.pool = Memory(slots)
        self.buffer = Memory(buffer_blocks)
        control_port, nixl_port = ports
        self.endpoint = f"tcp://127.0.0.1:{control_port}"
        self._ref = MemoryRef
        self._hints = 0
        self._done: dict[int, Mapping[bytes, Any]] = {}

        def tell(event: Any) -> None:
            if inventory is not None:
                inventory(tuple(event.keys), event.tier.value, event.removed)

        self._kvcr = KVCR(
            KVCRConfig(
                nixl_agent_name=name,
                pool_layouts=[("", BLOCK_BYTES)],
                nixl_listen_port=nixl_port,
            ),
            KVCRBindings(
                request_pin=lambda keys: 0,
                poll_pin_results=list,
                release_pin=lambda handle: True,
                framework_control=ZmqPeerControlChannel("127.0.0.1", control_port, "127.0.0.1"),
                key_adapter=_Keys(),
                inventory_sink=tell,
            ),
            KVCRBackendConfigs(
                framework_regions=[RegionDescriptor(addr=self.buffer.address, count=buffer_blocks, size=BLOCK_BYTES)],
                local_dram=LocalDramOptions(pools=[("", self.pool.address, self.pool.bytes)]),
            ),
        )

    def pump(self) -> None:
        """Let KVCR make progress and collect what it finished."""
        for handle, results in self._kvcr.poll_completed():
            self._done[handle] = results

    def deposit(self, blocks: Mapping[bytes, int], *, no_evict: bool) -> dict[bytes, Outcome]:
        """Copy blocks (key to buffer index) into the pool; with `no_evict` each is claimed for the caller."""
        return self._wait(self._kvcr.deposit(self._refs(blocks), no_evict=no_evict))

    def fetch(self, keys: Collection[bytes], *, source: str | None = None) -> dict[bytes, Outcome]:
        """Claim blocks that are in the pool, or that the node at `source` has; each is claimed for the caller."""
        request = self._hint(keys, source)
        return self._wait(self._kvcr.fetch(list(keys), request_id=request))

    def deliver(self, blocks: Mapping[bytes, int], *, source: str | None = None) -> dict[bytes, Outcome]:
        """Copy blocks from the pool, or from the node at `source`, to buffer indexes."""
        request = self._hint(blocks, source)
        return self._wait(self._kvcr.deliver(self._refs(blocks), request_id=request))

    def release(self, handles: Sequence[int]) -> dict[int, bool]:
        """Give handles back; false is KVCR's word for a handle that it does not know."""
        found = dict(self._kvcr.release(list(handles)))
        self.pump()
        return {int(h): bool(ok) for h, ok in found.items()}

    def query(self, keys: Sequence[bytes]) -> list[tuple[str, str | None]]:
        """Return (status, tier) of each key as KVCR sees it now."""
        return [(s.value, t.value if t is not None else None) for s, t in self._kvcr.query(list(keys))]

    def close(self) -> None:
        """Stop; the memory stays mapped until the process ends."""
        self._kvcr.close()

    def _refs(self, blocks: Mapping[bytes, int]) -> dict[bytes, list[Any]]:
        return {key: [self._ref(end_point_name=self.name, element_index=index)] for key, index in blocks.items()}

    def _hint(self, keys: Collection[bytes], source: str | None) -> str | None:
        if source is None:
            return None
        self._hints += 1
        request = f"{self.name}-{self._hints}"
        self._kvcr.submit_hint(
            {
                "protocol_version": "0.1",
                "message_id": request,
                "actions": [
                    {
                        "action_id": request,
                        "action_type": "kv.fetch",
                        "action_version": "1.0",
                        "payload": {
                            "source_control_endpoint": source,
                            "block_hashes": [int.from_bytes(key, "big") for key in keys],
                            "mode": "copy",
                        },
                    }
                ],
            },
            request,
        )
        return request

    def _wait(self, operation: int) -> dict[bytes, Outcome]:
        until = time.monotonic() + PATIENCE_S
        while operation not in self._done:
            if time.monotonic() > until:
                raise NodeFailed(f"KVCR {self.name}: operation {operation} has no result after {PATIENCE_S:.0f} s")
            self.pump()
            time.sleep(POLL_S)
        return {
            bytes(key): Outcome(
                word=entry.status.value,
                handle=entry.release_handle,
                slot=entry.descriptors[0].element_index if entry.descriptors else None,
            )
            for key, entry in self._done.pop(operation).items()
        }
