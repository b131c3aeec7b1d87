"""The classifiers that experiments train: what they compute, that they are recorded, and that a run is used again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from hiddenscope.experiments.classifiers import (
    LAYER,
    Recipe,
    build,
    deviations,
    evaluate,
    load,
    loss_and_hits,
    probe,
    reduced,
    trained,
)
from hiddenscope.experiments.datasets.digits import digits_split
from hiddenscope.experiments.datasets.sequences import Split

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits() -> Split:
    return reduced(digits_split(), train=300, held_out=150)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("readout", ["last", "mean", "flatten", "every step"])
def test_each_readout_sees_the_states_that_it_says(digits: Split, cell: str, readout: str) -> None:
    recipe = Recipe(cell=cell, units=5, readout=readout)  # type: ignore[arg-type]
    model = build(recipe, digits, seed=1)
    inputs = torch.from_numpy(digits.held_out.inputs[:4])
    states = model.recurrent(inputs)[0]
    weight, bias = model.readout.weight, model.readout.bias
    expected = {
        "last": states[:, -1] @ weight.T + bias if readout == "last" else None,
        "mean": states.mean(dim=1) @ weight.T + bias if readout == "mean" else None,
        "flatten": torch.stack([weight @ one.reshape(-1) + bias for one in states]) if readout == "flatten" else None,
        "every step": states @ weight.T + bias if readout == "every step" else None,
    }[readout]
    torch.testing.assert_close(model(inputs), expected)


def test_loss_and_hits_at_every_step_are_those_of_the_steps_one_by_one() -> None:
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 4])
    loss, hits = loss_and_hits(logits, labels)
    single = [loss_and_hits(logits[:, step], labels) for step in range(4)]
    assert_allclose(float(loss), np.mean([float(one[0]) for one in single]), rtol=1e-6)
    assert_array_equal(hits.numpy(), np.stack([one[1].numpy() for one in single], axis=1))


def test_a_run_is_recorded_learns_and_is_used_again_until_something_changes(tmp_path: Path, digits: Split) -> None:
    recipe = Recipe(units=16, epochs=21, learning_rate=1e-2, per_class=2)
    epochs: list[int] = []

    def watch(range_of: range) -> range:
        epochs.extend(range_of)
        return range_of

    kept = {"kept_epochs": lambda epoch: epoch % 8 == 0, "watch": watch}
    run = trained(tmp_path / "run", digits, recipe, seed=0, **kept)  # type: ignore[arg-type]
    assert run.status == "finished"
    assert run.epochs.tolist() == [-1, 0, 8, 16, 20]
    metrics = run.metrics()
    assert metrics["val_accuracy"].iloc[0] < 0.25 < 0.4 < metrics["val_accuracy"].iloc[-1]
    model = load(tmp_path / "run", digits, recipe)
    again = evaluate(model, digits.held_out, "val")
    assert again["val_accuracy"] == pytest.approx(metrics["val_accuracy"].iloc[-1])
    assert again["val_loss"] == pytest.approx(metrics["val_loss"].iloc[-1], rel=1e-5)
    chosen = probe(digits.held_out, per_class=2, seed=0)
    states = model.recurrent(torch.from_numpy(chosen.inputs))[0].detach().numpy()
    assert_allclose(run.trace(LAYER).values[-1], states.transpose(1, 2, 0), atol=1e-6)
    assert_array_equal(run.labels, chosen.labels)
    version = run.version
    assert trained(tmp_path / "run", digits, recipe, seed=0, **kept).version == version  # type: ignore[arg-type]
    assert epochs == list(range(21))
    other = trained(tmp_path / "run", digits, replace(recipe, epochs=1), seed=0)
    assert other.epochs.tolist() == [-1, 0]


def test_a_run_that_was_killed_in_training_is_begun_again(tmp_path: Path, digits: Split) -> None:
    recipe = Recipe(units=4, epochs=3, per_class=1)

    def die(epochs: range) -> object:
        yield 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "run", digits, recipe, seed=0, watch=die)  # type: ignore[arg-type]
    run = trained(tmp_path / "run", digits, recipe, seed=0)
    assert run.epochs.tolist() == [-1, 0, 1, 2]
    same = trained(tmp_path / "other", digits, recipe, seed=0)
    assert_array_equal(run.trace().values, same.trace().values)


def test_learning_rate_zero_leaves_the_network_untrained(tmp_path: Path, digits: Split) -> None:
    run = trained(tmp_path / "run", digits, Recipe(units=4, epochs=2, per_class=1, learning_rate=0.0), seed=0)
    values = run.trace().values
    assert_array_equal(values, np.broadcast_to(values[:1], values.shape))


def test_a_smaller_split_keeps_inputs_and_labels_together(digits: Split) -> None:
    small = reduced(digits, every_step=3, train=10)
    assert small.train.inputs.shape == (10, 3, 8)
    assert len(small.held_out) == len(digits.held_out)
    places = np.linspace(0, 299, 10).astype(int)
    assert_array_equal(small.train.inputs, digits.train.inputs[places, ::3])
    assert_array_equal(small.train.labels, digits.train.labels[places])
    with pytest.raises(ValueError, match="sequences, 99 were asked for"):
        probe(digits.held_out, per_class=99, seed=0)


def test_deviations_list_exactly_what_differs() -> None:
    paper = Recipe(units=20, learning_rate=1e-4)
    rows = deviations(paper, replace(paper, units=30, epochs=7), [("data", "there", "here")])
    assert [row["setting"] for row in rows] == ["units", "epochs", "data"]
    assert deviations(paper, paper) == []
