"""What `anchors add` writes: digest, lines and provenance of the text that stands at an address now."""

from __future__ import annotations

import msgspec

from residentkv.errors import InputError
from residentkv.lowering.anchors import AnchorReport, AnchorVerifier, Scope
from residentkv.lowering.edit import Value
from residentkv.lowering.format import Anchor, DocumentAnchor, PackageAnchor, TraceAnchor
from residentkv.lowering.text import digest_quote

CANNOT_PIN = "RKV155"


def pin_anchor(name: str, anchor: Anchor, scope: Scope, verifier: AnchorVerifier, today: str) -> dict[str, Value]:
    """Return the keys to write for an anchor whose text was read in this run.

    Args:
        name: id of the anchor, for messages.
        anchor: its address; a digest that it may have is ignored.
        scope: the descriptor that it is in.
        verifier: reads the target.
        today: the date to record, YYYY-MM-DD.

    Raises:
        InputError: RKV155, the target could not be read, is ambiguous, or differs between the copies in range.
    """
    if isinstance(anchor, DocumentAnchor):
        return {"sha256": digest_quote(anchor.quote)}
    draft = msgspec.structs.replace(anchor, sha256=msgspec.UNSET)
    reports = verifier.look(name, draft, scope)
    for report in reports:
        if not report.sha256:
            raise InputError(f"anchor {name}: {report.sentence}", path=scope.path, code=CANNOT_PIN)
    digests = sorted({r.sha256 for r in reports})
    if len(digests) > 1:
        where = "; ".join(f"{r.sha256[:12]}.. in {r.place}" for r in reports)
        message = f"anchor {name}: the copies in range differ ({where}); narrow version, or remove the wrong copy"
        raise InputError(message, path=scope.path, code=CANNOT_PIN)
    return _values(anchor, reports[0], today)


def _values(anchor: Anchor, report: AnchorReport, today: str) -> dict[str, Value]:
    values: dict[str, Value] = {}
    if not isinstance(anchor, TraceAnchor):
        values["lines"] = report.lines
    values["sha256"] = report.sha256
    recorded = {"date": today}
    if isinstance(anchor, PackageAnchor):
        recorded |= {"distribution": report.distribution, "version": report.version}
    values["recorded"] = recorded
    return values
