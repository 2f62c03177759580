"""The audit of traces against the contract: `audit_events` for events in memory, `audit_file` for a file."""

from __future__ import annotations

from residentkv.audit.api import audit_events, audit_file
from residentkv.audit.model import AuditReport, ClaimResult, Finding, Profile, Rule, SourceResult, Verdict

__all__ = [
    "AuditReport",
    "ClaimResult",
    "Finding",
    "Profile",
    "Rule",
    "SourceResult",
    "Verdict",
    "audit_events",
    "audit_file",
]
