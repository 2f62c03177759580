"""The claims socket: open to its user only, strict, bounded, and the command over it."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from residentkv.cli.main import main
from residentkv.errors import NoInputError, UsageError
from residentkv.server import wire
from residentkv.server.client import AsyncClient, ask
from residentkv.server.listener import MAX_CONNECTIONS
from tests.server.counter import Counter


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[Counter]:
    counter = Counter(tmp_path)
    counter.claim("c/1", "tenant-a", None, ttl_s=100.0)
    counter.desk.listen(str(tmp_path / "s"))
    yield counter
    counter.desk.close()


def raw(path: Path, line: bytes) -> wire.AnyAnswer:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(line)
        return wire.decode_answer(sock.makefile("rb").readline())


def test_the_socket_is_open_to_its_user_only(counter: Counter, tmp_path: Path) -> None:
    """Mode 0600, and gone after the end."""
    path = tmp_path / "s"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    counter.desk.close()
    assert not path.exists()
    with pytest.raises(NoInputError, match="is the engine running"):
        ask(str(path), wire.ReadMetrics())


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{}\n", b'{"op":"burn"}\n', b'{"op":"list","color":1}\n', b'{"op":"show","claim_id":""}\n', b"\xff\n"],
)
def test_what_is_no_question_is_told_so_and_does_nothing(counter: Counter, tmp_path: Path, line: bytes) -> None:
    """The codec takes nothing that it does not know."""
    answer = raw(tmp_path / "s", line)
    assert isinstance(answer, wire.Problem) and answer.code == "invalid"


def test_a_question_without_an_end_is_cut_off(counter: Counter, tmp_path: Path) -> None:
    """Memory stays bounded whatever is sent; the next connection is served."""
    answer = raw(tmp_path / "s", b"x" * (wire.MAX_ASK_BYTES + 1))
    assert isinstance(answer, wire.Problem) and answer.code == "invalid"
    assert isinstance(ask(str(tmp_path / "s"), wire.ReadMetrics()), wire.Metrics)


def test_a_burst_of_requests_is_answered_and_leaves_the_socket_to_others(counter: Counter, tmp_path: Path) -> None:
    """More questions at once than the socket has connections: each is answered, and so is the operator afterwards."""

    async def burst() -> list[wire.AnyAnswer]:
        client = AsyncClient(str(tmp_path / "s"))
        with counter.guard:
            asked = [asyncio.create_task(client.ask(wire.ListClaims())) for _ in range(MAX_CONNECTIONS + 50)]
            await asyncio.sleep(0.1)
        answers = await asyncio.gather(*asked)
        answers.append(await asyncio.to_thread(ask, client.path, wire.ListClaims()))
        client.close()
        return answers

    assert {type(answer) for answer in asyncio.run(burst())} == {wire.Claims}


def test_a_socket_that_nobody_serves_is_replaced_and_one_that_somebody_serves_is_not(
    counter: Counter, tmp_path: Path
) -> None:
    """A killed engine leaves its socket behind; a file of another kind is never removed."""
    with pytest.raises(UsageError, match="another engine"):
        Counter(tmp_path / "..").desk.listen(str(tmp_path / "s"))
    dead = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(dead))
    counter.desk.close()
    counter.desk.listen(str(dead))
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UsageError, match="no socket"):
        counter.desk.listen(str(tmp_path / "file"))


def test_the_command_lists_shows_renews_and_releases(
    counter: Counter, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the socket from the environment; a claim that is not there ends with 3 and says so."""
    monkeypatch.setenv("RESIDENTKV_SOCKET", str(tmp_path / "s"))
    mine = ["--owner", "tenant-a", "c/1"]
    assert main(["claims", "list"]) == 0
    assert "tenant-a  c/1    offloadable  offloaded" in capsys.readouterr().out
    assert main(["claims", "renew", *mine, "--revision", "1", "--ttl", "200", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["revision"] == 1
    assert main(["claims", "renew", *mine, "--revision", "1"]) == 2
    for ttl in ("nan", "inf", "0", "-1"):
        assert main(["claims", "renew", *mine, "--revision", "2", "--ttl", ttl]) == 2
        assert "--ttl" in capsys.readouterr().err
    assert main(["claims", "show", *mine]) == 0
    assert "expires_in_s       -" not in capsys.readouterr().out
    assert main(["claims", "metrics"]) == 0
    assert 'residentkv_claims{mode="offloadable",state="offloaded"} 1.0' in capsys.readouterr().out
    assert main(["claims", "release", *mine]) == 0
    assert capsys.readouterr().out.startswith("released: c/1\n")
    assert main(["claims", "release", *mine]) == 3
    assert "no such open claim" in capsys.readouterr().err
    assert main(["claims", "list"]) == 0
