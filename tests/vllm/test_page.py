"""docs/vllm.md names what the plugin has: every field, option and reason, and its examples run as far as they can."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import msgspec

from residentkv.claims import arbiter
from residentkv.claims.model import ClaimRequest, decode_claim_request
from residentkv.claims.params import CLAIM_PARAM
from residentkv.runtimes.vllm import claimbook, intake, versions
from residentkv.runtimes.vllm.options import SUPPORTED_MODES, PluginOptions, decode_options
from residentkv.runtimes.vllm.plugin import engine_settings
from residentkv.trace.codec import EVENT_TYPES

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "vllm.md").read_text()
PLUGIN = ROOT / "src" / "residentkv" / "runtimes" / "vllm"


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_option_is_listed_with_its_default() -> None:
    """The table of options is the struct that decodes them, in its order."""
    listed = [row[0].strip("`") for row in rows(section("Options"))]
    assert sorted(listed) == sorted(f.name for f in msgspec.structs.fields(PluginOptions))
    words = {"true": True, "false": False, "none": None, "temporary folder": None, "vLLM's": None, "`run`": "run"}
    empty = {"stands_in": (), "off": frozenset()}
    actions = ", ".join(action.value for action in PluginOptions().actions)
    for name, default, _ in rows(section("Options")):
        if name == "`actions`":
            assert default == actions
            continue
        if default == "empty":
            assert getattr(PluginOptions(), name.strip("`")) == empty[name.strip("`")]
            continue
        value = words[default] if default in words else int(default)
        assert value == getattr(PluginOptions(), name.strip("`")), name


def test_every_field_of_a_claim_is_listed() -> None:
    """The first table of the claim has the fields of the wire form, and says which of them are required."""
    asked, answered = section("`resident_claim`").split("The answer is in")
    listed = {name.strip("` "): need for row in rows(asked) for name in row[0].split(",") for need in [row[1]]}
    fields = {f.name: f for f in msgspec.structs.fields(ClaimRequest)}
    assert listed.keys() == fields.keys()
    assert {n for n, need in listed.items() if need == "required"} == {n for n, f in fields.items() if f.required}
    source = (PLUGIN / "intake.py").read_text()
    described = re.findall(r'^        "(\w+)": ', source.split("def describe")[1].split("\ndef ")[0], re.M)
    assert set(described) <= set(re.findall(r"`(\w+)`", answered))
    assert set(re.findall(r"`((?:scheduler_)?active_request\w+)`", PAGE)) <= set(EVENT_TYPES)


def test_every_reason_of_a_rejection_is_listed() -> None:
    """Reasons are words in the code of the arbiter, the intake, the claim book and the connector."""
    decide = Path(arbiter.__file__).read_text().split("def decide_claim")[1].split("def decide_request")[0]
    reasons = set(re.findall(r'Answer\.REJECTED,\s*"(\w+)"', decide)) | set(re.findall(r'reason = "(\w+)"', decide))
    text = "".join(Path(m.__file__).read_text() for m in (intake, claimbook)) + (PLUGIN / "connector.py").read_text()
    reasons |= set(re.findall(r'"rejected", "(\w+)"', text))
    reasons |= set(re.findall(r'_no\(claim, "(\w+)"', text))
    reasons |= set(re.findall(r'return "(\w+)", ', text))
    reasons |= set(re.findall(r'refuses_all = \("(\w+)"', text))
    reasons |= set(re.findall(r'"decision": "rejected", "reason": "(\w+)"', text))
    assert len(reasons) > 15
    assert reasons - set(re.findall(r"`(\w+)`", section("`resident_claim`"))) == set()


def test_the_readme_claims_what_the_plugin_takes() -> None:
    """The example of the README is Python, its claim can be read, and its settings are settings of the plugin."""
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    tree = ast.parse(example)
    (claim,) = (
        ast.literal_eval(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "claim"
    )
    assert decode_claim_request(claim).mode in {mode.value for mode in SUPPORTED_MODES}
    (call,) = (n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == engine_settings.__name__)
    given = {word.arg: eval(ast.unparse(word.value), {}) for word in call.keywords if word.arg is not None}
    settings = engine_settings(**given)["kv_transfer_config"]["kv_connector_extra_config"]
    assert decode_options(settings).trace_path == "trace.jsonl"
    assert CLAIM_PARAM in example


def test_modes_and_versions_are_those_of_the_plugin() -> None:
    """The page names the modes that are kept and the tested versions, and no others."""
    opening = PAGE.split("\n## ")[0]
    kept = set(re.findall(r"`(\w+)`, ", opening)) - {"mode_unsupported"}
    assert kept == {mode.value for mode in SUPPORTED_MODES}
    assert set(re.findall(r"\*\*([\d.]+)\*\*", opening)) == versions.TESTED


def test_the_server_command_line_carries_the_settings() -> None:
    """The second example prints a command line from which a server reads back the engine settings."""
    offline, server = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    ast.parse(offline)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(server, {})
    words = shlex.split(printed.getvalue())
    options = dict(zip(words[5::2], words[6::2], strict=True))
    settings = engine_settings(tier_bytes=4 << 30, options={"trace_path": "trace.jsonl"})
    assert options["--scheduler-cls"] == settings["scheduler_cls"]
    config = json.loads(options["--kv-transfer-config"])
    assert config == settings["kv_transfer_config"]
    assert decode_options(config["kv_connector_extra_config"]).trace_path == "trace.jsonl"
