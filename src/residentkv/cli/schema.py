"""`residentkv schema`: the JSON Schema of the file formats, from the same structs that the readers use."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from residentkv.files import replace_file
from residentkv.lowering.format import descriptor_schema

_FORMATS = {"descriptor": descriptor_schema}


@click.group()
def schema() -> None:
    """Print the JSON Schema of a file format."""


@schema.command()
def descriptor() -> None:
    """Print the JSON Schema (2020-12) of descriptor files."""
    click.echo(schema_text("descriptor"), nl=False)


def schema_text(name: str) -> str:
    """Return the schema of a format as text, keys in a fixed order."""
    encoded = msgspec.json.encode(_FORMATS[name](), order="deterministic")
    return msgspec.json.format(encoded, indent=2).decode() + "\n"


def write_schemas(folder: Path) -> list[Path]:
    """Write `<format>.schema.json` for every format into a folder and return the paths; `make gen` calls this."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in sorted(_FORMATS):
        path = folder / f"{name}.schema.json"
        replace_file(path, schema_text(name).encode())
        written.append(path)
    return written
