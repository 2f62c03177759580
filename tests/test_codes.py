"""A code means one thing: no two rules share one, and every code that the source names is told somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import residentkv
from residentkv.audit.rules import RULES
from residentkv.trace.codes import INPUT_RULES

SOURCE = Path(residentkv.__file__).parent


def named_in(part: str) -> set[str]:
    """Codes that the sources of a part name."""
    return {c for p in (SOURCE / part).rglob("*.py") for c in re.findall(r"RKV\d{3}", p.read_text())}


def test_codes_of_traces_and_of_descriptors_do_not_meet() -> None:
    """RKV101 to RKV149 are about traces, RKV151 to RKV199 about descriptors and anchors, RKV2xx about what happened."""
    traces, descriptors = named_in("trace"), named_in("lowering") | named_in("sources")
    assert traces and descriptors
    assert {c for c in traces if c >= "RKV100"} <= {f"RKV{n}" for n in range(101, 150)}
    assert {c for c in descriptors if c >= "RKV100"} <= {f"RKV{n}" for n in range(150, 200)}


def test_no_code_and_no_slug_is_used_twice() -> None:
    """Over the rules of the input and those of the audit."""
    codes = [r.code for r in INPUT_RULES] + [r.code for r in RULES]
    slugs = [r.slug for r in INPUT_RULES] + [r.slug for r in RULES]
    assert len(codes) > 90
    assert len(set(codes)) == len(codes)
    assert len(set(slugs)) == len(slugs)
