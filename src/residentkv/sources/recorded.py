"""Sources that read nothing but this package and what lies beside its descriptors, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from residentkv.lowering.anchors import PackageCopy, TargetUnreadableError
from residentkv.sources.git import Checkouts
from residentkv.sources.installed import OWN, find_installed
from residentkv.sources.machine import MachineSources


class OwnSources(MachineSources):
    """Every other package, checkout and document is out of reach, so its anchors are as their digests recorded."""

    def __init__(self) -> None:
        nowhere = Checkouts({}, Path("/nonexistent"))
        super().__init__(site_packages=(), archives=(), archive_folder=None, checkouts=nowhere, documents={})

    def package_copies(self, names: Sequence[str]) -> Sequence[PackageCopy]:
        """Return this package when it is asked for, and no other."""
        return [copy for name in names if name == OWN for copy in find_installed(name, ())]

    def git_file(self, repository: str, commit: str, file: str) -> bytes:
        """Raise: no repository is read."""
        raise TargetUnreadableError(f"{repository} is not read here")
