"""`residentkv anchors`: write, verify, compare and fetch what descriptors point at."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import click
import msgspec

from residentkv.cli.options import named_sources, source_options, write_file
from residentkv.errors import EXIT_PASS, EXIT_UNKNOWN, InputError, NoInputError, UsageError, near
from residentkv.files import read_input
from residentkv.lowering.anchors import AnchorReport, AnchorState, AnchorVerifier, Scope
from residentkv.lowering.checking import scope_of
from residentkv.lowering.descriptor import decode_draft
from residentkv.lowering.drift import Drift, find_drift
from residentkv.lowering.edit import Value, set_anchor
from residentkv.lowering.format import Anchor
from residentkv.lowering.model import Descriptor
from residentkv.lowering.pinning import pin_anchor
from residentkv.lowering.yamltree import decode_text
from residentkv.report.documents import json_text, report_document
from residentkv.report.drift import HEAD, drift_row
from residentkv.report.plain import escape_controls
from residentkv.sources.cache import packages_dir
from residentkv.sources.fetch import fetch_package, parse_exact
from residentkv.sources.library import select_descriptors


@click.group()
def anchors() -> None:
    """Anchors: where a descriptor says that anyone can look."""


@anchors.command(short_help="Write an anchor with its digest.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--descriptor", "descriptor", metavar="FILE", required=True, help="The descriptor to write to.")
@click.option("--missing", is_flag=True, help="Fill in every anchor that has no digest yet.")
@click.option("--package", help="Package, as in the descriptor.")
@click.option("--version", help="Version specifier; needed for a package other than the described one.")
@click.option("--repository", help="Repository, as host/owner/name; give it with --commit.")
@click.option("--commit", help="Full commit id.")
@click.option("--file", "file", help="Path inside the package or repository.")
@click.option("--symbol", help="Function, Class.method, CONSTANT or Class.field.")
@click.option("--lines", help="first-last, where there is no symbol.")
@click.option("--url", help="Address of a document; give it with --quote.")
@click.option("--quote", help="The sentence that is quoted.")
@click.option("--retrieved", help="When the document was read, YYYY-MM-DD.")
@source_options
def add(
    ids: tuple[str, ...],
    descriptor: str,
    missing: bool,
    documents: tuple[str, ...],
    checkouts: tuple[str, ...],
    archives: tuple[str, ...],
    site_packages: tuple[str, ...],
    **address: str | None,
) -> None:
    """Write an anchor with its digest, or fill in the digests that are missing; nobody types a hash.

    With one ID and an address the anchor is written new; with IDs alone, the anchors of these names are pinned again
    to what stands at their addresses now. Comments and everything else in the file stay as they are.

    \b
    Examples:
      residentkv anchors add --descriptor FILE ID --package P --file F --symbol S
      residentkv anchors add --descriptor FILE --missing
    """
    stated = {key: value for key, value in address.items() if value is not None}
    if missing == bool(ids) or (stated and len(ids) != 1):
        raise UsageError("anchors add: give either ID (with an address for a new anchor), or IDs, or --missing")
    path = Path(descriptor)
    raw = read_input(path)
    text = decode_text(raw, descriptor)
    draft = decode_draft(raw, descriptor)
    scope = Scope(
        path=descriptor,
        package=draft.package.name,
        distributions=tuple(draft.package.distributions or (draft.package.name,)),
        versions=draft.package.versions,
    )
    verifier = AnchorVerifier(named_sources(documents, checkouts, archives, site_packages))
    today = _today()
    fresh = _address(stated) if stated else {}
    if missing:
        todo = {name: anchor for name, anchor in draft.anchors.items() if anchor.sha256 is msgspec.UNSET}
    elif fresh:
        todo = {ids[0]: _decode(text, descriptor, ids[0], fresh)}
    else:
        for name in ids:
            if name not in draft.anchors:
                hint = near(name, draft.anchors) or "; give --package, --file and --symbol to write it"
                raise UsageError(f"anchors add: {descriptor} has no anchor {name!r}{hint}")
        todo = {name: draft.anchors[name] for name in ids}
    for name, anchor in todo.items():
        values: dict[str, Value] = {**fresh, **pin_anchor(name, anchor, scope, verifier, today)}
        text = set_anchor(text, descriptor, name, values, replace=bool(fresh))
        click.echo(f"{name}: {_summary(values)}")
    decode_draft(text.encode(), descriptor)
    if todo:
        write_file(path, text)
    click.echo(f"{len(todo)} of {len({**draft.anchors, **todo})} anchors written to {escape_controls(descriptor)}")


@anchors.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--descriptor", "files", multiple=True, metavar="FILE", help="A descriptor of your own.")
@click.option("--runtime", metavar="NAME", help="Only this runtime of the library.")
@click.option("--version", metavar="VERSION", help="Only descriptors for this version.")
@click.option("--json", "as_json", is_flag=True, help="Write residentkv.anchors/1 instead of lines.")
@source_options
def verify(
    ids: tuple[str, ...],
    files: tuple[str, ...],
    runtime: str | None,
    version: str | None,
    as_json: bool,
    documents: tuple[str, ...],
    checkouts: tuple[str, ...],
    archives: tuple[str, ...],
    site_packages: tuple[str, ...],
) -> int:
    """Read every anchor now and say what became of it.

    Exit code: 0 when all are verified (moved counts, with a warning), 11 when any is not.

    \b
    Example:
      residentkv anchors verify --runtime vllm
    """
    descriptors = select_descriptors(runtime, version, files)
    _check_ids(ids, descriptors)
    verifier = AnchorVerifier(named_sources(documents, checkouts, archives, site_packages))
    reports: list[tuple[Descriptor, AnchorReport]] = []
    for descriptor in descriptors:
        wanted = {name: a for name, a in descriptor.anchors.items() if not ids or name in ids}
        reports.extend((descriptor, r) for r in verifier.verify_all(wanted, scope_of(descriptor)).values())
    if not reports:
        raise NoInputError("anchors verify: the descriptors have no anchors; add one with 'residentkv anchors add'")
    if as_json:
        rows = [{"descriptor": d.path, **report_document(r)} for d, r in reports]
        click.echo(json_text({"schema": "residentkv.anchors/1", "anchors": rows}))
    else:
        for descriptor, report in reports:
            where = descriptor.anchor_places[report.anchor]
            click.echo(escape_controls(f"{where}: {report.anchor} {report.state}: {report.target}: {report.sentence}"))
        click.echo(_counts(r for _, r in reports))
    return EXIT_PASS if all(r.state.is_verified for _, r in reports) else EXIT_UNKNOWN


@anchors.command(short_help="List the anchors that moved, changed or vanished.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--descriptor", "files", multiple=True, metavar="FILE", help="A descriptor of your own.")
@click.option("--runtime", metavar="NAME", help="Only this runtime of the library.")
@click.option("--version", metavar="VERSION", help="Only descriptors for this version.")
@click.option("--against", metavar="PACKAGE==VERSION", help="Compare with this version instead of the described one.")
@click.option("--markdown", is_flag=True, help="Write a row of a table for each descriptor; needs --against.")
@source_options
def diff(
    ids: tuple[str, ...],
    files: tuple[str, ...],
    runtime: str | None,
    version: str | None,
    against: str | None,
    markdown: bool,
    documents: tuple[str, ...],
    checkouts: tuple[str, ...],
    archives: tuple[str, ...],
    site_packages: tuple[str, ...],
) -> int:
    """List the anchors that moved, changed or vanished, with the text where the old one is at hand.

    Exit code: 0 when nothing changed or vanished, 11 otherwise. The version to compare with must be installed in an
    environment of the cache folder, be named by an option, or be fetched with 'residentkv anchors fetch'.
    """
    if markdown and (against is None or ids):
        raise UsageError("anchors diff: --markdown compares whole descriptors with --against PACKAGE==VERSION")
    descriptors = select_descriptors(runtime, version, files)
    _check_ids(ids, descriptors)
    verifier = AnchorVerifier(named_sources(documents, checkouts, archives, site_packages))
    drifts: list[Drift] = []
    table = HEAD
    for descriptor in descriptors:
        name, other = (None, None) if against is None else parse_exact(against)
        found = [d for d in find_drift(descriptor, verifier, name, other) if not ids or d.report.anchor in ids]
        drifts.extend(found)
        if found and against is not None:
            table += drift_row(descriptor, against, _today(), found)
    if not drifts:
        raise NoInputError(f"anchors diff: no anchor is in {against or 'a package'}; name a package of the descriptors")
    if against is not None and all(d.report.state.is_unreached for d in drifts):
        hint = f"fetch it with 'residentkv anchors fetch {against}' or name it with --archive or --site-packages"
        raise NoInputError(f"anchors diff: {against} is not at hand ({drifts[0].report.sentence}); {hint}")
    for drift in () if markdown else drifts:
        report = drift.report
        if report.state is not AnchorState.VERIFIED:
            click.echo(escape_controls(f"{report.anchor} {report.state}: {report.target}: {report.sentence}"))
            for line in drift.diff:
                click.echo(escape_controls(f"    {line}"))
    click.echo(table if markdown else _counts(d.report for d in drifts), nl=not markdown)
    return EXIT_PASS if all(d.report.state.is_verified for d in drifts) else EXIT_UNKNOWN


@anchors.command(short_help="Get one version of a package, only to be read.")
@click.argument("package", metavar="NAME==VERSION")
@click.option("--sdist", is_flag=True, help="Take the source archive; pip then runs the package's build backend.")
def fetch(package: str, sdist: bool) -> None:
    """Get one version of a package with pip, only to be read: it is neither installed nor imported."""
    name, version = parse_exact(package)
    path = fetch_package(name, version, packages_dir(), sdist=sdist)
    click.echo(escape_controls(f"fetched {path}"))


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _check_ids(ids: Iterable[str], descriptors: Iterable[Descriptor]) -> None:
    known = sorted({name for d in descriptors for name in d.anchors})
    for name in ids:
        if name not in known:
            raise UsageError(f"unknown anchor {name[:60]!r}{near(name, known)}; see 'residentkv anchors verify'")


def _counts(reports: Iterable[AnchorReport]) -> str:
    counts = Counter(r.state for r in reports)
    words = [f"{counts[state]} {state.replace('_', ' ')}" for state in AnchorState if counts[state]]
    return f"{sum(counts.values())} anchors: {', '.join(words)}"


def _address(stated: Mapping[str, str]) -> dict[str, Value]:
    kinds = {"package": "package", "repository": "git", "url": "document"}
    found = [kind for key, kind in kinds.items() if key in stated]
    if len(found) != 1:
        raise UsageError("anchors add: give one of --package, --repository and --url")
    return {"type": found[0], **stated}


def _decode(text: str, path: str, name: str, values: Mapping[str, Value]) -> Anchor:
    """Read the address as the descriptor would hold it, so that the same checks apply."""
    trial = set_anchor(text, path, name, values, replace=True)
    try:
        return decode_draft(trial.encode(), path).anchors[name]
    except InputError as e:
        raise UsageError(f"anchors add: {e.message}") from None


def _summary(values: Mapping[str, Value]) -> str:
    recorded = values.get("recorded")
    seen = f", {recorded.get('distribution')} {recorded.get('version')}" if isinstance(recorded, Mapping) else ""
    lines = f"lines {values['lines']}, " if "lines" in values else ""
    return f"{lines}sha256 {str(values['sha256'])[:12]}..{seen if 'None' not in seen else ''}"
