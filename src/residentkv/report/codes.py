"""The codes of what can be wrong with a statement about a report."""

from __future__ import annotations

from typing import Final, NamedTuple


class StatementRule(NamedTuple):
    """One thing that keeps a statement from being believed; `is_violation` when it is shown to be wrong."""

    code: str
    slug: str
    title: str
    checks: str
    why: str
    next_step: str
    is_violation: bool = True


NOT_A_STATEMENT: Final = StatementRule(
    "RKV401",
    "not-a-statement",
    "The file is no in-toto Statement v1 with our predicate, nor an envelope with one",
    "type, predicate type, that there are subjects with digests, and that the report is about these subjects",
    "what is not understood is not verified",
    "write it with --format in-toto",
    is_violation=False,
)
SIGNATURE: Final = StatementRule(
    "RKV402",
    "signature-not-verified",
    "No given key made a signature over this statement",
    "the signatures of the envelope against the given public keys",
    "anybody could have written the statement",
    "ask whoever signed it for the public key",
)
SUBJECT_CHANGED: Final = StatementRule(
    "RKV403",
    "subject-changed",
    "A file that the statement is about has other bytes now",
    "sha256 of every subject, read now",
    "the verdicts are about other bytes",
    "get the file that was judged, or judge this one",
)
VERDICT_DIFFERS: Final = StatementRule(
    "RKV404",
    "verdict-differs",
    "A trace that the statement is about is judged differently in this run",
    "the verdicts, the claims and the rules that were found, for every trace of an audit, by auditing it again",
    "the statement says something that its own evidence does not show",
    "compare the two reports; the rules of another version of residentkv may differ",
)

STATEMENT_RULES: Final = (NOT_A_STATEMENT, SIGNATURE, SUBJECT_CHANGED, VERDICT_DIFFERS)
