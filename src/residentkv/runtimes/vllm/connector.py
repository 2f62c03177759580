"""The connector: it tells the residency what the engine does, and the engine what the residency wants."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1 import KVConnectorRole
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorTransferResults
from vllm.distributed.kv_transfer.kv_connector.v1.offloading_connector import OffloadingConnector

from residentkv.claims.params import CLAIM_PARAM
from residentkv.runtimes.vllm import versions
from residentkv.runtimes.vllm.active import Lookup
from residentkv.runtimes.vllm.admission import Door
from residentkv.runtimes.vllm.claimbook import ClaimBook
from residentkv.runtimes.vllm.control import Control
from residentkv.runtimes.vllm.copies import Copies
from residentkv.runtimes.vllm.desk import Desk, open_desk
from residentkv.runtimes.vllm.eventlog import EventLog
from residentkv.runtimes.vllm.faults import UNREADABLE, FaultInjector
from residentkv.runtimes.vllm.hints import params_with_hints
from residentkv.runtimes.vllm.identity import EngineIdentity, KeyPositions, block_keys
from residentkv.runtimes.vllm.intake import KEEP_PARAM, RequestFacts
from residentkv.runtimes.vllm.jobs import JobPart, OpenJob
from residentkv.runtimes.vllm.options import Mechanism, decode_options
from residentkv.runtimes.vllm.preference import Preference
from residentkv.runtimes.vllm.primary import GROUP_ID_BYTES, PrimaryTier
from residentkv.runtimes.vllm.private import ResidentConnectorWorker, TierManager
from residentkv.runtimes.vllm.residency import Residency
from residentkv.runtimes.vllm.tracepath import TraceLock, path_of_engine, source_of_engine
from residentkv.runtimes.vllm.transfers import JobNote, JobResult, ResidentConnectorMetadata
from residentkv.runtimes.vllm.worker import CHECKSUM_MISMATCH

logger = logging.getLogger("vllm.residentkv")

NO_TIME_TO_SHUT_DOWN = (
    "residentkv: with --shutdown-timeout 0 a server kills its engine as soon as it is told to stop, so the event log "
    "ends without its last line and its audit is inconclusive; start the server with --shutdown-timeout 30"
)


class ResidentOffloadingConnector(OffloadingConnector):
    """`OffloadingConnector` with accepted claims; on an untested vLLM version it only declines them."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        options = decode_options(vllm_config.kv_transfer_config.kv_connector_extra_config)
        version = versions.installed_version()
        self.untested = None if options.unsafe_allow_untested_version else versions.refusal_for(version)
        self.residency: Residency | None = None
        self.guard = threading.RLock()
        if self.untested is not None:
            logger.error("%s", self.untested)
        if role == KVConnectorRole.WORKER:
            stock: Any = self.connector_worker
            if self.untested is None:
                self.connector_worker: Any = ResidentConnectorWorker(stock.spec, vllm_config, kv_cache_config)
            return
        self._workers = int(vllm_config.parallel_config.world_size)
        self._begin(vllm_config, kv_cache_config, options, version)

    def _begin(self, vllm_config: Any, kv_cache_config: Any, options: Any, version: str) -> None:
        """Set up the scheduler's side."""
        engine = int(vllm_config.parallel_config.data_parallel_index)
        self._log = EventLog(
            runtime_version=versions.release_of(version),
            epoch=options.epoch,
            max_bytes=options.trace_max_bytes,
            source=source_of_engine(engine),
        )
        self._trace_lock: TraceLock | None = None
        self._log.stands_in = options.stands_in
        if options.trace_path is not None:
            path = path_of_engine(options.trace_path, engine)
            self._trace_lock = TraceLock(path)
            self._log.open(path, options.run_id)
            if vllm_config.shutdown_timeout == 0:
                logger.warning("%s", NO_TIME_TO_SHUT_DOWN)
        self._silent: set[str] = set()
        self._replies: dict[str, dict[str, Any]] = {}
        self._requests: dict[str, Any] = {}
        self._preempted: Collection[str] = ()
        manager = self.scheduler.manager
        if not isinstance(manager, TierManager):
            return
        groups = self.scheduler.config.kv_group_configs
        self._group_id = kv_cache_config.prefix_cacheable_group_ids[0]
        self._block_tokens = int(groups[0].tokens_per_block)
        self._hashes_per_block = int(groups[0].hashes_per_chunk)
        self._positions = KeyPositions({int(g.group_idx): int(g.hashes_per_chunk) for g in groups})
        self._identity = EngineIdentity(vllm_config, options, self._block_tokens)
        self._manager = manager
        self._lookahead_tokens = int(vllm_config.num_lookahead_tokens)
        self._max_model_tokens = int(vllm_config.model_config.max_model_len)
        self._ranks = str(vllm_config.scheduler_config.policy) == "priority"
        primary = PrimaryTier(self._group_id, int(kv_cache_config.num_blocks) - 1)
        primary.excludes_victims = options.keeps(Mechanism.VICTIM_EXCLUSION)
        self._copies = Copies(self._log, manager, primary)
        book = ClaimBook(self._log, self._copies, usable_blocks=primary.usable_blocks, policy=options.arbiter_policy())
        book.enforces_expiry = options.keeps(Mechanism.EXPIRY_ENFORCEMENT)
        book.excuses_first = options.keeps(Mechanism.RELEASE_BEFORE_LOSS)
        self._preference = Preference(book, primary, ranks=options.keeps(Mechanism.EVICTION_PREFERENCE))
        door = Door(book, primary, checks=options.keeps(Mechanism.FEASIBILITY_CHECK))
        book.active_beside = door.active_beside
        of_all = len(kv_cache_config.kv_cache_groups)
        supported = of_all == 1 and groups[0].sliding_window_size_in_chunks is None
        door.stands_open = not supported
        if not vllm_config.cache_config.enable_prefix_caching:
            book.refuses_all = ("prefix_caching_off", "without prefix caching no block can be read again")
        elif not supported:
            book.refuses_all = ("layout_unsupported", f"{of_all} KV cache groups; one of full attention is needed")
        else:
            book.refuses_all = ("scheduler_missing", "the engine runs without residentkv's scheduler class")
        self.residency = Residency(book, door, restore_attempts=options.restore_attempts)
        self.control = Control(self.residency, self._log, enabled=options.control)
        self._faults = FaultInjector(options.faults_path)
        manager.on_dropped = self.residency.copies_dropped
        manager.needs_own_store = self.residency.needs_own_store
        manager.keeps_kv = self.residency.keeps_kv
        manager.rank_last(self._preference.tier_order)
        manager.concerns = lambda key: book.needs(key[:-GROUP_ID_BYTES])
        self.desk: Desk = open_desk(book, self.guard, options, engine)

    # --- called by the scheduler class ---

    def attach_scheduler(self, *, engine_recomputes: bool) -> None:
        """The scheduler class is in place, so outcomes can be enforced: claims may be accepted from now on."""
        if self.residency is None:
            return
        self.residency.adopt_engine_policy(recomputes=engine_recomputes)
        refused = self.residency.book.refuses_all
        if refused is not None and refused[0] == "scheduler_missing":
            self.residency.book.refuses_all = None

    def begin_step(self) -> None:
        """Once a step, before anything is scheduled: terms end, faults of the tier's index strike."""
        if self.residency is None:
            return
        book = self.residency.book
        book.expire_due()
        self.give_back_pins()
        self._faults.refresh()
        if self._faults.unreadable is not None and book.refuses_all is None:
            book.refuses_all = (UNREADABLE, self._faults.unreadable)
        elif self._faults.unreadable is None and book.refuses_all is not None and book.refuses_all[0] == UNREADABLE:
            book.refuses_all = None
        for fault in self._faults.take("lose"):
            for track in book:
                if fault.claim_id in (None, track.claim.claim_id):
                    spans = fault.positions or ((0, track.object_blocks),)
                    self._manager.drop([k for lo, hi in spans for k in track.keys[lo:hi]], silently=True)

    def begin_scheduling(self, step_tokens: int, preempted: Collection[str]) -> None:
        """Blocks are going to be handed out, for at most so many tokens: those of soft claims last.

        `preempted` are the requests that lost their blocks since the last step.
        """
        self._preempted = preempted
        if self.residency is not None and self.residency.book.soft:
            self._preference.before_step(self.residency.door.may_take_blocks(-(-step_tokens // self._block_tokens)))

    def give_back_pins(self) -> None:
        """Blocks of claims that have ended are anybody's from now on."""
        self._copies.primary.settle()

    def before_reset(self, *, preempted: Collection[str], tier: bool) -> None:
        """The primary tier is going to be emptied, unless others than the preempted requests use blocks of it."""
        if self.residency is not None and not self._copies.primary.in_use(but_for=preempted):
            self.residency.before_reset(primary=True, tier=tier)
            self.give_back_pins()

    def _tell_scheduled(self, request_ids: Iterable[str]) -> None:
        """Blocks were handed out to these requests: tell what came and went, and who lost by it."""
        if self.residency is not None:
            known, per_block = self._requests, self._hashes_per_block
            lost = self._copies.scheduled(
                [(i, (r := known[i]).num_preemptions, len(r.block_hashes) // per_block) for i in request_ids]
            )
            if lost:
                self.residency.primary_lost(lost)

    def take_results(self, results: list[JobResult]) -> list[OpenJob]:
        """Take in what workers report, before the engine does; return the jobs that are over."""
        if self.residency is None:
            return []
        over = self.residency.transfers(
            JobPart(
                job_id=r.job_id,
                worker=r.worker,
                failed=r.failed,
                bytes=r.bytes,
                reason=r.reason,
                damaged=r.reason == CHECKSUM_MISMATCH,
                start_ns=r.start_ns,
                end_ns=r.end_ns,
            )
            for r in results
        )
        for job in over:
            self._manager.mark_failed(job.drop)
        return over

    def take_reply(self, request_id: str) -> dict[str, Any] | None:
        """Return what a client is told whose request the engine ends without asking the connector for an answer."""
        return self._replies.pop(request_id, None)

    # --- the stock interface, scheduler side ---

    def bind_kv_cache_manager(self, kv_cache_manager: Any) -> None:
        """Learn where the primary tier keeps its blocks."""
        super().bind_kv_cache_manager(kv_cache_manager)
        if self.residency is not None:
            self._copies.bind(kv_cache_manager)

    def on_new_request(self, request: Any) -> None:
        """Decide about the request's claim, then let the stock connector see the request."""
        given = request.kv_transfer_params
        params = params_with_hints(given if isinstance(given, dict) else {}, request.kv_hints)
        if self.residency is None:
            self._decline(request, params)
        elif self.control.wants(params):
            self._silent.add(request.request_id)
            self._requests[request.request_id] = request
            self.control.begin(params)
        else:
            self._requests[request.request_id] = request
            self.residency.request_new(self._facts(request, params))
            self.desk.told(params, self.residency.reply_of(request.request_id))
        super().on_new_request(request)

    def _decline(self, request: Any, params: dict[str, Any]) -> None:
        """On an untested version: say no, and nothing more."""
        if CLAIM_PARAM in params:
            logger.warning("request %s: claim rejected: %s", request.request_id, self.untested)

    def _facts(self, request: Any, params: dict[str, Any]) -> RequestFacts:
        pairs = block_keys(request, self._group_id, self._hashes_per_block)
        unreadable = None
        if request.skip_reading_prefix_cache:
            unreadable = "the request does not read the prefix cache (prompt log probabilities)"
        elif params.get("max_load_tokens") is not None or params.get("kv_load_tiers") is not None:
            unreadable = "the request limits what is loaded for it (max_load_tokens, kv_load_tiers)"
        plain = request.prompt_token_ids is not None and not request.mm_features and request.prompt_embeds is None
        return RequestFacts(
            request_id=request.request_id,
            params=params,
            token_ids=request.prompt_token_ids if plain else None,
            prompt_tokens=request.num_prompt_tokens,
            block_tokens=self._block_tokens,
            hashes=[h for h, _ in pairs],
            keys=[k for _, k in pairs],
            cache_identity=self._identity.digest(request),
            unreadable=unreadable,
            barred=self.desk.barred(params),
            max_tokens=self._most_tokens(request),
            keeps_kv=params.get(KEEP_PARAM) is not False,
            rank=(request.priority, request.arrival_time) if self._ranks else (),
        )

    def _most_tokens(self, request: Any) -> int:
        """Return how many tokens a request may be given; a streaming session goes on to wherever the model ends."""
        room = int(self._max_model_tokens - request.num_prompt_tokens + 1)
        return room if request.resumable else min(int(request.max_tokens) + self._lookahead_tokens, room)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        """Look the request up; a claimed one whose blocks are lost may not go on.

        One that a reset has just preempted is looked up a step later: stock code takes its transfers of this step for
        stores that have to be flushed.
        """
        if request.request_id in self._preempted:
            return None, False
        hit_tokens, is_async = super().get_num_new_matched_tokens(request, num_computed_tokens)
        if self.residency is None or hit_tokens is None or request.request_id in self._silent:
            return hit_tokens, is_async
        answer = self.residency.lookup(
            request.request_id, num_computed_tokens // self._block_tokens, hit_tokens // self._block_tokens
        )
        return (None, False) if answer is Lookup.REFUSE else (hit_tokens, is_async)

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Blocks are there: begin a restoration if that is what they are for."""
        if self.residency is not None and request.request_id not in self._silent:
            self.residency.admitted(request.request_id, num_external_tokens // self._block_tokens)
        super().update_state_after_alloc(request, blocks, num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> Any:
        """Name whose the new jobs are.

        Stock code makes room in the second tier here, after the blocks of the primary one were handed out: it is told
        in that order, and whoever loses by it is told before anything else happens.
        """
        self._tell_scheduled(scheduler_output.num_scheduled_tokens)
        meta = super().build_connector_meta(scheduler_output)
        residency = self.residency
        if residency is None:
            return meta
        residency.tell_dropped()
        notes: dict[int, JobNote] = {}
        for jobs, is_load in ((meta.load_jobs, True), (meta.store_jobs, False)):
            for job_id, job in jobs.items():
                keys = (self._manager.take_load if is_load else self._manager.take_store)(job.req_id)
                blocks = [int(b) for b in (job.dst_spec if is_load else job.src_spec).block_ids]
                notes[job_id] = self._note(job.req_id, job_id, is_load, keys, blocks)
        for request_id in scheduler_output.finished_req_ids or ():
            residency.stores_ended(request_id)
            self._copies.request_over(request_id)
            self._requests.pop(request_id, None)
            self._positions.forget(request_id)
            self._silent.discard(request_id)
            self._replies.pop(request_id, None)
        return ResidentConnectorMetadata(
            load_jobs=meta.load_jobs,
            store_jobs=meta.store_jobs,
            jobs_to_flush=meta.jobs_to_flush,
            notes=notes,
            idle=scheduler_output.total_num_scheduled_tokens == 0,
        )

    def _note(self, request_id: str, job_id: int, is_load: bool, keys: list[bytes], blocks: list[int]) -> JobNote:
        positions = self._positions.find(request_id, self._requests[request_id].block_hashes, keys)
        if self.residency is None or request_id in self._silent:
            return JobNote(request_id, None, None, positions)
        job = self.residency.job_created(
            request_id,
            job_id,
            is_load=is_load,
            keys=keys,
            positions=positions,
            block_ids=blocks,
            workers_total=self._workers,
        )
        return JobNote(request_id, job.claim_id, job.owner_scope, positions)

    def update_connector_output(self, connector_output: Any) -> None:
        """The stock side completes transfers; then it is known what the tier can give back."""
        super().update_connector_output(connector_output)
        if self.residency is not None:
            self.residency.copies_settled()

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        """Answer the client about its claim."""
        return self._finished(request, super().request_finished_all_groups(request, block_ids))

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Answer the client about its claim."""
        return self._finished(request, super().request_finished(request, block_ids))

    def _finished(self, request: Any, stock: tuple[bool, dict[str, Any] | None]) -> tuple[bool, dict[str, Any] | None]:
        delay, params = stock
        reply: dict[str, Any] | None
        if self.residency is None:
            asked = CLAIM_PARAM in (request.kv_transfer_params or {})
            no = {"decision": "rejected", "reason": "vllm_untested", "detail": self.untested}
            reply = {CLAIM_PARAM: no} if asked else None
        elif request.request_id in self._silent:
            reply = self.control.finish(request.kv_transfer_params or {})
        else:
            self.desk.refused(request.kv_transfer_params or {}, self.residency.refusal_of(request.request_id))
            if not self.residency.keeps_kv(request.request_id):
                own = self._copies.primary.allocated(request.request_id)
                own = own[self.residency.local_blocks(request.request_id) :]
                self._copies.primary.forget(own, spared=self.residency.book.needs)
            status = str(request.status.name).removeprefix("FINISHED_").removesuffix("_CAPPED").lower()
            reply = self.residency.request_finished(request.request_id, status, request.num_output_tokens)
        if reply is None:
            return delay, params
        self._replies[request.request_id] = reply
        return delay, (params or {}) | reply

    def reset_cache(self) -> bool | None:
        """The operator empties the second tier: claims that live there are demoted first."""
        if self.residency is not None:
            self.residency.before_reset(primary=False, tier=True)
        return super().reset_cache()

    def shutdown(self) -> None:
        """Let all claims go, end the log, then stop."""
        if self.residency is not None:
            self.desk.close()
            with self.guard:
                self.residency.release_all("engine:shutdown", "shutdown")
                self._log.close("shutdown")
            if self._trace_lock is not None:
                self._trace_lock.release()
        super().shutdown()

    # --- the stock interface, worker side ---

    def get_transfer_results(self, finished_req_ids: set[str]) -> KVConnectorTransferResults:
        """Report transfers; requests whose load failed are named as failed receives."""
        finished_sending, finished_recving = self.get_finished(finished_req_ids)
        failed: set[str] = set()
        if isinstance(self.connector_worker, ResidentConnectorWorker):
            failed = self.connector_worker.take_failed_recving()
        return KVConnectorTransferResults(
            finished_sending=finished_sending or set(),
            finished_recving=finished_recving or set(),
            failed_recving=failed,
        )
