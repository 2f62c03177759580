"""The second way in: actions of vLLM's `kv_hints` envelope, which the Python engine API carries beside a request.

vLLM 0.32 has the envelope in `LLMEngine.add_request` and `AsyncLLM.generate` (v1/kv_hints/protocol.py) and in no HTTP
request. It promises nothing; what comes back is the same answer that `kv_transfer_params` brings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from residentkv.claims.params import CLAIM_PARAM, RELEASE_PARAM, RENEW_PARAM

ACTIONS = {
    "residentkv.claim": CLAIM_PARAM,
    "residentkv.release": RELEASE_PARAM,
    "residentkv.renew": RENEW_PARAM,
}
"""Types of actions that concern claims; actions of other types are for others."""

ACTION_VERSION = "1"


def params_with_hints(params: Mapping[str, Any], envelope: Any) -> dict[str, Any]:
    """Return the parameters of a request with what its envelope says about claims.

    A claim that is said twice, or in an action of another version, becomes one that no decoder takes: it is rejected
    by name and never guessed. `envelope` is a `KvHintsEnvelope` or None.
    """
    out = dict(params)
    for action in envelope.actions if envelope is not None else ():
        name = ACTIONS.get(action.action_type)
        if name is None:
            continue
        payload: Any = action.payload
        if action.action_version != ACTION_VERSION:
            payload = {f"action_version {action.action_version!r}": f"expected {ACTION_VERSION!r}", **_names(payload)}
        if name == CLAIM_PARAM:
            twice = name in out
            out[name] = {"said twice": "one claim a request", **_names(payload)} if twice else payload
        else:
            before = out.get(name)
            out[name] = [*(before if isinstance(before, list) else [before] if before is not None else []), payload]
    return out


def _names(payload: Any) -> dict[str, Any]:
    """Return what names the claim, so that its rejection can be told."""
    given = payload if isinstance(payload, Mapping) else {}
    return {name: given[name] for name in ("owner_scope", "claim_id") if name in given}
