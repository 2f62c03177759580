"""Evidence: what a report supports and contradicts, and that a file of it is never believed."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from residentkv.audit import Profile, audit_events, audit_file
from residentkv.audit.confirm import confirm_evidence, write_evidence
from residentkv.audit.evidence import decode_evidence, evidence_of
from residentkv.claims.modes import Mode
from residentkv.errors import InputError, NoInputError, UsageError
from residentkv.lowering.format import Polarity
from residentkv.lowering.obligations import BUNDLES, Obligation
from tests.audit.fixtures import CASES, broken_text
from tests.audit.notation import trace
from tests.audit.stories import FAILURE, HARD, SUCCESS


def write_trace(path: Path, text: str) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(e) + b"\n" for e in trace(text)))
    return path


def items(text: str):
    return evidence_of(audit_events([trace(text)], sha256="0" * 64))


def obligations(text: str, polarity: str) -> set[str]:
    return {i.obligation for i in items(text) if i.polarity == polarity}


def test_success_and_failure_together_make_the_offloadable_bundle():
    """Neither run shows everything; together they show each obligation of the mode."""
    shown = obligations(SUCCESS, "supports") | obligations(FAILURE, "supports")
    assert shown >= {o.value for o in BUNDLES[Mode.OFFLOADABLE]}
    assert "restoration_failure_outcome" not in obligations(SUCCESS, "supports")
    assert "restore_before_reuse" not in obligations(FAILURE, "supports")


def test_hard_protection_is_shown_by_its_whole_bundle():
    """Feasibility, exclusion, conflict, release before loss: one run under pressure shows all of them."""
    assert obligations(HARD, "supports") >= {o.value for o in BUNDLES[Mode.HARD_PROTECTED]}


def test_an_item_names_run_runtime_depth_and_events():
    """Everything that `check` needs to place it, taken from trace_opened; and the events that showed it."""
    item = next(i for i in items(SUCCESS) if i.obligation == "restore_before_reuse")
    assert (item.kind, item.polarity, item.mode, item.claims) == ("trace", "supports", "offloadable", 1)
    assert (item.runtime, item.runtime_version, item.primitive, item.depth) == ("reference", "1", "claims", "native")
    assert (item.run_id, item.adapter, item.code) == ("run", None, None)
    assert [(r.source, r.epoch, r.seqs) for r in item.events] == [("scheduler", 0, (10, 11, 12, 13, 14, 15))]


def test_what_stands_in_is_carried_along():
    """A simulated kernel limits the evidence, so it must not get lost on the way."""
    found = items(SUCCESS.replace("    open\n", "    open stands_in=kernel,network\n"))
    assert {i.stands_in for i in found} == {("kernel", "network")}


def test_an_inconclusive_trace_supports_nothing():
    """One missing event of another request takes all support away, though the claim itself conforms."""
    report = audit_events([trace(SUCCESS.replace("    close\n", "    init r9\n    close\n"))])
    assert [c.verdict.value for c in report.claims] == ["conforming"]
    assert evidence_of(report) == ()


def test_a_violation_contradicts_and_the_rest_of_the_trace_supports_nothing():
    """The finding names its rule; other claims of the trace are not shown to be kept by it."""
    found = items(broken_text(CASES["RKV255"]))
    assert {i.polarity for i in found} == {"contradicts"}
    assert {(i.code, i.obligation, i.mode) for i in found} >= {("RKV255", "restore_before_reuse", "offloadable")}


def test_a_violation_without_a_claim_contradicts_the_modes_of_its_source():
    """An infeasible admission names no claim; it speaks against the claims that it was made beside."""
    found = items(broken_text(CASES["RKV280"]))
    assert {(i.code, i.obligation, i.mode) for i in found} >= {
        ("RKV280", "feasibility_check", "hard_protected"),
        ("RKV280", "victim_exclusion", "hard_protected"),
    }


def test_published_gates_are_never_evidence(tmp_path):
    """A report of the published profile is refused, also when a gate passed."""
    path = write_trace(tmp_path / "t.jsonl", FAILURE)
    report = audit_file(path, Profile.PUBLISHED)
    assert any(g.passed for g in report.gates)
    with pytest.raises(UsageError, match="published"):
        write_evidence(tmp_path / "e.json", [report])
    assert not (tmp_path / "e.json").exists()


def test_written_evidence_is_confirmed_by_a_new_audit(tmp_path):
    """What comes back is what the audit of this run says, item by item, without problems."""
    paths = [write_trace(tmp_path / n, t) for n, t in (("a.jsonl", SUCCESS), ("b.jsonl", FAILURE))]
    write_evidence(tmp_path / "e.json", [audit_file(p) for p in paths])
    found = confirm_evidence(tmp_path / "e.json")
    assert all(item.problem == "" for item in found)
    assert {item.obligation for item in found if item.mode is Mode.OFFLOADABLE} >= set(BUNDLES[Mode.OFFLOADABLE])


def test_evidence_is_the_same_bytes_each_time(tmp_path):
    """The same traces give the same file, so that a difference means something."""
    path = write_trace(tmp_path / "t.jsonl", SUCCESS)
    write_evidence(tmp_path / "1.json", [audit_file(path)])
    write_evidence(tmp_path / "2.json", [audit_file(path)])
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_traces_are_found_from_the_folder_of_the_evidence(tmp_path, monkeypatch):
    """Paths are relative to the evidence file, so that a folder can be moved and read from anywhere."""
    (tmp_path / "run").mkdir()
    write_trace(tmp_path / "run" / "t.jsonl", SUCCESS)
    write_evidence(tmp_path / "e.json", [audit_file(tmp_path / "run" / "t.jsonl")])
    assert json.loads((tmp_path / "e.json").read_bytes())["traces"][0]["path"] == "run/t.jsonl"
    tmp_path.rename(tmp_path.parent / "moved")
    monkeypatch.chdir(tmp_path.parent)
    found = confirm_evidence("moved/e.json")
    assert found
    assert all(i.problem == "" for i in found)


def test_a_deleted_event_makes_the_evidence_unverified(tmp_path):
    """One line taken out of the trace: the digest no longer fits, and nothing that was claimed counts."""
    path = write_trace(tmp_path / "t.jsonl", SUCCESS)
    write_evidence(tmp_path / "e.json", [audit_file(path)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:13] + lines[14:]))
    found = confirm_evidence(tmp_path / "e.json")
    assert found
    assert all("the trace changed" in item.problem for item in found)


def test_a_missing_trace_makes_the_evidence_unverified(tmp_path):
    """Without the trace there is nothing to look at; the file alone proves nothing."""
    path = write_trace(tmp_path / "t.jsonl", SUCCESS)
    write_evidence(tmp_path / "e.json", [audit_file(path)])
    path.unlink()
    assert all("cannot be read again" in item.problem for item in confirm_evidence(tmp_path / "e.json"))


def test_a_forged_item_is_not_confirmed(tmp_path):
    """An obligation added by hand to a true file: the audit does not say so, and it comes back as a problem."""
    path = write_trace(tmp_path / "t.jsonl", SUCCESS)
    write_evidence(tmp_path / "e.json", [audit_file(path)])
    document = json.loads((tmp_path / "e.json").read_bytes())
    forged = dict(document["items"][0], obligation="victim_exclusion", mode="hard_protected")
    document["items"].append(forged)
    (tmp_path / "e.json").write_text(json.dumps(document))
    found = confirm_evidence(tmp_path / "e.json")
    bad = [i for i in found if i.problem]
    assert [i.obligation for i in bad] == [Obligation.VICTIM_EXCLUSION]
    assert "does not say" in bad[0].problem


def test_a_contradiction_left_out_of_the_file_still_counts(tmp_path):
    """Whoever edits bad news away does not get rid of it: the trace is audited again."""
    path = write_trace(tmp_path / "t.jsonl", broken_text(CASES["RKV255"]))
    write_evidence(tmp_path / "e.json", [audit_file(path)])
    document = json.loads((tmp_path / "e.json").read_bytes())
    document["items"] = []
    (tmp_path / "e.json").write_text(json.dumps(document))
    assert any(i.polarity is Polarity.CONTRADICTS for i in confirm_evidence(tmp_path / "e.json"))


def test_a_claim_that_nobody_accepted_contradicts_acceptance_in_every_mode(tmp_path):
    """No mode was promised, so the missing acceptance speaks against every mode that asks for one."""
    path = write_trace(tmp_path / "t.jsonl", broken_text(CASES["RKV220"]))
    write_evidence(tmp_path / "e.json", [audit_file(path)])
    modes = {i.mode for i in confirm_evidence(tmp_path / "e.json") if i.obligation is Obligation.ACCEPTANCE}
    assert modes == {m for m in Mode if Obligation.ACCEPTANCE in BUNDLES[m]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not json",
        b"[]",
        b'{"schema": "residentkv.evidence/2", "residentkv": "0", "traces": [], "items": []}',
        b'{"schema": "residentkv.evidence/1", "residentkv": "0", "traces": [], "items": [], "more": 1}',
        b'{"schema": "residentkv.evidence/1", "residentkv": "0", "traces": [], "traces": [], "items": []}',
        b'{"schema": "residentkv.evidence/1", "residentkv": "0", "traces": []}',
        b"[" * 100_000,
    ],
)
def test_evidence_is_read_strictly(data):
    """Not JSON, another schema, an unknown, missing or repeated key: an input error, never a guess."""
    with pytest.raises(InputError, match="RKV114"):
        decode_evidence(data, path="e.json")


def test_missing_evidence_is_no_input(tmp_path):
    """A file that is not there is named, with what to do."""
    with pytest.raises(NoInputError, match="evidence-out"):
        confirm_evidence(tmp_path / "none.json")


def test_evidence_that_cannot_be_written_is_told(tmp_path):
    """A folder that does not exist: one clear error, and no half file anywhere."""
    path = write_trace(tmp_path / "t.jsonl", SUCCESS)
    with pytest.raises(NoInputError, match="not written"):
        write_evidence(tmp_path / "nowhere" / "e.json", [audit_file(path)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.jsonl"]


def test_an_unknown_word_in_evidence_is_an_input_error(tmp_path):
    """A mode that does not exist cannot be placed."""
    path = write_trace(tmp_path / "t.jsonl", SUCCESS)
    write_evidence(tmp_path / "e.json", [audit_file(path)])
    document = json.loads((tmp_path / "e.json").read_bytes())
    document["items"].append(dict(document["items"][0], mode="pinned"))
    (tmp_path / "e.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="pinned"):
        confirm_evidence(tmp_path / "e.json")
