"""`residentkv completion`: the script that teaches a shell the commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from residentkv.errors import EXIT_PASS, UsageError, near

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_RESIDENTKV_COMPLETE"


@click.command()
@click.argument("shell", metavar="bash|zsh|fish")
def completion(shell: str) -> int:
    """Print the completion script of a shell.

    \b
    Examples:
      residentkv completion bash
      residentkv completion zsh
    """
    from residentkv.cli.main import residentkv

    known = get_completion_class(shell) if shell in SHELLS else None
    if known is None:
        raise UsageError(f"unknown shell {shell[:60]!r}, expected one of {', '.join(SHELLS)}{near(shell, SHELLS)}")
    click.echo(known(residentkv, {}, "residentkv", VARIABLE).source())
    return EXIT_PASS
