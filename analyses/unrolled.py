"""A recurrent network unrolled: its forward pass in plain arrays, with what each new memory is made of.

`hiddenscope.analyses.relevance` goes back through it. Source: the equations in the documentation of torch.nn.RNN,
torch.nn.LSTM and torch.nn.GRU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import nn

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Pass:
    """One level and direction after its forward pass, in reading order, all (step, sample, …).

    ``stay`` and ``come`` are what the new memory is made of: the part of the old one and the part of the candidate; an
    RNN has neither. ``gain`` is the gate on what the candidate reads of the hidden state (GRU), else None.
    """

    kind: str
    w_in: Floats
    w_state: Floats
    bias: Floats
    candidate: Floats
    inputs: Floats
    before: Floats
    valid: npt.NDArray[np.bool_]
    stay: Floats | None
    come: Floats | None
    gain: Floats | None
    projection: Floats | None
    hidden: Floats
    outputs: Floats
    reverse: bool


@dataclass(frozen=True)
class Level:
    directions: tuple[Pass, ...]
    outputs: Floats


@dataclass(frozen=True)
class Network:
    """The weights of a module up to one level, by PyTorch's names."""

    kind: str
    weights: Mapping[str, Floats]
    levels: int
    bidirectional: bool
    input_size: int
    width: int
    hidden_size: int
    relu: bool

    @classmethod
    def of(cls, module: nn.RNNBase, level: int | None, dtype: np.dtype[Any]) -> Network:
        top = module.num_layers - 1 if level is None else level
        if not 0 <= top < module.num_layers:
            raise ValueError(f"level must lie in 0..{module.num_layers - 1}, got {level}")
        kind = module.mode.partition("_")[0]
        weights = {name: value.detach().cpu().numpy().astype(dtype) for name, value in module.named_parameters()}
        return cls(
            kind=kind,
            weights=weights,
            levels=top + 1,
            bidirectional=module.bidirectional,
            input_size=module.input_size,
            width=width_of(module),
            hidden_size=module.hidden_size,
            relu=module.mode == "RNN_RELU",
        )

    @property
    def sides(self) -> int:
        return 2 if self.bidirectional else 1

    def forward(self, x: Floats, lengths: npt.NDArray[np.intp], initial: tuple[Floats, ...]) -> list[Level]:
        """Every level, the first first; ``x`` is (step, sample, feature)."""
        found: list[Level] = []
        for level in range(self.levels):
            passes = []
            for side in range(self.sides):
                states = tuple(state[level * self.sides + side] for state in initial)
                passes.append(self._direction(x, lengths, level, side, states))
            x = np.concatenate([np.flip(p.outputs, 0) if p.reverse else p.outputs for p in passes], axis=2)
            found.append(Level(tuple(passes), x))
        return found

    def _direction(
        self, x: Floats, lengths: npt.NDArray[np.intp], level: int, side: int, states: tuple[Floats, ...]
    ) -> Pass:
        suffix = f"_l{level}" + ("_reverse" if side else "")
        w_ih, w_hh = self.weights["weight_ih" + suffix], self.weights["weight_hh" + suffix]
        none = np.zeros(len(w_ih), dtype=w_ih.dtype)
        b_ih, b_hh = (self.weights.get(name + suffix, none) for name in ("bias_ih", "bias_hh"))
        projection = self.weights.get("weight_hr" + suffix)
        valid = np.arange(len(x))[:, None] < lengths
        if side:
            x, valid = np.flip(x, 0), np.flip(valid, 0)
        size = self.hidden_size
        rows = {"RNN": slice(None), "LSTM": slice(2 * size, 3 * size), "GRU": slice(2 * size, None)}[self.kind]
        kept: dict[str, list[Floats]] = {name: [] for name in ("candidate", "stay", "come", "gain", "hidden", "h")}
        h = states[0]
        c = states[1] if self.kind == "LSTM" else h
        before = []
        for t in range(len(x)):
            before.append(h)
            here = valid[t][:, None]
            given, recurrent = x[t] @ w_ih.T + b_ih, h @ w_hh.T + b_hh
            if self.kind == "RNN":
                candidate = given + recurrent
                hidden = np.maximum(candidate, 0) if self.relu else np.tanh(candidate)
                parts = {"candidate": candidate, "hidden": hidden}
            elif self.kind == "LSTM":
                i, f, g, o = np.split(given + recurrent, 4, axis=1)
                stay, come = _sigmoid(f) * c, _sigmoid(i) * np.tanh(g)
                c = np.where(here, stay + come, c)
                hidden = _sigmoid(o) * np.tanh(stay + come)
                parts = {"candidate": g, "stay": stay, "come": come, "hidden": hidden}
            else:
                (r1, z1, n1), (r2, z2, n2) = np.split(given, 3, axis=1), np.split(recurrent, 3, axis=1)
                r, z = _sigmoid(r1 + r2), _sigmoid(z1 + z2)
                candidate = n1 + r * n2
                stay, come = z * h, (1 - z) * np.tanh(candidate)
                hidden = stay + come
                parts = {"candidate": candidate, "stay": stay, "come": come, "gain": r, "hidden": hidden}
            new = hidden if projection is None else hidden @ projection.T
            h = np.where(here, new, h)
            for name, value in {**parts, "h": h}.items():
                kept[name].append(value)
        stacked = {name: np.stack(value) for name, value in kept.items() if value}
        gain = stacked.get("gain")
        return Pass(
            kind=self.kind,
            w_in=w_ih[rows],
            w_state=w_hh[rows],
            bias=(b_ih[rows] + b_hh[rows]) if gain is None else b_ih[rows] + gain * b_hh[rows],
            candidate=stacked["candidate"],
            inputs=x,
            before=np.stack(before),
            valid=valid,
            stay=stacked.get("stay"),
            come=stacked.get("come"),
            gain=gain,
            projection=projection,
            hidden=stacked["hidden"],
            outputs=stacked["h"],
            reverse=bool(side),
        )


def initial_states(given: tuple[npt.ArrayLike, ...] | None, network: Network, samples: int) -> tuple[Floats, ...]:
    dtype = next(iter(network.weights.values())).dtype
    widths = (network.width, network.hidden_size) if network.kind == "LSTM" else (network.width,)
    rows = network.levels * network.sides
    if given is None:
        return tuple(np.zeros((rows, samples, width), dtype=dtype) for width in widths)
    if len(given) != len(widths):
        raise ValueError(f"an {network.kind} has {len(widths)} initial states, got {len(given)}")
    found = []
    for state, width in zip(given, widths, strict=True):
        array = np.asarray(state, dtype=dtype)
        if array.ndim != 3 or len(array) < rows or array.shape[1:] != (samples, width):
            raise ValueError(f"initial states need shape {(rows, samples, width)}, got {array.shape}")
        found.append(array[:rows])
    return tuple(found)


def width_of(module: nn.RNNBase) -> int:
    return int(getattr(module, "proj_size", 0) or module.hidden_size)


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * z)))
