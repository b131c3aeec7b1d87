"""The equations of recurrent cells, to recover what ``nn.RNN``, ``nn.LSTM`` and ``nn.GRU`` compute but do not return.

They return the hidden states of the last layer only. The states of the layers below are recomputed with torch's own
kernel, one layer at a time, so they are the numbers that the model itself used; gates and the LSTM's cell states
follow from the inputs and hidden states of all steps at once, and only ``c = f * c + i * g`` runs step by step.
Source: the equations in the documentation of torch.nn.LSTM and torch.nn.GRU.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

LSTM_GATES = ("i", "f", "g", "o")
"""Input, forget, candidate and output gate, in the order of the rows of torch's weights."""

GRU_GATES = ("r", "z", "n")
"""Reset and update gate, and candidate."""


@dataclass(frozen=True)
class Pass:
    """One call of a recurrent module: its input and output, (step, sample, feature), and what was in force.

    ``lengths`` has the number of steps of each sample where they came packed; ``initial`` are the hidden (and cell)
    states before the first step, (layer * direction, sample, unit).
    """

    module: nn.RNNBase
    inputs: Tensor
    outputs: Tensor
    initial: tuple[Tensor, ...]
    lengths: Tensor | None
    packed: PackedSequence | None

    @property
    def directions(self) -> int:
        return 2 if self.module.bidirectional else 1


def read_pass(module: nn.RNNBase, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Pass:
    """What a forward hook saw, in one layout: step first, batched, padded with zeros."""
    given = args[0] if args else kwargs["input"]
    hx = args[1] if len(args) > 1 else kwargs.get("hx")
    returned = output[0]
    lengths, packed = None, None
    if isinstance(given, PackedSequence):
        packed = given
        inputs, lengths = pad_packed_sequence(given)
        outputs, _ = pad_packed_sequence(returned)
    else:
        inputs, outputs = given, returned
        if inputs.ndim == 2:  # one sequence without a batch axis
            inputs, outputs = inputs.unsqueeze(1), outputs.unsqueeze(1)
        elif module.batch_first:
            inputs, outputs = inputs.transpose(0, 1), outputs.transpose(0, 1)
    return Pass(module, inputs, outputs, _initial(module, hx, inputs), lengths, packed)


def _initial(module: nn.RNNBase, hx: Any, inputs: Tensor) -> tuple[Tensor, ...]:
    if hx is not None:
        given = hx if isinstance(hx, tuple) else (hx,)
        return tuple(state.unsqueeze(1) if state.ndim == 2 else state for state in given)
    count = module.num_layers * (2 if module.bidirectional else 1)
    widths = [module.proj_size or module.hidden_size] + ([module.hidden_size] if module.mode == "LSTM" else [])
    return tuple(inputs.new_zeros(count, inputs.shape[1], width) for width in widths)


def layer_outputs(seen: Pass) -> list[Tensor]:
    """Hidden states of every layer, (step, sample, direction * unit), first layer first."""
    outputs: list[Tensor] = []
    below: Tensor | PackedSequence = seen.inputs if seen.packed is None else seen.packed
    for layer in range(seen.module.num_layers - 1):
        below = _run_layer(seen, layer, below)
        outputs.append(pad_packed_sequence(below)[0] if isinstance(below, PackedSequence) else below)
    return [*outputs, seen.outputs]


def _run_layer(seen: Pass, layer: int, below: Tensor | PackedSequence) -> Tensor | PackedSequence:
    """One layer of the module alone, by the kernel that torch uses for all of them."""
    module, directions = seen.module, seen.directions
    weights = [weight for d in range(directions) for weight in weights_of(module, layer, d)]
    hidden = tuple(state[layer * directions : (layer + 1) * directions].contiguous() for state in seen.initial)
    if isinstance(below, PackedSequence) and below.sorted_indices is not None:
        hidden = tuple(state.index_select(1, below.sorted_indices) for state in hidden)
    kernel = getattr(torch._VF, module.mode.lower())
    state = hidden if module.mode == "LSTM" else hidden[0]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
        if isinstance(below, PackedSequence):
            data = kernel(
                below.data, below.batch_sizes, state, weights, module.bias, 1, 0.0, False, module.bidirectional
            )[0]
            return PackedSequence(data, below.batch_sizes, below.sorted_indices, below.unsorted_indices)
        result: Tensor = kernel(below, state, weights, module.bias, 1, 0.0, False, module.bidirectional, False)[0]
        return result


def weights_of(module: nn.RNNBase, layer: int, direction: int) -> list[Tensor]:
    """Weights of one layer and direction in torch's order: input, hidden, then biases and projection where present."""
    return [getattr(module, name) for name in weight_names(module, layer, direction)]


def weight_names(module: nn.RNNBase, layer: int, direction: int) -> list[str]:
    """The names of `weights_of`."""
    suffix = f"_l{layer}" + ("_reverse" if direction else "")
    names = ["weight_ih", "weight_hh"] + (["bias_ih", "bias_hh"] if module.bias else [])
    names += ["weight_hr"] if module.proj_size else []
    return [name + suffix for name in names]


def layer_internals(seen: Pass, outputs: list[Tensor], layer: int) -> dict[str, Tensor]:
    """Gates of one layer by their letter, and ``c`` for an LSTM, each (step, sample, direction * unit).

    Computed in float32 at least, also where the model runs in a lower precision.
    """
    below = seen.inputs if layer == 0 else outputs[layer - 1]
    hidden_width = outputs[layer].shape[-1] // seen.directions
    parts: list[dict[str, Tensor]] = []
    with torch.autocast(below.device.type, enabled=False):
        for direction in range(seen.directions):
            states = outputs[layer][..., direction * hidden_width : (direction + 1) * hidden_width]
            start = seen.initial[0][layer * seen.directions + direction]
            before = _states_before(_wide(states), _wide(start), seen.lengths, backward=direction == 1)
            w_ih, w_hh, b_ih, b_hh = _weights_and_biases(seen.module, layer, direction)
            if seen.module.mode == "GRU":
                parts.append(gru_gates(_wide(below), before, w_ih, w_hh, b_ih, b_hh))
                continue
            gates = lstm_gates(_wide(below), before, w_ih, w_hh, b_ih, b_hh)
            c_start = _wide(seen.initial[1][layer * seen.directions + direction])
            parts.append({"c": cell_states(gates, c_start, seen.lengths, backward=direction == 1), **gates})
    return {name: torch.cat([part[name] for part in parts], dim=-1) for name in parts[0]}


def cell_gates(module: nn.LSTMCell | nn.GRUCell, x: Tensor, h: Tensor) -> dict[str, Tensor]:
    """Gates of one step of a cell by their letter, from its input and the hidden state before; as `layer_internals`."""
    none = module.weight_ih.new_zeros(len(module.weight_ih))
    biases = (module.bias_ih, module.bias_hh) if module.bias else (none, none)
    equations = lstm_gates if isinstance(module, nn.LSTMCell) else gru_gates
    with torch.autocast(x.device.type, enabled=False):
        return equations(*map(_wide, (x, h, module.weight_ih, module.weight_hh, *biases)))


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _weights_and_biases(module: nn.RNNBase, layer: int, direction: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    weights = [_wide(weight) for weight in weights_of(module, layer, direction)]
    if module.bias:
        return weights[0], weights[1], weights[2], weights[3]
    none = weights[0].new_zeros(len(weights[0]))
    return weights[0], weights[1], none, none


def lstm_gates(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> dict[str, Tensor]:
    """``i, f, o = sigmoid(W x + b + U h + b')`` and ``g = tanh(…)`` from inputs and the hidden states before them."""
    rows = (x @ w_ih.T + b_ih + h @ w_hh.T + b_hh).chunk(4, dim=-1)
    return {
        name: torch.tanh(row) if name == "g" else torch.sigmoid(row) for name, row in zip(LSTM_GATES, rows, strict=True)
    }


def gru_gates(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> dict[str, Tensor]:
    """``r, z = sigmoid(W x + b + U h + b')`` and ``n = tanh(W x + b + r * (U h + b'))``."""
    from_input = (x @ w_ih.T + b_ih).chunk(3, dim=-1)
    from_state = (h @ w_hh.T + b_hh).chunk(3, dim=-1)
    r = torch.sigmoid(from_input[0] + from_state[0])
    z = torch.sigmoid(from_input[1] + from_state[1])
    return {"r": r, "z": z, "n": torch.tanh(from_input[2] + r * from_state[2])}


def cell_states(gates: dict[str, Tensor], start: Tensor, lengths: Tensor | None, *, backward: bool) -> Tensor:
    """``c = f * c + i * g``, step by step, in the direction of reading; padding leaves ``c`` as it is."""
    steps = range(len(gates["f"]))
    valid = None if lengths is None else _valid(lengths, len(gates["f"]), start.device)
    c, states = start, [start] * len(gates["f"])
    for t in reversed(steps) if backward else steps:
        new = gates["f"][t] * c + gates["i"][t] * gates["g"][t]
        c = new if valid is None else torch.where(valid[t], new, c)
        states[t] = c
    return torch.stack(states)


def _valid(lengths: Tensor, steps: int, device: torch.device) -> Tensor:
    """(step, sample, 1): whether the step lies within the sequence."""
    return (torch.arange(steps).unsqueeze(1) < lengths.cpu().unsqueeze(0)).unsqueeze(-1).to(device)


def _states_before(states: Tensor, start: Tensor, lengths: Tensor | None, *, backward: bool) -> Tensor:
    """The hidden state that each step started from: the neighbor before it in reading order, ``start`` at the end."""
    if not backward:
        return torch.cat([start.unsqueeze(0), states[:-1]])
    following = torch.cat([states[1:], start.unsqueeze(0)])
    if lengths is None:
        return following
    last = torch.arange(len(states)).unsqueeze(1) == lengths.cpu().unsqueeze(0) - 1
    return torch.where(last.unsqueeze(-1).to(states.device), start, following)
