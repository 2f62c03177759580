"""Writes one anchor into the text of a descriptor and leaves every other character as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from residentkv.errors import InputError
from residentkv.lowering.yamltree import Node, parse_yaml

Value = str | Mapping[str, str]

_SAFE = re.compile(r"[A-Za-z_/][A-Za-z0-9_/.@+-]*\Z")
_SPAN = re.compile(r"[1-9][0-9]*-[1-9][0-9]*\Z")
_HEX = re.compile(r"[0-9a-f]{40,64}\Z")
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


def set_anchor(text: str, path: str, name: str, values: Mapping[str, Value], *, replace: bool = False) -> str:
    """Return the text with the anchor `name` holding `values`.

    Args:
        text: the descriptor.
        path: how to name it in errors.
        name: id of the anchor; a new one is written after the last one that is there.
        values: keys to set; a mapping is written on one line.
        replace: drop the keys that the anchor had before, instead of keeping them.

    Raises:
        InputError: the text has no `anchors` mapping, or the edit would change something else (nothing is written).
    """
    root = parse_yaml(text, path)
    anchors = root.value.get("anchors") if isinstance(root.value, dict) else None
    if anchors is None:
        raise InputError("found no key anchors, expected one; write 'anchors: {}'", path=path, line=1, code="RKV152")
    newline = "\r\n" if "\r\n" in text else "\n"
    entries = anchors.value if isinstance(anchors.value, dict) else {}
    entry = entries.get(name)
    if entry is not None and not replace:
        edited = _update(text, entry, values, newline)
    elif entry is not None:
        edited = _rewrite(text, anchors, name, entry, values, newline)
    elif not entries:
        edited = _first(text, root, anchors, name, values, newline)
    elif anchors.is_flow:
        at = anchors.span.end - 1
        edited = _insert_flow(text, at, f"{name}: {_flow(values)}")
    else:
        last = list(entries.values())[-1]
        key = next(iter(anchors.keys.values()))
        edited = _insert_lines(text, last, _block(name, values, key.column - 1), newline)
    _check(edited, root, path, name, values, replace)
    return edited


def _check(edited: str, before: Node, path: str, name: str, values: Mapping[str, Value], replace: bool) -> None:
    """The edit is believed only when the new text parses to the old content and the wanted change, nothing else."""
    expected = before.plain()
    if isinstance(expected, dict):
        anchors = dict(expected.get("anchors") or {})
        old = anchors.get(name, {})
        if replace or not isinstance(old, dict):
            old = {}
        anchors[name] = {**old, **{k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}}
        expected["anchors"] = anchors
    try:
        found = parse_yaml(edited, path).plain()
    except InputError:
        found = None
    if found != expected:
        message = f"anchor {name} cannot be written without changing something else; write it in block style first"
        raise InputError(message, path=path, line=before.span.line, code="RKV152")


def _update(text: str, entry: Node, values: Mapping[str, Value], newline: str) -> str:
    if not isinstance(entry.value, dict) or not entry.value:
        return text
    missing: list[tuple[str, Value]] = []
    edits: list[tuple[int, int, str]] = []
    for key, value in values.items():
        old = entry.value.get(key)
        if old is None:
            missing.append((key, value))
        else:
            edits.append((old.span.start, old.content_end(), _scalar(value)))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    if not missing:
        return text
    shift = sum(len(new) - (end - start) for start, end, new in edits)
    if entry.is_flow:
        return _insert_flow(text, entry.span.end - 1 + shift, ", ".join(f"{k}: {_scalar(v)}" for k, v in missing))
    indent = next(iter(entry.keys.values())).column - 1
    lines = [" " * indent + f"{k}: {_scalar(v)}" for k, v in missing]
    return _splice(text, entry.content_end() + shift, lines, newline)


def _rewrite(text: str, anchors: Node, name: str, entry: Node, values: Mapping[str, Value], newline: str) -> str:
    key = anchors.keys[name]
    if anchors.is_flow:
        return text[: key.start] + f"{name}: {_flow(values)}" + text[entry.content_end() :]
    lines = _block(name, values, key.column - 1)
    return text[: key.start] + newline.join(lines).lstrip() + text[entry.content_end() :]


def _first(text: str, root: Node, anchors: Node, name: str, values: Mapping[str, Value], newline: str) -> str:
    key = root.keys["anchors"]
    lines = newline.join(_block(name, values, key.column + 1))
    return text[: key.end] + ":" + newline + lines + text[max(anchors.span.end, text.index(":", key.end) + 1) :]


def _insert_lines(text: str, last: Node, lines: list[str], newline: str) -> str:
    return _splice(text, last.content_end(), lines, newline)


def _splice(text: str, at: int, lines: list[str], newline: str) -> str:
    """Insert whole lines after the line in which position `at` lies."""
    if at and text[at - 1] == "\n":  # a block scalar ends after its last line end
        return text[:at] + newline.join(lines) + newline + text[at:]
    end = text.find("\n", at)
    if end < 0:
        return text + newline + newline.join(lines) + newline
    return text[: end + 1] + newline.join(lines) + newline + text[end + 1 :]


def _insert_flow(text: str, brace: int, content: str) -> str:
    before = text[:brace].rstrip()
    separator = "" if before.endswith(("{", ",")) else ","
    blank = "" if before.endswith("{") else " "
    return before + separator + blank + content + text[brace:]


def _block(name: str, values: Mapping[str, Value], indent: int) -> list[str]:
    pad = " " * indent
    return [f"{pad}{name}:", *(f"{pad}  {k}: {_scalar(v)}" for k, v in values.items())]


def _flow(values: Mapping[str, Value]) -> str:
    return "{" + ", ".join(f"{k}: {_scalar(v)}" for k, v in values.items()) + "}"


def _scalar(value: Value) -> str:
    if isinstance(value, Mapping):
        return _flow(value)
    if _SPAN.match(value) or (_SAFE.match(value) and value.lower() not in _WORDS):
        return value
    if _HEX.match(value) and not value.isdigit() and not re.match(r"[0-9]+e[0-9]+\Z", value):
        return value
    return json.dumps(value, ensure_ascii=False)
