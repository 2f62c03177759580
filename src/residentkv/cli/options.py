"""Options that several commands share: where anchors are looked up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from residentkv.errors import UsageError
from residentkv.sources.machine import MachineSources, machine_sources

_F = TypeVar("_F", bound=Callable[..., Any])


def source_options(command: _F) -> _F:
    """Add --site-packages, --archive, --checkout and --document."""
    for option in (
        click.option(
            "--document", "documents", multiple=True, metavar="URL=FILE", help="Text of a document, saved by you."
        ),
        click.option(
            "--checkout", "checkouts", multiple=True, metavar="REPO=DIR", help="Local checkout of a repository."
        ),
        click.option("--archive", "archives", multiple=True, metavar="FILE", help="A wheel or sdist file."),
        click.option(
            "--site-packages", "site_packages", multiple=True, metavar="DIR", help="One more folder of packages."
        ),
    ):
        command = option(command)
    return command


def split_pairs(values: tuple[str, ...], option: str) -> dict[str, Path]:
    """Read `NAME=PATH` values.

    Raises:
        UsageError: there is no `=`, or a side is empty.
    """
    pairs: dict[str, Path] = {}
    for value in values:
        name, _, path = value.rpartition("=")
        if not name or not path:
            raise UsageError(f"{option}: found {value!r}, expected NAME=PATH")
        pairs[name] = Path(path)
    return pairs


def named_sources(
    documents: tuple[str, ...], checkouts: tuple[str, ...], archives: tuple[str, ...], site_packages: tuple[str, ...]
) -> MachineSources:
    """Return the sources of this machine with what the options of `source_options` name.

    Raises:
        UsageError: a value is not NAME=PATH.
        NoInputError: a path does not exist.
    """
    return machine_sources(
        site_packages=[Path(p) for p in site_packages],
        archives=[Path(p) for p in archives],
        checkouts=split_pairs(checkouts, "--checkout"),
        documents=split_pairs(documents, "--document"),
    )
