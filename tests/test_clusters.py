"""Unit clusters: warping distances against tslearn, planted groups recovered, names that stay."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import adjusted_rand_score, silhouette_score

from hiddenscope.analyses.clusters import LEAST_SILHOUETTE, cluster_units, warping_distances


def twin_distance(one: np.ndarray, other: np.ndarray, window: int) -> float:
    """The definition, by the whole table of costs."""
    n = len(one)
    cost = np.full((n + 1, n + 1), np.inf)
    cost[0, 0] = 0
    for i in range(1, n + 1):
        for j in range(1, n + 1):
            if abs(i - j) <= window:
                nearest = min(cost[i - 1, j], cost[i, j - 1], cost[i - 1, j - 1])
                cost[i, j] = (one[i - 1] - other[j - 1]) ** 2 + nearest
    return float(np.sqrt(cost[n, n]))


def planted(groups: tuple[int, ...] = (7, 5, 4), epochs: int = 60, seed: int = 0) -> tuple[xr.DataArray, np.ndarray]:
    """Units that rise, fall or dip, each a little early or late and a little noisy; and which is which."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(groups)), groups))
    times = np.linspace(0, 1, epochs)[:, None] + rng.uniform(-0.03, 0.03, len(truth))
    shapes = np.stack([np.tanh(8 * (times - 0.5)), -np.tanh(8 * (times - 0.3)), -2 * np.exp(-60 * (times - 0.6) ** 2)])
    values = shapes[truth, :, np.arange(len(truth))].T + 0.05 * rng.normal(size=times.shape)
    coords = {"epoch": np.arange(epochs) - 1, "unit": [f"u{i}" for i in range(len(truth))]}
    return xr.DataArray(values, dims=("epoch", "unit"), coords=coords, attrs={"unit": "nats"}), truth


@pytest.mark.parametrize("window", [0, 1, 5, 30])
def test_warping_distance_is_its_definition(window: int) -> None:
    curves = np.random.default_rng(window).normal(size=(5, 30)).cumsum(axis=1)
    found = warping_distances(curves, window=window)
    for i in range(5):
        for j in range(5):
            assert_allclose(found[i, j], twin_distance(curves[i], curves[j], window) if i != j else 0)
    if window == 0:
        assert_allclose(found[0, 1], np.linalg.norm(curves[0] - curves[1]))


@pytest.mark.slow  # tslearn compiles for a minute
def test_warping_distance_is_tslearns() -> None:
    tslearn = pytest.importorskip("tslearn.metrics", exc_type=ImportError)
    curves = np.random.default_rng(0).normal(size=(4, 25)).cumsum(axis=1)
    found = warping_distances(curves, window=6)
    for i in range(4):
        for j in range(i):
            expected = tslearn.dtw(curves[i], curves[j], global_constraint="sakoe_chiba", sakoe_chiba_radius=6)
            assert_allclose(found[i, j], expected)


@pytest.mark.parametrize("seed", range(5))
def test_planted_groups_are_recovered_and_counted(seed: int) -> None:
    trajectories, truth = planted(seed=seed)
    found = cluster_units(trajectories)
    assert adjusted_rand_score(truth, found.names.values) == 1
    assert sorted(set(found.names.values.tolist())) == ["A", "B", "C"]
    assert found.names.values[0] == "A"  # in the order of the units
    assert_allclose(
        found.silhouette, silhouette_score(found.distances.values, found.names.values, metric="precomputed")
    )


def test_centers_are_mean_trajectories() -> None:
    trajectories, _ = planted()
    found = cluster_units(trajectories)
    assert found.centers.dims == ("cluster", "epoch")
    assert found.centers.attrs == {"unit": "nats"}
    for name in found.centers.cluster.values:
        members = trajectories.isel(unit=np.flatnonzero(found.names.values == name))
        assert_allclose(found.centers.sel(cluster=name), members.mean("unit"))


def test_noise_is_one_cluster_unless_more_are_asked_for() -> None:
    noise = xr.DataArray(np.random.default_rng(0).normal(size=(80, 20)), dims=("epoch", "unit"))
    found = cluster_units(noise)
    assert set(found.names.values.tolist()) == {"A"}
    assert np.isnan(found.silhouette)
    three = cluster_units(noise, n_clusters=3)
    assert len(set(three.names.values.tolist())) == 3
    assert three.silhouette < LEAST_SILHOUETTE


def test_shape_only_sees_the_same_course_at_another_level() -> None:
    rise, fall = np.linspace(0, 1, 30), np.linspace(1, 0, 30)
    values = np.stack([rise, fall, 100 + 5 * rise, 100 + 5 * fall], axis=1)
    trajectories = xr.DataArray(values, dims=("epoch", "unit"))
    assert cluster_units(trajectories, n_clusters=2).names.values.tolist() == ["A", "A", "B", "B"]
    assert cluster_units(trajectories, n_clusters=2, shape_only=True).names.values.tolist() == ["A", "B", "A", "B"]


def test_names_stay_with_their_units_while_the_run_grows() -> None:
    trajectories, _ = planted()
    first = cluster_units(trajectories.isel(epoch=slice(0, 50)), n_clusters=3)
    reordered = trajectories.isel(unit=slice(None, None, -1))
    later = cluster_units(reordered, n_clusters=3, previous=first.names)
    assert_array_equal(later.names.sel(unit=first.names.unit), first.names)
    split = cluster_units(trajectories, n_clusters=4, previous=first.names)
    new = set(split.names.values.tolist()) - set(first.names.values.tolist())
    assert new == {"D"}
    kept = split.names.values != "D"
    assert_array_equal(split.names.values[kept], first.names.values[kept])


def test_gaps_are_bridged_and_units_without_values_are_in_no_cluster() -> None:
    trajectories, truth = planted()
    holed = trajectories.copy()
    holed[10:13, 2] = np.nan
    holed[0, 3] = np.inf
    holed[:, 5] = np.nan
    found = cluster_units(holed)
    assert found.names.values[5] == ""
    others = np.arange(len(truth)) != 5
    assert adjusted_rand_score(truth[others], found.names.values[others]) == 1
    assert np.isnan(found.distances[5]).all()
    assert np.isfinite(found.centers).all()


@pytest.mark.parametrize("units", [0, 1, 2])
def test_very_few_units_are_one_cluster(units: int) -> None:
    trajectories = xr.DataArray(np.random.default_rng(0).normal(size=(20, units)), dims=("epoch", "unit"))
    assert cluster_units(trajectories).names.values.tolist() == ["A"] * units


def test_wrong_arguments_are_named() -> None:
    trajectories, _ = planted()
    with pytest.raises(ValueError, match=r"dims \('epoch', 'unit'\), got \('epoch', 'step'\)"):
        cluster_units(trajectories.rename(unit="step"))
    with pytest.raises(ValueError, match=r"n_clusters must lie in 1\.\.16.*got 17"):
        cluster_units(trajectories, n_clusters=17)
    with pytest.raises(ValueError, match="window must not be negative"):
        cluster_units(trajectories, window=-1)
    with pytest.raises(ValueError, match="previous names 3 units, there are 16"):
        cluster_units(trajectories, previous=xr.DataArray(["A", "B", "C"], dims="unit"))
