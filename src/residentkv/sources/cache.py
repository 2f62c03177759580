"""What lies in the cache folder (environments, fetched packages, checkouts), and how large a file may be to be read."""

from __future__ import annotations

from pathlib import Path

from residentkv.files import cache_dir

MAX_FILE_BYTES = 16 << 20
"""No anchored file is larger; what is larger is not read."""
MAX_TRACE_BYTES = 256 << 20
"""No trace that a descriptor brings is larger."""


def packages_dir() -> Path:
    """Return where `residentkv anchors fetch` puts archives."""
    return cache_dir() / "packages"


def checkouts_dir() -> Path:
    """Return where git checkouts lie, one folder each, named `host+owner+name`."""
    return cache_dir() / "checkouts"


def venv_site_packages() -> list[Path]:
    """Return the package folders of the environments in the cache."""
    return sorted((cache_dir() / "venvs").glob("*/lib/python3*/site-packages"))
