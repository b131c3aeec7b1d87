"""The synthetic benchmark: its published numbers, and the laws of the systems it simulates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial import KDTree
from sklearn.decomposition import PCA

from hiddenscope.experiments.datasets.bifurcations import SCENARIOS, simulate

Array = npt.NDArray[np.float64]


def z_scores(values: Array) -> Array:
    return (values - values.mean(axis=-1, keepdims=True)) / (values.std(axis=-1, keepdims=True) + 1e-8)


def neighbors(points: Array, k: int) -> npt.NDArray[np.int64]:
    """Each point's k nearest others, nearest first."""
    return np.asarray(KDTree(points).query(points, k + 1)[1][:, 1:])


def test_pca_row_of_the_published_table_is_reproduced() -> None:
    trace = simulate("hopf_bif__pitchfork_bif__no_warp").values.reshape(-1, 6, 10)
    picture = PCA(3).fit_transform(trace.reshape(-1, 10)).reshape(-1, 6, 3)
    nodes = z_scores(trace)
    shares: dict[int, list[float]] = {10: [], 40: []}
    for unit in range(6):
        near_in_data = neighbors(nodes[:, unit], 40)
        near_in_picture = neighbors(picture[:, unit], 40)
        for k, found in shares.items():
            same = near_in_data[:, :k, None] == near_in_picture[:, None, :k]
            found.append(float(same.sum() / (k * len(nodes))))
    assert np.mean(shares[10]) == pytest.approx(0.1487, abs=1e-3)
    assert np.mean(shares[40]) == pytest.approx(0.1434, abs=1e-3)


def radius(trace: npt.NDArray[np.float32], group: slice) -> Array:
    return np.asarray(trace[:, -20:, group].mean(axis=(1, 2, 3)) / 1.2)


def test_radius_of_the_circle_is_the_square_root_of_mu() -> None:
    trace = simulate("hopf_bif__no_warp").values
    mu = np.linspace(-1, 2, 101)
    # The directional part of the signal averages out over a turn, nearly.
    found = radius(trace, slice(0, 3))[60:]
    np.testing.assert_allclose(found, np.sqrt(mu[60:]), rtol=0.1)
    assert radius(trace, slice(0, 3))[:25].max() < 0.05 < radius(trace, slice(0, 3))[60]


def test_later_bifurcation_comes_with_a_slower_rise() -> None:
    trace = simulate("hopf_bif__no_warp")
    slow, fast = trace.attrs["crossings"]
    assert (slow, fast) == pytest.approx((100 / 3, 25))
    rises = [int(np.argmax(radius(trace.values, group) > 0.3)) for group in (slice(0, 3), slice(3, 6))]
    assert rises[1] < rises[0]
    assert fast < rises[1] < fast + 10
    assert slow < rises[0] < slow + 10


def test_pitchfork_rests_where_its_force_is_zero() -> None:
    trace = simulate("pitchfork_bif__no_warp").values[-1, -1, 0].astype(float)
    # x = +-sqrt(2), y = 0: the signal is 0.2 x cos(phi) + 1.2 sqrt(2), one value per side.
    low, high = trace.min(), trace.max()
    assert (low + high) / 2 == pytest.approx(1.2 * np.sqrt(2), abs=0.01)
    middle = (low + high) / 2
    assert np.isclose(trace, low, atol=0.02).sum() + np.isclose(trace, high, atol=0.02).sum() == 10
    assert ((trace < middle).sum(), (trace > middle).sum()) != (0, 10)


def test_copied_group_differs_from_its_original_by_the_warp_alone() -> None:
    trace = simulate("hopf_bif__clean_vs_warped").values
    early = np.abs(trace[5, 40:, 0] - trace[5, 40:, 3])
    assert early.max() < 0.01  # near the origin the warp vanishes, and only the units' own noise is left
    assert np.abs(trace[-1, :, 0] - trace[-1, :, 3]).max() > 0.1
    twice = simulate("hopf_bif__clean_x2").values
    assert np.abs(twice[-1, :, 0] - twice[-1, :, 3]).max() > 0.01  # noise of its own makes the phases part


@pytest.mark.parametrize("scenario", ["hopf_bif__pitchfork_bif__warp", "pitchfork_bif__warp"])
def test_every_scenario_is_a_trace_with_named_groups(scenario: str) -> None:
    trace = simulate(scenario, seed=1)
    assert trace.sizes == {"epoch": 101, "step": 80, "unit": 6, "sample": 10}
    assert trace.dtype == np.float32
    assert np.isfinite(trace).all()
    assert trace.group.values.tolist() == ["A"] * 3 + ["B"] * 3


def test_seed_decides_the_trace_and_an_unknown_scenario_lists_the_known() -> None:
    one = simulate("pitchfork_bif__no_warp", seed=3)
    np.testing.assert_array_equal(one, simulate("pitchfork_bif__no_warp", seed=3))
    assert not np.array_equal(one, simulate("pitchfork_bif__no_warp", seed=4))
    assert len(SCENARIOS) == 8
    with pytest.raises(ValueError, match="got scenario 'hopf'; there are hopf_bif__no_warp, "):
        simulate("hopf")
