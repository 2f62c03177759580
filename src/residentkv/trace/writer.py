"""Writing a trace: one append a line, and a number is consumed only by a line that was written."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from residentkv.errors import ResidentKVError
from residentkv.trace.codec import encode_event
from residentkv.trace.events import Event, TraceClosed
from residentkv.trace.segments import set_aside
from residentkv.trace.streams import MAX_LINE_BYTES

E = TypeVar("E", bound=Event)


class TraceWriteError(ResidentKVError):
    """A line was not written, or not whole; in the second case the writer is closed, because the trace is torn."""


class TraceWriter:
    """Append events of one (source, epoch) to a file that other sources may append to at the same time.

    Threads of one process share a writer. Every process has a writer of its own, with a `source` of its own or a new
    `epoch`: two writers of one (source, epoch) would both start at seq 0, and the audit would call the trace
    inconclusive. A writer that is used in a forked child refuses, for the same reason.
    A line is one `write` on a descriptor opened with O_APPEND, so lines of several processes do not mix.

    With `max_bytes` the file is set aside under the next number before it grows beyond that, and the sequence goes on
    in a new one; readers take all of them for one trace. Such a file has one writer only.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        source: str,
        run_id: str,
        epoch: int = 0,
        max_bytes: int | None = None,
        mono_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.path = os.fspath(path)
        self.source = source
        self.run_id = run_id
        self.epoch = epoch
        self._mono_ns = mono_ns
        self._wall_ns = wall_ns
        self._max_bytes = max_bytes
        self._seq = 0
        self._pid = os.getpid()
        self._lock = threading.RLock()
        try:
            self._fd: int | None = self._open()
            self._size_bytes = os.fstat(self._fd).st_size
        except OSError as e:
            raise TraceWriteError(f"{self.path}: cannot be opened for appending: {e.strerror}") from e

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    @property
    def closed(self) -> bool:
        """Whether nothing more can be written."""
        return self._fd is None

    def emit(self, kind: type[E], **fields: Any) -> E:
        """Fill in the envelope, append the event and return it as a reader will see it.

        Raises:
            TypeError: a field is missing or unknown.
            msgspec.ValidationError: a value has the wrong type; nothing was written and no number was consumed.
            TraceWriteError: the writer is closed or of another process, or the line could not be written whole; a
                number was consumed by none of them.
        """
        if os.getpid() != self._pid:
            raise TraceWriteError(
                f"{self.path}: the trace writer of {self.source!r} was opened by process {self._pid}; "
                "open one with a source of its own in each process"
            )
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
            line, written_as = _checked(event)
            if len(line) > MAX_LINE_BYTES:
                raise TraceWriteError(
                    f"{self.path}: seq {self._seq} would be {len(line)} bytes long, a reader takes {MAX_LINE_BYTES}"
                )
            if self._max_bytes is not None and self._size_bytes > 0 and self._size_bytes + len(line) > self._max_bytes:
                self._rotate()
            self._append(self._fd, line)
            self._size_bytes += len(line)
            self._seq += 1
            return written_as

    def _rotate(self) -> None:
        """Set the file aside and go on in a new one; when that fails, the old one goes on, in its place if possible."""
        try:
            aside = set_aside(self.path)
        except OSError:
            return
        try:
            fd = self._open()
        except OSError:
            with contextlib.suppress(OSError):
                os.rename(aside, self.path)
            return
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._size_bytes = fd, 0

    def _append(self, fd: int, line: bytes) -> None:
        try:
            written = os.write(fd, line)
        except OSError as e:
            raise TraceWriteError(f"{self.path}: seq {self._seq} was not written: {e.strerror}") from e
        if written != len(line):
            self.abandon()
            raise TraceWriteError(
                f"{self.path}: {written} of {len(line)} bytes of seq {self._seq} were written; the trace is torn"
            )

    def close(self, reason: str = "end") -> None:
        """Write `trace_closed` and close; without it the trace counts as truncated. Closing twice does nothing."""
        with self._lock:
            if self._fd is None:
                return
            self.emit(TraceClosed, reason=reason)
            self.abandon()

    def abandon(self) -> None:
        """Close the file without `trace_closed`, as a crash would."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None


def _checked(event: E) -> tuple[bytes, E]:
    """Return the line of an event and the event that a reader gets from it."""
    for at, value in enumerate(msgspec.structs.astuple(event)):
        if isinstance(value, float) and not math.isfinite(value):
            name = event.__struct_fields__[at]
            raise msgspec.ValidationError(f"Expected a finite number, got {value} - at `$.{name}`")
    try:
        line = encode_event(event)
    except (UnicodeError, OverflowError) as e:
        raise msgspec.ValidationError(f"Expected a value that JSON can carry: {e}") from e
    return line, _decoder(type(event)).decode(line)


@functools.cache
def _decoder(kind: type[E]) -> msgspec.json.Decoder[E]:
    return msgspec.json.Decoder(kind, strict=True)
