"""Files of git repositories at a commit, read from a local checkout with `git cat-file`."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from residentkv.lowering.anchors import TargetAbsentError, TargetUnreadableError
from residentkv.sources.cache import MAX_FILE_BYTES

_TIMEOUT_S = 60


def normalise_repository(name: str) -> str:
    """Return a repository's name without scheme, user, `.git` and case of the host, as `host/owner/name`."""
    name = re.sub(r"^(?:[a-z+]+://)?(?:[^@/]*@)?", "", name.strip())
    name = re.sub(r"^([^/:]+):(?!\d)", r"\1/", name)
    host, _, rest = name.rstrip("/").partition("/")
    return f"{host.lower()}/{rest.removesuffix('.git')}"


class Checkouts:
    """Named local checkouts, and those in the cache folder."""

    def __init__(self, named: dict[str, Path], folder: Path) -> None:
        self._named = {normalise_repository(k): v for k, v in named.items()}
        self._folder = folder
        self._known: dict[tuple[Path, str, str], bytes] = {}

    def read(self, repository: str, commit: str, file: str) -> bytes:
        """Return a file at a commit.

        A commit id names its content, so a checkout that has the commit has the right text whatever its name; and what
        was read once is not read again.

        Raises:
            TargetAbsentError: the commit has no such file.
            TargetUnreadableError: no checkout, or it lacks the commit, or git failed.
        """
        name = normalise_repository(repository)
        where = self._named.get(name, self._folder / name.replace("/", "+"))
        if (where, commit, file) in self._known:
            return self._known[where, commit, file]
        if not where.is_dir():
            raise TargetUnreadableError(f"no checkout of {name} is at hand; give --checkout {name}=DIR")
        if _git(where, "cat-file", "-t", commit).strip() != b"commit":
            raise TargetUnreadableError(f"{where} has no commit {commit}; fetch it there")
        if not _git(where, "ls-tree", "-z", commit, "--", f":(top,literal){file}"):
            raise TargetAbsentError(f"{file} is not in {name} at {commit[:12]}")
        size = _git(where, "cat-file", "-s", f"{commit}:{file}").strip()
        if not size.isdigit():
            raise TargetUnreadableError(f"{file} of {name} at {commit[:12]} is not in {where}; fetch it there")
        if int(size) > MAX_FILE_BYTES:
            raise TargetUnreadableError(f"{file} is larger than {MAX_FILE_BYTES} bytes")
        self._known[where, commit, file] = _git(where, "cat-file", "blob", f"{commit}:{file}", must=True)
        return self._known[where, commit, file]


def _git(where: Path, *arguments: str, must: bool = False) -> bytes:
    """Run git without configuration of the machine, replacement objects, prompts or network."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": str(where.resolve()),
    }
    try:
        done = subprocess.run(
            ["git", "-C", str(where), *arguments],
            capture_output=True,
            env=environment,
            timeout=_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise TargetUnreadableError(f"git could not be run in {where}: {e}") from None
    if done.returncode != 0:
        if must:
            why = done.stderr.decode(errors="replace")[:200]
            raise TargetUnreadableError(f"git {arguments[0]} failed in {where}: {why}")
        return b""
    return done.stdout
