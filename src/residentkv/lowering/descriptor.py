"""Bytes of a descriptor file to a `Descriptor`, or an error that says where, what and what next."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from residentkv.claims.modes import Mode
from residentkv.errors import InputError, near
from residentkv.lowering import format as fmt
from residentkv.lowering.depth import Depth
from residentkv.lowering.model import Adapter, Descriptor, Evidence, Place, Primitive, RowNote
from residentkv.lowering.obligations import BUNDLES, Obligation
from residentkv.lowering.text import digest_quote, parse_span
from residentkv.lowering.yamltree import Node, Span, decode_text, parse_yaml

SHAPE = "RKV152"
MEANING = "RKV153"
MAX_EVENTS = 100_000
MIN_QUOTED_WORDS = 3
"""Words that a quotation needs; fewer are found in nearly any text, none in every text."""

_KINDS: dict[type[object], tuple[fmt.EvidenceKind, ...]] = {
    fmt.PackageAnchor: (fmt.EvidenceKind.SOURCE, fmt.EvidenceKind.TEST, fmt.EvidenceKind.DOC),
    fmt.GitAnchor: (fmt.EvidenceKind.SOURCE, fmt.EvidenceKind.TEST, fmt.EvidenceKind.DOC),
    fmt.TraceAnchor: (fmt.EvidenceKind.TRACE, fmt.EvidenceKind.EXPERIMENT),
    fmt.DocumentAnchor: (fmt.EvidenceKind.DOC,),
}
"""What kind of evidence each kind of anchor can carry: a document never carries a trace."""

_ENUMS: dict[str, type[Any]] = {
    "obligation": Obligation,
    "mode": Mode,
    "modes": Mode,
    "depth": Depth,
    "depths": Depth,
    "polarity": fmt.Polarity,
    "kind": fmt.EvidenceKind,
}
_FREE_TEXT = frozenset({"title", "summary", "note", "why", "quote"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_STEP = re.compile(r"\.([A-Za-z_]\w*)|\[(\d+|\.\.\.)\]")
_S = TypeVar("_S")


def decode_descriptor(raw: bytes, path: str, *, drafts: bool = False) -> Descriptor:
    """Decode and check a descriptor.

    Args:
        raw: the file.
        path: how to name it in errors.
        drafts: accept anchors without a digest (only `anchors add --missing` does).

    Raises:
        InputError: RKV151 not strict YAML, RKV152 wrong shape, RKV153 refers to what does not exist or says what
            cannot be; each with line and column.
    """
    root = parse_yaml(decode_text(raw, path), path)
    return _Decoder(root, path, drafts).descriptor(hashlib.sha256(raw).hexdigest())


@dataclass(frozen=True, slots=True)
class Draft:
    """A descriptor that is being written: what `anchors add` needs, with anchors that may lack their digest."""

    package: fmt.PackageEntry
    anchors: Mapping[str, fmt.Anchor]


def decode_draft(raw: bytes, path: str) -> Draft:
    """Decode only `package` and `anchors`; the rest may still be missing.

    Raises:
        InputError: as `decode_descriptor`.
    """
    root = parse_yaml(decode_text(raw, path), path)
    return _Decoder(root, path, drafts=True).draft()


class _Decoder:
    def __init__(self, root: Node, path: str, drafts: bool) -> None:
        self._root = root
        self._path = path
        self._drafts = drafts

    # Errors and places

    def _error(self, span: Span, message: str, code: str) -> InputError:
        return InputError(message, path=self._path, line=span.line, column=span.column, code=code)

    def _place(self, node: Node) -> Place:
        return Place(self._path, node.span.line, node.span.column)

    def _convert(self, node: Node, kind: type[_S]) -> _S:
        try:
            return msgspec.convert(node.plain(), kind, strict=True)
        except msgspec.ValidationError as e:
            raise self._shape_error(node, str(e)) from None

    def _shape_error(self, node: Node, message: str) -> InputError:
        what, _, where = message.partition(" - at `")
        last = ""
        for name, index in _STEP.findall(where.rstrip("`")):
            if name and isinstance(node.value, dict):
                if name not in node.value:  # the tag of a union: msgspec names it even when it is missing
                    break
                last, node = name, node.value[name]
            elif index and index != "..." and isinstance(node.value, list):
                node = node.value[int(index)]
        span = node.span
        unknown = re.search(r"unknown field `(.*)`", what)
        if unknown and isinstance(node.value, dict):
            key = unknown.group(1)
            span = node.keys.get(key, span)
            hint = near(key, _FIELD_NAMES)
            return self._error(span, f"found the unknown key {key[:60]!r}, expected a key of the schema{hint}", SHAPE)
        found = "" if isinstance(node.value, dict | list) else f", found {str(node.value)[:60]!r}"
        hint = ""
        if last in _ENUMS:
            words = [member.value for member in _ENUMS[last]]
            hint = f"; expected one of {', '.join(words)}{near(str(node.value), words)}"
        elif "got `float`" in what or "got `int`" in what:
            hint = "; put it in quotes"
        if "matching regex" in what:
            what = f"expected {_descriptions().get(last, 'another form')}"
        label = f"{last}: " if last else ""
        what = what[:1].lower() + what[1:]
        return self._error(span, f"{label}{what}{found}{hint}; see 'residentkv schema descriptor'", SHAPE)

    # Decoding

    def descriptor(self, sha256: str) -> Descriptor:
        root = self._root
        if not isinstance(root.value, dict):
            raise self._error(root.span, "found no mapping, expected the keys of a descriptor", SHAPE)
        fields = dict(root.value)
        anchors = self._anchors()
        places = {name: self._place(self._at(root, "anchors", name)) for name in anchors}
        if anchors:
            fields["anchors"] = Node({}, root.span)
        entry = self._convert(Node(fields, root.span, keys=root.keys), fmt.DescriptorEntry)
        self._check_text(root)
        package = self._at(root, "package")
        self._check_specifier(entry.package.versions, self._at(package, "versions"))
        self._check_anchor_versions(anchors, entry.package.name)
        primitives = tuple(self._primitives(entry, anchors))
        adapters = tuple(self._adapters(entry, anchors, {p.id for p in primitives}))
        return Descriptor(
            path=self._path,
            sha256=sha256,
            runtime=entry.runtime,
            version=entry.version,
            title=entry.title,
            package=entry.package.name,
            versions=entry.package.versions,
            distributions=tuple(entry.package.distributions or (entry.package.name,)),
            anchors=anchors,
            anchor_places=places,
            primitives=primitives,
            adapters=adapters,
        )

    def draft(self) -> Draft:
        root = self._root
        if not isinstance(root.value, dict) or not {"package", "anchors"} <= root.value.keys():
            raise self._error(
                root.span, "found no package or no anchors, expected both ('anchors: {}' to begin)", SHAPE
            )
        package_node = root.value["package"]
        package = self._convert(package_node, fmt.PackageEntry)
        self._check_specifier(package.versions, self._at(package_node, "versions"))
        anchors = self._anchors()
        self._check_anchor_versions(anchors, package.name)
        return Draft(package, anchors)

    def _anchors(self) -> dict[str, fmt.Anchor]:
        """Convert the anchors one by one: an error inside a mapping would not say in which entry."""
        node = self._at(self._root, "anchors")
        if node is self._root or not isinstance(node.value, dict):
            return {}
        return {name: self._anchor(name, n, node) for name, n in node.value.items()}

    def _at(self, node: Node, *steps: str | int) -> Node:
        for step in steps:
            if isinstance(node.value, dict) and isinstance(step, str):
                node = node.value.get(step, node)
            elif isinstance(node.value, list) and isinstance(step, int):
                node = node.value[step]
        return node

    def _anchor(self, name: str, node: Node, parent: Node) -> fmt.Anchor:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,79}", name):
            raise self._error(parent.keys[name], f"found anchor name {name[:60]!r}, expected a-z, 0-9, - _ .", SHAPE)
        if isinstance(node.value, dict) and "type" not in node.value:
            raise self._error(node.span, f"anchor {name}: no type, expected package, git, trace or document", SHAPE)
        anchor: fmt.Anchor = self._convert(node, fmt.Anchor)  # type: ignore[arg-type]
        if anchor.sha256 is msgspec.UNSET and not self._drafts:
            message = f"anchor {name}: no sha256; run 'residentkv anchors add --descriptor {self._path} --missing'"
            raise self._error(node.span, message, MEANING)
        if isinstance(anchor, fmt.PackageAnchor | fmt.GitAnchor):
            self._check_code_anchor(name, anchor, node)
        if isinstance(anchor, fmt.TraceAnchor):
            self._check_events(name, anchor, self._at(node, "events"))
        if isinstance(anchor, fmt.DocumentAnchor) and len(anchor.quote.split()) < MIN_QUOTED_WORDS:
            message = f"anchor {name}: the quote has fewer than {MIN_QUOTED_WORDS} words, expected a sentence"
            raise self._error(self._at(node, "quote").span, message, MEANING)
        if isinstance(anchor, fmt.DocumentAnchor) and anchor.sha256 is not msgspec.UNSET:
            found = digest_quote(anchor.quote)
            if found != anchor.sha256:
                message = f"anchor {name}: the quote has sha256 {found}, expected {anchor.sha256}; quote it again"
                raise self._error(self._at(node, "sha256").span, message, MEANING)
        return anchor

    def _check_code_anchor(self, name: str, anchor: fmt.CodeAnchor, node: Node) -> None:
        if anchor.symbol is None and anchor.lines is None:
            raise self._error(node.span, f"anchor {name}: found no symbol and no lines, expected one", MEANING)
        if anchor.symbol is not None and not anchor.file.endswith((".py", ".pyi")):
            message = f"anchor {name}: found a symbol in a file that is not Python, expected lines: first-last"
            raise self._error(self._at(node, "symbol").span, message, MEANING)
        if anchor.lines is not None:
            first, last = parse_span(anchor.lines)
            if last < first:
                message = f"found lines {anchor.lines}, expected first-last"
                raise self._error(self._at(node, "lines").span, message, MEANING)

    def _check_events(self, name: str, anchor: fmt.TraceAnchor, node: Node) -> None:
        total = 0
        for part in (part for events in anchor.events for part in events.seqs):
            first, _, last = part.partition("-")
            total += int(last or first) - int(first) + 1
            if int(last or first) < int(first) or total > MAX_EVENTS:
                message = f"anchor {name}: found events {part}, expected first-last and at most {MAX_EVENTS} in all"
                raise self._error(node.span, message, MEANING)

    def _check_anchor_versions(self, anchors: dict[str, fmt.Anchor], described: str) -> None:
        for name, anchor in anchors.items():
            if not isinstance(anchor, fmt.PackageAnchor):
                continue
            node = self._at(self._root, "anchors", name)
            if anchor.version is not None:
                self._check_specifier(anchor.version, self._at(node, "version"))
            elif anchor.package != described:
                message = f"anchor {name}: version is missing, expected one for a package other than {described}"
                raise self._error(node.span, message, MEANING)

    def _check_specifier(self, text: str, node: Node) -> None:
        try:
            SpecifierSet(text)
        except InvalidSpecifier:
            message = f"found {text[:60]!r}, expected a version specifier such as '>=0.32,<0.33'"
            raise self._error(node.span, message, MEANING) from None

    def _check_text(self, root: Node) -> None:
        """Refuse control characters wherever a name is expected; prose may hold them and is escaped when shown."""
        stack: list[tuple[str, Node]] = [("", root)]
        while stack:
            name, node = stack.pop()
            if isinstance(node.value, dict):
                stack.extend(node.value.items())
            elif isinstance(node.value, list):
                stack.extend((name, n) for n in node.value)
            elif isinstance(node.value, str) and name not in _FREE_TEXT and _CONTROL.search(node.value):
                raise self._error(node.span, f"{name}: found a control character, expected one line of text", SHAPE)

    def _primitives(self, entry: fmt.DescriptorEntry, anchors: dict[str, fmt.Anchor]) -> Iterator[Primitive]:
        seen: dict[str, int] = {}
        for n, item in enumerate(entry.primitives):
            node = self._at(self._root, "primitives", n)
            self._check_unique(item.id, node, seen, "primitive")
            yield Primitive(
                id=item.id,
                title=item.title,
                summary=item.summary,
                basis=tuple(self._known(item.where, self._at(node, "where"), anchors)),
                evidence=tuple(self._evidence(item.evidence, node, anchors, Depth.NATIVE, "native")),
                rows=tuple(self._rows(item.rows, self._at(node, "rows"), anchors)),
                where=self._place(node),
            )

    def _adapters(
        self, entry: fmt.DescriptorEntry, anchors: dict[str, fmt.Anchor], primitives: set[str]
    ) -> Iterator[Adapter]:
        seen: dict[str, int] = {}
        for n, item in enumerate(entry.adapters or ()):
            node = self._at(self._root, "adapters", n)
            self._check_unique(item.id, node, seen, "adapter")
            if item.id == "native" or item.depth is Depth.NATIVE:
                raise self._error(node.span, f"adapter {item.id}: found native, expected observe or deeper", MEANING)
            if item.primitive not in primitives:
                message = f"adapter {item.id}: unknown primitive {item.primitive!r}{near(item.primitive, primitives)}"
                raise self._error(self._at(node, "primitive").span, message, MEANING)
            if item.versions is not None:
                self._check_specifier(item.versions, self._at(node, "versions"))
            yield Adapter(
                id=item.id,
                title=item.title,
                summary=item.summary or "",
                depth=item.depth,
                primitive=item.primitive,
                versions=item.versions or "",
                basis=tuple(self._known(item.where, self._at(node, "where"), anchors)) if item.where else (),
                evidence=tuple(self._evidence(item.evidence, node, anchors, item.depth, item.id)),
                rows=tuple(self._rows(item.rows, self._at(node, "rows"), anchors)),
                where=self._place(node),
            )

    def _check_unique(self, name: str, node: Node, seen: dict[str, int], what: str) -> None:
        id_node = self._at(node, "id")
        if name in seen:
            message = f"found the {what} {name!r} twice, first in line {seen[name]}; give each its own id"
            raise self._error(id_node.span, message, MEANING)
        seen[name] = id_node.span.line

    def _known(self, names: Iterable[str], node: Node, anchors: dict[str, fmt.Anchor]) -> Iterator[str]:
        for n, name in enumerate(names):
            if name not in anchors:
                message = f"unknown anchor {name!r}, expected a key of anchors{near(name, anchors)}"
                raise self._error(self._at(node, n).span, message, MEANING)
            yield name

    def _rows(self, rows: list[fmt.RowEntry], node: Node, anchors: dict[str, fmt.Anchor]) -> Iterator[RowNote]:
        seen: dict[Mode, int] = {}
        for n, row in enumerate(rows):
            here = self._at(node, n)
            if row.mode in seen:
                message = f"found a second row for {row.mode}, first in line {seen[row.mode]}; keep one"
                raise self._error(self._at(here, "mode").span, message, MEANING)
            seen[row.mode] = here.span.line
            related = tuple(self._known(row.related, self._at(here, "related"), anchors)) if row.related else ()
            yield RowNote(mode=row.mode, why=row.why or "", related=related, where=self._place(here))

    def _evidence(
        self, items: list[fmt.EvidenceEntry], node: Node, anchors: dict[str, fmt.Anchor], depth: Depth, source: str
    ) -> Iterator[Evidence]:
        for n, item in enumerate(items):
            here = self._at(node, "evidence", n)
            if item.anchor not in anchors:
                message = f"unknown anchor {item.anchor!r}, expected a key of anchors{near(item.anchor, anchors)}"
                raise self._error(self._at(here, "anchor").span, message, MEANING)
            kinds = _KINDS[type(anchors[item.anchor])]
            if item.kind not in kinds:
                message = f"found kind {item.kind}, but anchor {item.anchor} can carry only {', '.join(kinds)}"
                raise self._error(self._at(here, "kind").span, message, MEANING)
            for mode in item.modes or ():
                if item.obligation not in BUNDLES[mode]:
                    message = f"{mode} does not ask for {item.obligation}; leave the mode out"
                    raise self._error(self._at(here, "modes").span, message, MEANING)
            if item.depths is not None and item.polarity is fmt.Polarity.SUPPORTS:
                message = "found depths on supporting evidence, expected it only with contradicts; remove it"
                raise self._error(self._at(here, "depths").span, message, MEANING)
            yield Evidence(
                obligation=item.obligation,
                polarity=item.polarity,
                kind=item.kind,
                depth=depth,
                anchor=item.anchor,
                note=item.note,
                where=self._place(here),
                source=source,
                modes=None if item.modes is None else frozenset(item.modes),
                row_depths=None if item.depths is None else frozenset(item.depths),
            )


@functools.cache
def _descriptions() -> dict[str, str]:
    """Return what the schema says about fields that have a form, for messages."""
    found: dict[str, str] = {}
    for definition in fmt.descriptor_schema()["$defs"].values():
        for name, field in definition.get("properties", {}).items():
            for form in field.get("anyOf", [field]):
                if "pattern" in form and "description" in form:
                    found[name] = form["description"]
    return found


_FIELD_NAMES = sorted(
    {
        name
        for struct in vars(fmt).values()
        if isinstance(struct, type) and issubclass(struct, msgspec.Struct)
        for name in struct.__struct_fields__
    }
)
