"""The parameters of the recorded modules, so that whoever reads the run can rebuild them as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hiddenscope.callbacks.cells import weight_names
from hiddenscope.callbacks.layers import Source
from hiddenscope.description import ModuleDescription


@dataclass(frozen=True)
class WeightReader:
    """Reads parameters of modules; ``left_out`` has the modules, with their megabytes, that were too large."""

    modules: Mapping[str, nn.Module]
    descriptions: tuple[ModuleDescription, ...]
    left_out: Mapping[str, float]

    @property
    def bytes_per_epoch(self) -> int:
        """What one epoch of them takes."""
        return sum(_bytes(module) for module in self.descriptions)

    def read(self) -> dict[str, Tensor]:
        """The parameters of each module one after another, as `ModuleDescription.joined` has them; fresh tensors."""
        return {
            described.name: torch.cat(
                [
                    parameter.detach().to(getattr(torch, described.dtype)).reshape(-1)
                    for parameter in parameters_of(self.modules[described.name]).values()
                ]
            )
            for described in self.descriptions
        }


def weight_reader(sources: Sequence[Source], *, max_mb: float) -> WeightReader:
    """A reader for the modules of ``sources`` that together take ``max_mb`` megabytes per epoch at most.

    The smallest modules come first, so that one large module does not keep the others out.
    """
    modules = {source.name: source.module for source in sources}
    described = [_describe(name, module) for name, module in modules.items()]
    found = [description for description in described if description is not None]
    kept, room = set(), max_mb * 1e6
    for description in sorted(found, key=_bytes):
        if _bytes(description) <= room:
            room -= _bytes(description)
            kept.add(description.name)
    return WeightReader(
        modules,
        tuple(description for description in found if description.name in kept),
        {description.name: _bytes(description) / 1e6 for description in found if description.name not in kept},
    )


def parameters_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters by PyTorch's names: of recurrent modules those that are in force, whatever they are computed from.

    >>> [name for name in parameters_of(nn.LSTM(2, 3, bias=False))]
    ['weight_ih_l0', 'weight_hh_l0']
    """
    if isinstance(module, nn.RNNBase):
        directions = 2 if module.bidirectional else 1
        names = [
            name
            for level in range(module.num_layers)
            for direction in range(directions)
            for name in weight_names(module, level, direction)
        ]
        found = {name: getattr(module, name) for name in names}
    elif isinstance(module, nn.RNNCellBase):
        biases = ["bias_ih", "bias_hh"] if module.bias else []
        found = {name: getattr(module, name) for name in ["weight_ih", "weight_hh", *biases]}
    else:
        found = dict(module.named_parameters())
    return {name: parameter for name, parameter in found.items() if parameter.numel()}


def _describe(name: str, module: nn.Module) -> ModuleDescription | None:
    """None for a module without parameters, or with some that are not real numbers."""
    parameters = parameters_of(module)
    if not parameters or not all(parameter.is_floating_point() for parameter in parameters.values()):
        return None
    double = any(parameter.dtype == torch.float64 for parameter in parameters.values())
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    return ModuleDescription(name, type(module).__name__, shapes, "float64" if double else "float32")


def _bytes(module: ModuleDescription) -> int:
    return module.size * (8 if module.dtype == "float64" else 4)
