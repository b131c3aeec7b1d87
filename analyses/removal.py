"""Which units does a network need? It is asked without one of them, and without more and more of them.

Removal checks what a ranking of units claims: taken away from the top, useful units cost more than from the bottom, and
random orders lie between. The true importance of a unit is what its removal alone costs. After Hasani et al. (2018,
arXiv:1809.03864), who verify their ranking by ablation; number of random orders, area and correlation are our choices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.stats import rankdata, spearmanr

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hiddenscope.analyses.models import ModelAccess

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

Score = Callable[[Booleans], Floats]
"""From masks (mask, unit), true where a unit stays, to how well the network does with each (mask,): more is better."""

ORDERS = ("high first", "low first")


def model_score(
    access: ModelAccess,
    layer: str,
    inputs: Any,
    measure: Callable[[Tensor], float],
    *,
    mode: Literal["recurrence", "readout"] = "recurrence",
) -> Score:
    """How well a model does with some units of a layer removed, as a function of which stay.

    A removed unit is 0 at every step. Since nobody reads it then, its column of the recurrent weights, and of the
    weights from this level to the next, is taken for 0 in a copy of the recurrent module, and its output is set to 0:
    torch's own kernel runs every mask, two to three times as fast as stepping. The model itself is left as it was.

    Args:
        access: the model.
        layer: one of its layers; all units of a bidirectional one, the backward ones second.
        inputs: what the model takes, as for `ModelAccess.answer`.
        measure: from the model's answer to a number of which more is better, such as accuracy or minus the loss.
        mode: ``"recurrence"``: removed everywhere; ``"readout"``: only from what later layers see.

    Raises:
        ValueError: an unknown layer or mode; when called, masks of another width.
    """
    from hiddenscope.analyses.models import ModelAccess
    from hiddenscope.analyses.responses import recurrent_layers

    if mode not in ("recurrence", "readout"):
        raise ValueError(f"mode must be 'recurrence' or 'readout', got {mode!r}")
    width = access.width(layer)
    found, level = recurrent_layers(access.model)[layer]
    module: Any = found

    def without(keep: Booleans) -> Callable[[nn.Module, Any], Tensor]:
        def call(model: nn.Module, given: Any) -> Tensor:
            with _instead(module, _removing(module, level, keep, mode)):
                answer: Tensor = model(given) if access.call is None else access.call(model, given)
            return answer

        return call

    def score(keep: Booleans) -> Floats:
        keep = np.atleast_2d(np.asarray(keep, dtype=np.bool_))
        if keep.shape[1] != width:
            raise ValueError(f"masks need one entry per unit of {layer!r}, {width}, got shape {keep.shape}")
        answers = (ModelAccess(access.model, call=without(row)).answer(inputs) for row in keep)
        return np.array([float(measure(answer)) for answer in answers])

    return score


@contextmanager
def _instead(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """While this lasts, the module computes with another function; whoever calls it and its hooks see no difference."""
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]


def _removing(module: Any, level: int, keep: Booleans, mode: str) -> Callable[..., Any]:
    """The forward of a copy of a recurrent module that lacks some units of one level."""
    import copy

    import torch

    last = level == module.num_layers - 1
    copied = copy.copy(module)  # shares all weights but those that are replaced below
    copied.__dict__ = {name: value for name, value in module.__dict__.items() if name != "forward"}
    copied._parameters = dict(module._parameters)
    copied._flat_weights = list(module._flat_weights)
    copied._forward_hooks, copied._forward_pre_hooks = type(module._forward_hooks)(), type(module._forward_hooks)()
    stays = torch.from_numpy(keep).to(module.weight_ih_l0.device)
    directions = 2 if module.bidirectional else 1
    half = len(keep) // directions
    for direction, suffix in enumerate(("", "_reverse")[:directions]):
        if mode == "recurrence":
            own = stays[direction * half : (direction + 1) * half]
            _mask_columns(copied, f"weight_hh_l{level}{suffix}", own)
        if not last:
            _mask_columns(copied, f"weight_ih_l{level + 1}{suffix}", stays)

    def forward(*args: Any, **kwargs: Any) -> Any:
        output, final = type(module).forward(copied, *args, **kwargs)
        if last:
            output = _masked(output, stays)
        states = final if isinstance(final, tuple) else (final,)
        ends = []
        for state in states:
            if state.shape[-1] == half:  # behind a projection, the cell state has other units
                rows = slice(level * directions, (level + 1) * directions)
                mask = stays.reshape((directions, *(1,) * (state.ndim - 2), half))
                state = state.clone()
                state[rows] = state[rows].masked_fill(~mask, 0.0)
            ends.append(state)
        return output, tuple(ends) if isinstance(final, tuple) else ends[0]

    return forward


def _mask_columns(module: Any, name: str, stays: Tensor) -> None:
    weight = getattr(module, name)
    masked = weight.detach().masked_fill(~stays, 0.0)
    module._parameters[name] = masked
    module._flat_weights[module._flat_weights_names.index(name)] = masked


def _masked(output: Any, stays: Tensor) -> Any:
    from torch.nn.utils.rnn import PackedSequence

    if isinstance(output, PackedSequence):
        return output._replace(data=output.data.masked_fill(~stays, 0.0))
    return output.masked_fill(~stays, 0.0)


def unit_importance(score: Score, units: int) -> Floats:
    """What the removal of each unit alone costs, (unit,): the score of the whole network minus that without the unit.

    >>> unit_importance(lambda keep: keep @ np.array([1.0, 0.0, 3.0]), 3)
    array([1., 0., 3.])
    """
    scores = score(np.concatenate([np.ones((1, units), np.bool_), ~np.eye(units, dtype=np.bool_)]))
    return np.asarray(scores[0] - scores[1:])


def rank_units(numbers: xr.Dataset | Mapping[str, npt.ArrayLike]) -> xr.Dataset:
    """Units in order of each of some numbers, and of all together.

    Args:
        numbers: one array (unit,) per metric. The size counts, not the sign; units without a number come last.

    Returns:
        ``rank``, dims (metric, unit): 1 for the largest; equal numbers share the mean of their ranks. ``combined``,
        dims (unit,): the mean over the metrics (our choice; how the paper combines them is not known to us).

    Raises:
        ValueError: no metric, or arrays of different lengths.

    >>> ranks = rank_units({"gain": [0.5, -2.0, 0.5], "delay": [1.0, np.nan, 7.0]})
    >>> ranks["rank"].values.tolist(), ranks["combined"].values.tolist()
    ([[2.5, 1.0, 2.5], [2.0, 3.0, 1.0]], [2.25, 2.0, 1.75])
    """
    named = {str(name): np.abs(np.asarray(values, dtype=np.float64)) for name, values in numbers.items()}
    shapes = {values.shape for values in named.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"ranking needs at least one array, all with one number per unit; got shapes {sorted(shapes)}")
    ranks = np.array([rankdata(np.where(np.isnan(values), np.inf, -values)) for values in named.values()])
    unit = numbers["unit"].values if isinstance(numbers, xr.Dataset) and "unit" in numbers.coords else None
    coords = {"metric": list(named)} | ({} if unit is None else {"unit": unit})
    return xr.Dataset({"rank": (("metric", "unit"), ranks), "combined": ("unit", ranks.mean(axis=0))}, coords)


def agreement(numbers: xr.Dataset | Mapping[str, npt.ArrayLike], important: npt.ArrayLike) -> xr.Dataset:
    """Spearman's correlation of the size of each number with the true importance of the units.

    Args:
        numbers: as for `rank_units`; units without a number are left out.
        important: what the removal of each unit costs, (unit,), as `unit_importance` gives it.

    Returns:
        Dims (metric,): ``correlation``; ``p_value``, two-sided, of a single such test; ``units``, how many had a
        number. The first two are NaN with fewer than 3 units, or where one side does not vary.

    >>> agreement({"gain": [1.0, 2.0, 4.0, 3.0]}, [0.0, 0.1, 0.2, 0.3])["correlation"].round(3).item()
    0.8
    """
    true = np.asarray(important, dtype=np.float64)
    rows = []
    for values in numbers.values():
        size = np.abs(np.asarray(values, dtype=np.float64))
        there = np.isfinite(size) & np.isfinite(true)
        if there.sum() < 3 or np.ptp(size[there]) == 0 or np.ptp(true[there]) == 0:
            rows.append((np.nan, np.nan, there.sum()))
        else:
            found = spearmanr(size[there], true[there])
            rows.append((found.statistic, found.pvalue, there.sum()))
    correlation, p_value, units = zip(*rows, strict=True)
    return xr.Dataset(
        {
            "correlation": ("metric", np.array(correlation, np.float64)),
            "p_value": ("metric", np.array(p_value, np.float64)),
            "units": ("metric", np.array(units, np.int64)),
        },
        {"metric": [str(name) for name in numbers]},
    )


def removal_curves(
    score: Score, ranks: xr.DataArray, *, random_orders: int = 20, points: int = 21, seed: int = 0
) -> xr.Dataset:
    """How the score falls as more and more units are removed, from the top of each ranking, from its bottom, at random.

    Args:
        score: as from `model_score`.
        ranks: dims (metric, unit), 1 for the top, such as ``rank`` of `rank_units`; of equal ranks, the first unit goes
            first.
        random_orders: how many orders are drawn.
        points: at how many counts of removed units the score is taken, 0 and all among them; at most one more than
            there are units.
        seed: of the random orders.

    Returns:
        ``score``, dims (metric, order, removed), order being ``"high first"`` or ``"low first"``; ``random``, dims
        (draw, removed); ``area``, dims (metric,): the area between the curves over the share of removed units, low
        first minus high first: positive where the top of the ranking is what the network needs. ``area_error`` is the
        standard deviation of that area for random rankings (each drawn order against its own reverse).

    Raises:
        ValueError: fewer than 2 points or 1 random order.
    """
    if points < 2 or random_orders < 1:
        raise ValueError(f"curves need 2 points or more and a random order, got {points} and {random_orders}")
    ranks = ranks.transpose("metric", "unit")
    units = ranks.sizes["unit"]
    removed = np.unique(np.round(np.linspace(0, units, min(points, units + 1))).astype(np.int64))
    falling = np.argsort(ranks.values, axis=1, kind="stable")
    rng = np.random.default_rng(seed)
    drawn = np.array([rng.permutation(units) for _ in range(random_orders)])
    orders = np.concatenate([falling, falling[:, ::-1], drawn, drawn[:, ::-1]])
    place = np.argsort(orders, axis=1)  # of each unit in each order
    keep = place[:, None, :] >= removed[None, :, None]
    masks, where = np.unique(keep.reshape(-1, units), axis=0, return_inverse=True)
    scores = np.asarray(score(masks))[where.reshape(keep.shape[:2])]
    count = len(falling)
    high, low, random, reverse = np.split(scores, [count, 2 * count, 2 * count + random_orders])
    share = removed / units
    return xr.Dataset(
        {
            "score": (("metric", "order", "removed"), np.stack([high, low], axis=1)),
            "random": (("draw", "removed"), random),
            "area": ("metric", np.trapezoid(low - high, share, axis=1)),
            "area_error": ((), np.sqrt(np.mean(np.trapezoid(reverse - random, share, axis=1) ** 2))),
        },
        {"metric": ranks["metric"].values, "order": list(ORDERS), "removed": removed},
    )
