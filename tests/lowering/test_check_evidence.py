"""`residentkv check --evidence`: from a trace to a verdict and back, through the audit of the same run."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from residentkv.cli.main import main
from tests.audit.notation import trace
from tests.audit.stories import FAILURE, SOFT, SUCCESS
from tests.lowering.site import POOL, Site

OPEN = "open runtime=somertime runtime_version=1.4.2 primitive=lru depth={depth} adapter={adapter} adapter_version=0.2"
ROW = ("--mode", "offloadable", "--depth", "plugin")
ADAPTERS = """\
adapters:
  - id: plug
    title: A plugin
    depth: plugin
    primitive: lru
    evidence: []
    rows:
      - {mode: offloadable}
  - id: watch
    title: An observer
    depth: observe
    primitive: lru
    evidence: []
    rows:
      - {mode: offloadable}
"""


def write_trace(path: Path, story: str, *, adapter: str = "plug", depth: str = "plugin", drop: str = "") -> Path:
    """Write a story of the audit tests as a trace of our runtime; `drop` deletes the event of that name."""
    opened = OPEN.format(adapter=adapter, depth=depth)
    lines = [msgspec.json.encode(e) for e in trace(story.replace("open", opened, 1))]
    if drop:
        (gone,) = [n for n, line in enumerate(lines) if json.loads(line)["event"] == drop]
        rest = [json.loads(line) for n, line in enumerate(lines) if n != gone]
        lines = [json.dumps({**event, "seq": n}).encode() for n, event in enumerate(rest)]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def audit(folder: Path, name: str, *traces: Path) -> str:
    out = folder / f"{name}.json"
    main(["audit", *map(str, traces), "--evidence-out", str(out)])
    return str(out)


@pytest.fixture
def plugin(site: Site) -> Site:
    """The site with a plugin and an observer in its descriptor."""
    site.descriptor.write_text(site.descriptor.read_text() + ADAPTERS)
    return site


@pytest.fixture
def evidence(plugin: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Evidence files of a restored and of a failed load."""
    made = (
        audit(tmp_path, "good", write_trace(tmp_path / "good.jsonl", SUCCESS)),
        audit(tmp_path, "bad-load", write_trace(tmp_path / "bad-load.jsonl", FAILURE)),
    )
    capsys.readouterr()
    return made


def check(site: Site, *files: str, row: tuple[str, ...] = ROW) -> int:
    return site.run("check", *row, *(part for f in files for part in ("--evidence", f)))


def test_a_restored_and_a_failed_load_together_make_the_row_sound(plugin, evidence, capsys):
    """sound_with_adapter, adapter_policy, depth plugin."""
    assert check(plugin, *evidence) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "at depth plugin: sound_with_adapter (adapter_policy)" in out


def test_the_order_of_evidence_files_and_their_repetition_change_nothing(plugin, evidence, capsys):
    """The JSON reports are equal."""
    documents = []
    for files in (evidence, evidence[::-1], evidence * 2):
        assert plugin.run("check", *ROW, "--json", *(p for f in files for p in ("--evidence", f))) == 0
        documents.append(json.loads(capsys.readouterr().out))
    assert documents[0] == documents[1] == documents[2]


@pytest.mark.parametrize("kept", [(), (0,), (1,)])
def test_without_one_of_them_it_is_not_positive(plugin, evidence, kept, capsys):
    """Taken away, the verdict goes back."""
    assert check(plugin, *(evidence[n] for n in kept)) == 11
    out = " ".join(capsys.readouterr().out.split())
    assert "at depth plugin: unknown" in out
    if kept == (0,):
        assert "missing restoration_failure_outcome" in out
    if kept == (1,):
        assert "missing restore_before_reuse" in out


@pytest.mark.parametrize(
    ("story", "event"),
    [
        (SUCCESS, "resident_claim_restored"),
        (SUCCESS, "resident_claim_restore_required"),
        (FAILURE, "scheduler_active_request_refused"),
        (FAILURE, "scheduler_resident_claim_restoration_failed"),
    ],
)
def test_with_one_event_deleted_it_is_not_positive_and_the_message_names_the_event(
    plugin, evidence, tmp_path, story, event, capsys
):
    """The evidence is made anew from the trace that lacks the event."""
    other = evidence[1] if story is SUCCESS else evidence[0]
    shorter = audit(tmp_path, "shorter", write_trace(tmp_path / "shorter.jsonl", story, drop=event))
    capsys.readouterr()
    assert check(plugin, shorter, other) in (10, 11)
    out = " ".join(capsys.readouterr().out.split())
    assert "sound_with_adapter" not in out
    assert event in out


def test_a_trace_that_changed_after_its_audit_is_unknown_with_the_reason(plugin, evidence, tmp_path, capsys):
    """One event deleted behind the back of the evidence file."""
    write_trace(tmp_path / "good.jsonl", SUCCESS, drop="resident_claim_restored")
    assert check(plugin, *evidence) == 11
    out = " ".join(capsys.readouterr().out.split())
    assert "good.jsonl: the trace changed: sha256" in out
    assert "missing event: resident_claim_restored" in out


def test_a_trace_that_is_gone_is_unknown_with_the_reason(plugin, evidence, tmp_path, capsys):
    """The evidence file alone is no evidence."""
    (tmp_path / "good.jsonl").unlink()
    assert check(plugin, *evidence) == 11
    assert "good.jsonl: the trace cannot be read again" in " ".join(capsys.readouterr().out.split())


def test_support_that_only_the_file_claims_is_not_believed(plugin, evidence, tmp_path, capsys):
    """A typed-in obligation has no audit behind it."""
    document = json.loads(Path(evidence[0]).read_text())
    (some,) = [i for i in document["items"] if i["obligation"] == "restore_before_reuse"]
    document["items"].append({**some, "obligation": "restoration_failure_outcome"})
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(document))
    assert check(plugin, str(forged)) == 11
    out = " ".join(capsys.readouterr().out.split())
    assert "the audit of this run does not say that it supports restoration_failure_outcome" in out


def test_an_observer_that_writes_the_same_trace_does_not_make_the_row(plugin, tmp_path, capsys):
    """Bad lowering: an observer accepts, restores and refuses in the runtime's name."""
    files = [
        audit(tmp_path, name, write_trace(tmp_path / f"{name}.jsonl", story, adapter="watch", depth="observe"))
        for name, story in (("good", SUCCESS), ("bad-load", FAILURE))
    ]
    for depth in ("observe", "plugin"):
        capsys.readouterr()
        assert check(plugin, *files, row=("--mode", "offloadable", "--depth", depth)) == 11
        out = " ".join(capsys.readouterr().out.split())
        assert "whoever accepts must be able to enforce" in out


def test_evidence_about_other_rows_is_named(plugin, evidence, capsys):
    """Nothing is dropped in silence."""
    assert check(plugin, *evidence, row=("--mode", "best_effort")) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "evidence about none of the rows that were asked for: lru of somertime 1.4.2 as offloadable" in out


def test_evidence_does_not_help_where_the_package_changed(plugin, evidence, capsys):
    """The traces are of a runtime that is not the one on this machine any more."""
    plugin.pool.write_text(POOL.replace("min(", "mix("))
    assert check(plugin, *evidence) == 11
    assert "Pool.evict in somertime/pool.py" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [(None, 3, "cannot read the evidence"), (b"", 11, "RKV114"), (b"\x00\xff", 11, "RKV114"), (b"{}", 11, "RKV114")],
)
def test_an_evidence_file_that_cannot_be_understood_is_one_line(plugin, tmp_path, content, code, words, capsys):
    """Missing is no input, unreadable is unknown."""
    path = tmp_path / "e.json"
    if content is not None:
        path.write_bytes(content)
    assert check(plugin, str(path)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err


BROUGHT = """\
      - {{obligation: predicate, polarity: supports, kind: trace, anchor: run, note: held, modes: [offloadable]}}
    rows:
      - {{mode: offloadable}}
"""


def bring(site: Site, tmp_path: Path, seq: int, story: str = SUCCESS) -> None:
    """Let the descriptor bring a trace of the runtime by itself, and lean on one of its events."""
    write_trace(tmp_path / "own.jsonl", story, adapter="null", depth="native")
    text = site.descriptor.read_text()
    anchor = f"  run: {{type: trace, file: own.jsonl, events: [{{source: scheduler, epoch: 0, seqs: ['{seq}']}}]}}\n"
    text = text.replace("\nprimitives:", f"{anchor}\nprimitives:", 1)
    site.descriptor.write_text(text.replace("    rows:\n", BROUGHT.format(), 1))
    assert site.run("anchors", "add", "--missing") == 0


def predicate_of(site: Site, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    capsys.readouterr()
    site.run("check", "--mode", "offloadable", "--depth", "native", "--json")
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    (found,) = [o for o in row["obligations"] if o["obligation"] == "predicate"]
    return found["status"], found["sentence"]


def test_a_trace_that_a_descriptor_brings_is_audited_in_every_check(site, tmp_path, capsys):
    """Its digest is not enough: the named event must be among those that show the obligation."""
    bring(site, tmp_path, 5)
    status, sentence = predicate_of(site, capsys)
    assert status == "satisfied", sentence


def test_an_event_that_shows_something_else_is_not_enough(site, tmp_path, capsys):
    """Event 0 only opens the trace."""
    bring(site, tmp_path, 0)
    status, sentence = predicate_of(site, capsys)
    assert status == "unknown"
    assert "event 0 of scheduler epoch 0 is none of those that showed predicate" in sentence


def test_a_violating_trace_that_a_descriptor_brings_shows_nothing_good(site, tmp_path, capsys):
    """The digest of the violating trace is right."""
    bring(site, tmp_path, 5, SUCCESS.replace("    restore c r2 job=1\n", ""))
    status, _ = predicate_of(site, capsys)
    assert status in ("unknown", "contradicted")


def test_what_stood_in_is_told_with_every_positive_verdict(plugin, tmp_path, capsys):
    """In the sentence of the row, in the matrix, and in the JSON: a simulated engine shows nothing about a real one."""
    files = []
    for name, story in (("good", SUCCESS), ("bad-load", FAILURE)):
        path = write_trace(tmp_path / f"{name}.jsonl", story)
        first, *rest = path.read_text().splitlines(keepends=True)
        opened = json.loads(first) | {"stands_in": ["engine: a mocker"]}
        path.write_text(json.dumps(opened) + "\n" + "".join(rest))
        files.append(audit(tmp_path, name, path))
    capsys.readouterr()
    evidence = [part for f in files for part in ("--evidence", f)]
    assert check(plugin, *files) == 0
    assert "stood in: engine: a mocker" in " ".join(capsys.readouterr().out.split())
    plugin.run("check", *ROW, "--json", *evidence)
    assert "stood in: engine: a mocker" in json.loads(capsys.readouterr().out)["rows"][0]["sentence"]
    plugin.run("check", *evidence)
    assert "stood in: engine: a mocker" in " ".join(capsys.readouterr().out.split())


def test_a_breach_in_a_trace_that_changed_leaves_a_doubt_although_its_items_were_removed(
    plugin, evidence, tmp_path, capsys
):
    """Whoever empties the file by hand still names the trace, and what lies there now was read in this run."""
    document = json.loads(Path(evidence[0]).read_text())
    emptied = tmp_path / "emptied.json"
    bad = write_trace(tmp_path / "bad.jsonl", SUCCESS, drop="resident_claim_restored")
    document["traces"] = [{**document["traces"][0], "path": bad.name}]
    document["items"] = []
    emptied.write_text(json.dumps(document))
    assert check(plugin, *evidence) == 0
    capsys.readouterr()
    assert check(plugin, *evidence, str(emptied)) == 11
    out = " ".join(capsys.readouterr().out.split())
    assert "evidence against it could not be verified: bad.jsonl: the trace changed" in out


def test_a_loss_that_was_not_told_rejects_a_soft_row_that_other_traces_show(site, tmp_path, capsys):
    """The violation contradicts what the mode asks for, so no other trace outweighs it."""
    quiet = SOFT.replace("harm c lost_pos=7-8", "release c")
    bad = audit(tmp_path, "bad", write_trace(tmp_path / "bad.jsonl", quiet, adapter="plug", depth="plugin"))
    site.descriptor.write_text(site.descriptor.read_text() + ADAPTERS.replace("offloadable", "soft_priority"))
    capsys.readouterr()
    assert check_row(site, "soft_priority", bad) == 10
    assert "loss_reporting is contradicted" in " ".join(capsys.readouterr().out.split())


def check_row(site: Site, mode: str, *files: str) -> int:
    return site.run("check", "--mode", mode, "--depth", "plugin", *(p for f in files for p in ("--evidence", f)))
