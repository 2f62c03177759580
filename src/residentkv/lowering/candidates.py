"""Symbols whose names sound like a promise, and the descriptor skeleton that lists them for a person to judge. Pure.

A name proves nothing: the skeleton has no evidence, so every row of it is unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from residentkv.claims.modes import Mode
from residentkv.lowering.edit import Value
from residentkv.lowering.text import symbol_spans, uncertain_name

WORDS: Mapping[str, tuple[frozenset[str], tuple[Mode, ...]]] = {
    "retention": (
        frozenset({"retain", "retained", "retention", "retaining"}),
        (Mode.SOFT_PRIORITY, Mode.EXPIRING, Mode.HARD_PROTECTED),
    ),
    "ttl": (frozenset({"ttl", "expire", "expires", "expiry", "expired", "expiration"}), (Mode.EXPIRING,)),
    "pin": (frozenset({"pin", "pins", "pinned", "unpin"}), (Mode.DEMOTABLE, Mode.HARD_PROTECTED)),
    "priority": (
        frozenset({"priority", "priorities", "prioritized", "prioritised"}),
        (Mode.SOFT_PRIORITY, Mode.HARD_PROTECTED),
    ),
    "offload": (
        frozenset({"offload", "offloads", "offloaded", "offloading", "offloader"}),
        (Mode.OFFLOADABLE,),
    ),
    "lease": (frozenset({"lease", "leases", "leased"}), (Mode.EXPIRING, Mode.DEMOTABLE)),
}
"""What a name can sound like: the words that say so, and the modes that it could be mistaken for."""

_ABOUT_CACHES = frozenset(
    {"kv", "cache", "caches", "block", "blocks", "radix", "prefix", "evict", "eviction", "tier", "tiering"}
)
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_ANY = re.compile("|".join(sorted({w for words, _ in WORDS.values() for w in words})).encode(), re.IGNORECASE)
_UNFIT = re.compile(r"[^a-z0-9_.-]+")


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """One symbol that sounds like `word`."""

    word: str
    file: str
    symbol: str


def words_of(symbol: str) -> set[str]:
    """Return what the last part of a dotted symbol sounds like: `BlockPool.set_ttl` sounds like ttl."""
    parts = {p.lower() for p in _PART.findall(symbol.rsplit(".", 1)[-1])}
    return {word for word, (sounds, _) in WORDS.items() if parts & sounds}


def find_candidates(file: str, source: bytes) -> Iterator[Candidate]:
    """Yield the candidates of one Python file; a symbol that is bound more than once cannot be an anchor.

    Raises:
        SyntaxError, ValueError, RecursionError: the file cannot be parsed.
    """
    if not _ANY.search(source):
        return
    symbols = symbol_spans(source)
    for symbol in symbols:
        if uncertain_name(symbols, symbol) is None:
            yield from (Candidate(word, file, symbol) for word in words_of(symbol))


def pick_candidates(found: Iterable[Candidate], limit: int) -> tuple[dict[str, list[Candidate]], int]:
    """Return at most `limit` candidates a word, each name once, and how many were left out.

    Files that deal with a cache come first; then shorter names, since the thing itself has a shorter name than what
    uses it.
    """
    by_word: dict[str, dict[str, Candidate]] = {}
    every = sorted(set(found), key=_rank)
    for candidate in every:
        by_word.setdefault(candidate.word, {}).setdefault(candidate.symbol, candidate)
    picked = {word: list(by_word[word].values())[:limit] for word in WORDS if word in by_word}
    return picked, len(every) - sum(map(len, picked.values()))


def _rank(candidate: Candidate) -> tuple[bool, int, int, str, str]:
    text = f"{candidate.file}/{candidate.symbol}"
    parts = {p.lower() for p in _PART.findall(text)}
    return (
        not parts & _ABOUT_CACHES,
        candidate.symbol.count("."),
        len(candidate.symbol),
        candidate.file,
        candidate.symbol,
    )


def anchor_names(candidates: Mapping[str, Sequence[Candidate]]) -> dict[Candidate, str]:
    """Return an id for each candidate, unique and stable."""
    names: dict[Candidate, str] = {}
    for candidate in (c for group in candidates.values() for c in group):
        base = _UNFIT.sub("-", candidate.symbol.lower()).strip("-._")[:60] or "symbol"
        name, count = base, 2
        while name in names.values():
            name, count = f"{base}-{count}", count + 1
        names[candidate] = name
    return names


def render_skeleton(
    runtime: str,
    distribution: str,
    version: str,
    candidates: Mapping[str, Sequence[Candidate]],
    pinned: Mapping[Candidate, Mapping[str, Value]],
    names: Mapping[Candidate, str],
    notes: Sequence[str],
) -> str:
    """Return the descriptor as text.

    Args:
        runtime: id of the runtime.
        distribution: the package, as it is published.
        version: its version.
        candidates: by word; every word is a primitive of the skeleton.
        pinned: digest, lines and provenance of each candidate.
        names: id of each candidate's anchor.
        notes: sentences for whoever judges, as comments.
    """
    out = [
        f"# Skeleton for {distribution} {version}, from names only. Nobody has judged it: every row is unknown.",
        "# For each anchor, read the code and say in `evidence` what it does and what it does not; delete what is only",
        "# a name. docs/write-a-descriptor.md tells how. Contradictions are worth as much as supports.",
        *(f"# {line}" for line in notes),
        "schema: residentkv.descriptor/1",
        f"runtime: {runtime}",
        f"version: {_text(version)}",
        f"title: {_text(f'{distribution} {version}, not judged')}",
        "package:",
        f"  name: {_text(distribution)}",
        f"  versions: {_text(f'=={version}')}",
        "",
        "anchors:",
    ]
    for candidate in (c for group in candidates.values() for c in group):
        out += [f"  {names[candidate]}:", "    type: package", f"    package: {_text(distribution)}"]
        out += [f"    file: {_text(candidate.file)}", f"    symbol: {candidate.symbol}"]
        out += [f"    {key}: {_value(value)}" for key, value in pinned[candidate].items()]
    out += ["", "primitives:"]
    for word, group in candidates.items():
        out += [
            f"  - id: {word}",
            f"    title: {_text(f'What is called {word}')}",
            f"    summary: {_text('Found by name. Say what it does: who decides, who may take it back, who is told.')}",
            f"    where: [{', '.join(names[c] for c in group)}]",
            "    evidence: []",
            "    rows:",
            *(f"      - {{mode: {mode}}}" for mode in WORDS[word][1]),
        ]
    return "\n".join(out) + "\n"


def _value(value: Value) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(text)}" for key, text in value.items()) + "}"
    return _text(value)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
