"""The public view of a log: nothing of another owner is in it, by no field."""

from __future__ import annotations

from pathlib import Path

import pytest

from residentkv.cli.main import main
from residentkv.trace.codec import decode_trace, encode_event
from residentkv.trace.events import RequestRefused
from residentkv.trace.view import owner_view
from tests.vllm.bench import Bench, claim, prompt


def log_of_two(folder: Path) -> Bench:
    """Two owners, each with a request that is refused because of claims of both; and a request of nobody."""
    bench = Bench(folder)
    for number, owner in enumerate(("alpha", "beta")):
        bench.serve(f"q-{owner}", prompt(number), claim(f"name-of-{owner}", owner))
        bench.log.emit(
            RequestRefused,
            request_id=f"q-{owner}",
            reason="claims_hold",
            need_blocks=1,
            protected_blocks=2,
            active_blocks=3,
            usable_blocks=4,
            shortfall_blocks=2,
            outcome_claim_id=None,
            blocking_claim_ids=("name-of-alpha", "name-of-beta"),
        )
    bench.serve("q-nobody", prompt(5))
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


def test_the_command_prints_the_view(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """As lines that any reader of traces takes."""
    bench = log_of_two(tmp_path)
    assert main(["claims", "log", str(bench.path), "--owner", "alpha"]) == 0
    printed = capsysbinary.readouterr().out
    assert decode_trace(printed) == list(owner_view(bench.events(), "alpha"))  # type: ignore[arg-type]
    assert main(["claims", "log", str(tmp_path / "none"), "--owner", "alpha"]) == 3
