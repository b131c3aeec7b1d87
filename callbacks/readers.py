"""How hidden states are read from one call of a module: its arguments and output, as a forward hook sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hiddenscope.callbacks.cells import (
    GRU_GATES,
    LSTM_GATES,
    cell_gates,
    layer_internals,
    layer_outputs,
    read_pass,
)
from hiddenscope.description import INPUTS
from hiddenscope.errors import RecordingError


@dataclass(frozen=True)
class Reading:
    """States from one call of a module, (sample, step, unit); ``lengths`` has the steps of each sample if they differ.

    ``values`` past a sample's length are zeros here; they become NaN when calls are joined.
    """

    values: Tensor
    lengths: Tensor | None = None


class Reader(Protocol):
    """From one call of a module to its layers' readings, by the suffix that is added to the module's name."""

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> dict[str, Reading]: ...


def read_recurrent(
    module: nn.RNNBase, record: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> dict[str, Reading]:
    """Every level of a recurrent module, with what it computes and does not return."""
    seen = read_pass(module, args, kwargs, output)
    outputs = layer_outputs(seen)
    readings = {f".{INPUTS}": Reading(seen.inputs.permute(1, 0, 2), seen.lengths)} if INPUTS in record else {}
    for level, hidden in enumerate(outputs):
        suffix = f".l{level}" if module.num_layers > 1 else ""
        if "h" in record:
            readings[suffix] = Reading(hidden.permute(1, 0, 2), seen.lengths)
        if set(record) & {"c", "gates"} and module.mode in ("LSTM", "GRU"):
            internals = layer_internals(seen, outputs, level)
            for name in _internal_names(module.mode, record):
                readings[f"{suffix}.{name}"] = Reading(internals[name].permute(1, 0, 2), seen.lengths)
    return readings


def _internal_names(mode: str, record: tuple[str, ...]) -> tuple[str, ...]:
    gates = (GRU_GATES if mode == "GRU" else LSTM_GATES) if "gates" in record else ()
    return (("c",) if "c" in record and mode == "LSTM" else ()) + gates


def read_cell(
    module: nn.RNNCellBase, record: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> dict[str, Reading]:
    """One step of a loop: the hook of a cell is called once per step."""
    hidden = output[0] if isinstance(output, tuple) else output
    x = args[0] if args else kwargs["input"]
    readings = {"": Reading(_one_step(hidden))} if "h" in record else {}
    if INPUTS in record:
        readings[f".{INPUTS}"] = Reading(_one_step(x))
    if isinstance(module, nn.LSTMCell) and "c" in record:
        readings[".c"] = Reading(_one_step(output[1]))
    if "gates" in record and isinstance(module, (nn.LSTMCell, nn.GRUCell)):
        hx = args[1] if len(args) > 1 else kwargs.get("hx")
        before = hx[0] if isinstance(hx, (tuple, list)) else hx
        gates = cell_gates(module, x, hidden.new_zeros(hidden.shape) if before is None else before)
        readings.update({f".{name}": Reading(_one_step(gate)) for name, gate in gates.items()})
    return readings


def _one_step(state: Tensor) -> Tensor:
    """(sample, unit) or (unit,) as (sample, 1, unit)."""
    return (state if state.ndim == 2 else state.unsqueeze(0)).unsqueeze(1)


def read_output(
    name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> dict[str, Reading]:
    """States of any module: its output, or the first fitting part of it."""
    found = first_states(output)
    if found is None:
        raise RecordingError(
            f'layer "{name}" ({type(module).__name__}) returned {_shape(output)}; recording needs a floating-point '
            "tensor (batch, step, feature), or a tuple or mapping that has one. Give extract= for anything else"
        )
    if found.is_nested:
        lengths = torch.tensor([len(part) for part in found.unbind()])
        return {"": Reading(torch.nested.to_padded_tensor(found, 0.0), lengths)}
    if found.ndim == 2:
        return {"": Reading(_one_step(found))}
    return {"": Reading(found if _batch_first(module) else found.transpose(0, 1))}


def read_extracted(
    name: str, extract: Callable[[Any], Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> dict[str, Reading]:
    """States that a function of the user's makes of a module's output."""
    values = extract(output)
    if not isinstance(values, Tensor) or values.ndim != 3:
        raise RecordingError(
            f'extract= for layer "{name}" must return a tensor (sample, step, unit), got {_shape(values)}'
        )
    return {"": Reading(values)}


def first_states(output: Any) -> Tensor | None:
    """The hidden states in an output: ``last_hidden_state`` where there is one, else the first tensor that fits."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() and (output.is_nested or output.ndim in (2, 3)) else None
    if isinstance(output, Mapping):
        parts: list[Any] = [output[key] for key in sorted(output, key=lambda key: key != "last_hidden_state")]
    elif isinstance(output, (list, tuple)):
        parts = list(output)
    else:
        fields = getattr(output, "__dict__", {})
        parts = [fields[key] for key in sorted(fields, key=lambda key: key != "last_hidden_state")]
    tensors = [part for part in parts if isinstance(part, Tensor) and part.is_floating_point()]
    with_steps = [tensor for tensor in tensors if tensor.is_nested or tensor.ndim == 3]
    return next(iter(with_steps or [tensor for tensor in tensors if tensor.ndim == 2]), None)


def _batch_first(module: nn.Module) -> bool:
    """What the module, or the first of its parts that has an opinion, says about its axes; batch first otherwise."""
    return next((bool(m.batch_first) for m in module.modules() if hasattr(m, "batch_first")), True)


def _shape(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a {str(output.dtype).removeprefix('torch.')} tensor {tuple(output.shape)}"
    if isinstance(output, (list, tuple)):
        return f"a {type(output).__name__} of {', '.join(map(_shape, output)) or 'nothing'}"
    return f"a {type(output).__name__}"
