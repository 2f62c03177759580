"""Running a command for a test and reading what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from residentkv.cli.main import main
from tests.lowering.site import Site

SCHEMAS = Path(__file__).parent / "schemas"
FORMATS = ("text", "json", "sarif", "junit", "github", "in-toto")


def write(*arguments: str, form: str) -> tuple[int, str]:
    """Return the exit code of a command and its report in a format."""
    target = Path("written")
    code = main([*arguments, "--format", form, "-o", str(target)])
    return code, target.read_text(encoding="utf-8")


def write_json(*arguments: str, form: str) -> Any:
    """Return the report of a command in a format that is JSON."""
    return json.loads(write(*arguments, form=form)[1])


def check_of(site: Site, *arguments: str) -> tuple[str, ...]:
    """Return the arguments of a check of a descriptor."""
    return ("check", "--descriptor", str(site.descriptor), "--site-packages", str(site.folder), *arguments)
