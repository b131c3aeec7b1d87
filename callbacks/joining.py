"""What the calls of a module yield, joined: along steps over one forward, along samples over the probe's batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hiddenscope.callbacks.budget import IntArray
from hiddenscope.callbacks.readers import Reading
from hiddenscope.errors import RecordingError


@dataclass(frozen=True)
class Joined:
    """One layer on the whole probe: (sample, step, unit) in any floating type, before steps are chosen."""

    values: Tensor
    nonfinite: Tensor
    calls: int


def along_steps(readings: Sequence[Reading]) -> Joined:
    """All calls of a module in one forward, one after another along steps; padding becomes NaN.

    A later call with fewer samples is taken to have lost the last ones, as loops over sequences sorted by length do.
    """
    nonfinite = torch.stack([(~torch.isfinite(reading.values)).sum() for reading in readings]).sum()
    parts = [_masked(reading) for reading in readings]
    samples = max(len(part) for part in parts)
    units = parts[0].shape[2]
    if any(part.shape[2] != units for part in parts):
        raise RecordingError("a layer has other units in one call than in another; give extract= for it")
    parts = [_padded(part, samples=samples) for part in parts]
    return Joined(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1), nonfinite, len(parts))


def _masked(reading: Reading) -> Tensor:
    if reading.lengths is None:
        return reading.values
    steps = torch.arange(reading.values.shape[1])
    padding = (steps.unsqueeze(0) >= reading.lengths.cpu().unsqueeze(1)).unsqueeze(-1)
    return reading.values.masked_fill_(padding.to(reading.values.device), float("nan"))


def _padded(values: Tensor, *, samples: int | None = None, steps: int | None = None) -> Tensor:
    """``values`` (sample, step, unit) grown with NaN to so many samples or steps."""
    shape = (samples or values.shape[0], steps or values.shape[1], values.shape[2])
    if shape == values.shape:
        return values
    grown = values.new_full(shape, float("nan"))
    grown[: values.shape[0], : values.shape[1]] = values
    return grown


def along_samples(raws: Sequence[Joined]) -> Joined:
    """The batches of a probe, one after another along samples; shorter batches end in NaN steps."""
    if len(raws) == 1:
        return raws[0]
    steps = max(raw.values.shape[1] for raw in raws)
    values = torch.cat([_padded(raw.values, steps=steps) for raw in raws])
    return Joined(values, torch.stack([raw.nonfinite for raw in raws]).sum(), max(raw.calls for raw in raws))


def chosen_steps(values: Tensor, chosen: IntArray) -> Tensor:
    """The chosen steps of (sample, step, unit), as float32 (step, unit, sample); steps that are not there are NaN."""
    there = chosen[chosen < values.shape[1]]
    if len(there) < values.shape[1]:
        values = values.index_select(1, torch.from_numpy(there).to(values.device))
    values = _padded(values, steps=len(chosen))
    if values.device.type not in ("cpu", "cuda"):
        values = values.cpu()  # other devices do not know float64, which the scalars are computed in
    return values.permute(1, 2, 0).to(torch.float32, memory_format=torch.contiguous_format).contiguous()
