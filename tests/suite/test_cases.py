"""The cases: every bad lowering is refused for its own reason, and its repaired twin passes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from residentkv.audit.rules import BY_CODE
from residentkv.errors import InputError, NoInputError, UsageError
from residentkv.suite.case import CASES, load_case, load_cases, pick_cases
from residentkv.suite.run import run_case

SECTION_7 = """priority as hard protection; TTL as acceptance; offload without restore; restore after reuse; recompute
counted as restore; wrong-claim failure; unclaimed failure; generic counters only; ordinary offload without a
claim; post-hoc claim naming; missing predicate; missing token map; missing cache identity; block count as predicate;
events as acceptance; routing score as binding; stale worker id as route outcome; no-evict scheduling of active requests
as resident protection; write-no-admit as protection; pin without owner or release; lease of a transfer as residency;
hint envelope as acceptance; prefix-cache retention interval as protection; sequence gap; sequence regression after
restart; torn log; two claims smeared by one failure; refusal that names no claim; loss before its expiry event; claim
id reused by another owner; anchor to another version; observer accepting for the runtime; docs as behavioural
evidence"""
"""Spec section 7, written out a second time."""

THREADS = {
    "vllm-project/vllm#49250",
    "vllm-project/vllm#45138",
    "vllm-project/vllm#39732",
    "local-inference-lab/vllm#191",
    "vllm-project/vllm#53498",
    "vllm-project/vllm#57159",
    "vllm-project/vllm#55092",
    "llm-d/llm-d-router#2853",
    "aws-samples/aws-do-eks PR 84",
    "LMCache/LMCache#4991",
    "sgl-project/sglang#27024",
    "vllm-project/vllm#47802",
    "vllm-project/vllm PR 43447",
    "sgl-project/sglang#37160",
    "LMCache/LMCache#4825",
    "vllm-project/vllm#42695",
}
"""What users reported: fifteen failures, one of them in two projects."""

KNOWN = load_cases()


@pytest.mark.parametrize("slug", KNOWN)
def test_a_case_is_refused_for_its_own_reason_and_its_twin_passes(slug):
    """Verdict, rules or open obligations are exactly those that the case states, and the repaired input passes."""
    result = run_case(slug, KNOWN[slug])
    assert [(c.what, c.found) for c in result.checks if not c.passed] == []
    assert result.passed
    assert result.told


def test_no_two_cases_have_one_title():
    """A reader of the list can tell them apart."""
    assert len({case.title for case in KNOWN.values()}) == len(KNOWN)


def test_every_item_of_section_7_has_a_case():
    """All thirty-three, by name."""
    items = {" ".join(item.split()) for item in SECTION_7.split(";")}
    assert len(items) == 33
    assert items <= {case.item.partition("(")[2][:-1] for case in KNOWN.values() if case.item}
    assert len(KNOWN) >= 40


def test_every_failure_that_users_reported_has_a_case():
    """The thread is named, nothing of its text is in the case."""
    assert {thread for case in KNOWN.values() for thread in case.threads} >= THREADS


def test_every_rule_of_a_case_exists():
    """A code that the audit does not have could never be the reason."""
    parts = [case.trace for case in KNOWN.values() if case.trace is not None]
    assert {code for part in parts for code in (part.rule, *part.also)} <= set(BY_CODE)


def test_a_case_names_files_of_its_own_and_no_others_lie_there():
    """Nothing is left over in a case folder."""
    for slug, case in KNOWN.items():
        named = {"case.yaml"}
        if case.trace is not None:
            named |= {case.trace.file, case.trace.twin}
        part = case.descriptor
        if part is not None:
            named |= {part.file, part.twin, *part.traces, *(part.twin_traces or ()), *part.documents.values()}
        folder = CASES / slug
        found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc"}
        sites = {"site", "twin_site"}
        assert {f for f in found if f.split("/")[0] not in sites} == named, slug


def _copy(slug: str, folder: Path) -> Path:
    shutil.copytree(CASES / slug, folder / slug)
    return folder / slug


@pytest.mark.parametrize(
    ("slug", "old", "new", "what"),
    [
        ("torn-log", "rule: RKV201", "rule: RKV204", "rules broken"),
        ("torn-log", "verdict: inconclusive", "verdict: violating", "audit of the trace"),
        ("torn-log", "says: RKV108", "says: RKV102", "story"),
        ("restore-after-reuse", "- RKV257", "- RKV258", "rules broken"),
        ("torn-log", "twin: twin.jsonl", "twin: trace.jsonl", "audit of the twin"),
        ("pin-without-owner", "verdict: rejected", "verdict: unknown", "verdict of the row"),
        ("pin-without-owner", "reason: contradicted", "reason: no evidence", "open obligations"),
        ("pin-without-owner", "twin: twin.yaml", "twin: descriptor.yaml", "verdict of the twin"),
        ("pin-without-owner", "mode: hard_protected", "mode: expiring", "the case can be run"),
    ],
)
def test_a_case_that_is_refused_for_another_reason_fails(slug, old, new, what, tmp_path):
    """Each expectation of a case can fail by itself."""
    path = _copy(slug, tmp_path) / "case.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    result = run_case(slug, load_case(path), tmp_path)
    assert not result.passed
    assert what in [c.what for c in result.checks if not c.passed]


def test_a_trace_case_that_is_repaired_fails(tmp_path):
    """A case whose trace has become conforming refuses nothing."""
    folder = _copy("restore-after-reuse", tmp_path)
    shutil.copy(folder / "twin.jsonl", folder / "trace.jsonl")
    result = run_case("restore-after-reuse", load_case(folder / "case.yaml"), tmp_path)
    assert {c.what for c in result.checks if not c.passed} == {
        "audit of the trace",
        "rules broken",
        "verdict of RKV256",
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("schema: residentkv.case/2\n", "Invalid enum value"),
        ("title: x\n", "required field"),
        ("schema: residentkv.case/1\ntitle: x\nitem: y\nwhy: z\n", "neither trace nor descriptor"),
        (
            "schema: residentkv.case/1\ntitle: x\nwhy: z\n"
            "trace: {file: a.jsonl, verdict: violating, rule: RKV201, twin: b.jsonl}\n",
            "neither item nor threads",
        ),
        (
            "schema: residentkv.case/1\ntitle: x\nitem: y\nwhy: z\n"
            "trace: {file: ../a.jsonl, verdict: violating, rule: RKV201, twin: b.jsonl}\n",
            "Expected `str` matching",
        ),
        ("schema: residentkv.case/1\ntitle: x\ntitle: y\n", "twice"),
        ("schema: residentkv.case/1\nextra: x\n", "unknown field"),
    ],
)
def test_a_case_file_is_read_strictly(text, found, tmp_path):
    """What is not a case is an error that says where and what."""
    path = tmp_path / "slug" / "case.yaml"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(InputError, match=r"^slug/case\.yaml:") as e:
        load_case(path)
    assert found in str(e.value)


def test_a_missing_case_file_is_no_input(tmp_path):
    """And a folder without cases is a usage error."""
    with pytest.raises(NoInputError):
        load_case(tmp_path / "case.yaml")
    with pytest.raises(UsageError, match="found no case"):
        load_cases(tmp_path)


def test_an_unknown_slug_names_the_nearest():
    """So that a typing error costs no search."""
    with pytest.raises(UsageError, match="torn-log"):
        pick_cases(KNOWN, ("torn-logs",))
    assert list(pick_cases(KNOWN, ("torn-log",))) == ["torn-log"]
    assert pick_cases(KNOWN, ()) == KNOWN
