"""The stages of the streaming solver on a torch device, for traces that keep a processor busy for minutes.

Same formulas, same random draws and same landmarks as the compiled stages, other arithmetic: terms are added in another
order, sums over landmarks are products of dense tiles, and the search for nearest slices is always exact. Pictures
therefore agree with the compiled ones up to rounding (and to what probing clusters misses in very long traces), not bit
by bit; where two arrangements fit nearly as well, metric MDS may carry the rounding far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hiddenscope.embeddings import diffusion, mds
from hiddenscope.embeddings.bandwidth import Bandwidth, sampled_slices, summarized
from hiddenscope.embeddings.intra import CUTOFF, IntraKernel
from hiddenscope.embeddings.landmarks import Landmarks
from hiddenscope.embeddings.mds import Placement
from hiddenscope.embeddings.threads import ranges
from hiddenscope.embeddings.unit_rows import IntArray, UnitRows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TILE_VALUES = 2**26  # of the largest temporary array: 256 MB of float32
_LIMIT = -math.log(CUTOFF)


def open_device(name: str) -> torch.device:
    """The torch device called ``name``.

    Raises:
        ValueError: there is no such device here.
    """
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        have = ", ".join(repr(one) for one in _devices())
        reason = str(error).splitlines()[0]
        raise ValueError(f"got device {name!r}; this machine has {have} ({reason})") from None
    return device


@dataclass(frozen=True)
class DeviceRows:
    """Nodes sorted by unit, on a device; see `UnitRows`.

    Attributes:
        rows: the same in memory.
        values: shape (row, feature).
        index: shape (slice, unit), -1 where the node is excluded.
    """

    rows: UnitRows
    values: Tensor
    index: Tensor


@dataclass(frozen=True)
class DeviceSums:
    """What streaming over the nodes gives: the landmark operator, and all that interpolation needs.

    Attributes:
        symmetric: shape (landmark, landmark): the symmetric form of the operator.
        degrees: shape (landmark,).
        node_degrees: shape (row,).
        sources: shape (entry,): rows of the intra-step affinities.
        neighbors: shape (entry,): the rows on the other side.
        weights: shape (entry,).
    """

    symmetric: Tensor
    degrees: Tensor
    node_degrees: Tensor
    sources: Tensor
    neighbors: Tensor
    weights: Tensor


def on_device(rows: UnitRows, device: torch.device) -> DeviceRows:
    """Copy the nodes over."""
    import torch

    return DeviceRows(
        rows, torch.from_numpy(rows.values).to(device), torch.from_numpy(rows.index.astype(np.int64)).to(device)
    )


def inter_bandwidth(nodes: DeviceRows, *, knn: int, sampled_rows: Any, seed: int) -> Bandwidth:
    """As `hiddenscope.embeddings.bandwidth.inter_bandwidth`, at the same slices."""
    import torch

    per_unit = []
    for unit, chosen, neighbor in sampled_slices(nodes.rows, knn=knn, sampled_rows=sampled_rows, seed=seed):
        points = nodes.values[nodes.rows.of(unit)]
        found = []
        for start, stop in ranges(len(chosen), _tile(len(points))):
            part = points[torch.from_numpy(chosen[start:stop]).to(points.device)]
            found.append(_distances(part, points).kthvalue(neighbor + 1, dim=1).values)
        per_unit.append((torch.cat(found).cpu().numpy(), len(points)))
    return summarized(per_unit)


def intra_entries(nodes: DeviceRows, *, knn: int, decay: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sources, neighbors and weights of the kernel within slices, sorted by source."""
    import torch

    sources, neighbors, weights = [], [], []
    units = nodes.index.shape[1]
    floor = float(np.finfo(np.float64).eps)
    for start, stop in ranges(len(nodes.index), max(1, TILE_VALUES // (4 * units * units))):
        index = nodes.index[start:stop]
        apart, absent = within_slices(nodes, index)
        size = (~absent).sum(dim=1)
        rank = (size - 2).clamp(min=0, max=knn)
        ordered = apart.sort(dim=2).values  # each node itself is left out of its row, far away
        width = ordered.gather(2, (rank - 1).clamp(min=0)[:, None, None].expand(-1, units, 1))[:, :, 0]
        width = torch.where((rank > 0)[:, None], width, torch.zeros_like(width)).clamp(min=floor)
        ratios = apart / width[:, :, None]
        directed = torch.exp(-(ratios.clamp(max=1e6) ** decay))
        directed = torch.where(ratios**2 > _LIMIT ** (2 / decay), torch.zeros_like(directed), directed)
        weight = (directed + directed.transpose(1, 2)) / 2
        eye = torch.eye(units, dtype=torch.bool, device=index.device)
        weight = weight.masked_fill(absent[:, :, None] | absent[:, None, :] | eye, 0.0)
        where, one, other = weight.nonzero(as_tuple=True)
        sources.append(index[where, one])
        neighbors.append(index[where, other])
        weights.append(weight[where, one, other])
    joined = torch.cat(sources)
    order = joined.argsort(stable=True)
    return joined[order], torch.cat(neighbors)[order], torch.cat(weights)[order]


def intra_in_memory(entries: tuple[Tensor, Tensor, Tensor], count: int) -> IntraKernel:
    """The entries for ``count`` rows as the compiled stages have them."""
    sources, neighbors, weights = (part.cpu().numpy() for part in entries)
    starts = np.searchsorted(sources, np.arange(count + 1)).astype(np.int64)
    return IntraKernel(starts, neighbors.astype(np.int32), weights)


def landmark_sums(
    nodes: DeviceRows,
    entries: tuple[Tensor, Tensor, Tensor],
    landmarks: Landmarks,
    *,
    bandwidth: float,
    exact: bool,
) -> DeviceSums:
    """The landmark operator, from dense tiles of W (see `hiddenscope.embeddings.transitions`)."""
    import torch

    count = len(landmarks.centers)
    gram = torch.zeros((count, count), device=nodes.values.device)
    degrees = torch.zeros(count, dtype=torch.float64, device=nodes.values.device)
    node_degrees = torch.empty(len(nodes.values), device=nodes.values.device)
    sums = DeviceSums(gram, degrees, node_degrees, *entries)
    for here, tile in _tiles(nodes, sums, landmarks, bandwidth=bandwidth, exact=exact):
        node_degrees[here] = tile.sum(dim=1)
        degrees += tile.sum(dim=0, dtype=torch.float64)
        gram += tile.T @ (tile / node_degrees[here, None])
    root = degrees.sqrt().float()
    symmetric = gram / root / root[:, None]
    return DeviceSums((symmetric + symmetric.T) / 2, degrees.float(), node_degrees, *entries)


def interpolate(
    nodes: DeviceRows, sums: DeviceSums, landmarks: Landmarks, positions: Tensor, *, bandwidth: float, exact: bool
) -> Tensor:
    """Positions of all rows: each the affinity-weighted mean of the landmarks."""
    result = positions.new_empty((len(nodes.values), positions.shape[1]))
    for here, tile in _tiles(nodes, sums, landmarks, bandwidth=bandwidth, exact=exact):
        result[here] = (tile @ positions) / tile.sum(dim=1, keepdim=True)
    return result


def spectrum(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors."""
    import torch

    values, vectors = torch.linalg.eigh(symmetric)
    return values, vectors


def potential_distances(values: Tensor, vectors: Tensor, degrees: Tensor, *, t: int, gamma: float) -> Tensor:
    """As `hiddenscope.embeddings.diffusion.potential_distances`."""
    import torch

    powers = values.double() ** t
    kept = powers.abs() > diffusion.NEGLIGIBLE
    root = degrees.sqrt()
    right = vectors[:, kept]
    potential = ((right * powers[kept].float() / root[:, None]) @ right.T * root).clamp(min=0.0)
    informative = -torch.log(potential + 1e-7) if gamma == 1 else potential ** ((1 - gamma) / 2) * (2 / (1 - gamma))
    potential = informative - informative.mean(dim=0)
    squares = (potential * potential).sum(dim=1)
    distances = (squares[:, None] + squares - 2 * (potential @ potential.T)).clamp(min=0.0).sqrt()
    distances = (distances + distances.T) / 2
    return distances.fill_diagonal_(0.0)


def metric_mds(distances: Tensor, n_components: int, *, seed: int) -> tuple[Tensor, Placement]:
    """As `hiddenscope.embeddings.mds.metric_mds` from its classic start; the start is made in memory."""
    import torch

    start = mds.classic_mds(distances.cpu().numpy(), n_components, seed=seed)
    positions = torch.from_numpy(start - start.mean(axis=0)).to(distances.device)
    count = len(positions)
    scale = float((distances.double() ** 2).sum()) / 2
    if scale == 0.0 or count < 2:
        still = np.zeros_like(start)
        return torch.from_numpy(still).to(distances.device), Placement(still, 0.0, 0)
    previous, stress, stride, done = math.inf, 0.0, 2.0, 0
    for done in range(1, mds.ROUNDS + 1):
        apart = _distances(positions, positions)
        stress = float(((distances - apart).double() ** 2).sum()) / 2
        ratio = (distances / apart.clamp(min=1e-12)).fill_diagonal_(0.0)
        moved = (ratio.sum(dim=1, keepdim=True) * positions - ratio @ positions) / count
        if previous - stress < mds.TOLERANCE * stress:
            if stride == 1.0:
                positions = moved
                break
            stride = 1.0
        previous = stress
        positions = positions + (stride if done < mds.ROUNDS else 1.0) * (moved - positions)
    positions = positions - positions.mean(dim=0)
    return positions, Placement(positions.cpu().numpy(), stress / scale, done)


def nearest_slices(nodes: DeviceRows, n_neighbors: int) -> IntArray:
    """For every row, its nearest rows of the same unit, by exact search; itself where there are fewer."""
    import torch

    found = torch.arange(len(nodes.values), device=nodes.values.device)[:, None].repeat(1, n_neighbors)
    for unit in range(nodes.rows.n_units):
        here = nodes.rows.of(unit)
        points = nodes.values[here]
        rank = min(n_neighbors, len(points) - 1)
        if rank < 1:
            continue
        for start, stop in ranges(len(points), _tile(len(points))):
            apart = _distances(points[start:stop], points)
            apart[torch.arange(stop - start), torch.arange(start, stop)] = math.inf
            nearest = apart.topk(rank, dim=1, largest=False, sorted=True).indices
            found[here.start + start : here.start + stop, :rank] = nearest + here.start
    nearest_rows: IntArray = found.to(torch.int32).cpu().numpy()
    return nearest_rows


def _tiles(nodes: DeviceRows, sums: DeviceSums, landmarks: Landmarks, *, bandwidth: float, exact: bool) -> Any:
    """Row ranges and the rows of W that belong to them, shape (row, landmark)."""
    import torch

    device = nodes.values.device
    count = len(landmarks.centers)
    labels = torch.from_numpy(landmarks.labels.astype(np.int64)).to(device)
    centers = torch.from_numpy(landmarks.centers).to(device)
    sizes = torch.from_numpy(landmarks.sizes.astype(np.float32)).to(device)
    rows = torch.arange(len(nodes.values) + 1, device=device)
    starts = torch.searchsorted(sums.sources.contiguous(), rows).cpu().numpy()
    for unit in range(nodes.rows.n_units):
        here, own = nodes.rows.of(unit), landmarks.of(unit)
        points = nodes.values[here]
        members = labels[here] - own.start
        for start, stop in ranges(len(points), _tile(max(len(points) if exact else 0, count))):
            part = slice(here.start + start, here.start + stop)
            tile = torch.zeros((stop - start, count), device=device)
            block = tile[:, own]
            rows = torch.arange(stop - start, device=device)
            if exact:
                affinities = _affinities(points[start:stop], points, bandwidth)
                affinities[rows, rows + start] = 1.0
                block.index_add_(1, members, affinities)
            else:
                affinities = _affinities(points[start:stop], centers[own], bandwidth)
                block += sizes[own] * affinities
                mine = members[start:stop]
                block[rows, mine] += 1 - affinities[rows, mine]
            entries = slice(int(starts[part.start]), int(starts[part.stop]))
            at = (sums.sources[entries] - part.start, labels[sums.neighbors[entries]])
            tile.index_put_(at, sums.weights[entries], accumulate=True)
            yield part, tile


def _affinities(points: Tensor, others: Tensor, bandwidth: float) -> Tensor:
    import torch

    exponents = (_distances(points, others) / bandwidth) ** 2
    return torch.where(exponents > _LIMIT, torch.zeros_like(exponents), torch.exp(-exponents))


def within_slices(nodes: DeviceRows, index: Tensor) -> tuple[Tensor, Tensor]:
    """Distances between the units of each slice, far where one is absent or both are the same, and who is absent."""
    import torch

    absent = index < 0
    points = nodes.values[index.clamp(min=0)]
    apart = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    eye = torch.eye(index.shape[1], dtype=torch.bool, device=index.device)
    return apart.masked_fill(absent[:, :, None] | absent[:, None, :] | eye, 1e18), absent


def _distances(points: Tensor, others: Tensor) -> Tensor:
    """Euclidean distances from differences: products of float32 would lose the small ones."""
    import torch

    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


def _tile(width: int) -> int:
    return max(1, TILE_VALUES // max(1, 4 * width))


def _devices() -> list[str]:
    import torch

    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found
