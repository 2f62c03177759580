"""Importer for the published trace format: each of its lines becomes exactly one of our events, or stops the import."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, NoReturn

import msgspec

from residentkv.errors import InputError
from residentkv.trace.codes import (
    MALFORMED,
    MISSING_FIELD,
    MIXED_FORMATS,
    UNKNOWN_EVENT,
    UNKNOWN_FIELD,
    UNKNOWN_SCHEMA,
    WRONG_VALUE,
    InputRule,
)
from residentkv.trace.events import AnyEvent, Event, RuntimeEvent
from residentkv.trace.published_fields import FIELDS
from residentkv.trace.published_map import (
    COMMON,
    ENVELOPE,
    EVENTS,
    FIXED_OWNER,
    Derived,
    EventMapping,
    Fixed,
    Maybe,
    Meaning,
    Origin,
    Take,
)
from residentkv.trace.scan import Member, line_error, scan_line

Record = dict[str, Any]

_MODES: Final = {"offloadable_reference": "offloadable", "hard_exclude": "hard_protected"}
_DIRECTIONS: Final = {("GPU", "CPU"): "store", ("CPU", "GPU"): "load"}
_LEADING: Final = "leading_prefix_at_least("


def is_published_line(line: bytes) -> bool:
    """Tell whether a line is of the published format: it has `event_sequence`, and no `schema`."""
    try:
        members = scan_line(line)
    except InputError:
        return False
    return "event_sequence" in members and "schema" not in members


class PublishedDecoder:
    """Decode the lines of one published trace, in order.

    It remembers, for the whole file, which clock the format variant has; for each claim, what may not change; for each
    request, what its block size can be; and for each job, its direction. Nothing remembered ever fills in what a later
    event leaves out, with one exception: the block size, which turns the hit of a lookup into positions.
    """

    def __init__(self, path: str = "-") -> None:
        self._path = path
        self._has_monotonic_clock: bool | None = None
        self._fixed: dict[tuple[str, str], object] = {}
        self._block_sizes: dict[str, int] = {}
        self._job_directions: dict[int, str] = {}

    def decode_chunk(self, chunk: bytes, lines_before: int = 0) -> tuple[list[AnyEvent], InputError | None]:
        """Decode whole lines, up to the first that is wrong; as `codec.decode_chunk`."""
        events: list[AnyEvent] = []
        for line in chunk.split(b"\n")[:-1]:
            try:
                events.append(self.decode_line(line, line_number=lines_before + len(events) + 1))
            except InputError as e:
                return events, e
        return events, None

    def decode_line(self, line: bytes, *, line_number: int = 1) -> AnyEvent:
        """Decode one line, given without its line end.

        Raises:
            InputError: RKV101 to RKV107, RKV109 or RKV113, with line and column.
        """
        members = scan_line(line, path=self._path, line_number=line_number)
        return _Line(self, line, members, self._path, line_number).event()

    def same_clock(self, has_monotonic_clock: bool) -> bool:
        """Tell whether the line is of the same variant of the format as the first."""
        if self._has_monotonic_clock is None:
            self._has_monotonic_clock = has_monotonic_clock
        return self._has_monotonic_clock is has_monotonic_clock

    def fixed(self, claim_id: str, field: str, value: object) -> object:
        """Return what the field was at the first event of the claim that had it."""
        return self._fixed.setdefault((claim_id, field), value)

    def direction(self, job_id: int, direction: str) -> str:
        """Return the direction that the job had when it was first named."""
        return self._job_directions.setdefault(job_id, direction)

    def learn_block_size(self, request_id: str, tokens: int, hashes: int) -> None:
        """Note the block size when exactly one is possible: `hashes` is how many whole blocks `tokens` fill."""
        if hashes < 1 or tokens < hashes:
            return
        largest = tokens // hashes
        smallest = tokens // (hashes + 1) + 1
        if smallest == largest:
            self._block_sizes[request_id] = largest

    def block_size(self, request_id: str) -> int | None:
        """Return the block size, in tokens, that the request was seen with."""
        return self._block_sizes.get(request_id)


class _Line:
    """One line on its way to an event."""

    def __init__(
        self, decoder: PublishedDecoder, line: bytes, members: dict[str, Member], path: str, line_number: int
    ) -> None:
        self.decoder = decoder
        self.line = line
        self.members = members
        self.path = path
        self.line_number = line_number
        self.name = "?"
        self.record: Record = {}

    def stop(self, rule: InputRule, field: str | None, message: str, *, at_key: bool = False) -> NoReturn:
        """Raise at the place of a field, or at the end of the line."""
        member = self.members.get(field) if field is not None else None
        if member is None:
            offset = len(self.line.rstrip()) - 1
        else:
            offset = member.key_start if at_key else member.value_start
        raise line_error(rule, self.line, offset, message, path=self.path, line_number=self.line_number)

    def event(self) -> AnyEvent:
        mapping = self._read()
        self._check()
        values: Record = {name: self._value(origin) for name, origin in ENVELOPE.items()}
        kind, origins = mapping.kind, mapping.origins
        broken = self._broken_meaning(mapping.means)
        if broken is not None:
            kind = RuntimeEvent
            origins = {
                "name": Fixed(f"{self.name}:{broken}", "what it is not"),
                "request_id": Maybe(("request_id",), None),
                "job_id": Maybe(("job_id",), None),
            }
        values |= {name: self._value(origin) for name, origin in origins.items()}
        return self._build(kind, values, origins)

    def _read(self) -> EventMapping:
        """Check names and types of all fields, and return what the event becomes."""
        if "schema" in self.members:
            self.stop(
                MIXED_FORMATS,
                "schema",
                "a residentkv event: found 'schema', expected a line of the published format as before; "
                "one file holds one format",
                at_key=True,
            )
        if "event" not in self.members:
            self.stop(MISSING_FIELD, None, "missing field: found no 'event', expected the name of the event")
        try:
            record = msgspec.json.decode(self.line)
        except (msgspec.MsgspecError, ValueError, RecursionError) as e:
            self.stop(MALFORMED, None, f"malformed JSON: {e}; write this line again")
        if not isinstance(record["event"], str):
            self.stop(WRONG_VALUE, "event", "wrong value of 'event': expected a string; see docs/trace-format.md")
        self.name = record["event"]
        mapping = EVENTS.get(self.name)
        if mapping is None:
            self.stop(
                UNKNOWN_EVENT,
                "event",
                f"unknown event: found {self.name[:60]!r}, expected a published name of docs/trace-format.md; "
                "an event that is not understood is not left out",
            )
        for name, value in record.items():
            field = FIELDS.get(name)
            if field is None or not (name in COMMON or name in mapping.may_have):
                self.stop(
                    UNKNOWN_FIELD,
                    name,
                    f"unknown field {name[:60]!r} of {self.name}: expected the published fields of "
                    "docs/trace-format.md; a field that is not understood is not left out",
                    at_key=True,
                )
            try:
                self.record[name] = msgspec.convert(value, field.type, strict=True)
            except msgspec.ValidationError as e:
                self.stop(WRONG_VALUE, name, f"wrong value of {name!r}: {e}; see docs/trace-format.md")
        return mapping

    def _check(self) -> None:
        """Check what has to agree within the line, and with the lines before it."""
        get = self.record.get
        if "event_sequence" not in self.record:
            self.stop(
                MISSING_FIELD,
                None,
                "missing field: found no 'event_sequence', expected the place of the event in its trace; "
                "without it nothing shows that none is missing",
            )
        if get("schema_version", 1) != 1:
            self.stop(UNKNOWN_SCHEMA, "schema_version", f"unknown schema: found {get('schema_version')}, expected 1")
        if not self.decoder.same_clock("monotonic_ns" in self.record):
            self.stop(
                MIXED_FORMATS,
                "event_sequence",
                "found an event of the other variant of the published format, which numbers its events differently; "
                "expected one variant in one file",
            )
        claim_id, alias = get("claim_id"), get("resident_claim_id")
        if claim_id is not None and alias is not None and claim_id != alias:
            self.stop(WRONG_VALUE, "resident_claim_id", f"found {alias!r}, expected {claim_id!r} as in 'claim_id'")
        claim = self.claim_id_or_none()
        if get("resident_claim") is not None and get("resident_claim") != (claim is not None):
            self.stop(
                WRONG_VALUE if claim else MISSING_FIELD,
                "resident_claim",
                f"found {json.dumps(get('resident_claim'))} and the claim {claim!r}, expected that both or neither "
                "say that there is a claim",
            )
        if claim is not None:
            for name, value in self.record.items():
                if FIELDS[name].fixed_per_claim and self.decoder.fixed(claim, name, value) != value:
                    self.stop(
                        WRONG_VALUE,
                        name,
                        f"{name!r} of claim {claim!r} changed: found {value!r}, expected "
                        f"{self.decoder.fixed(claim, name, value)!r} as before; it has no place in our events, so a "
                        "change of it would be lost",
                    )
        self._check_job()
        ids = get("invalid_block_ids")
        if ids is not None and get("invalid_block_count", len(ids)) != len(ids):
            self.stop(WRONG_VALUE, "invalid_block_count", f"expected {len(ids)}, the length of 'invalid_block_ids'")
        if self.name == "request_initialized" and "num_block_hashes" in self.record:
            self.decoder.learn_block_size(
                get("request_id", ""), get("num_prompt_tokens", 0), self.record["num_block_hashes"]
            )

    def _check_job(self) -> None:
        job_id = self.record.get("job_id")
        if job_id is None:
            return
        stated = {}
        if self.name in ("offload_store_job_created", "offload_load_job_created"):
            stated["event"] = "store" if "store" in self.name else "load"
        if "is_store" in self.record:
            stated["is_store"] = "store" if self.record["is_store"] else "load"
        if "transfer_type" in self.record:
            stated["transfer_type"] = self.direction()
        for field, direction in stated.items():
            first = self.decoder.direction(job_id, direction)
            if first != direction:
                self.stop(
                    WRONG_VALUE, field, f"found that job {job_id} is a {direction}, expected a {first} as said before"
                )

    def _broken_meaning(self, means: dict[str, Meaning]) -> str | None:
        """Return `field=value` of the first flag that makes the event something else than its name says."""
        for field, meaning in means.items():
            if field not in self.record:
                if meaning.stated:
                    return f"{field}=absent"
            elif meaning.value is not ... and self.record[field] != meaning.value:
                return f"{field}={json.dumps(self.record[field])}"
        return None

    def _value(self, origin: Origin) -> Any:
        if isinstance(origin, Fixed):
            return origin.value
        if isinstance(origin, Derived):
            derive: Callable[[], Any] = getattr(self, origin.rule)
            return derive()
        for name in origin.names:
            if self.record.get(name) is not None:
                return self.record[name]
        if isinstance(origin, Take):
            self.missing(*origin.names)
        return origin.otherwise

    def missing(self, *names: str) -> NoReturn:
        """Stop because none of these fields is there."""
        self.stop(
            MISSING_FIELD,
            None,
            f"missing field of {self.name}: found no {' or '.join(map(repr, names))}, expected it on this event; "
            "it is not filled in from other events",
        )

    def _build(self, kind: type[Event], values: Record, origins: dict[str, Origin]) -> AnyEvent:
        values["event"] = str(kind.__struct_config__.tag)
        try:
            event: AnyEvent = msgspec.convert(values, AnyEvent, strict=True)
        except msgspec.ValidationError as e:
            field = next((n for o in origins.values() for n in getattr(o, "names", ()) if n in str(e)), None)
            self.stop(WRONG_VALUE, field, f"wrong value in {self.name}: {e} of the event it becomes")
        return event

    # Rules of `Derived` origins.

    def seq(self) -> int:
        sequence: int = self.record["event_sequence"]
        if "monotonic_ns" in self.record:
            return sequence
        if sequence == 0:
            self.stop(
                WRONG_VALUE, "event_sequence", "found 0, expected 1 or more: events with 'timestamp_ns' count from 1"
            )
        return sequence - 1

    def event_name(self) -> str:
        return self.name

    def claim_id_or_none(self) -> str | None:
        claim_id: str | None = self.record.get("claim_id")
        alias: str | None = self.record.get("resident_claim_id")
        return claim_id if claim_id is not None else alias

    def claim_id(self) -> str:
        claim_id = self.claim_id_or_none()
        if claim_id is None:
            self.missing("claim_id", "resident_claim_id")
        return claim_id

    def owner_or_none(self) -> str | None:
        return None if self.claim_id_or_none() is None else FIXED_OWNER

    def generation(self) -> int | None:
        restoration: int | None = self.record.get("restoration_generation")
        offload: int | None = self.record.get("offload_generation")
        if restoration is not None:
            return restoration
        if offload is not None and self.name == "resident_claim_offloaded" and "monotonic_ns" in self.record:
            return offload + 1
        return offload

    def mode(self) -> str:
        if "protection_mode" not in self.record:
            self.missing("protection_mode")
        mode = _MODES.get(self.record["protection_mode"])
        if mode is None:
            self.stop(
                WRONG_VALUE,
                "protection_mode",
                f"wrong value of 'protection_mode': found {self.record['protection_mode'][:60]!r}, expected one of "
                f"{', '.join(_MODES)}",
            )
        return mode

    def leading_pos(self) -> tuple[tuple[int, int], ...]:
        survived = self.record.get("leading_blocks_survived")
        leading = str(self.record.get("materialization_predicate", "")).startswith(_LEADING)
        return ((0, survived),) if survived and leading else ()

    def hit_pos(self) -> tuple[tuple[int, int], ...]:
        for name in ("num_hit_tokens", "num_computed_tokens"):
            if name not in self.record:
                self.missing(name)
        size = self.decoder.block_size(self.record.get("request_id", ""))
        start, hit = self.record["num_computed_tokens"], self.record["num_hit_tokens"]
        if not hit or size is None or start % size or hit % size:
            return ()
        return ((start // size, (start + hit) // size),)

    def job_ids(self) -> tuple[int, ...]:
        return (self.record["job_id"],) if "job_id" in self.record else ()

    def direction(self) -> str:
        if "transfer_type" not in self.record:
            self.missing("transfer_type")
        direction = _DIRECTIONS.get(self.record["transfer_type"])
        if direction is None:
            self.stop(
                WRONG_VALUE,
                "transfer_type",
                f"wrong value of 'transfer_type': found {list(self.record['transfer_type'])}, expected GPU and CPU",
            )
        return direction
