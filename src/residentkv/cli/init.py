"""`residentkv init`: write a descriptor skeleton for a package that is installed; its code is read, never imported."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import msgspec

from residentkv.cli.options import named_sources, source_options, write_file
from residentkv.errors import EXIT_PASS, NoInputError, UsageError
from residentkv.files import is_there
from residentkv.lowering.anchors import AnchorVerifier, PackageCopy, Scope, TargetAbsentError, TargetUnreadableError
from residentkv.lowering.candidates import (
    WORDS,
    Candidate,
    anchor_names,
    find_candidates,
    pick_candidates,
    render_skeleton,
)
from residentkv.lowering.descriptor import decode_descriptor
from residentkv.lowering.edit import Value
from residentkv.lowering.format import Ident, PackageAnchor
from residentkv.lowering.pinning import pin_anchor
from residentkv.report.plain import escape_controls

MAX_UNREAD_TOLD = 5
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,79}")
_UNFIT = re.compile(r"[^a-z0-9_.-]+")


@click.command()
@click.argument("package", metavar="PACKAGE")
@click.option("-o", "--output", metavar="FILE", help="Where to write it; PACKAGE.yaml when not given.")
@click.option("--runtime", metavar="NAME", help="Name of the runtime; that of the package when not given.")
@click.option("--version", metavar="VERSION", help="Which version, when several are at hand.")
@click.option("--limit", default=12, show_default=True, metavar="N", help="Anchors for each word, at most.")
@source_options
def init(
    package: str,
    output: str | None,
    runtime: str | None,
    version: str | None,
    limit: int,
    documents: tuple[str, ...],
    checkouts: tuple[str, ...],
    archives: tuple[str, ...],
    site_packages: tuple[str, ...],
) -> int:
    """Write a descriptor skeleton: anchors for what is called retention, ttl, pin, priority, offload or lease.

    A name proves nothing, so the skeleton has no evidence and every row of it is unknown until a person judges it.
    The package is read as text, from an environment or an archive, and never imported.

    \b
    Examples:
      residentkv init PACKAGE
      residentkv init PACKAGE --site-packages DIR -o FILE
    """
    if limit < 1:
        raise UsageError(f"init: found --limit {limit}, expected 1 or more")
    if runtime is not None:
        _check_runtime(runtime)
    path = Path(output or f"{_UNFIT.sub('-', package.lower())}.yaml")
    if is_there(path):
        raise UsageError(f"init: {path} exists, expected a new file; judged work is not written over")
    sources = named_sources(documents, checkouts, archives, site_packages)
    copy = _only_copy(sources.package_copies([package]), package, version)
    unread: list[str] = []
    found = list(_survey(copy, unread))
    candidates, left = pick_candidates(found, limit)
    if not candidates:
        raise NoInputError(
            f"init: {copy.distribution} {copy.version} has no symbol called {', '.join(WORDS)}; write the descriptor "
            "by hand, see docs/write-a-descriptor.md"
        )
    scope = Scope(str(path), copy.distribution, (copy.distribution,), f"=={copy.version}")
    verifier = AnchorVerifier(sources)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    names = anchor_names(candidates)
    pinned: dict[Candidate, dict[str, Value]] = {}
    for candidate, name in names.items():
        anchor = PackageAnchor(package=copy.distribution, file=candidate.file, symbol=candidate.symbol)
        pinned[candidate] = pin_anchor(name, anchor, scope, verifier, today)
    notes = [f"{left} more candidates were left out; --limit takes more."] if left else []
    notes += [f"Not read: {text}" for text in unread[:MAX_UNREAD_TOLD]]
    if len(unread) > MAX_UNREAD_TOLD:
        notes.append(f"and {len(unread) - MAX_UNREAD_TOLD} files more that could not be read.")
    named = runtime if runtime is not None else _UNFIT.sub("-", copy.distribution.lower()).strip("-._")
    text = render_skeleton(
        named, copy.distribution, copy.version, candidates, pinned, names, [escape_controls(n) for n in notes]
    )
    decode_descriptor(text.encode(), str(path))  # a skeleton that does not parse is our mistake, and is not written
    write_file(path, text)
    for word, group in candidates.items():
        click.echo(f"{word:<10} {len(group):>3} candidates, such as {group[0].symbol} in {group[0].file}")
    click.echo(escape_controls(f"{path}: {len(names)} anchors, nothing judged; every row of it is unknown"))
    return EXIT_PASS


def _check_runtime(name: str) -> None:
    try:
        msgspec.convert(name, Ident)
    except msgspec.ValidationError:
        raise UsageError(f"init: found --runtime {name[:60]!r}, expected a lower-case name without spaces") from None


def _only_copy(copies: Sequence[PackageCopy], package: str, version: str | None) -> PackageCopy:
    """Return the copy to read; several of one version are told apart later, when the digests are written."""
    wanted = [c for c in copies if version in (None, c.version)]
    if not wanted:
        raise NoInputError(
            f"init: no copy of {package[:60]!r} {version or ''} was found; name the folder of its environment with "
            "--site-packages, or an archive with --archive"
        )
    versions = sorted({c.version for c in wanted})
    if len(versions) > 1:
        raise UsageError(f"init: found {package[:60]!r} in the versions {', '.join(versions)}, expected --version")
    copy = wanted[0]
    if not _NAME.fullmatch(copy.distribution) or not _NAME.fullmatch(copy.version):
        raise UsageError(
            f"init: found the name {copy.distribution!r} and version {copy.version!r}, expected plain words"
        )
    return copy


def _survey(copy: PackageCopy, unread: list[str]) -> Iterator[Candidate]:
    """Yield the candidates of every Python file of a package that is no test."""
    for file in sorted(copy.files()):
        if not file.endswith(".py") or re.search(r"(^|/)(tests?|testing)/|(^|/)(test_[^/]*|conftest)\.py$", file):
            continue
        try:
            raw = copy.read(file)
            raw.decode("utf-8")  # anchors are digests of UTF-8 text, whatever else Python would read
            yield from (c for c in find_candidates(file, raw) if _is_anchor(copy.distribution, c))
        except (TargetAbsentError, TargetUnreadableError, SyntaxError, ValueError, RecursionError, MemoryError) as e:
            unread.append(f"{file}: {e}")


def _is_anchor(package: str, candidate: Candidate) -> bool:
    """Return whether a descriptor could name it; a file with a control character in its name, for one, cannot be."""
    if not candidate.file.isprintable():
        return False
    address = {"type": "package", "package": package, "file": candidate.file, "symbol": candidate.symbol}
    try:
        msgspec.convert(address, PackageAnchor)
    except msgspec.ValidationError:
        return False
    return True
