"""Copies of packages in wheel and sdist files, read without extracting anything."""

from __future__ import annotations

import email
import posixpath
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name

from residentkv.lowering.anchors import PackageCopy, TargetAbsentError, TargetUnreadableError
from residentkv.sources.cache import MAX_FILE_BYTES

_SDIST_PREFIXES = ("", "src/", "python/", "lib/")
_INSTALLED_BESIDE = re.compile(r"[^/]+\.data/(?:purelib|platlib|data/(?:.+/)?(?:site|dist)-packages)/")
"""Where a wheel holds files that an installer puts beside, or over, those at its top."""
MAX_MEMBERS = 200_000
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError)


class WheelCopy:
    """A package in a wheel (or an sdist in zip form)."""

    def __init__(self, path: Path) -> None:
        self.place = str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except _BROKEN as e:
            raise TargetUnreadableError(f"{path} is not a zip archive: {e}") from None
        self._names: dict[str, list[zipfile.ZipInfo]] = {}
        if len(self._zip.infolist()) > MAX_MEMBERS:
            raise TargetUnreadableError(f"{path} has more than {MAX_MEMBERS} members")
        for info in self._zip.infolist():
            if not info.is_dir():
                self._names.setdefault(posixpath.normpath(info.filename), []).append(info)
        found = [n for n in self._names if n.count("/") == 1 and n.endswith((".dist-info/METADATA", "/PKG-INFO"))]
        if len(found) != 1:
            raise TargetUnreadableError(f"{path} has {len(found)} metadata files, expected one")
        beside = {m[0] for name in self._names if (m := _INSTALLED_BESIDE.match(name))}
        self._prefixes = ("", *sorted(beside)) if found[0].endswith("METADATA") else _below(found[0].split("/")[0])
        self.distribution, self.version = _name_and_version(self._member(found[0]), self.place)

    def read(self, file: str) -> bytes:
        """Return a file of it; see `PackageCopy.read`."""
        found = [self._member(prefix + file) for prefix in self._prefixes if prefix + file in self._names]
        if not found:
            raise TargetAbsentError(f"{file} is not in the archive")
        return the_one_text(found, file)

    def files(self) -> Iterator[str]:
        """Yield the files of it; see `PackageCopy.files`."""
        yield from _names_below(self._names, self._prefixes)

    def _member(self, name: str) -> bytes:
        infos = self._names[name]
        if len(infos) > 1:
            raise TargetUnreadableError(f"{self.place} holds {name} {len(infos)} times")
        try:
            with self._zip.open(infos[0]) as f:
                return _limited(f.read(MAX_FILE_BYTES + 1), name)
        except _BROKEN as e:
            raise TargetUnreadableError(f"{name} cannot be read from {self.place}: {e}") from None


class SdistCopy:
    """A package in a compressed tar archive; read once, forward, and kept."""

    def __init__(self, path: Path) -> None:
        self.place = str(path)
        self._files: dict[str, bytes | None] = {}
        tops: set[str] = set()
        try:
            with tarfile.open(path, mode="r:*") as tar:
                for count, member in enumerate(tar):
                    if count >= MAX_MEMBERS:
                        raise TargetUnreadableError(f"{path} has more than {MAX_MEMBERS} members")
                    name = posixpath.normpath(member.name)
                    tops.add(name.split("/")[0])
                    stream = tar.extractfile(member) if member.isreg() and member.size <= MAX_FILE_BYTES else None
                    content = None if stream is None else stream.read()
                    # A name that occurs twice is ambiguous: what an extraction would leave depends on the tool.
                    self._files[name] = None if name in self._files else content
        except _BROKEN as e:
            raise TargetUnreadableError(f"{path} is not a tar archive: {e}") from None
        if len(tops) != 1:
            raise TargetUnreadableError(f"{path} has {len(tops)} folders at the top, expected one")
        (top,) = tops
        self._prefixes = _below(top)
        metadata = self._files.get(f"{top}/PKG-INFO")
        if metadata is None:
            raise TargetUnreadableError(f"{path} has no PKG-INFO")
        self.distribution, self.version = _name_and_version(metadata, self.place)

    def read(self, file: str) -> bytes:
        """Return a file of it; see `PackageCopy.read`."""
        found = [self._files[prefix + file] for prefix in self._prefixes if prefix + file in self._files]
        if not found:
            raise TargetAbsentError(f"{file} is not in the archive")
        plain = [content for content in found if content is not None]
        if len(plain) < len(found):
            raise TargetUnreadableError(f"{file} in {self.place} is not one plain file of a readable size")
        return the_one_text(plain, file)

    def files(self) -> Iterator[str]:
        """Yield the files of it; see `PackageCopy.files`."""
        yield from _names_below(self._files, self._prefixes)


def open_archive(path: Path) -> PackageCopy:
    """Open a wheel or sdist file.

    Raises:
        TargetUnreadableError: it is neither.
    """
    if path.name.endswith((".whl", ".zip")):
        return WheelCopy(path)
    return SdistCopy(path)


def the_one_text(found: Sequence[bytes], file: str) -> bytes:
    """Return what every file holds that may be the one that is imported; there is at least one.

    Raises:
        TargetUnreadableError: they differ, and which one is imported cannot be told.
    """
    if len(set(found)) > 1:
        raise TargetUnreadableError(
            f"{file} is in {len(found)} places, with different text, and which is imported cannot be told"
        )
    return found[0]


def archives_named(folder: Path, name: str) -> Iterator[Path]:
    """Yield the archives in a folder whose file name begins with a distribution's name."""
    if not folder.is_dir():
        return
    wanted = canonicalize_name(name)
    for path in sorted(folder.iterdir()):
        if not path.name.endswith((".whl", ".zip", ".tar.gz", ".tgz")):
            continue
        stem = path.name.split("-")[0] if path.suffix == ".whl" else path.name.rsplit("-", 1)[0]
        if canonicalize_name(stem) == wanted:
            yield path


def _names_below(names: Iterable[str], prefixes: tuple[str, ...]) -> Iterator[str]:
    """Yield each name without its longest prefix, so that `read` finds it again."""
    longest = sorted(prefixes, key=len, reverse=True)
    for name in names:
        prefix = next((p for p in longest if name.startswith(p)), None)
        if prefix is not None:
            yield name.removeprefix(prefix)


def _below(top: str) -> tuple[str, ...]:
    return tuple(f"{top}/{prefix}" for prefix in _SDIST_PREFIXES)


def _limited(content: bytes, name: str) -> bytes:
    if len(content) > MAX_FILE_BYTES:
        raise TargetUnreadableError(f"{name} is larger than {MAX_FILE_BYTES} bytes")
    return content


def _name_and_version(metadata: bytes, place: str) -> tuple[str, str]:
    message = email.message_from_bytes(metadata)
    name, version = message["Name"], message["Version"]
    if not isinstance(name, str) or not isinstance(version, str):
        raise TargetUnreadableError(f"the metadata in {place} names no package and version")
    return name, version
