"""What all cases share: a server whose cache is empty when a trace begins, prompts of made-up tokens, an observer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from residentkv import __version__
from residentkv.claims.model import CacheIdentity
from residentkv.environments import RuntimeFailed, find_model
from residentkv.runtimes.kvevents import Arrival, ClearedBlocks
from residentkv.runtimes.sglang.launch import Answer, SglangServer, Usage
from residentkv.runtimes.sglang.observer import Observer, Pending, Reading
from residentkv.trace.events import TraceOpened
from residentkv.trace.writer import TraceWriter

RUNTIME = "sglang"
VERSION = "0.5.23"
SEED = 20261125
FLUSH_TRIES = 60
FIRST_TOKEN, LAST_TOKEN = 1000, 40000
"""Prompts are drawn from ordinary tokens of the vocabulary of SmolLM2 (49,152)."""


class Bench:
    """One running server and what a case needs around it.

    Args:
        server: a started server.
        out: folder of the study.
        stands_in: what stands in for something else in its runs.
        trials: repetitions of each assignment in an experiment.
        progress: is told each step.
    """

    def __init__(
        self, server: SglangServer, out: Path, stands_in: tuple[str, ...], trials: int, progress: Callable[[str], None]
    ) -> None:
        self.server = server
        self.out = out
        self.trials = trials
        self.progress = progress
        self.info = server.info()
        if self.info.get("version") != VERSION:
            raise RuntimeFailed(f"SGLang: found version {self.info.get('version')!r}, expected {VERSION}")
        self._stands_in = (*stands_in, f"radix tree core: {self.tree_core()}")
        self._random = random.Random(SEED)
        self._requests = 0

    def tree_core(self) -> str:
        """Return which core of the radix tree runs, by the server's log: the bundled Rust one, or Python."""
        return "python" if "Using the Python TreeCore" in self.server.log.read_text(errors="replace") else "rust"

    def prompt(self, tokens: int) -> tuple[int, ...]:
        """Return a prompt that no other prompt of this server shares a block with."""
        return tuple(self._random.randrange(FIRST_TOKEN, LAST_TOKEN) for _ in range(tokens))

    def name_request(self, word: str) -> str:
        """Return a request id that was not used before."""
        self._requests += 1
        return f"{word}-{self._requests}"

    def observe(
        self,
        path: str,
        *,
        primitive: str,
        adapter: str,
        depth: Literal["observe", "policy"],
        fault: str | None = None,
    ) -> Observer:
        """Empty the server's cache and begin a trace; `path` is relative to the folder of the study.

        `fault` says what is made to fail on purpose; the header of the trace says it too.

        Raises:
            RuntimeFailed: the cache was not emptied, so that the trace could not know what is in it.
        """
        self.flush()
        target = self.out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        trace = TraceWriter(target, source="sglang", run_id=path.removesuffix(".jsonl").replace("/", "-"))
        trace.emit(
            TraceOpened,
            runtime=RUNTIME,
            runtime_version=VERSION,
            primitive=primitive,
            adapter=adapter,
            adapter_version=__version__,
            depth=depth,
            stands_in=(*self._stands_in, *([f"fault on purpose: {fault}"] if fault else [])),
        )
        feed = self.server.feed
        if feed is None:
            raise RuntimeFailed("SGLang: the server does not run")
        return Observer(trace, feed, self.identity(), self.server.page_tokens)

    def identity(self) -> CacheIdentity:
        """Return what is the same for all blocks of this server."""
        folder = find_model()
        return CacheIdentity(
            model=folder.name,
            model_revision="as prepared",
            weights_epoch=0,
            tokenizer=folder.name,
            kv_dtype="float32",
            kv_layout="sglang",
            block_size_tokens=self.server.page_tokens,
        )

    def flush(self) -> list[Arrival]:
        """Empty the cache and return what was told until then, the word that it is empty included.

        Raises:
            RuntimeFailed: the server refused, or never said that the blocks are gone.
        """
        feed = self.server.feed
        told: list[Arrival] = []
        answer = Answer(status=0, text="the server does not run")
        for _ in range(FLUSH_TRIES if feed is not None else 0):
            answer = self.server.ask("/flush_cache", {})
            if answer.status == 200:
                break
            time.sleep(0.5)  # Copies to host or storage are under way.
        if answer.status != 200 or feed is None:
            raise RuntimeFailed(f"SGLang: /flush_cache answered {answer.status}: {answer.text[:200]}")
        for _ in range(50):
            told += feed.read(0.2)
            if told and any(isinstance(e, ClearedBlocks) for e in told[-1].batch.events):
                return told
        raise RuntimeFailed("SGLang: no AllBlocksCleared within 10 s after a flush; is --kv-events-config set?")

    def send(
        self,
        observer: Observer,
        pending: Pending,
        *,
        output_tokens: int = 1,
        wait_s: float = 120.0,
        fields: dict[str, object] | None = None,
    ) -> tuple[Usage | Answer, Reading | None]:
        """Send a request that was begun, and record its end; the reading is None when it was not served."""
        sent = {"rid": pending.request_id, "cache_salt": pending.cache_salt, **(fields or {})}
        served = self.server.generate(pending.token_ids, output_tokens=output_tokens, wait_s=wait_s, fields=sent)
        if isinstance(served, Usage):
            return served, observer.end(pending, served)
        if served.status:
            observer.fail(pending)
        return served, None  # Without an answer nobody knows of an end, so the trace has none either.

    def ask_plain(self, observer: Observer, tokens: int, fields: dict[str, object] | None = None) -> Reading:
        """Serve a prompt of nobody's, to fill the cache.

        Raises:
            RuntimeFailed: it was not served.
        """
        pending = observer.begin(self.name_request("plain"), self.prompt(tokens))
        served, reading = self.send(observer, pending, fields=fields)
        if reading is None:
            raise RuntimeFailed(f"SGLang did not serve a plain request of {tokens} tokens: {served}")
        return reading
