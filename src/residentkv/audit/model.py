"""What an audit says: three-valued verdicts, findings told as a short story, results a claim, a source and a trace."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """Three values, never read as a boolean: what is not proven to conform is not a pass."""

    CONFORMING = "conforming"
    INCONCLUSIVE = "inconclusive"
    VIOLATING = "violating"


class Profile(StrEnum):
    """`spec` judges by the contract; `published` only applies the published gates and is never evidence."""

    SPEC = "spec"
    PUBLISHED = "published"


_RANK = {Verdict.CONFORMING: 0, Verdict.INCONCLUSIVE: 1, Verdict.VIOLATING: 2}


def worse(a: Verdict, b: Verdict) -> Verdict:
    """Return the worse of two verdicts: violating, then inconclusive, then conforming."""
    return a if _RANK[a] >= _RANK[b] else b


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the audit checks; declared once, in `audit.rules`. The steps find when it is broken.

    Attributes:
        code: stable code, `RKV2xx`; never reused for something else.
        slug: stable name in words.
        title: one sentence for a table.
        checks: what is compared with what.
        why: what goes wrong for a user when it is broken.
        required_order: event names in the order that the contract requires, empty when order is not the point.
        contradicts: obligations that a violation of this rule contradicts (spec section 4).
        inconclusive_when: when the rule cannot decide.
        source: spec section, or the public thread that it comes from.
        verdict: the worst verdict that a finding of this rule can have.
    """

    code: str
    slug: str
    title: str
    checks: str
    why: str
    required_order: tuple[str, ...] = ()
    contradicts: tuple[str, ...] = ()
    inconclusive_when: str
    source: str
    verdict: Verdict = Verdict.VIOLATING


class Finding(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One broken or undecidable rule, with the events that show it.

    `seqs` are numbers within (source, epoch); they are empty only for findings about a whole file, which have no
    event to point at. `missing_event` names the event whose absence is the finding.
    """

    code: str
    slug: str
    verdict: Verdict
    source: str
    epoch: int
    seqs: tuple[int, ...]
    owner_scope: str | None
    claim_id: str | None
    story: tuple[str, ...]
    required_order: tuple[str, ...]
    missing_event: str | None
    contradicts: tuple[str, ...]


class ClaimResult(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The verdict on one claim of one (source, epoch).

    `instance` counts submissions under the same key from 0. `observed` maps an obligation to the events that
    exercised it; it is filled for conforming claims only. `counts` tells how often what happened.
    """

    owner_scope: str
    claim_id: str
    instance: int
    source: str
    epoch: int
    mode: str | None
    state: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    findings_dropped: int
    observed: dict[str, tuple[int, ...]]
    counts: dict[str, int]
    first_seq: int
    last_seq: int


class SourceResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one (source, epoch) left: who wrote it, how it ended, and findings that are about no single claim.

    The descriptive fields are null when no `trace_opened` was read.
    """

    source: str
    epoch: int
    run_id: str
    events: int
    closed: bool
    runtime: str | None
    runtime_version: str | None
    primitive: str | None
    adapter: str | None
    adapter_version: str | None
    depth: str | None
    stands_in: tuple[str, ...]
    findings: tuple[Finding, ...]
    findings_dropped: int


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One published gate: whether it passed, for which claims, and which event was missing when it did not."""

    name: str
    passed: bool
    claims: tuple[str, ...]
    missing_event: str | None


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one trace, with everything it rests on.

    `findings` are about the file as a whole; those about a source or a claim lie in `sources` and `claims`.
    `gates` is empty under the `spec` profile.
    """

    path: str
    sha256: str
    profile: Profile
    verdict: Verdict
    events: int
    sources: tuple[SourceResult, ...]
    claims: tuple[ClaimResult, ...]
    findings: tuple[Finding, ...]
    gates: tuple[Gate, ...]

    def all_findings(self) -> list[Finding]:
        """Return every finding: of the file, of the sources, of the claims."""
        out = list(self.findings)
        for source in self.sources:
            out.extend(source.findings)
        for claim in self.claims:
            out.extend(claim.findings)
        return out
