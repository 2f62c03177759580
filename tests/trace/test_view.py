"""The public view of a log: nothing of another owner is in it, by no field."""

from __future__ import annotations

from pathlib import Path

import pytest

from residentkv.cli.main import main
from residentkv.trace.codec import decode_trace, encode_event
from residentkv.trace.events import RequestRefused
from residentkv.trace.view import owner_view
from tests.vllm.bench import Bench, claim, prompt


def hard(owner: str, name: str) -> dict[str, str]:
    return claim(name, owner, mode="hard_protected")


def log_of_two(folder: Path) -> Bench:
    """Two owners, each with a request that is refused because of claims of both; and a request of nobody."""
    bench = Bench(folder, usable=12)
    for number, owner in enumerate(("alpha", "beta")):
        bench.serve(f"q-{owner}", prompt(number), hard(owner, f"name-of-{owner}"))
    for number, owner in enumerate(("alpha", "beta")):
        wish = claim(f"wish-of-{owner}", owner, mode="best_effort")
        assert bench.serve(f"p-{owner}", prompt(number + 5, blocks=5), wish) == "refused"
    bench.serve("q-nobody", prompt(9, blocks=1))
    return bench


@pytest.mark.parametrize(("owner", "other"), [("alpha", "beta"), ("beta", "alpha")])
def test_an_owner_sees_its_own_and_no_name_of_another(tmp_path: Path, owner: str, other: str) -> None:
    """Whole lines are compared: every event of a claim or request of the owner is there, and no word of the other."""
    bench = log_of_two(tmp_path)
    seen = list(owner_view(bench.events(), owner))  # type: ignore[arg-type]
    text = b"".join(map(encode_event, seen)).decode()
    assert other not in text and "nobody" not in text
    mine = [e for e in bench.events() if owner in encode_event(e).decode() and other not in encode_event(e).decode()]
    assert len(mine) > 5 and set(mine) <= set(seen)
    (refused,) = [e for e in seen if isinstance(e, RequestRefused)]
    assert refused.blocking_claim_ids == (f"name-of-{owner}",)


def test_a_name_that_another_owner_uses_too_tells_nothing_of_its_claims(tmp_path: Path) -> None:
    """beta guesses a name and claims nothing under it that holds blocks: alpha's claim of that name stays unseen."""
    bench = Bench(tmp_path, usable=12)
    whole = {"predicate": "whole_object"}
    bench.serve("q1", prompt(), hard("alpha", "guess"))
    bench.serve("q2", prompt(2, blocks=1), hard("alpha", "mine") | whole)
    mine = hard("beta", "mine") | whole
    bench.serve("q3", prompt(3, blocks=2), mine)
    bench.serve("q4", prompt(4, blocks=1), claim("guess", "beta", mode="best_effort", **whole))
    wish = claim("wish", "beta", mode="best_effort", **whole)
    assert bench.serve("q5", prompt(5, blocks=7), wish) == "refused"
    assert bench.serve("q6", prompt(3, blocks=2), mine, max_tokens=24) == "refused"
    log = [e for e in bench.events() if isinstance(e, RequestRefused)]
    assert [e.blocking_claim_ids for e in log] == [("guess", "mine"), ("guess", "mine")]
    told = [e for e in owner_view(bench.events(), "beta") if isinstance(e, RequestRefused)]  # type: ignore[arg-type]
    assert [e.blocking_claim_ids for e in told] == [("mine",), ()]


def test_the_name_of_a_request_that_is_over_shows_nobody_else(tmp_path: Path) -> None:
    """Clients may choose the names of requests: whoever uses one again shows nothing of it to the first."""
    bench = Bench(tmp_path)
    bench.serve("q1", prompt(), claim("mine", "beta"))
    before = len(list(owner_view(bench.events(), "beta")))  # type: ignore[arg-type]
    bench.serve("q1", prompt(2), claim("theirs", "alpha"))
    bench.serve("q1", prompt(3))
    assert len(list(owner_view(bench.events(), "beta"))) == before  # type: ignore[arg-type]


def test_the_command_prints_the_view(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """As lines that any reader of traces takes."""
    bench = log_of_two(tmp_path)
    assert main(["claims", "log", str(bench.path), "--owner", "alpha"]) == 0
    printed = capsysbinary.readouterr().out
    assert decode_trace(printed) == list(owner_view(bench.events(), "alpha"))  # type: ignore[arg-type]
    assert main(["claims", "log", str(tmp_path / "none"), "--owner", "alpha"]) == 3
