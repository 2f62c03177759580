"""A code means one thing: no two rules share one, and every code that the source names is told somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import residentkv
from residentkv.report.catalogue import all_rules

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
    """Over everything that has a code."""
    codes = [r.code for r in all_rules()]
    slugs = [r.slug for r in all_rules()]
    assert len(codes) > 110
    assert len(set(codes)) == len(codes)
    assert len(set(slugs)) == len(slugs)


def test_every_code_that_a_message_can_have_is_explained() -> None:
    """`residentkv explain` knows each code that the source names, and none that nothing can find."""
    assert {c for part in SOURCE.iterdir() for c in named_in(part.name)} == {r.code for r in all_rules()}
