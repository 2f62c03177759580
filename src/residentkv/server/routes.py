"""The claims API over HTTP, below `/residentkv`: an owner's token says whose claims they are.

GET    /residentkv/claims?limit=100&after=ID    the caller's open claims
GET    /residentkv/claims/ID                    one of them
POST   /residentkv/claims/ID/renew              {"revision": 2, "ttl_s": 600}
DELETE /residentkv/claims/ID                    release it
GET    /residentkv/metrics                      numbers without names, for anybody
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, unquote

import msgspec

from residentkv.claims.model import MAX_NAME_CHARS
from residentkv.server.asgi import Receive, Scope, Send, read_all, send_error, send_json, send_whole
from residentkv.server.errors import problem_error
from residentkv.server.wire import (
    PAGE_CLAIMS,
    UNAUTHENTICATED,
    AnyAnswer,
    AnyAsk,
    Claim,
    Claims,
    Digest,
    ListClaims,
    Metrics,
    Problem,
    ReadMetrics,
    ReleaseClaim,
    RenewClaim,
    Revision,
    ShowClaim,
)

PREFIX = "/residentkv"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_BODY_BYTES = 4096

NO_ROUTE = Problem(code="not_found", message="no such address; see docs/server.md for those below /residentkv")


class _Renewal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    revision: Revision
    ttl_s: float | None


async def answer_route(
    scope: Scope, receive: Receive, send: Send, *, ask: Callable[[AnyAsk], Awaitable[AnyAnswer]], token: Digest | None
) -> None:
    """Answer one request below `PREFIX`."""
    question = await _question(scope, receive, token)
    answer = question if isinstance(question, Problem) else await ask(question)
    match answer:
        case Problem():
            await send_error(send, problem_error(answer))
        case Metrics():
            await send_whole(send, 200, answer.text.encode(), METRICS_TYPE)
        case Claims():
            more = answer.next_after[1] if answer.next_after is not None else None
            await send_json(send, 200, {"claims": answer.claims, "next_after": more})
        case Claim():
            await send_json(send, 200, {"done": answer.done, "claim": answer.claim})
        case _:
            await send_error(send, problem_error(Problem(code="internal", message="an answer of another kind")))


async def _question(scope: Scope, receive: Receive, token: Digest | None) -> AnyAsk | Problem:
    method, words = scope["method"], _words(scope)
    if method == "GET" and words == ["metrics"]:
        return ReadMetrics()
    if not words or words[0] != "claims":
        return NO_ROUTE
    if token is None:
        return UNAUTHENTICATED
    if method == "GET" and len(words) == 1:
        return _listing(scope, token)
    if len(words) < 2 or not 1 <= len(words[1]) <= MAX_NAME_CHARS:
        return NO_ROUTE
    claim_id = words[1]
    match method, words[2:]:
        case "GET", []:
            return ShowClaim(token_sha256=token, claim_id=claim_id)
        case "DELETE", []:
            return ReleaseClaim(token_sha256=token, claim_id=claim_id)
        case "POST", ["renew"]:
            data = await read_all(receive, MAX_BODY_BYTES)
            try:
                renewal = msgspec.json.decode(data or b"", type=_Renewal, strict=True)
            except (msgspec.MsgspecError, UnicodeError, RecursionError) as e:
                return Problem(code="invalid", message=f"{e}; expected revision and ttl_s", param=_field(str(e)))
            return RenewClaim(token_sha256=token, claim_id=claim_id, revision=renewal.revision, ttl_s=renewal.ttl_s)
    return NO_ROUTE


def _words(scope: Scope) -> list[str]:
    """Return the parts of the path below the prefix, each decoded by itself: an ID may have a slash in it."""
    raw = scope.get("raw_path") or str(scope["path"]).encode()
    path = raw.decode("latin-1").partition("?")[0].removeprefix(scope.get("root_path", ""))
    return [unquote(word) for word in path.removeprefix(PREFIX).strip("/").split("/") if word]


def _listing(scope: Scope, token: Digest) -> AnyAsk | Problem:
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    unknown = set(query) - {"limit", "after"}
    if unknown:
        return Problem(code="invalid", message="expected limit or after", param=sorted(unknown)[0][:40])
    limit = query.get("limit", [str(PAGE_CLAIMS)])[-1]
    if not limit.isascii() or not limit.isdigit() or len(limit) > 9 or not 1 <= int(limit) <= PAGE_CLAIMS:
        return Problem(code="invalid", message=f"expected 1 to {PAGE_CLAIMS}", param="limit")
    after = query.get("after")
    return ListClaims(token_sha256=token, limit=int(limit), after=("", after[-1]) if after else None)


def _field(message: str) -> str | None:
    return next((name for name in ("revision", "ttl_s") if f"`{name}`" in message or f"$.{name}`" in message), None)
