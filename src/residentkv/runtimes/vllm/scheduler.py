"""The scheduler class: outcomes of claims are told and enforced at its boundary, before the engine acts on them."""

from __future__ import annotations

import time
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.request import RequestStatus

from residentkv.runtimes.vllm.connector import ResidentOffloadingConnector
from residentkv.runtimes.vllm.guard import GuardedScheduler
from residentkv.runtimes.vllm.private import FailedReceivePolicy, freed_when_preempted
from residentkv.runtimes.vllm.residency import Residency
from residentkv.runtimes.vllm.transfers import ResidentWorkerMetadata

OUTSIDE_PATIENCE_S = 0.01
"""How long a step rests in which nobody runs and somebody waits for claims, instead of spinning."""


class ResidentSchedulerMixin(FailedReceivePolicy):
    """Over `Scheduler` or `AsyncScheduler`; needs `ResidentOffloadingConnector`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        connector: Any = getattr(self, "connector", None)
        self._resident: ResidentOffloadingConnector | None = None
        self._refused_outputs: dict[int, list[EngineCoreOutput]] = {}
        self._outside: dict[str, Any] = {}
        """Requests that wait to be let in; the engine's own queues do not hold them."""
        if isinstance(connector, ResidentOffloadingConnector) and connector.residency is not None:
            self._resident = connector
            connector.attach_scheduler(engine_recomputes=self.adopt_engine_policy())

    def add_request(self, request: Any) -> None:
        """Take a request in; it stands outside the queues until it is let in."""
        known = request.request_id in self.requests
        super().add_request(request)  # type: ignore[misc]
        connector = self._resident
        if connector is None or connector.residency is None or known:
            return
        if connector.residency.door.holds(request.request_id):
            self.waiting.remove_request(request)  # type: ignore[attr-defined]
            self._outside[request.request_id] = request

    def finish_requests(self, request_ids: Any, finished_status: Any) -> Any:
        """End requests, also those that were not let in yet."""
        ids = (request_ids,) if isinstance(request_ids, str) else request_ids
        if ids is not None:
            ids = list(ids)
        for request_id in list(self._outside) if ids is None else ids:
            self._outside.pop(request_id, None)
        return super().finish_requests(ids, finished_status)  # type: ignore[misc]

    def get_request_counts(self) -> tuple[int, int]:
        """Count running and waiting requests; those outside wait, too."""
        running, waiting = super().get_request_counts()  # type: ignore[misc]
        return running, waiting + len(self._outside)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Schedule a step with those who may come in; a request whose claim turned out to be lost is refused after."""
        connector = self._resident
        if connector is None or connector.residency is None:
            return super().schedule(*args, **kwargs)  # type: ignore[misc]
        connector.begin_step()
        self._open_door(connector.residency)
        connector.begin_scheduling(
            self.max_num_scheduled_tokens,  # type: ignore[attr-defined]
            self.reset_preempted_req_ids,  # type: ignore[attr-defined]
        )
        output = super().schedule(*args, **kwargs)  # type: ignore[misc]
        self._refuse(connector.residency.take_refusals())
        return output

    def _open_door(self, residency: Residency) -> None:
        """Let requests into the engine's queue, refuse others, and leave the rest outside for another step."""
        if not self._outside:
            return
        admitted, refused = residency.open_door()
        for request_id in admitted:
            self.waiting.add_request(self._outside.pop(request_id))  # type: ignore[attr-defined]
        self._refuse(refused)
        if self._outside and not refused and super().get_request_counts() == (0, 0):  # type: ignore[misc]
            time.sleep(OUTSIDE_PATIENCE_S)

    def _refuse(self, request_ids: list[str]) -> None:
        """Refuse requests that never got blocks; only waiting requests may end as errors (their blocks are whole)."""
        connector = self._resident
        if not request_ids or connector is None:
            return
        for request in self.finish_requests(set(request_ids), RequestStatus.FINISHED_ERROR):
            self._refused_outputs.setdefault(request.client_index, []).append(
                EngineCoreOutput(
                    request_id=request.request_id,
                    new_token_ids=[],
                    finish_reason=request.get_finished_reason(),
                    events=request.take_events(),
                    trace_headers=request.trace_headers,
                    kv_transfer_params=connector.take_reply(request.request_id),
                )
            )

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> dict[int, EngineCoreOutputs]:
        """Take in transfers first: what they mean for claims is told before the engine ends or frees anything."""
        connector = self._resident
        if connector is None:
            return super().update_from_output(scheduler_output, model_runner_output)  # type: ignore[misc]
        kv_output = model_runner_output.kv_connector_output
        meta = kv_output.kv_connector_worker_meta if kv_output is not None else None
        self.recomputing = set()
        if isinstance(meta, ResidentWorkerMetadata):
            for job in connector.take_results(meta.results):
                if job.is_load and job.failed and job.recompute:
                    self.recomputing.add(job.request_id)
        self._report_progress(connector, scheduler_output)
        outputs: dict[int, EngineCoreOutputs] = super().update_from_output(  # type: ignore[misc]
            scheduler_output, model_runner_output
        )
        self._add_refused(connector, outputs)
        return outputs

    def _report_progress(self, connector: ResidentOffloadingConnector, scheduler_output: Any) -> None:
        residency = connector.residency
        if residency is None or not residency.watched:
            return
        for request_id, scheduled in scheduler_output.num_scheduled_tokens.items():
            request = self.requests.get(request_id) if request_id in residency.watched else None
            if request is None or request.is_finished() or request.num_stale_output_tokens:
                continue
            # With overlapping steps `num_computed_tokens` runs ahead by what is still in flight.
            before = request.num_computed_tokens - request.num_in_flight_tokens
            residency.step_done(request_id, before, before + scheduled)

    def _add_refused(self, connector: ResidentOffloadingConnector, outputs: dict[int, EngineCoreOutputs]) -> None:
        """Hand out the ends of refused requests, with the reason beside them."""
        refused, self._refused_outputs = self._refused_outputs, {}
        for client_index, ends in refused.items():
            outputs.setdefault(client_index, EngineCoreOutputs()).outputs.extend(ends)
        for batch in outputs.values():
            for output in batch.outputs:
                if output.finish_reason is not None and output.kv_transfer_params is None:
                    output.kv_transfer_params = connector.take_reply(output.request_id)

    def reset_prefix_cache(self, reset_running_requests: bool = False, reset_connector: bool = False) -> bool:
        """Empty the primary tier; claims that would lose by it are demoted first."""
        if self._resident is not None:
            preempted = freed_when_preempted(self) if reset_running_requests else ()
            self._resident.before_reset(preempted=preempted, tier=reset_connector)
        done: bool = super().reset_prefix_cache(reset_running_requests, reset_connector)  # type: ignore[misc]
        return done


class ResidentScheduler(GuardedScheduler, ResidentSchedulerMixin, Scheduler):
    """The stock scheduler with claims."""


class ResidentAsyncScheduler(GuardedScheduler, ResidentSchedulerMixin, AsyncScheduler):
    """The stock scheduler of overlapping steps with claims."""


def make_scheduler(*args: Any, vllm_config: Any, **kwargs: Any) -> Scheduler:
    """Build the scheduler that fits the engine: give this function's name as `scheduler_cls`."""
    overlapping = bool(vllm_config.scheduler_config.async_scheduling)
    kind = ResidentAsyncScheduler if overlapping else ResidentScheduler
    return kind(*args, vllm_config=vllm_config, **kwargs)
