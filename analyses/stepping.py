"""What ``nn.RNN``, ``nn.LSTM`` and ``nn.GRU`` compute, step by step, so that a state can be changed on the way.

Torch runs all steps in one call, and nothing can be changed between two of them. Here the same equations run one step
at a time, for stacked, bidirectional, projected and packed networks; without a change the result is torch's own, up to
rounding. Source: the equations in the documentation of torch.nn.RNN, torch.nn.LSTM and torch.nn.GRU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn.utils.rnn import PackedSequence

Mode = Literal["recurrence", "readout"]


@dataclass(frozen=True)
class Silence:
    """Some units of a layer say nothing.

    Attributes:
        layer: a recurrent layer, as recorded: ``"lstm"``, or ``"lstm.l0"`` for one level of a stacked one.
        units: columns of the layer's output; in a bidirectional layer those of the backward direction come second.
        mode: ``"recurrence"``: zero after every step (and before the first), for the next step as for later layers; the
            cell state of an LSTM with it. ``"readout"``: the layer itself computes as ever, and zeros stand in what it
            returns (outputs and last state), so only later layers miss the units.
    """

    layer: str
    units: Sequence[int]
    mode: Mode = "recurrence"

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(map(repr, get_args(Mode)))}, got {self.mode!r}")


@dataclass(frozen=True)
class Replace:
    """The state of a layer after one step is another's, for the steps after it and for later layers.

    The state is the hidden state, and the cell state of an LSTM with it.

    Attributes:
        layer: as in `Silence`.
        step: position in the sequence; in a bidirectional layer, both directions are replaced after they have read it.
        by: ``"mean"`` for the mean over the sequences of the batch; else, for each sequence, the position in the batch
            of the one whose state it gets. Sequences that have ended by then are left alone and left out.
    """

    layer: str
    step: int
    by: Literal["mean"] | Sequence[int] | npt.NDArray[np.integer[Any]]


Intervention = Silence | Replace


def width_of(module: nn.RNNBase) -> int:
    """Columns of a level's output."""
    return int(module.proj_size or module.hidden_size) * directions_of(module)


def directions_of(module: nn.RNNBase) -> int:
    """2 for a bidirectional module, else 1."""
    return 2 if module.bidirectional else 1


def run_stepwise(
    module: nn.RNNBase, given: Tensor | PackedSequence, hx: Any, plan: dict[int, list[Intervention]]
) -> tuple[tuple[Any, Any], list[Tensor]]:
    """One call of a recurrent module, in the form that torch returns it, and each level's states.

    Args:
        module: in evaluation mode: there is no dropout between the levels.
        given: its input, in any form that it takes.
        hx: its initial state, or None.
        plan: what to change, by level.

    Returns:
        ``(output, last state)``, and per level what later layers see, (step, sample, column).
    """
    import torch
    from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

    valid, single = None, not isinstance(given, PackedSequence) and given.ndim == 2
    if isinstance(given, PackedSequence):
        below, lengths = pad_packed_sequence(given)
        valid = (torch.arange(len(below)).unsqueeze(1) < lengths.unsqueeze(0)).unsqueeze(-1).to(below.device)
    elif single:
        below = given.unsqueeze(1)
    else:
        below = given.transpose(0, 1) if module.batch_first else given
    start = _initial(module, hx, below)
    levels: list[Tensor] = []
    last: list[tuple[Tensor, ...]] = []
    for level in range(module.num_layers):
        below, ends = _run_level(module, level, below, start, valid, plan.get(level, []))
        levels.append(below)
        last.extend(ends)
    final = [torch.stack([end[part] for end in last]) for part in range(len(last[0]))]
    if isinstance(given, PackedSequence):
        return (_packed(below, given), _state(final)), levels
    if single:
        return (below.squeeze(1), _state([part.squeeze(1) for part in final])), levels
    output = below.transpose(0, 1) if module.batch_first else below
    return (output, _state(final)), levels


def _state(final: list[Tensor]) -> Any:
    return tuple(final) if len(final) == 2 else final[0]


def _packed(below: Tensor, like: PackedSequence) -> PackedSequence:
    import torch
    from torch.nn.utils.rnn import PackedSequence

    ordered = below if like.sorted_indices is None else below.index_select(1, like.sorted_indices)
    rows = [ordered[step, :count] for step, count in enumerate(like.batch_sizes.tolist())]
    return PackedSequence(torch.cat(rows), like.batch_sizes, like.sorted_indices, like.unsorted_indices)


def _initial(module: nn.RNNBase, hx: Any, below: Tensor) -> list[Tensor]:
    """Hidden (and cell) states before the first step, (level * direction, sample, unit)."""
    if hx is not None:
        given = list(hx) if isinstance(hx, (tuple, list)) else [hx]
        return [state.unsqueeze(1) if state.ndim == 2 else state for state in given]
    count = module.num_layers * directions_of(module)
    widths = [module.proj_size or module.hidden_size] + ([module.hidden_size] if module.mode == "LSTM" else [])
    return [below.new_zeros(count, below.shape[1], width) for width in widths]


def _run_level(
    module: nn.RNNBase,
    level: int,
    below: Tensor,
    start: list[Tensor],
    valid: Tensor | None,
    changes: list[Intervention],
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """What one level returns, (step, sample, column), and the last state of each of its directions."""
    import torch

    width = width_of(module) // directions_of(module)
    silences = [change for change in changes if isinstance(change, Silence)]
    replaced = [change for change in changes if isinstance(change, Replace)]
    outputs, ends = [], []
    for direction in range(directions_of(module)):
        mine = slice(direction * width, (direction + 1) * width)
        inside, outside = (
            _mask([one for one in silences if one.mode == mode], width_of(module), below.device)[mine]
            for mode in get_args(Mode)
        )
        begin = [state[level * directions_of(module) + direction] for state in start]
        states, end = _run_direction(module, level, direction, below, begin, valid, inside, replaced)
        outputs.append(states.masked_fill(outside, 0.0))
        ends.append(tuple(_silent(part, outside) for part in end))
    return torch.cat(outputs, dim=-1), ends


def _mask(silences: list[Silence], width: int, device: Any) -> Tensor:
    """True at the columns that are silenced."""
    import torch

    mask = torch.zeros(width, dtype=torch.bool, device=device)
    for silence in silences:
        mask[list(silence.units)] = True
    return mask


def _silent(state: Tensor, mask: Tensor) -> Tensor:
    # The cell state behind a projection has no column of its own for each unit of the output.
    return state.masked_fill(mask, 0.0) if state.shape[-1] == mask.shape[0] else state


def _run_direction(
    module: nn.RNNBase,
    level: int,
    direction: int,
    below: Tensor,
    begin: list[Tensor],
    valid: Tensor | None,
    silent: Tensor,
    replaced: list[Replace],
) -> tuple[Tensor, list[Tensor]]:
    import torch
    from torch.nn import functional

    suffix = f"_l{level}" + ("_reverse" if direction else "")
    biased = [getattr(module, name + suffix) if module.bias else None for name in ("bias_ih", "bias_hh")]
    from_input = functional.linear(below, getattr(module, "weight_ih" + suffix), biased[0])
    inward = getattr(module, "weight_hh" + suffix)
    project = getattr(module, "weight_hr" + suffix) if module.proj_size else None
    silences = bool(silent.any())
    state = [_silent(part, silent) for part in begin] if silences else list(begin)
    found: list[Tensor] = [state[0]] * len(below)
    steps = range(len(below))
    for step in reversed(steps) if direction else steps:
        fresh = _cell(module.mode, from_input[step], functional.linear(state[0], inward, biased[1]), state)
        if project is not None:
            fresh[0] = functional.linear(fresh[0], project)
        if silences:
            fresh = [_silent(part, silent) for part in fresh]
        here = None if valid is None else valid[step]
        for change in replaced:
            if change.step == step:
                fresh = [_replaced(part, change.by, here) for part in fresh]
        if here is None:
            state = fresh
            found[step] = state[0]
        else:
            state = [torch.where(here, new, old) for new, old in zip(fresh, state, strict=True)]
            found[step] = torch.where(here, state[0], 0.0)
    return torch.stack(found), state


def _cell(mode: str, from_input: Tensor, from_state: Tensor, state: list[Tensor]) -> list[Tensor]:
    """The state after one step, from what input and state before contribute, biases included."""
    import torch

    if mode == "LSTM":
        i, f, g, o = (from_input + from_state).chunk(4, dim=-1)
        cell = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return [torch.sigmoid(o) * torch.tanh(cell), cell]
    if mode == "GRU":
        rx, zx, nx = from_input.chunk(3, dim=-1)
        rh, zh, nh = from_state.chunk(3, dim=-1)
        z = torch.sigmoid(zx + zh)
        n = torch.tanh(nx + torch.sigmoid(rx + rh) * nh)
        return [n + z * (state[0] - n)]
    total = from_input + from_state
    return [torch.relu(total) if mode == "RNN_RELU" else torch.tanh(total)]


def _replaced(state: Tensor, by: Any, valid: Tensor | None) -> Tensor:
    import torch

    if isinstance(by, str):
        if valid is None:
            return state.mean(dim=0, keepdim=True).expand_as(state)
        count = valid.sum().clamp(min=1)
        mean = torch.where(valid, state, 0.0).sum(dim=0, keepdim=True) / count
        return torch.where(valid, mean, state)
    order = torch.as_tensor(np.asarray(by), device=state.device)
    given = state.index_select(0, order)
    return given if valid is None else torch.where(valid & valid.index_select(0, order), given, state)
