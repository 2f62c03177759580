"""Names that try to steer whoever shows them appear as text in every format."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from lxml import etree

from tests.lowering.site import BODY, HEAD, Site
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
    if form == "sarif":
        log = json.loads(text)
        assert sarif_errors(log) == []
        messages = [r["message"]["text"] for r in log["runs"][0]["results"]]
        assert messages and not any("](" in m or "{0}" in m.replace("{{0}}", "") for m in messages)
    if form == "junit":
        root = etree.fromstring(text)
        junit_schema().assertValid(root)
        assert not root.xpath("//script")
    if form == "github":
        assert [line[:9] for line in text.splitlines() if line.startswith("::")].count("::error f") == 1
        assert all(line.startswith(("::error f", "::warning", "residentkv: ")) for line in text.splitlines())


@pytest.mark.parametrize("form", [f for f in FORMATS if f not in ("json", "in-toto")])
def test_a_hostile_owner_is_text(broken: Path, form: str) -> None:
    """The owner of a claim in a trace; JSON is escaped by its own rules and read back unchanged below."""
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


@pytest.mark.parametrize("form", [f for f in FORMATS if f not in ("json", "in-toto")])
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
    """A trace in a file whose name is markup with a line end, a colon and a comma."""
    folder = Path("a:b,c<i>\n::error::x")
    folder.mkdir()
    trace = folder / "t.jsonl"
    trace.write_bytes(broken.read_bytes())
    code, text = write("audit", str(trace), form=form)
    assert code == 10
    assert_harmless(form, text)
