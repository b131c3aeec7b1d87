"""Which time steps matter: the state after one step is replaced, and the loss says what that destroys.

Replaced by the mean over the sequences, or by another sequence's state, the layer forgets at this step what it knew
about this one; whatever it reads afterwards it may use. Named as "time-step ablations" by MM-PHATE (version 2) without
a formula; this one is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.analyses.models import ModelAccess
from hiddenscope.analyses.silencing import aligned, cross_entropies
from hiddenscope.analyses.stepping import Replace

Kind = Literal["mean", "shuffled"]
KINDS: tuple[Kind, ...] = ("mean", "shuffled")


def ablate_steps(
    models: ModelAccess | Mapping[float, ModelAccess],
    layer: str,
    inputs: Any,
    labels: Any,
    *,
    steps: Sequence[int] | npt.NDArray[np.integer[Any]],
    kinds: Sequence[Kind] = KINDS,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> xr.Dataset:
    """How the loss changes when the state of a layer after one step is replaced, for each of some steps.

    Args:
        models: the model, or several by their epoch.
        layer: a recurrent layer.
        inputs: one batch, for which the model answers with logits (sample, class) or (sample, step, class).
        labels: (sample,) or (sample, step).
        steps: positions in the sequence.
        kinds: ``"mean"``: the mean state over the batch; ``"shuffled"``: each sequence gets another one's, by one
            permutation without fixed points.
        seed: of the permutation.
        tick: called after every pass.

    Returns:
        ``loss_change`` (epoch, kind, step) in nats, per step that has an answer; exactly 0 where nothing later depends
        on the state. ``loss`` (epoch,) of the untouched model. Epoch is NaN for a single model.

    Raises:
        ValueError: fewer than two sequences, or what `ModelAccess.answer` refuses.
    """
    by_epoch = {float("nan"): models} if isinstance(models, ModelAccess) else dict(models)
    count = len(labels)
    if count < 2:
        raise ValueError(f"replacing states takes at least 2 sequences, got {count}")
    order = derangement(count, seed=seed)
    changes = np.empty((len(by_epoch), len(kinds), len(steps)))
    losses = np.empty(len(by_epoch))
    for row, access in enumerate(by_epoch.values()):
        losses[row] = _loss(access, inputs, labels, [])
        tick()
        for column, kind in enumerate(kinds):
            for place, step in enumerate(steps):
                change = Replace(layer, int(step), "mean" if kind == "mean" else order)
                changes[row, column, place] = _loss(access, inputs, labels, [change]) - losses[row]
                tick()
    return xr.Dataset(
        {
            "loss_change": (("epoch", "kind", "step"), changes, {"unit": "nats", "long_name": "change of the loss"}),
            "loss": (("epoch",), losses, {"unit": "nats"}),
        },
        coords={"epoch": list(by_epoch), "kind": list(kinds), "step": np.asarray(steps)},
        attrs={"seed": seed},
    )


def derangement(count: int, *, seed: int) -> npt.NDArray[np.int64]:
    """A random permutation that leaves nothing in its place.

    >>> order = derangement(5, seed=0)
    >>> bool((order != np.arange(5)).all()), sorted(order.tolist())
    (True, [0, 1, 2, 3, 4])
    """
    circle = np.random.default_rng(seed).permutation(count)
    order = np.empty(count, dtype=np.int64)
    order[circle] = np.roll(circle, 1)
    return order


def _loss(access: ModelAccess, inputs: Any, labels: Any, interventions: list[Replace]) -> float:
    answer = access.answer(inputs, interventions, stepwise=True)
    return float(cross_entropies(*aligned(answer, labels)).mean())
