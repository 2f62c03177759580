"""`residentkv audit`: exit codes, one clear line for bad input, the same verdict in every format."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import msgspec
import pytest

from residentkv.cli.main import main
from tests.audit.fixtures import CASES, broken_text
from tests.audit.notation import trace
from tests.audit.stories import FAILURE, SUCCESS


@pytest.fixture
def files(tmp_path):
    """A conforming, a violating and an inconclusive trace, an empty file and a binary one."""

    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_bytes(b"".join(msgspec.json.encode(e) + b"\n" for e in trace(text)))
        return str(path)

    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "binary.jsonl").write_bytes(os.urandom(64) + b"\x00\xff\n")
    return {
        "good": write("good.jsonl", SUCCESS),
        "failure": write("failure.jsonl", FAILURE),
        "bad": write("bad.jsonl", broken_text(CASES["RKV255"])),
        "open": write("open.jsonl", SUCCESS.replace("    close\n", "")),
        "empty": str(tmp_path / "empty.jsonl"),
        "binary": str(tmp_path / "binary.jsonl"),
        "missing": str(tmp_path / "missing.jsonl"),
    }


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["good"], 0),
        (["good", "failure"], 0),
        (["bad"], 10),
        (["open"], 11),
        (["good", "open"], 11),
        (["open", "bad", "good"], 10),
        (["empty"], 11),
        (["binary"], 11),
        (["missing"], 3),
        (["good", "missing"], 3),
        (["bad", "missing"], 10),
    ],
)
def test_the_exit_code_is_the_same_in_every_format(files, capsys, names, code, as_json):
    """0 all conforming, 10 any violating, 3 a file is missing, else 11."""
    arguments = ["audit", *(files[n] for n in names), *(["--json"] if as_json else [])]
    assert main(arguments) == code
    out = capsys.readouterr()
    if as_json:
        document = json.loads(out.out)
        assert document["exit_code"] == code
        assert document["schema"] == "residentkv.audit/1"
    assert "Traceback" not in out.out + out.err


@pytest.mark.parametrize("name", ["empty", "binary"])
def test_unreadable_input_is_one_clear_line(files, capsys, name):
    """What is wrong, where, and what to do; nothing else."""
    assert main(["audit", files[name]]) == 11
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1
    assert files[name] in out
    assert "RKV1" in out
    assert "expected" in out


def test_a_missing_file_is_one_clear_line(files, capsys):
    """On stderr, with the name."""
    assert main(["audit", files["missing"]]) == 3
    out = capsys.readouterr()
    assert out.out == ""
    assert len(out.err.splitlines()) == 1
    assert files["missing"] in out.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit"],
        ["audit", "x.jsonl", "--profile", "strict"],
        ["audit", "x.jsonl", "--profile", "published", "--evidence-out", "e.json"],
        ["audit", "-", "--evidence-out", "e.json"],
        ["audit", "--no-such-option"],
    ],
)
def test_wrong_usage_is_one_clear_line(capsys, arguments):
    """Exit 2; what was found and what was expected."""
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err


def test_a_violation_is_told_as_a_story(files, capsys):
    """Rule, events, what is missing and which order is required."""
    main(["audit", files["bad"]])
    out = " ".join(capsys.readouterr().out.split())
    assert "RKV255 restored-without-load: violated" in out
    assert "resident_claim_restored (scheduler/0 seq 12)" in out
    assert "which is not finished on all workers" in out
    assert "missing: offload_worker_transfer_finished (load, success)" in out
    assert "offload_lookup_result -> resident_claim_restore_required" in out


def test_a_pass_says_what_it_does_not_say(files, capsys):
    """Every report carries its limits."""
    main(["audit", files["good"]])
    assert "does not say that the events are true" in " ".join(capsys.readouterr().out.split())
    main(["audit", files["good"], "--json"])
    assert "does not say that the events are true" in json.loads(capsys.readouterr().out)["caveat"]


def test_the_same_trace_gives_the_same_bytes(files, capsys):
    """Text and JSON are deterministic, so that two reports can be compared."""
    for more in ([], ["--json"]):
        main(["audit", files["bad"], *more])
        first = capsys.readouterr().out
        main(["audit", files["bad"], *more])
        assert capsys.readouterr().out == first


def test_evidence_is_written_whole(files, tmp_path, capsys):
    """Two runs, one file; it names both traces and how much it says."""
    target = tmp_path / "evidence.json"
    assert main(["audit", files["good"], files["failure"], "--evidence-out", str(target)]) == 0
    document = json.loads(target.read_bytes())
    assert [t["path"] for t in document["traces"]] == ["good.jsonl", "failure.jsonl"]
    assert document["schema"] == "residentkv.evidence/1"
    assert "supports" in capsys.readouterr().out


def test_evidence_is_not_written_when_a_trace_is_missing(files, tmp_path):
    """A file that says less than was asked for would look complete."""
    target = tmp_path / "evidence.json"
    assert main(["audit", files["good"], files["missing"], "--evidence-out", str(target)]) == 3
    assert not target.exists()


def test_published_gates_are_told_apart_from_verdicts(files, capsys):
    """Which gate passes, for which claim, and what the other one lacks."""
    assert main(["audit", files["failure"], "--profile", "published"]) == 0
    out = capsys.readouterr().out
    assert "passes failure_outcome" in out
    assert "never evidence" in out
    assert "conforming" not in out


def test_a_compressed_trace_reads_like_a_plain_one(files, tmp_path, capsys):
    """gzip is told by its first bytes; the digest is of the bytes as stored."""
    packed = tmp_path / "good.gz"
    packed.write_bytes(gzip.compress(Path(files["good"]).read_bytes()))
    assert main(["audit", str(packed), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["traces"][0]["verdict"] == "conforming"


def test_names_in_a_trace_cannot_steer_a_terminal(tmp_path, capsys):
    """A claim id with an escape sequence is shown escaped."""
    path = tmp_path / "t.jsonl"
    events = [
        msgspec.structs.replace(e, claim_id="evil\x1b[2J") if getattr(e, "claim_id", None) else e
        for e in trace(SUCCESS.replace("    release c\n", ""))
    ]
    path.write_bytes(b"".join(msgspec.json.encode(e) + b"\n" for e in events))
    assert main(["audit", str(path)]) == 11
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "evil" in out


def test_many_claims_are_summed_up(tmp_path, capsys):
    """The first claims are told, the others counted; the broken ones come first."""
    text = ["open"]
    for n in range(40):
        text += [f"init r{n} c{n}", f"accept c{n} r{n} mode=soft_priority", f"materialize c{n} r{n}", f"end r{n}"]
        text += [f"release c{n}" + (" released_by=stranger" if n == 39 else "")]
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(e) + b"\n" for e in trace("\n".join([*text, "close"]))))
    assert main(["audit", str(path)]) == 10
    out = capsys.readouterr().out
    assert out.index("claim c39") < out.index("claim c0 ")
    assert "28 conforming claims more" in out
