"""The event log of the scheduler process; it owns the authoritative order."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

import residentkv
from residentkv.trace.events import Event, TraceOpened
from residentkv.trace.writer import TraceWriteError, TraceWriter

logger = logging.getLogger("vllm.residentkv")

SOURCE = "scheduler"
RUNTIME = "vllm"
PRIMITIVE = "offloading_connector"
ADAPTER = "residentkv_plugin"


class EventLog:
    """Writes events when a path is set; a log that broke once stays broken and says so in `failure`.

    A decision that depends on the time and the event that tells it share one instant: see `at`.
    """

    def __init__(self, *, runtime_version: str, epoch: int = 0, source: str = SOURCE) -> None:
        self.source = source
        self.failure: str | None = None
        self._runtime_version = runtime_version
        self._epoch = epoch
        self._writer: TraceWriter | None = None
        self._instant_ns: int | None = None

    @property
    def enabled(self) -> bool:
        """Whether events are written at all."""
        return self._writer is not None

    def now_ns(self) -> int:
        """Return the log's monotonic time, which is that of the current `at` block when there is one."""
        return self._instant_ns if self._instant_ns is not None else time.monotonic_ns()

    @contextmanager
    def at(self, now_ns: int) -> Iterator[None]:
        """Write everything inside with this time: what was decided for that instant is told for that instant."""
        before = self._instant_ns
        self._instant_ns = now_ns
        try:
            yield
        finally:
            self._instant_ns = before

    def open(self, path: str, run_id: str) -> None:
        """Begin a new log file (source, epoch) and write who writes it.

        Raises:
            OSError: the file cannot be opened.
        """
        self.close("rotated")
        self._writer = TraceWriter(path, source=self.source, run_id=run_id, epoch=self._epoch, mono_ns=self.now_ns)
        self._epoch += 1
        self.emit(
            TraceOpened,
            runtime=RUNTIME,
            runtime_version=self._runtime_version,
            primitive=PRIMITIVE,
            adapter=ADAPTER,
            adapter_version=residentkv.__version__,
            depth="plugin",
            stands_in=(),
        )

    def emit(self, kind: type[Event], **fields: Any) -> None:
        """Append one event; after a failure nothing more is written, so that the log never looks whole."""
        if self._writer is None or self.failure is not None:
            return
        try:
            self._writer.emit(kind, **fields)
        except (TraceWriteError, msgspec.ValidationError) as e:
            self.failure = f"{kind.__name__}: {e}"
            logger.error("residentkv: the event log is broken and no further claim is accepted: %s", self.failure)
            self._writer.abandon()

    def close(self, reason: str) -> None:
        """End the log in order; a broken one is left without its last line."""
        if self._writer is None:
            return
        if self.failure is None:
            try:
                self._writer.close(reason)
            except TraceWriteError as e:
                self.failure = str(e)
        self._writer = None
