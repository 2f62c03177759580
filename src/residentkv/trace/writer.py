"""Writing a trace: one append a line, and a number is consumed only by a line that was written."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from residentkv.errors import ResidentKVError
from residentkv.trace.events import Event, TraceClosed

E = TypeVar("E", bound=Event)


class TraceWriteError(ResidentKVError):
    """A line could not be written whole; the writer is closed, because the trace behind it may be torn."""


class TraceWriter:
    """Append events of one (source, epoch) to a file that other sources may append to at the same time.

    Threads of one process share a writer. Every process has a `source` of its own, or a new `epoch`: two writers of
    one (source, epoch) would both start at seq 0, and the audit would call the trace inconclusive.
    A line is one `write` on a descriptor opened with O_APPEND, so lines of several processes do not mix.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        source: str,
        run_id: str,
        epoch: int = 0,
        mono_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.path = os.fspath(path)
        self.source = source
        self.run_id = run_id
        self.epoch = epoch
        self._mono_ns = mono_ns
        self._wall_ns = wall_ns
        self._seq = 0
        self._lock = threading.RLock()
        self._encoder = msgspec.json.Encoder()
        self._fd: int | None = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    @property
    def closed(self) -> bool:
        """Whether nothing more can be written."""
        return self._fd is None

    def emit(self, kind: type[E], **fields: Any) -> E:
        """Fill in the envelope, append the event and return it.

        Raises:
            TypeError: a field is missing or unknown.
            msgspec.ValidationError: a value has the wrong type; nothing was written and no number was consumed.
            TraceWriteError: the writer is closed, or the line could not be written whole.
        """
        with self._lock:
            if self._fd is None:
                raise TraceWriteError(f"{self.path}: the trace writer of {self.source!r} is closed")
            event = kind(
                schema=1,
                run_id=self.run_id,
                source=self.source,
                epoch=self.epoch,
                seq=self._seq,
                mono_ns=self._mono_ns(),
                wall_ns=self._wall_ns(),
                **fields,
            )
            line = self._encoder.encode(event)
            msgspec.json.decode(line, type=kind, strict=True)
            line += b"\n"
            try:
                written = os.write(self._fd, line)
            except OSError as e:
                raise TraceWriteError(f"{self.path}: seq {self._seq} was not written: {e}") from e
            if written != len(line):
                os.close(self._fd)
                self._fd = None
                raise TraceWriteError(
                    f"{self.path}: {written} of {len(line)} bytes of seq {self._seq} were written; the trace is torn"
                )
            self._seq += 1
            return event

    def close(self, reason: str = "end") -> None:
        """Write `trace_closed` and close; without it the trace counts as truncated. Closing twice does nothing."""
        with self._lock:
            if self._fd is None:
                return
            self.emit(TraceClosed, reason=reason)
            os.close(self._fd)
            self._fd = None

    def abandon(self) -> None:
        """Close the file without `trace_closed`, as a crash would."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None
