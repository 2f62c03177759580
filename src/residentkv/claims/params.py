"""What a request says about claims, in its `kv_transfer_params`: the names of the fields, see docs/vllm.md."""

from __future__ import annotations

from typing import Final

CLAIM_PARAM: Final = "resident_claim"
RELEASE_PARAM: Final = "resident_claim_release"
RENEW_PARAM: Final = "resident_claim_renew"
OWNER_PARAMS: Final = (CLAIM_PARAM, RELEASE_PARAM, RENEW_PARAM)
"""Each of these names the owner of the claims."""
