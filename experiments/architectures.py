"""``hiddenscope experiment architectures``: LSTM, GRU and vanilla RNN, narrow and wide, on the same data.

After the architecture figures of MM-PHATE (Xie et al. 2024): entropies, accuracy and pictures side by side.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from hiddenscope.experiments.experiment import Context, Experiment

if TYPE_CHECKING:
    import xarray as xr

    from hiddenscope.experiments.classifiers import Recipe

WIDTHS = (10, 20, 30, 50, 100, 200)
WIDTH = 30
"""Of the three kinds of cells that are compared."""


def networks(*, quick: bool) -> dict[str, Recipe]:
    """Every network by name: the three cells at one width, and LSTMs of every width."""
    from hiddenscope.experiments.classifiers import Recipe

    base = Recipe(epochs=7, per_class=2) if quick else Recipe()
    width, widths = (8, (6, 8)) if quick else (WIDTH, WIDTHS)
    cells = {f"{cell.upper()} {width}": replace(base, cell=cell, units=width) for cell in ("lstm", "gru", "rnn")}
    return cells | {f"LSTM {units}": replace(base, units=units) for units in widths}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epochs", type=int, help="epochs to train (default: 20)")
    parser.add_argument("--sequences", type=int, help="sequences to train on (default: all 1239)")
    parser.add_argument("--stride", type=int, default=4, help="embed every so many steps (default: %(default)s)")


def _run(context: Context) -> None:
    import pandas as pd

    from hiddenscope.analyses.association import associate
    from hiddenscope.analyses.phases import find_phases
    from hiddenscope.dashboard.figures.grid import embedding_grid
    from hiddenscope.experiments.classifiers import reduced
    from hiddenscope.experiments.material import (
        curve_figure,
        kept_picture,
        mean_over,
        phase_text,
        recorded,
        small_watch,
        states,
    )
    from hiddenscope.experiments.nulls import order_correlation

    split = small_watch(quick=context.quick)
    if context.arguments.sequences is not None:
        if context.arguments.sequences < 50:
            raise ValueError(f"--sequences must be at least 50, got {context.arguments.sequences}")
        split = reduced(split, train=context.arguments.sequences)
    rows, pictures, entropies, accuracies = [], {}, {}, {}
    for name, recipe in networks(quick=context.quick).items():
        epochs = context.arguments.epochs or recipe.epochs
        if epochs < 4:
            raise ValueError(f"--epochs must be at least 4, got {epochs}")
        recipe = replace(recipe, epochs=epochs)
        run = recorded(context, name.lower().replace(" ", "-"), split, recipe)
        made = kept_picture(context, name.lower().replace(" ", "-"), states(run, stride=context.arguments.stride))
        metrics = run.metrics()
        curve = mean_over(made["intra_step_entropy"], "step")
        inter = mean_over(made["inter_step_entropy"], "unit")
        with_loss = associate(curve.iloc[1:].to_numpy(), metrics["train_loss"].iloc[1:].to_numpy(), difference=True)
        rows.append(
            {
                "network": name,
                "parameters": _parameters(recipe, split.train.inputs.shape[2], len(split.train.label_names)),
                "held-out accuracy": metrics["val_accuracy"].iloc[-1],
                "best held-out accuracy": metrics["val_accuracy"].max(),
                "training accuracy": metrics["train_accuracy"].iloc[-1],
                "intra entropy, phases": phase_text(find_phases(curve.to_numpy(), curve.index.to_numpy())),
                "intra entropy, change to peak": curve.max() - curve.iloc[0],
                "intra entropy, peak at epoch": curve.idxmax(),
                "intra entropy, change to end": curve.iloc[-1] - curve.iloc[0],
                "inter entropy, change to end": inter.iloc[-1] - inter.iloc[0],
                "changes go with loss, r": with_loss.correlation,
                "changes go with loss, p": with_loss.p_value,
                "inter kept": float(made["inter"][0]),
                "inter by chance": float(made["inter_chance"][0]),
                "intra kept": float(made["intra"]),
                "intra by chance": float(made["intra_chance"]),
                "order of epochs": order_correlation(made["embedding"], "epoch"),
                "order of steps": order_correlation(made["embedding"], "step"),
                "picture, CPU seconds": made.attrs["cpu_seconds"],
            }
        )
        pictures[name] = made["embedding"]
        entropies[name], accuracies[name] = curve - curve.iloc[0], metrics["val_accuracy"]
        context.say(f"{name}: held-out accuracy {metrics['val_accuracy'].iloc[-1]:.3f}")
    context.table("networks", pd.DataFrame(rows))
    cells = list(pictures)[:3]
    lstms = sorted((name for name in pictures if name.startswith("LSTM")), key=lambda name: int(name.split()[1]))
    figure = curve_figure(
        {
            "intra-step entropy less that before training (nats): cells": {name: entropies[name] for name in cells},
            "held-out accuracy: cells": {name: accuracies[name] for name in cells},
            "the same: widths": {name: entropies[name] for name in lstms},
            "held-out accuracy: widths": {name: accuracies[name] for name in lstms},
        }
    )
    context.figure("curves", figure, width=1100, height=640)
    colors: dict[str, str | xr.DataArray] = {"epoch": "epoch", "step": "step"}
    context.figure("cells", embedding_grid({name: pictures[name] for name in cells}, colors), width=960, height=640)
    figure = embedding_grid({name: pictures[name] for name in lstms}, colors, limit=4_000)
    context.figure("widths", figure, width=1380, height=480)


def _parameters(recipe: Recipe, n_features: int, n_classes: int) -> int:
    from hiddenscope.experiments.classifiers import RecurrentClassifier

    model = RecurrentClassifier(recipe, n_steps=1, n_features=n_features, n_classes=n_classes)
    return sum(parameter.numel() for parameter in model.parameters())


EXPERIMENT = Experiment(
    "architectures", "LSTM, GRU and vanilla RNN, narrow and wide, on the same data", _run, _add_arguments
)
"""The experiment, as `hiddenscope.experiments.experiment.EXPERIMENTS` lists it."""
