"""Requests that ask the plugin something instead of the model: status and log rotation, for tests and the witness.

Such a request is a tiny prompt with `residentkv_control` in its kv_transfer_params; it is served like any other, but
it is no part of the workload, so the event log does not mention it. Off unless the operator sets `control`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from residentkv.runtimes.vllm.eventlog import EventLog
from residentkv.runtimes.vllm.residency import Residency

PARAM = "residentkv_control"


class Control:
    """Carries out control requests."""

    def __init__(self, residency: Residency, log: EventLog, *, enabled: bool) -> None:
        self._residency = residency
        self._log = log
        self._enabled = enabled

    def wants(self, params: Mapping[str, Any]) -> bool:
        """Tell whether a request is a control request."""
        return self._enabled and isinstance(params.get(PARAM), Mapping)

    def begin(self, params: Mapping[str, Any]) -> None:
        """Carry out what has to happen when the request arrives.

        `{"op": "rotate", "trace_path": ..., "run_id": ...}` releases every claim, ends the log and begins another one;
        without a path, nothing is logged from then on.
        """
        ask = params[PARAM]
        if ask.get("op") != "rotate":
            return
        self._residency.release_all("engine:rotation", "log_rotated")
        self._log.close("rotated")
        path, run_id = ask.get("trace_path"), ask.get("run_id")
        if isinstance(path, str) and isinstance(run_id, str):
            self._log.open(path, run_id)

    def finish(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Answer with how things stand when the request ends; stores of earlier requests have begun by then."""
        return {
            PARAM: {
                "op": params[PARAM].get("op"),
                "open_jobs": self._residency.open_jobs(),
                "claims": self._residency.states(),
                "log_failure": self._log.failure,
            }
        }
