"""The plugin's own settings: `residentkv` in `kv_connector_extra_config`, decoded strictly."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from residentkv.claims.arbiter import ArbiterPolicy, Relief
from residentkv.claims.modes import Mode
from residentkv.errors import InputError

KEY = "residentkv"
MAX_DEFER_S = 3600.0

SUPPORTED_MODES: frozenset[Mode] = frozenset(Mode) - {Mode.ROUTED_REUSE}
"""What this plugin enforces; every other mode is rejected."""


class Mechanism(StrEnum):
    """What can be turned off, each named like the obligation that then fails; only for negative proofs."""

    VICTIM_EXCLUSION = "victim_exclusion"
    FEASIBILITY_CHECK = "feasibility_check"
    EXPIRY_ENFORCEMENT = "expiry_enforcement"
    RELEASE_BEFORE_LOSS = "release_before_loss"
    EVICTION_PREFERENCE = "eviction_preference"


class ConflictAction(StrEnum):
    """What is done when a request does not fit beside the claims; each is the arbiter's word for it."""

    EXPIRE = "expire"
    OFFLOAD = "offload"
    DEMOTE = "demote"
    DEFER = "defer"
    REFUSE = "refuse"


_RELIEFS = frozenset(relief.value for relief in Relief)


class PluginOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the operator sets.

    Attributes:
        trace_path: event log of the scheduler process; no path, no log.
        run_id: name of the run in the log.
        epoch: incarnation of the scheduler process in the log; left out, it is one above the last in `trace_path`.
        trace_max_bytes: size beyond which the log is set aside as `<trace_path>.000001` and so on, and goes on in a new
            file; left out, never.
        socket_path: Unix socket on which the scheduler process answers about claims; no path, no socket.
        owners_path: file with owners, digests of their tokens and quotas; needs `socket_path`.
        spans: whether OpenTelemetry spans are made for requests of claims and for restorations.
        faults_path: file with a `FaultPlan`, read again whenever it changes; for tests only.
        control: whether requests may carry `residentkv_control` (log rotation, status); for tests only.
        tier_dir: folder of the mmap file of the second tier; default the temporary folder.
        verify_checksums: whether a load checks the per-block checksum that its store wrote.
        restore_attempts: loads tried for one request before its restoration counts as failed for good.
        min_active_blocks: primary blocks that are never reserved for claims.
        actions: what is done for a request that does not fit beside the claims, in this order; it ends with `refuse`,
            and `defer`, if it is there, comes right before.
        defer_s: how long `defer` lets a request wait before it is refused.
        clip_to_best_effort: whether a claim that does not fit is clipped to best_effort instead of rejected.
        max_claims: open claims at most.
        weights_epoch: part of the cache identity; raise it when weights are replaced in place.
        model_revision: part of the cache identity, when the engine does not know the revision of its weights.
        unsafe_allow_untested_version: accept claims on a vLLM version outside the tested list.
        stands_in: what stands in for something else in this run, for the head of the log.
        off: mechanisms that are turned off; for tests only.
    """

    trace_path: str | None = None
    run_id: str = "run"
    epoch: int | None = None
    trace_max_bytes: int | None = None
    socket_path: str | None = None
    owners_path: str | None = None
    spans: bool = False
    faults_path: str | None = None
    control: bool = False
    tier_dir: str | None = None
    verify_checksums: bool = True
    restore_attempts: int = 1
    min_active_blocks: int = 1
    actions: tuple[ConflictAction, ...] = (
        ConflictAction.EXPIRE,
        ConflictAction.OFFLOAD,
        ConflictAction.DEMOTE,
        ConflictAction.REFUSE,
    )
    defer_s: float = 10.0
    clip_to_best_effort: bool = False
    max_claims: int = 1_000_000
    weights_epoch: int = 0
    model_revision: str | None = None
    unsafe_allow_untested_version: bool = False
    stands_in: tuple[str, ...] = ()
    off: frozenset[Mechanism] = frozenset()

    def keeps(self, mechanism: Mechanism) -> bool:
        """Tell whether a mechanism is on."""
        return mechanism not in self.off

    def arbiter_policy(self) -> ArbiterPolicy:
        """Return what the arbiter may do under these settings."""
        return ArbiterPolicy(
            supported_modes=SUPPORTED_MODES,
            min_active_blocks=self.min_active_blocks,
            reliefs=tuple(Relief(action.value) for action in self.actions if action.value in _RELIEFS),
            defer_s=self.defer_s if ConflictAction.DEFER in self.actions else 0.0,
            clip_to=Mode.BEST_EFFORT if self.clip_to_best_effort else None,
            max_claims=self.max_claims,
        )


def decode_options(extra_config: Mapping[str, Any]) -> PluginOptions:
    """Read the settings out of `kv_connector_extra_config`.

    Raises:
        InputError: an unknown setting, a wrong type or a value out of range; the message names it.
    """
    raw = extra_config.get(KEY, {})
    try:
        options = msgspec.convert(raw, PluginOptions, strict=True)
    except msgspec.ValidationError as e:
        raise InputError(f"kv_connector_extra_config.{KEY}: {e}; see docs/vllm.md for the settings") from None
    for name, least in (
        ("restore_attempts", 1),
        ("min_active_blocks", 0),
        ("max_claims", 0),
        ("epoch", 0),
        ("trace_max_bytes", 1 << 16),
    ):
        if getattr(options, name) is not None and getattr(options, name) < least:
            raise InputError(
                f"kv_connector_extra_config.{KEY}.{name}: found {getattr(options, name)}, expected {least} or more"
            )
    _check_actions(options)
    if options.owners_path is not None and options.socket_path is None:
        raise InputError(
            f"kv_connector_extra_config.{KEY}.owners_path: found no socket_path beside it, expected one: "
            "the HTTP middleware learns from the engine whose token it was given"
        )
    return options


def _check_actions(options: PluginOptions) -> None:
    """Refuse an order of actions that leaves a request without an end, or that cannot be carried out as written."""
    words = [action.value for action in options.actions]
    last = words[-2:-1] if words[-2:-1] == ["defer"] else []
    if words[-1:] != ["refuse"] or len(set(words)) != len(words) or ("defer" in words) is not bool(last):
        raise InputError(
            f"kv_connector_extra_config.{KEY}.actions: found {', '.join(words) or 'nothing'}, expected each action at "
            "most once, 'refuse' as the last one, and 'defer' right before it if at all"
        )
    if not 0 < options.defer_s <= MAX_DEFER_S:
        raise InputError(
            f"kv_connector_extra_config.{KEY}.defer_s: found {options.defer_s}, expected above 0 and at most "
            f"{MAX_DEFER_S:.0f}"
        )
