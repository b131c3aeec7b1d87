"""``hiddenscope experiment nulls``: what pictures and entropies look like when there is nothing to see.

Five traces in which something that a reader might look for is known to be absent, beside the real one.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from hiddenscope.experiments.experiment import Context, Experiment

if TYPE_CHECKING:
    from hiddenscope.experiments.classifiers import Recipe
    from hiddenscope.experiments.datasets.sequences import Split

KINDS = {
    "trained": "trained on the true labels",
    "shuffled labels": "trained on labels that were dealt out at random: nothing about the classes can be learned",
    "shuffled epochs": "the trained network's trace with its epochs in random order: no time course",
    "drifting": "weights take random steps as long as those of the training: change, but no learning",
    "untrained": "new random weights at every epoch: no unit is itself from one epoch to the next",
    "noise": "independent normal numbers: no structure at all",
}


def order_correlation(embedding: xr.DataArray, dim: str) -> float:
    """How well a picture keeps the order along one dim: Spearman's correlation of distance with separation.

    For each two places on ``dim`` the mean distance between the points that agree in all else is compared with how far
    apart the places are. 1 for a straight path, about 0 where the order does not matter, NaN where all places coincide.

    Args:
        embedding: dims (epoch, step, unit, component).
        dim: ``"epoch"`` or ``"step"``; at least 3 places.

    >>> path = xr.DataArray(np.arange(5.0).reshape(5, 1, 1, 1), dims=("epoch", "step", "unit", "component"))
    >>> order_correlation(path, "epoch")
    1.0
    """
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr

    places = embedding.sizes[dim]
    if places < 3:
        raise ValueError(f"an order needs at least 3 places, got {places} along {dim!r}")
    values = embedding.transpose(dim, ..., "component").values.astype(np.float64)
    lines = values.reshape(places, -1, values.shape[-1])
    distance = np.nanmean([pdist(lines[:, line]) for line in range(lines.shape[1])], axis=0)
    separation = pdist(np.arange(places)[:, None])
    return float(spearmanr(separation, distance).statistic) if np.ptp(distance) > 0 else float("nan")


def traces(context: Context, split: Split, recipe: Recipe) -> tuple[dict[str, xr.DataArray], dict[str, float]]:
    """The trace of every kind in `KINDS`, and the held-out accuracy of those that have one."""
    from hiddenscope.experiments.material import recorded, states

    rng = np.random.default_rng(context.seed)
    shuffled = [replace(part, labels=rng.permutation(part.labels)) for part in (split.train, split.held_out)]
    run = recorded(context, "trained", split, recipe)
    dealt = recorded(context, "shuffled-labels", type(split)(*shuffled), recipe)
    real = states(run)
    order = rng.permutation(real.sizes["epoch"])
    drawn = {
        "trained": real,
        "shuffled labels": states(dealt),
        "shuffled epochs": real.copy(data=real.values[order]),
        "drifting": _walked(real, split, recipe, context.seed, run.path),
        "untrained": _redrawn(real, split, recipe, context.seed),
        "noise": real.copy(data=rng.normal(size=real.shape).astype(np.float32)),
    }
    accuracies = {
        "trained": float(run.metrics()["val_accuracy"].iloc[-1]),
        "shuffled labels": float(dealt.metrics()["val_accuracy"].iloc[-1]),
        "untrained": float(run.metrics()["val_accuracy"].iloc[0]),
    }
    return drawn, accuracies


def _redrawn(real: xr.DataArray, split: Split, recipe: Recipe, seed: int) -> xr.DataArray:
    """A new random network for every epoch, on the probe of the real trace."""
    from hiddenscope.experiments.classifiers import build

    networks = (build(recipe, split, seed=1_000 * (seed + 1) + epoch) for epoch in range(real.sizes["epoch"]))
    return real.copy(data=np.stack([_answers(network, real, split, recipe, seed) for network in networks]))


def _walked(real: xr.DataArray, split: Split, recipe: Recipe, seed: int, path: str) -> xr.DataArray:
    """The untrained network on a random walk, whose steps are as long, per parameter, as the training's were."""
    import torch

    from hiddenscope.experiments.classifiers import LAYER, build
    from hiddenscope.run import open_run

    run, network = open_run(path), build(recipe, split, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    epochs = run.epochs
    weights = [run.weights(LAYER, epoch) or {} for epoch in epochs]
    found = [_answers(network, real, split, recipe, seed)]
    for before, after in itertools.pairwise(weights):
        with torch.no_grad():
            for name, parameter in network.recurrent.named_parameters():
                length = float(np.linalg.norm(after[name] - before[name]))
                step = torch.randn(parameter.shape, generator=generator)
                parameter.add_(length * step / step.norm())
        found.append(_answers(network, real, split, recipe, seed))
    return real.copy(data=np.stack(found))


def _answers(network: object, real: xr.DataArray, split: Split, recipe: Recipe, seed: int) -> np.ndarray:
    """Hidden states (step, unit, sample) of a network on the probe, at the steps of the real trace."""
    import torch

    from hiddenscope.experiments.classifiers import RecurrentClassifier, probe

    assert isinstance(network, RecurrentClassifier)
    chosen = probe(split.held_out, per_class=recipe.per_class, seed=seed)
    with torch.no_grad():
        hidden = network.recurrent(torch.from_numpy(chosen.inputs))[0].numpy()
    return np.ascontiguousarray(hidden[:, real["step"].values].transpose(1, 2, 0))


def _run(context: Context) -> None:
    import pandas as pd

    from hiddenscope.analyses.association import associate
    from hiddenscope.analyses.phases import find_phases
    from hiddenscope.dashboard.figures.grid import embedding_grid
    from hiddenscope.experiments.classifiers import Recipe
    from hiddenscope.experiments.material import curve_figure, kept_picture, mean_over, phase_text, small_watch

    recipe = Recipe(units=8, epochs=7, per_class=2) if context.quick else Recipe()
    split = small_watch(quick=context.quick)
    drawn, accuracies = traces(context, split, recipe)
    rows: list[dict[str, Any]] = []
    pictures, curves = {}, {}
    for kind, trace in context.progress(drawn.items(), "pictures", len(drawn)):
        made = kept_picture(context, kind.replace(" ", "-"), trace)
        pictures[kind] = made["embedding"]
        curves[kind] = mean_over(made["intra_step_entropy"], "step")
        phases = find_phases(curves[kind].to_numpy(), curves[kind].index.to_numpy())
        trend = associate(curves[kind].to_numpy(), curves[kind].index.to_numpy())
        rows.append(
            {
                "trace": kind,
                "held-out accuracy": accuracies.get(kind, np.nan),
                "order of epochs": order_correlation(made["embedding"], "epoch"),
                "order of steps": order_correlation(made["embedding"], "step"),
                "inter kept": float(made["inter"][0]),
                "inter by chance": float(made["inter_chance"][0]),
                "intra kept": float(made["intra"]),
                "intra by chance": float(made["intra_chance"]),
                "trustworthiness": float(made["trustworthiness"]),
                "entropy, first epoch": float(curves[kind].iloc[0]),
                "entropy, last epoch": float(curves[kind].iloc[-1]),
                "entropy with epoch, p": trend.p_value,
                "phases, p": phases.p_value,
                "phases": phase_text(phases),
            }
        )
    table = pd.DataFrame(rows)
    context.table("nulls", table)
    context.table("kinds", pd.DataFrame({"trace": list(KINDS), "is": list(KINDS.values())}))
    rows_of_grid: dict[str, str | xr.DataArray] = {"epoch": "epoch", "step": "step", "unit": "unit"}
    context.figure("pictures", embedding_grid(pictures, rows_of_grid, limit=4_000), width=1380, height=720)
    changes = {kind: curve - curve.mean() for kind, curve in curves.items()}
    figure = curve_figure({"mean intra-step entropy, less its own mean (nats)": changes}, columns=1)
    context.figure("entropies", figure, width=900, height=420)
    for row in rows:
        context.number(f"order of epochs, {row['trace']}", row["order of epochs"])


EXPERIMENT = Experiment("nulls", "what the pictures look like when there is nothing to see", _run)
"""The experiment, as `hiddenscope.experiments.experiment.EXPERIMENTS` lists it."""
