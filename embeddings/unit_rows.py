"""Nodes sorted by unit, so that each unit's slices lie side by side in memory.

The inter-step kernel compares a unit with itself at every other slice; the engine therefore keeps one row per present
node, unit by unit and slice by slice, and leaves excluded nodes (missing steps) out altogether.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hiddenscope.embeddings.nodes import present_nodes
from hiddenscope.trace import FloatArray

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True)
class UnitRows:
    """Present nodes in the order (unit, slice).

    Attributes:
        values: shape (row, feature), float32: normalized responses.
        offsets: shape (unit + 1,): unit u owns the rows offsets[u] to offsets[u + 1].
        slices: shape (row,): the slice of each row.
        index: shape (slice, unit): the row of each node, -1 where the node is excluded.
    """

    values: Float32Array
    offsets: npt.NDArray[np.int64]
    slices: IntArray
    index: IntArray

    @property
    def n_units(self) -> int:
        """Number of units, counted with those that have no present node."""
        return len(self.offsets) - 1

    def of(self, unit: int) -> slice:
        """The rows of a unit."""
        return slice(int(self.offsets[unit]), int(self.offsets[unit + 1]))

    def to_nodes(self, rows: Float32Array) -> Float32Array:
        """Per-row results, shape (row, component), as (slice, unit, component) with NaN for excluded nodes."""
        nodes = np.full((*self.index.shape, rows.shape[1]), np.nan, np.float32)
        units = np.repeat(np.arange(self.n_units), np.diff(self.offsets))
        nodes[self.slices, units] = rows
        return nodes

    def from_nodes(self, nodes: Float32Array) -> Float32Array:
        """The rows of per-node results, shape (slice, unit, component): the inverse of `to_nodes`."""
        units = np.repeat(np.arange(self.n_units), np.diff(self.offsets))
        return nodes[self.slices, units]


def unit_rows(nodes: FloatArray) -> UnitRows:
    """Sort normalized nodes by unit.

    Args:
        nodes: shape (slice, unit, feature); a node with NaN is excluded (see `hiddenscope.embeddings.nodes.normalize`).

    Raises:
        ValueError: no node is present.

    >>> unit_rows(np.array([[[1.0, -1.0], [np.nan, np.nan]], [[0.0, 0.0], [-1.0, 1.0]]])).index.tolist()
    [[0, -1], [1, 2]]
    """
    present = present_nodes(nodes).T
    if not present.any():
        raise ValueError("every node of the trace has missing values; at least one slice must be complete")
    units, slices = np.nonzero(present)
    index = np.full(present.shape, -1, np.int32)
    index[units, slices] = np.arange(len(units), dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int64)
    values = np.empty((len(units), nodes.shape[2]), np.float32)
    for unit in range(len(present)):
        values[offsets[unit] : offsets[unit + 1]] = nodes[present[unit], unit]
    return UnitRows(values, offsets, slices.astype(np.int32), np.ascontiguousarray(index.T))
