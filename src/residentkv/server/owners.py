"""Who may claim, and how much: the owners file.

    {"owners": [{"owner_scope": "tenant-a", "token_sha256": ["..."], "max_claims": 100, "max_blocks": 2000}]}

A token is never written down: the file has the SHA-256 of each, in hex.
"""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from residentkv.claims.model import MAX_NAME_CHARS, MAX_NUMBER
from residentkv.errors import InputError, NoInputError
from residentkv.server.wire import Digest, Name

Limit = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]


class Owner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tenant; `max_blocks` bounds the footprints of its open claims together, whatever their mode."""

    owner_scope: Name
    token_sha256: Annotated[tuple[Digest, ...], Meta(min_length=1)]
    max_claims: Limit | None = None
    max_blocks: Limit | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    owners: Annotated[tuple[Owner, ...], Meta(min_length=1)]


class Owners:
    """The owners that an engine knows."""

    def __init__(self, owners: tuple[Owner, ...]) -> None:
        """Index the owners.

        Raises:
            InputError: a name or a token is there twice, or a name is not printable.
        """
        self._by_token: dict[str, Owner] = {}
        self._by_name: dict[str, Owner] = {}
        for owner in owners:
            if not owner.owner_scope.isprintable():
                raise InputError(
                    f"owners: found {owner.owner_scope!r}, expected 1 to {MAX_NAME_CHARS} printable characters"
                )
            if owner.owner_scope in self._by_name:
                raise InputError(f"owners: {owner.owner_scope!r} is there twice; give it all its tokens in one entry")
            self._by_name[owner.owner_scope] = owner
            for digest in owner.token_sha256:
                if digest in self._by_token:
                    raise InputError(f"owners: {owner.owner_scope!r} has a token of another owner; each needs its own")
                self._by_token[digest] = owner

    def of_token(self, token_sha256: str | None) -> Owner | None:
        """Return whose token it is. Digests are compared, so the time taken says nothing about a token."""
        if token_sha256 is None:
            return None
        found: Owner | None = None
        for digest, owner in self._by_token.items():
            if hmac.compare_digest(digest, token_sha256):
                found = owner
        return found

    def over_quota(self, owner_scope: str, *, claims: int, blocks: int) -> tuple[str, str] | None:
        """Return (reason, detail) when the owner may not have so many open claims over so many blocks."""
        owner = self._by_name.get(owner_scope)
        if owner is None:
            return "owner_unknown", "the owners file of this engine does not have this owner"
        if owner.max_claims is not None and claims > owner.max_claims:
            return "owner_quota_claims", f"this would be claim {claims} of the owner, the quota is {owner.max_claims}"
        if owner.max_blocks is not None and blocks > owner.max_blocks:
            return "owner_quota_blocks", f"{blocks} blocks would be claimed, the quota is {owner.max_blocks}"
        return None


def read_owners(path: str) -> Owners:
    """Read an owners file.

    Raises:
        NoInputError: it cannot be read.
        InputError: it is not an owners file; the message names the field.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as e:
        raise NoInputError(f"{path}: {e.strerror}; expected the owners file that 'owners_path' names") from None
    try:
        file = msgspec.json.decode(data, type=_File, strict=True)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as e:
        raise InputError(f"{e}; see docs/server.md for the owners file", path=path) from None
    try:
        return Owners(file.owners)
    except InputError as e:
        raise InputError(e.message, path=path) from None
