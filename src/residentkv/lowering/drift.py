"""What became of the anchors of a descriptor in another version of the package. Pure; reads through `Sources`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from residentkv.lowering.anchors import (
    AnchorReport,
    AnchorState,
    AnchorVerifier,
    Scope,
    TargetAbsentError,
    TargetUnreadableError,
)
from residentkv.lowering.checking import scope_of
from residentkv.lowering.format import PackageAnchor
from residentkv.lowering.model import Descriptor


@dataclass(frozen=True, slots=True)
class Drift:
    """One anchor in the other version. `diff` is empty when the text is the same or the old text is not at hand."""

    report: AnchorReport
    diff: tuple[str, ...]


def find_drift(
    descriptor: Descriptor, verifier: AnchorVerifier, package: str | None, version: str | None
) -> Iterator[Drift]:
    """Yield the anchors of a descriptor as they are in another version, and what changed in the text.

    Args:
        descriptor: whose anchors.
        verifier: reads the copies.
        package: name of the package or of a distribution of it, anchors in others are left out; None compares every
            anchor with the versions that it is about.
        version: the exact version to compare with.
    """
    for name, anchor in descriptor.anchors.items():
        scope = scope_of(descriptor)
        if package is not None and version is not None:
            if not isinstance(anchor, PackageAnchor) or not _is_in(anchor, descriptor, package):
                continue
            names = descriptor.distributions if package == descriptor.package else (package,)
            scope = Scope(descriptor.path, anchor.package, tuple(names), f"=={version}")
            anchor = msgspec.structs.replace(anchor, version=None)
        report = verifier.verify(name, anchor, scope)
        diff: tuple[str, ...] = ()
        if report.state is AnchorState.CHANGED and isinstance(anchor, PackageAnchor):
            diff = tuple(_diff(anchor, scope_of(descriptor), scope, verifier))
        yield Drift(report, diff)


def _is_in(anchor: PackageAnchor, descriptor: Descriptor, package: str) -> bool:
    names = {descriptor.package, *descriptor.distributions}
    return anchor.package == (descriptor.package if package in names else package)


def _diff(anchor: PackageAnchor, old: Scope, new: Scope, verifier: AnchorVerifier) -> Iterator[str]:
    """Compare texts: the recorded one is taken from any copy, in any version, that still has its digest."""
    before = next((t for t in _texts(anchor, old, verifier) if t.is_recorded), None)
    after = next((t for t in _texts(anchor, new, verifier) if t.is_in_range and not t.is_recorded), None)
    if before is None or after is None:
        return
    yield from difflib.unified_diff(
        before.text.splitlines(), after.text.splitlines(), before.label, after.label, lineterm=""
    )


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    label: str
    is_recorded: bool
    is_in_range: bool


def _texts(anchor: PackageAnchor, scope: Scope, verifier: AnchorVerifier) -> Iterator[_Text]:
    """Yield what stands at an address in every copy that has it."""
    try:
        in_range, copies = verifier.copies_in_range(anchor, scope)
    except TargetUnreadableError:
        return
    for copy in copies:
        try:
            raw = copy.read(anchor.file)
        except (TargetAbsentError, TargetUnreadableError):
            continue
        text = verifier.text_at(anchor, raw)
        if text is not None:
            label = f"{copy.distribution} {copy.version} {anchor.file}"
            yield _Text(text, label, verifier.locate(anchor, raw).state.is_verified, copy in in_range)
