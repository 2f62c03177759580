"""The transcripts of docs/server.md: commands that are run against the real server, and what they printed.

`python -m tests.live.transcript` starts the server, runs them and writes the page; a live test does it and compares.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.live.serving import LiveServer, masked

PAGE = Path("docs") / "server.md"
BEGIN, END = "<!-- transcript -->", "<!-- /transcript -->"

CLAIM = '"claim_id":"system","mode":"offloadable","predicate":"leading_prefix_at_least(4)"'


def complete(token: str, params: str, *, prompt: str = "$SYSTEM", more: str = "") -> str:
    """A completion of an owner with kv_transfer_params."""
    return (
        f'curl -isS $URL/v1/completions -H "Authorization: Bearer ${token}" --json '
        f"""'{{"model":"smollm2","max_tokens":2,"temperature":0,"prompt":"'"{prompt}"'",{more}"""
        f""""kv_transfer_params":{{{params}}}}}'"""
    )


class Step(NamedTuple):
    """A command of the transcript, what is said before it, and what the operator does before it."""

    name: str
    title: str
    command: str
    before: Callable[[LiveServer], None] | None = None


def _lose_primary(server: LiveServer) -> None:
    server.fail_loads("system")
    server.empty_primary()


def _empty(server: LiveServer) -> None:
    server.empty_primary()


def _empty_stored(server: LiveServer) -> None:
    server.wait_for_state("tenant-a", "system", "offloaded")
    server.empty_primary()


def _heal(server: LiveServer) -> None:
    server.fail_loads()


STEPS = [
    Step("accepted", "A claim is accepted.", complete("A", f'"resident_claim":{{{CLAIM}}}')),
    Step(
        "joined",
        "A streamed request joins it; the decision is in the headers only.",
        complete("A", f'"resident_claim":{{{CLAIM}}}', more='"stream":true,'),
    ),
    Step(
        "clipped",
        "More blocks than the second tier has: clipped, as this server was told to.",
        complete("A", f'"resident_claim":{{{CLAIM.replace("system", "long")}}}', prompt="$LONG"),
    ),
    Step(
        "first_of_b",
        "Owner B may have one claim.",
        complete("B", '"resident_claim":{"claim_id":"one","mode":"best_effort","predicate":"whole_object"}'),
    ),
    Step(
        "rejected",
        "Its second one is rejected, and the request is served.",
        complete("B", '"resident_claim":{"claim_id":"two","mode":"best_effort","predicate":"whole_object"}'),
    ),
    Step(
        "other_salt",
        "The same tokens under a cache salt are another object.",
        complete("A", f'"resident_claim":{{{CLAIM}}}', more='"cache_salt":"s3",'),
    ),
    Step(
        "bad_claim",
        "A bad claim: 400, with the field named.",
        complete("A", f'"resident_claim":{{{CLAIM},"ttl_s":-1}}'),
    ),
    Step("no_token", "No token: 401.", complete("NOBODY", f'"resident_claim":{{{CLAIM}}}')),
    Step(
        "restored",
        "The primary tier was emptied: the claim is restored from the second tier.",
        complete("A", f'"resident_claim":{{{CLAIM}}}'),
        _empty_stored,
    ),
    Step(
        "failed",
        "It was emptied again, and loads fail now (a fault plan): 424, with the claim named.",
        complete("A", f'"resident_claim":{{{CLAIM}}}'),
        _lose_primary,
    ),
    Step(
        "failed_stream",
        "The same, streamed: the error comes before the first byte, so it is a status.",
        complete("A", f'"resident_claim":{{{CLAIM}}}', more='"stream":true,'),
        _empty,
    ),
    Step(
        "renewed",
        "A term for the claim.",
        """curl -isS $URL/residentkv/claims/system/renew -H "Authorization: Bearer $A" \
--json '{"revision":1,"ttl_s":600}'""",
        _heal,
    ),
    Step(
        "foreign_show",
        "Owner B asks for it: 404.",
        'curl -isS $URL/residentkv/claims/system -H "Authorization: Bearer $B"',
    ),
    Step(
        "foreign_release",
        "And cannot release it: 404 in the same words.",
        'curl -isS -X DELETE $URL/residentkv/claims/system -H "Authorization: Bearer $B"',
    ),
    Step("listed", "The operator sees all claims.", "residentkv claims list"),
    Step(
        "released",
        "Its owner releases it.",
        'curl -isS -X DELETE $URL/residentkv/claims/system -H "Authorization: Bearer $A"',
    ),
    Step(
        "released_twice",
        "Once.",
        'curl -isS -X DELETE $URL/residentkv/claims/system -H "Authorization: Bearer $A"',
    ),
    Step(
        "held",
        "A claim that holds its 22 blocks of the primary tier, which has 64, for a time.",
        complete(
            "A",
            '"resident_claim":{"claim_id":"held","mode":"hard_protected","predicate":"whole_object","ttl_s":600}',
            prompt="$LONG",
        ),
    ),
    Step(
        "refused",
        "A request that does not fit beside it, of owner B: 503, with the shortfall, and no name of a claim of A.",
        complete("B", "", prompt="$OTHER"),
    ),
    Step(
        "refused_own",
        "The same of owner A, streamed: a status as well, and its own claim is named.",
        complete("A", "", prompt="$OTHER", more='"stream":true,'),
    ),
    Step(
        "metrics",
        "The numbers.",
        "curl -sS $URL/residentkv/metrics | "
        "grep -E '^residentkv_(claims|protected|claim_.*_total|refusals_total|failed_.*_total|.*lag)'",
    ),
]


def record(server: LiveServer) -> dict[str, str]:
    """Run every step; return what each printed."""
    printed = {}
    for step in STEPS:
        if step.before is not None:
            step.before(server)
        printed[step.name] = server.shell(step.command)
    return printed


def render(printed: dict[str, str]) -> str:
    """Return the block of the page."""
    parts = [f"{step.title}\n\n```console\n$ {step.command}\n{masked(printed[step.name])}\n```" for step in STEPS]
    return BEGIN + "\n" + "\n\n".join(parts) + "\n" + END


def shown(page: str) -> str:
    """Return the block that the page has."""
    return BEGIN + page.split(BEGIN)[1].split(END)[0] + END


def main() -> int:
    """Write the page again."""
    with tempfile.TemporaryDirectory() as folder:
        server = LiveServer(Path(folder))
        try:
            block = render(record(server.start()))
            server.stop()
        finally:
            server.kill()
    page = PAGE.read_text()
    PAGE.write_text(page.replace(shown(page), block))
    return 0


if __name__ == "__main__":
    sys.exit(main())
