"""The offloading spec: a second tier of our own, on CPU as on any other device."""

from __future__ import annotations

from vllm.v1.kv_offload.base import CanonicalKVCaches, OffloadingManager, OffloadingWorker
from vllm.v1.kv_offload.config import OffloadingConfig
from vllm.v1.kv_offload.cpu.spec import CPUOffloadingSpec

from residentkv.errors import UsageError
from residentkv.runtimes.vllm import versions
from residentkv.runtimes.vllm.faults import FaultInjector
from residentkv.runtimes.vllm.options import decode_options
from residentkv.runtimes.vllm.private import TierManager
from residentkv.runtimes.vllm.tier import MmapTier
from residentkv.runtimes.vllm.worker import TierWorker


class ResidentOffloadingSpec(CPUOffloadingSpec):
    """Builds the manager (scheduler process) and the worker (worker processes) of the second tier.

    The stock spec refuses to build a worker on a CPU device; only `get_manager` and `get_worker` are replaced.
    """

    def __init__(self, config: OffloadingConfig) -> None:
        super().__init__(config)
        self.options = decode_options(config.extra_config)
        if self.blocks_per_chunk != 1:
            raise UsageError(
                f"kv_connector_extra_config: {self.blocks_per_chunk} blocks a chunk; residentkv keeps one block a row, "
                "so leave out block_size and blocks_per_chunk, or set block_size to the engine's block size"
            )
        self._tier_manager: OffloadingManager | None = None
        self._tier_worker: TierWorker | None = None

    def get_manager(self) -> OffloadingManager:
        """Return the manager; on an untested vLLM it is the stock one."""
        if versions.refusal_for(versions.installed_version()) and not self.options.unsafe_allow_untested_version:
            return super().get_manager()
        if self._tier_manager is None:
            self._tier_manager = TierManager(
                num_chunks=self.num_chunks, enable_events=self.kv_events_config.enable_kv_cache_events
            )
        return self._tier_manager

    def get_worker(self, kv_caches: CanonicalKVCaches) -> OffloadingWorker:
        """Return the worker of this rank."""
        if self._tier_worker is None:
            rank = int(self.config.parallel.rank)
            tier = MmapTier(
                [t.tensor for t in kv_caches.tensors],
                self.num_chunks,
                self.options.tier_dir,
                f"{self.config.engine_id[:8]}-{rank}",
            )
            self._tier_worker = TierWorker(
                tier,
                FaultInjector(self.options.faults_path, rank),
                rank=rank,
                verify=self.options.verify_checksums,
            )
        return self._tier_worker
