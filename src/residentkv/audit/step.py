"""The step function: one event, the state of its (source, epoch), and nothing else.

Handlers are found by the type of the event. They never raise on what a trace can contain; what is wrong becomes a
finding. The state is updated in place, which is a matter of speed only: it is never shared between sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from residentkv.audit.state import SourceState
from residentkv.audit.steps import (
    blocks,
    copies,
    decisions,
    envelope,
    failures,
    outcomes,
    refusals,
    request_ends,
    requests,
    restores,
    routes,
    transfers,
)
from residentkv.trace import events as ev

Handler = Callable[[SourceState, Any], None]

HANDLERS: dict[type[ev.Event], Handler] = {
    ev.TraceOpened: envelope.on_opened,
    ev.TraceClosed: envelope.on_closed,
    ev.ClaimAccepted: decisions.on_accepted,
    ev.ClaimRejected: decisions.on_rejected,
    ev.ClaimDeferred: decisions.on_deferred,
    ev.ClaimRenewed: decisions.on_renewed,
    ev.ClaimMaterialized: copies.on_materialized,
    ev.ClaimOffloaded: copies.on_offloaded,
    ev.ClaimRestoreRequired: restores.on_restore_required,
    ev.ClaimRestored: restores.on_restored,
    ev.ClaimReusedAfterRestore: restores.on_reuse_after_restore,
    ev.ClaimReused: copies.on_reused,
    ev.ClaimRestorationFailed: failures.on_connector_failed,
    ev.SchedulerRestorationFailed: failures.on_scheduler_failed,
    ev.ClaimDemoted: outcomes.on_demoted,
    ev.ClaimExpired: outcomes.on_expired,
    ev.ClaimReleased: outcomes.on_released,
    ev.ClaimHarmed: outcomes.on_harmed,
    ev.ClaimRouteBound: routes.on_route_bound,
    ev.ClaimRouteOutcome: routes.on_route_outcome,
    ev.RequestInitialized: requests.on_initialized,
    ev.RequestAdmitted: refusals.on_admitted,
    ev.RequestDeferred: refusals.on_deferred_request,
    ev.RequestRefused: refusals.on_refused,
    ev.SchedulerRequestRefused: refusals.on_scheduler_refused,
    ev.RequestRecomputed: requests.on_recomputed,
    ev.RequestTerminated: request_ends.on_terminated,
    ev.LookupResult: transfers.on_lookup,
    ev.JobCreated: transfers.on_job_created,
    ev.TransferFinished: transfers.on_transfer_finished,
    ev.BlockStored: blocks.on_stored,
    ev.BlockRemoved: blocks.on_removed,
    ev.GenericCounter: envelope.on_counter,
    ev.RuntimeEvent: envelope.on_runtime_event,
}


class Stepper:
    """Feeds events to the states of their (source, epoch), in the order in which they come."""

    __slots__ = ("events", "states")

    def __init__(self) -> None:
        self.states: dict[tuple[str, int], SourceState] = {}
        self.events = 0

    def feed(self, events: Iterable[ev.Event]) -> None:
        """Step through events; may be called any number of times."""
        handlers = HANDLERS
        s: SourceState | None = None
        source, run_id, epoch, count = "", "", -1, 0
        for e in events:
            count += 1
            if s is None or e.epoch != epoch or e.source != source:
                s = self._state_of(e)
                source, epoch, run_id = s.source, s.epoch, s.run_id
            seq = e.seq
            if seq != s.next_seq or e.mono_ns < s.mono_ns or e.run_id != run_id:
                envelope.disorder(s, e)
            s.next_seq = seq + 1
            s.last_seq = seq
            s.events += 1
            handlers[type(e)](s, e)  # In it `s.mono_ns` is still the time of the event before.
            s.mono_ns = e.mono_ns
        self.events += count

    def _state_of(self, e: ev.Event) -> SourceState:
        key = (e.source, e.epoch)
        s = self.states.get(key)
        if s is None:
            s = self.states[key] = SourceState(e.source, e.epoch, e.run_id)
            envelope.begin(s, e)
        return s
