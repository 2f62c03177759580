"""`residentkv schema`: the JSON Schema of the file formats, from the same structs that the readers use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from residentkv.errors import near
from residentkv.files import replace_file
from residentkv.lowering.format import descriptor_schema
from residentkv.report.intoto import Statement
from residentkv.report.shapes import AuditDocument, CheckDocument, SuiteDocument

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def _document_schema(shape: object, title: str) -> Callable[[], dict[str, Any]]:
    return lambda: {"$schema": DIALECT, "title": title, **msgspec.json.schema(shape)}


FORMATS: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "audit": ("reports of audit", _document_schema(AuditDocument, "residentkv.audit/1")),
    "check": ("reports of check, which are also baselines", _document_schema(CheckDocument, "residentkv.check/1")),
    "descriptor": ("descriptor files", descriptor_schema),
    "statement": ("in-toto statements", _document_schema(Statement, "in-toto Statement v1 with residentkv verdicts")),
    "suite": ("reports of suite", _document_schema(SuiteDocument, "residentkv.suite/1")),
}
"""Name of a format, what it is of, and what makes its schema."""


class _SchemaGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(FORMATS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in FORMATS:
            return None
        return click.Command(
            cmd_name,
            callback=lambda: click.echo(schema_text(cmd_name), nl=False),
            help=f"Print the JSON Schema (2020-12) of {FORMATS[cmd_name][0]}.",
        )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in FORMATS:
            words = sorted(FORMATS)
            hint = near(args[0], words)
            raise click.UsageError(f"unknown format {args[0][:60]!r}, expected one of {', '.join(words)}{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=_SchemaGroup)
def schema() -> None:
    """Print the JSON Schema of a file format."""


def schema_text(name: str) -> str:
    """Return the schema of a format as text, keys in a fixed order."""
    encoded = msgspec.json.encode(FORMATS[name][1](), order="deterministic")
    return msgspec.json.format(encoded, indent=2).decode() + "\n"


def write_schemas(folder: Path) -> list[Path]:
    """Write `<format>.schema.json` for every format into a folder and return the paths; `make gen` calls this."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in sorted(FORMATS):
        path = folder / f"{name}.schema.json"
        replace_file(path, schema_text(name).encode())
        written.append(path)
    return written
