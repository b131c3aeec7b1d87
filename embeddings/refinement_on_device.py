"""The refinement on a torch device: the forces and draws of `refinement`, added up in another order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from hiddenscope.embeddings import refinement
from hiddenscope.embeddings.on_device import TILE_VALUES, DeviceRows, nearest_slices, within_slices
from hiddenscope.embeddings.threads import ranges
from hiddenscope.embeddings.unit_rows import UnitRows

if TYPE_CHECKING:
    from torch import Tensor


def refine(nodes: DeviceRows, anchors: Tensor, *, epochs: int, seed: int) -> Tensor:
    """As `hiddenscope.embeddings.refinement.refine` from the anchors, with the same draws."""
    import torch

    components = anchors.shape[1]
    spread = float(anchors.std(correction=0))
    if epochs == 0 or spread == 0:
        return anchors
    device = anchors.device
    edges = refinement.edges_to(nearest_slices(nodes, max(refinement.RANKS)))
    mates, wanted = _slice_mates(nodes)
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


def _slice_mates(nodes: DeviceRows) -> tuple[Tensor, Tensor]:
    """As `hiddenscope.embeddings.refinement.slice_mates`: rows of the mates, and distances, negative for attraction."""
    import torch

    units = nodes.index.shape[1]
    capacity = min(units - 1, refinement.MATES)
    device = nodes.values.device
    mates = torch.arange(len(nodes.values), device=device)[:, None].repeat(1, capacity)
    distances = torch.zeros((len(nodes.values), capacity), device=device)
    turn = (torch.arange(units, device=device) - torch.arange(units, device=device)[:, None]) % units
    for start, stop in ranges(len(nodes.index) if capacity else 0, max(1, TILE_VALUES // (4 * units * units))):
        index = nodes.index[start:stop]
        apart, absent = within_slices(nodes, index)
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


def _attraction(old: Tensor, sources: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over neighbors of 2 (other - self) / (1 + q), and of the coefficients."""
    import torch

    total = torch.zeros((len(old), 4), device=old.device)
    for start, stop in ranges(len(sources), TILE_VALUES // 16):
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
    for start, stop in ranges(len(old), max(1, TILE_VALUES // (16 * count))):
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
        for start, stop in ranges(blocks, max(1, TILE_VALUES // (16 * size * draws))):
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
