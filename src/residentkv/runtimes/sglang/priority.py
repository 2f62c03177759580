"""The policy adapter: a soft_priority claim lowered to the request priority of SGLang (depth policy).

It turns public knobs only. It refuses a server whose settings do not make eviction follow the number: under the default
policy the number is taken and ignored, and with `--schedule-low-priority-values-first` the scheduler reads the number
the other way round than eviction does, so that the most urgent prefix is evicted first.
Source: SGLang 0.5.23, `srt/mem_cache/evict_policy.py` (PriorityStrategy), `srt/managers/schedule_policy.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

POLICY = "priority"


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a claim cannot be lowered to the priority of this server."""

    reason: str
    detail: str


def refuse(info: Mapping[str, Any]) -> Refusal | None:
    """Return why soft_priority claims are refused on a server with these settings, or None when they are not.

    Args:
        info: what `/server_info` answered; a setting that is missing there is refused, never assumed.
    """
    expected = {
        "radix_eviction_policy": (
            POLICY,
            "eviction_ignores_priority",
            "the eviction policy takes the number and ignores it; start with --radix-eviction-policy priority",
        ),
        "enable_priority_scheduling": (
            True,
            "priority_disabled",
            "priorities are not in force; start with --enable-priority-scheduling",
        ),
        "schedule_low_priority_values_first": (
            False,
            "priority_inverted",
            "the scheduler calls low numbers urgent and eviction gives them up first; "
            "start without --schedule-low-priority-values-first",
        ),
    }
    for name, (wanted, reason, detail) in expected.items():
        if name not in info:
            return Refusal(reason="setting_unknown", detail=f"the server does not say {name}")
        if info[name] != wanted:
            return Refusal(reason=reason, detail=f"{name} is {info[name]!r}: {detail}")
    return None


def request_fields(priority: int) -> dict[str, object]:
    """Return the fields of a request that lower a claim of this priority; a higher number is kept longer."""
    return {"priority": priority}
