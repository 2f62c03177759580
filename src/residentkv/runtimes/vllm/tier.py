"""The second tier: one memory-mapped file a worker, a row a block, a checksum a row."""

from __future__ import annotations

import os
import tempfile
import zlib
from pathlib import Path
from typing import Any

import torch


class MmapTier:
    """Rows of KV bytes in a file that is mapped into memory.

    Shape: `rows` x the sum of the page sizes of `tensors`; row r holds one block, the pages of all tensors one after
    another. Safe while only one thread moves rows at a time. The checksum is CRC-32: it finds damage, not forgery.
    """

    def __init__(self, tensors: list[torch.Tensor], rows: int, folder: str | None, name: str) -> None:
        """Make the file and map it; it is deleted by `close`.

        Args:
            tensors: the worker's KV cache, each of shape [num_blocks, page_bytes], int8.
            rows: blocks that fit.
            folder: where the file lies, default the temporary folder.
            name: distinguishes engines and workers.
        """
        self._tensors = tensors
        self._device = tensors[0].device
        self._pages = [int(t.shape[1]) for t in tensors]
        self.row_bytes = sum(self._pages)
        self.rows = rows
        fd, path = tempfile.mkstemp(prefix=f"residentkv-{name}-", suffix=".kv", dir=folder)
        os.close(fd)
        self.path = Path(path)
        os.truncate(path, max(rows, 1) * self.row_bytes)
        self._map = torch.from_file(path, shared=True, size=max(rows, 1) * self.row_bytes, dtype=torch.int8)
        self._rows = self._map.view(max(rows, 1), self.row_bytes)
        self._sums: dict[int, int] = {}

    def store(self, block_ids: list[int], row_ids: list[int]) -> int:
        """Copy blocks into rows and write their checksums; return the bytes moved."""
        for block, row in zip(block_ids, row_ids, strict=True):
            pages = [tensor[block] for tensor in self._tensors]
            if self._device.type == "cpu":
                torch.cat(pages, out=self._rows[row])
            else:
                self._rows[row] = torch.cat(pages)  # One transfer a block.
            self._sums[row] = self.checksum(row)
        return len(row_ids) * self.row_bytes

    def load(self, row_ids: list[int], block_ids: list[int]) -> int:
        """Copy rows into blocks; return the bytes moved."""
        for row, block in zip(row_ids, block_ids, strict=True):
            pages = self._rows[row].to(self._device).split(self._pages)
            for tensor, page in zip(self._tensors, pages, strict=True):
                tensor[block] = page
        return len(row_ids) * self.row_bytes

    def checksum(self, row: int) -> int:
        """Compute the checksum of a row as it lies in the file now."""
        view: Any = self._rows[row].numpy()
        return zlib.crc32(view.data)

    def intact(self, row: int) -> bool:
        """Tell whether a row still is what was stored; a row that was never stored is not."""
        return self._sums.get(row) == self.checksum(row)

    def corrupt(self, row: int) -> None:
        """Flip the bits of the first bytes of a row and leave its checksum (fault)."""
        head = self._rows[row, :64]
        head.bitwise_not_()

    def zero(self, rows: list[int] | None = None) -> None:
        """Overwrite rows (None: all) with zeros and write checksums to match (fault)."""
        for row in range(self.rows) if rows is None else rows:
            self._rows[row].zero_()
            if row in self._sums:
                self._sums[row] = self.checksum(row)

    def close(self) -> None:
        """Delete the file; the mapping goes with the last reference to it."""
        self.path.unlink(missing_ok=True)
