"""The one exception tree. Every message says where, what was found, what was expected and the next step."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_PASS = 0
EXIT_INTERNAL = 1
EXIT_USAGE = 2
EXIT_NO_INPUT = 3
EXIT_VIOLATED = 10
EXIT_UNKNOWN = 11


class ResidentKVError(Exception):
    """Root of all errors raised on purpose; `exit_code` is what a command returns when it ends here."""

    exit_code = EXIT_INTERNAL


class UsageError(ResidentKVError):
    """The caller asked for something that does not exist (a mode, a runtime, an option value)."""

    exit_code = EXIT_USAGE


class NoInputError(ResidentKVError):
    """There is nothing to judge: the file is missing or unreadable, or a selection matched nothing."""

    exit_code = EXIT_NO_INPUT


class InputError(ResidentKVError):
    """Input was there but could not be understood; it is never repaired and never passes.

    Args:
        message: what was found, what was expected, the next step.
        path: file (or `-`), as the caller named it.
        line: 1-based line, 0 when unknown.
        column: 1-based column, 0 when unknown.
        code: stable rule code such as `RKV101`, empty when none applies.
    """

    exit_code = EXIT_UNKNOWN

    def __init__(self, message: str, *, path: str = "", line: int = 0, column: int = 0, code: str = "") -> None:
        self.message = message
        self.path = path
        self.line = line
        self.column = column
        self.code = code
        super().__init__(str(self))

    def __str__(self) -> str:
        where = self.path
        if self.line:
            where += f":{self.line}"
            if self.column:
                where += f":{self.column}"
        code = f"{self.code} " if self.code else ""
        return f"{where}: {code}{self.message}" if where else f"{code}{self.message}"


def near(word: str, words: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the word that is nearest, to end a message with, or nothing."""
    matches = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""
