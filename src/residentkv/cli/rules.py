"""`residentkv rules` and `residentkv explain`: every code that a report can name, and what it means."""

from __future__ import annotations

import click

from residentkv.cli.options import complete_from
from residentkv.errors import EXIT_PASS, UsageError, near
from residentkv.report.catalogue import all_rules, find_rule
from residentkv.report.rules import explain_rule, rule_lines

_COMPLETE = complete_from(lambda: [w for rule in all_rules() for w in (rule.code, rule.slug)])


@click.command()
@click.argument("prefixes", nargs=-1, metavar="[CODE]...")
def rules(prefixes: tuple[str, ...]) -> int:
    """List the rules, or those whose code begins with CODE.

    \b
    Examples:
      residentkv rules
      residentkv rules RKV25
    """
    known = all_rules()
    for prefix in prefixes:
        if not any(r.code.startswith(prefix.upper()) for r in known):
            hint = near(prefix.upper(), [r.code for r in known])
            raise UsageError(f"no rule begins with {prefix[:60]!r}, expected such as RKV203 or RKV2{hint}")
    wanted = tuple(p.upper() for p in prefixes)
    for line in rule_lines([r for r in known if not wanted or r.code.startswith(wanted)]):
        click.echo(line)
    return EXIT_PASS


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="RULE...", shell_complete=_COMPLETE)
def explain(words: tuple[str, ...]) -> int:
    """Tell everything about rules: what is checked, why, in which order, and when nothing can be decided.

    RULE is a code or a name.

    \b
    Examples:
      residentkv explain RKV203
      residentkv explain restore-after-reuse
    """
    for number, word in enumerate(words):
        if number:
            click.echo()
        for line in explain_rule(find_rule(word)):
            click.echo(line)
    return EXIT_PASS
