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

from hiddenscope.embeddings import diffusion, mds, refinement
from hiddenscope.embeddings.bandwidth import Bandwidth, sampled_slices, summarized
from hiddenscope.embeddings.intra import CUTOFF, IntraKernel
from hiddenscope.embeddings.landmarks import Landmarks
from hiddenscope.embeddings.mds import Placement
from hiddenscope.embeddings.threads import ranges
from hiddenscope.embeddings.unit_rows import IntArray, UnitRows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_TILE_VALUES = 2**26  # of the largest temporary array: 256 MB of float32
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
    for start, stop in ranges(len(nodes.index), max(1, _TILE_VALUES // (4 * units * units))):
        index = nodes.index[start:stop]
        apart, absent = _within_slices(nodes, index)
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


def slice_mates(nodes: DeviceRows) -> tuple[Tensor, Tensor]:
    """As `hiddenscope.embeddings.refinement.slice_mates`: rows of the mates, and distances, negative for attraction."""
    import torch

    units = nodes.index.shape[1]
    capacity = min(units - 1, refinement.MATES)
    device = nodes.values.device
    mates = torch.arange(len(nodes.values), device=device)[:, None].repeat(1, capacity)
    distances = torch.zeros((len(nodes.values), capacity), device=device)
    turn = (torch.arange(units, device=device) - torch.arange(units, device=device)[:, None]) % units
    for start, stop in ranges(len(nodes.index) if capacity else 0, max(1, _TILE_VALUES // (4 * units * units))):
        index = nodes.index[start:stop]
        apart, absent = _within_slices(nodes, index)
        other = ~(absent[:, :, None] | absent[:, None, :] | torch.eye(units, dtype=torch.bool, device=device))
        mean = (apart.masked_fill(~other, 0.0).sum(dim=(1, 2)) / other.sum(dim=(1, 2)).clamp(min=1)).clamp(min=1e-12)
        nearest = apart.masked_fill(~other, math.inf).argsort(dim=2, stable=True)[:, :, : refinement.NEAREST_MATES]
        near = torch.zeros_like(other).scatter_(2, nearest, True) & other
        attracts = near | near.transpose(1, 2)
        key = torch.where(attracts, turn, turn + units).masked_fill(~other, 4 * units)
        order = key.argsort(dim=2)[:, :, :capacity]
        chosen = other.gather(2, order)
        scaled = apart / mean[:, None, None]
        signed = torch.where(attracts, -scaled - 1e-6, scaled).gather(2, order)
        own = index[:, :, None].expand(-1, -1, capacity)
        mate = index[:, None, :].expand(-1, units, -1).gather(2, order)
        present = ~absent
        mates[index[present]] = torch.where(chosen, mate, own)[present]
        distances[index[present]] = signed.masked_fill(~chosen, 0.0)[present]
    return mates, distances


def refine(nodes: DeviceRows, anchors: Tensor, *, epochs: int, seed: int) -> Tensor:
    """As `hiddenscope.embeddings.refinement.refine` from the anchors, with the same draws."""
    import torch

    components = anchors.shape[1]
    spread = float(anchors.std(correction=0))
    if epochs == 0 or spread == 0:
        return anchors
    device = anchors.device
    edges = refinement.edges_to(nearest_slices(nodes, max(refinement.RANKS)))
    mates, wanted = slice_mates(nodes)
    ends = torch.from_numpy(edges.neighbors.astype(np.int64)).to(device)
    degrees = torch.from_numpy(np.diff(edges.starts)).to(device)
    sources = torch.repeat_interleave(torch.arange(len(anchors), device=device), degrees)
    center, scale = anchors.mean(dim=0), refinement.SPREAD / spread
    home = torch.zeros((len(anchors), 3), device=device)
    home[:, :components] = (anchors - center) * scale
    old = home.clone()
    schedule = refinement.DRAWS if len(anchors) <= refinement.MANY_NODES else refinement.DRAWS_WHEN_MANY
    for epoch in range(epochs):
        step = refinement.RATE * (1 - epoch / epochs)
        draws = schedule[epoch * len(schedule) // epochs]
        pull, weight = _attraction(old, sources, ends)
        held, holds = _slice_forces(old, mates, wanted)
        push = _repulsion(nodes.rows, old, draws, key=seed * 1_000_003 + epoch)
        force = refinement.ANCHOR * (home - old) + pull + held
        force -= refinement.REPULSION * degrees[:, None] / draws * push
        old = old + step / (1 + step * (refinement.ANCHOR + weight + holds))[:, None] * force
    return old[:, :components] / scale + center


def _attraction(old: Tensor, sources: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over neighbors of 2 (other - self) / (1 + q), and of the coefficients."""
    import torch

    total = torch.zeros((len(old), 4), device=old.device)
    for start, stop in ranges(len(sources), _TILE_VALUES // 16):
        own = sources[start:stop]
        way = old[ends[start:stop]] - old[own]
        coefficient = 2 / (1 + (way * way).sum(dim=1, keepdim=True))
        total.index_add_(0, own, torch.cat([coefficient * way, coefficient], dim=1))
    return total[:, :3], total[:, 3]


def _slice_forces(old: Tensor, mates: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Attraction of the nearest mates, repulsion of the others, stress of all, and the sum of what attracts."""
    import torch

    count = mates.shape[1]
    if count == 0:
        return torch.zeros_like(old), torch.zeros(len(old), device=old.device)
    stress = refinement.STRESS / count
    forces, weights = torch.empty_like(old), torch.empty(len(old), device=old.device)
    for start, stop in ranges(len(old), max(1, _TILE_VALUES // (16 * count))):
        meant = wanted[start:stop]
        way = old[mates[start:stop]] - old[start:stop, None]
        q = (way * way).sum(dim=2)
        ratio = q.sqrt().sum(dim=1, keepdim=True) / (meant.abs().sum(dim=1, keepdim=True) + 1e-6)
        inverse = 1 / (q + 1e-6).sqrt()
        near = refinement.INTRA_ATTRACTION / (1 + q)
        far = torch.minimum(2 / ((1e-3 + q) * (1 + q)), 4 * inverse)
        attracts = meant < 0
        pull = stress * (1 - ratio * meant.abs() * inverse) + torch.where(attracts, near, -far)
        forces[start:stop] = (pull[:, :, None] * way).sum(dim=1)
        weights[start:stop] = stress * count + torch.where(attracts, near, torch.zeros_like(near)).sum(dim=1)
    return forces, weights


def _repulsion(rows: UnitRows, old: Tensor, draws: int, *, key: int) -> Tensor:
    """Sum over the slices drawn for a block of rows of (other - self) / ((0.001 + q)(1 + q))."""
    import torch

    size = refinement.BLOCK
    result = torch.empty_like(old)
    for unit in range(rows.n_units):
        here = rows.of(unit)
        count = here.stop - here.start
        if not count:
            continue
        blocks = -(-count // size)
        firsts = here.start + size * torch.arange(blocks, device=old.device)
        drawn = here.start + _drawn(firsts, draws, key, count)
        padded = torch.zeros((blocks * size, 3), device=old.device)
        padded[:count] = old[here]
        padded = padded.view(blocks, size, 3)
        pushed = torch.empty_like(padded)
        for start, stop in ranges(blocks, max(1, _TILE_VALUES // (16 * size * draws))):
            way = old[drawn[start:stop]][:, None] - padded[start:stop, :, None]
            q = (way * way).sum(dim=3)
            pushed[start:stop] = (way / ((1e-3 + q) * (1 + q))[..., None]).sum(dim=2)
        result[here] = pushed.view(-1, 3)[:count]
    return result


def _drawn(firsts: Tensor, draws: int, key: int, count: int) -> Tensor:
    """The draws of `hiddenscope.embeddings.refinement`, shape (block, draw): splitmix64 modulo ``count``."""
    import torch

    counter = (firsts[:, None] << 12) + torch.arange(draws, device=firsts.device) + _signed(key << 44)
    x = counter * _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    x = x ^ _shifted(x, 31)
    return (_shifted(x, 1) % count * 2 + (x & 1)) % count


def _shifted(x: Tensor, places: int) -> Tensor:
    """Shift to the right as if without a sign."""
    return (x >> places) & ((1 << (64 - places)) - 1)


def _signed(x: int) -> int:
    """The signed whole number with the same 64 bits."""
    x &= 2**64 - 1
    return x - 2**64 if x >= 2**63 else x


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


def _within_slices(nodes: DeviceRows, index: Tensor) -> tuple[Tensor, Tensor]:
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
    return max(1, _TILE_VALUES // max(1, 4 * width))


def _devices() -> list[str]:
    import torch

    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found
