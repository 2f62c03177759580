"""The only file that touches private state of vLLM; tested against the versions in `versions.py`.

Each class or function names what it relies on. Everything else in the plugin uses documented extension points.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import OffloadingConnectorMetadata
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.worker import OffloadingConnectorWorker
from vllm.v1.kv_offload.base import (
    LookupResult,
    OffloadingEvent,
    OffloadPolicy,
    PrepareStoreOutput,
    ReqContext,
    RequestOffloadingContext,
)
from vllm.v1.kv_offload.cpu.manager import CPUOffloadingManager
from vllm.v1.kv_offload.cpu.policies.lru import LRUCachePolicy

from residentkv.runtimes.vllm.transfers import ResidentConnectorMetadata, ResidentWorkerMetadata
from residentkv.runtimes.vllm.worker import TierWorker

logger = logging.getLogger("vllm.residentkv")

IDLE_PATIENCE_S = 0.005
"""How long a step that computes nothing waits for a transfer, instead of spinning beside the tier's thread."""

POLICY_MODULE = __name__
POLICY_NAME = "HoldingPolicy"


class HoldingPolicy(LRUCachePolicy):
    """Least recently used first, what soft claims need last, and never a block that an open claim holds.

    Relies on: `LRUCachePolicy.evict` asking `key in protected` only; `_update_recency` making the last key the last
    victim and passing over keys that are not there.
    """

    def __init__(self, cache_capacity: int) -> None:
        super().__init__(cache_capacity)
        self.held: Counter[bytes] = Counter()
        self.last: Callable[[], Collection[bytes]] = tuple
        """What goes only after everything else, the first victim first."""

    def evict(self, n: int, protected: set[bytes]) -> list[tuple[bytes, Any]] | None:
        """Evict exactly n blocks or none at all, sparing `protected` and what claims hold."""
        last = self.last()
        if last:
            found = super().evict(n, _Union(protected, self.held, last))
            if found is not None:
                return found
            self._update_recency(last)
        return super().evict(n, _Union(protected, self.held))


class _Union:
    """Membership in any of several sets, without building their union."""

    def __init__(self, *sets: Collection[bytes]) -> None:
        self._sets = sets

    def __contains__(self, key: object) -> bool:
        return any(key in s for s in self._sets)


class TierManager(CPUOffloadingManager):
    """The stock manager of the second tier, able to drop blocks, to fail stores and to hold what claims need.

    Relies on: `_policy`, `_free_chunk`, `_get_load_store_spec`, `_num_evictable_cache_chunks`, `_num_chunks`, `events`;
    `_policy.chunks`; `complete_load` leaving the chunk in place; `complete_store(success=False)` removing chunks that
    are not ready.
    """

    def __init__(self, *, num_chunks: int, enable_events: bool) -> None:
        super().__init__(
            num_chunks=num_chunks,
            cache_policy=POLICY_NAME,
            cache_policy_module_path=POLICY_MODULE,
            enable_events=enable_events,
        )
        self.on_dropped: Callable[[list[bytes]], None] = lambda keys: None
        self.on_stored: Callable[[list[tuple[int, bytes]]], None] = lambda copies: None
        self.on_gone: Callable[[list[bytes]], None] = lambda keys: None
        self.concerns: Callable[[bytes], bool] = lambda key: False
        self.keeps_kv: Callable[[str], bool] = lambda request_id: True
        self.needs_own_store: Callable[[str, bytes], bool] = lambda request_id, key: False
        self._failed: set[bytes] = set()
        self._doomed: set[bytes] = set()
        self._loads: dict[str, list[bytes]] = {}
        self._stores: dict[str, list[list[bytes]]] = {}

    # --- CopyView ---

    def in_tier(self, key: bytes) -> bool:
        """Tell whether the tier would give this block back now."""
        chunk = self._policy.get(key)
        return chunk is not None and chunk.is_ready and key not in self._doomed

    def kept(self, key: bytes) -> bool:
        """Tell whether a copy is in the tier or on its way there."""
        return self._policy.get(key) is not None and key not in self._doomed

    def tier_rows(self) -> int:
        """Return how many blocks the tier can hold."""
        return int(self._num_chunks)

    def hold(self, keys: Collection[bytes]) -> None:
        """Keep these blocks from eviction once they are stored."""
        self._policy.held.update(keys)

    def let_go(self, keys: Collection[bytes]) -> None:
        """Undo one `hold`."""
        held = self._policy.held
        held.subtract(keys)
        for key in keys:
            if held[key] <= 0:
                del held[key]

    def held_with(self, keys: Collection[bytes]) -> int:
        """Return how many blocks would be held if these were held as well."""
        return len(self._policy.held) + sum(1 for key in set(keys) if key not in self._policy.held)

    def rank_last(self, last: Callable[[], Collection[bytes]]) -> None:
        """Evict what this returns only after everything else, the first of it first."""
        self._policy.last = last

    # --- dropping ---

    def mark_failed(self, keys: Collection[bytes]) -> None:
        """Treat these blocks as failed when their job is completed."""
        self._failed.update(keys)

    def drop(self, keys: Collection[bytes], *, silently: bool = False) -> list[bytes]:
        """Forget blocks so that they are a miss and can be stored again; one that is being read goes after the read."""
        gone: list[bytes] = []
        for key in keys:
            chunk = self._policy.get(key)
            if chunk is None or not chunk.is_ready:
                continue
            if chunk.ref_cnt > 0:
                self._doomed.add(key)
                continue
            self._doomed.discard(key)
            self._policy.remove(key)
            self._free_chunk(chunk)
            self._num_evictable_cache_chunks -= 1
            gone.append(key)
        if gone:
            self.on_gone(gone)
        if gone and self.events is not None:
            self.events.append(OffloadingEvent(keys=gone, medium=self.medium, removed=True))
        if not silently:
            self._tell_dropped(gone)
        return gone

    def _tell_dropped(self, keys: list[bytes]) -> None:
        """Tell of copies that some claim holds or needs; those of others concern nobody."""
        needed = [key for key in keys if key in self._policy.held or self.concerns(key)]
        if needed:
            self.on_dropped(needed)

    # --- the stock interface ---

    def on_new_request(self, req_context: ReqContext) -> RequestOffloadingContext:
        """Ask that all blocks of a request be offered for storing, also those that it hit.

        What is there already is left out again in `prepare_store`. Stock code offers a block that it planned to load
        never again, so one whose load failed would be computed and not stored.
        """
        super().on_new_request(req_context)
        return RequestOffloadingContext(policy=OffloadPolicy.REQUEST_LEVEL)

    def lookup(self, key: bytes, req_context: ReqContext) -> LookupResult:
        """A block that is about to be dropped is a miss."""
        return LookupResult.MISS if key in self._doomed else super().lookup(key, req_context)

    def prepare_load(self, keys: Collection[bytes], req_context: ReqContext) -> Any:
        """Remember the order of the blocks for the job that follows."""
        self._loads[req_context.req_id] = list(keys)
        return super().prepare_load(keys, req_context)

    def take_load(self, request_id: str) -> list[bytes]:
        """Return the blocks of the load that was just prepared for a request."""
        return self._loads.pop(request_id)

    def prepare_store(self, keys: Collection[bytes], req_context: ReqContext) -> PrepareStoreOutput | None:
        """Prepare a store; what the request's claim has not stored itself is stored once more, in its name."""
        request_id = req_context.req_id
        if not self.keeps_kv(request_id):
            keys = []
        again = [key for key in keys if self._idle(key) and self.needs_own_store(request_id, key)]
        output = super().prepare_store([key for key in keys if key not in set(again)], req_context)
        if output is not None and again:
            # Dropped only now that the rest has room: their own rows are free then, so nobody's copy is lost for a no.
            self.drop(again, silently=True)
            output = self._join(list(keys), output, super().prepare_store(again, req_context))
            self._tell_dropped([key for key in again if not self.kept(key)])
        if output is not None and output.evicted_keys:
            self.on_gone(list(output.evicted_keys))
            self._tell_dropped(list(output.evicted_keys))
        if output is not None and output.keys_to_store:
            self._stores.setdefault(request_id, []).append(list(output.keys_to_store))
        return output

    def _join(
        self, order: list[bytes], first: PrepareStoreOutput, more: PrepareStoreOutput | None
    ) -> PrepareStoreOutput:
        """Make one store of two, its blocks in `order`, as the connector lists what it copies from."""
        if more is None:
            return first
        wanted = {*first.keys_to_store, *more.keys_to_store}
        joined = [key for key in order if key in wanted]
        return PrepareStoreOutput(
            keys_to_store=joined,
            store_spec=self._get_load_store_spec(joined, [self._policy.get(key) for key in joined]),
            evicted_keys=[*first.evicted_keys, *more.evicted_keys],
        )

    def _idle(self, key: bytes) -> bool:
        chunk = self._policy.get(key)
        return chunk is not None and chunk.ref_cnt == 0

    def take_store(self, request_id: str) -> list[bytes]:
        """Return the blocks of the oldest store that was prepared for a request and not taken yet."""
        stores = self._stores[request_id]
        keys = stores.pop(0)
        if not stores:
            del self._stores[request_id]
        return keys

    def complete_load(self, keys: Collection[bytes], req_context: ReqContext) -> None:
        """Complete a load and drop what failed in it."""
        super().complete_load(keys, req_context)
        self._doomed.update(key for key in keys if key in self._failed)
        self._failed.difference_update(keys)
        self.drop([key for key in keys if key in self._doomed])

    def complete_store(self, keys: Collection[bytes], req_context: ReqContext, success: bool = True) -> None:
        """Complete a store; stock code calls every store a success, here a failed one is not."""
        failed = [key for key in keys if key in self._failed] if success else []
        self._failed.difference_update(failed)
        if failed:
            super().complete_store(failed, req_context, success=False)
            self._tell_dropped(failed)
        stored = [key for key in keys if key not in set(failed)]
        super().complete_store(stored, req_context, success=success)
        self.on_stored([(int(self._policy.get(key).chunk_id), key) for key in stored if self.in_tier(key)])

    def reset_cache(self) -> None:
        """Forget all blocks; claims keep their hold on names."""
        self.on_gone(list(self._policy.chunks))
        super().reset_cache()
        self._failed.clear()
        self._doomed.clear()
        self._loads.clear()
        self._stores.clear()


class ResidentConnectorWorker(OffloadingConnectorWorker):
    """The stock worker side, with failed jobs reported instead of asserted away.

    Relies on: `_connector_worker_meta`, `_load_jobs`; `handle_preemptions` and `start_kv_transfers` submitting to
    `self.worker`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connector_worker_meta: ResidentWorkerMetadata = ResidentWorkerMetadata()
        self.failed_recving: set[str] = set()
        self._idle = False

    def _tier(self) -> TierWorker:
        if not isinstance(self.worker, TierWorker):
            raise TypeError(f"the connector's worker is {type(self.worker).__name__}, expected TierWorker")
        return self.worker

    def handle_preemptions(self, kv_connector_metadata: OffloadingConnectorMetadata) -> None:
        """Learn whose the new jobs are, before any of them is submitted."""
        tier = self._tier()
        if isinstance(kv_connector_metadata, ResidentConnectorMetadata):
            tier.take_notes(kv_connector_metadata.notes)
            self._idle = kv_connector_metadata.idle
        tier.tick()
        super().handle_preemptions(kv_connector_metadata)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str], set[str]]:
        """Report jobs that are over; a failed load also names its request as a failed receive."""
        tier = self._tier()
        meta = self._connector_worker_meta
        finished_recving: set[str] = set()
        for done in tier.get_finished(patience_s=IDLE_PATIENCE_S if self._idle else 0.0):
            job_id = done.job_id
            request_id = self._load_jobs.pop(job_id, None)
            if done.success and done.transfer_size is not None and done.transfer_time is not None:
                stats = meta.transfer_stats.store if request_id is None else meta.transfer_stats.load
                stats.record(done.transfer_size, done.transfer_time)
            meta.mark_completed(job_id)
            if request_id is not None:
                finished_recving.add(request_id)
                if not done.success:
                    self.failed_recving.add(request_id)
        meta.results.extend(tier.take_results())
        return set(), finished_recving

    def take_failed_recving(self) -> set[str]:
        """Return the requests whose load failed since the last call."""
        failed, self.failed_recving = self.failed_recving, set()
        return failed

    def build_connector_worker_meta(self) -> ResidentWorkerMetadata | None:
        """Return what became of jobs since the last call."""
        meta = self._connector_worker_meta
        if not meta.completed_jobs:
            return None
        self._connector_worker_meta = ResidentWorkerMetadata()
        return meta


class FailedReceivePolicy:
    """Scheduler mixin: one request may be recomputed while another one, in the same step, is failed.

    Relies on: `Scheduler._handle_failed_recving` applying `recompute_kv_load_failures` to all requests it is given, and
    `update_from_output` failing what it returns when that flag is off. vLLM 0.32 leaves a request that it takes back
    among `_inflight_prefills`, whose remaining blocks are kept free: one that needs more than half of the cache would
    wait for itself for ever when its next lookup loads again.
    """

    recompute_kv_load_failures: bool
    requests: dict[str, Any]
    _inflight_prefills: set[Any]
    recomputing: Collection[str] = frozenset()
    """Requests whose failed load, in the output that is being taken in, does not end them."""

    def adopt_engine_policy(self) -> bool:
        """Take over the engine's policy, so that it can be decided a request at a time; return what it was."""
        engine_recomputes = self.recompute_kv_load_failures
        self.recompute_kv_load_failures = False
        self.recomputing = set()
        return engine_recomputes

    def _handle_failed_recving(self, failed_req_ids: set[str]) -> set[str]:
        again = {request_id for request_id in failed_req_ids if request_id in self.recomputing}
        failed: set[str] = super()._handle_failed_recving(failed_req_ids - again)  # type: ignore[misc]
        if again:
            self.recompute_kv_load_failures = True
            try:
                failed |= super()._handle_failed_recving(again)  # type: ignore[misc]
            finally:
                self.recompute_kv_load_failures = False
            self._inflight_prefills.difference_update(r for r in map(self.requests.get, again) if r is not None)
        return failed


def freed_when_preempted(scheduler: Any) -> list[str]:
    """Return the running requests whose blocks are free as soon as they are preempted, not a step later.

    Relies on: `Scheduler.running` being what a reset preempts; `_request_blocks_can_be_freed`.
    """
    return [r.request_id for r in scheduler.running if scheduler._request_blocks_can_be_freed(r)]
