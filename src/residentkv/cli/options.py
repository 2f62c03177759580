"""Options that several commands share: where anchors are looked up, and how a report is written."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.shell_completion import CompletionItem

from residentkv.claims.modes import NamedChoice
from residentkv.errors import NoInputError, UsageError
from residentkv.files import is_there, replace_file
from residentkv.sources.machine import MachineSources, machine_sources

_F = TypeVar("_F", bound=Callable[..., Any])


class Format(NamedChoice):
    """How a report is written; the exit code is the same for all of them."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    JUNIT = "junit"
    GITHUB = "github"
    IN_TOTO = "in-toto"


REPORT_FORMATS = tuple(Format)
UNSIGNED_FORMATS = tuple(f for f in Format if f is not Format.IN_TOTO)
"""Formats of a report that is about no file which a statement could name."""


def format_options(formats: tuple[Format, ...] = REPORT_FORMATS) -> Callable[[_F], _F]:
    """Return a decorator that adds --format, --json and -o; the command gets `form` and `output`."""

    def add(command: _F) -> _F:
        @functools.wraps(command)
        def run(*arguments: Any, word: str | None, as_json: bool, **options: Any) -> Any:
            if as_json and word is not None:
                raise UsageError("found --json with --format, expected one of them; --json is --format json")
            form = Format.JSON if as_json else Format.parse(word or Format.TEXT)
            if form not in formats:
                raise UsageError(f"found --format {form}, expected one of {', '.join(formats)}")
            return command(*arguments, form=form, **options)

        decorated = run
        for option in (
            click.option("-o", "--output", metavar="FILE", help="Write the report to a file, in one step."),
            click.option("--json", "as_json", is_flag=True, help="Short for --format json."),
            click.option(
                "--format",
                "word",
                metavar="|".join(formats),
                shell_complete=complete_from(lambda: formats),
                help="How the report is written; text when not given.",
            ),
        ):
            decorated = option(decorated)
        return cast(_F, decorated)

    return add


def write_report(text: str, output: str | None) -> None:
    """Write a report to stdout, or to a file that has the old report or all of the new one, never a part.

    Raises:
        NoInputError: the file cannot be written.
    """
    if output is None:
        if text:
            click.echo(text.rstrip("\n"))
        return
    write_file(output, text.rstrip("\n") + "\n")


def write_file(output: str | Path, text: str) -> None:
    """Replace a file in one step.

    Raises:
        NoInputError: it cannot be written.
    """
    try:
        replace_file(Path(output), text.encode("utf-8", "surrogateescape"))
    except OSError as e:
        raise NoInputError(f"{output}: cannot be written ({e.strerror or e}), expected a file in a folder") from None


def make_folder(folder: str | Path) -> Path:
    """Return a folder to write to, made when it does not exist.

    Raises:
        NoInputError: it cannot be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise NoInputError(f"{folder}: cannot be made ({e.strerror or e}), expected a folder to write to") from None
    return Path(folder)


def check_output(output: str | None, inputs: Iterable[str | Path]) -> None:
    """Check that a file to write is none of those that are read: a trace or a baseline is not lost by a slip.

    Raises:
        UsageError: it is one of them, be it by another name, or it is `-`, which is no file.
    """
    if output == "-":
        raise UsageError("-: found standard output, expected a file; for a file of that name say ./-")
    if output is None or not is_there(Path(output)):
        return
    for name in inputs:
        if is_there(Path(name)) and Path(output).samefile(name):
            raise UsageError(
                f"{output}: found what this command reads ({name}), expected another file; nothing is written over it"
            )


def complete_from(words: Callable[[], Iterable[str]]) -> Callable[..., list[CompletionItem]]:
    """Return a `shell_complete` that offers words; they are only made when a shell asks."""

    def complete(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in words() if word.startswith(incomplete)]

    return complete


def source_files(documents: tuple[str, ...], archives: tuple[str, ...]) -> list[Path]:
    """Return the files that --document and --archive name."""
    return [*map(Path, archives), *split_pairs(documents, "--document").values()]


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
