"""Settings, versions and the entry point."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from residentkv.errors import InputError
from residentkv.runtimes.vllm import plugin, versions
from residentkv.runtimes.vllm.options import decode_options


def test_settings_left_out_have_defaults() -> None:
    """No log, no faults, checksums verified, one attempt."""
    options = decode_options({})
    assert (options.trace_path, options.faults_path, options.verify_checksums) == (None, None, True)
    assert options.restore_attempts == 1
    assert options.control is False


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        ({"traces": "x"}, "traces"),
        ({"restore_attempts": 0}, "restore_attempts"),
        ({"control": "yes"}, "control"),
        ({"actions": ["demote"]}, "actions"),
        ({"actions": ["defer", "demote", "refuse"]}, "actions"),
        ({"actions": ["defer", "refuse"], "defer_s": 0}, "defer_s"),
    ],
)
def test_a_wrong_setting_is_named(raw: dict[str, object], word: str) -> None:
    """Nothing is ignored and nothing converted."""
    with pytest.raises(InputError, match=word):
        decode_options({"residentkv": raw})


@pytest.mark.parametrize("version", ["0.32.0", "0.32.0+cpu"])
def test_a_tested_version_is_accepted_whatever_its_build(version: str) -> None:
    """The build tag says nothing about the interfaces."""
    assert versions.refusal_for(version) is None


@pytest.mark.parametrize("version", ["0.33.0", "0.31.1", "0.32.0rc1", "0.32.1", "", "main"])
def test_any_other_version_is_refused_in_one_sentence(version: str) -> None:
    """Fail-closed: no claim is accepted on interfaces that were not tested, and the message says what to do."""
    why = versions.refusal_for(version)
    assert why is not None
    assert "served unclaimed" in why
    assert "0.32.0" in why


def test_the_plugin_is_registered_as_a_general_plugin() -> None:
    """vLLM finds it in every process by its entry point."""
    (found,) = [e for e in entry_points(group="vllm.general_plugins") if e.name == "residentkv"]
    assert found.value == "residentkv.runtimes.vllm.plugin:register"


def test_the_engine_settings_name_what_exists() -> None:
    """Module paths and class names agree with the files of the plugin."""
    settings = plugin.engine_settings(tier_bytes=1)
    transfer = settings["kv_transfer_config"]
    assert transfer["kv_connector_extra_config"]["spec_name"] == plugin.SPEC
    assert settings["scheduler_cls"].rsplit(".", 1)[1] == "make_scheduler"
