"""Why was this unit active? Layer-wise relevance from one unit at one step back to every input before it.

Cho et al. 2020 start layer-wise relevance propagation at a unit instead of the network's output, and run it many times
under dropout to see how certain it is. The rules for recurrent cells are those of Arras et al. 2017 (epsilon rule; in a
product of signal and gate the signal takes all), here also for GRU, projections and stacked bidirectional networks.
Where exactly dropout acts on the way back is not in the published text: ours acts where dropout in a forward pass
would, on hidden states on their way to the next step and level, never on an LSTM's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.analyses.unrolled import Floats, Level, Network, Pass, initial_states

if TYPE_CHECKING:
    from torch import nn

Masks = Literal["step", "unit"]
EPSILON = 1e-3
_BLOCK = 2**24  # numbers of one kind that are held at once
DROPOUT = 0.2
"""The share of hidden relevance that is dropped, for a module that has no dropout of its own."""


def relevance(
    module: nn.RNNBase,
    inputs: npt.ArrayLike,
    *,
    unit: int,
    step: int | npt.ArrayLike | None = None,
    level: int | None = None,
    initial: tuple[npt.ArrayLike, ...] | None = None,
    epsilon: float = EPSILON,
    conserve: bool = False,
    passes: int = 0,
    dropout: float | None = None,
    masks: Masks = "step",
    keep_passes: bool = False,
    random_state: int = 0,
    dtype: npt.DTypeLike = np.float64,
) -> xr.Dataset:
    """How much each input contributed to a unit's activation at one step.

    The unit's activation is handed back through the equations of the network. A weighted sum hands on to each summand
    in proportion to what it contributed, ``a_i w_ij / (z_j + epsilon sign(z_j))``; a product of signal and gate hands
    everything to the signal; tanh and relu hand on unchanged.

    Biases contribute, too. ``conserve=False`` leaves their part (and that of ``epsilon``) on them, so that an input
    that the network does not read has exactly no relevance; the part is reported as ``unexplained``. ``conserve=True``
    spreads it evenly over the summands: then relevance and ``carried`` sum to the activation exactly.

    Args:
        module: an ``nn.RNN``, ``nn.LSTM`` or ``nn.GRU``; nothing of it is called or changed.
        inputs: (sample, step, feature), or (step, feature) for one sample; NaN past a sequence's end.
        unit: column of the output of that level; those of the backward direction come second.
        step: where the unit is looked at; one for all samples or one per sample; default each sequence's last.
        level: of a stacked module, 0 the lowest; default the highest.
        initial: hidden state (and an LSTM's cell state) before the first step, (level * direction, sample, unit), as
            torch takes them; default zeros.
        epsilon: keeps quotients from growing beyond bounds where contributions cancel.
        conserve: see above.
        passes: how many backward passes with dropout; 0 for none. They run together, as many as memory allows.
        dropout: share of hidden relevance that a pass drops, the rest being scaled up; default the module's own, or
            0.2 where it has none.
        masks: ``"step"`` drops anew at every step: the mean of the passes tends to the relevance without dropout.
            ``"unit"`` drops a unit at all steps of a pass, as variational dropout does; what passes a unit at many
            steps is then scaled up as many times, so that mean and spread grow with the number of steps.
        keep_passes: return all passes, too.
        random_state: seed of the masks.
        dtype: of the computation, float64 or float32.

    Returns:
        ``relevance`` (sample, step, feature); per sample ``output`` (the activation), ``carried`` (relevance of the
        initial states) and ``unexplained`` (``output`` less all of these). With ``passes``: ``relevance_mean``,
        ``relevance_std`` and ``variation`` (their quotient, NaN where the mean is 0), ``step_std`` (sample, step; of
        the sum over features), and ``relevance_passes`` (pass, sample, step, feature) if kept.

    Raises:
        ValueError: inputs, units, steps or options that do not fit the module.

    >>> import torch
    >>> module = torch.nn.RNN(1, 1, bias=False, batch_first=True, nonlinearity="relu")
    >>> for weight, value in zip(module.parameters(), (2.0, 0.5)):
    ...     _ = weight.data.fill_(value)
    >>> relevance(module, [[1.0], [3.0]], unit=0, epsilon=0)["relevance"].values.ravel().tolist()
    [1.0, 6.0]
    """
    values = np.asarray(inputs, dtype=dtype)
    values = values[None] if values.ndim == 2 else values
    network = Network.of(module, level, np.dtype(dtype))
    lengths = _check(values, network, unit, epsilon, passes, masks)
    steps = _steps(step, lengths)
    rate = (getattr(module, "dropout", 0.0) or DROPOUT) if dropout is None else dropout
    if not 0 <= rate < 1:
        raise ValueError(f"dropout must lie in 0..1, 1 excluded, got {rate}")
    start = initial_states(initial, network, len(values))
    # What comes later than the unit is looked at cannot matter where nothing reads backward.
    reach = values.shape[1] if network.bidirectional else int(steps.max()) + 1
    clean = np.nan_to_num(values[:, :reach])
    size = reach * (network.input_size + network.width * network.sides)
    generator = np.random.default_rng(random_state)
    parts: list[dict[str, Floats]] = []
    for rows in _blocks(len(values), size * max(1, passes)):
        passed = network.forward(
            clean[rows].transpose(1, 0, 2), np.minimum(lengths[rows], reach), tuple(state[:, rows] for state in start)
        )
        seeds = np.zeros_like(passed[-1].outputs)
        at = (steps[rows], np.arange(len(steps[rows])), unit)
        seeds[at] = passed[-1].outputs[at]
        found, carried = (part[0] for part in _propagate(passed, seeds, 1, epsilon, conserve, None))
        part = {"relevance": found, "output": seeds[at], "carried": carried}
        if passes:

            def drawn(count: int, passed: list[Level] = passed, seeds: Floats = seeds, found: Floats = found) -> Floats:
                if not rate:
                    return np.broadcast_to(found, (count, *found.shape))
                draw = _masks(count, rate, masks, generator)
                return _propagate(passed, seeds, count, epsilon, conserve, draw)[0]

            part |= _over_passes(drawn, found, passes, size * len(found), keep=keep_passes)
        parts.append(part)
    later = [(0, 0), (0, values.shape[1] - reach)]
    whole = {
        name: np.concatenate([part[name] for part in parts], axis=1 if name == "relevance_passes" else 0)
        for name in parts[0]
    }
    dims = ("sample", "step", "feature")
    named: dict[str, Any] = {
        "relevance": (dims, _padded(whole["relevance"], [*later, (0, 0)])),
        "output": (("sample",), whole["output"]),
        "carried": (("sample",), whole["carried"]),
        "unexplained": (("sample",), whole["output"] - whole["relevance"].sum(axis=(1, 2)) - whole["carried"]),
        "target_step": (("sample",), steps),
    }
    attributes = {"unit": unit, "epsilon": epsilon, "conserve": conserve, "passes": passes}
    if not passes:
        return xr.Dataset(named, attrs=attributes)
    mean, spread = (_padded(whole[name], [*later, (0, 0)]) for name in ("relevance_mean", "relevance_std"))
    with np.errstate(divide="ignore", invalid="ignore"):
        variation = np.where(mean != 0, spread / np.abs(mean), np.nan)
    named |= {"relevance_mean": (dims, mean), "relevance_std": (dims, spread), "variation": (dims, variation)}
    named["step_std"] = (dims[:2], _padded(whole["step_std"], later))
    if keep_passes:
        named["relevance_passes"] = (("pass", *dims), _padded(whole["relevance_passes"], [(0, 0), *later, (0, 0)]))
    return xr.Dataset(named, attrs=attributes | {"dropout": rate, "masks": masks})


def _blocks(count: int, size: int) -> list[slice]:
    """Rows that are looked at together, of which each takes ``size`` numbers."""
    width = max(1, _BLOCK // max(size, 1))
    return [slice(first, first + width) for first in range(0, count, width)]


def _over_passes(
    drawn: Callable[[int], Floats], found: Floats, passes: int, size: int, *, keep: bool
) -> dict[str, Floats]:
    """Mean and spread over passes, drawn some at a time: ``drawn(n)`` gives n passes, each of ``size`` numbers."""
    kept: list[Floats] = []
    sums, squares = np.zeros_like(found), np.zeros_like(found)
    by_step, by_step_squares = np.zeros_like(found[..., 0]), np.zeros_like(found[..., 0])
    for rows in _blocks(passes, size):
        some = drawn(len(range(passes)[rows]))
        off = some - found  # nearer to 0, so that the difference of the sums below keeps its digits
        sums += off.sum(axis=0)
        squares += (off**2).sum(axis=0)
        together = off.sum(axis=3)
        by_step += together.sum(axis=0)
        by_step_squares += (together**2).sum(axis=0)
        if keep:
            kept.append(some)

    def spread(total: Floats, total_squares: Floats) -> Floats:
        variance = (total_squares - total**2 / passes) / max(1, passes - 1)
        return np.asarray(np.sqrt(np.maximum(variance, 0)))

    answer = {"relevance_mean": found + sums / passes, "relevance_std": spread(sums, squares)}
    answer["step_std"] = spread(by_step, by_step_squares)
    return answer | ({"relevance_passes": np.concatenate(kept)} if keep else {})


def _padded(values: Floats, widths: list[tuple[int, int]]) -> Floats:
    """With zeros for the steps that cannot matter."""
    return np.pad(values, widths) if any(after for _, after in widths) else values


Draw = Callable[[int, int, int, int, int], Floats]
"""A mask for (level, side, samples, width, step), of shape (pass, sample, width)."""


def _propagate(
    levels: list[Level], seeds: Floats, count: int, epsilon: float, conserve: bool, draw: Draw | None
) -> tuple[Floats, Floats]:
    """Relevance of the inputs (pass, sample, step, feature) and of the initial states (pass, sample)."""
    steps, samples = seeds.shape[:2]
    above = np.zeros((steps, count, samples, seeds.shape[2]), dtype=seeds.dtype)
    start: Floats = np.broadcast_to(seeds[:, None], above.shape)
    carried = np.zeros((count, samples), dtype=seeds.dtype)
    for number, level in reversed(list(enumerate(levels))):
        below = np.zeros((steps, count, samples, level.directions[0].inputs.shape[2]), dtype=seeds.dtype)
        width = level.outputs.shape[2] // len(level.directions)
        for side, one in enumerate(level.directions):
            columns = slice(side * width, (side + 1) * width)
            mine, fixed = above[..., columns], start[..., columns]
            if one.reverse:
                mine, fixed = np.flip(mine, 0), np.flip(fixed, 0)
            masks = None if draw is None else partial(draw, number, side, samples, width)
            found, left = _back_through(one, mine, fixed, epsilon, conserve, masks)
            below += np.flip(found, 0) if one.reverse else found
            carried += left
        above, start = below, np.zeros_like(below)
    return above.transpose(1, 2, 0, 3), carried


def _back_through(
    one: Pass,
    above: Floats,
    start: Floats,
    epsilon: float,
    conserve: bool,
    masks: Callable[[int], Floats] | None,
) -> tuple[Floats, Floats]:
    """From relevance on the outputs (step, pass, sample, unit) to relevance on the inputs, and on the initial states.

    ``start`` is where the relevance begins: no dropout acts on it.
    """
    steps, count, samples, width = above.shape
    on_inputs = np.zeros((steps, count, samples, one.inputs.shape[2]), dtype=above.dtype)
    on_state = np.zeros((count, samples, width), dtype=above.dtype)
    on_memory = np.zeros((count, samples, one.hidden.shape[2]), dtype=above.dtype)
    delta = 1.0 if conserve else 0.0
    fan_in = one.inputs.shape[2] + width
    for t in reversed(range(steps)):
        from_hidden = on_state + above[t]
        here = one.valid[t][:, None]
        if masks is not None:
            from_hidden = from_hidden * np.where(here, masks(t), 1)
        from_hidden = from_hidden + start[t]
        if one.projection is None:
            on_hidden = from_hidden
        else:
            per_output = _quotient(from_hidden, one.outputs[t], epsilon)
            shared = (
                delta * (per_output * epsilon * _sign(one.outputs[t])).sum(-1, keepdims=True) / len(one.hidden[t].T)
            )
            on_hidden = one.hidden[t] * (per_output @ one.projection) + shared
        if one.stay is None or one.come is None:
            on_candidate, on_old = on_hidden, None
        else:
            whole = one.stay[t] + one.come[t]
            share = _quotient(on_hidden + on_memory, whole, epsilon)
            half = delta * epsilon * _sign(whole) / 2
            on_candidate, on_old = (one.come[t] + half) * share, (one.stay[t] + half) * share
        z = one.candidate[t]
        bias = one.bias if one.gain is None else one.bias[t]
        per_candidate = _quotient(on_candidate, z, epsilon)
        shared = delta * (per_candidate * (bias + epsilon * _sign(z))).sum(-1, keepdims=True) / fan_in
        read = per_candidate if one.gain is None else per_candidate * one.gain[t]
        new_state = one.before[t] * (read @ one.w_state) + shared
        new_memory = np.zeros_like(on_memory)
        if on_old is not None and one.kind == "LSTM":
            new_memory = on_old
        elif on_old is not None:
            new_state = new_state + on_old
        on_inputs[t] = np.where(here, one.inputs[t] * (per_candidate @ one.w_in) + shared, 0.0)
        on_state = np.where(here, new_state, from_hidden)
        on_memory = np.where(here, new_memory, on_memory)
    return on_inputs, on_state.sum(-1) + on_memory.sum(-1)


def _quotient(numerator: Floats, z: Floats, epsilon: float) -> Floats:
    """``R / (z + epsilon sign(z))``; 0 where that is 0 / 0."""
    whole = np.broadcast_to(z + epsilon * _sign(z), numerator.shape)
    return np.asarray(np.divide(numerator, whole, out=np.zeros_like(numerator), where=whole != 0))


def _sign(z: Floats) -> Floats:
    """The sign, 1 for 0."""
    return np.where(z < 0, z.dtype.type(-1), z.dtype.type(1))


def _masks(count: int, rate: float, kind: Masks, generator: np.random.Generator) -> Draw:
    """Bernoulli(1 - rate) / (1 - rate), independent for passes, samples and units, and for steps unless ``"unit"``."""
    kept: dict[tuple[int, int], Floats] = {}

    def draw(level: int, side: int, samples: int, width: int, step: int) -> Floats:
        if kind == "unit" and (level, side) in kept:
            return kept[level, side]
        mask = (generator.random((count, samples, width)) >= rate) / (1 - rate)
        kept[level, side] = mask
        return mask

    return draw


def _check(
    values: Floats, network: Network, unit: int, epsilon: float, passes: int, masks: str
) -> npt.NDArray[np.intp]:
    """The length of each sequence; ``ValueError`` where something does not fit."""
    if values.ndim != 3 or values.shape[2] != network.input_size:
        raise ValueError(
            f"inputs need dims (sample, step, feature) with {network.input_size} features, got {values.shape}"
        )
    units = network.width * network.sides
    if not 0 <= unit < units:
        raise ValueError(f"unit must lie in 0..{units - 1}, got {unit}")
    if epsilon < 0:
        raise ValueError(f"epsilon must not be negative, got {epsilon}")
    if passes < 0:
        raise ValueError(f"passes must not be negative, got {passes}")
    if masks not in ("step", "unit"):
        raise ValueError(f"masks must be 'step' or 'unit', got {masks!r}")
    known = np.asarray(np.isfinite(values).all(axis=2))
    lengths: npt.NDArray[np.intp] = np.where(known.all(axis=1), known.shape[1], known.argmin(axis=1))
    if not lengths.all():
        raise ValueError(f"sequence {int(np.argmin(lengths))} has no step at all")
    if (known.sum(axis=1) > lengths).any():
        raise ValueError("NaN may stand only past the end of a sequence, not within it")
    return lengths


def _steps(step: int | npt.ArrayLike | None, lengths: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    steps = lengths - 1 if step is None else np.broadcast_to(np.asarray(step, dtype=np.intp), lengths.shape)
    wrong = (steps < 0) | (steps >= lengths)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(f"step must lie in 0..{lengths[first] - 1} of sequence {first}, got {steps[first]}")
    return steps
