"""`residentkv claims`: what an engine's claims socket answers, for the user that runs the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from residentkv.claims.model import MAX_TTL_S
from residentkv.errors import InputError, NoInputError, UsageError
from residentkv.report.plain import escape_controls, escape_json
from residentkv.server.client import ask
from residentkv.server.middleware import SOCKET_VARIABLE
from residentkv.server.wire import (
    AnyAnswer,
    AnyAsk,
    Claim,
    Claims,
    ClaimView,
    ListClaims,
    Metrics,
    Problem,
    ReadMetrics,
    ReleaseClaim,
    RenewClaim,
    ShowClaim,
)
from residentkv.trace.codec import encode_event
from residentkv.trace.reader import read_trace
from residentkv.trace.view import owner_view

_F = TypeVar("_F", bound=Callable[..., Any])

_socket = click.option(
    "--socket",
    "path",
    envvar=SOCKET_VARIABLE,
    required=True,
    metavar="PATH",
    help=f"The engine's socket_path. [env: {SOCKET_VARIABLE}]",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
_owner = click.option("--owner", "owner_scope", required=True, metavar="NAME", help="Whose claim it is.")


def _one_claim(command: _F) -> _F:
    for option in (click.argument("claim_id", metavar="CLAIM_ID"), _json, _owner, _socket):
        command = option(command)
    return command


@click.group()
def claims() -> None:
    """Claims of a running engine, through its Unix socket, and one owner's view of its log.

    Only the user that runs the engine can open the socket, and may act for every owner.
    Exit codes: 0 done, 2 usage or a renewal that was not possible, 3 no such claim, engine or log, 11 not understood.
    """


@claims.command("list")
@_socket
@click.option("--owner", "owner_scope", metavar="NAME", help="Only this owner's claims.")
@_json
def list_claims(path: str, owner_scope: str | None, as_json: bool) -> int:
    """List open claims, by owner and name."""
    after: tuple[str, str] | None = None
    found: list[ClaimView] = []
    while True:
        page = _ask(path, ListClaims(owner_scope=owner_scope, after=after))
        if not isinstance(page, Claims):
            raise _odd(page)
        found += page.claims
        after = page.next_after
        if after is None:
            break
    if as_json:
        click.echo(escape_json(msgspec.json.encode({"claims": found}).decode()))
    else:
        click.echo(_table(found) if found else "no open claim")
    return 0


@claims.command("show")
@_one_claim
def show_claim(path: str, owner_scope: str, claim_id: str, as_json: bool) -> int:
    """Show one open claim."""
    return _print_one(_ask(path, ShowClaim(owner_scope=owner_scope, claim_id=claim_id)), as_json)


@claims.command("release")
@_one_claim
def release_claim(path: str, owner_scope: str, claim_id: str, as_json: bool) -> int:
    """Let a claim go; what it held may be lost from then on."""
    return _print_one(_ask(path, ReleaseClaim(owner_scope=owner_scope, claim_id=claim_id)), as_json)


@claims.command("renew")
@_one_claim
@click.option(
    "--revision", type=int, required=True, help="Above the claim's revision, so that no renewal counts twice."
)
@click.option("--ttl", "ttl_s", type=float, metavar="SECONDS", help="New term from now on; left out: no term any more.")
def renew_claim(path: str, owner_scope: str, claim_id: str, revision: int, ttl_s: float | None, as_json: bool) -> int:
    """Give an open claim a new term, which is never shorter than the old one."""
    if not 0 <= revision < 1 << 31:
        raise UsageError(f"--revision: found {revision}, expected 0 to {(1 << 31) - 1}")
    if ttl_s is not None and not 0 < ttl_s <= MAX_TTL_S:
        raise UsageError(f"--ttl: found {ttl_s}, expected a number above 0, at most {MAX_TTL_S:.0f}")
    answer = _ask(path, RenewClaim(owner_scope=owner_scope, claim_id=claim_id, revision=revision, ttl_s=ttl_s))
    return _print_one(answer, as_json)


@claims.command("metrics")
@_socket
def read_metrics(path: str) -> int:
    """Print the engine's numbers about claims, in the text format of Prometheus."""
    answer = _ask(path, ReadMetrics())
    if not isinstance(answer, Metrics):
        raise _odd(answer)
    click.echo(answer.text, nl=False)
    return 0


@claims.command("log")
@click.argument("trace", metavar="TRACE")
@_owner
def show_log(trace: str, owner_scope: str) -> int:
    """Print what an owner may see of an event log, as JSON lines: its own claims and requests, nobody else's.

    Such a view has gaps and cannot be audited; 'residentkv audit' takes the log itself.
    """
    for event in owner_view((e for chunk in read_trace(trace) for e in chunk), owner_scope):
        click.echo(escape_json(encode_event(event).decode()), nl=False)
    return 0


def _ask(path: str, question: AnyAsk) -> AnyAnswer:
    answer = ask(path, question)
    if isinstance(answer, Problem):
        message = f"{answer.param}: {answer.message}" if answer.param else answer.message
        if answer.code == "not_found":
            raise NoInputError(f"{message}; 'residentkv claims list' shows those that are")
        raise UsageError(message) if answer.code in ("invalid", "stale_revision") else InputError(message)
    return answer


def _odd(answer: AnyAnswer) -> InputError:
    return InputError(f"claims socket: found an answer of kind {type(answer).__name__}; use the engine's release")


def _print_one(answer: AnyAnswer, as_json: bool) -> int:
    if not isinstance(answer, Claim):
        raise _odd(answer)
    if as_json:
        click.echo(escape_json(msgspec.json.encode(answer.claim).decode()))
        return 0
    if answer.done != "shown":
        click.echo(f"{answer.done}: {escape_controls(answer.claim.claim_id)}")
    for name, value in msgspec.to_builtins(answer.claim).items():
        click.echo(f"  {name:<18} {escape_controls(str(value)) if value is not None else '-'}")
    return 0


def _table(found: list[ClaimView]) -> str:
    head = ("owner", "claim", "mode", "state", "blocks", "revision", "expires in s")
    rows = [head]
    for c in found:
        left = "-" if c.expires_in_s is None else f"{c.expires_in_s:.1f}"
        names = (escape_controls(c.owner_scope), escape_controls(c.claim_id))
        rows.append((*names, c.mode, c.state, str(c.footprint_blocks), str(c.revision), left))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
