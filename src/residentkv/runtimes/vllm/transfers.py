"""What travels between the scheduler process and the worker processes about transfer jobs."""

from __future__ import annotations

from dataclasses import dataclass, field

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorWorkerMetadata
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import (
    OffloadingConnectorMetadata,
    OffloadingWorkerMetadata,
)


@dataclass(frozen=True)
class JobNote:
    """Whose job it is and which logical block positions it moves, in the order of its block ids."""

    request_id: str
    claim_id: str | None
    owner_scope: str | None
    positions: tuple[int, ...]


@dataclass(frozen=True)
class JobResult:
    """One worker's part of a job. Times are of the worker's monotonic clock.

    `failed` are logical block positions; a job succeeded when there are none. `bytes` counts what was moved and kept.
    """

    job_id: int
    worker: int
    is_load: bool
    failed: tuple[int, ...]
    bytes: int
    reason: str
    start_ns: int
    end_ns: int

    @property
    def success(self) -> bool:
        """Whether every position was moved."""
        return not self.failed


@dataclass
class ResidentConnectorMetadata(OffloadingConnectorMetadata):
    """Stock metadata, a note a job, and whether the step computes nothing."""

    notes: dict[int, JobNote] = field(default_factory=dict)
    idle: bool = False


@dataclass
class ResidentWorkerMetadata(OffloadingWorkerMetadata):
    """Stock metadata and what became of each job on each worker."""

    results: list[JobResult] = field(default_factory=list)

    def aggregate(self, other: KVConnectorWorkerMetadata) -> ResidentWorkerMetadata:
        """Join the words of two workers; nothing is averaged away."""
        if not isinstance(other, OffloadingWorkerMetadata):
            raise TypeError(f"worker metadata of type {type(other).__name__}, expected OffloadingWorkerMetadata")
        stock = OffloadingWorkerMetadata.aggregate(self, other)
        more = other.results if isinstance(other, ResidentWorkerMetadata) else []
        return ResidentWorkerMetadata(
            completed_jobs=stock.completed_jobs,
            transfer_stats=stock.transfer_stats,
            results=[*self.results, *more],
        )
