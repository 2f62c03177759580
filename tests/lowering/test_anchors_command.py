"""`residentkv anchors` from the outside: nobody types a hash."""

from __future__ import annotations

import json

import pytest

from residentkv.cli.main import main
from residentkv.lowering.descriptor import decode_descriptor
from tests.lowering.site import BODY, HEAD, POOL, Site, install


def read(site: Site):
    return decode_descriptor(site.descriptor.read_bytes(), "d.yaml")


def test_missing_digests_are_written_and_every_other_line_stays(site):
    """The fixture ran `anchors add --missing` on HEAD + BODY."""
    text = site.descriptor.read_text()
    old = (HEAD + BODY).splitlines()
    kept = [line for line in text.splitlines() if line in old]
    changed = [line for line in old if line not in text.splitlines()]
    assert [line for line in old if line not in changed] == kept
    assert [line.split(":")[0].strip() for line in changed] == ["accept"], (
        "only the flow entry is written into its line"
    )
    assert text.endswith(BODY)
    recorded = {name: a.recorded for name, a in read(site).anchors.items()}
    assert all(r is not None and (r.distribution, r.version) == ("somertime-cpu", "1.4.2") for r in recorded.values())


def test_a_second_run_writes_nothing(site, capsys):
    """All are pinned."""
    before = site.descriptor.read_bytes()
    assert site.run("anchors", "add", "--missing") == 0
    assert site.descriptor.read_bytes() == before
    assert "0 of 3 anchors written" in capsys.readouterr().out


def test_a_new_anchor_is_written_with_lines_digest_and_provenance(site):
    """The text of the symbol as it is installed."""
    assert (
        site.run(
            "anchors", "add", "size", "--package", "somertime", "--file", "somertime/pool.py", "--symbol", "Pool.size"
        )
        == 0
    )
    anchor = read(site).anchors["size"]
    assert anchor.lines == "9-9"
    assert site.run("anchors", "verify", "size") == 0


def test_pinning_again_takes_what_stands_there_now(site, capsys):
    """A person looked at the change and accepts it, one anchor at a time."""
    site.pool.write_text(POOL.replace("min(", "max("))
    assert site.run("anchors", "verify") == 11
    assert site.run("anchors", "add", "evict", "limit") == 0
    assert site.run("anchors", "verify") == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["x", "--package", "somertime", "--file", "somertime/pool.py", "--symbol", "Pool.free"], 11, "2 times"),
        (["x", "--package", "somertime", "--file", "somertime/pool.py", "--symbol", "Pool.none"], 11, "no Pool.none"),
        (["x", "--package", "somertime", "--file", "somertime/none.py", "--symbol", "A"], 11, "somertime/none.py"),
        (["x", "--package", "somertime", "--file", "somertime/pool.py", "--lines", "400-401"], 11, "lines 400-401"),
        (["x", "--package", "somertime", "--file", "../pool.py", "--symbol", "A"], 2, "file"),
        (["x", "--package", "other", "--file", "a.py", "--symbol", "A"], 2, "version is missing"),
        (["x", "--package", "somertime", "--file", "somertime/pool.py"], 2, "no symbol and no lines"),
        (["x", "--file", "somertime/pool.py"], 2, "one of --package, --repository and --url"),
        (["nothing"], 2, "has no anchor 'nothing'"),
        ([], 2, "either ID"),
        (["x", "--missing"], 2, "either ID"),
    ],
)  # fmt: skip
def test_what_cannot_be_pinned_leaves_the_file_alone(site, arguments, code, words, capsys):
    """An error is one line; the descriptor is byte for byte what it was."""
    before = site.descriptor.read_bytes()
    assert site.run("anchors", "add", *arguments) == code
    assert site.descriptor.read_bytes() == before
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_copies_that_differ_cannot_be_pinned(site, tmp_path, capsys):
    """Which one would be meant?"""
    other = tmp_path / "other"
    install(other, version="1.4.3", pool=POOL.replace("min(", "max("))
    assert site.run("anchors", "add", "evict", "--site-packages", str(other)) == 11
    assert "the copies in range differ" in capsys.readouterr().err


def test_a_document_anchor_gets_the_digest_of_its_quote(site, tmp_path, capsys):
    """Verified only in a run that is given the text."""
    url = "https://example.org/page"
    added = ["--url", url, "--retrieved", "2026-01-05", "--quote", "Blocks are kept: always."]
    assert site.run("anchors", "add", "page", *added) == 0
    page = tmp_path / "page.txt"
    page.write_text("We say: Blocks are\nkept: always. Or so.")
    assert site.run("anchors", "verify", "page") == 11
    assert site.run("anchors", "verify", "page", "--document", f"{url}={page}") == 0


def test_verify_tells_every_anchor_with_its_place(site, capsys):
    """Lines for people, JSON for machines, one exit code."""
    assert site.run("anchors", "verify") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{site.descriptor}:9:5: evict verified: Pool.evict in somertime/pool.py of somertime")
    assert lines[-1] == "3 anchors: 3 verified"
    assert site.run("anchors", "verify", "--json") == 0
    assert {a["state"] for a in json.loads(capsys.readouterr().out)["anchors"]} == {"verified"}


def test_diff_shows_the_text_when_a_copy_of_the_old_one_is_at_hand(site, tmp_path, capsys):
    """Old from the folder of 1.4.2, new from that of 1.5.0."""
    other = tmp_path / "other"
    install(other, version="1.5.0", pool="# new\n" + POOL.replace("min(", "max(").replace("def accept", "def admit"))
    arguments = ["--against", "somertime==1.5.0", "--site-packages", str(other)]
    assert site.run("anchors", "diff", *arguments) == 11
    out = capsys.readouterr().out
    assert "evict changed" in out
    assert "-    return min(self.blocks)" in out
    assert "+    return max(self.blocks)" in out
    assert "accept absent" in out
    assert "limit moved" in out
    assert out.splitlines()[-1] == "3 anchors: 1 moved, 1 changed, 1 absent"


def test_diff_without_changes_exits_0(site, capsys):
    """Nothing is listed but the count."""
    assert site.run("anchors", "diff") == 0
    assert capsys.readouterr().out == "3 anchors: 3 verified\n"


def test_diff_against_a_version_that_is_not_here_says_how_to_get_it(site, capsys):
    """No input, not a pass."""
    assert site.run("anchors", "diff", "--against", "somertime==9.9") == 3
    assert "residentkv anchors fetch somertime==9.9" in capsys.readouterr().err
    assert site.run("anchors", "diff", "--against", "unrelated==1.0") == 3
    assert "no anchor is in unrelated==1.0" in capsys.readouterr().err


def test_a_descriptor_that_cannot_be_written_whole_keeps_its_old_content(site, monkeypatch):
    """The new content is written beside it and put in place in one step; that it could not be is exit 3."""

    def fail(handle: int) -> None:
        raise OSError("no space left")

    site.pool.write_text(POOL.replace("min(", "max("))
    before = site.descriptor.read_bytes()
    monkeypatch.setattr("residentkv.files.os.fsync", fail)
    assert site.run("anchors", "add", "evict") == 3
    assert site.descriptor.read_bytes() == before
    assert [p.name for p in site.descriptor.parent.iterdir() if p.name.startswith(".")] == []


def test_an_anchor_in_another_package_needs_its_own_version(site, capsys):
    """Our own package is read where it runs."""
    arguments = ["--package", "residentkv", "--file", "residentkv/lowering/depth.py", "--symbol", "Depth"]
    assert site.run("anchors", "add", "own", *arguments, "--version", ">=0") == 0
    assert site.run("anchors", "verify", "own") == 0
    assert main(["anchors", "verify", "own", "--descriptor", str(site.descriptor)]) == 0
