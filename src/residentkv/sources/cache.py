"""The cache folder: runtime environments, fetched packages and checkouts."""

from __future__ import annotations

import os
from pathlib import Path

ENV = "RESIDENTKV_CACHE"
MAX_FILE_BYTES = 16 << 20
"""No anchored file is larger; what is larger is not read."""
MAX_TRACE_BYTES = 256 << 20
"""No trace that a descriptor brings is larger."""


def cache_dir() -> Path:
    """Return `$RESIDENTKV_CACHE`, or `~/.cache/residentkv`; it need not exist."""
    named = os.environ.get(ENV)
    return Path(named) if named else Path.home() / ".cache" / "residentkv"


def packages_dir() -> Path:
    """Return where `residentkv anchors fetch` puts archives."""
    return cache_dir() / "packages"


def checkouts_dir() -> Path:
    """Return where git checkouts lie, one folder each, named `host+owner+name`."""
    return cache_dir() / "checkouts"


def venv_site_packages() -> list[Path]:
    """Return the package folders of the environments in the cache."""
    return sorted((cache_dir() / "venvs").glob("*/lib/python3*/site-packages"))
