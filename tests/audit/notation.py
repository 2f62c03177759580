"""A tiny notation for traces: one line an event, defaults for everything that a test does not care about.

    open
    init r1 c              request r1 of claim c
    accept c r1 mode=offloadable
    store 0 r1 c           job 0: store for request r1 and claim c
    done 0                 worker 0 of 1 finished job 0 well; `fail 1 6-8` with failed positions
    materialize c
    offload c jobs=0
    end r1

Ranges are written `0-8` (half open) and joined by `+`; names are joined by `,`. `verb ... key=value` overrides any
field of the event. A line `@worker0/1` switches the source and epoch; `# ...` is a comment. `trace()` returns event
structs with seq and mono_ns filled in.
"""

from __future__ import annotations

from typing import Any

import msgspec

from residentkv.trace import events as ev

BLOCKS = 8
BLOCK_BYTES = 1000
CLAIM_KEYS = ("mode", "footprint", "predicate", "owner", "object", "tokens", "cache", "policy", "blocks")


def ranges(text: str) -> tuple[tuple[int, int], ...]:
    """Read `0-4+6-8`; `none` is no range."""
    if text in ("none", ""):
        return ()
    out = []
    for part in text.split("+"):
        lo, hi = part.split("-")
        out.append((int(lo), int(hi)))
    return tuple(out)


def names(text: str) -> tuple[str, ...]:
    """Read `a,b`; `none` is no name."""
    return () if text in ("none", "") else tuple(text.split(","))


class Scribe:
    """Turns lines into events; remembers only what saves writing (the identity of a claim, the claim of a job)."""

    def __init__(self, step_ns: int = 1000) -> None:
        self.events: list[ev.Event] = []
        self.place = ("scheduler", 0)
        self.next_seq: dict[tuple[str, int], int] = {}
        self.now_ns = 1_000_000
        self.step_ns = step_ns
        self.claims: dict[str, dict[str, Any]] = {}
        self.jobs: dict[int, dict[str, Any]] = {}
        self.requests: dict[str, dict[str, Any]] = {}

    def write(self, text: str) -> Scribe:
        """Append the events of some lines."""
        for raw in text.splitlines():
            line = raw.split("#")[0].strip()
            if line.startswith("@"):
                source, _, epoch = line[1:].partition("/")
                self.place = (source, int(epoch or 0))
            elif line:
                verb, *rest = line.split()
                plain = [w for w in rest if "=" not in w or w.startswith("'")]
                keys = dict(w.split("=", 1) for w in rest if "=" in w)
                getattr(self, "_" + verb.replace("-", "_"))(*plain, **keys)
        return self

    def _emit(self, kind: type[ev.Event], over: dict[str, str], **fields: Any) -> None:
        source, epoch = self.place
        seq = self.next_seq.get(self.place, 0)
        self.next_seq[self.place] = seq + 1
        self.now_ns += self.step_ns
        values: dict[str, Any] = {
            "schema": 1,
            "run_id": "run",
            "source": source,
            "epoch": epoch,
            "seq": seq,
            "mono_ns": self.now_ns,
            "wall_ns": self.now_ns,
            **fields,
        }
        known = {f.name: f.type for f in msgspec.structs.fields(kind)}
        for key, text in over.items():
            values[key] = self._value(key, text)
        unknown = set(values) - set(known)
        assert not unknown, f"{kind.__name__} has no {unknown}"
        self.events.append(msgspec.convert({**values, "event": kind.__struct_config__.tag}, kind, strict=True))

    def _value(self, key: str, text: str) -> Any:
        if text == "null":
            return None
        if key.endswith("_pos"):
            return ranges(text)
        if key in ("blocking_claim_ids", "clipped_from", "actions", "block_hashes", "stands_in"):
            return names(text)
        if key in ("job_ids", "invalid_block_ids", "block_ids"):
            return tuple(int(x) for x in names(text))
        if key in ("deadline_ns",) and text.startswith("+"):
            return self.now_ns + int(text[1:])
        if key in ("success",):
            return text == "true"
        if key == "ttl_s":
            return float(text)
        try:
            return int(text)
        except ValueError:
            return text

    def _claim(self, claim: str) -> dict[str, Any]:
        c = self.claims.setdefault(claim, {})
        return {
            "claim_id": c.get("claim_id", claim),
            "owner_scope": c.get("owner", "tenant"),
            "object_id": c.get("object", f"object:{claim}"),
            "token_map_id": c.get("tokens", f"tokens:{claim}"),
            "cache_identity": c.get("cache", "cache:1"),
            "predicate": c.get("predicate", f"leading_prefix_at_least({BLOCKS})"),
            "request_id": None,
            "generation": c.get("generation", 0),
        }

    def _claim_event(
        self, kind: type[ev.Event], claim: str, request: str | None, over: dict[str, str], **fields: Any
    ) -> None:
        self._emit(kind, over, **{**self._claim(claim), "request_id": request, **fields})

    def _of(self, claim: str | None) -> dict[str, Any]:
        if claim is None:
            return {"claim_id": None, "owner_scope": None}
        c = self._claim(claim)
        return {"claim_id": c["claim_id"], "owner_scope": c["owner_scope"]}

    # --- envelope

    def _open(self, **over: str) -> None:
        self._emit(
            ev.TraceOpened,
            over,
            runtime="reference",
            runtime_version="1",
            primitive="claims",
            adapter=None,
            adapter_version=None,
            depth="native",
            stands_in=(),
        )

    def _close(self, **over: str) -> None:
        self._emit(ev.TraceClosed, over, reason="end")

    def _note(self, name: str = "tick", **over: str) -> None:
        self._emit(ev.RuntimeEvent, over, name=name, request_id=None, job_id=None)

    def _counter(self, name: str = "failures", **over: str) -> None:
        self._emit(ev.GenericCounter, over, name=name, value=1)

    def _skip(self, count: str = "1") -> None:
        """Leave a gap in seq."""
        self.next_seq[self.place] = self.next_seq.get(self.place, 0) + int(count)

    def _back(self, count: str = "1") -> None:
        """Count again from an earlier number."""
        self.next_seq[self.place] -= int(count)

    def _wait(self, ns: str) -> None:
        """Let time pass; a negative number turns the clock back."""
        self.now_ns += int(ns)

    # --- requests

    def _init(self, request: str, claim: str | None = None, **over: str) -> None:
        self.requests[request] = {"claim": claim}
        self._emit(ev.RequestInitialized, over, request_id=request, **self._of(claim), prompt_tokens=BLOCKS * 16)

    def _admit(self, request: str, **over: str) -> None:
        self._emit(
            ev.RequestAdmitted,
            over,
            request_id=request,
            need_blocks=1,
            protected_blocks=0,
            active_blocks=0,
            usable_blocks=100,
            actions=(),
        )

    def _defer_request(self, request: str, **over: str) -> None:
        self._emit(
            ev.RequestDeferred,
            over,
            request_id=request,
            need_blocks=70,
            protected_blocks=0,
            active_blocks=0,
            usable_blocks=100,
            shortfall_blocks=0,
            blocking_claim_ids=(),
            deadline_ns=self.now_ns + 10_000_000,
        )

    def _refuse_request(self, request: str, **over: str) -> None:
        self._emit(
            ev.RequestRefused,
            over,
            request_id=request,
            reason="claims_hold",
            need_blocks=70,
            protected_blocks=0,
            active_blocks=0,
            usable_blocks=100,
            shortfall_blocks=0,
            outcome_claim_id=None,
            blocking_claim_ids=(),
        )

    def _connector_refused(self, request: str, claim: str, **over: str) -> None:
        self._emit(
            ev.RequestRefused,
            over,
            request_id=request,
            reason="restore_unavailable",
            need_blocks=None,
            protected_blocks=None,
            active_blocks=None,
            usable_blocks=None,
            shortfall_blocks=None,
            outcome_claim_id=claim,
            blocking_claim_ids=(claim,),
        )

    def _refused(self, request: str, claim: str, **over: str) -> None:
        of = self._of(claim)
        self._emit(
            ev.SchedulerRequestRefused,
            over,
            request_id=request,
            reason="restoration_failed",
            finish_status="error",
            outcome_claim_id=of["claim_id"],
            owner_scope=of["owner_scope"],
            blocking_claim_ids=(of["claim_id"],),
        )

    def _recompute(self, request: str, claim: str | None = None, pos: str = f"0-{BLOCKS}", **over: str) -> None:
        self._emit(
            ev.RequestRecomputed, over, request_id=request, **self._of(claim), recomputed_pos=ranges(pos), reason="lost"
        )

    def _end(self, request: str, status: str = "stopped", **over: str) -> None:
        self._emit(
            ev.RequestTerminated,
            over,
            request_id=request,
            finish_status=status,
            output_tokens=0 if status == "error" else 4,
        )

    # --- transfers

    def _lookup(self, request: str, claim: str | None = None, pos: str = f"0-{BLOCKS}", **over: str) -> None:
        self._emit(ev.LookupResult, over, request_id=request, **self._of(claim), tier="host", hit_pos=ranges(pos))

    def _job(self, direction: str, job: str, request: str, claim: str | None, pos: str, over: dict[str, str]) -> None:
        of = self._of(claim)
        generation = self._claim(claim)["generation"] if claim is not None else 0
        self.jobs[int(job)] = {"direction": direction, "request": request, "of": of, "pos": ranges(pos)}
        self._emit(
            ev.JobCreated,
            over,
            request_id=request,
            job_id=int(job),
            direction=direction,
            **of,
            generation=generation,
            pos=ranges(pos),
        )

    def _store(self, job: str, request: str, claim: str | None = None, pos: str = f"0-{BLOCKS}", **over: str) -> None:
        self._job("store", job, request, claim, pos, over)

    def _load(self, job: str, request: str, claim: str | None = None, pos: str = f"0-{BLOCKS}", **over: str) -> None:
        self._job("load", job, request, claim, pos, over)

    def _transfer(self, job: str, failed: tuple[tuple[int, int], ...], over: dict[str, str]) -> None:
        j = self.jobs.get(int(job), {"direction": "store", "request": "r?", "of": self._of(None), "pos": ranges("0-8")})
        bad = {p for lo, hi in failed for p in range(lo, hi)}
        good = [p for lo, hi in j["pos"] for p in range(lo, hi) if p not in bad]
        ok = tuple((p, p + 1) for p in good)
        if not failed:
            ok = j["pos"]
        self._emit(
            ev.TransferFinished,
            over,
            request_id=j["request"],
            job_id=int(job),
            direction=j["direction"],
            **j["of"],
            worker=0,
            workers_total=1,
            success=not failed,
            ok_pos=ok,
            failed_pos=failed,
            bytes=len(good) * BLOCK_BYTES,
            reason="",
            worker_start_ns=1,
            worker_end_ns=2,
        )

    def _done(self, job: str, **over: str) -> None:
        self._transfer(job, (), over)

    def _fail(self, job: str, pos: str = f"0-{BLOCKS}", **over: str) -> None:
        self._transfer(job, ranges(pos), over)

    # --- claims

    def _terms(self, claim: str, over: dict[str, str]) -> None:
        c = self.claims.setdefault(claim, {})
        for key in CLAIM_KEYS:
            if key in over:
                c[key] = over.pop(key)
        c["generation"] = 0

    def _accept(self, claim: str, request: str | None = None, **over: str) -> None:
        self._terms(claim, over)
        c = self.claims[claim]
        self._claim_event(
            ev.ClaimAccepted,
            claim,
            request,
            over,
            decision="accepted",
            clipped_from=(),
            mode=c.get("mode", "offloadable"),
            on_restore_failure=c.get("policy", "refuse"),
            footprint_blocks=int(c.get("footprint", BLOCKS)),
            priority=0,
            revision=0,
            ttl_s=None,
            deadline_ns=None,
            protected_blocks=None,
            usable_blocks=None,
        )

    def _reject(self, claim: str, request: str | None = None, **over: str) -> None:
        self._claim_event(
            ev.ClaimRejected, claim, request, over, mode="hard_protected", reason="insufficient_capacity", detail=""
        )

    def _defer(self, claim: str, request: str | None = None, **over: str) -> None:
        self._claim_event(
            ev.ClaimDeferred, claim, request, over, mode="hard_protected", reason="insufficient_capacity", detail=""
        )

    def _renew(self, claim: str, **over: str) -> None:
        self._claim_event(ev.ClaimRenewed, claim, None, over, revision=1, ttl_s=None, deadline_ns=None)

    def _materialize(self, claim: str, request: str | None = None, pos: str = "", **over: str) -> None:
        c = self.claims.setdefault(claim, {})
        blocks = int(c.get("blocks", BLOCKS))
        self._claim_event(
            ev.ClaimMaterialized,
            claim,
            request,
            over,
            tier="gpu",
            retrievable_pos=ranges(pos) if pos else ((0, blocks),),
            object_blocks=blocks,
            footprint_blocks=int(c.get("footprint", BLOCKS)),
            block_hashes=(),
        )

    def _offload(self, claim: str, request: str | None = None, pos: str = f"0-{BLOCKS}", **over: str) -> None:
        c = self.claims.setdefault(claim, {})
        c["generation"] = c.get("generation", 0) + 1
        jobs = over.pop("jobs", "0")
        self._claim_event(
            ev.ClaimOffloaded,
            claim,
            request,
            over,
            tier_from="gpu",
            tier_to="host",
            retrievable_pos=ranges(pos),
            job_ids=tuple(int(j) for j in names(jobs)),
        )

    def _require(self, claim: str, request: str, pos: str = f"0-{BLOCKS}", **over: str) -> None:
        self._claim_event(
            ev.ClaimRestoreRequired, claim, request, over, tier_from="host", tier_to="gpu", required_pos=ranges(pos)
        )

    def _restore(self, claim: str, request: str, pos: str = f"0-{BLOCKS}", **over: str) -> None:
        job = over.pop("job", "1")
        self._claim_event(
            ev.ClaimRestored,
            claim,
            request,
            over,
            job_id=int(job),
            tier_from="host",
            tier_to="gpu",
            retrievable_pos=ranges(pos),
        )

    def _reuse(self, claim: str, request: str, pos: str = f"0-{BLOCKS}", **over: str) -> None:
        self._claim_event(ev.ClaimReusedAfterRestore, claim, request, over, reused_pos=ranges(pos))

    def _reuse_here(self, claim: str, request: str, pos: str = f"0-{BLOCKS}", **over: str) -> None:
        self._claim_event(ev.ClaimReused, claim, request, over, tier="gpu", reused_pos=ranges(pos))

    def _connector_failed(self, claim: str, request: str, pos: str = f"0-{BLOCKS}", **over: str) -> None:
        job = over.pop("job", "1")
        self._claim_event(
            ev.ClaimRestorationFailed,
            claim,
            request,
            over,
            job_id=None if job == "null" else int(job),
            reason="load_failed",
            failed_pos=ranges(pos),
            outcome_claim_id=self._claim(claim)["claim_id"],
            blocking_claim_ids=(self._claim(claim)["claim_id"],),
        )

    def _failed(self, claim: str, request: str, pos: str = f"0-{BLOCKS}", **over: str) -> None:
        job = over.pop("job", "1")
        policy = over.pop("policy", "fail")
        self._claim_event(
            ev.SchedulerRestorationFailed,
            claim,
            request,
            over,
            job_id=None if job == "null" else int(job),
            reason="load_failed",
            failed_pos=ranges(pos),
            invalid_block_ids=(10, 11),
            failure_policy=policy,
            finish_status="error" if policy == "fail" else "running",
            outcome_claim_id=self._claim(claim)["claim_id"],
            blocking_claim_ids=(self._claim(claim)["claim_id"],),
        )

    def _outcome(self, kind: type[ev.Event], claim: str, over: dict[str, str], **fields: Any) -> None:
        self._claim_event(kind, claim, None, over, outcome_claim_id=self._claim(claim)["claim_id"], **fields)

    def _demote(self, claim: str, **over: str) -> None:
        self._outcome(ev.ClaimDemoted, claim, over, reason="pressure")

    def _expire(self, claim: str, **over: str) -> None:
        self._outcome(ev.ClaimExpired, claim, over, deadline_ns=self.now_ns)

    def _release(self, claim: str, **over: str) -> None:
        owner = self._claim(claim)["owner_scope"]
        self._outcome(ev.ClaimReleased, claim, over, released_by=owner, reason="owner_release")

    def _harm(self, claim: str, **over: str) -> None:
        self._outcome(ev.ClaimHarmed, claim, over, reason="evicted", lost_pos=((0, 1),))

    def _bind(self, claim: str, worker: str = "w0", **over: str) -> None:
        self._claim_event(ev.ClaimRouteBound, claim, None, over, worker_id=worker, worker_epoch=0)

    def _route(self, claim: str, request: str, **over: str) -> None:
        self._claim_event(
            ev.ClaimRouteOutcome,
            claim,
            request,
            over,
            worker_id="w0",
            worker_epoch=0,
            outcome="served_by_binding",
            reused_blocks=BLOCKS,
            outcome_claim_id=self._claim(claim)["claim_id"],
        )

    # --- blocks

    def _stored(self, tier: str, hashes: str, ids: str = "none", **over: str) -> None:
        self._emit(
            ev.BlockStored,
            over,
            tier=tier,
            block_hashes=names(hashes),
            block_ids=tuple(int(i) for i in names(ids)),
            request_id=None,
        )

    def _removed(self, tier: str, hashes: str, ids: str = "none", **over: str) -> None:
        self._emit(
            ev.BlockRemoved,
            over,
            tier=tier,
            block_hashes=names(hashes),
            block_ids=tuple(int(i) for i in names(ids)),
            request_id=None,
        )


def trace(*texts: str) -> list[ev.Event]:
    """Return the events of some lines."""
    scribe = Scribe()
    for text in texts:
        scribe.write(text)
    return scribe.events
