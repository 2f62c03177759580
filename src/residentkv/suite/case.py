"""A case of the suite: one bad lowering as data, and why it must be refused.

A case is a folder `cases/<slug>/`: `case.yaml` and the files that it names. A trace case has a trace that the audit
must refuse; a descriptor case has a row that the relation must refuse; a case may have both. Each part has a twin, the
same input with the one defect repaired, which must pass: so the refusal cannot come from anything else in the input.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from residentkv.claims.modes import Mode
from residentkv.errors import InputError, UsageError, near
from residentkv.files import read_input
from residentkv.lowering.depth import Depth
from residentkv.lowering.format import Prose, RelativePath
from residentkv.lowering.obligations import Obligation
from residentkv.lowering.relation import Verdict
from residentkv.lowering.yamltree import decode_text, parse_yaml

CASES = Path(__file__).parent / "cases"
CASE_FILE = "case.yaml"
_CODE = "RKV301"

Code = Annotated[str, Meta(pattern=r"^RKV[0-9]{3}$")]
Line = Annotated[str, Meta(min_length=1, max_length=100)]

Reason = Literal[
    "contradicted",
    "no evidence",
    "static kind",
    "depth not allowed",
    "deeper than the row",
    "changed",
    "absent",
    "unreadable",
    "out of version range",
    "not usable",
]
"""Why an obligation is open: a verified contradiction; nothing said; only text about what has to happen; said by
somebody who may not, or who reaches deeper than the row; an anchor or trace that is not verified, and how."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    pass


class TracePart(_Part, frozen=True, kw_only=True):
    """A trace that the audit must refuse.

    `rule` is the code of the rule that is broken; `also` are rules that are broken as a consequence, and there must be
    no others. `says` must occur in the story of the finding.
    """

    file: RelativePath
    verdict: Literal["violating", "inconclusive"]
    rule: Code
    also: list[Code] = []
    says: str = ""
    twin: RelativePath


class OpenObligation(_Part, frozen=True, kw_only=True):
    """One obligation that is not satisfied, and why."""

    obligation: Obligation
    reason: Reason


class DescriptorPart(_Part, frozen=True, kw_only=True):
    """A row that the relation must refuse.

    `site` is a folder laid out as site-packages, the only place where anchors are looked up; `twin_site` is that of
    the twin. `traces` are audited in the run and given as evidence, as is what their audit says against it. `open` are
    all obligations that are not satisfied: there must be no others.
    """

    file: RelativePath
    site: RelativePath
    traces: list[RelativePath] = []
    documents: dict[str, RelativePath] = {}
    primitive: str
    mode: Mode
    depth: Depth
    verdict: Verdict
    open: Annotated[list[OpenObligation], Meta(min_length=1)]
    twin: RelativePath
    twin_site: RelativePath | None = None
    twin_traces: list[RelativePath] | None = None
    twin_depth: Depth | None = None
    twin_verdict: Literal["native_sound", "sound_with_adapter"] = "native_sound"


class Case(_Part, frozen=True, kw_only=True):
    """One case; `slug` is the name of its folder."""

    schema: Literal["residentkv.case/1"]
    title: Line
    item: Line | None = None
    threads: list[Line] = []
    why: Prose
    trace: TracePart | None = None
    descriptor: DescriptorPart | None = None

    @property
    def kind(self) -> str:
        """What is refused: `trace`, `descriptor` or `both`."""
        if self.trace is not None and self.descriptor is not None:
            return "both"
        return "trace" if self.trace is not None else "descriptor"


def load_cases(folder: Path = CASES) -> dict[str, Case]:
    """Read every case, by slug.

    Raises:
        InputError: a case is not well formed.
        UsageError: there is none.
    """
    found = {path.parent.name: load_case(path) for path in sorted(folder.glob(f"*/{CASE_FILE}"))}
    if not found:
        raise UsageError(f"{folder}: found no case, expected <slug>/{CASE_FILE}")
    return found


def load_case(path: Path) -> Case:
    """Read one `case.yaml`.

    Raises:
        InputError: RKV301, not strict YAML or not a case.
        NoInputError: it cannot be read.
    """
    name = f"{path.parent.name}/{path.name}"
    root = parse_yaml(decode_text(read_input(path), name), name)
    try:
        case = msgspec.convert(root.plain(), Case, strict=True)
    except msgspec.ValidationError as e:
        raise InputError(f"{e}; see docs/suite.md for the fields of a case", path=name, code=_CODE) from None
    if case.trace is None and case.descriptor is None:
        raise InputError("found neither trace nor descriptor, expected one of them", path=name, code=_CODE)
    if case.item is None and not case.threads:
        raise InputError("found neither item nor threads, expected where the case comes from", path=name, code=_CODE)
    return case


def pick_cases(cases: dict[str, Case], slugs: tuple[str, ...]) -> dict[str, Case]:
    """Return the named cases, or all when none is named.

    Raises:
        UsageError: a slug is unknown; the message names the nearest.
    """
    for slug in slugs:
        if slug not in cases:
            raise UsageError(f"unknown case {slug[:60]!r}; 'residentkv suite' lists them{near(slug, cases)}")
    return {slug: cases[slug] for slug in slugs} if slugs else cases
