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
        if not row_ids:
            return 0
        blocks, rows = torch.tensor(block_ids), torch.tensor(row_ids)
        offset = 0
        for tensor, page in zip(self._tensors, self._pages, strict=True):
            self._rows[rows, offset : offset + page] = tensor[blocks].to("cpu")
            offset += page
        for row in row_ids:
            self._sums[row] = self.checksum(row)
        return len(row_ids) * self.row_bytes

    def load(self, row_ids: list[int], block_ids: list[int]) -> int:
        """Copy rows into blocks; return the bytes moved."""
        if not row_ids:
            return 0
        blocks, rows = torch.tensor(block_ids), torch.tensor(row_ids)
        offset = 0
        for tensor, page in zip(self._tensors, self._pages, strict=True):
            tensor[blocks] = self._rows[rows, offset : offset + page].to(tensor.device)
            offset += page
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
