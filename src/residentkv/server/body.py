"""The body of a generation request, read as far as claims need it: all other fields go on byte for byte."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from residentkv.claims.model import decode_claim_request
from residentkv.claims.params import CLAIM_PARAM, OWNER_PARAMS
from residentkv.errors import ResidentKVError
from residentkv.server.errors import HttpError, bad_claim_error, owner_error, unreadable_body_error
from residentkv.server.tickets import TICKET_PARAM

PARAMS = "kv_transfer_params"

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECT = msgspec.json.Decoder(dict[str, Any])


class GenerationBody:
    """A JSON object with, perhaps, `kv_transfer_params`; built by `read_body`."""

    def __init__(self, fields: dict[str, msgspec.Raw], params: dict[str, Any]) -> None:
        self._fields = fields
        self.params = params

    @property
    def claims(self) -> bool:
        """Whether a decision about a claim is asked for."""
        return self.params.get(CLAIM_PARAM) is not None

    @property
    def speaks_of_claims(self) -> bool:
        """Whether an owner has to be known."""
        return any(self.params.get(name) is not None for name in OWNER_PARAMS)

    def sealed(self, ticket: str) -> bytes:
        """Return the body with the ticket in it, whatever the client put there."""
        params = {**self.params, TICKET_PARAM: ticket}
        return msgspec.json.encode({**self._fields, PARAMS: msgspec.Raw(msgspec.json.encode(params))})

    def set_owner(self, owner_scope: str) -> HttpError | None:
        """Put the owner into everything that names one; an error when it names another."""
        for name in OWNER_PARAMS:
            raw = self.params.get(name)
            for item in raw if isinstance(raw, list) else [raw]:
                if not isinstance(item, dict):
                    continue
                stated = item.get("owner_scope")
                if stated is not None and stated != owner_scope:
                    return owner_error(f"{PARAMS}.{name}", str(stated), owner_scope)
                item["owner_scope"] = owner_scope
        return None

    def check_claim(self) -> HttpError | None:
        """Return the error of a claim that cannot be read."""
        raw = self.params.get(CLAIM_PARAM)
        if raw is None:
            return None
        try:
            decode_claim_request(raw)
        except (ResidentKVError, UnicodeError) as e:
            return bad_claim_error(f"{PARAMS}.{CLAIM_PARAM}", str(e))
        return None


def read_body(data: bytes) -> GenerationBody | HttpError | None:
    """Read a body; None when it is none that can carry a claim, which is then the server's to judge.

    vLLM's server reads more than JSON: NaN, halves of surrogate pairs, UTF-16. What it would read and this does not is
    an error, because a refusal of such a request could not be told by name.
    """
    try:
        fields = _FIELDS.decode(data)
        raw = fields.get(PARAMS)
        params = {} if raw is None or bytes(raw).strip() == b"null" else _OBJECT.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
        return unreadable_body_error() if _is_read_by_python(data) else None
    return GenerationBody(fields, params)


def _is_read_by_python(data: bytes) -> bool:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and isinstance(found.get(PARAMS, {}), dict | None)
