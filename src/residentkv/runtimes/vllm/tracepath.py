"""Where each engine of a server writes its event log: one file an engine, and never two engines in one file.

Two engines would both be (source, epoch) 0 of the file, and an audit could tell nothing about either. Engines of one
data-parallel server get names from their index; any other engine that is given a path in use is refused at start.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from residentkv.errors import UsageError
from residentkv.runtimes.vllm.eventlog import SOURCE


def path_of_engine(trace_path: str, engine: int) -> str:
    """Return the log of the engine with this data-parallel index: that of engine 0 is `trace_path` itself."""
    if engine == 0:
        return trace_path
    path = Path(trace_path)
    return str(path.with_name(f"{path.stem}.engine{engine}{path.suffix}"))


def source_of_engine(engine: int) -> str:
    """Return the name under which the engine writes, so that the logs of one server can be audited together."""
    return SOURCE if engine == 0 else f"{SOURCE}-engine{engine}"


class TraceLock:
    """Keeps a log to one engine while it is held; it ends with the process at the latest.

    The lock lies on a file beside the log, `<log>.lock`, because the log itself may be renamed or replaced.
    """

    def __init__(self, trace_path: str) -> None:
        """Take the lock.

        Raises:
            UsageError: another engine holds it, or the file cannot be made.
        """
        path = f"{trace_path}.lock"
        try:
            self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as e:
            raise UsageError(f"trace_path: {path} cannot be made: {e.strerror}; name a folder to write in") from e
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            raise UsageError(
                f"trace_path: another engine is writing {trace_path}; give each engine a trace_path of its own"
            ) from None

    def release(self) -> None:
        """Let the next engine have the log; releasing twice does nothing."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
