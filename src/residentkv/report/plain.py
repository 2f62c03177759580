"""Text that is safe to show."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator

COLUMNS = 80

_UNUSUAL = re.compile(r"[^\x20-\x7e\n]")


def escape_controls(text: str) -> str:
    """Return text in which nothing can steer a terminal: control and direction characters become escapes."""
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode("ascii") for c in text)


def escape_cell(text: str) -> str:
    """Return text for a cell of a Markdown table: it neither ends the cell nor begins a line or an element."""
    return escape_controls(" ".join(text.split())).replace("|", "\\|").replace("<", "\\<")


def escape_json(text: str) -> str:
    """Return JSON that decodes to the same and in which nothing can steer a terminal: `\\u` for such characters."""
    return _UNUSUAL.sub(lambda m: m[0] if m[0].isprintable() else json.dumps(m[0])[1:-1], text)


def list_lines(entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield names and what they are called for, in two columns, 80 columns wide."""
    named = list(entries)
    indent = max((len(name) for name, _ in named), default=0) + 2
    for name, title in named:
        text = textwrap.wrap(escape_controls(title), COLUMNS - indent, break_on_hyphens=False)
        yield f"{name:<{indent}}{text[0] if text else ''}".rstrip()
        yield from (" " * indent + line for line in text[1:])
