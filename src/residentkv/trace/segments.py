"""A log that was rotated by size: `<log>.000001`, `<log>.000002`, ..., and last `<log>` itself, one stream in all."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from residentkv.errors import InputError
from residentkv.files import is_there
from residentkv.trace.codec import decode_line
from residentkv.trace.events import AnyEvent
from residentkv.trace.streams import MAX_LINE_BYTES


def rotated_path(path: str, number: int) -> str:
    """Return where the part with this number lies, counted from 1."""
    return f"{path}.{number:06d}"


def rotated_parts(path: str) -> list[str]:
    """Return the rotated parts of a log, oldest first; the log itself is not among them."""
    try:
        return [os.fspath(Path(path).with_name(part)) for _, part in _numbered(path)]
    except OSError:
        return []


def _numbered(path: str) -> list[tuple[int, str]]:
    pattern = re.compile(re.escape(Path(path).name) + r"\.(\d{6,})")
    return sorted((int(m[1]), e.name) for e in os.scandir(Path(path).parent) if (m := pattern.fullmatch(e.name)))


def parts_of(path: str) -> list[str]:
    """Return the files of a log in their order: the rotated parts, then the log itself if it is there or alone."""
    if path == "-":
        return [path]
    parts = rotated_parts(path)
    return [*parts, path] if is_there(Path(path)) or not parts else parts


def missing_part(path: str) -> str | None:
    """Return the first rotated part that is not there although a later one is, or None.

    A part may hold all that an incarnation wrote, and then no number of an event is missing without it.
    """
    with contextlib.suppress(OSError):
        for expected, (number, _) in enumerate(_numbered(path), start=1):
            if number != expected:
                return rotated_path(path, expected)
    return None


def set_aside(path: str) -> str:
    """Make the log the next rotated part, and return where it lies now.

    Raises:
        OSError: it cannot be renamed, or it cannot be seen which parts there are.
    """
    parts = _numbered(path)
    target = rotated_path(path, parts[-1][0] + 1 if parts else 1)
    Path(path).rename(target)
    return target


def last_event(path: str) -> tuple[AnyEvent | None, bool]:
    """Return the last whole line of a log as an event, and whether the log ends with a whole line.

    Raises:
        InputError: the last line is no event, or is too long to be one.
        OSError: a part cannot be read.
    """
    whole = True
    for part in reversed(parts_of(path)):
        if not Path(part).exists():
            continue
        with Path(part).open("rb") as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(max(0, size - 2 * MAX_LINE_BYTES))
            data = f.read()
        end = data.rfind(b"\n") + 1
        if part == path:
            whole = end == len(data)
        if end:
            start = data.rfind(b"\n", 0, end - 1) + 1
            return decode_line(data[start : end - 1], path=part), whole
        if size:
            raise InputError("found no whole line, expected the log of an earlier run; move it away", path=part)
    return None, whole
