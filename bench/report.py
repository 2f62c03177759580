"""Tables as Markdown, printed and written into their own part of BENCHMARKS.md."""

from __future__ import annotations

import datetime
import platform
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from residentkv import __version__
from residentkv.files import replace_file

_HEAD = (
    "# Benchmarks\n\nEach part is written by the command that it names, exactly as that command printed it.\n"
    "Figures of different dates or machines are not comparable; figures within one table were taken in turns.\n"
)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; every column but the first is set to the right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def taken_on(cores: int = 1) -> str:
    """Return date, machine and versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("msgspec", "zstandard"))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return (
        f"Taken {datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, residentkv {__version__}, {versions}, {python}, "
        f"{processor()}, {'one core' if cores == 1 else f'{cores} cores'}, {platform.system()}."
    )


def processor() -> str:
    """Return the name of the processor."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    m = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return m[1].strip() if m else platform.machine()


def write_part(path: Path, name: str, text: str) -> None:
    """Replace one part of the file, or append it; the other parts stay as they are."""
    part = f"<!-- part: {name} -->\n{text}\n<!-- end of part: {name} -->\n"
    old = path.read_text(encoding="utf-8") if path.exists() else _HEAD
    known = re.compile(rf"<!-- part: {re.escape(name)} -->\n.*?<!-- end of part: {re.escape(name)} -->\n", re.DOTALL)
    new = known.sub(lambda _: part, old) if known.search(old) else f"{old.rstrip()}\n\n{part}"
    replace_file(path, new.encode())
