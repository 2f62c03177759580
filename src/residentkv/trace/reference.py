"""The reference part of docs/trace-format.md, rendered from the structs, the codes and the importer's tables."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from residentkv.trace.codec import EVENT_TYPES
from residentkv.trace.codes import INPUT_RULES
from residentkv.trace.events import (
    ClaimEvent,
    Count,
    Event,
    Name,
    Names,
    Priority,
    Ranges,
    RequestEvent,
    Tier,
)
from residentkv.trace.published_fields import FIELDS, Seconds, Transfer
from residentkv.trace.published_map import ENVELOPE, EVENTS, Derived, EventMapping, Fixed, Maybe, Origin, Take

_TYPE_NAMES: Final[list[tuple[Any, str]]] = [
    (Count, "count"),
    (Priority, "integer"),
    (Name, "name"),
    (Names, "names"),
    (Ranges, "ranges"),
    (Tier, "tier"),
    (tuple[Count, ...], "counts"),
    (Seconds, "seconds"),
    (Transfer, "pair of names"),
    (str, "text"),
    (float, "number"),
    (bool, "true or false"),
    (int, "integer"),
    (type(None), "null"),
]
_BASES: Final = (ClaimEvent, RequestEvent, Event)
_BLOCK = re.compile(r"(<!-- generated: (?P<name>[a-z]+) -->\n).*?(<!-- end of generated -->)", re.DOTALL)


def type_name(hint: Any) -> str:
    """Return the words for a field type, such as `name or null`."""
    for known, words in _TYPE_NAMES:
        if hint == known:
            return words
    if get_origin(hint) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(type_name(part) for part in get_args(hint))
    metadata = getattr(hint, "__metadata__", None)
    if metadata is not None and get_args(hint)[0] is int:
        return f"count from {metadata[0].ge}"
    raise TypeError(f"no words for the type {hint!r}")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _own_fields(kind: type[Event], base: type[Event] | None) -> list[tuple[str, ...]]:
    inherited = set() if base is None else set(base.__struct_fields__)
    hints = get_type_hints(kind, include_extras=True)
    return [(f"`{name}`", type_name(hints[name])) for name in kind.__struct_fields__ if name not in inherited]


def _doc(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split())


def render_event_reference() -> str:
    """Return the Markdown reference of every event and field of the native format."""
    header = ("field", "type")
    parts = [
        "### The envelope, on every event\n",
        _doc(Event) + "\n",
        _table(header, [("`event`", "name of the event"), *_own_fields(Event, None)]),
        "### The claim, on every `resident_claim_*` event and on `scheduler_resident_claim_restoration_failed`\n",
        _doc(ClaimEvent) + "\n",
        _table(header, _own_fields(ClaimEvent, Event)),
    ]
    for name, kind in EVENT_TYPES.items():
        base = next(b for b in _BASES if issubclass(kind, b))
        own = _own_fields(kind, Event if base is RequestEvent else base)
        carries = "the envelope and the claim" if base is ClaimEvent else "the envelope"
        parts += [f"### `{name}`\n", _doc(kind) + "\n", f"Carries {carries}, and:\n", _table(header, own)]
    return "\n".join(parts)


def render_code_reference() -> str:
    """Return the Markdown table of the input codes."""
    return _table(("code", "slug", "meaning"), [(r.code, f"`{r.slug}`", r.meaning) for r in INPUT_RULES])


def _origin(origin: Origin) -> str:
    match origin:
        case Take(names=names):
            return " or ".join(f"`{n}`" for n in names)
        case Maybe(names=names, otherwise=otherwise):
            return " or ".join(f"`{n}`" for n in names) + f", else {_value(otherwise)}"
        case Fixed(value=value, why=why):
            return f"{_value(value)} ({why})"
        case Derived(says=says):
            return says


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if value == ():
        return "empty"
    return f"`{value}`" if value != "" else "empty"


def _meaning(mapping: EventMapping) -> str:
    def says(field: str) -> str:
        meaning = mapping.means[field]
        value = "" if meaning.value is ... else f" is `{str(meaning.value).lower()}`"
        return f"`{field}`{value}" + (" (stated)" if meaning.stated else "")

    return "; ".join(map(says, mapping.means)) or "-"


def render_published_reference() -> str:
    """Return the Markdown tables of how each published event and field maps."""
    events = [
        (f"`{name}`", f"`{mapping.kind.__struct_config__.tag}`", _meaning(mapping)) for name, mapping in EVENTS.items()
    ]
    claim = EVENTS["resident_claim_offloaded"].origins
    shared = {field: claim[field] for field in ClaimEvent.__struct_fields__ if field in claim}
    rows = [("every event", f"`{field}`", _origin(origin)) for field, origin in ENVELOPE.items()]
    rows += [("every claim event", f"`{field}`", _origin(origin)) for field, origin in shared.items()]
    for name, mapping in EVENTS.items():
        own = {
            f: o for f, o in mapping.origins.items() if shared.get(f) != o or not issubclass(mapping.kind, ClaimEvent)
        }
        rows += [(f"`{name}`", f"`{field}`", _origin(origin)) for field, origin in own.items()]
    parts = [
        "### Events\n",
        _table(("published event", "becomes", "only when (else `runtime_event`)"), events),
        "### Where the fields of our events come from\n",
        _table(("published event", "our field", "from"), rows),
    ]
    fields = [(f"`{n}`", type_name(f.type), f.note or "carried, see above") for n, f in FIELDS.items()]
    parts += ["### Every published field\n", _table(("field", "type", "what becomes of it"), fields)]
    return "\n".join(parts)


RENDERERS: Final[dict[str, Callable[[], str]]] = {
    "events": render_event_reference,
    "codes": render_code_reference,
    "published": render_published_reference,
}
"""What renders each generated block of docs/trace-format.md."""


def refresh_blocks(text: str) -> str:
    """Return a document with its generated blocks rendered anew.

    Raises:
        KeyError: a block has a name that nothing renders.
    """
    return _BLOCK.sub(lambda m: f"{m[1]}\n{RENDERERS[m['name']]()}\n{m[3]}", text)
