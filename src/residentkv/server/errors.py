"""Errors over HTTP: the shape that OpenAI clients know, and beside it what is known about claims."""

from __future__ import annotations

import math
import re
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec

from residentkv.server.wire import Problem, RefusalView

Headers = list[tuple[bytes, bytes]]

_FIELD = re.compile(r"resident_claim\w*\.(\w+)|`\$\.(\w+)|field `(\w+)`")
_STATUS: dict[str, HTTPStatus] = {
    "invalid": HTTPStatus.BAD_REQUEST,
    "unauthenticated": HTTPStatus.UNAUTHORIZED,
    "not_found": HTTPStatus.NOT_FOUND,
    "stale_revision": HTTPStatus.CONFLICT,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "event_log_failed": HTTPStatus.SERVICE_UNAVAILABLE,
    "internal": HTTPStatus.INTERNAL_SERVER_ERROR,
}
_TYPE = {"invalid": "BadRequestError"}
"""Where the type is not the code in other letters: a field that is wrong is wrong in the same word everywhere."""


UNKNOWN_DECISION: Headers = [(b"x-residentkv-decision", b"unknown")]
"""A claim was sent and the engine told of no decision: the request may have been served without it."""


class HttpError(msgspec.Struct, frozen=True, kw_only=True):
    """An error as it goes out; `about` is what residentkv knows beyond the message."""

    status: HTTPStatus
    type: str
    message: str
    about: dict[str, Any]
    param: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the body: `error` with vLLM's four fields, and `residentkv`."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": int(self.status),
                "residentkv": self.about,
            }
        }


def refusal_error(refusal: RefusalView) -> HttpError:
    """Return 424 for a claim that could not be given back, and 503 for a request that does not fit beside claims."""
    about = {k: v for k, v in msgspec.to_builtins(refusal).items() if v is not None}
    headers: tuple[tuple[str, str], ...] = (("x-residentkv-refusal", refusal.reason),)
    if refusal.retry_after_s is not None:
        headers += (("retry-after", str(max(1, math.ceil(refusal.retry_after_s)))),)
    if refusal.outcome == "restoration_failed":
        named = ", ".join(map(repr, refusal.claim_ids)) or "its claim"
        message = f"refused: {named} could not be given back ({refusal.reason}); on_restore_failure is 'refuse'"
        return HttpError(
            status=HTTPStatus.FAILED_DEPENDENCY,
            type="ClaimRestorationError",
            message=message,
            about=about,
            headers=headers,
        )
    short = f", {refusal.shortfall_blocks} blocks short" if refusal.shortfall_blocks is not None else ""
    message = f"refused: no room beside accepted claims ({refusal.blocking_claims} in the way){short}: {refusal.reason}"
    return HttpError(
        status=HTTPStatus.SERVICE_UNAVAILABLE, type="ClaimRefusalError", message=message, about=about, headers=headers
    )


def bad_claim_error(where: str, why: str) -> HttpError:
    """Return 400 for a claim that cannot be read, with the field named."""
    found = _FIELD.search(why)
    field = next((g for g in found.groups() if g), "") if found else "predicate" if "predicate" in why else ""
    return HttpError(
        status=HTTPStatus.BAD_REQUEST,
        type="BadRequestError",
        message=why,
        param=f"{where}.{field}" if field else where,
        about={"outcome": "rejected", "reason": "claim_invalid"},
    )


def unreadable_body_error() -> HttpError:
    """Return 400 for a body that Python reads and that is no JSON."""
    return HttpError(
        status=HTTPStatus.BAD_REQUEST,
        type="BadRequestError",
        message="the body: found NaN, half of a surrogate pair, a number out of range or another encoding than UTF-8, "
        "expected JSON (RFC 8259)",
        about={"outcome": "not_done", "reason": "body_unreadable"},
    )


def owner_error(where: str, stated: str, owner_scope: str) -> HttpError:
    """Return 403 for a claim in another owner's name."""
    return HttpError(
        status=HTTPStatus.FORBIDDEN,
        type="PermissionDeniedError",
        message=f"found {stated[:60]!r}, expected {owner_scope!r}, whose token this is; leave the field out",
        param=f"{where}.owner_scope",
        about={"outcome": "rejected", "reason": "owner_differs"},
    )


def problem_error(problem: Problem) -> HttpError:
    """Return the status of what the engine's desk did not do."""
    status = _STATUS.get(problem.code, HTTPStatus.INTERNAL_SERVER_ERROR)
    return HttpError(
        status=status,
        type=_TYPE.get(problem.code) or "".join(word.capitalize() for word in problem.code.split("_")) + "Error",
        message=problem.message,
        param=problem.param,
        about={"outcome": "not_done", "reason": problem.code},
        headers=(("www-authenticate", "Bearer"),) if status is HTTPStatus.UNAUTHORIZED else (),
    )


def decision_headers(claim: dict[str, Any]) -> Headers:
    """Return the decision about a claim as headers; what is not ASCII is percent-encoded."""
    out: Headers = []
    for name in ("decision", "reason", "mode", "clipped_from", "claim_id"):
        value = claim.get(name)
        if isinstance(value, str) and value:
            key = f"x-residentkv-{name.replace('_', '-')}"
            out.append((key.encode(), quote(value, safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~").encode()))
    return out
