"""The descriptor reader: what it understands, and where, what and what next when it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from residentkv.claims.modes import Mode
from residentkv.errors import EXIT_UNKNOWN, InputError
from residentkv.lowering.depth import Depth
from residentkv.lowering.descriptor import decode_descriptor
from residentkv.lowering.format import PackageAnchor, descriptor_schema
from residentkv.lowering.model import Descriptor
from residentkv.lowering.text import digest_quote
from residentkv.sources.library import LIBRARY, load_library

SHA = "0" * 64
QUOTE = "Blocks are kept for the duration."
GOOD = f"""\
schema: residentkv.descriptor/1
runtime: somertime
version: "1.4"
title: Some runtime
package: {{name: somertime, versions: ">=1.4,<1.5"}}
anchors:
  evict:
    type: package
    package: somertime
    file: somertime/pool.py
    symbol: Pool.evict
    sha256: "{SHA}"
  page:
    type: document
    url: https://example.org/page
    retrieved: "2026-01-05"
    quote: {QUOTE}
    sha256: {digest_quote(QUOTE)}
  run:
    type: trace
    file: traces/run.jsonl
    events: [{{source: scheduler, epoch: 0, seqs: ["0-20"]}}]
    sha256: "{SHA}"
primitives:
  - id: lru
    title: LRU
    summary: Blocks stay until others need the space.
    where: [evict]
    evidence:
      - {{obligation: victim_exclusion, polarity: contradicts, kind: source, anchor: evict, note: oldest goes first}}
    rows:
      - {{mode: hard_protected}}
      - {{mode: best_effort, related: [evict]}}
adapters:
  - id: watcher
    title: Watcher
    depth: observe
    primitive: lru
    evidence:
      - {{obligation: loss_reporting, polarity: supports, kind: trace, anchor: run, note: told}}
    rows:
      - {{mode: soft_priority}}
  - id: plugin
    title: Plugin
    depth: plugin
    primitive: lru
    versions: ">=0.1"
    evidence: []
    rows:
      - {{mode: soft_priority}}
"""


def decode(text: str) -> Descriptor:
    return decode_descriptor(text.encode(), "d.yaml")


def test_rows_are_the_native_ones_and_one_for_each_depth_of_an_adapter():
    """A row at a depth has the help of every adapter that is not deeper."""
    rows = {(r.mode, r.depth): [a.id for a in r.adapters] for r in decode(GOOD).rows()}
    assert rows == {
        (Mode.BEST_EFFORT, Depth.NATIVE): [],
        (Mode.SOFT_PRIORITY, Depth.OBSERVE): ["watcher"],
        (Mode.SOFT_PRIORITY, Depth.PLUGIN): ["watcher", "plugin"],
        (Mode.HARD_PROTECTED, Depth.NATIVE): [],
    }


def test_evidence_keeps_its_depth_and_its_place():
    """A statement of an adapter has the adapter's depth; both know their line."""
    descriptor = decode(GOOD)
    (native,) = descriptor.primitives[0].evidence
    (observed,) = descriptor.adapters[0].evidence
    assert (native.depth, native.source, str(native.where)) == (Depth.NATIVE, "native", "d.yaml:30:9")
    assert (observed.depth, observed.source, observed.where.line) == (Depth.OBSERVE, "watcher", 40)


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("title: LRU", "title: LRU\n    title: again", "d.yaml:27:5: RKV151", "'title' twice, first in line 26"),
        ("title: LRU", "titel: LRU", "d.yaml:26:5: RKV152", "did you mean 'title'"),
        ('version: "1.4"', "version: 1.4", "d.yaml:3:10: RKV152", "put it in quotes"),
        ("title: LRU", "title: !!str LRU", "d.yaml:26:12: RKV151", "the tag"),
        ("title: LRU", "title: &name LRU", "d.yaml:26:12: RKV151", "the YAML anchor &name"),
        ("title: LRU", "title: *name", "d.yaml:26:12: RKV151", "the alias *name"),
        ("title: LRU", 'title: "x', "d.yaml:", "not YAML"),
        ("  - id: lru", "  - id: lru\n    <<: {title: x}", "d.yaml:26:5: RKV152", "unknown key '<<'"),
        ("adapters:", "---\nadapters:", "d.yaml:34:1: RKV151", "a second document"),
        ("schema: res", "%YAML 1.1\n---\nschema: res", "d.yaml:1:1: RKV151", "%-directive"),
        ("residentkv.descriptor/1", "residentkv.descriptor/2", "d.yaml:1:9: RKV152", "residentkv.descriptor/2"),
        ("kind: source", "kind: sauce", "d.yaml:30:69: RKV152", "did you mean 'source'"),
        ("mode: hard_protected", "mode: hard_protection", "d.yaml:32:16: RKV152", "did you mean 'hard_protected'"),
        ("obligation: victim_exclusion", "obligation: victim_exclusions", "d.yaml:30:22: RKV152", "'victim_exclusion'"),
        ("depth: observe", "depth: observed", "d.yaml:37:12: RKV152", "did you mean 'observe'"),
        ("depth: observe", "depth: native", "d.yaml:35:5: RKV153", "expected observe or deeper"),
        ("anchor: evict, note", "anchor: evicts, note", "d.yaml:30:85: RKV153", "unknown anchor 'evicts'"),
        ("where: [evict]", "where: [evit]", "d.yaml:28:13: RKV153", "unknown anchor 'evit'"),
        ("where: [evict]", "where: []", "d.yaml:28:12: RKV152", "length >= 1"),
        ("related: [evict]", "related: [page, nope]", "d.yaml:33:45: RKV153", "unknown anchor 'nope'"),
        ("primitive: lru", "primitive: lur", "d.yaml:38:16: RKV153", "did you mean 'lru'"),
        ("id: plugin", "id: watcher", "d.yaml:43:9: RKV153", "the adapter 'watcher' twice, first in line 35"),
        ("mode: best_effort", "mode: hard_protected", "d.yaml:33:16: RKV153", "first in line 32"),
        ("kind: trace", "kind: source", "d.yaml:40:64: RKV153", "can carry only trace, experiment"),
        ("kind: source", "kind: trace", "d.yaml:30:69: RKV153", "can carry only source, test, doc"),
        ("note: oldest", "modes: [best_effort], note: oldest", "d.yaml:30:99: RKV153", "does not ask for"),
        ("note: told", "depths: [observe], note: told", "d.yaml:40:92: RKV153", "only with contradicts"),
        ('versions: ">=1.4,<1.5"', 'versions: "about 1.4"', "d.yaml:5:38: RKV153", "expected a version specifier"),
        ("package: somertime\n", "package: other\n", "d.yaml:8:5: RKV153", "version is missing"),
        ("file: somertime/pool.py", "file: ../pool.py", "d.yaml:10:11: RKV152", "relative, without . or .."),
        ("file: somertime/pool.py", "file: /etc/passwd", "d.yaml:10:11: RKV152", "file"),
        ("file: somertime/pool.py", "file: somertime/pool.rs", "d.yaml:11:13: RKV153", "not Python"),
        ("symbol: Pool.evict\n", "lines: 9-3\n", "d.yaml:11:12: RKV153", "expected first-last"),
        ("    symbol: Pool.evict\n", "", "d.yaml:8:5: RKV153", "no symbol and no lines"),
        ("type: package", "type: pakage", "d.yaml:8:11: RKV152", "pakage"),
        ("    type: package\n", "", "d.yaml:8:5: RKV152", "no type"),
        (f'evict\n    sha256: "{SHA}"\n', "evict\n", "d.yaml:8:5: RKV153", "residentkv anchors add"),
        (QUOTE, "Blocks are kept for ever.", "d.yaml:18:13: RKV153", "the quote has sha256"),
        ('"0-20"', '"20-0"', "d.yaml:22:13: RKV153", "expected first-last"),
        ('"0-20"', '"0-999999999999"', "d.yaml:22:13: RKV153", "at most 100000"),
        ("id: lru", 'id: "lru\\n"', "d.yaml:25:9: RKV152", "control character"),
        ("primitives:\n  - id: lru", "primitives: []\nx:\n  - id: lru", "d.yaml:24:13: RKV152", "length >= 1"),
    ],
)  # fmt: skip
def test_an_error_says_where_what_and_what_next(old, new, where, what):
    """One line with path, line, column and code."""
    assert old in GOOD
    with pytest.raises(InputError) as error:
        decode(GOOD.replace(old, new, 1))
    message = str(error.value)
    assert message.startswith(where), message
    assert what in message
    assert "\n" not in message
    assert error.value.exit_code == EXIT_UNKNOWN


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"# nothing\n", b"- 1\n", b"text", b"\xff\xfe", b"\xef\xbb\xbfa: b", b"a: \x00"),
        *(b"a: [", b"? [1]\n: 2", b"1: 2", b"{" * 500),
    ],
)
def test_bytes_that_are_no_descriptor_are_refused(raw):
    """Empty, binary, not a mapping, not UTF-8, nested without end."""
    with pytest.raises(InputError, match=r"d\.yaml"):
        decode_descriptor(raw, "d.yaml")


def test_plain_words_of_old_yaml_stay_words():
    """`no` is a word and not false: YAML 1.2."""
    assert decode(GOOD.replace("title: LRU", "title: no")).primitives[0].title == "no"


def test_prose_may_hold_control_characters_and_is_kept_as_written():
    """They are escaped when shown, not when read."""
    descriptor = decode(GOOD.replace("title: LRU", 'title: "L\\e[31mRU"'))
    assert descriptor.primitives[0].title == "L\x1b[31mRU"


WORDS = st.sampled_from(sorted({w for w in GOOD.replace("\n", " \n ").split(" ") if w}))


@given(st.one_of(st.binary(max_size=400), st.text(max_size=300).map(lambda t: t.encode("utf-8", "surrogatepass"))))
@example(b"a: 0x" + b"f" * 30)
@example(b"a: " + b"9" * 5000)
@example(b"!<tag:x> a: b")
@example(b"--- |\n x\n...\n")
def test_any_bytes_are_a_descriptor_or_an_input_error(raw):
    """Nothing else comes out of the reader."""
    try:
        decode_descriptor(raw, "d.yaml")
    except InputError:
        return


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 12), st.one_of(WORDS, st.text(max_size=6)))
def test_a_descriptor_with_a_part_replaced_is_a_descriptor_or_an_input_error(at, length, text):
    """Near misses: most of the file is right."""
    raw = (GOOD[:at] + text + GOOD[at + length :]).encode("utf-8", "surrogatepass")
    try:
        decode_descriptor(raw, "d.yaml")
    except InputError:
        return


def test_the_published_schema_is_the_one_that_the_structs_give():
    """`make gen` leaves no diff; in a wheel the file is not there and the command prints it."""
    from residentkv.cli.schema import schema_text

    path = Path(__file__).parents[2] / "schemas" / "descriptor.schema.json"
    assert path.read_text() == schema_text("descriptor")


def test_the_schema_requires_a_digest_and_forbids_unknown_keys():
    """What the reader refuses, an editor with the schema refuses too."""
    schema = json.loads(json.dumps(descriptor_schema()))
    for name, definition in schema["$defs"].items():
        assert "enum" in definition or definition["additionalProperties"] is False, name
        if name.endswith("Anchor"):
            assert "sha256" in definition["required"]


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_shipped_descriptor_reads_the_same_with_another_yaml_reader(path):
    """Ours agrees with PyYAML on shipped files, so other tools see what the checker sees."""
    entry = yaml.safe_load(path.read_text())
    found = decode_descriptor(path.read_bytes(), path.name)
    assert sorted(entry["anchors"]) == sorted(found.anchors)
    assert [p["id"] for p in entry["primitives"]] == [p.id for p in found.primitives]
    for name, anchor in found.anchors.items():
        if isinstance(anchor, PackageAnchor):
            assert entry["anchors"][name].get("symbol") == anchor.symbol


def test_the_library_is_not_empty():
    """The tests over shipped files have something to test."""
    assert load_library()
