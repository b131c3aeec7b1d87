"""``hiddenscope experiment area2bump``: an LSTM that tells eight directions of reaching from spikes.

The Area2Bump experiment of MM-PHATE (Xie et al. 2024) for whoever has the NWB file; on synthetic spikes of the same
shape for everybody.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hiddenscope.experiments.experiment import Context, Experiment

if TYPE_CHECKING:
    from hiddenscope.experiments.classifiers import Recipe

REPORTED_ACCURACY = 1.0
"""Accuracy that the paper reports."""


def paper_recipe() -> Recipe:
    """The paper's settings; it does not tell of any limit to gradients."""
    from hiddenscope.experiments.classifiers import Recipe

    return Recipe(
        cell="lstm",
        units=20,
        readout="flatten",
        learning_rate=1e-4,
        batch_size=64,
        epochs=200,
        per_class=5,
        largest_gradient=None,
    )


def recorded_epoch(epoch: int) -> bool:
    """Which epochs the paper looks at: 0 to 28, then every 5th."""
    return epoch <= 28 or epoch % 5 == 0


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    from hiddenscope.experiments.full_figures import add_methods

    parser.add_argument("--nwb", metavar="FILE", help="NWB file of Area2_Bump; without it, synthetic spikes are used")
    parser.add_argument("--epochs", type=int, help="epochs to train (default: 200)")
    parser.add_argument("--learning-rate", type=float, help="of Adam (default: 1e-4)")
    add_methods(parser)


def _run(context: Context) -> None:
    import pandas as pd

    from hiddenscope.experiments.classifiers import deviations
    from hiddenscope.experiments.datasets.area2bump import load_area2bump, synthetic_reaches
    from hiddenscope.experiments.datasets.sequences import standardize
    from hiddenscope.experiments.full_figures import draw_everything
    from hiddenscope.experiments.material import recorded, states

    arguments = context.arguments
    recipe = paper_recipe()
    if context.quick:
        recipe = replace(recipe, units=8, epochs=8, learning_rate=1e-2, per_class=1)
    recipe = replace(
        recipe,
        epochs=recipe.epochs if arguments.epochs is None else arguments.epochs,
        learning_rate=arguments.learning_rate or recipe.learning_rate,
    )
    if recipe.epochs < 4:
        raise ValueError(f"--epochs must be at least 4, got {recipe.epochs}")
    every_step = 60 if context.quick else 6
    rows = [
        ("filter of the spikes", "not known", "Gaussian of 40 ms, standardized per neuron"),
        ("epochs after the 28th", "every 5th or 10th", "every 5th"),
    ]
    if arguments.nwb is not None:
        split = load_area2bump(Path(arguments.nwb).expanduser(), every_step=every_step)
    else:
        split = synthetic_reaches(every_step=every_step, seed=context.seed)
        rows = [("data", "Area2_Bump: neurons of a macaque", "synthetic Poisson neurons with cosine tuning"), *rows]
        context.note("the spikes are synthetic: they show how the experiment runs, and nothing about any brain")
    context.table("deviations", pd.DataFrame(deviations(paper_recipe(), recipe, rows)))
    split = standardize(split)
    run = recorded(context, "lstm", split, recipe, kept_epochs=recorded_epoch)
    trace = states(run, stride=1 if context.quick else 5)
    context.note(
        f"embedded: {trace.sizes['epoch']} epochs, {trace.sizes['step']} of {split.train.inputs.shape[1]} steps, "
        f"{trace.sizes['unit']} units, {trace.sizes['sample']} probe sequences"
    )
    draw_everything(context, run, trace, split, recipe)
    context.number("accuracy in the paper", REPORTED_ACCURACY)


EXPERIMENT = Experiment(
    "area2bump", "reaching directions from spikes: an LSTM with every figure of the paper", _run, _add_arguments
)
"""The experiment, as `hiddenscope.experiments.experiment.EXPERIMENTS` lists it."""
