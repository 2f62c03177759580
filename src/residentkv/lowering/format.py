"""The descriptor file as it is written: one struct a level, from which checking and the JSON Schema both follow."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from residentkv.claims.modes import Mode, NamedChoice
from residentkv.lowering.depth import Depth
from residentkv.lowering.obligations import Obligation

SCHEMA = "residentkv.descriptor/1"

Ident = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,79}$", description="lower-case name, no spaces")]
Line = Annotated[str, Meta(min_length=1, max_length=300, description="one line of text")]
Prose = Annotated[str, Meta(min_length=1, max_length=4000, description="text")]
Version = Annotated[str, Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+!_-]{0,79}$", description="a version in quotes")]
Specifier = Annotated[str, Meta(min_length=1, max_length=200, description="version specifier, such as '>=0.32,<0.33'")]
RelativePath = Annotated[
    str,
    Meta(
        pattern=r"^(?!/)(?!.*(?:^|/)\.{0,2}(?:/|$))[^\\:\x00-\x1f\x7f]{1,400}$",
        description="path with forward slashes, relative, without . or .. or empty parts",
    ),
]
Symbol = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*){0,9}$", description="function, Class.method, CONST, Class.field"),
]
LineRange = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,6}-[1-9][0-9]{0,6}$", description="first-last, 1-based")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", description="written by 'residentkv anchors add'")]
Commit = Annotated[str, Meta(pattern=r"^[0-9a-f]{40}$", description="a full commit id, 40 hex digits")]
Date = Annotated[str, Meta(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]$", description="a date, 'YYYY-MM-DD'")]
Url = Annotated[str, Meta(pattern=r"^https?://[^\s\x00-\x20\x7f]{1,1000}$", description="an address, http or https")]
SeqRange = Annotated[str, Meta(pattern=r"^[0-9]{1,12}(?:-[0-9]{1,12})?$", description="one event number or first-last")]


class Polarity(NamedChoice):
    """Which way a piece of evidence points."""

    SUPPORTS = "supports"
    CONTRADICTS = "contradicts"


class EvidenceKind(NamedChoice):
    """Where a piece of evidence comes from; only `trace` and `experiment` are dynamic."""

    SOURCE = "source"
    DOC = "doc"
    TEST = "test"
    TRACE = "trace"
    EXPERIMENT = "experiment"


DYNAMIC = frozenset({EvidenceKind.TRACE, EvidenceKind.EXPERIMENT})
"""Kinds that show what happened; the others show what is written."""


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    pass


class Recorded(_Entry, frozen=True):
    """What was read when the digest was written: which distribution and version, and when."""

    date: Date
    distribution: Line | None = None
    version: Version | None = None


class PackageAnchor(_Entry, frozen=True, tag_field="type", tag="package"):
    """Text in a file of an installable package.

    `version` defaults to the versions of the descriptor when the package is the one that is described. With
    `symbol`, `lines` is where it was seen last; without, `lines` is the address.
    """

    package: Line
    file: RelativePath
    version: Specifier | None = None
    symbol: Symbol | None = None
    lines: LineRange | None = None
    sha256: Sha256 | UnsetType = UNSET
    recorded: Recorded | None = None


class GitAnchor(_Entry, frozen=True, tag_field="type", tag="git"):
    """Text in a file of a repository at one commit."""

    repository: Line
    commit: Commit
    file: RelativePath
    symbol: Symbol | None = None
    lines: LineRange | None = None
    sha256: Sha256 | UnsetType = UNSET
    recorded: Recorded | None = None


class EventRange(_Entry, frozen=True):
    """Event numbers of one writer in one incarnation."""

    source: Line
    epoch: Annotated[int, Meta(ge=0)]
    seqs: Annotated[list[SeqRange], Meta(min_length=1, max_length=1000)]


class TraceAnchor(_Entry, frozen=True, tag_field="type", tag="trace"):
    """Events in a trace file; `file` is relative to the descriptor. The trace is audited again in every check."""

    file: RelativePath
    events: Annotated[list[EventRange], Meta(min_length=1, max_length=100)]
    sha256: Sha256 | UnsetType = UNSET
    recorded: Recorded | None = None


class DocumentAnchor(_Entry, frozen=True, tag_field="type", tag="document"):
    """A sentence in a document on the web; verified only when its text is given with --document URL=FILE."""

    url: Url
    retrieved: Date
    quote: Prose
    sha256: Sha256 | UnsetType = UNSET


Anchor = PackageAnchor | GitAnchor | TraceAnchor | DocumentAnchor
CodeAnchor = PackageAnchor | GitAnchor


class PackageEntry(_Entry, frozen=True):
    """The package that is described; `distributions` are the names under which it is published, the first preferred."""

    name: Line
    versions: Specifier
    distributions: Annotated[list[Line], Meta(min_length=1, max_length=10)] | None = None


class EvidenceEntry(_Entry, frozen=True):
    """One statement: this anchor supports, or contradicts, this obligation.

    `modes` limits it to some modes. `depths`, only with `contradicts`, limits it to rows judged at these depths:
    what the runtime does as shipped need not hold once code at an extension point replaces it.
    """

    obligation: Obligation
    polarity: Polarity
    kind: EvidenceKind
    anchor: Ident
    note: Prose
    modes: Annotated[list[Mode], Meta(min_length=1)] | None = None
    depths: Annotated[list[Depth], Meta(min_length=1)] | None = None


class RowEntry(_Entry, frozen=True):
    """One mode for which the primitive could be taken.

    `related` names anchors that show something like the promise, so that the row is `approximate` and not `unknown`
    when obligations are missing. `why` says in a sentence what a reader should know about this row.
    """

    mode: Mode
    why: Prose | None = None
    related: Annotated[list[Ident], Meta(min_length=1)] | None = None


class PrimitiveEntry(_Entry, frozen=True):
    """Something that the runtime has. `where` is where it lives: unless all of it is verified, every row is unknown."""

    id: Ident
    title: Line
    summary: Prose
    where: Annotated[list[Ident], Meta(min_length=1)]
    evidence: list[EvidenceEntry]
    rows: Annotated[list[RowEntry], Meta(min_length=1)]


class AdapterEntry(_Entry, frozen=True):
    """Something outside the runtime that works on one of its primitives, at one depth."""

    id: Ident
    title: Line
    depth: Depth
    primitive: Ident
    evidence: list[EvidenceEntry]
    rows: Annotated[list[RowEntry], Meta(min_length=1)]
    summary: Prose | None = None
    versions: Specifier | None = None
    where: list[Ident] | None = None


class DescriptorEntry(_Entry, frozen=True):
    """What one runtime at one version has, and where to look."""

    schema: Literal["residentkv.descriptor/1"]
    runtime: Ident
    version: Version
    title: Line
    package: PackageEntry
    anchors: dict[Ident, Anchor]
    primitives: Annotated[list[PrimitiveEntry], Meta(min_length=1)]
    adapters: list[AdapterEntry] | None = None


def descriptor_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a descriptor file, made from the structs of this module.

    What a schema cannot say (ids that exist, unique ids, evidence that fits the mode) is checked by the loader.
    """
    schema = msgspec.json.schema(DescriptorEntry)
    for name, definition in schema["$defs"].items():
        if name.endswith("Anchor"):
            definition["required"] = [*definition["required"], "sha256"]
            if "lines" in definition["properties"]:
                definition["anyOf"] = [{"required": ["symbol"]}, {"required": ["lines"]}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "residentkv descriptor",
        **schema,
    }
