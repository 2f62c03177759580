"""Names that try to steer whoever shows them appear as text in every format."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import jsonschema
import pytest
from lxml import etree

from residentkv.cli.main import main
from tests.lowering.site import BODY, HEAD, Site
from tests.report import hostile as hostile_names
from tests.report.run import FORMATS, check_of, write
from tests.report.test_formats import junit_schema, sarif_errors

MARKUP = "<script>alert(1)</script> ]]> &amp; ::error::x %0A [link](https://evil.example) {0}"
BIDI = "\u202edrawkcab\u2066 \u05d0\u05d1 \x1b[31mred\x07 \u0085 \u2028"
LONG = "n" * 200_000
STEERING = ("\x1b", "\x07", "\u202e", "\u2066", "\u2028", "\u0085")
HOSTILE = MARKUP + BIDI


def hostile_trace(broken: Path) -> Path:
    """The broken trace with another owner of the claim, as long and as hostile as a name can be."""
    path = Path("hostile.jsonl")
    owner = json.dumps(HOSTILE + "o" * 300)
    path.write_text(broken.read_text().replace('"tenant-a"', owner))
    return path


def assert_harmless(form: str, text: str) -> None:
    """Nothing in a report steers a terminal, a workflow, a browser or a parser."""
    assert not any(c in text for c in STEERING), form
    assert not any("\ud800" <= c <= "\udfff" for c in text), form
    if form in ("json", "in-toto"):
        json.loads(text)
    if form == "sarif":
        log = json.loads(text)
        assert sarif_errors(log) == []
        addresses = re.findall(r'"uri": "([^"]*)"', text)
        assert addresses and all(
            re.fullmatch(r"([\w.~:/?#@!$&'()*+,;=-]|%[0-9A-F]{2})*", a, re.ASCII) for a in addresses
        )
        messages = [r["message"]["text"] for r in log["runs"][0]["results"]]
        assert messages and not any("](" in m or "{0}" in m.replace("{{0}}", "") for m in messages)
    if form == "junit":
        root = etree.fromstring(text)
        junit_schema().assertValid(root)
        assert not root.xpath("//script")
    if form == "github":
        assert [line[:9] for line in text.splitlines() if line.startswith("::")].count("::error f") == 1
        assert all(line.startswith(("::error f", "::warning", "residentkv: ")) for line in text.splitlines())


@pytest.mark.parametrize("form", FORMATS)
def test_a_hostile_owner_is_text(broken: Path, form: str) -> None:
    """The owner of a claim in a trace; what JSON escapes is read back unchanged below."""
    code, text = write("audit", str(hostile_trace(broken)), form=form)
    assert code == 10
    assert_harmless(form, text)
    assert "alert(1)" in text


def test_json_gives_hostile_names_back_unchanged(broken: Path) -> None:
    """Documents for machines carry the name itself, so that it can be looked up."""
    _, text = write("audit", str(hostile_trace(broken)), form="json")
    (claim,) = json.loads(text)["traces"][0]["claims"]
    assert claim["owner_scope"].startswith(HOSTILE)
    assert jsonschema.Draft202012Validator({"type": "object"}).is_valid(json.loads(text))


@pytest.mark.parametrize("form", FORMATS)
def test_a_hostile_descriptor_is_text(site: Site, form: str) -> None:
    """Notes and titles of a descriptor; control characters in them are refused when it is read, the rest is text."""
    title = MARKUP + "\u05d0\u05d1"
    body = BODY.replace("note: oldest goes first", f"note: {json.dumps(title)}").replace(
        "title: LRU", f"title: {json.dumps(title)}"
    )
    text = site.descriptor.read_text()
    assert BODY in text and HEAD.splitlines()[0] in text
    site.descriptor.write_text(text.replace(BODY, body))
    code, report = write(*check_of(site, "--mode", "hard_protected"), form=form)
    assert code == 10
    assert_harmless(form, report)


@pytest.mark.parametrize("form", FORMATS)
def test_a_hostile_file_name_is_text(broken: Path, form: str) -> None:
    """A trace in a file whose name is markup with a line end, a colon, a comma, and characters that steer."""
    folder = Path(f"a:b,c<i>%0A\n::error::x{BIDI}")
    folder.mkdir()
    trace = folder / "t.jsonl"
    trace.write_bytes(broken.read_bytes())
    code, text = write("audit", str(trace), form=form)
    assert code == 10
    assert_harmless(form, text)


NO_TEXT = os.fsdecode(b"\xff\xfe<b>.jsonl")


@pytest.mark.parametrize("form", [f for f in FORMATS if f != "in-toto"])
def test_a_file_name_that_is_no_utf_8_is_text(broken: Path, form: str) -> None:
    """Its bytes are shown as escapes, alike in every format; in SARIF the address has them percent-encoded."""
    Path(NO_TEXT).write_bytes(broken.read_bytes())
    code, text = write("audit", NO_TEXT, form=form)
    assert code == 10
    assert_harmless(form, text)
    plain = text.replace("\\\\", "\\")
    assert "\\udcff\\udcfe" in plain or "%FF%FE" in plain
    assert main(["report", "timeline", NO_TEXT, "-o", "page.html"]) == 10
    assert "\\udcff\\udcfe&lt;b&gt;.jsonl" in Path("page.html").read_text()


def test_what_is_looked_up_again_has_a_name_that_is_text(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Statements and evidence name files for others, so such a name is a usage error and nothing is written."""
    Path(NO_TEXT).write_bytes(broken.read_bytes())
    for option in (["--format", "in-toto", "-o", "out"], ["--evidence-out", "out"]):
        assert main(["audit", NO_TEXT, *option]) == 2
        assert "found a file name that is not UTF-8" in capsys.readouterr().err
    assert not Path("out").exists()


def test_all_names_of_a_trace_are_text_in_every_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims, owners, requests, sources and versions with the hostile names of the pages, as long as a name can be."""
    monkeypatch.chdir(tmp_path)
    hostile = (HOSTILE + "o" * 1024)[:1024]
    trace = hostile_names.write_trace(Path("t.jsonl"))
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    for event in events:
        event["source"] = hostile
        event |= {key: hostile for key in ("runtime_version", "primitive") if key in event}
    events[-1]["seq"] += 1  # so that there is something to tell of the source
    trace.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    for form in FORMATS:
        code, text = write("audit", str(trace), form=form)
        assert code == 11
        if form == "github":
            assert all(line.startswith(("::warning ", "residentkv: ")) for line in text.splitlines())
            assert not any(c in text for c in STEERING)
        else:
            assert_harmless(form, text)
        if form == "junit":
            names = [case.get("name") for case in etree.fromstring(text).iter("testcase")]
            assert len(set(names)) == len(names) > 1


@pytest.mark.parametrize("form", FORMATS)
def test_a_name_that_is_too_long_is_told_in_short(broken: Path, form: str) -> None:
    """10,000 characters are no name: exit 11, the line, and a report of ordinary size."""
    trace = Path("long.jsonl")
    trace.write_text(broken.read_text().replace('"tenant-a"', json.dumps("x" * 10_000)))
    code, text = write("audit", str(trace), form=form)
    assert code == 11 and len(text) < 10_000
    assert "RKV1" in text


def test_an_owner_sees_its_log_without_what_steers(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines of `claims log` decode to the events, and show no control character."""
    trace = hostile_trace(broken)
    owner = HOSTILE + "o" * 300
    assert main(["claims", "log", str(trace), "--owner", owner]) == 0
    out = capsys.readouterr().out
    assert not any(c in out for c in STEERING)
    assert {json.loads(line)["owner_scope"] for line in out.splitlines() if "owner_scope" in line} == {owner}


@pytest.mark.parametrize("form", FORMATS)
def test_a_hostile_name_of_a_descriptor_is_text(site: Site, form: str) -> None:
    """A descriptor in a file whose name has bytes that are no text; a statement about it is refused."""
    strange = Path(f"a:1:2,{BIDI}%0A<i>{'' if form == 'in-toto' else NO_TEXT}")
    site.descriptor.rename(strange)
    arguments = ("check", "--descriptor", str(strange), "--site-packages", str(site.folder), "--mode", "hard_protected")
    code, text = write(*arguments, form=form)
    assert code == 10
    assert_harmless(form, text)
    if form == "github":
        (first, *_) = text.splitlines()
        assert first.startswith("::error file=a%3A1%3A2%2C\\u202e") and "%250A<i>" in first.partition("line=")[0]
    assert main(["report", "matrix", *arguments[1:], "-o", "page.html"]) == 10
    assert not any(c in Path("page.html").read_text() for c in STEERING)
