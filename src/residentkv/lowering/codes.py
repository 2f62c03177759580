"""The codes of everything that is said about descriptors, anchors and rows, in one place."""

from __future__ import annotations

from typing import Final, NamedTuple


class RowRule(NamedTuple):
    """One thing that keeps a descriptor, an anchor or a row from being a yes.

    `is_violation` tells whether a finding is a violation; otherwise the answer is unknown.
    """

    code: str
    slug: str
    title: str
    checks: str
    why: str
    next_step: str
    is_violation: bool = False


NOT_YAML: Final = RowRule(
    "RKV151",
    "not-strict-yaml",
    "The file is not one plain YAML document",
    "that the descriptor parses: no duplicate key, alias, tag or second document",
    "two readers could understand different things",
    "correct the line that the message names",
)
SHAPE: Final = RowRule(
    "RKV152",
    "wrong-shape",
    "The descriptor does not have the keys and types of its schema",
    "the file against the schema of descriptors",
    "what is not understood must not be skipped",
    "see 'residentkv schema descriptor'",
)
MEANING: Final = RowRule(
    "RKV153",
    "refers-to-nothing",
    "The descriptor names something that does not exist, or says what cannot be",
    "that ids are unique and exist, and that evidence fits its anchor and its mode",
    "a statement about nothing would silently not count",
    "correct the line that the message names",
)
ANCHOR: Final = RowRule(
    "RKV154",
    "anchor-not-verified",
    "An anchor was read and does not hold the text that was judged",
    "the digest of the normalised text at the anchor",
    "a statement about text that is not there supports nothing",
    "see what changed with 'residentkv anchors diff', judge it, and pin it again with 'residentkv anchors add'",
)
CANNOT_PIN: Final = RowRule(
    "RKV155",
    "cannot-pin",
    "An anchor cannot be given a digest",
    "that the target is readable, unambiguous, and the same in all copies in range",
    "a digest of one of several texts would pin a coincidence",
    "name lines instead of a symbol, or remove the copies that differ",
)
CONTRADICTED: Final = RowRule(
    "RKV160",
    "obligation-contradicted",
    "Verified evidence contradicts an obligation of the mode",
    "every obligation of the mode against all verified statements about it",
    "the primitive does something else than the promise; no other evidence outweighs it",
    "take another primitive or a weaker mode; `--explain` tells who contradicts",
    is_violation=True,
)
NOT_SEEN: Final = RowRule(
    "RKV161",
    "primitive-not-seen",
    "The primitive that was judged could not be seen on this machine",
    "that every anchor of the primitive and its adapters was read and verified in this run",
    "what was judged may not be what is installed",
    "install that version, or name a copy with --site-packages or --archive",
)
NOT_VERIFIED: Final = RowRule(
    "RKV162",
    "evidence-not-verified",
    "Evidence about an obligation exists and could not be verified",
    "that what evidence leans on was read in this run and says the same",
    "evidence that nobody could look at is hearsay",
    "read the anchors with 'residentkv anchors verify', or give the traces again with --evidence",
)
MISSING: Final = RowRule(
    "RKV163",
    "obligation-missing",
    "No evidence that counts shows an obligation of the mode",
    "that every obligation has verified support from a depth that may supply it, dynamic where behaviour is meant",
    "what nobody showed is not promised, however much the primitive resembles it",
    "bring an audited trace with --evidence, or take a mode that asks for less",
)
RESEMBLANCE: Final = RowRule(
    "RKV164",
    "resemblance-changed",
    "What made the row approximate has changed or gone",
    "the anchors that show something like the promise",
    "the primitive may no longer do what it was compared for",
    "see what changed with 'residentkv anchors diff'",
)
WORSE: Final = RowRule(
    "RKV165",
    "verdict-got-worse",
    "A verdict is worse than in the baseline",
    "each row of the baseline against the same row now: native_sound, then sound_with_adapter, then any kind of no",
    "what somebody relied on is no longer shown to hold",
    "read the row with `--explain`; when the change is meant, write the baseline again",
    is_violation=True,
)
BASELINE: Final = RowRule(
    "RKV166",
    "not-a-baseline",
    "The baseline cannot be understood",
    "that the file is a report `residentkv.check/1`, each row once",
    "a baseline that is not understood would let every change pass",
    "write it with 'residentkv check ... --format json -o FILE'",
)

ROW_RULES: Final = (
    NOT_YAML,
    SHAPE,
    MEANING,
    ANCHOR,
    CANNOT_PIN,
    CONTRADICTED,
    NOT_SEEN,
    NOT_VERIFIED,
    MISSING,
    RESEMBLANCE,
    WORSE,
    BASELINE,
)
