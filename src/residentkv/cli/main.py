"""The command `residentkv`: one group, commands imported only when they are asked for, one line for every error."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import click

from residentkv import __version__
from residentkv.errors import EXIT_INTERNAL, EXIT_NO_INPUT, EXIT_USAGE, ResidentKVError, near
from residentkv.report.plain import escape_controls

_COMMANDS: dict[str, tuple[str, str]] = {
    "anchors": ("residentkv.cli.anchors:anchors", "Write, verify, compare and fetch anchors."),
    "attest": ("residentkv.cli.attest:attest", "Sign and verify statements about reports."),
    "audit": ("residentkv.cli.audit:audit", "Judge event traces against the contract, fail-closed."),
    "check": ("residentkv.cli.check:check", "Judge rows of descriptors, fail-closed."),
    "claims": ("residentkv.cli.claims:claims", "List, show, release and renew claims of a running engine."),
    "completion": ("residentkv.cli.completion:completion", "Print the completion script of a shell."),
    "demo": ("residentkv.cli.demo:demo", "Everything once on the reference runtime, from descriptors to verdicts."),
    "explain": ("residentkv.cli.rules:explain", "Tell everything about a rule."),
    "init": ("residentkv.cli.init:init", "Write a descriptor skeleton for an installed package."),
    "litmus": ("residentkv.cli.litmus:litmus", "Measure the capacity and materialization litmus on a runtime."),
    "reference": ("residentkv.cli.reference:reference", "Run the reference runtime and write its traces."),
    "report": ("residentkv.cli.report:report", "Reports for people, one HTML file each."),
    "rules": ("residentkv.cli.rules:rules", "List the rules, by code."),
    "schema": ("residentkv.cli.schema:schema", "Print the JSON Schema of a file format."),
    "study": ("residentkv.cli.study:study", "Put questions to a real runtime and audit what it did."),
    "suite": ("residentkv.cli.suite:suite", "Run the bad lowerings, and mutants of everything positive."),
    "witness": ("residentkv.cli.witness:witness", "Run scenarios on a real vLLM and judge their traces."),
}
"""Name of a command, where it is, and its line in the help."""

_NO_NAME = (errno.ENAMETOOLONG, errno.ELOOP)
"""What only a path that somebody named can lead to, be it in an option or in the environment."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is not a command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS:
            words = sorted(_COMMANDS)
            raise click.UsageError(
                f"unknown command {args[0][:60]!r}, expected one of {', '.join(words)}{near(args[0], words)}"
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_) for name, (_, help_) in sorted(_COMMANDS.items())])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="residentkv")
@click.option("--debug", is_flag=True, help="Show a traceback for an unexpected error.")
def residentkv(debug: bool) -> None:
    """Accepted claims about future KV-cache reuse: lowered fail-closed, audited from real traces.

    Exit codes: 0 pass, 1 internal error, 2 usage, 3 no input, 10 violated, 11 unknown or inconclusive.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; every error is one line on stderr."""
    _prepare_streams()
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    finally:
        _settle(sys.stdout)
        _settle(sys.stderr)


def _run(arguments: list[str]) -> int:
    try:
        result = residentkv.main(args=arguments, prog_name="residentkv", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except ResidentKVError as e:
        return _fail(str(e), e.exit_code)
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.Abort:
        return _fail("interrupted", EXIT_INTERNAL)
    except click.exceptions.NoArgsIsHelpError as e:
        sys.stderr.write(f"{e.format_message()}\n")
        return EXIT_USAGE
    except click.ClickException as e:
        return _fail(e.format_message(), EXIT_USAGE)
    except BrokenPipeError:
        return EXIT_INTERNAL
    except OSError as e:
        if e.errno in _NO_ROOM and e.filename is None:
            return _fail(
                f"cannot be written ({e.strerror}), expected room for standard output and files", EXIT_NO_INPUT
            )
        if e.errno in _NO_NAME and e.filename is not None:
            message = (
                f"{str(e.filename)[:200]}: cannot be used ({e.strerror}), expected a file or folder; check the path"
            )
            return _fail(message, EXIT_NO_INPUT)
        return _fail_unexpected(e, arguments)
    except Exception as e:
        return _fail_unexpected(e, arguments)


def _prepare_streams() -> None:
    """Write every text, as an escape where the encoding has no letter; a closed stream takes and gives nothing."""
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 (for the whole run)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (for the whole run)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _settle(stream: TextIO) -> None:
    """Write out what a stream still holds; what cannot be written goes nowhere.

    The interpreter would try it once more at its end, and exit with 120 whatever the verdict was.
    """
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _fail_unexpected(error: Exception, arguments: Sequence[str]) -> int:
    if "--debug" in arguments:
        raise error
    return _fail(f"unexpected {type(error).__name__}: {error}; run with --debug for a traceback", EXIT_INTERNAL)


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):  # nobody can be told why nobody can be told
        sys.stderr.write(f"residentkv: error: {escape_controls(message.replace(chr(10), ' '))}\n")
        sys.stderr.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
