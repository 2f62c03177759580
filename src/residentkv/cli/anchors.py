"""`residentkv anchors`: write, verify, compare and fetch what descriptors point at."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

import click
import msgspec

from residentkv.cli.options import named_sources, source_options
from residentkv.errors import InputError, UsageError
from residentkv.lowering.anchors import AnchorVerifier, Scope
from residentkv.lowering.descriptor import decode_draft
from residentkv.lowering.edit import Value, set_anchor
from residentkv.lowering.format import Anchor
from residentkv.lowering.pinning import pin_anchor
from residentkv.lowering.yamltree import decode_text
from residentkv.sources.files import read_input, replace_file


@click.group()
def anchors() -> None:
    """Anchors: where a descriptor says that anyone can look."""


@anchors.command()
@click.argument("anchor_id", metavar="[ID]", required=False)
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
    anchor_id: str | None,
    descriptor: str,
    missing: bool,
    documents: tuple[str, ...],
    checkouts: tuple[str, ...],
    archives: tuple[str, ...],
    site_packages: tuple[str, ...],
    **address: str | None,
) -> None:
    """Write an anchor with its digest, or fill in the digests that are missing; nobody types a hash.

    With ID and an address the anchor is written new; with ID alone, the anchor of that name is pinned again to what
    stands at its address now. Comments and everything else in the file stay as they are.
    """
    stated = {key: value for key, value in address.items() if value is not None}
    if missing == (anchor_id is not None) or (missing and stated):
        raise UsageError("anchors add: give either ID (with an address for a new anchor) or --missing")
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
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    if anchor_id is None:
        todo = {name: anchor for name, anchor in draft.anchors.items() if anchor.sha256 is msgspec.UNSET}
        fresh: dict[str, Value] = {}
    elif stated:
        fresh = _address(stated)
        todo = {anchor_id: _decode(text, descriptor, anchor_id, fresh)}
    elif anchor_id in draft.anchors:
        todo, fresh = {anchor_id: draft.anchors[anchor_id]}, {}
    else:
        raise UsageError(f"anchors add: {descriptor} has no anchor {anchor_id!r}; give --package, --file and --symbol")
    for name, anchor in todo.items():
        values: dict[str, Value] = {**fresh, **pin_anchor(name, anchor, scope, verifier, today)}
        text = set_anchor(text, descriptor, name, values, replace=bool(fresh))
        click.echo(f"{name}: {_summary(values)}")
    decode_draft(text.encode(), descriptor)
    if todo:
        replace_file(path, text.encode())
    click.echo(f"{len(todo)} of {len({**draft.anchors, **todo})} anchors written to {descriptor}")


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
