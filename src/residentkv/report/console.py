"""The console that tables are printed with: text is never markup, and there is always room for a word."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console

PLAIN_COLUMNS = 80
MIN_COLUMNS = 20
"""A terminal that says it is narrower (`COLUMNS=0`) gets lines of this width, which it wraps as it can."""


def open_console(out: TextIO) -> Console:
    """Return a console: as wide as the terminal, or 80 columns of plain text when there is none."""
    if not out.isatty():
        return Console(file=out, width=PLAIN_COLUMNS, color_system=None, markup=False, highlight=False, emoji=False)
    console = Console(file=out, markup=False, highlight=False, emoji=False)
    console.width = max(console.width, MIN_COLUMNS)
    return console
