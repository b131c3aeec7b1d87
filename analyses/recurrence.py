"""A recurrent layer as plain arrays, which can be driven by any signal without touching the model it came from.

The weights are copied in float64 and the equations are stepped here, so nothing of the model is called: its mode, its
random state and its gradients are what they were. Several networks of one shape, such as the epochs of a training, run
side by side. Source: the equations in the documentation of torch.nn.RNN, torch.nn.LSTM and torch.nn.GRU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

if TYPE_CHECKING:
    from torch import nn

Floats = npt.NDArray[np.float64]

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
"""How many blocks of rows the weights of each kind have."""

READINGS = ("in-network", "isolated")
"""The two readings of a decoupled unit: the trained network as it is, or every unit with its own past alone."""


@dataclass(frozen=True)
class Weights:
    """One level and direction of some networks.

    Attributes:
        w_ih: from the input, (network, gate * unit, input).
        w_hh: from the hidden state, (network, gate * unit, output).
        b_ih, b_hh: biases, (network, gate * unit); zeros where the model has none.
        w_hr: the projection of an LSTM with ``proj_size``, (network, output, unit), else None.
    """

    w_ih: Floats
    w_hh: Floats
    b_ih: Floats
    b_hh: Floats
    w_hr: Floats | None = None


@dataclass(frozen=True)
class Recurrence:
    """Some networks of one shape.

    Attributes:
        kind: ``"RNN"``, ``"LSTM"`` or ``"GRU"``.
        forward: the weights of each level, the first first.
        backward: the same in the other direction; empty where the network reads in one direction.
        nonlinearity: of an RNN, ``"tanh"`` or ``"relu"``.
    """

    kind: str
    forward: tuple[Weights, ...]
    backward: tuple[Weights, ...] = ()
    nonlinearity: str = "tanh"

    @property
    def networks(self) -> int:
        """How many run side by side."""
        return len(self.forward[0].w_ih)

    @property
    def input_size(self) -> int:
        """Features per step."""
        return int(self.forward[0].w_ih.shape[2])

    @property
    def units(self) -> int:
        """Hidden states per level and direction (the projected ones, with ``proj_size``)."""
        return int(self.forward[0].w_hh.shape[2])

    @property
    def cells(self) -> int:
        """Cells per level and direction; as many as units, but for a projection."""
        return int(self.forward[0].w_hh.shape[1]) // GATES[self.kind]


def from_module(module: nn.Module) -> Recurrence:
    """The recurrence of an ``nn.RNN``, ``nn.LSTM``, ``nn.GRU`` or one of their cells, as it is now.

    Raises:
        ValueError: another module; the message says what can be driven.
    """
    from torch import nn

    if not isinstance(module, nn.RNNBase | nn.RNNCellBase):
        raise ValueError(
            f"got a {type(module).__name__}; only nn.RNN, nn.LSTM, nn.GRU and their cells can be driven unit by unit"
        )
    weights = {name: value.detach().cpu().double().numpy() for name, value in module.named_parameters()}
    return from_weights(
        weights,
        kind=module.mode.partition("_")[0] if isinstance(module, nn.RNNBase) else type(module).__name__,
        nonlinearity=str(getattr(module, "nonlinearity", "tanh")),
    )


def from_weights(weights: Mapping[str, npt.ArrayLike], *, kind: str, nonlinearity: str = "tanh") -> Recurrence:
    """The recurrence that parameters of torch describe, as `Run.weights` gives them.

    Args:
        weights: arrays by torch's names: ``weight_ih_l0``, ``bias_hh_l0_reverse``, …, or a cell's ``weight_ih``.
        kind: ``"RNN"``, ``"LSTM"``, ``"GRU"``, or the name of a cell such as ``"LSTMCell"``.
        nonlinearity: of an RNN.

    Raises:
        ValueError: an unknown kind, or missing weights.
    """
    plain = kind.removesuffix("Cell")
    if plain not in GATES:
        raise ValueError(f"got a {kind}; only RNN, LSTM, GRU and their cells can be driven unit by unit")
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"an RNN has nonlinearity 'tanh' or 'relu', got {nonlinearity!r}")
    if "weight_ih" in weights:
        return Recurrence(plain, (_weights(weights, ""),), nonlinearity=nonlinearity)
    levels = sum(name.startswith("weight_ih_l") and not name.endswith("_reverse") for name in weights)
    if not levels:
        raise ValueError(f"the weights of a recurrent layer begin with weight_ih, got {', '.join(weights) or 'none'}")
    both = "weight_ih_l0_reverse" in weights
    return Recurrence(
        plain,
        tuple(_weights(weights, f"_l{level}") for level in range(levels)),
        tuple(_weights(weights, f"_l{level}_reverse") for level in range(levels)) if both else (),
        nonlinearity,
    )


def _weights(weights: Mapping[str, npt.ArrayLike], suffix: str) -> Weights:
    def named(name: str) -> Floats | None:
        value = weights.get(name + suffix)
        return None if value is None else np.array(value, dtype=np.float64)[None]

    w_ih, w_hh = named("weight_ih"), named("weight_hh")
    if w_ih is None or w_hh is None:
        raise ValueError(f"weight_ih{suffix} and weight_hh{suffix} are both needed, got {', '.join(weights)}")
    zeros = np.zeros(w_ih.shape[:2])
    b_ih, b_hh = named("bias_ih"), named("bias_hh")
    return Weights(w_ih, w_hh, zeros if b_ih is None else b_ih, zeros if b_hh is None else b_hh, named("weight_hr"))


def side_by_side(recurrences: Sequence[Recurrence]) -> Recurrence:
    """Networks of one shape as one recurrence, in the order given.

    Raises:
        ValueError: none was given, or their shapes differ.
    """
    if not recurrences:
        raise ValueError("side_by_side needs at least one recurrence, got none")
    first = recurrences[0]
    shapes = {_shape(recurrence) for recurrence in recurrences}
    if len(shapes) > 1:
        raise ValueError(f"only networks of one shape run side by side, got {len(shapes)} shapes: {sorted(shapes)}")

    def joined(levels: Iterator[tuple[Weights, ...]]) -> tuple[Weights, ...]:
        return tuple(
            Weights(
                np.concatenate([one.w_ih for one in same]),
                np.concatenate([one.w_hh for one in same]),
                np.concatenate([one.b_ih for one in same]),
                np.concatenate([one.b_hh for one in same]),
                None if same[0].w_hr is None else np.concatenate([one.w_hr for one in same if one.w_hr is not None]),
            )
            for same in levels
        )

    return replace(
        first,
        forward=joined(zip(*(recurrence.forward for recurrence in recurrences), strict=True)),
        backward=joined(zip(*(recurrence.backward for recurrence in recurrences), strict=True)),
    )


def _shape(recurrence: Recurrence) -> str:
    sizes = f"{recurrence.input_size} inputs, {recurrence.cells} cells, {recurrence.units} units"
    levels = f"{len(recurrence.forward)} + {len(recurrence.backward)} levels"
    return f"{recurrence.kind} {recurrence.nonlinearity}: {sizes}, {levels}"


def drive(
    recurrence: Recurrence,
    signals: npt.ArrayLike,
    *,
    baseline: npt.ArrayLike,
    direction: npt.ArrayLike,
    rest: int,
    level: int = 0,
    reading: str = "in-network",
) -> dict[str, Floats]:
    """Hidden (and cell) states of one level, forward direction, while the input moves along a line.

    The input is ``baseline + signal * direction``. The network starts from zeros and first rests at ``baseline``. A
    bidirectional network is driven in its forward direction: what its backward direction hands to the level above stays
    at what it settles to at the baseline.

    Args:
        recurrence: the networks; all are driven alike.
        signals: (signal, step); all run in one batch.
        baseline: the input at rest, (input,).
        direction: what the signals are multiplied with, (input,).
        rest: steps at the baseline before the signals begin, at least 1.
        level: which one is measured, the first being 0; all below it run as they are.
        reading: ``"in-network"``, or ``"isolated"``: at the measured level, every unit sees the input and its own past
            alone, as all recurrent weights but the diagonal of each gate's block are taken for 0 (our choice).

    Returns:
        ``"h"``, and ``"c"`` for an LSTM: (network, signal, unit, step), the steps being those at rest, then those of
        the signals.

    Raises:
        ValueError: shapes that do not fit, an unknown level or reading, or isolated units behind a projection.
    """
    signals = np.atleast_2d(np.asarray(signals, dtype=np.float64))
    baseline, direction = (np.asarray(values, dtype=np.float64) for values in (baseline, direction))
    _check(recurrence, baseline, direction, rest, level, reading)
    cells = [
        _Cell(recurrence, weights, reading if at == level else READINGS[0])
        for at, weights in enumerate(recurrence.forward[: level + 1])
    ]
    backward = _backward_at_rest(recurrence, baseline, rest, level)
    at_rest = cells[0].from_input(baseline[None, None])
    along = _blocks(direction @ recurrence.forward[0].w_ih.transpose(0, 2, 1), recurrence)
    steps = rest + signals.shape[1]
    names = {"h": recurrence.units} | ({"c": recurrence.cells} if recurrence.kind == "LSTM" else {})
    found = {name: np.empty((recurrence.networks, len(signals), size, steps)) for name, size in names.items()}
    states = [cell.start(rows=1) for cell in cells]
    with np.errstate(over="ignore", invalid="ignore"):  # an RNN of ReLUs may explode; it is flagged
        for step in range(steps):
            if step == rest:
                states = [tuple(np.repeat(part, len(signals), axis=1) for part in state) for state in states]
            level_input = at_rest
            if step >= rest:
                level_input = at_rest + signals[:, step - rest][None, :, None, None] * along[:, None]
            for at, cell in enumerate(cells):
                if at:
                    below = states[at - 1][0]
                    if backward:
                        beside = np.broadcast_to(backward[at - 1], (*below.shape[:2], backward[at - 1].shape[2]))
                        below = np.concatenate([below, beside], axis=2)
                    level_input = cell.from_input(below)
                states[at] = cell.step(level_input, states[at])
            for name, part in zip(found, states[level], strict=True):
                found[name][..., step] = part
    return found


def _check(recurrence: Recurrence, baseline: Floats, direction: Floats, rest: int, level: int, reading: str) -> None:
    for name, values in (("baseline", baseline), ("direction", direction)):
        if values.shape != (recurrence.input_size,):
            raise ValueError(f"{name} needs one number per input, {recurrence.input_size}, got shape {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite, got {values}")
    if rest < 1:
        raise ValueError(f"rest must be at least 1 step, got {rest}")
    if not 0 <= level < len(recurrence.forward):
        raise ValueError(f"level must lie in 0..{len(recurrence.forward) - 1}, got {level}")
    if reading not in READINGS:
        raise ValueError(f"got reading {reading!r}; there are {', '.join(map(repr, READINGS))}")
    if reading == "isolated" and recurrence.forward[0].w_hr is not None:
        raise ValueError("a projection (proj_size) mixes the cells, so none of them can be isolated; read in-network")


class _Cell:
    """One level and direction, ready to be stepped; states are (network, row, unit)."""

    def __init__(self, recurrence: Recurrence, weights: Weights, reading: str) -> None:
        self.recurrence = recurrence
        self.weights = weights
        self.w_ih = weights.w_ih.transpose(0, 2, 1)
        self.b_ih = weights.b_ih[:, None]
        self.b_hh = _blocks(weights.b_hh, recurrence)[:, None]
        self.w_hh = np.ascontiguousarray(weights.w_hh.transpose(0, 2, 1))
        blocks = weights.w_hh.reshape(recurrence.networks, GATES[recurrence.kind], recurrence.cells, -1)
        self.own = np.diagonal(blocks, axis1=2, axis2=3)[:, None] if reading == "isolated" else None
        self.step: Callable[[Floats, tuple[Floats, ...]], tuple[Floats, ...]] = {
            "RNN": self._rnn,
            "LSTM": self._lstm,
            "GRU": self._gru,
        }[recurrence.kind]

    def start(self, *, rows: int) -> tuple[Floats, ...]:
        h = np.zeros((self.recurrence.networks, rows, self.recurrence.units))
        if self.recurrence.kind != "LSTM":
            return (h,)
        return h, np.zeros((self.recurrence.networks, rows, self.recurrence.cells))

    def from_input(self, x: Floats) -> Floats:
        """(network, row, gate, unit)."""
        return _blocks(x @ self.w_ih + self.b_ih, self.recurrence)

    def _from_state(self, h: Floats) -> Floats:
        if self.own is not None:
            return h[:, :, None] * self.own + self.b_hh
        return _blocks(h @ self.w_hh, self.recurrence) + self.b_hh

    def _rnn(self, x: Floats, state: tuple[Floats, ...]) -> tuple[Floats, ...]:
        total = (x + self._from_state(state[0]))[:, :, 0]
        return (np.tanh(total) if self.recurrence.nonlinearity == "tanh" else np.maximum(total, 0.0),)

    def _lstm(self, x: Floats, state: tuple[Floats, ...]) -> tuple[Floats, ...]:
        h, c = state
        total = x + self._from_state(h)
        i, f, o = expit(total[:, :, 0]), expit(total[:, :, 1]), expit(total[:, :, 3])
        c = f * c + i * np.tanh(total[:, :, 2])
        h = o * np.tanh(c)
        return (h if self.weights.w_hr is None else h @ self.weights.w_hr.transpose(0, 2, 1)), c

    def _gru(self, x: Floats, state: tuple[Floats, ...]) -> tuple[Floats, ...]:
        (h,) = state
        past = self._from_state(h)
        r, z = expit(x[:, :, 0] + past[:, :, 0]), expit(x[:, :, 1] + past[:, :, 1])
        n = np.tanh(x[:, :, 2] + r * past[:, :, 2])
        return ((1 - z) * n + z * h,)


def _blocks(rows: Floats, recurrence: Recurrence) -> Floats:
    """The rows of all gates, one block per gate: (…, gate * unit) to (…, gate, unit)."""
    return rows.reshape(*rows.shape[:-1], GATES[recurrence.kind], recurrence.cells)


def _backward_at_rest(recurrence: Recurrence, baseline: Floats, rest: int, level: int) -> list[Floats]:
    """What the backward direction of each level below ``level`` settles to at the baseline: (network, 1, unit) each."""
    if not recurrence.backward:
        return []
    below = np.broadcast_to(baseline, (recurrence.networks, 1, len(baseline)))
    found = []
    for forward, backward in zip(recurrence.forward[:level], recurrence.backward[:level], strict=True):
        ends: list[Any] = []
        for weights in (forward, backward):
            cell = _Cell(recurrence, weights, READINGS[0])
            state = cell.start(rows=1)
            given = cell.from_input(below)
            for _ in range(rest):
                state = cell.step(given, state)
            ends.append(state[0])
        found.append(ends[1])
        below = np.concatenate(ends, axis=2)
    return found
