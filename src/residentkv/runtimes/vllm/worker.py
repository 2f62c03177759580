"""The worker's side of the second tier: one thread that moves blocks, verifies them and lets faults strike."""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import dataclass

from vllm.v1.kv_offload.base import GPULoadStoreSpec, LoadStoreSpec, OffloadingWorker, TransferResult
from vllm.v1.kv_offload.cpu.common import CPULoadStoreSpec

from residentkv.runtimes.vllm.faults import UNREADABLE, Action, Fault, FaultInjector
from residentkv.runtimes.vllm.tier import MmapTier
from residentkv.runtimes.vllm.transfers import JobNote, JobResult

logger = logging.getLogger("vllm.residentkv")


@dataclass(frozen=True)
class _Job:
    job_id: int
    is_load: bool
    block_ids: list[int]
    row_ids: list[int]
    note: JobNote
    submitted_ns: int


class TierWorker(OffloadingWorker):
    """Moves blocks between the KV cache and an `MmapTier`, in the order of submission.

    `get_finished` reports every job as done; whether it succeeded, and for which positions not, is in
    `take_results`, because the stock interface has no word for a failed job that does not stop the engine.
    """

    def __init__(self, tier: MmapTier, faults: FaultInjector, *, rank: int, verify: bool) -> None:
        self._tier = tier
        self._faults = faults
        self._rank = rank
        self._verify = verify
        self._notes: dict[int, JobNote] = {}
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._done = threading.Condition()
        self._open: set[int] = set()
        self._finished: list[TransferResult] = []
        self._results: list[JobResult] = []
        self._faults_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="residentkv-tier", daemon=True)
        self._thread.start()

    def take_notes(self, notes: dict[int, JobNote]) -> None:
        """Learn whose the jobs are that will be submitted."""
        self._notes.update(notes)

    def tick(self) -> None:
        """Once a step: read the fault plan again and let faults strike that wait for no transfer."""
        with self._faults_lock:
            self._faults.refresh()
            for _ in self._faults.take("zero_tier"):
                self._tier.zero()

    def submit_store(self, job_id: int, src_spec: GPULoadStoreSpec, dst_spec: LoadStoreSpec) -> bool:
        """Queue a copy of KV blocks into the tier."""
        self._submit(job_id, False, src_spec, dst_spec)
        return True

    def submit_load(self, job_id: int, src_spec: LoadStoreSpec, dst_spec: GPULoadStoreSpec) -> bool:
        """Queue a copy of tier rows into KV blocks."""
        self._submit(job_id, True, dst_spec, src_spec)
        return True

    def get_finished(self, patience_s: float = 0.0) -> list[TransferResult]:
        """Return jobs that are over since the last call; with jobs open and none over, wait so long for one."""
        with self._done:
            if patience_s and not self._finished and self._open:
                self._done.wait(patience_s)
            finished, self._finished = self._finished, []
        return finished

    def take_results(self) -> list[JobResult]:
        """Return what became of the jobs that `get_finished` returned."""
        with self._done:
            results, self._results = self._results, []
        return results

    def wait(self, job_ids: set[int]) -> None:
        """Block until none of the jobs is open."""
        with self._done:
            self._done.wait_for(lambda: self._open.isdisjoint(job_ids))

    def shutdown(self) -> None:
        """Finish what was submitted, stop the thread and delete the tier."""
        self._jobs.put(None)
        self._thread.join()
        self._tier.close()

    def _submit(self, job_id: int, is_load: bool, blocks: GPULoadStoreSpec, rows: LoadStoreSpec) -> None:
        if not isinstance(rows, CPULoadStoreSpec):
            raise TypeError(f"job {job_id}: tier rows of type {type(rows).__name__}, expected CPULoadStoreSpec")
        block_ids = [int(b) for b in blocks.block_ids]
        note = self._notes.pop(job_id, None)
        if note is None:
            note = JobNote(request_id="", claim_id=None, owner_scope=None, positions=tuple(range(len(block_ids))))
        row_ids = [int(r) for r in rows.block_ids]
        if not len(block_ids) == len(row_ids) == len(note.positions):
            raise ValueError(
                f"job {job_id}: {len(block_ids)} blocks, {len(row_ids)} tier rows and {len(note.positions)} positions"
            )
        with self._done:
            self._open.add(job_id)
        self._jobs.put(_Job(job_id, is_load, block_ids, row_ids, note, time.monotonic_ns()))

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            start_ns = time.monotonic_ns()
            try:
                failed, moved, reason = self._move(job)
            except Exception as e:
                logger.exception("residentkv: job %d of the tier failed", job.job_id)
                failed, moved, reason = job.note.positions, 0, f"{type(e).__name__}: {e}"
            end_ns = time.monotonic_ns()
            result = JobResult(job.job_id, self._rank, job.is_load, failed, moved, reason, start_ns, end_ns)
            with self._done:
                self._results.append(result)
                self._finished.append(
                    TransferResult(
                        job_id=job.job_id,
                        success=result.success,
                        transfer_size=moved,
                        transfer_time=(end_ns - start_ns) / 1e9,
                    )
                )
                self._open.discard(job.job_id)
                self._done.notify_all()

    def _move(self, job: _Job) -> tuple[tuple[int, ...], int, str]:
        """Move a job; return the failed positions, the bytes moved and why."""
        failed, reason = self._strike(job)
        pairs = [
            (row, block)
            for row, block, pos in zip(job.row_ids, job.block_ids, job.note.positions, strict=True)
            if pos not in failed
        ]
        if not job.is_load:
            if failed:
                return job.note.positions, 0, reason  # A store counts whole or not at all.
            return (), self._tier.store(job.block_ids, job.row_ids), ""
        if self._verify:
            position = dict(zip(job.row_ids, job.note.positions, strict=True))
            broken = {row for row, _ in pairs if not self._tier.intact(row)}
            if broken:
                failed = failed | {position[row] for row in broken}
                reason = CHECKSUM_MISMATCH
                pairs = [(row, block) for row, block in pairs if row not in broken]
        moved = self._tier.load([row for row, _ in pairs], [block for _, block in pairs])
        return tuple(sorted(failed)), moved, reason

    def _strike(self, job: _Job) -> tuple[frozenset[int], str]:
        note = job.note
        row_of = dict(zip(note.positions, job.row_ids, strict=True))
        delay_s = 0.0
        failed: frozenset[int] = frozenset()
        reason = ""
        with self._faults_lock:
            self._faults.refresh()
            if self._faults.unreadable is not None:
                return frozenset(note.positions), UNREADABLE
            late = self._strikes("delay_load" if job.is_load else "delay_store", note)
            if late is not None:
                delay_s = late[0].delay_s
            if job.is_load:
                hit = self._strikes("corrupt", note)
                for pos in hit[1] if hit is not None else ():
                    self._tier.corrupt(row_of[pos])
                hit = self._strikes("zero", note)
                self._tier.zero([row_of[pos] for pos in (hit[1] if hit is not None else ())])
            hit = self._strikes("fail_load" if job.is_load else "fail_store", note)
            if hit is not None:
                failed, reason = frozenset(hit[1]), hit[0].reason
        if delay_s:
            time.sleep(delay_s)
        return failed, reason

    def _strikes(self, action: Action, note: JobNote) -> tuple[Fault, tuple[int, ...]] | None:
        return self._faults.strike(
            action, claim_id=note.claim_id, owner_scope=note.owner_scope, positions=note.positions
        )


CHECKSUM_MISMATCH = "checksum_mismatch"
"""Reason of a failed load whose bytes are not those that were stored; such bytes are never tried again."""
