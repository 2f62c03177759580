"""Start the HTTP server of SGLang in an environment without a GPU: `python -m residentkv.runtimes.sglang.serve ARGS`.

Runs in the SGLang environment and imports it. SGLang spawns processes that import this module again as their main
module, so the stand-ins are put in place when it is imported, before anything of SGLang is.

What stands in for what (`STAND_INS` in `residentkv.runtimes.sglang.launch` says so in every trace):

- `sgl_kernel`, the package of GPU kernels: every function of it raises when it is called;
- `torchvision::nms` and `qnms`: declared, never called, so that torchvision can be imported beside this torch;
- the copy between device and host pool: an index copy of torch, in unpinned memory; `RESIDENTKV_COPY_FAULT` names a
  file that makes it fail on purpose.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

KERNELS = "sgl_kernel"
ABSENT = {f"{KERNELS}.scalar_type"}
"""Modules of constants, for which SGLang has a way of its own when they are missing."""
HOST_POOL = "sglang.srt.mem_cache.pool_host.mha"
FAULT_VARIABLE = "RESIDENTKV_COPY_FAULT"


class MissingKernels(ModuleType):
    """A module whose every function exists and raises when it is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        where = f"{self.__name__}.{name}"

        def missing(*args: object, **kwargs: object) -> object:
            raise RuntimeError(f"{where} was called, and there is no GPU kernel here")

        return missing


class KernelFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `sgl_kernel` and everything below it as a module without kernels."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for the kernels' modules only."""
        if (fullname != KERNELS and not fullname.startswith(KERNELS + ".")) or fullname in ABSENT:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Return the module without kernels."""
        return MissingKernels(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is to be run."""


class AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function with one module, once, right after it was imported."""

    def __init__(self, name: str, change: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._change = change

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the ordinary spec of the one module, with a loader that calls the function at the end."""
        if fullname != self._name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.loader is None:
            return None
        loader, change = spec.loader, self._change
        run = loader.exec_module

        def run_and_change(module: ModuleType) -> None:
            run(module)
            change(module)

        loader.exec_module = run_and_change  # type: ignore[method-assign]
        return spec


def copy_by_index(
    src_layers: Sequence[Any], dst_layers: Sequence[Any], src_indices: Any, dst_indices: Any, page_size: int
) -> None:
    """Copy rows of each layer from one pool to the other, as the GPU copy does; fail on purpose when asked to.

    The file named by `RESIDENTKV_COPY_FAULT` holds one word, while it is there: `raise` raises, `skip` leaves the
    target as it is and reports success. Both are for copies from the host pool, which is the larger of the two here.
    """
    fault = read_fault() if src_layers[0].shape[0] > dst_layers[0].shape[0] else ""
    if fault == "raise":
        raise RuntimeError("the copy from host to device failed on purpose")
    if fault == "skip":
        return
    for source, target in zip(src_layers, dst_layers, strict=True):
        target[dst_indices] = source[src_indices].to(target.dtype)


def read_fault() -> str:
    """Return the word of the fault that is ordered now, empty when there is none."""
    path = os.environ.get(FAULT_VARIABLE)
    try:
        return Path(path).read_text().strip() if path else ""
    except FileNotFoundError:
        return ""


def change_host_pool(module: ModuleType) -> None:
    """Put the index copy in the place of the GPU copy, in memory that is not pinned."""
    pool = module.MHATokenToKVPoolHost
    build = pool.__init__

    def build_unpinned(self: Any, *args: Any, **kwargs: Any) -> None:
        kwargs["pin_memory"] = False
        build(self, *args, **kwargs)

    pool.__init__ = build_unpinned
    module.__dict__["transfer_kv_direct"] = copy_by_index


def put_stand_ins() -> None:
    """Put everything in place that SGLang expects of a machine with a GPU; called before SGLang is imported."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    KEPT.append(library)
    sys.meta_path.insert(0, KernelFinder())
    sys.meta_path.insert(0, AfterImport(HOST_POOL, change_host_pool))
    if not hasattr(torch.cpu.Stream, "synchronize"):
        torch.cpu.Stream.synchronize = lambda self: None


KEPT: list[object] = []
"""Objects that must outlive this module's functions: a library of torch undoes its definitions when it goes."""


def main(arguments: list[str]) -> None:
    """Run the server until it is told to end."""
    from sglang.launch_server import run_server
    from sglang.srt.server_args import prepare_server_args

    run_server(prepare_server_args(arguments))


if __name__ in ("__main__", "__mp_main__"):
    put_stand_ins()
if __name__ == "__main__":
    main(sys.argv[1:])
