"""How a restoration ends, and what a request of a claim was computed from: told here, in the order of the contract."""

from __future__ import annotations

from residentkv.claims.lifecycle import State
from residentkv.claims.modes import OnRestoreFailure
from residentkv.claims.predicates import covers, normalize_ranges, ranges_of
from residentkv.runtimes.vllm.active import Refusal, RequestTrack, Serve
from residentkv.runtimes.vllm.claimbook import ClaimBook
from residentkv.runtimes.vllm.claimtrack import PRIMARY, ClaimTrack
from residentkv.runtimes.vllm.jobs import OpenJob
from residentkv.trace import events as ev


class Restorations:
    """Tells restorations, refusals, reuses and recomputations."""

    def __init__(self, book: ClaimBook, *, attempts: int) -> None:
        self.book = book
        self.attempts = attempts
        self.engine_recomputes = False
        self._unclaimed_failures = 0

    def load_over(self, r: RequestTrack, job: OpenJob) -> None:
        """A load is over on all workers."""
        r.loading = None
        track = self.book.of(job.claim)
        if not job.failed:
            if track is not None:
                loaded = ranges_of(job.positions)
                local = ((0, r.local_blocks),) if r.local_blocks else ()
                self.book.restored(track, normalize_ranges((*local, *loaded)), job.job_id, r.request_id)
        elif track is None:
            self._unclaimed_failure(r, job)
        else:
            self._restoration_failed(r, track, job)

    def _unclaimed_failure(self, r: RequestTrack, job: OpenJob) -> None:
        """Nobody was promised these bytes: all that is told is a number.

        The engine's own policy holds for requests that name no claim. One that does is computed again, whatever the
        policy: its claim promised no restoration of these bytes, so there is nothing to refuse it for by name, and an
        error would look like the loss of the claim. That outlives the claim, which may have been released or have
        expired while the load was under way.
        """
        self._unclaimed_failures += 1
        job.drop = frozenset(key for key, pos in zip(job.keys, job.positions, strict=True) if pos in job.failed)
        job.recompute = self.engine_recomputes or r.claim is not None
        if r.claim is not None and r.serve is Serve.PRIMARY and r.local_blocks < r.claim.needed()[1]:
            r.serve, r.recompute_why, r.lost_claim = Serve.RECOMPUTE, "load_failed", r.claim
        self.book.log.emit(ev.GenericCounter, name="unclaimed_load_failures", value=self._unclaimed_failures)

    def _restoration_failed(self, r: RequestTrack, track: ClaimTrack, job: OpenJob) -> None:
        claim = track.claim
        r.failures += 1
        # The load may go on beyond the claimed object; what failed there is told only when nothing else did.
        own = tuple(p for p in job.failed if p < track.object_blocks)
        told = own or job.failed
        failed = ranges_of(told)
        self.book.fail_restore(track, failed, job.job_id, job.reason, r.request_id)
        again = not own or (not job.damaged and r.failures < self.attempts)
        retry = r.finished is None and again
        refuse = claim.on_restore_failure is OnRestoreFailure.REFUSE
        if retry:
            policy, finish_status = "retry", "waiting"
        elif refuse:
            policy, finish_status = "fail", "error" if r.finished is None else r.finished[0]
        else:
            policy, finish_status = "recompute", "waiting" if r.finished is None else r.finished[0]
        block_of = dict(zip(job.positions, job.block_ids, strict=True))
        self.book.tell(
            ev.SchedulerRestorationFailed,
            track,
            r.request_id,
            job_id=job.job_id,
            reason=job.reason,
            failed_pos=failed,
            invalid_block_ids=tuple(block_of[p] for p in told),
            failure_policy=policy,
            finish_status=finish_status,
            outcome_claim_id=claim.claim_id,
            blocking_claim_ids=(claim.claim_id,) if refuse and not retry else (),
        )
        r.serve = Serve.UNDECIDED
        r.looked = None
        if not own or (not retry and (not refuse or job.damaged)):
            job.drop = frozenset(k for k, p in zip(job.keys, job.positions, strict=True) if p in job.failed)
        if retry:
            job.recompute = True
            return
        if refuse:
            self._refuse_failed(r, track, finish_status)
            if job.damaged:
                self.book.view.condemn(job.drop)
            if job.damaged and own:
                self.book.harm(track, failed, "copy_damaged", r.request_id)
            return
        job.recompute = True
        self.book.demote(track, "restoration_failed", r.request_id)
        r.serve, r.recompute_why, r.lost_claim = Serve.RECOMPUTE, "restoration_failed", track

    def _refuse_failed(self, r: RequestTrack, track: ClaimTrack, finish_status: str) -> None:
        claim = track.claim
        r.refusal = Refusal(
            reason="restoration_failed", claim_id=claim.claim_id, owner_scope=claim.owner_scope, restoration=True
        )
        self.book.log.emit(
            ev.SchedulerRequestRefused,
            request_id=r.request_id,
            reason="resident_claim_restoration_failed",
            finish_status=finish_status,
            outcome_claim_id=claim.claim_id,
            owner_scope=claim.owner_scope,
            blocking_claim_ids=(claim.claim_id,),
        )

    def report_reuse(self, r: RequestTrack, before_tokens: int) -> None:
        """Say from where the claimed blocks were read that the model has just computed on."""
        serve, r.serve = r.serve, Serve.UNDECIDED
        track = self.book.of(r.claim)
        if track is None:
            return
        # The last block of a prompt that was hit whole is read for all its tokens but one.
        read = self.book.clip(track, ((0, -(-before_tokens // r.block_tokens)),))
        if serve is Serve.PRIMARY:
            if track.record.state is State.RESTORATION_FAILED:
                # The tier has it again, or still: then the claim can be told of anew.
                self.book.offload(track, r.request_id)
            if track.record.state in (State.RESTORE_REQUIRED, State.RESTORATION_FAILED):
                r.serve = serve  # Another request waits for the claim: told when it is known what became of that.
            elif read and not r.explained:  # One that was preempted reads again what it has read, or computed.
                r.explained = True
                self.book.tell(ev.ClaimReused, track, r.request_id, tier=PRIMARY, reused_pos=read)
        elif (
            track.record.state is State.RESTORED
            and track.restored_for == r.request_id
            and covers(read, *track.claim.predicate.needed(track.object_blocks))
        ):
            r.explained = True
            self.book.tell(ev.ClaimReusedAfterRestore, track, r.request_id, reused_pos=read)

    def report_recompute(self, r: RequestTrack, before_tokens: int, after_tokens: int) -> None:
        """Say once, when all of the claimed object has been computed, which positions were computed again."""
        track = r.lost_claim
        if track is None:
            return
        start = before_tokens // r.block_tokens
        r.local_blocks = min(r.local_blocks, start)
        first = min(start, r.looked[0] + r.looked[1]) if r.looked is not None else start
        # One that is preempted halfway finds, in the next lookup, what it has computed again until then.
        r.recomputed_from = first if r.recomputed_from is None else min(first, r.recomputed_from)
        if after_tokens < track.object_blocks * r.block_tokens:
            return
        r.serve = Serve.UNDECIDED
        self.book.log.emit(
            ev.RequestRecomputed,
            request_id=r.request_id,
            claim_id=track.claim.claim_id,
            owner_scope=track.claim.owner_scope,
            recomputed_pos=self.book.clip(track, ((r.recomputed_from, track.object_blocks),)),
            reason=r.recompute_why,
        )
