"""Keeping what a unit needs keeps it active; keeping as much of something else does not."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from hiddenscope.analyses.activations import activation_thresholds, active_periods
from hiddenscope.analyses.perturbation import perturbation_curves

TRIANGLE = 1 - np.abs(np.linspace(-1, 1, 20))


def matched_filter(inputs):
    """One unit that answers to a triangle of 20 steps as a whole, and with relu to nothing else."""
    rows = np.stack([np.convolve(row, TRIANGLE[::-1])[: inputs.shape[1]] for row in inputs[:, :, 0]])
    return np.maximum(rows - 2.0, 0)[:, :, None]


def planted(noise=0.4):
    rng = np.random.default_rng(0)
    inputs = rng.normal(0, noise, size=(30, 150, 1))
    for row, start in zip(inputs, rng.integers(0, 130, 30), strict=True):
        row[start : start + 20, 0] += TRIANGLE
    unit = matched_filter(inputs).transpose(1, 2, 0)
    periods = active_periods(unit, activation_thresholds(unit))
    return inputs, periods.loc[periods.groupby("sample")["value"].idxmax()]


def test_keeping_the_selected_region_beats_as_many_relevant_points_and_chance():
    """At the length of what the unit answers to; half of it (10 steps) is worse than its loudest points."""
    inputs, periods = planted()
    loud = np.abs(inputs)[periods["sample"].to_numpy()]
    found = perturbation_curves(matched_filter, inputs, periods, unit=0, kept=[5, 10, 20, 150], relevances=loud)
    mean = found["mean"]
    at = mean.sel(kept=20)
    assert at.sel(strategy="selected") < at.sel(strategy="relevant") - 0.3
    assert at.sel(strategy="relevant") < at.sel(strategy="random") - 0.3
    assert (found["low"] <= mean + 1e-9).all()
    assert (mean <= found["high"] + 1e-9).all()


def test_keeping_nothing_loses_the_same_for_all_and_keeping_all_loses_nothing():
    inputs, periods = planted()
    loud = np.abs(inputs)[periods["sample"].to_numpy()]
    found = perturbation_curves(matched_filter, inputs, periods, unit=0, kept=[0, 150], relevances=loud)
    np.testing.assert_allclose(found["drop"].sel(kept=150), 0, atol=1e-12)
    np.testing.assert_allclose(found["drop"].sel(kept=0) - found["empty"], 0, atol=1e-12)
    np.testing.assert_allclose(found["activation"], periods["value"])


def test_a_module_is_asked_itself_and_left_as_it_was():
    torch.manual_seed(0)
    module = nn.LSTM(2, 5, batch_first=True).train()
    inputs = np.random.default_rng(0).normal(size=(6, 30, 2))
    states = module(torch.as_tensor(inputs, dtype=torch.float32))[0].detach().numpy().transpose(1, 2, 0)
    periods = active_periods(states, activation_thresholds(states))
    own = periods[periods["unit"] == 3]
    found = perturbation_curves(module, inputs, own, unit=3, kept=[2, 30])
    np.testing.assert_allclose(found["activation"], own["value"], atol=1e-6)
    np.testing.assert_allclose(found["drop"].sel(kept=30), 0, atol=1e-6)
    assert module.training
    again = perturbation_curves(module, inputs, own, unit=3, kept=[2, 30])
    assert found.identical(again)


def test_low_activations_lose_when_they_rise_to_zero():
    inputs = np.zeros((1, 4, 1))
    inputs[0, 2] = 4.0
    found = perturbation_curves(
        lambda x: -np.cumsum(x, axis=1),
        inputs,
        pd.DataFrame({"sample": [0], "peak": [3]}),
        unit=0,
        kept=[1],
        relevances=inputs,
    )
    assert float(found["drop"].sel(strategy="selected", kept=1, period=0)) == 1.0  # -4 became -3
    assert float(found["empty"][0]) == 0.0


def test_what_is_missing_is_named():
    inputs, periods = planted()
    with pytest.raises(ValueError, match="a function cannot say what is relevant"):
        perturbation_curves(matched_filter, inputs, periods, unit=0)
    with pytest.raises(ValueError, match="unit 0 has no period"):
        perturbation_curves(matched_filter, inputs, periods[:0], unit=0, relevances=inputs)
    with pytest.raises(ValueError, match="repeats must be"):
        perturbation_curves(matched_filter, inputs, periods, unit=0, relevances=inputs, repeats=0)
