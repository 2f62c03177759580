"""What the scheduler process knows about requests and transfer jobs, and what follows from it for claims.

No vLLM here: the connector and the scheduler tell what happened, in the order of the engine's step:

    request_new -> open_door -> lookup -> admitted -> job_created -> primary_lost -> (model runs)
    -> transfers -> step_done -> request_finished -> copies_settled -> stores_ended

Safe only in the scheduler's thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from residentkv.claims.lifecycle import State
from residentkv.claims.modes import OnRestoreFailure
from residentkv.claims.params import CLAIM_PARAM, RELEASE_PARAM, RENEW_PARAM
from residentkv.claims.predicates import Ranges, covers, normalize_ranges, ranges_of
from residentkv.runtimes.vllm.active import Lookup, Refusal, RequestTrack, Serve
from residentkv.runtimes.vllm.admission import Door
from residentkv.runtimes.vllm.claimbook import ClaimBook
from residentkv.runtimes.vllm.claimtrack import TIER, ClaimTrack, TierKey
from residentkv.runtimes.vllm.intake import RequestFacts, describe, take_in
from residentkv.runtimes.vllm.jobs import JobPart, OpenJob
from residentkv.runtimes.vllm.restoration import Restorations
from residentkv.trace import events as ev


class Residency:
    """Joins requests, jobs and claims; the plugin's whole conduct except for how vLLM is asked to do it."""

    def __init__(self, book: ClaimBook, door: Door, *, restore_attempts: int) -> None:
        self.book = book
        self.door = door
        self._restorations = Restorations(book, attempts=restore_attempts)
        self._requests: dict[str, RequestTrack] = {}
        self._watched: set[str] = set()
        self._jobs: dict[int, OpenJob] = {}
        self._pending_refusals: list[str] = []
        self._dropped: set[TierKey] = set()
        self._stored: dict[ClaimTrack, str] = {}
        self._ending: set[str] = set()

    def adopt_engine_policy(self, *, recomputes: bool) -> None:
        """Learn what the engine does with a request whose load fails and belongs to no claim."""
        self._restorations.engine_recomputes = recomputes

    # --- requests come ---

    def request_new(self, facts: RequestFacts) -> None:
        """Decide about the claim of a new request, before anything else happens with it."""
        # At one instant: no term ends between what is said of the request and of claims.
        with self.book.log.at(self.book.log.now_ns()):
            self.book.expire_due()
            intake = take_in(self.book, facts)
        size, most = facts.block_tokens, facts.prompt_tokens + max(facts.max_tokens, 1) - 1
        track = RequestTrack(
            request_id=facts.request_id,
            block_tokens=size,
            claim=intake.track,
            owner_scope=intake.owner_scope,
            # The engine computes the last token of a prompt in any case, so it never looks for that token's block.
            hashes=() if facts.unreadable else facts.hashes[: (facts.prompt_tokens - 1) // size],
            start_blocks=-(-facts.prompt_tokens // size),
            total_blocks=-(-most // size),
            keeps_kv=facts.keeps_kv,
        )
        if intake.reply is not None:
            track.reply[CLAIM_PARAM] = intake.reply
        if intake.releases:
            track.reply[RELEASE_PARAM] = intake.releases
        if intake.renewals:
            track.reply[RENEW_PARAM] = intake.renewals
        self._requests[facts.request_id] = track
        if track.claim is not None:
            self._watched.add(facts.request_id)
        self.door.arrive(track, facts.rank)

    def open_door(self) -> tuple[list[str], list[str]]:
        """Decide about the requests that wait to be let in; return who was let in and who was refused."""
        return self.door.step()

    def keeps_kv(self, request_id: str) -> bool:
        """Tell whether the blocks of a request may be found by others once it has ended."""
        r = self._requests.get(request_id)
        return r is None or r.keeps_kv

    def local_blocks(self, request_id: str) -> int:
        """Return how many leading blocks the request found in the primary tier."""
        r = self._requests.get(request_id)
        return r.local_blocks if r is not None else 0

    def claim_of(self, request_id: str) -> ClaimTrack | None:
        """Return the open claim that the request acts for."""
        r = self._requests.get(request_id)
        return self._claim(r) if r is not None else None

    def needs_own_store(self, request_id: str, key: TierKey) -> bool:
        """Tell whether the claim of the request still lacks a store job of its own for this block.

        The promise to give a block back rests on a transfer that was made for the claim; bytes that lie in the tier
        because of somebody else do not show that.
        """
        track = self.claim_of(request_id)
        return track is not None and track.restores and key in track.keys and key not in track.store_jobs

    # --- scheduling ---

    def lookup(self, request_id: str, local_blocks: int, hit_blocks: int) -> Lookup:
        """Take in what both tiers hold for a request: `hit_blocks` beyond the `local_blocks` of the primary tier."""
        r = self._requests[request_id]
        track = self._claim(r)
        r.local_blocks = local_blocks
        r.settled = False
        if r.refusal is not None:
            return Lookup.REFUSE
        if r.serve is Serve.PRIMARY:  # It lost its blocks before it was computed, and looks again.
            r.serve = Serve.UNDECIDED
        if r.looked != (local_blocks, hit_blocks):
            r.looked = (local_blocks, hit_blocks)
            self.book.log.emit(
                ev.LookupResult,
                request_id=request_id,
                claim_id=track.claim.claim_id if track else None,
                owner_scope=track.claim.owner_scope if track else None,
                tier=TIER,
                hit_pos=normalize_ranges([(local_blocks, local_blocks + hit_blocks)]),
            )
        if track is None or not track.restores or track.record.state is State.ACCEPTED:
            return Lookup.PROCEED
        _, end = track.needed()
        if local_blocks + hit_blocks >= end:
            return Lookup.PROCEED
        # The engine never looks for the block of a prompt's last token: that it was not found says nothing about it.
        if covers(self.book.primary_pos(track, end), 0, end):
            return Lookup.PROCEED
        return self._lost_at_lookup(r, track, local_blocks + hit_blocks, end)

    def _lost_at_lookup(self, r: RequestTrack, track: ClaimTrack, have_blocks: int, end: int) -> Lookup:
        """The copies are gone and nobody had said so: the claim is harmed, then the request gets what it asked for."""
        have = self.book.retrievable_pos(track)
        lost = ranges_of(p for p in range(have_blocks, end) if not covers(have, p, 1))
        self.book.harm(track, lost or ((have_blocks, end),), "copy_lost", r.request_id)
        if track.claim.on_restore_failure is OnRestoreFailure.RECOMPUTE:
            r.serve, r.recompute_why, r.lost_claim = Serve.RECOMPUTE, "copy_lost", track
            return Lookup.PROCEED
        claim = track.claim
        r.refusal = Refusal(
            reason="copy_lost", claim_id=claim.claim_id, owner_scope=claim.owner_scope, restoration=False
        )
        self._pending_refusals.append(r.request_id)
        self.book.log.emit(
            ev.RequestRefused,
            request_id=r.request_id,
            reason="copy_lost",
            need_blocks=None,
            protected_blocks=None,
            active_blocks=None,
            usable_blocks=None,
            shortfall_blocks=None,
            outcome_claim_id=claim.claim_id,
            blocking_claim_ids=(claim.claim_id,),
        )
        return Lookup.REFUSE

    def admitted(self, request_id: str, hit_blocks: int) -> None:
        """Blocks were allocated: from here on it is settled whether the claim is restored or read where it lies."""
        r = self._requests[request_id]
        track = self._claim(r)
        if r.settled:  # Decided before the load for which it waited; vLLM tells of its blocks again.
            return
        r.settled = True
        if track is None or track.record.state is State.ACCEPTED or r.recomputed_from is not None:
            return
        _, end = track.needed()
        if r.local_blocks >= end or (not track.restores and r.local_blocks + hit_blocks >= end):
            r.serve = Serve.PRIMARY
        elif not track.restores and self._keeps(track):
            # What was promised is there, but the engine reads only up to the first block that it does not find or look
            # for, such as that of a prompt's last token: what was read is told, and not that the claim was recomputed.
            r.serve = Serve.PRIMARY
        elif not track.restores and not r.explained:
            # Nothing was promised: what is gone is computed again, and the log says so.
            r.serve, r.recompute_why, r.lost_claim = Serve.RECOMPUTE, "not_kept", track
        elif track.restores and hit_blocks > 0 and r.local_blocks + hit_blocks >= end:
            if track.record.state is not State.OFFLOADED and not self.book.offload(track, request_id):
                return
            start, _ = track.claim.predicate.needed(track.object_blocks)
            self.book.require_restore(track, ((max(r.local_blocks, start), end),), request_id)
            r.serve = Serve.RESTORE

    def _keeps(self, track: ClaimTrack) -> bool:
        """Tell whether a claim that reports its loss has none to report."""
        return track.reports_loss and track.claim.predicate.holds(self.book.retrievable_pos(track), track.object_blocks)

    def job_created(
        self,
        request_id: str,
        job_id: int,
        *,
        is_load: bool,
        keys: Sequence[TierKey],
        positions: Sequence[int],
        block_ids: Sequence[int],
        workers_total: int,
    ) -> OpenJob:
        """A transfer job was made; return whose it is. `keys`, `positions` and `block_ids` are in the same order."""
        r = self._requests[request_id]
        track = self._claim(r)
        if is_load and r.serve is not Serve.RESTORE:
            track = None
        if track is not None and not track.restores:
            track = None
        job = OpenJob(
            job_id=job_id,
            request_id=request_id,
            is_load=is_load,
            claim=track,
            keys=tuple(keys),
            positions=tuple(positions),
            block_ids=tuple(block_ids),
            workers_total=workers_total,
        )
        self._jobs[job_id] = job
        if is_load:
            r.loading = job_id
        else:
            r.stores.add(job_id)
        self.book.log.emit(
            ev.JobCreated,
            request_id=request_id,
            job_id=job_id,
            direction="load" if is_load else "store",
            claim_id=job.claim_id,
            owner_scope=job.owner_scope,
            generation=track.record.generation if track is not None else 0,
            pos=ranges_of(positions),
        )
        return job

    # --- the model ran ---

    def transfers(self, parts: Iterable[JobPart]) -> list[OpenJob]:
        """Take in what workers report; return the jobs that are over on all workers, in that order."""
        over = []
        for part in parts:
            job = self._jobs.get(part.job_id)
            if job is None:
                continue
            with self.book.log.at(self.book.log.now_ns()):
                self.book.of(job.claim)  # A term that is over ends before the word on the transfer, not after it.
                self.book.log.emit(ev.TransferFinished, **job.take(part))
                if job.over:
                    del self._jobs[part.job_id]
                    over.append(job)
                    if job.is_load:
                        r = self._requests[job.request_id]
                        self._restorations.load_over(r, job)
                        self._terminate(r)
                    else:
                        self._store_over(job)
                    if job.void:
                        job.drop = frozenset()
        return over

    def _store_over(self, job: OpenJob) -> None:
        r = self._requests.get(job.request_id)
        if r is not None:
            r.stores.discard(job.job_id)
        if job.failed:
            job.drop = frozenset(job.keys)
        elif job.claim is not None and job.claim.open and not job.void:
            for key in job.keys:
                job.claim.store_jobs[key] = job.job_id
            self._stored[job.claim] = job.request_id

    @property
    def watched(self) -> Collection[str]:
        """The requests of claims: `step_done` says nothing about any other."""
        return self._watched

    def step_done(self, request_id: str, before_tokens: int, after_tokens: int) -> None:
        """The model computed tokens [before_tokens, after_tokens) of a request; everything before was read."""
        r = self._requests.get(request_id)
        if r is None:
            return
        if r.serve in (Serve.PRIMARY, Serve.RESTORE):
            self._restorations.report_reuse(r, before_tokens)
        elif r.serve is Serve.RECOMPUTE:
            self._restorations.report_recompute(r, before_tokens, after_tokens)
        track = self._claim(r)
        if track is not None and self.book.materialize(track, after_tokens // r.block_tokens, request_id):
            self.book.offload(track, request_id)

    def copies_settled(self) -> None:
        """The tier took in which transfers succeeded: say what it can give back now, and what was lost."""
        stored, self._stored = self._stored, {}
        for track, request_id in stored.items():
            if track.record.state in (State.MATERIALIZED, State.OFFLOADED):
                self.book.offload(track, request_id)
        self.tell_dropped()
        for request_id in list(self._ending):
            self._settle(self._requests[request_id])

    # --- copies go ---

    def tell_dropped(self) -> None:
        """Harm the claims that lost by what the tier dropped since the last call."""
        if not self._dropped:
            return
        dropped, self._dropped = self._dropped, set()
        for track in self.book:
            if not dropped.isdisjoint(track.keys):
                self._check_loss(track, "copy_lost")

    def copies_dropped(self, keys: Iterable[TierKey]) -> None:
        """The tier dropped or evicted these blocks; claims that need them are looked at in `tell_dropped`."""
        for key in keys:
            self._dropped.add(key)

    def primary_lost(self, hashes: Iterable[bytes]) -> None:
        """The primary tier evicted these blocks; the claims that lose by it are told so."""
        for track in self.book.needing(hashes):
            if self.book.alive(track):
                self._check_loss(track, "evicted")

    def _check_loss(self, track: ClaimTrack, reason: str) -> None:
        """A copy went: if the predicate holds nowhere any more, nothing excused that."""
        for key in [k for k in track.store_jobs if not self.book.view.kept(k)]:
            del track.store_jobs[key]
        if not track.reports_loss or track.record.state in (State.ACCEPTED, State.RESTORE_REQUIRED):
            return
        have = self.book.retrievable_pos(track)
        if track.claim.predicate.holds(have, track.object_blocks):
            return
        start, end = track.needed()
        self.book.harm(track, ranges_of(p for p in range(start, end) if not covers(have, p, 1)), reason, None)

    def before_reset(self, *, primary: bool, tier: bool) -> None:
        """The operator empties a tier: claims that would lose by it are demoted first."""
        self.book.expire_due()
        for job in self._jobs.values():
            job.void = job.void or tier
        for track in self.book:
            if tier:
                track.store_jobs.clear()
            if not track.reports_loss or track.record.state is State.ACCEPTED:
                continue
            left: Ranges = ()
            if track.restores and not tier:
                left = self.book.tier_pos(track)
            elif not track.restores and not primary:  # Its last copy may be one of those that go.
                left = self.book.primary_pos(track, track.object_blocks)
            if not track.claim.predicate.holds(left, track.object_blocks):
                self.book.demote(track, "cache_reset")
        self.book.log.emit(
            ev.RuntimeEvent, name="reset_tier" if tier else "reset_prefix_cache", request_id=None, job_id=None
        )

    # --- requests go ---

    def take_refusals(self) -> list[str]:
        """Return the requests that the scheduler has to refuse now, although no load of theirs failed."""
        pending, self._pending_refusals = self._pending_refusals, []
        return pending

    def reply_of(self, request_id: str) -> dict[str, Any] | None:
        """Return what the client of a request will be told, as far as it is known."""
        r = self._requests.get(request_id)
        return r.reply if r is not None else None

    def refusal_of(self, request_id: str) -> Refusal | None:
        """Return why the request was refused, if it was."""
        r = self._requests.get(request_id)
        return r.refusal if r is not None else None

    def request_finished(self, request_id: str, finish_status: str, output_tokens: int) -> dict[str, Any] | None:
        """The request ended; return what its client is told about claims."""
        r = self._requests.get(request_id)
        if r is None or r.finished is not None:
            return None
        r.finished = (finish_status, output_tokens)
        self.door.leave(request_id)
        reply = r.reply
        if r.claim is not None and CLAIM_PARAM in reply:
            reply[CLAIM_PARAM] |= {"state": r.claim.record.state.value, "generation": r.claim.record.generation}
        if r.refusal is not None:
            reply["resident_claim_refusal"] = r.refusal.seen_by(r.owner_scope)
        if r.loading is None:
            self._terminate(r)
        return (reply | {"request_id": request_id}) if reply else None

    def stores_ended(self, request_id: str) -> None:
        """No further store will be made for a request that has finished."""
        r = self._requests.get(request_id)
        if r is not None:
            r.stores_over = True
            self._ending.add(request_id)
            self._settle(r)

    def _terminate(self, r: RequestTrack) -> None:
        if r.terminated or r.finished is None:
            return
        r.terminated = True
        self.book.log.emit(
            ev.RequestTerminated, request_id=r.request_id, finish_status=r.finished[0], output_tokens=r.finished[1]
        )

    def _settle(self, r: RequestTrack) -> None:
        """Forget a request that is over.

        A claim that only it could still have stored is demoted before it is lost; any other one that only it could have
        materialized is let go: its client was told of a refusal, or has left, and knows of no claim that it has.
        """
        if not (r.terminated and r.stores_over and not r.stores):
            return
        del self._requests[r.request_id]
        self._watched.discard(r.request_id)
        self._ending.discard(r.request_id)
        self.door.forget(r.request_id)
        track = self._claim(r)
        if track is None or any(other.claim is track for other in self._requests.values()):
            return
        if not track.restores:
            if track.record.state is State.ACCEPTED:
                self.book.release(track, "engine:request", "never_materialized")
        elif track.record.state is State.ACCEPTED:
            self.book.demote(track, "never_materialized")
        elif track.record.state is State.MATERIALIZED:
            self.book.demote(track, "not_offloaded")

    def _claim(self, r: RequestTrack) -> ClaimTrack | None:
        return self.book.of(r.claim)

    # --- the whole ---

    def open_jobs(self) -> int:
        """Return how many transfers are under way."""
        return len(self._jobs)

    def states(self) -> list[dict[str, Any]]:
        """Describe all open claims."""
        return [describe(track) for track in self.book]

    def release_all(self, released_by: str, reason: str) -> None:
        """Let every claim go, before the log or the engine ends."""
        self.book.expire_due()
        for track in self.book:
            self.book.release(track, released_by, reason)
