"""One more epoch, as the bytes that Zarr would write for it.

Growing an array through Zarr's own interface reads back its metadata and its last chunk, several milliseconds for each
array at each epoch. All of that is known to the single writer, so the entries of a commit are made here from memory and
set at once. Readers use Zarr itself, and the tests compare the two.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from itertools import product
from typing import Any

import icechunk
import numpy as np
import numpy.typing as npt
import zarr
from zarr.buffer import cpu, default_buffer_prototype
from zarr.core.sync import sync

from hiddenscope.errors import RunFormatError
from hiddenscope.layout import array


class Pages:
    """The layout of one array that grows along its first axis: uncompressed chunks of known shape.

    Raises:
        RunFormatError: the array is compressed, or its chunks are named otherwise.
    """

    def __init__(self, root: zarr.Group, path: str) -> None:
        stored = array(root, path)
        buffers = stored.metadata.to_buffer_dict(default_buffer_prototype())
        self.path = path
        self._metadata: dict[str, Any] = json.loads(buffers["zarr.json"].to_bytes())
        self._chunk: tuple[int, ...] = stored.chunks
        self._dtype = np.dtype(stored.dtype).newbyteorder("<")
        self._fill = stored.fill_value
        codecs = [(codec["name"], codec.get("configuration", {})) for codec in self._metadata["codecs"]]
        plain = codecs in ([("bytes", {"endian": "little"})], [("bytes", {})])
        keys = {"name": "default", "configuration": {"separator": "/"}}
        if not plain or self._metadata["chunk_key_encoding"] != keys:
            raise RunFormatError(f"the array {path!r} is stored in a way that this version cannot continue")

    def entries(self, block: npt.NDArray[Any], first: int, *, length: int) -> dict[str, bytes]:
        """What makes the array ``length`` long with ``block`` as its rows from ``first`` on.

        ``first`` begins a chunk, and the chunks from there on are written whole.
        """
        shape = (length, *block.shape[1:])
        entries = {f"{self.path}/zarr.json": json.dumps({**self._metadata, "shape": shape}).encode()}
        grid = [range(-(-size // chunk)) for size, chunk in zip(block.shape, self._chunk, strict=True)]
        for index in product(*grid):
            where = tuple(slice(i * size, (i + 1) * size) for i, size in zip(index, self._chunk, strict=True))
            part = block[where]
            if part.shape != self._chunk:
                whole = np.full(self._chunk, self._fill, dtype=self._dtype)
                whole[tuple(slice(size) for size in part.shape)] = part
                part = whole
            key = "/".join(map(str, (first // self._chunk[0] + index[0], *index[1:])))
            entries[f"{self.path}/c/{key}"] = part.astype(self._dtype, copy=False).tobytes()
        return entries

    def tail(self, row: int) -> int:
        """The first row of the chunk that holds ``row``."""
        return row - row % self._chunk[0]


def set_entries(session: icechunk.Session, entries: Mapping[str, bytes]) -> None:
    """Put all entries into an uncommitted session, side by side: first the shapes, then what they make room for."""
    store = session.store
    shapes = {key: value for key, value in entries.items() if key.endswith("/zarr.json")}
    chunks = {key: value for key, value in entries.items() if key not in shapes}

    async def together() -> None:
        for batch in (shapes, chunks):
            puts = (store.set(key, cpu.Buffer.from_bytes(value)) for key, value in batch.items())
            for outcome in await asyncio.gather(*puts, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome

    sync(together())
