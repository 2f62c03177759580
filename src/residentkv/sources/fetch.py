"""Fetches one version of a package with pip, only to be read; it is never installed or imported."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from residentkv.errors import NoInputError, UsageError
from residentkv.sources.archives import open_archive

_TIMEOUT_S = 3600


def parse_exact(text: str) -> tuple[str, str]:
    """Read `NAME==VERSION`.

    Raises:
        UsageError: it is anything else (a range, an extra, a marker, an address).
    """
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        requirement = None
    specifiers = list(requirement.specifier) if requirement is not None else []
    is_exact = len(specifiers) == 1 and specifiers[0].operator == "==" and "*" not in specifiers[0].version
    if requirement is None or not is_exact or requirement.extras or requirement.url or requirement.marker:
        raise UsageError(f"found {text[:80]!r}, expected NAME==VERSION")
    return requirement.name, specifiers[0].version


def fetch_package(name: str, version: str, folder: Path, *, sdist: bool = False) -> Path:
    """Download one wheel (or, when asked, the sdist) into a folder and return its path.

    Args:
        name: distribution.
        version: exact version.
        folder: where it goes; made when it does not exist.
        sdist: take the source archive. pip then runs the build backend of the package to learn its metadata,
            which executes code of the package; a wheel is only downloaded.

    Raises:
        NoInputError: pip is missing or failed, or brought something else; nothing is left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    choice = ["--no-binary", ":all:"] if sdist else ["--only-binary", ":all:"]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *choice, "--dest", temporary]
        environment = {**os.environ, "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        try:
            done = subprocess.run(
                [*command, f"{name}=={version}"],
                capture_output=True,
                text=True,
                errors="replace",
                env=environment,
                stdin=subprocess.DEVNULL,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            raise NoInputError(f"{name}=={version}: pip could not be run: {e}") from None
        if done.returncode != 0:
            raise NoInputError(f"{name}=={version}: pip download failed: {_last_error(done.stderr)}")
        files = sorted(Path(temporary).iterdir())
        if len(files) != 1:
            raise NoInputError(f"{name}=={version}: pip brought {len(files)} files, expected one")
        copy = open_archive(files[0])
        if canonicalize_name(copy.distribution) != canonicalize_name(name):
            raise NoInputError(f"{name}=={version}: pip brought {copy.distribution} {copy.version}")
        target = folder / files[0].name
        files[0].replace(target)
        return target


def _last_error(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["no message"])[-1].removeprefix("ERROR: ")[:300]
