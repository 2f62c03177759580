"""Reading and replacing files, and the one folder in which this package keeps what it makes or fetches."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

from residentkv.errors import NoInputError, UsageError

CACHE_VARIABLE = "RESIDENTKV_CACHE"


def cache_dir() -> Path:
    """Return `$RESIDENTKV_CACHE`, or `~/.cache/residentkv`; it need not exist."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "residentkv"


def check_name(path: str) -> str:
    """Return a path that can be written down for somebody who looks the file up later.

    Raises:
        UsageError: its bytes are no UTF-8.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{path}: found a file name that is not UTF-8, expected text; rename the file") from None
    return path


def check_plain(path: Path) -> None:
    """Check that a path names a plain file or a folder: a device may be endless, and a pipe may never be written.

    Raises:
        OSError: it names something else, or nothing, or is no name of a file.
    """
    try:
        kind = path.stat().st_mode
    except ValueError as e:  # a name with a null byte
        raise OSError(errno.EINVAL, str(e), str(path)) from None
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise OSError(errno.EINVAL, "Not a plain file", str(path))


def is_there(path: Path) -> bool:
    """Return whether a path leads to something; a name that no file can have, such as one too long, leads nowhere."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def read_input(path: Path) -> bytes:
    """Return a file.

    Raises:
        NoInputError: it does not exist or cannot be read.
    """
    try:
        check_plain(path)
        return path.read_bytes()
    except OSError as e:
        raise NoInputError(f"{path}: cannot be read ({e.strerror or e}), expected a file; check the path") from None


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file in one step, keeping its permissions: a reader sees the old content or the new, never a part.

    What a symbolic link leads to is replaced, not the link.

    Raises:
        OSError: it cannot be written, or names a device or a pipe, which a file must not take the place of.
    """
    mode = 0o644
    with contextlib.suppress(FileNotFoundError):
        check_plain(path)
        mode = path.stat().st_mode & 0o7777
    target = path.resolve()
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:20]}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
