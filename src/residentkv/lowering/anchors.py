"""Anchors: whether the text that a descriptor points at is there, in this run (spec section 5).

Pure: everything is read through a `Sources`. `residentkv.sources` has the one that reads this machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec
from msgspec import UNSET
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from residentkv.claims.modes import NamedChoice
from residentkv.errors import EXIT_UNKNOWN, ResidentKVError
from residentkv.lowering.format import Anchor, CodeAnchor, DocumentAnchor, GitAnchor, PackageAnchor, TraceAnchor
from residentkv.lowering.text import (
    LineSpan,
    digest_lines,
    normalise,
    normalise_quote,
    parse_span,
    render_span,
    split_lines,
    symbol_spans,
    uncertain_name,
)

MAX_SEARCHED_BYTES = 1 << 28
"""How much is digested to find lines that moved: every place is, since a digest says nothing about the text."""
_LINE_COST_BYTES = 64
"""What it costs to normalise a line, however short."""
_PLACE_COST_LINES = 8
"""What it costs to digest a place, however few lines it has."""


class TargetAbsentError(ResidentKVError):
    """The place could be read and does not hold the file."""


class TargetUnreadableError(ResidentKVError):
    """The place could not be read; the message says why and what to do."""

    exit_code = EXIT_UNKNOWN


class AnchorState(NamedChoice):
    """What became of an anchor in this run; only the first two are verified."""

    VERIFIED = "verified"
    MOVED = "moved"
    CHANGED = "changed"
    ABSENT = "absent"
    UNREADABLE = "unreadable"
    OUT_OF_VERSION_RANGE = "out_of_version_range"

    @property
    def is_verified(self) -> bool:
        """Whether the target was read in this run and the digest matched."""
        return self in (AnchorState.VERIFIED, AnchorState.MOVED)

    @property
    def is_unreached(self) -> bool:
        """Whether the target could not be looked at here: neither confirmed nor refuted."""
        return self in (AnchorState.UNREADABLE, AnchorState.OUT_OF_VERSION_RANGE)


WORST_FIRST = (
    AnchorState.CHANGED,
    AnchorState.ABSENT,
    AnchorState.UNREADABLE,
    AnchorState.OUT_OF_VERSION_RANGE,
    AnchorState.MOVED,
    AnchorState.VERIFIED,
)
"""States in the order in which one of several is told."""


@dataclass(frozen=True, slots=True)
class AnchorReport:
    """The state of one anchor; the fields after `target` say what was found and are empty when nothing was."""

    anchor: str
    state: AnchorState
    sentence: str
    target: str
    lines: str = ""
    sha256: str = ""
    distribution: str = ""
    version: str = ""
    place: str = ""


class PackageCopy(Protocol):
    """One readable copy of a package: installed, or in an archive. Nothing of it is ever imported."""

    @property
    def distribution(self) -> str:
        """Name under which it is published."""

    @property
    def version(self) -> str:
        """Its version, as its metadata says."""

    @property
    def place(self) -> str:
        """Where it lies, for a reader."""

    def read(self, file: str) -> bytes:
        """Return a file of it.

        Raises:
            TargetAbsentError: it has no such file.
            TargetUnreadableError: it could not be read.
        """

    def files(self) -> Iterator[str]:
        """Yield the names that `read` takes, in any order."""


class Sources(Protocol):
    """Where anchors are looked up. Every method raises TargetAbsentError or TargetUnreadableError."""

    def package_copies(self, names: Sequence[str]) -> Sequence[PackageCopy]:
        """Return every copy of the distributions called one of `names`, in any version."""

    def git_file(self, repository: str, commit: str, file: str) -> bytes:
        """Return a file of a repository at a commit."""

    def document_text(self, url: str) -> str:
        """Return the text of a document."""

    def trace_bytes(self, descriptor: str, file: str) -> bytes:
        """Return a trace that lies beside a descriptor."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What the anchors of one descriptor share.

    Args:
        path: the descriptor file; traces lie beside it.
        package: the package that it is about.
        distributions: names under which that package is published.
        versions: the versions that it is about; an anchor to another one is out of range.
    """

    path: str
    package: str
    distributions: tuple[str, ...]
    versions: str


@dataclass(frozen=True, slots=True)
class Found:
    """What stands at the address of a code anchor."""

    state: AnchorState
    sentence: str
    lines: str = ""
    sha256: str = ""


@dataclass(slots=True)
class _File:
    lines: list[str]
    raw: bytes
    symbols: dict[str, list[LineSpan]] | None = None
    problem: str = ""


@dataclass(slots=True)
class AnchorVerifier:
    """Verifies anchors against `sources`; files are parsed once however many anchors lie in them."""

    sources: Sources
    _files: dict[bytes, _File] = field(default_factory=dict)

    def verify_all(self, anchors: Mapping[str, Anchor], scope: Scope) -> dict[str, AnchorReport]:
        """Return the report of every anchor, by id."""
        return {name: self.verify(name, anchor, scope) for name, anchor in anchors.items()}

    def verify(self, name: str, anchor: Anchor, scope: Scope) -> AnchorReport:
        """Return the report of one anchor; never raises for what it finds."""
        # Every copy in range must agree: a pristine archive does not excuse an edited installation.
        return min(self.look(name, anchor, scope), key=lambda r: (WORST_FIRST.index(r.state), r.place))

    def look(self, name: str, anchor: Anchor, scope: Scope) -> list[AnchorReport]:
        """Return at least one report: one for each copy in range of a package, one for any other anchor."""
        target = describe_anchor(anchor)
        try:
            if isinstance(anchor, PackageAnchor):
                return self._package(name, anchor, target, scope)
            if isinstance(anchor, GitAnchor):
                found = self.locate(anchor, self.sources.git_file(anchor.repository, anchor.commit, anchor.file))
                report = AnchorReport(
                    name, found.state, found.sentence, target, found.lines, found.sha256, version=anchor.commit
                )
            elif isinstance(anchor, TraceAnchor):
                report = _verify_trace(name, anchor, target, self.sources.trace_bytes(scope.path, anchor.file))
            else:
                report = _verify_document(name, anchor, target, self.sources.document_text(anchor.url))
        except TargetAbsentError as e:
            report = AnchorReport(name, AnchorState.ABSENT, str(e), target)
        except TargetUnreadableError as e:
            report = AnchorReport(name, AnchorState.UNREADABLE, str(e), target)
        return [report]

    def copies_in_range(self, anchor: PackageAnchor, scope: Scope) -> tuple[list[PackageCopy], list[PackageCopy]]:
        """Return the copies of an anchor's package in range, and all of them.

        Raises:
            TargetUnreadableError: a copy could not be opened.
        """
        is_described = anchor.package == scope.package
        names = tuple(scope.distributions) if is_described else (anchor.package,)
        copies = list(self.sources.package_copies(names))
        wanted = [SpecifierSet(s) for s in (anchor.version, scope.versions if is_described else None) if s]
        return [c for c in copies if all(version_in(c.version, spec) for spec in wanted)], copies

    def text_at(self, anchor: CodeAnchor, raw: bytes) -> str | None:
        """Return the normalised text at the address of an anchor in a file, or None when there is none."""
        found = self.locate(msgspec.structs.replace(anchor, sha256=UNSET), raw)
        if not found.lines:
            return None
        first, last = parse_span(found.lines)
        return normalise(self._file(raw).lines[first - 1 : last])

    def _package(self, name: str, anchor: PackageAnchor, target: str, scope: Scope) -> list[AnchorReport]:
        in_range, copies = self.copies_in_range(anchor, scope)
        if not copies:
            names = scope.distributions if anchor.package == scope.package else (anchor.package,)
            versions = anchor.version or scope.versions
            exact = versions if versions.startswith("==") and "," not in versions else "==VERSION"
            hint = f"run 'residentkv anchors fetch {names[0]}{exact}'"
            sentence = f"no copy of {' or '.join(names)} was found on this machine; {hint}"
            return [AnchorReport(name, AnchorState.UNREADABLE, sentence, target)]
        if not in_range:
            have = ", ".join(sorted({f"{c.distribution} {c.version}" for c in copies}))
            limits = {anchor.version, scope.versions if anchor.package == scope.package else None}
            need = " and ".join(sorted(s for s in limits if s))
            sentence = f"found {have}, expected version {need}"
            return [AnchorReport(name, AnchorState.OUT_OF_VERSION_RANGE, sentence, target)]
        strange = next((c for c in copies if not is_version(c.version)), None)
        if strange is not None:
            sentence = (
                f"{strange.distribution} in {strange.place} has the version {strange.version[:40]!r}, which is none: "
                "it may be in range, and cannot be placed; install it anew or take it away"
            )
            return [AnchorReport(name, AnchorState.UNREADABLE, sentence, target)]
        return [self._copy(name, anchor, target, copy) for copy in in_range]

    def _copy(self, name: str, anchor: PackageAnchor, target: str, copy: PackageCopy) -> AnchorReport:
        try:
            found = self.locate(anchor, copy.read(anchor.file))
        except TargetAbsentError as e:
            found = Found(AnchorState.ABSENT, str(e))
        except TargetUnreadableError as e:
            found = Found(AnchorState.UNREADABLE, str(e))
        return AnchorReport(
            anchor=name,
            state=found.state,
            sentence=f"{copy.distribution} {copy.version} in {copy.place}: {found.sentence}",
            target=target,
            lines=found.lines,
            sha256=found.sha256,
            distribution=copy.distribution,
            version=copy.version,
            place=copy.place,
        )

    def locate(self, anchor: CodeAnchor, raw: bytes) -> Found:
        """Look for the text of an anchor in a file.

        An anchor without a digest (a draft) is reported `changed`, with the digest that it would have.
        """
        file = self._file(raw)
        if file.problem:
            return Found(AnchorState.UNREADABLE, f"the file is {file.problem}")
        if anchor.symbol is not None:
            return self._locate_symbol(anchor, anchor.symbol, file)
        return _locate_lines(anchor, file)

    def _file(self, raw: bytes) -> _File:
        key = hashlib.sha256(raw).digest()
        if key not in self._files:
            try:
                self._files[key] = _File(split_lines(raw.decode("utf-8-sig")), raw)
            except UnicodeDecodeError as e:
                self._files[key] = _File([], raw, problem=f"not UTF-8 at byte {e.start}")
        return self._files[key]

    def _locate_symbol(self, anchor: CodeAnchor, symbol: str, file: _File) -> Found:
        if file.symbols is None:
            try:
                file.symbols = symbol_spans(file.raw)
            except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
                return Found(AnchorState.UNREADABLE, f"the file cannot be parsed as Python: {e}")
        unsure = uncertain_name(file.symbols, symbol)
        if unsure is None:
            return _compare(anchor, file, file.symbols[symbol][0])
        if symbol in file.symbols:
            spans = file.symbols.get(unsure, [])
            where = ", ".join(render_span(s) for s in spans) or "none"
            sentence = f"{unsure} is defined {len(spans)} times (lines {where}), expected once; anchor lines instead"
            return Found(AnchorState.CHANGED, sentence)
        elsewhere = _search(anchor, file, file.symbols)
        if elsewhere is None:
            return Found(AnchorState.ABSENT, f"the file has no {symbol}")
        sentence = f"{symbol} is gone, the same text is in lines {render_span(elsewhere)}"
        return Found(AnchorState.MOVED, sentence, render_span(elsewhere), _digest(file, elsewhere))


def version_in(version: str, spec: SpecifierSet) -> bool:
    """Return whether a version lies in a range; a version that cannot be read does not."""
    try:
        return spec.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


def is_version(version: str) -> bool:
    """Return whether a version can be read."""
    try:
        Version(version)
    except InvalidVersion:
        return False
    return True


def describe_anchor(anchor: Anchor) -> str:
    """Return in one line what an anchor points at."""
    if isinstance(anchor, DocumentAnchor):
        return f"{anchor.url} (retrieved {anchor.retrieved})"
    if isinstance(anchor, TraceAnchor):
        return f"trace {anchor.file}"
    address = anchor.symbol or f"lines {anchor.lines}"
    if isinstance(anchor, GitAnchor):
        return f"{address} in {anchor.file} of {anchor.repository} at {anchor.commit[:12]}"
    return f"{address} in {anchor.file} of {anchor.package}"


def _digest(file: _File, span: LineSpan) -> str:
    return digest_lines(file.lines[span[0] - 1 : span[1]])


def _is_blank(file: _File, span: LineSpan) -> bool:
    return not any(line.strip() for line in file.lines[span[0] - 1 : span[1]])


def _compare(anchor: CodeAnchor, file: _File, span: LineSpan) -> Found:
    found, expected = _digest(file, span), anchor.sha256
    lines = render_span(span)
    if _is_blank(file, span):
        return Found(AnchorState.CHANGED, f"lines {lines} are blank, expected text")
    if expected is UNSET:
        return Found(AnchorState.CHANGED, f"lines {lines} have no recorded digest", lines, found)
    if found != expected:
        sentence = f"lines {lines} have sha256 {found[:12]}.., expected {str(expected)[:12]}.."
        return Found(AnchorState.CHANGED, sentence, lines, found)
    if anchor.lines is not None and anchor.lines != lines:
        return Found(AnchorState.MOVED, f"unchanged, but in lines {lines} instead of {anchor.lines}", lines, found)
    return Found(AnchorState.VERIFIED, f"lines {lines} are unchanged", lines, found)


def _locate_lines(anchor: CodeAnchor, file: _File) -> Found:
    span = parse_span(anchor.lines or "1-1")
    if span[1] <= len(file.lines):
        here = _compare(anchor, file, span)
        if here.state is AnchorState.VERIFIED or anchor.sha256 is UNSET:
            return here
    else:
        here = Found(AnchorState.ABSENT, f"the file has {len(file.lines)} lines, expected lines {anchor.lines}")
    height = span[1] - span[0] + 1
    if (height + _PLACE_COST_LINES) * (len(file.raw) + _LINE_COST_BYTES * len(file.lines)) > MAX_SEARCHED_BYTES:
        return replace(here, sentence=f"{here.sentence}; not looked for elsewhere, since the file is too long for it")
    elsewhere = _search(anchor, file, {})
    if elsewhere is None:
        return here
    lines = render_span(elsewhere)
    sentence = f"unchanged, but in lines {lines} instead of {anchor.lines}"
    return Found(AnchorState.MOVED, sentence, lines, _digest(file, elsewhere))


def _search(anchor: CodeAnchor, file: _File, symbols: Mapping[str, Sequence[LineSpan]]) -> LineSpan | None:
    """Return the only place in the file that has the text of the anchor; none when it is in several.

    Of a symbol that is gone this is another symbol, one that is bound once: its text in a string is no symbol.
    """
    if anchor.sha256 is UNSET:
        return None
    if anchor.symbol is not None:
        spans = {span for spans in symbols.values() for span in spans}
        certain = {spans[0] for name, spans in symbols.items() if uncertain_name(symbols, name) is None}
    else:
        first, last = parse_span(anchor.lines or "1-1")
        height = last - first + 1
        spans = {(n, n + height - 1) for n in range(1, len(file.lines) - height + 2)}
        certain = spans
    matches = [s for s in sorted(spans) if _digest(file, s) == anchor.sha256 and not _is_blank(file, s)]
    return matches[0] if len(matches) == 1 and matches[0] in certain else None


def _verify_trace(name: str, anchor: TraceAnchor, target: str, raw: bytes) -> AnchorReport:
    found = hashlib.sha256(raw).hexdigest()
    if found != anchor.sha256:
        sentence = f"the file has sha256 {found[:12]}.., expected {str(anchor.sha256)[:12]}.."
        return AnchorReport(name, AnchorState.CHANGED, sentence, target, sha256=found)
    return AnchorReport(name, AnchorState.VERIFIED, "the file is unchanged", target, sha256=found)


def _verify_document(name: str, anchor: DocumentAnchor, target: str, text: str) -> AnchorReport:
    if normalise_quote(anchor.quote) in normalise_quote(text):
        return AnchorReport(name, AnchorState.VERIFIED, "the quoted sentence is in the text", target)
    return AnchorReport(name, AnchorState.CHANGED, "the quoted sentence is not in the text", target)
