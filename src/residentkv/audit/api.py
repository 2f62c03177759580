"""From chunks of events, or a file, to a report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import msgspec

from residentkv.audit.closing import close_source
from residentkv.audit.gates import judge_gates
from residentkv.audit.merge import Partial, report_of
from residentkv.audit.model import AuditReport, Profile
from residentkv.audit.step import Stepper
from residentkv.errors import InputError
from residentkv.trace.events import Event


def audit_part(chunks: Iterable[Sequence[Event]]) -> Partial:
    """Audit some sources of a trace; parts merge with `merge_partials` in any order.

    An `InputError` raised while iterating ends the part: it becomes a finding, and what was read before stands.
    """
    stepper = Stepper()
    unreadable: tuple[tuple[str, str], ...] = ()
    try:
        for chunk in chunks:
            stepper.feed(chunk)
    except InputError as e:
        unreadable = ((e.code, str(e)),)
    return Partial(sources=tuple(close_source(s) for s in stepper.states.values()), unreadable=unreadable)


def audit_events(chunks: Iterable[Sequence[Event]], *, path: str = "", sha256: str = "") -> AuditReport:
    """Audit events in chunks, such as `residentkv.trace.reader.read_trace` yields them.

    Args:
        chunks: sequences of events in the order of the file; memory does not grow with their number.
        path: how the trace is named in the report.
        sha256: digest of the stored bytes, hex; empty when there are none.

    Returns:
        The report; nothing that a trace can contain raises.
    """
    return report_of(audit_part(chunks), path=path, sha256=sha256)


def audit_file(path: str | os.PathLike[str], profile: Profile = Profile.SPEC) -> AuditReport:
    """Read and audit one trace file, native or in the published format.

    Raises:
        NoInputError: the file does not exist or cannot be opened.
    """
    from residentkv.trace.reader import TraceDigest, read_any

    name = os.fspath(path)
    digest = TraceDigest()
    chunks = read_any(name, digest=digest)
    if profile is Profile.PUBLISHED:
        report = judge_gates(chunks, path=name)
        return msgspec.structs.replace(report, sha256=digest.sha256 or "")
    part = audit_part(chunks)
    return report_of(part, path=name, sha256=digest.sha256 or "")
