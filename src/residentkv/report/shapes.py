"""The JSON documents as they are written, version 1: what `residentkv schema` prints and what mypy holds the code to.

Within version 1 keys are only added: whoever reads a document ignores keys that it does not know, and finds every key
that is listed here. A key that changes its meaning, or goes, makes version 2.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
ExitCode = Annotated[int, Meta(ge=0, le=11, description="what the command ended with")]
Count = Annotated[int, Meta(ge=0)]

RowVerdictWord = Literal["native_sound", "sound_with_adapter", "approximate", "rejected", "unknown"]
RunVerdictWord = Literal["conforming", "inconclusive", "violating"]
StatusWord = Literal["satisfied", "contradicted", "unknown", "missing"]


class AnchorDocument(TypedDict):
    """What became of one anchor in this run."""

    anchor: str
    state: str
    target: str
    sentence: str
    lines: str | None
    sha256: str | None
    distribution: str | None
    version: str | None


class RowAnchorDocument(AnchorDocument):
    """The same with its address; what does not apply to its kind is null. `where` is its line in the descriptor."""

    where: str
    package: str | None
    repository: str | None
    commit: str | None
    file: str | None
    symbol: str | None
    url: str | None


class ExhibitDocument(TypedDict):
    """One statement about one obligation, and the state of what it leans on."""

    polarity: str
    kind: str
    depth: str
    source: str
    anchor: str
    state: str
    note: str
    where: str


class RefusedDocument(ExhibitDocument):
    """A statement that did not count, and why."""

    why: str


class ObligationDocument(TypedDict):
    """What became of one obligation of the bundle."""

    obligation: str
    status: StatusWord
    sentence: str
    used: ExhibitDocument | None
    contradicted_by: list[ExhibitDocument]
    not_counted: list[RefusedDocument]


class VerdictDocument(TypedDict):
    """The verdict of a row and what led to it; obligations in the order of the bundle."""

    verdict: RowVerdictWord
    evidence_class: str
    sentence: str
    first_open_obligation: str | None
    obligations: list[ObligationDocument]
    basis_problems: list[str]
    related: list[str]
    related_problems: list[str]


_Recording = TypedDict("_Recording", {"is_verified": Literal[False], "from": list[str]})


class RecordedDocument(VerdictDocument, _Recording):
    """What the verdict was when digests were written, which is history; `from` tells when and with which versions."""


class RowDocument(VerdictDocument):
    """One judged row. `where` are places in the descriptor; `decided_by` is what stands in the way."""

    runtime: str
    version: str
    primitive: str
    mode: str
    depth: str
    adapters: list[str]
    why: list[str]
    where: list[str]
    decided_by: str | None
    anchors_state: str | None
    anchors: list[RowAnchorDocument]
    recorded: RecordedDocument | None


class DescriptorDocument(TypedDict):
    """A descriptor that rows came from."""

    path: str
    sha256: Sha256
    runtime: str
    version: str


class ChangeDocument(TypedDict):
    """One row against the baseline; null where a side has no such row."""

    runtime: str
    primitive: str
    mode: str
    depth: str
    change: Literal["worse", "gone", "better", "differs", "new"]
    version_before: str | None
    version_now: str | None
    verdict_before: RowVerdictWord | None
    verdict_now: RowVerdictWord | None
    sentence: str


class BaselineDocument(TypedDict):
    """What changed since a baseline; rows that are as they were are only counted."""

    path: str
    sha256: Sha256
    unchanged: Count
    changes: list[ChangeDocument]


class TraceFileDocument(TypedDict):
    """A trace that was given with `--evidence` and audited again, with the digest of what was read."""

    path: str
    sha256: Sha256


class CheckDocument(TypedDict):
    """What `residentkv check --format json` writes."""

    schema: Literal["residentkv.check/1"]
    exit_code: ExitCode
    descriptors: list[DescriptorDocument]
    evidence: list[TraceFileDocument]
    rows: list[RowDocument]
    baseline: BaselineDocument | None
    notes: list[str]
    caveat: str


class FindingDocument(TypedDict):
    """One broken or undecidable rule. `seqs` number events within (source, epoch)."""

    code: str
    slug: str
    verdict: RunVerdictWord
    source: str
    epoch: int
    seqs: list[int]
    owner_scope: str | None
    claim_id: str | None
    story: list[str]
    required_order: list[str]
    missing_event: str | None
    contradicts: list[str]


class SourceDocument(TypedDict):
    """One process in one incarnation; what it says of itself is null when it was not read."""

    source: str
    epoch: int
    run_id: str
    events: Count
    closed: bool
    runtime: str | None
    runtime_version: str | None
    primitive: str | None
    adapter: str | None
    adapter_version: str | None
    depth: str | None
    stands_in: list[str]
    findings: list[FindingDocument]
    findings_dropped: Count


class ClaimDocument(TypedDict):
    """The verdict on one claim; `observed` maps an obligation to the events that exercised it."""

    owner_scope: str
    claim_id: str
    instance: Count
    source: str
    epoch: int
    mode: str | None
    state: str
    verdict: RunVerdictWord
    first_seq: int
    last_seq: int
    counts: dict[str, int]
    observed: dict[str, list[int]]
    findings: list[FindingDocument]
    findings_dropped: Count


class GateDocument(TypedDict):
    """One published gate; only with `--profile published`."""

    name: str
    passed: bool
    claims: list[str]
    missing_event: str | None


class TraceDocument(TypedDict):
    """The verdict on one trace; `sha256` is empty when the input ended before it was read whole."""

    path: str
    sha256: str
    profile: Literal["spec", "published"]
    verdict: RunVerdictWord
    events: Count
    findings: list[FindingDocument]
    sources: list[SourceDocument]
    claims: list[ClaimDocument]
    gates: list[GateDocument]


class AuditDocument(TypedDict):
    """What `residentkv audit --format json` writes."""

    schema: Literal["residentkv.audit/1"]
    exit_code: ExitCode
    traces: list[TraceDocument]
    caveat: str


class CaseCheckDocument(TypedDict):
    """One expectation of a case."""

    what: str
    expected: str
    found: str
    passed: bool


class CaseDocument(TypedDict):
    """One bad lowering: refused for its own reason while its twin passes, or not."""

    slug: str
    kind: str
    title: str
    item: str | None
    threads: list[str]
    passed: bool
    checks: list[CaseCheckDocument]
    told: list[str]


class OperatorDocument(TypedDict):
    """What became of the mutants of one operator."""

    made: Count
    refused: Count
    weaker: Count
    equivalent: Count
    survived: Count


class EquivalenceDocument(TypedDict):
    """Mutants that may stay positive for one reason."""

    count: Count
    reason: str


class MutantsDocument(TypedDict):
    """What became of all mutants; only with `--mutants`."""

    operators: dict[str, OperatorDocument]
    equivalent: dict[str, EquivalenceDocument]
    survivors: list[str]


class SuiteDocument(TypedDict):
    """What `residentkv suite --format json` writes."""

    schema: Literal["residentkv.suite/1"]
    exit_code: ExitCode
    cases: list[CaseDocument]
    mutants: MutantsDocument | None
