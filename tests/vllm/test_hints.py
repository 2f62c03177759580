"""The hint envelope as a second way in: it becomes what kv_transfer_params would have said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from residentkv.runtimes.vllm.hints import params_with_hints
from tests.vllm.bench import Bench, claim, prompt


def envelope(*actions: tuple[str, Any], version: str = "1") -> Any:
    return SimpleNamespace(
        actions=[SimpleNamespace(action_id="i", action_type=t, action_version=version, payload=p) for t, p in actions]
    )


def test_a_claim_in_the_envelope_is_decided_like_any_other(tmp_path: Path) -> None:
    """Claim, renewal and release; actions of other types are nobody's here."""
    bench = Bench(tmp_path)
    params = params_with_hints({}, envelope(("kvcr.prefetch", {}), ("residentkv.claim", claim(ttl_s=9.0))))
    assert (
        bench.arrive("r1", prompt(), params.pop("resident_claim"), **params)["resident_claim"]["decision"] == "accepted"
    )
    name = {"claim_id": "c", "owner_scope": "tenant"}
    more = params_with_hints(
        {}, envelope(("residentkv.renew", name | {"revision": 1, "ttl_s": 99.0}), ("residentkv.renew", {}))
    )
    assert "missing required field" in bench.arrive("r2", prompt(2), **more)["resident_claim_renew"][0]["reason"]
    more = params_with_hints({"resident_claim_release": name}, envelope(("residentkv.release", name)))
    assert [r["released"] for r in bench.arrive("r3", prompt(2), **more)["resident_claim_release"]] == [True, False]


def test_what_is_said_twice_or_in_another_version_is_rejected_by_name(tmp_path: Path) -> None:
    """Never one of the two, never a guess."""
    bench = Bench(tmp_path)
    twice = params_with_hints({"resident_claim": claim()}, envelope(("residentkv.claim", claim())))
    other = params_with_hints({}, envelope(("residentkv.claim", claim()), version="2"))
    for request_id, params in (("r1", twice), ("r2", other)):
        answer = bench.arrive(request_id, prompt(), **params)["resident_claim"]
        assert (answer["reason"], answer["claim_id"]) == ("claim_invalid", "c")
    assert params_with_hints({"a": 1}, None) == {"a": 1}
