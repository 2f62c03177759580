"""Text that is safe to show."""

from __future__ import annotations


def escape_controls(text: str) -> str:
    """Return text in which nothing can steer a terminal: control and direction characters become escapes."""
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode("ascii") for c in text)
