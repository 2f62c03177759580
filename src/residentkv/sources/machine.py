"""The `Sources` of this machine: what the command line names, and what lies in the cache folder."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.utils import canonicalize_name

from residentkv.errors import NoInputError
from residentkv.files import is_there
from residentkv.lowering.anchors import PackageCopy, TargetAbsentError, TargetUnreadableError
from residentkv.sources.archives import archives_named, open_archive
from residentkv.sources.cache import MAX_TRACE_BYTES, checkouts_dir, packages_dir, venv_site_packages
from residentkv.sources.git import Checkouts, normalise_repository
from residentkv.sources.installed import find_installed, read_limited

# What is opened and never closed goes to the end, as in a browser; and no text is then read more than once.
_SKIPPED = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)", re.S | re.I)
_TAG = re.compile(r"<[^>]*(?:>|\Z)")


@dataclass(slots=True)
class MachineSources:
    """Reads installed packages, archives, checkouts, documents and traces.

    Args:
        site_packages: more package folders than this interpreter's.
        archives: wheel or sdist files that the caller named.
        archive_folder: where fetched archives lie, or None.
        checkouts: git checkouts.
        documents: text files by URL.
    """

    site_packages: Sequence[Path]
    archives: Sequence[Path]
    archive_folder: Path | None
    checkouts: Checkouts
    documents: Mapping[str, Path]
    _copies: dict[str, list[PackageCopy]] = field(default_factory=dict)
    _opened: list[PackageCopy] | None = None

    def package_copies(self, names: Sequence[str]) -> Sequence[PackageCopy]:
        """Return every copy of the distributions called one of `names`."""
        found: list[PackageCopy] = []
        for name in names:
            if name not in self._copies:
                self._copies[name] = list(self._find(name))
            found.extend(self._copies[name])
        return found

    def _find(self, name: str) -> list[PackageCopy]:
        copies: list[PackageCopy] = list(find_installed(name, self.site_packages))
        if self.archive_folder is not None:
            copies.extend(open_archive(path) for path in archives_named(self.archive_folder, name))
        if self._opened is None:
            self._opened = [open_archive(path) for path in self.archives]
        copies.extend(c for c in self._opened if canonicalize_name(c.distribution) == canonicalize_name(name))
        return copies

    def git_file(self, repository: str, commit: str, file: str) -> bytes:
        """Return a file of a repository at a commit: the text that was given for its web address, or a checkout's.

        A repository can be too large to clone for one file. Of a single file nobody can see that it is of that commit;
        the digest says only that it has the text that was anchored.
        """
        given = self.documents.get(f"https://{normalise_repository(repository)}/blob/{commit}/{file}")
        if given is not None:
            return read_limited(given)
        return self.checkouts.read(repository, commit, file)

    def document_text(self, url: str) -> str:
        """Return the text of a document that the caller gave; of a page, the text between its tags."""
        path = self.documents.get(url)
        if path is None:
            raise TargetUnreadableError("its text was not read in this run; give --document URL=FILE")
        text = read_limited(path).decode("utf-8", "replace")
        if path.suffix.lower() in (".html", ".htm"):
            try:
                text = html.unescape(_TAG.sub(" ", _SKIPPED.sub(" ", text)))
            except ValueError as e:  # a character reference of thousands of digits
                raise TargetUnreadableError(f"{path} is no page that can be read: {e}") from None
        return text

    def trace_bytes(self, descriptor: str, file: str) -> bytes:
        """Return a trace that lies beside a descriptor."""
        path = Path(descriptor).parent / file
        if not path.is_file():
            raise TargetAbsentError(f"{file} is missing beside {Path(descriptor).name}")
        return read_limited(path, MAX_TRACE_BYTES)


def _check_named(path: Path, is_kind: Callable[[Path], bool], kind: str) -> None:
    if not is_there(path):
        raise NoInputError(f"{path}: no such file or folder, expected it because it was named on the command line")
    if not is_kind(path):
        raise NoInputError(f"{path}: found no {kind}, expected one because it was named on the command line")


def machine_sources(
    *,
    site_packages: Sequence[Path] = (),
    archives: Sequence[Path] = (),
    checkouts: Mapping[str, Path] | None = None,
    documents: Mapping[str, Path] | None = None,
) -> MachineSources:
    """Return the sources of this machine: this interpreter, the cache folder, and what the caller names.

    Raises:
        NoInputError: something that the caller named is not there, or is a file for a folder or the other way round.
    """
    for path in [*site_packages, *(checkouts or {}).values()]:
        _check_named(path, Path.is_dir, "folder")
    for path in [*archives, *(documents or {}).values()]:
        _check_named(path, Path.is_file, "file")
    return MachineSources(
        site_packages=[*site_packages, *venv_site_packages()],
        archives=archives,
        archive_folder=packages_dir(),
        checkouts=Checkouts(dict(checkouts or {}), checkouts_dir()),
        documents=dict(documents or {}),
    )
