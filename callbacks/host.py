"""States on their way from a device to the host, without anybody waiting for them but the writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def to_host(values: Mapping[str, Tensor]) -> Callable[[], dict[str, npt.NDArray[np.floating[Any]]]]:
    """Start copying tensors to the host; the function returned waits for the copies and gives them as arrays.

    From a GPU the copies go to pinned memory behind the work that is already queued, so neither the stream nor the
    training waits for them; the writer thread does, asleep.
    """
    devices = {tensor.device for tensor in values.values() if tensor.is_cuda}
    if not devices:
        arrays = {name: tensor.cpu().numpy() for name, tensor in values.items()}
        return lambda: arrays
    pinned = {name: torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for name, tensor in values.items()}
    for name, tensor in values.items():
        pinned[name].copy_(tensor, non_blocking=True)
    made = [_mark(device) for device in devices]
    sources = dict(values)  # alive until the copies are made

    def wait() -> dict[str, npt.NDArray[np.floating[Any]]]:
        for copies in made:
            copies.synchronize()
        sources.clear()
        return {name: tensor.numpy() for name, tensor in pinned.items()}

    return wait


def _mark(device: torch.device) -> torch.cuda.Event:
    """An event behind all that is queued on a GPU so far; to wait for it takes no processor."""
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event
