"""Where a file lies for others: a file of this package has a name that does not depend on where it is installed."""

from __future__ import annotations

from pathlib import Path

import residentkv

PACKAGE = Path(residentkv.__file__).resolve().parent
PREFIX = "residentkv/"


def shipped_name(path: str) -> str:
    """Return `residentkv/...` for a file that comes with this package, or nothing."""
    real = Path(path).resolve()
    return PREFIX + real.relative_to(PACKAGE).as_posix() if real.is_relative_to(PACKAGE) else ""


def shipped_path(name: str) -> Path | None:
    """Return the file that `shipped_name` named; None for any other name, also for one that climbs out."""
    if not name.startswith(PREFIX) or "\0" in name:
        return None
    path = (PACKAGE / name.removeprefix(PREFIX)).resolve()
    return path if path.is_relative_to(PACKAGE) else None
