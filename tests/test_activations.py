"""Highly active periods: thresholds, periods and windows agree with loops, counts and planted motifs."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from hiddenscope.analyses.activations import activation_thresholds, active_periods, summarize_periods
from hiddenscope.analyses.windows import fixed_width, gradient_width, settling_widths, windows_at_peaks

TRIANGLE = 1 - np.abs(np.linspace(-1, 1, 20))


def planted(seed=0, samples=40, steps=200, noise=0.1):
    """White noise with a triangle of 20 steps at a known place, and a matched filter as the unit."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(0, noise, size=(samples, steps))
    starts = rng.integers(0, steps - 20, size=samples)
    for row, start in enumerate(starts):
        signal[row, start : start + 20] += TRIANGLE
    unit = np.stack([np.convolve(row, TRIANGLE[::-1])[:steps] for row in signal])
    return signal[:, :, None], unit.T[:, None, :], starts


def loop_periods(scores, threshold, min_length):
    """Periods of one sequence, from the definition."""
    found, start = [], None
    for t, value in enumerate([*scores, -np.inf]):
        if value > threshold and start is None:
            start = t
        if not value > threshold and start is not None:
            if t - start >= min_length:
                inside = list(scores[start:t])
                found.append((start, t - 1, start + inside.index(max(inside))))
            start = None
    return found


def test_five_of_a_hundred_different_values_are_above_their_95th_percentile():
    values = np.random.default_rng(0).permutation(100).astype(float).reshape(10, 1, 10)
    threshold = activation_thresholds(values, quantile=0.95)
    assert int((values[:, 0] > float(threshold[0])).sum()) == 5
    assert active_periods(values, threshold)["length"].sum() == 5
    third_party = np.sort(values.ravel())[int(0.95 * 100)]  # the other convention, which is not ours
    assert int((values > third_party).sum()) == 4


def test_periods_hit_every_planted_motif_and_flag_five_percent_of_all_points():
    signal, unit, starts = planted()
    threshold = activation_thresholds(unit)
    periods = active_periods(unit, threshold)
    flagged = periods["length"].sum() / unit.size
    assert flagged == pytest.approx(0.05, abs=1 / unit.size + 1e-9)
    ends = starts + 19  # the matched filter peaks when the motif ends
    hit = [
        any((own["start"] <= end) & (own["end"] >= end))
        for end, (_, own) in zip(ends, periods.groupby("sample"), strict=True)
    ]
    assert np.mean(hit) == 1.0
    strongest = periods.loc[periods.groupby("sample")["value"].idxmax()]
    assert np.abs(strongest["peak"].to_numpy() - ends).max() <= 1
    windows, rows = windows_at_peaks(signal, strongest, width=20)
    assert len(rows) == len(starts)
    np.testing.assert_allclose(windows[:, :, 0].mean(axis=0), TRIANGLE, atol=0.08)


def test_without_the_motif_the_recall_is_lost():
    _, unit, starts = planted(noise=10.0)
    periods = active_periods(unit, activation_thresholds(unit))
    by_sample = dict(iter(periods.groupby("sample")))
    hit = [
        row in by_sample and bool(((by_sample[row]["start"] <= e) & (by_sample[row]["end"] >= e)).any())
        for row, e in enumerate(starts + 19)
    ]
    assert np.mean(hit) < 0.5


@given(
    arrays(np.float64, (3, 2, 9), elements=st.one_of(st.integers(-3, 3).map(float), st.just(np.nan))),
    st.floats(-3, 3),
    st.integers(1, 3),
    st.sampled_from(["positive", "negative", "absolute"]),
)
def test_periods_agree_with_a_loop(values, threshold, min_length, sign):
    trace = xr.DataArray(values.transpose(2, 0, 1), dims=("step", "unit", "sample"))
    trace = trace.assign_coords(unit=["a", "b", "c"], sample=[10, 20])
    found = active_periods(trace, threshold, sign=sign, min_length=min_length)
    expected = []
    for u, unit in enumerate("abc"):
        for s, sample in enumerate((10, 20)):
            row = values[u, s]
            scores = {"positive": row, "negative": -row, "absolute": np.abs(row)}[sign]
            for start, end, peak in loop_periods(scores, threshold, min_length):
                mean = row[start : end + 1].mean()
                expected.append((unit, sample, start, end, peak, end - start + 1, mean, row[peak]))
    assert [tuple(row) for row in found.itertuples(index=False)] == [pytest.approx(row) for row in expected]


def test_a_dead_unit_has_no_period_and_does_not_disturb_the_others():
    values = np.random.default_rng(0).normal(size=(30, 3, 4)).astype(np.float32)
    values[:, 1] = 0.25
    threshold = activation_thresholds(values)
    periods = active_periods(values, threshold)
    assert set(periods["unit"]) == {0, 2}
    summary = summarize_periods(periods, np.arange(3))
    assert summary["count"].tolist()[1] == 0
    assert np.isnan(summary["mean_length"][1])
    only_dead = active_periods(values[:, 1:2], threshold[1:2])
    assert only_dead.empty
    assert list(only_dead.columns) == list(periods.columns)
    windows, rows = windows_at_peaks(np.zeros((4, 30, 2)), only_dead, width=5)
    assert windows.shape == (0, 5, 2)
    assert rows.shape == (0,)


def test_padding_is_left_out_of_thresholds_and_periods():
    values = np.random.default_rng(1).normal(size=(50, 2, 6))
    padded = np.full((80, 2, 6), np.nan)
    padded[:50] = values
    np.testing.assert_allclose(activation_thresholds(padded), activation_thresholds(values), rtol=1e-6)
    thresholds = activation_thresholds(values)
    assert active_periods(padded, thresholds).equals(active_periods(values, thresholds))
    assert np.isnan(activation_thresholds(np.full((4, 1, 2), np.nan))).all()


def test_half_precision_is_measured_in_single_precision():
    values = np.random.default_rng(2).normal(size=(20, 1, 5)).astype(np.float16)
    periods = active_periods(values, activation_thresholds(values))
    single = values.astype(np.float32)
    assert periods.equals(active_periods(single, activation_thresholds(single)))


def test_negative_periods_are_the_positive_ones_of_the_negated_unit():
    values = np.random.default_rng(3).normal(size=(40, 2, 5))
    low = active_periods(values, activation_thresholds(values, sign="negative"), sign="negative")
    high = active_periods(-values, activation_thresholds(-values))
    columns = ["unit", "sample", "start", "end", "peak", "length"]
    assert low[columns].equals(high[columns])
    np.testing.assert_allclose(low["value"], -high["value"])
    assert (low["value"] < 0).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: activation_thresholds(np.zeros((2, 2, 2)), quantile=1.5), "quantile must lie in 0..1, got 1.5"),
        (lambda: activation_thresholds(np.zeros((2, 2))), "got an array of shape"),
        (lambda: activation_thresholds(np.zeros((2, 2, 2)), sign="up"), "sign must be one of"),
        (lambda: active_periods(np.zeros((2, 2, 2)), [1.0, 2.0, 3.0]), "one threshold per unit"),
        (lambda: active_periods(np.zeros((2, 2, 2)), 1.0, min_length=0), "at least 1 step"),
        (lambda: windows_at_peaks(np.zeros((2, 2)), None, width=1), "inputs need dims"),
    ],
)
def test_bad_values_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_windows_that_begin_before_the_sequence_are_dropped_or_masked():
    import pandas as pd

    inputs = np.arange(24.0).reshape(2, 6, 2)
    periods = pd.DataFrame({"sample": [0, 1, 1], "peak": [1, 2, 5]})
    dropped, rows = windows_at_peaks(inputs, periods, width=3)
    assert rows.tolist() == [1, 2]
    np.testing.assert_array_equal(dropped, np.stack([inputs[1, :3], inputs[1, 3:]]))
    masked, rows = windows_at_peaks(inputs, periods, width=3, incomplete="mask")
    assert rows.tolist() == [0, 1, 2]
    assert np.isnan(masked[0, 0]).all()
    np.testing.assert_array_equal(masked[0, 1:], inputs[0, :2])


def test_the_gradient_window_of_a_leaky_unit_follows_its_time_constant():
    import pandas as pd

    leak = 0.8  # h_t = 0.8 h_{t-1} + x_t in the linear range: share of the last w steps is 1 - 0.8**w
    module = nn.RNN(1, 1, nonlinearity="relu", batch_first=True, bias=False)
    with torch.no_grad():
        module.weight_ih_l0.fill_(1.0)
        module.weight_hh_l0.fill_(leak)
    inputs = np.abs(np.random.default_rng(0).normal(size=(3, 60, 1))) + 0.1
    periods = pd.DataFrame({"sample": [0, 1, 2], "peak": [59, 50, 45]})
    wanted = int(np.ceil(np.log(0.1) / np.log(leak)))
    assert gradient_width(module, inputs, periods, unit=0, mass=0.9) == wanted == 11
    assert all(parameter.grad is None for parameter in module.parameters())
    assert module.training


def test_widths_stay_within_the_sequence():
    assert fixed_width(8) == 8
    assert fixed_width(1) == 1
    assert settling_widths({"a": 0.0, "b": np.inf}, n_steps=20) == {"a": 1, "b": 20}
