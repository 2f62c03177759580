"""All rules of the audit, a file a family; add a rule to the RULES of its family and it is here."""

from __future__ import annotations

from residentkv.audit.model import Rule
from residentkv.audit.rules import (
    acceptance,
    capacity,
    coverage,
    failure,
    lifecycle,
    loss,
    offload,
    refusal,
    restore,
    routing,
    sequence,
    terms,
)

FAMILIES: tuple[tuple[str, tuple[Rule, ...]], ...] = (
    ("The trace itself", sequence.RULES),
    ("Enough to judge", coverage.RULES),
    ("Acceptance and identity", acceptance.RULES),
    ("Lifecycle", lifecycle.RULES),
    ("Terms and release", terms.RULES),
    ("Materialization and offload", offload.RULES),
    ("Restoration and reuse", restore.RULES),
    ("Failed restoration", failure.RULES),
    ("Refusal", refusal.RULES),
    ("Capacity", capacity.RULES),
    ("Loss", loss.RULES),
    ("Routing", routing.RULES),
)

RULES: tuple[Rule, ...] = tuple(rule for _, family in FAMILIES for rule in family)
BY_CODE: dict[str, Rule] = {rule.code: rule for rule in RULES}

__all__ = ["BY_CODE", "FAMILIES", "RULES"]
