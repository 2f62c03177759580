"""Which vLLM versions the plugin was tested with; on any other one it accepts no claim and serving goes on."""

from __future__ import annotations

TESTED: frozenset[str] = frozenset({"0.32.0"})
"""Releases whose extension points and private state `private.py` was tested against; build tags do not matter."""

CHANGED_MESSAGE = (
    "residentkv: vLLM {found} is not in the tested list ({tested}); no resident claim will be accepted and requests "
    "are served unclaimed; install a tested version, or run the live tests on this one and set "
    "residentkv.unsafe_allow_untested_version"
)


def release_of(version: str) -> str:
    """Return the version without its build tag: `0.32.0+cpu` is release `0.32.0`."""
    return version.split("+", 1)[0].strip()


def installed_version() -> str:
    """Return the version that the imported vLLM states."""
    import vllm

    return str(vllm.__version__)


def refusal_for(version: str) -> str | None:
    """Return why no claim can be accepted on this vLLM version, or None when it was tested."""
    release = release_of(version)
    if release in TESTED:
        return None
    return CHANGED_MESSAGE.format(found=version or "of unknown version", tested=", ".join(sorted(TESTED)))
