"""Copies of packages that are installed, in this interpreter or in another environment; nothing is imported."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import Distribution, DistributionFinder, MetadataPathFinder
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

import residentkv
from residentkv.files import check_plain
from residentkv.lowering.anchors import TargetAbsentError, TargetUnreadableError
from residentkv.sources.archives import the_one_text
from residentkv.sources.cache import MAX_FILE_BYTES

OWN = "residentkv"


class InstalledCopy:
    """A package whose files lie below one of `roots` (several when editable).

    What lies in the site-packages `folder` that records it comes before an editable one, and may be another's.
    """

    def __init__(
        self,
        distribution: str,
        version: str,
        roots: Sequence[Path],
        record: str | None,
        problem: str = "",
        folder: Path | None = None,
    ) -> None:
        self.distribution = distribution
        self.version = version
        self._roots = tuple(roots)
        self._record = record
        self._problem = problem
        self._folder = folder

    @property
    def place(self) -> str:
        """The folder of its files."""
        return str(self._roots[0])

    @cached_property
    def _listed(self) -> frozenset[str] | None:
        if self._record is None:
            return None
        return _files_of(self._record)

    @cached_property
    def _of_others(self) -> dict[str, str]:
        """Files that other distributions record in the same folder, each with the metadata folder that does."""
        own = canonicalize_name(self.distribution)
        infos = [] if self._folder is None else sorted(self._folder.glob("*.dist-info"))
        others = [i for i in infos if canonicalize_name(i.name.partition("-")[0]) != own and (i / "RECORD").is_file()]
        records = {i.name: read_limited(i / "RECORD").decode("utf-8", "replace") for i in others}
        return {file: name for name, record in records.items() for file in _files_of(record)}

    def read(self, file: str) -> bytes:
        """Return a file of it; see `PackageCopy.read`."""
        if self._problem:
            raise TargetUnreadableError(self._problem)
        if self._listed is not None and file not in self._listed:
            raise TargetAbsentError(f"{file} is not a file of {self.distribution} {self.version}")
        if file in self._of_others:
            other = self._of_others[file]
            raise TargetUnreadableError(f"{file} is recorded by {other} too: it may be a file of either")
        roots = dict.fromkeys([*self._roots, *filter(None, [self._folder])])
        found = [read_limited(root / file) for root in roots if (root / file).is_file()]
        if not found:
            raise TargetAbsentError(f"{file} is missing from {self.distribution} {self.version}")
        return the_one_text(found, file)

    def files(self) -> Iterator[str]:
        """Yield the files that are recorded; of an editable or our own package, those below its roots."""
        if self._listed is not None:
            yield from self._listed
            return
        # Below the root of our own package others may be installed too.
        for root in self._roots:
            top = root / OWN if self.distribution == OWN else root
            yield from (p.relative_to(root).as_posix() for p in sorted(top.rglob("*.py")))


def _files_of(record: str) -> frozenset[str]:
    return frozenset(line.rsplit(",", 2)[0].strip('"') for line in record.splitlines())


def read_limited(path: Path, limit: int | None = None) -> bytes:
    """Return a file that is not larger than `limit` bytes, by default what an anchored file may have.

    Raises:
        TargetUnreadableError: it is larger, or reading failed.
    """
    try:
        limit = MAX_FILE_BYTES if limit is None else limit
        check_plain(path)
        if path.stat().st_size > limit:
            raise TargetUnreadableError(f"{path} is larger than {limit} bytes")
        return path.read_bytes()
    except OSError as e:
        raise TargetUnreadableError(f"{path} cannot be read: {e.strerror or e}") from None


def find_installed(name: str, folders: Sequence[Path]) -> Iterator[InstalledCopy]:
    """Yield the copies of a distribution in some site-packages folders and in this interpreter.

    For our own package only the one that is running counts.
    """
    if canonicalize_name(name) == OWN:
        yield InstalledCopy(OWN, residentkv.__version__, [Path(residentkv.__file__).parent.parent], None)
        return
    own = [Path(entry) for entry in sys.path if entry and Path(entry).is_dir()]
    seen: set[Path] = set()
    for folder in [*own, *folders]:
        real = folder.resolve()
        if real in seen:
            continue
        seen.add(real)
        yield from _in_folder(name, folder)


def _in_folder(name: str, folder: Path) -> Iterator[InstalledCopy]:
    try:
        yield from _read_folder(name, folder)
    except (UnicodeDecodeError, OSError) as e:
        raise TargetUnreadableError(f"the metadata of {name} in {folder} cannot be read: {e}") from None


def _read_folder(name: str, folder: Path) -> Iterator[InstalledCopy]:
    context = DistributionFinder.Context(name=name, path=[str(folder)])
    distributions = [d for d in MetadataPathFinder.find_distributions(context) if _is_called(d, name)]
    versions = sorted({d.version for d in distributions})
    problem = f"{folder} records several versions of {name}: {', '.join(versions)}" if len(versions) > 1 else ""
    for distribution in distributions:
        version = distribution.version
        editable = _editable_roots(distribution)
        record = None if editable else distribution.read_text("RECORD")
        called = str(distribution.metadata["Name"])
        yield InstalledCopy(called, version, editable or [folder], record, problem, folder)


def _is_called(distribution: Distribution, name: str) -> bool:
    found = distribution.metadata["Name"]
    version = distribution.metadata["Version"]
    return isinstance(found, str) and isinstance(version, str) and canonicalize_name(found) == canonicalize_name(name)


def _editable_roots(distribution: Distribution) -> list[Path]:
    text = distribution.read_text("direct_url.json")
    if text is None:
        return []
    try:
        entry = json.loads(text)
        if not entry.get("dir_info", {}).get("editable"):
            return []
        url = urlsplit(str(entry["url"]))
    except (ValueError, KeyError, AttributeError):
        return []
    project = Path(unquote(url.path))
    return [project / "src", project, project / "python"] if url.scheme == "file" else []
