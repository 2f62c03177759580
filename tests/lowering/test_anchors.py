"""Anchor states: what was read in this run decides, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from residentkv.lowering.anchors import (
    AnchorReport,
    AnchorState,
    AnchorVerifier,
    PackageCopy,
    Scope,
    TargetAbsentError,
    TargetUnreadableError,
)
from residentkv.lowering.format import Anchor, DocumentAnchor, GitAnchor, PackageAnchor, TraceAnchor
from residentkv.lowering.text import digest_lines, digest_quote, symbol_spans
from tests.lowering.site import POOL

SCOPE = Scope("d.yaml", "somertime", ("somertime", "somertime-cpu"), ">=1.4,<1.5")
LINES = POOL.splitlines()
((FIRST, LAST),) = symbol_spans(POOL.encode())["Pool.evict"]
EVICT = PackageAnchor(
    package="somertime",
    file="somertime/pool.py",
    symbol="Pool.evict",
    lines=f"{FIRST}-{LAST}",
    sha256=digest_lines(LINES[FIRST - 1 : LAST]),
)
LIMIT = PackageAnchor(package="somertime", file="somertime/pool.py", lines="3-3", sha256=digest_lines([LINES[2]]))


@dataclass
class Copy:
    """A copy in memory."""

    content: str | None = POOL
    version: str = "1.4.2"
    distribution: str = "somertime-cpu"
    place: str = "here"

    def read(self, file: str) -> bytes:
        if file != "somertime/pool.py":
            raise TargetAbsentError(f"{file} is not there")
        if self.content is None:
            raise TargetUnreadableError("the disk failed")
        return self.content.encode("utf-8", "surrogateescape")

    def files(self) -> Iterator[str]:
        yield "somertime/pool.py"


@dataclass
class Memory:
    """Sources in memory."""

    copies: list[Copy] = field(default_factory=lambda: [Copy()])
    git: bytes = POOL.encode()
    text: str = ""
    trace: bytes = b"{}\n"

    def package_copies(self, names: Sequence[str]) -> Sequence[PackageCopy]:
        return [c for c in self.copies if c.distribution in names]

    def git_file(self, repository: str, commit: str, file: str) -> bytes:
        return self.git

    def document_text(self, url: str) -> str:
        if not self.text:
            raise TargetUnreadableError("not given")
        return self.text

    def trace_bytes(self, descriptor: str, file: str) -> bytes:
        return self.trace


def verify(anchor: Anchor, *copies: Copy) -> AnchorReport:
    return AnchorVerifier(Memory(list(copies))).verify("a", anchor, SCOPE)


@pytest.mark.parametrize("anchor", [EVICT, LIMIT])
def test_the_same_text_is_verified(anchor):
    """Symbol and line anchors; the report says which version was read."""
    report = verify(anchor, Copy())
    assert (report.state, report.version, report.distribution) == (AnchorState.VERIFIED, "1.4.2", "somertime-cpu")


def test_a_symbol_that_moved_down_is_verified_with_a_warning():
    """Same text elsewhere in the same file."""
    report = verify(EVICT, Copy("# one more line\n" + POOL))
    assert report.state is AnchorState.MOVED
    assert report.state.is_verified
    assert f"lines {FIRST + 1}-{LAST + 1} instead of {FIRST}-{LAST}" in report.sentence


def test_lines_that_moved_are_found_when_they_are_in_one_place():
    """Twice the same text is no address."""
    assert verify(LIMIT, Copy("\n\n" + POOL)).state is AnchorState.MOVED
    assert verify(LIMIT, Copy("LIMIT = 7\n\n\n\n" + POOL)).state is AnchorState.CHANGED


def test_lines_are_not_looked_for_where_that_takes_too_long():
    """4,000 lines at 4,000 places: they count as changed, and the sentence says so."""
    lines = [f"x{n} = 1" for n in range(8_000)]
    anchor = msgspec.structs.replace(LIMIT, lines="1-4000", sha256=digest_lines(lines[1:4001]))
    report = verify(anchor, Copy("\n".join(lines)))
    assert report.state is AnchorState.CHANGED
    assert "not looked for elsewhere" in report.sentence
    fewer = msgspec.structs.replace(LIMIT, lines="1-40", sha256=digest_lines(lines[1:41]))
    assert verify(fewer, Copy("\n".join(lines))).state is AnchorState.MOVED


def test_a_method_that_moved_to_another_class_with_the_same_text_is_moved():
    """The symbol is gone, its text is not; a class that is bound twice is not where it went."""
    lake = POOL.replace("class Pool", "class Lake")
    report = verify(EVICT, Copy(lake))
    assert report.state is AnchorState.MOVED
    assert "Pool.evict is gone" in report.sentence
    assert verify(EVICT, Copy(f"{lake}\nLake = object\n")).state is AnchorState.ABSENT


def test_an_old_text_kept_under_another_name_does_not_excuse_a_changed_symbol():
    """The symbol is what the descriptor speaks about."""
    old = "\n".join(LINES[FIRST - 1 : LAST]).replace("evict", "evict_old")
    changed = POOL.replace("min(self.blocks)", "max(self.blocks)") + f"\n\nclass Old:\n{old}\n"
    assert verify(EVICT, Copy(changed)).state is AnchorState.CHANGED


def test_a_vanished_symbol_is_absent():
    """With other text there is nothing to find."""
    report = verify(EVICT, Copy(POOL.replace("def evict", "def drop")))
    assert report.state is AnchorState.ABSENT
    assert "has no Pool.evict" in report.sentence


def test_a_file_that_is_too_short_is_absent():
    """Lines beyond the end."""
    assert verify(LIMIT, Copy("x = 1\n")).state is AnchorState.ABSENT


def test_a_missing_file_is_absent():
    """The package is there, the file is not."""
    gone = msgspec.structs.replace(EVICT, file="somertime/gone.py")
    assert verify(gone, Copy()).state is AnchorState.ABSENT


def test_a_symbol_that_is_defined_twice_is_not_verified():
    """Also when one of the definitions has the anchored text."""
    report = verify(EVICT, Copy(POOL + "\n\nclass Pool:\n    def evict(self): ...\n"))
    assert report.state is AnchorState.CHANGED
    assert "Pool.evict is defined 2 times" in report.sentence
    report = verify(EVICT, Copy(POOL + "\n\nPool = object\n"))
    assert report.state is AnchorState.CHANGED
    assert "Pool is defined 2 times" in report.sentence


@pytest.mark.parametrize("content", [None, "def broken(:\n", "\udcff\udcfe"])
def test_what_cannot_be_read_or_parsed_is_unreadable(content):
    """An I/O error, no Python, no UTF-8."""
    assert verify(EVICT, Copy(content)).state is AnchorState.UNREADABLE


def test_no_copy_is_unreadable_and_says_what_to_do():
    """Core-only machines get this for every anchor."""
    report = verify(EVICT)
    assert report.state is AnchorState.UNREADABLE
    assert report.state.is_unreached
    assert "run 'residentkv anchors fetch somertime==VERSION'" in report.sentence


def test_another_version_is_out_of_range_although_the_text_is_the_same():
    """Bad lowering: an anchor to another version."""
    report = verify(EVICT, Copy(version="1.5.0"))
    assert report.state is AnchorState.OUT_OF_VERSION_RANGE
    assert "found somertime-cpu 1.5.0, expected version >=1.4,<1.5" in report.sentence


def test_an_anchor_with_its_own_version_must_fit_the_descriptor_too():
    """Bad lowering: the anchor names the other version itself, and a copy of that version is at hand."""
    other = msgspec.structs.replace(EVICT, version="==1.3.0")
    assert verify(other, Copy(version="1.3.0")).state is AnchorState.OUT_OF_VERSION_RANGE
    assert verify(other, Copy(version="1.4.2")).state is AnchorState.OUT_OF_VERSION_RANGE


def test_a_version_that_cannot_be_read_is_out_of_range():
    """Not a guess."""
    assert verify(EVICT, Copy(version="latest")).state is AnchorState.OUT_OF_VERSION_RANGE


def test_a_local_build_of_the_version_is_in_range():
    """1.4.2+cpu is 1.4.2."""
    assert verify(EVICT, Copy(version="1.4.2+cpu")).state is AnchorState.VERIFIED


@pytest.mark.parametrize("order", [1, -1])
def test_all_copies_in_range_must_agree(order):
    """A pristine archive does not excuse an edited installation; copies out of range do not take part."""
    edited = Copy(POOL.replace("min(", "max("), place="edited")
    report = verify(EVICT, *[Copy(), edited, Copy("x", version="2.0")][::order])
    assert (report.state, report.place) == (AnchorState.CHANGED, "edited")


def test_a_package_of_another_distribution_is_not_taken_for_it():
    """Only the names that the descriptor gives count."""
    assert verify(EVICT, Copy(distribution="somertime-fork")).state is AnchorState.UNREADABLE


@given(st.integers(0, len(POOL) - 1), st.characters(min_codepoint=33, max_codepoint=126))
def test_one_changed_byte_is_seen_exactly_when_it_lies_in_the_anchored_text(at, letter):
    """Anywhere else in the file it may make the file unreadable as Python, but never verifies a changed text."""
    if POOL[at] == letter or POOL[at] == "\n":
        return
    content = POOL[:at] + letter + POOL[at + 1 :]
    inside = FIRST <= POOL.count("\n", 0, at) + 1 <= LAST
    report = verify(EVICT, Copy(content))
    if inside:
        assert not report.state.is_verified
    elif report.state.is_verified:
        assert digest_lines(content.splitlines()[FIRST - 1 : LAST]) == EVICT.sha256


def test_git_anchors_compare_the_text_at_the_commit():
    """The same rules for text, without a version."""
    anchor = GitAnchor(
        repository="example.org/some/rtime", commit="0" * 40, file="somertime/pool.py", lines="3-3", sha256=LIMIT.sha256
    )
    verifier = AnchorVerifier(Memory())
    assert verifier.verify("a", anchor, SCOPE).state is AnchorState.VERIFIED
    other = AnchorVerifier(Memory(git=b"x\n"))
    assert other.verify("a", anchor, SCOPE).state is AnchorState.ABSENT


def test_a_quote_alone_proves_nothing():
    """The digest of the quote is right; without the text of the document the anchor is unreadable."""
    quote = "Blocks are kept."
    anchor = DocumentAnchor(
        url="https://example.org/p", retrieved="2026-01-05", quote=quote, sha256=digest_quote(quote)
    )
    assert AnchorVerifier(Memory()).verify("a", anchor, SCOPE).state is AnchorState.UNREADABLE
    there = AnchorVerifier(Memory(text="It says: Blocks are\n  kept. Really."))
    assert there.verify("a", anchor, SCOPE).state is AnchorState.VERIFIED
    gone = AnchorVerifier(Memory(text="Blocks are not kept."))
    assert gone.verify("a", anchor, SCOPE).state is AnchorState.CHANGED


def test_a_trace_with_another_digest_is_changed():
    """Traces are files; what is in them is for the audit."""
    anchor = TraceAnchor(file="t.jsonl", events=[], sha256="0" * 64)
    assert AnchorVerifier(Memory()).verify("a", anchor, SCOPE).state is AnchorState.CHANGED
