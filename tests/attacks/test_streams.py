"""Standard streams that are closed, full, or of another encoding, and an interruption."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import IO

import pytest

from tests.attacks.test_devices import TRACE

COMMAND = Path(sys.executable).with_name("residentkv")
CHECK = ("check", "--descriptor", "own.yaml")


def run(
    *arguments: str,
    stdout: int | IO[bytes] = subprocess.PIPE,
    encoding: str = "",
    shell: str = "",
    unbuffered: bool = False,
) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of a command."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | {"RESIDENTKV_CACHE": "cache"}
    environment |= ({"PYTHONIOENCODING": encoding} if encoding else {}) | (
        {"PYTHONUNBUFFERED": "1"} if unbuffered else {}
    )
    words = ["sh", "-c", f'exec "$@" {shell}', "sh", str(COMMAND), *arguments]
    done = subprocess.run(words, stdout=stdout, stderr=subprocess.PIPE, env=environment, check=False)
    return done.returncode, (done.stdout or b"").decode("latin-1"), done.stderr.decode()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A descriptor and a trace with Hebrew, accented and control characters."""
    monkeypatch.chdir(tmp_path)
    shipped = Path(__file__).parents[2] / "src" / "residentkv" / "descriptors" / "reference" / "0.1.yaml"
    Path("own.yaml").write_text(
        shipped.read_text().replace("title: The reference", "title: The \u05d0 \u00e9 reference", 1)
    )
    events = [json.loads(line) for line in TRACE.read_text().splitlines()]
    for event in events:
        event |= {"owner_scope": f"\u05d0 \u00e9 \u202e {event['owner_scope']}"} if event.get("owner_scope") else {}
    text = "".join(f"{json.dumps(event)}\n" for event in events)
    Path("own.jsonl").write_text(text)


@pytest.mark.parametrize("arguments", [CHECK, ("audit", "own.jsonl")])
def test_every_letter_is_written_whatever_the_encoding(arguments: tuple[str, ...]) -> None:
    """A letter that the stream has not is an escape, and the exit code is that of the verdict."""
    code, out, err = run(*arguments)
    there, latin, said = run(*arguments, encoding="latin-1")
    assert (there, said) == (code, err)
    assert code == {"check": 10, "audit": 0}[arguments[0]]
    assert "\\u05d0 \xe9" in latin and out != latin


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("arguments", [CHECK, ("rules",)])
def test_a_full_disk_is_no_verdict(arguments: tuple[str, ...], unbuffered: bool) -> None:
    """Exit 3 and one line, with no traceback, when standard output has no room, whatever Python keeps in its buffer."""
    with Path("/dev/full").open("wb") as full:
        code, _, err = run(*arguments, stdout=full, unbuffered=unbuffered)
    assert code == 3
    assert err.startswith("residentkv: error: cannot be written (No space left on device)") and err.count("\n") == 1


def test_a_closed_stream_takes_nothing() -> None:
    """The exit code is that of the verdict, or of the error that nobody reads."""
    assert run(*CHECK, shell=">&-")[::2] == (10, "")
    assert run("audit", "own.jsonl", shell=">&-")[::2] == (0, "")
    assert run("audit", "-", shell="<&-")[::2] == (11, "")
    assert run("chekc", shell="2>&-")[0] == 2
    assert run("chekc", shell="2>/dev/full")[0] == run("chekc", shell="2>/dev/full", unbuffered=True)[0] == 2


@pytest.mark.parametrize("arguments", [("rules",), (*CHECK, "--explain")])
def test_a_reader_that_went_away_is_no_pass(arguments: tuple[str, ...]) -> None:
    """Exit 1 without a word: half a report has no verdict, and `| head` needs no message."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        assert run(*arguments, stdout=gone) == (1, "", "")


def test_an_interruption_leaves_no_report() -> None:
    """Ctrl-C while a trace is read: exit 1, `interrupted`, no file and nothing beside it."""
    os.mkfifo("pipe")
    # Whoever started the tests may ignore SIGINT (nohup, a job in the background), and a child inherits that.
    words = ["env", "--default-signal=INT", str(COMMAND), "audit", "pipe", "--json", "-o", "out.json"]
    started = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    with started, Path("pipe").open("wb") as trace:  # opens when the command has opened it
        trace.write(TRACE.read_bytes()[:1000])
        trace.flush()
        _interrupt(started)
        _, err = started.communicate(timeout=60)
    assert (started.returncode, err.strip()) == (1, "residentkv: error: interrupted")
    assert sorted(p.name for p in Path().iterdir()) == ["own.jsonl", "own.yaml", "pipe"]


@pytest.mark.parametrize(("columns", "variable"), [(40, None), (1, None), (80, "0")])
def test_a_terminal_of_any_width_shows_the_rows(columns: int, variable: str | None) -> None:
    """Lines fit it down to 20 columns, whatever COLUMNS says, and the exit code is that of the verdict."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"} | {"RESIDENTKV_CACHE": "cache"}
    environment |= {"TERM": "xterm", "NO_COLOR": "1"} | ({} if variable is None else {"COLUMNS": variable})
    words = [str(COMMAND), *CHECK, "--mode", "best_effort", "--explain"]
    with subprocess.Popen(words, stdout=theirs, stderr=theirs, env=environment) as started:
        os.close(theirs)
        shown = b"".join(iter(lambda: _read(ours), b"")).decode()
    os.close(ours)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r", "").splitlines()
    assert started.returncode == 11
    assert "resident_claims" in lines
    assert max(map(len, lines)) <= max(20, columns)


def _interrupt(started: subprocess.Popen[str]) -> None:
    """Press Ctrl-C, again when it came in the instant before a read, which Python then does not leave."""
    for _ in range(20):
        started.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(timeout=2)
            return


def _read(terminal: int) -> bytes:
    """Return what a terminal has; when nobody writes to it any more, reading is an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
