"""Entry point `vllm.general_plugins`, and the engine settings that switch the plugin on.

The plugin does nothing until an engine is configured with its connector and its scheduler class.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

CONNECTOR = "ResidentOffloadingConnector"
CONNECTOR_MODULE = "residentkv.runtimes.vllm.connector"
SPEC = "ResidentOffloadingSpec"
SPEC_MODULE = "residentkv.runtimes.vllm.spec"
SCHEDULER = "residentkv.runtimes.vllm.scheduler.make_scheduler"

logger = logging.getLogger("vllm.residentkv")


def register() -> None:
    """Make the connector and the offloading spec known by name; called in every process, any number of times."""
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
    from vllm.v1.kv_offload.factory import OffloadingSpecFactory

    for register_one, name, module in (
        (KVConnectorFactory.register_connector, CONNECTOR, CONNECTOR_MODULE),
        (OffloadingSpecFactory.register_spec, SPEC, SPEC_MODULE),
    ):
        try:
            register_one(name, module, name)
        except ValueError:
            logger.debug("%s is registered already", name)


def engine_settings(
    *, tier_bytes: int, load_failure_policy: str = "fail", options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the engine arguments that switch the plugin on.

    Args:
        tier_bytes: size of the second tier, over all workers.
        load_failure_policy: vLLM's `kv_load_failure_policy`, which governs loads that restore no claim.
        options: `PluginOptions` as a mapping.
    """
    return {
        "scheduler_cls": SCHEDULER,
        "kv_transfer_config": {
            "kv_connector": CONNECTOR,
            "kv_connector_module_path": CONNECTOR_MODULE,
            "kv_role": "kv_both",
            "kv_load_failure_policy": load_failure_policy,
            "kv_connector_extra_config": {
                "spec_name": SPEC,
                "spec_module_path": SPEC_MODULE,
                "cpu_bytes_to_use": tier_bytes,
                "residentkv": dict(options or {}),
            },
        },
    }
