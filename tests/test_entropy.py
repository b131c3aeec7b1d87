"""Entropies against closed forms, slow twins written from the formulas, and invariants."""

from __future__ import annotations

import math
import time
from typing import Any, get_args

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial import cKDTree
from scipy.special import digamma, polygamma
from scipy.stats import gaussian_kde

import hiddenscope as hs
from hiddenscope.analyses.entropy import Estimator, cloud_entropy, neighbor_weights
from hiddenscope.trace import FloatArray

ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
DIMENSIONS = (1, 2, 3)
EULER = 0.5772156649015329

# The tables in the docstring of cloud_entropy, for 1, 2 and 3 dimensions.
BIAS: dict[tuple[int, str, str], tuple[float, float, float]] = {
    (2000, "knn", "normal"): (0.00, 0.00, 0.00),
    (2000, "knn", "uniform"): (0.00, 0.00, 0.00),
    (2000, "kde", "normal"): (0.00, 0.02, 0.03),
    (2000, "kde", "uniform"): (0.06, 0.16, 0.29),
    (2000, "gaussian", "normal"): (0.00, 0.00, 0.00),
    (2000, "gaussian", "uniform"): (0.18, 0.35, 0.53),
    (2000, "histogram", "normal"): (0.00, 0.00, 0.00),
    (2000, "histogram", "uniform"): (0.00, 0.00, 0.00),
    (30, "knn", "normal"): (-0.05, -0.07, -0.08),
    (30, "knn", "uniform"): (0.05, 0.18, 0.36),
    (30, "kde", "normal"): (0.05, 0.13, 0.25),
    (30, "kde", "uniform"): (0.17, 0.39, 0.67),
    (30, "gaussian", "normal"): (0.00, 0.00, 0.00),
    (30, "gaussian", "uniform"): (0.18, 0.37, 0.56),
    (30, "histogram", "normal"): (-0.11, -0.24, -0.49),
    (30, "histogram", "uniform"): (-0.07, -0.14, -0.23),
}


def clouds_and_truth(
    law: str, shape: tuple[int, int, int], seed: int, *, correlated: bool = True
) -> tuple[np.ndarray, float]:
    """Clouds of a law whose entropy has a closed form: a normal law with correlations, or a box with unequal sides."""
    rng = np.random.default_rng(seed)
    d = shape[2]
    if law == "normal":
        root = correlated * np.tril(rng.normal(size=(d, d)), -1) + np.diag(np.linspace(0.5, 3.0, d))
        covariance = root @ root.T
        truth = 0.5 * math.log((2 * math.pi * math.e) ** d * float(np.linalg.det(covariance)))
        return rng.normal(size=shape) @ root.T, truth
    sides = np.linspace(0.2, 5.0, d)
    return rng.uniform(size=shape) * sides, float(np.log(sides).sum())


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("law", ["normal", "uniform"])
def test_knn_finds_the_closed_form_at_2000_points(law: str, d: int) -> None:
    clouds, truth = clouds_and_truth(law, (12, 2000, d), seed=d)
    assert abs(cloud_entropy(clouds).mean() - truth) < 0.03
    assert abs(cloud_entropy(clouds[:1])[0] - truth) < 0.06


@pytest.mark.parametrize("d", DIMENSIONS)
def test_gaussian_finds_the_closed_form_at_2000_points(d: int) -> None:
    clouds, truth = clouds_and_truth("normal", (12, 2000, d), seed=d)
    estimates = cloud_entropy(clouds, estimator="gaussian")
    assert abs(estimates.mean() - truth) < 0.03
    assert abs(estimates[0] - truth) < 0.06


@pytest.mark.parametrize(("n", "estimator", "law"), BIAS)
def test_every_bias_is_what_the_docstring_states(n: int, estimator: Estimator, law: str) -> None:
    repeats = {30: 1500, 2000: 20}[n]
    for d, stated in zip(DIMENSIONS, BIAS[n, estimator, law], strict=True):
        clouds, truth = clouds_and_truth(law, (repeats, n, d), seed=10 * n + d, correlated=estimator != "histogram")
        errors = cloud_entropy(clouds, estimator=estimator) - truth
        # Half a unit of the last stated digit, and three standard errors of this test's own mean.
        assert abs(errors.mean() - stated) < 0.01 + 3 * errors.std() / math.sqrt(repeats), (d, errors.mean())


def knn_twin(points: np.ndarray) -> float:
    """The weighted Kozachenko-Leonenko estimate by a tree instead of a scan, without ties."""
    n, d = points.shape
    weights = neighbor_weights(n, d)
    ball = math.pi ** (d / 2) / math.gamma(d / 2 + 1)
    shrink = np.eye(d)
    if n >= 5 * d:
        _, spread, axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
        shrink = axes.T @ np.diag(np.maximum(spread / spread[0], 0.01)) @ axes
        points = points @ np.linalg.inv(shrink)
    ball *= np.linalg.det(shrink)
    distances = cKDTree(points).query(points, len(weights) + 1)[0][:, 1:]
    return float(
        sum(
            weight * (digamma(n) - digamma(k) + math.log(ball) + d * np.log(distances[:, k - 1]).mean())
            for k, weight in enumerate(weights, start=1)
        )
    )


def kde_twin(points: np.ndarray) -> float:
    """Leave-one-out, with the bandwidth of the whole cloud, one density at a time."""
    n, d = points.shape
    covariance = np.atleast_2d(np.cov(points.T)) * n ** (-2 / (d + 4))
    inverse, norm = np.linalg.inv(covariance), math.sqrt((2 * math.pi) ** d * np.linalg.det(covariance))
    total = 0.0
    for i in range(n):
        others = np.delete(points, i, axis=0) - points[i]
        total += math.log(np.mean(np.exp(-0.5 * np.einsum("ij,jk,ik->i", others, inverse, others))) / norm)
    return -total / n


def gaussian_twin(points: np.ndarray) -> float:
    n, d = points.shape
    plain = 0.5 * np.linalg.slogdet(2 * math.pi * math.e * np.atleast_2d(np.cov(points.T)))[1]
    bias = 0.5 * sum(digamma((n - j) / 2) - math.log((n - 1) / 2) for j in range(1, d + 1))
    return float(plain - bias)


def histogram_twin(points: np.ndarray) -> float:
    n, d = points.shape
    span = np.ptp(points, axis=0)
    boxes = np.ceil(span / (3.49 * points.std(axis=0) * n ** (-1 / (d + 2)))).astype(int)
    counts = np.histogramdd(points, bins=boxes.tolist())[0].ravel()
    shares = counts[counts > 0] / n
    return float(-(shares * np.log(shares)).sum() + np.log(span / boxes).sum() + (len(shares) - 1) / (2 * n))


TWINS = {"knn": knn_twin, "kde": kde_twin, "gaussian": gaussian_twin, "histogram": histogram_twin}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(("n", "d"), [(7, 1), (30, 3), (128, 2), (500, 3), (60, 10)])
def test_each_estimator_equals_its_slow_twin(estimator: Estimator, n: int, d: int) -> None:
    points = np.random.default_rng(n + d).gamma(2.0, size=(n, d))
    assert_allclose(cloud_entropy(points, estimator=estimator), TWINS[estimator](points), rtol=1e-9, atol=1e-9)


def test_kde_bandwidth_is_scotts_as_in_scipy() -> None:
    points = np.random.default_rng(0).normal(size=(40, 2)) @ np.array([[1.0, 0.3], [0.0, 2.0]])
    resubstituted = gaussian_kde(points.T)(points.T)  # counts each point's own kernel, which leave-one-out removes
    own = 1 / (2 * math.pi * math.sqrt(np.linalg.det(gaussian_kde(points.T).covariance)))
    leave_one_out = (40 * resubstituted - own) / 39
    assert_allclose(cloud_entropy(points, estimator="kde"), -np.log(leave_one_out).mean(), rtol=1e-9)


def test_weights_with_few_points_in_one_dimension_are_worked_out_by_hand() -> None:
    # Two points have one neighbor each; entropy is psi(2) - psi(1) + ln 2 + ln distance = 1 + ln 2 + ln 5.
    assert_array_equal(neighbor_weights(2, 1), [1.0])
    assert_allclose(cloud_entropy([[0.0], [5.0]]), 1 + math.log(10))


@pytest.mark.parametrize("d", [1, 2, 3, 30])
@pytest.mark.parametrize("n", [2, 3, 4, 30, 500, 20_000])
def test_no_other_weights_balance_noise_and_bias_better(n: int, d: int) -> None:
    weights = neighbor_weights(n, d)
    assert len(weights) == min(n - 1, max(3, min(20, round(n**0.5))))
    assert_allclose(weights.sum(), 1)

    def cost(candidate: np.ndarray) -> float:
        ranks = np.arange(1, len(candidate) + 1)
        radius = [math.exp(math.lgamma(k + 1 / d) - math.lgamma(k)) * n ** (-1 / d) for k in ranks]
        noise = sum(candidate[j - 1] * candidate[k - 1] * polygamma(1, max(j, k)) / n for j in ranks for k in ranks)
        return float(noise + (0.5 * np.dot(candidate, radius)) ** 2)

    rng = np.random.default_rng(n)
    for _ in range(20):
        step = rng.normal(size=len(weights)) * 1e-3
        assert cost(weights) <= cost(weights + step - step.mean()) + 1e-15


floats = st.floats(-1e3, 1e3, width=32).map(lambda value: round(value, 3))
random_clouds = hnp.arrays(np.float64, st.tuples(st.integers(6, 25), st.integers(1, 3)), elements=floats)


@pytest.mark.parametrize("estimator", ["knn", "kde", "gaussian"])
@given(points=random_clouds, scale=st.floats(1e-3, 1e3))
def test_scaling_by_c_adds_d_ln_c(estimator: Estimator, points: np.ndarray, scale: float) -> None:
    grown = cloud_entropy(scale * points, estimator=estimator)
    assert_allclose(
        grown, cloud_entropy(points, estimator=estimator) + points.shape[1] * math.log(scale), rtol=0, atol=1e-6
    )


@given(points=random_clouds, shift=st.integers(-100, 100), seed=st.integers(0, 100))
def test_place_and_order_and_rotation_do_not_matter(points: np.ndarray, shift: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(points.shape[1],) * 2))[0]
    points = points + 1e-3 * rng.normal(size=points.shape)  # no ties: rotation would break them by rounding
    moved = rng.permutation(points) @ rotation + shift
    for estimator in ("knn", "kde", "gaussian"):
        assert_allclose(
            cloud_entropy(moved, estimator=estimator), cloud_entropy(points, estimator=estimator), atol=1e-5
        )


@given(points=random_clouds)
def test_the_histogram_is_finite_or_nan_and_grows_with_scale(points: np.ndarray) -> None:
    small, large = cloud_entropy(points, estimator="histogram"), cloud_entropy(1024 * points, estimator="histogram")
    assert np.isfinite(small) == bool(np.ptp(points, axis=0).all())
    expected = points.shape[1] * math.log(1024) if np.isfinite(small) else math.nan
    assert_allclose(large - small, expected, atol=1e-9)  # a power of two keeps every point in its box


def test_bits_are_nats_over_ln_2() -> None:
    points = np.random.default_rng(0).normal(size=(3, 20, 2))
    for estimator in ESTIMATORS:
        nats, bits = (cloud_entropy(points, estimator=estimator, unit=unit) for unit in ("nats", "bits"))
        assert_allclose(bits, nats / math.log(2))


def test_ties_use_the_smallest_ball_that_reaches_beyond_them() -> None:
    # Points 0, 0, 0, 1 on a line. K = 3. Seen from a 0, neighbors 1 and 2 coincide: radius 1 with 3 others inside
    # stands in for them, and neighbor 3 is there too. Seen from the 1, all neighbors are at distance 1.
    weights = neighbor_weights(4, 1)
    from_zero = weights.sum() * -digamma(3)
    from_one = -(weights * digamma([1, 2, 3])).sum()
    expected = digamma(4) + math.log(2) + (3 * from_zero + from_one) / 4
    assert_allclose(cloud_entropy([[0.0], [0.0], [0.0], [1.0]]), expected)


def test_duplicating_every_point_leaves_knn_finite_and_close() -> None:
    points = np.random.default_rng(0).normal(size=(60, 2))
    assert abs(cloud_entropy(np.repeat(points, 2, axis=0)) - cloud_entropy(points)) < 0.5


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    "points",
    [
        np.zeros((0, 3)),
        np.zeros((1, 3)),
        np.full((10, 3), 4.2),
        np.full((10, 3), np.nan),
        np.full((10, 1), np.inf),
        np.vstack([np.full((9, 3), np.nan), np.ones((1, 3))]),
    ],
    ids=["no point", "one point", "one place", "all missing", "all infinite", "one left"],
)
def test_a_cloud_without_extent_gives_nan_and_no_exception(estimator: Estimator, points: np.ndarray) -> None:
    assert np.isnan(cloud_entropy(points, estimator=estimator))


def test_points_in_a_plane_have_no_normal_density_but_still_neighbors() -> None:
    flat = np.random.default_rng(0).normal(size=(50, 2)) @ np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 1.0]])
    assert np.isnan(cloud_entropy(flat, estimator="gaussian"))
    assert np.isnan(cloud_entropy(flat, estimator="kde"))
    assert np.isfinite(cloud_entropy(flat, estimator="knn"))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_missing_points_are_left_out(estimator: Estimator) -> None:
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(4, 40, 3))
    holed = whole.copy()
    holed[1, 3] = np.nan
    holed[2, [0, 7, 39], 1] = np.inf
    expected = [
        float(cloud_entropy(points, estimator=estimator))
        for points in (whole[0], np.delete(whole[1], 3, 0), np.delete(whole[2], [0, 7, 39], 0), whole[3])
    ]
    assert_allclose(cloud_entropy(holed, estimator=estimator), expected, rtol=1e-12)


def embedding(sizes: tuple[int, int, int, int] = (3, 7, 9, 2)) -> xr.DataArray:
    values = np.random.default_rng(1).normal(size=sizes).astype(np.float32)
    return xr.DataArray(
        values,
        dims=("epoch", "step", "unit", "component"),
        coords={
            "epoch": np.arange(sizes[0]) - 1.0,
            "step": np.arange(sizes[1]) * 10,
            "unit": [f"u{i}" for i in range(sizes[2])],
            "cluster": ("unit", np.arange(sizes[2]) % 2),
        },
        name="lstm",
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_intra_step_looks_at_units_and_inter_step_at_steps(estimator: Estimator) -> None:
    points = embedding()
    intra = hs.intra_step_entropy(points, estimator=estimator)
    inter = hs.inter_step_entropy(points, estimator=estimator)
    assert isinstance(intra, xr.DataArray)
    assert isinstance(inter, xr.DataArray)
    assert intra.dims == ("epoch", "step")
    assert inter.dims == ("epoch", "unit")
    for epoch in range(3):
        assert_allclose(intra[epoch, 4], cloud_entropy(points.values[epoch, 4], estimator=estimator))
        assert_allclose(inter[epoch, 5], cloud_entropy(points.values[epoch, :, 5], estimator=estimator))


def test_a_data_array_keeps_its_coordinates_and_says_what_was_computed() -> None:
    points = embedding()
    inter: Any = hs.inter_step_entropy(points.transpose("component", "unit", "step", "epoch"), unit="bits")
    assert inter.attrs == {"long_name": "inter-step entropy", "unit": "bits", "estimator": "kde"}
    assert inter.name == "inter_step_entropy"
    assert set(inter.coords) == {"epoch", "unit", "cluster"}
    assert_array_equal(inter.unit, points.unit)
    assert_array_equal(inter.epoch, [-1, 0, 1])
    plain = hs.inter_step_entropy(points.values, unit="bits")
    assert isinstance(plain, np.ndarray)
    assert_array_equal(plain, inter.values)


def test_inter_step_entropy_sees_how_far_a_path_reaches_more_than_how_finely_time_is_sampled() -> None:
    def path(steps: int, reach: float) -> FloatArray:
        phase = np.linspace(0, 2 * np.pi, steps, endpoint=False)
        return reach * np.stack([np.sin(phase), np.sin(2 * phase), np.cos(3 * phase)], axis=-1)[None, :, None]

    coarse, fine = hs.inter_step_entropy(path(64, 1.0)), hs.inter_step_entropy(path(1024, 1.0))
    assert_allclose(coarse, fine, atol=1.0)  # Scott's bandwidth narrows a little with more points
    assert_allclose(hs.inter_step_entropy(path(64, 5.0)) - coarse, 3 * np.log(5.0), rtol=1e-6)
    neighbors = [hs.inter_step_entropy(path(steps, 1.0), estimator="knn") for steps in (64, 1024)]
    assert neighbors[0].item() - neighbors[1].item() > 2.5  # why knn is not the default


def test_activations_are_clouds_too() -> None:
    trace = embedding((2, 3, 12, 5)).rename(component="sample")
    assert_array_equal(hs.intra_step_entropy(trace), hs.intra_step_entropy(trace.values))


def test_too_few_units_give_nan_and_not_an_exception() -> None:
    assert np.isnan(hs.intra_step_entropy(embedding((2, 3, 1, 3)))).all()
    assert np.isnan(hs.inter_step_entropy(embedding((2, 1, 4, 3)))).all()
    assert hs.intra_step_entropy(np.zeros((0, 3, 4, 2))).shape == (0, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "parzen"}, "estimator must be one of knn, kde, gaussian, histogram, got 'parzen'"),
        ({"unit": "bans"}, "unit must be 'nats' or 'bits', got 'bans'"),
    ],
)
def test_a_wrong_choice_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hs.intra_step_entropy(embedding(), **options)
    with pytest.raises(ValueError, match="an embedding needs dims"):
        hs.inter_step_entropy(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="at least one component"):
        cloud_entropy(np.zeros((5, 0)))


def test_a_long_run_takes_seconds_of_one_core() -> None:
    points = np.random.default_rng(0).normal(size=(200, 128, 30, 3)).astype(np.float32)
    for measure in (hs.intra_step_entropy, hs.inter_step_entropy):
        measure(points[:1])  # compiled, or fetched from the cache, before the clock starts
    start = time.process_time()
    intra, inter = hs.intra_step_entropy(points), hs.inter_step_entropy(points)
    assert time.process_time() - start < 10
    assert np.isfinite(intra).all()
    assert np.isfinite(inter).all()
