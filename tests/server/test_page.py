"""docs/server.md names what there is: the command line, statuses, headers, metrics and routes."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from http import HTTPStatus
from pathlib import Path
from typing import get_args

from residentkv.runtimes.vllm.options import decode_options
from residentkv.server import middleware
from residentkv.server.errors import decision_headers, problem_error
from residentkv.server.metrics import EngineMetrics
from residentkv.server.owners import read_owners
from residentkv.server.wire import Problem, ProblemCode
from tests.server.counter import sha

PAGE = (Path(__file__).parent.parent.parent / "docs" / "server.md").read_text()


def test_the_command_line_starts_a_server_with_these_settings() -> None:
    """The example prints a line from which the engine and the middleware read back the same socket."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(re.findall(r"```python\n(.*?)```", PAGE, re.S)[0], {})
    words = shlex.split(printed.getvalue())
    options = dict(zip(words[5::2], words[6::2], strict=True))
    name, _, path = words[1].partition("=")
    extra = json.loads(options["--kv-transfer-config"])["kv_connector_extra_config"]
    assert (name, path) == (middleware.SOCKET_VARIABLE, decode_options(extra).socket_path)
    assert options["--middleware"] == f"{middleware.__name__}.{middleware.ResidentClaims.__name__}"
    assert int(options["--shutdown-timeout"]) > 0


def test_the_owners_file_of_the_page_is_one(tmp_path: Path) -> None:
    """With digests in the places for them."""
    text = re.findall(r"```json\n(.*?)```", PAGE, re.S)[0]
    for name in ("a", "b"):
        text = text.replace("<64 hex digits>", sha(name), 1)
    (tmp_path / "owners.json").write_text(text)
    owner = read_owners(str(tmp_path / "owners.json")).of_token(sha("b"))
    assert owner is not None and owner.owner_scope == "tenant-b"


def test_every_metric_and_header_of_the_page_exists() -> None:
    """And none is left out."""

    class Log:
        events_written = events_lost = write_ns = 0

    rendered = set(re.findall(r"^# HELP (\w+) ", EngineMetrics().render(Log(), [], 0), re.M))
    listed = set(re.findall(r"`(residentkv_(?!ticket)\w+)", PAGE))
    assert {n for n in rendered if not n.endswith("_created")} == listed
    fields = dict.fromkeys(("decision", "reason", "mode", "clipped_from", "claim_id"), "x")
    headers = {k.decode() for k, _ in decision_headers(fields)} | {"x-residentkv-refusal"}
    assert headers == set(re.findall(r"^\| `(x-residentkv-[a-z-]+)`", PAGE, re.M))


def test_every_status_of_the_page_is_used() -> None:
    """All problems of the desk have the type that the page gives their status."""
    rows = {(int(status), kind) for status, kind in re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, re.M)}
    for code in get_args(ProblemCode):
        error = problem_error(Problem(code=code, message=""))
        assert (int(error.status), error.type) in rows
    assert {status for status, _ in rows} <= {int(s) for s in HTTPStatus}
