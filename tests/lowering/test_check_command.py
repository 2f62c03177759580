"""`residentkv check` from the outside: what it prints and what it exits with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from residentkv.cli.main import main
from residentkv.lowering.checking import exit_code_of
from residentkv.lowering.relation import Verdict
from tests.lowering.site import BODY, HEAD, POOL, Site, build_site, install


def check(site: Site, *arguments: str) -> int:
    return site.run("check", *arguments)


def test_a_row_with_all_obligations_verified_exits_0(site, capsys):
    """best_effort needs the four core obligations, which source can show."""
    assert check(site, "--mode", "best_effort") == 0
    out = capsys.readouterr().out
    assert "native_sound" in out
    assert "somertime" not in sys.modules, "the audited package was imported"


def test_a_rejected_row_exits_10_and_names_the_contradiction(site, capsys):
    """LRU contradicts protection."""
    assert check(site, "--mode", "hard_protected") == 10
    assert "victim_exclusion is contradicted: oldest goes first" in capsys.readouterr().out


def test_an_approximate_row_exits_11(site, capsys):
    """It resembles the promise, and that is not enough."""
    assert check(site, "--mode", "soft_priority") == 11
    assert "approximate" in capsys.readouterr().out


def test_a_listing_exits_0_only_when_every_row_is_positive():
    """One rule for one row and for many; no rows is no input."""
    sound, weak, bad, open_ = Verdict.NATIVE_SOUND, Verdict.APPROXIMATE, Verdict.REJECTED, Verdict.UNKNOWN
    assert exit_code_of([sound, Verdict.SOUND_WITH_ADAPTER]) == 0
    assert exit_code_of([sound, weak]) == 11
    assert exit_code_of([sound, open_]) == 11
    assert exit_code_of([sound, open_, bad]) == 10
    assert exit_code_of([]) == 3


def test_one_changed_byte_makes_the_row_unknown_and_names_file_and_symbol(site, capsys):
    """The row was native_sound a moment ago."""
    assert check(site, "--mode", "best_effort") == 0
    site.pool.write_text(POOL.replace("min(", "mix("))
    capsys.readouterr()
    assert check(site, "--mode", "best_effort") == 11
    out = " ".join(capsys.readouterr().out.split())
    assert "unknown" in out
    assert "Pool.evict in somertime/pool.py of somertime" in out
    assert "RKV154 anchor evict changed" in out


def test_one_changed_byte_under_a_contradiction_is_unknown_and_not_sound(site, capsys):
    """The bad news cannot be verified any more; that is no good news."""
    site.pool.write_text(POOL.replace("min(", "mix("))
    assert check(site, "--mode", "hard_protected") == 11
    assert "Pool.evict in somertime/pool.py" in " ".join(capsys.readouterr().out.split())


def test_a_moved_symbol_stays_verified_with_a_warning(site, capsys):
    """Lines above it changed, its text did not."""
    site.pool.write_text("# one line more\n" + POOL)
    assert check(site, "--mode", "best_effort") == 0
    assert "warning: anchor evict moved" in " ".join(capsys.readouterr().out.split())


def test_another_version_is_unknown_although_its_text_is_the_same(tmp_path, capsys):
    """Bad lowering: an anchor to another version."""
    site = build_site(tmp_path)
    other = tmp_path / "other"
    install(other, version="1.5.0")
    capsys.readouterr()
    site.folder = other
    assert check(site, "--mode", "best_effort") == 11
    out = " ".join(capsys.readouterr().out.split())
    assert "out of version range: found somertime-cpu 1.5.0, expected version >=1.4,<1.5" in out


def test_without_the_package_rows_are_unknown_and_recorded_is_marked(site, tmp_path, capsys):
    """What was recorded is shown with date and version and does not change the exit code."""
    empty = tmp_path / "empty"
    empty.mkdir()
    site.folder = empty
    assert check(site, "--mode", "best_effort") == 11
    assert "native_sound" not in capsys.readouterr().out
    assert check(site, "--mode", "best_effort", "--recorded") == 11
    out = " ".join(capsys.readouterr().out.split())
    assert "[native_sound] recorded, not verified" in out
    assert "RECORDED, not verified in this run: native_sound" in out
    assert "with somertime-cpu 1.4.2" in out


def test_recorded_never_covers_a_changed_text(site, capsys):
    """The text is here and is another one: history does not speak for it."""
    site.pool.write_text(POOL.replace("min(", "mix("))
    assert check(site, "--mode", "best_effort", "--recorded") == 11
    assert "native_sound" not in capsys.readouterr().out


def test_json_tells_the_same_as_the_exit_code(site, capsys):
    """Same verdicts, same code, in every format."""
    for mode, verdict, code in (("best_effort", "native_sound", 0), ("hard_protected", "rejected", 10)):
        assert check(site, "--mode", mode, "--json") == code
        document = json.loads(capsys.readouterr().out)
        assert document["schema"] == "residentkv.check/1"
        assert document["exit_code"] == code
        (row,) = document["rows"]
        assert (row["mode"], row["verdict"]) == (mode, verdict)
        assert len(row["obligations"]) == len({o["obligation"] for o in row["obligations"]})
        assert {a["state"] for a in row["anchors"]} == {"verified"}


def test_every_report_ends_with_what_a_verdict_does_not_say(site, capsys):
    """Text and JSON."""
    check(site, "--mode", "best_effort")
    out = " ".join(capsys.readouterr().out.split())
    sentence = "not a proof about unaudited behaviour, not a performance claim, and not a survey of runtimes."
    assert out.endswith(sentence)
    assert "Audited: somertime 1.4 (read in this run: somertime-cpu 1.4.2)" in out
    check(site, "--mode", "best_effort", "--json")
    assert json.loads(capsys.readouterr().out)["caveat"].endswith(sentence)


def test_piped_output_is_plain_and_fits_80_columns(site, capsys):
    """No escape sequence, no trailing blank."""
    check(site)
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert max(map(len, lines)) <= 80
    assert not any("\x1b" in line or line != line.rstrip() for line in lines)


def test_control_characters_of_a_descriptor_are_shown_escaped(tmp_path, capsys):
    """A title cannot steer the terminal, neither in a report nor in an error."""
    evil = BODY.replace("why: Often taken for it.", 'why: "\\e[2J\\u202Eevil"').replace("id: lru", "id: lru", 1)
    site = build_site(tmp_path)
    site.descriptor.write_text(site.descriptor.read_text().replace(BODY, evil).replace("Some runtime", '"\\e]0;x\\a"'))
    capsys.readouterr()
    assert check(site, "--explain") == 10
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\\x1b[2J\\u202eevil" in out
    assert main(["check", "--mode", "\x1b[2J"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_only_the_anchors_of_the_selected_rows_are_read(site, capsys):
    """A broken file elsewhere does not disturb a row that does not lean on it."""
    text = site.descriptor.read_text()
    other = text.replace("symbol: accept", "symbol: nowhere").replace("anchor: accept", "anchor: limit")
    site.descriptor.write_text(other)
    assert check(site, "--mode", "best_effort") == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["check"], 2, "expected --all or some of"),
        (["check", "--all", "--mode", "hard_protection"], 2, "did you mean 'hard_protected'"),
        (["check", "--runtime", "vlm"], 2, "did you mean 'vllm'"),
        (["check", "--runtime", "vllm", "--version", "9.9"], 2, "no descriptor for version '9.9'"),
        (["check", "--runtime", "vllm", "--primitive", "prefixcache"], 2, "did you mean 'prefix_cache'"),
        (["check", "--runtime", "vllm", "--depth", "deep"], 2, "unknown depth 'deep'"),
        (
            ["check", "--runtime", "vllm", "--primitive", "prefix_cache", "--depth", "patch"],
            3,
            "no descriptor has a row",
        ),
        (["check", "--descriptor", "none.yaml"], 3, "none.yaml: cannot be read"),
        (["check", "--all", "--site-packages", "none"], 3, "none: no such file or folder"),
        (["check", "--all", "--checkout", "none"], 2, "expected NAME=PATH"),
        (["check", "--nonsense"], 2, "--nonsense"),
        (["chek"], 2, "did you mean 'check'"),
        (["anchors", "verify", "nothing", "--runtime", "vllm"], 2, "unknown anchor 'nothing'"),
        (["anchors", "fetch", "vllm>=0.32"], 2, "expected NAME==VERSION"),
    ],
)
def test_bad_input_is_one_line_with_the_right_exit_code(arguments, code, words, capsys):
    """No traceback, nothing on stdout."""
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("residentkv: error: ")
    assert words in err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expected a mapping"),
        (b"\x00\x01\x02", "RKV151"),
        ((HEAD + BODY).replace("title: LRU", "title: a\n    title: b").encode(), "the key 'title' twice"),
        ((HEAD + BODY).encode(), "no sha256; run 'residentkv anchors add"),
    ],
)
def test_a_descriptor_that_cannot_be_understood_exits_11(content, words, tmp_path, capsys):
    """Never a pass, one line with the place."""
    path = tmp_path / "d.yaml"
    path.write_bytes(content)
    assert main(["check", "--descriptor", str(path)]) == 11
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert f"{path}:" in err
    assert words in err


def test_the_schema_command_prints_the_published_schema(capsys):
    """One text for editors, docs and the command."""
    assert main(["schema", "descriptor"]) == 0
    published = Path(__file__).parents[2] / "schemas" / "descriptor.schema.json"
    assert capsys.readouterr().out == published.read_text()
