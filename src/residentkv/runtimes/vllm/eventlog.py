"""The event log of the scheduler process; it owns the authoritative order."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

import residentkv
from residentkv.errors import InputError
from residentkv.trace.events import Event, TraceOpened
from residentkv.trace.segments import last_event, set_aside
from residentkv.trace.writer import TraceWriteError, TraceWriter

logger = logging.getLogger("vllm.residentkv")

SOURCE = "scheduler"
RUNTIME = "vllm"
PRIMITIVE = "offloading_connector"
ADAPTER = "residentkv_plugin"


class EventLog:
    """Writes events when a path is set; a log that broke once stays broken and says so in `failure`.

    A decision that depends on the time and the event that tells it share one instant: see `at`. `observers` see every
    event with its time, whether it is written or not; `events_lost` counts those that the log
    should have and has not.
    """

    def __init__(
        self, *, runtime_version: str, epoch: int | None = None, max_bytes: int | None = None, source: str = SOURCE
    ) -> None:
        """Prepare a log.

        Args:
            runtime_version: for the head of the log.
            epoch: incarnation to begin with; None: one above the last in the file, 0 in a new one.
            max_bytes: size beyond which the file is set aside and another one goes on with the sequence.
            source: name under which this engine writes.
        """
        self.source = source
        self.failure: str | None = None
        self.observers: list[Callable[[type[Event], dict[str, Any], int], None]] = []
        self.events_written = 0
        self.events_lost = 0
        self.write_ns = 0
        self._max_bytes = max_bytes
        self._runtime_version = runtime_version
        self._epoch = epoch
        self._writer: TraceWriter | None = None
        self._instant_ns: int | None = None
        self.stands_in: tuple[str, ...] = ()
        self.on_open: Callable[[], None] = lambda: None
        """Called when a log was opened, after its first event."""

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
            TraceWriteError: the file cannot be opened.
            InputError: the file has something else in it than the log of an earlier incarnation.
        """
        self.close("rotated")
        epoch = self._next_epoch(path) if self._epoch is None else self._epoch
        self._writer = TraceWriter(
            path, source=self.source, run_id=run_id, epoch=epoch, max_bytes=self._max_bytes, mono_ns=self.now_ns
        )
        self._epoch = epoch + 1
        self.emit(
            TraceOpened,
            runtime=RUNTIME,
            runtime_version=self._runtime_version,
            primitive=PRIMITIVE,
            adapter=ADAPTER,
            adapter_version=residentkv.__version__,
            depth="plugin",
            stands_in=self.stands_in,
        )
        self.on_open()

    def _next_epoch(self, path: str) -> int:
        """Return one above the epoch that the file ends with; what a killed process left torn is set aside."""
        try:
            last, whole = last_event(path)
            if not whole:
                set_aside(path)
        except OSError as e:
            raise TraceWriteError(f"{path}: cannot be continued: {e.strerror}") from e
        if last is None:
            return 0
        if last.source != self.source:
            raise InputError(
                f"the last event is of {last.source!r}, expected {self.source!r}; move the file away, or set 'epoch'",
                path=path,
            )
        return last.epoch + 1

    def emit(self, kind: type[Event], **fields: Any) -> None:
        """Append one event; after a failure nothing more is written, so that the log never looks whole."""
        before, now_ns = self._instant_ns, self.now_ns()
        self._instant_ns = now_ns
        try:
            self._write(kind, fields)
        finally:
            self._instant_ns = before
        for observe in self.observers:
            observe(kind, fields, now_ns)

    def _write(self, kind: type[Event], fields: dict[str, Any]) -> None:
        if self._writer is None:
            return
        if self.failure is not None:
            self.events_lost += 1
            return
        begun_ns = time.monotonic_ns()
        try:
            self._writer.emit(kind, **fields)
            self.events_written += 1
            self.write_ns += time.monotonic_ns() - begun_ns
        except (TraceWriteError, msgspec.ValidationError) as e:
            self.failure = f"{kind.__name__}: {e}"
            self.events_lost += 1
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
