"""Curves over epochs: correlations against SciPy, and p-values that hold for curves that are not related."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import spearmanr

from hiddenscope.analyses.association import Association, associate, associate_with_metrics


def wandering(rng: np.random.Generator, n: int, memory: float = 0.8) -> np.ndarray:
    """An autoregressive curve about 0."""
    values = np.zeros(n + 100)
    for i, shock in enumerate(rng.normal(size=n + 99), start=1):
        values[i] = memory * values[i - 1] + shock
    return values[100:]


def test_correlation_and_every_lag_are_scipys() -> None:
    rng = np.random.default_rng(0)
    one, other = wandering(rng, 50), wandering(rng, 50)
    found = associate(one, other, max_lag=6)
    assert found.correlation == pytest.approx(spearmanr(one, other).statistic)
    by_lag = {
        lag: spearmanr(one[: 50 - lag], other[lag:]).statistic
        if lag >= 0
        else spearmanr(one[-lag:], other[:lag]).statistic
        for lag in range(-6, 7)
    }
    strongest = max(by_lag, key=lambda lag: abs(by_lag[lag]))
    assert found.lag == strongest
    assert found.lag_correlation == pytest.approx(by_lag[strongest])


def test_p_value_counts_the_shifts_that_do_as_well() -> None:
    rng = np.random.default_rng(1)
    one, other = wandering(rng, 30), wandering(rng, 30)
    strengths = [abs(spearmanr(one, np.roll(other, shift)).statistic) for shift in range(30)]
    expected = np.mean([strength >= strengths[0] - 1e-12 for strength in strengths])
    assert associate(one, other).p_value == pytest.approx(expected)


def test_unrelated_smooth_curves_are_rarely_called_related_where_the_usual_test_often_does() -> None:
    rng = np.random.default_rng(2)
    ours, lagged, usual = [], [], []
    for _ in range(150):
        one, other = wandering(rng, 80), wandering(rng, 80)
        found = associate(one, other, max_lag=8)
        ours.append(found.p_value <= 0.05)
        lagged.append(found.lag_p_value <= 0.05)
        usual.append(spearmanr(one, other).pvalue <= 0.05)
    assert np.mean(ours) < 0.11
    assert np.mean(lagged) < 0.2
    assert np.mean(usual) > 0.2


def test_changes_of_unrelated_drifting_curves_are_rarely_called_related() -> None:
    rng = np.random.default_rng(3)
    walks = [(rng.normal(size=60).cumsum(), rng.normal(size=60).cumsum()) for _ in range(150)]
    changes = np.mean([associate(*pair, max_lag=0, difference=True).p_value <= 0.05 for pair in walks])
    levels = np.mean([associate(*pair, max_lag=0).p_value <= 0.05 for pair in walks])
    assert changes < 0.1
    assert levels > changes  # as the docstring warns


def test_related_curves_are_found_and_the_leader_is_named() -> None:
    rng = np.random.default_rng(4)
    cause = wandering(rng, 100)
    effect = -np.roll(cause, 3) + 0.3 * rng.normal(size=100)
    found = associate(cause[5:], effect[5:], max_lag=10)
    assert found.lag == 3
    assert found.lag_correlation < -0.8
    assert found.lag_p_value < 0.05
    assert associate(effect[5:], cause[5:], max_lag=10).lag == -3


def test_unknown_epochs_are_left_out_and_short_or_constant_curves_give_nan() -> None:
    rng = np.random.default_rng(5)
    one, other = wandering(rng, 40), wandering(rng, 40)
    holed = one.copy()
    holed[[0, 7]] = np.nan
    keep = np.isfinite(holed)
    assert associate(holed, other) == associate(one[keep], other[keep])
    for short in (associate(one[:5], other[:5]), associate(np.ones(40), other)):
        assert np.isnan(short.p_value)
        assert short.lag == 0


def test_a_table_has_levels_and_changes_of_every_metric() -> None:
    epochs = np.arange(-1.0, 30)
    rng = np.random.default_rng(6)
    entropy = xr.DataArray(
        wandering(rng, 31)[:, None] + np.array([0.0, 1.0]), dims=("epoch", "step"), coords={"epoch": epochs}
    )
    loss = -entropy.mean("step").values
    metrics = pd.DataFrame({"loss": loss, "accuracy": wandering(rng, 31)}, index=epochs).iloc[::-1]
    metrics.loc[-1.0, "loss"] = np.nan  # nothing is logged before training
    table = associate_with_metrics(entropy, metrics)
    assert table.index.tolist() == [(name, of) for name in ("loss", "accuracy") for of in ("level", "change")]
    assert table.columns.tolist() == list(Association.__dataclass_fields__)
    assert table.loc[("loss", "level"), "correlation"] == pytest.approx(-1)
    assert table.loc[("loss", "level"), "n_epochs"] == 30
    assert table.loc[("loss", "change"), "n_epochs"] == 29


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"shapes \(5,\) and \(6,\)"):
        associate(np.zeros(5), np.zeros(6))
    with pytest.raises(ValueError, match="max_lag must not be negative"):
        associate(np.arange(20.0), np.arange(20.0), max_lag=-1)
    with pytest.raises(ValueError, match="max_lag must leave 5 of the 20 epochs"):
        associate(np.arange(20.0), np.arange(20.0), max_lag=16)
