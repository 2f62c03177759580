"""The descriptors that come with the package: `descriptors/<runtime>/<version>.yaml`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.specifiers import SpecifierSet

import residentkv
from residentkv.errors import InputError, NoInputError, UsageError, near
from residentkv.files import read_input
from residentkv.lowering.anchors import version_in
from residentkv.lowering.descriptor import decode_descriptor
from residentkv.lowering.model import Descriptor

LIBRARY = Path(residentkv.__file__).parent / "descriptors"


def shipped_runtimes() -> list[str]:
    """Return the runtimes that the library has descriptors for."""
    return sorted({path.parent.name for path in LIBRARY.glob("*/*.yaml")})


def load_descriptor(path: Path) -> Descriptor:
    """Read one descriptor file; below the current folder it is named by its relative path.

    Raises:
        NoInputError: it cannot be read.
        InputError: it is not a descriptor.
    """
    return decode_descriptor(read_input(path), _short(path))


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path)


def load_library(runtime: str | None = None) -> list[Descriptor]:
    """Read the descriptors of one runtime, or of all.

    Raises:
        InputError: a file is not a descriptor, or lies in the folder of another runtime.
    """
    found = []
    for path in sorted(LIBRARY.glob(f"{runtime or '*'}/*.yaml")):
        descriptor = load_descriptor(path)
        if descriptor.runtime != path.parent.name:
            message = f"found runtime {descriptor.runtime}, expected {path.parent.name} as the folder says"
            raise InputError(message, path=str(path), code="RKV153")
        found.append(descriptor)
    return found


def pick_runtime(runtime: str, own: Sequence[Descriptor]) -> None:
    """Check that a runtime is known.

    Raises:
        UsageError: it is not; the message lists those that are, and the nearest.
    """
    known = sorted({*shipped_runtimes(), *(d.runtime for d in own)})
    if runtime not in known:
        raise UsageError(f"unknown runtime {runtime[:60]!r}, expected one of {', '.join(known)}{near(runtime, known)}")


def pick_version(version: str, descriptors: Iterable[Descriptor]) -> list[Descriptor]:
    """Return the descriptors of a version: named exactly, or with the version in their range.

    Raises:
        UsageError: there is none; the message lists those that are.
    """
    candidates = list(descriptors)
    found = [d for d in candidates if d.version == version or version_in(version, SpecifierSet(d.versions))]
    if not found:
        have = ", ".join(sorted(f"{d.runtime} {d.version} ({d.versions})" for d in candidates))
        raise UsageError(f"no descriptor for version {version[:60]!r}, expected one of {have}")
    return found


def _check_distinct(descriptors: Iterable[Descriptor]) -> None:
    """Check that no row would be judged twice: a baseline has it once, and a page has one place for it."""
    seen: dict[tuple[str, str, str], str] = {}
    for descriptor in descriptors:
        for primitive in descriptor.primitives:
            key = (descriptor.runtime, descriptor.version, primitive.id)
            if key in seen:
                raise UsageError(
                    f"found {primitive.id} of {descriptor.runtime} {descriptor.version} in {seen[key]} and in "
                    f"{descriptor.path}, expected it once; leave one of the files out"
                )
            seen[key] = descriptor.path


def select_descriptors(runtime: str | None, version: str | None, files: Sequence[str]) -> list[Descriptor]:
    """Return the descriptors that were asked for: the named files, or else those of the library.

    Raises:
        UsageError: unknown runtime, no descriptor for the version, or two named files about the same primitive.
    """
    own = [load_descriptor(Path(f)) for f in files]
    _check_distinct(own)
    if runtime is not None:
        pick_runtime(runtime, own)
    found = own if files else load_library(runtime)
    found = [d for d in found if runtime is None or d.runtime == runtime]
    if not found:
        raise NoInputError(
            f"check: none of the descriptors is about {runtime}; leave --runtime out or name another file"
        )
    return found if version is None else pick_version(version, found)
