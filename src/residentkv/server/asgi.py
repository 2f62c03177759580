"""The little of ASGI that is needed here: types, and whole answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from residentkv.server.errors import Headers, HttpError

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


async def read_all(receive: Receive, limit_bytes: int | None = None) -> bytes | None:
    """Return the whole body, or None when the client has gone or sends more than the limit."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part = message.get("body", b"")
        size += len(part)
        if limit_bytes is not None and size > limit_bytes:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def replay(data: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body first and then what comes from the client."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": data, "more_body": False}

    return receive_again


def resized(scope: Scope, length_bytes: int) -> Scope:
    """Return the scope of a request whose body has another length now."""
    headers: Headers = [
        (k, v) for k, v in scope["headers"] if k.lower() not in (b"content-length", b"transfer-encoding")
    ]
    return {**scope, "headers": [*headers, (b"content-length", str(length_bytes).encode())]}


async def send_whole(
    send: Send, status: int, body: bytes, kind: str, headers: tuple[tuple[str, str], ...] = ()
) -> None:
    """Send a whole answer of the content type `kind`."""
    fixed = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    more = [(k.encode(), v.encode()) for k, v in headers]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *more]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_json(send: Send, status: int, document: Any, headers: tuple[tuple[str, str], ...] = ()) -> None:
    """Send a document as the whole answer."""
    await send_whole(send, status, msgspec.json.encode(document), "application/json", headers)


async def send_error(send: Send, error: HttpError) -> None:
    """Send an error as the whole answer."""
    await send_json(send, int(error.status), error.document(), error.headers)
