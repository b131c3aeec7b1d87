"""The multislice kernel against a loop written from its definition, closed forms and invariants."""

from __future__ import annotations

import math
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import hiddenscope as hs
from hiddenscope.embeddings.kernel import inter_bandwidth, intra_blocks, kernel_bytes
from hiddenscope.embeddings.nodes import normalize, reduce_samples

Array = npt.NDArray[np.float64]


def twin(trace: Array, intra_knn: int, inter_knn: int, decay: float) -> Array:
    """The kernel in plain loops over plain numbers: sections A to D of the definition, one after the other."""
    epochs, steps, units, samples = trace.shape
    slices = [(epoch, step) for epoch in range(epochs) for step in range(steps)]
    z = {}
    for s, (epoch, step) in enumerate(slices):
        for i in range(units):
            row = [float(x) for x in trace[epoch, step, i]]
            mean = math.fsum(row) / samples
            deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in row) / samples)
            flat = max(row) == min(row)
            z[s, i] = [0.0 if flat else (x - mean) / deviation for x in row]
    epsilon = 2.0**-52

    def far(s: int, i: int, r: int, j: int) -> float:
        distance = math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(z[s, i], z[r, j], strict=True)))
        return distance if distance > 1e-12 else 0.0  # less than that is rounding

    kernel = np.zeros((len(slices) * units, len(slices) * units))
    for s in range(len(slices)):
        directed = np.zeros((units, units))
        for i in range(units):
            others = sorted(far(s, i, s, j) for j in range(units) if j != i)
            rank = min(intra_knn, units - 2)
            scale = max(others[rank - 1] if rank > 0 else 0.0, epsilon)
            for j in range(units):
                ratio = far(s, i, s, j) / scale
                affinity = math.exp(-(ratio**decay)) if ratio < 1e10 else 0.0
                directed[i, j] = affinity if affinity >= 1e-4 else 0.0
        for i in range(units):
            for j in range(units):
                kernel[s * units + i, s * units + j] += 1.0 if i == j else (directed[i, j] + directed[j, i]) / 2
    medians = []
    for i in range(units):
        nearest = []
        for s in range(len(slices)):
            others = sorted(far(s, i, r, i) for r in range(len(slices)) if r != s)
            nearest.append(others[min(inter_knn, len(others)) - 1])
        nearest.sort()
        half = len(nearest) // 2
        median = nearest[half] if len(nearest) % 2 else (nearest[half - 1] + nearest[half]) / 2
        medians.append(max(median, epsilon))
    bandwidth = math.fsum(medians) / len(medians)
    for i in range(units):
        for s in range(len(slices)):
            for r in range(len(slices)):
                if r != s:
                    ratio = far(s, i, r, i) / bandwidth
                    affinity = math.exp(-(ratio**2)) if ratio < 1e10 else 0.0
                    kernel[s * units + i, r * units + i] += affinity if affinity >= 1e-4 else 0.0
    return kernel


def random_trace(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def coincident(seed: int = 1) -> Array:
    trace = random_trace(3, 2, 5, 4, seed=seed)
    trace[:, :, 3] = trace[:, :, 1]
    trace[:, :, 4] = trace[:, :, 1]
    return trace


def constant(seed: int = 2) -> Array:
    trace = random_trace(3, 2, 5, 4, seed=seed)
    trace[:, :, 2] = 0.1
    trace[:, 1, 4] = -0.3
    return trace


def repeated(seed: int = 3) -> Array:
    trace = random_trace(4, 2, 4, 5, seed=seed)
    trace[2:] = trace[:2]
    return trace


TRACES = {
    "random": random_trace(4, 3, 6, 5),
    "single precision": random_trace(3, 3, 4, 5).astype(np.float32),
    "two slices": random_trace(2, 1, 5, 6),
    "three units": random_trace(3, 3, 3, 4),
    "two units": random_trace(3, 3, 2, 4),
    "one unit": random_trace(3, 3, 1, 4),
    "two samples": random_trace(3, 2, 4, 2),
    "coincident units": coincident(),
    "constant units": constant(),
    "repeated epochs": repeated(),
    "all alike": np.ones((2, 3, 4, 5)),
}


@pytest.mark.parametrize("name", TRACES)
@pytest.mark.parametrize(("intra_knn", "inter_knn", "decay"), [(2, 3, 5.0), (1, 1, 2.0)])
def test_kernel_equals_a_slow_loop_over_its_definition(name: str, intra_knn: int, inter_knn: int, decay: float) -> None:
    trace = TRACES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # too few slices for inter_knn=3 has a test of its own
        kernel = hs.multislice_kernel(trace, intra_knn=intra_knn, inter_knn=inter_knn, decay=decay)
    assert_allclose(kernel.toarray(), twin(trace, intra_knn, inter_knn, decay), atol=1e-6)


def test_kernel_of_more_than_26_slices_uses_the_default_neighbor() -> None:
    trace = random_trace(6, 5, 3, 4)
    assert_allclose(hs.multislice_kernel(trace).toarray(), twin(trace, 2, 25, 5.0), atol=1e-6)


def test_three_points_on_a_line_have_the_affinities_of_the_formula() -> None:
    points = np.array([0.0, 1.0, 3.0]).reshape(1, 3, 1)
    block = intra_blocks(points, intra_knn=1, decay=2)[0]
    assert block[0, 1] == np.exp(-1)
    assert_allclose(block[1, 2], (np.exp(-4) + np.exp(-1)) / 2)
    assert_allclose(block[0, 2], (np.exp(-9) + np.exp(-(1.5**2))) / 2)


def test_bandwidth_is_the_mean_over_units_of_the_median_over_slices() -> None:
    points = np.array([[0.0, 1.0, 3.0], [0.0, 2.0, 6.0]]).T[:, :, None]  # nearest: 1, 1, 2 and 2, 2, 4
    assert inter_bandwidth(points, inter_knn=1) == 1.5


def test_too_few_slices_lower_the_neighbor_and_the_warning_names_both_values() -> None:
    with pytest.warns(UserWarning, match="inter_knn lowered from 25 to 5: a unit has only 5 other slices"):
        kernel = hs.multislice_kernel(random_trace(3, 2, 4, 5))
    assert_allclose(kernel.toarray(), twin(random_trace(3, 2, 4, 5), 2, 5, 5.0), atol=1e-6)


def test_nodes_with_missing_values_are_related_to_nothing_and_change_nothing_else() -> None:
    trace = random_trace(3, 5, 4, 6)
    padded = trace.copy()
    padded[:, 3:, :, 2:] = np.nan  # most samples' sequences end after three steps
    padded[1, 0, 1, :4] = np.inf
    kernel = hs.multislice_kernel(padded, inter_knn=3).toarray()
    absent = (np.isfinite(padded).sum(axis=-1) < 3).ravel()
    assert absent.sum() == 3 * 2 * 4 + 1
    assert not kernel[absent].any()
    assert not kernel[:, absent].any()
    # Whole slices that are absent leave the kernel of the others as if they had never been.
    padded[1, 0] = trace[1, 0]
    kept = ~np.isnan(padded).any(axis=-1).ravel()
    shorter = hs.multislice_kernel(trace[:, :3], inter_knn=3).toarray()
    assert_allclose(hs.multislice_kernel(padded, inter_knn=3).toarray()[np.ix_(kept, kept)], shorter, atol=1e-12)


def test_a_node_that_misses_few_samples_is_described_by_the_others_at_full_length() -> None:
    trace = random_trace(2, 3, 4, 9)
    trace[:, 2, 1] = trace[:, 2, 1, :1]  # a unit that responds to all alike
    cut = trace.copy()
    cut[:, 2, :, 6:] = np.nan
    nodes, whole = normalize(cut).reshape(trace.shape), normalize(trace).reshape(trace.shape)
    assert_allclose(nodes[:, :2], whole[:, :2], atol=1e-12)
    assert_allclose(nodes[:, 2, :, :6], normalize(trace[:, 2:, :, :6]).reshape(2, 4, 6) * np.sqrt(9 / 6), atol=1e-12)
    assert_allclose(nodes[:, 2, :, 6:], 0, atol=1e-12)
    assert not nodes[:, 2, 1].any()
    assert_allclose((nodes[:, 2, [0, 2, 3]] ** 2).sum(axis=-1), 9)
    cut[:, 2, :, 4:] = np.nan  # 4 of 9 are too few
    assert np.isnan(normalize(cut).reshape(trace.shape)[:, 2]).all()


def test_many_samples_are_reduced_to_components_that_keep_the_leading_distances() -> None:
    trace = random_trace(3, 3, 4, 130)
    nodes = normalize(trace)
    rows = nodes.reshape(-1, 130)
    centered = rows - rows.mean(axis=0)
    _, _, directions = np.linalg.svd(centered, full_matrices=False)
    expected = centered @ directions[:20].T
    found = reduce_samples(nodes, n_pca=20).reshape(-1, 20)
    assert_allclose(np.abs(found), np.abs(expected), atol=1e-8)
    assert reduce_samples(nodes).shape == (9, 4, 100)
    assert reduce_samples(nodes, n_pca=None) is nodes
    every = hs.multislice_kernel(trace, inter_knn=3, n_pca=None).toarray()
    # 36 nodes span at most 35 dimensions, so 100 components lose nothing.
    assert_allclose(hs.multislice_kernel(trace, inter_knn=3).toarray(), every, atol=1e-9)


def test_kernel_accepts_named_dims_in_any_order() -> None:
    named = hs.as_trace(random_trace(3, 2, 4, 5))
    plain = hs.multislice_kernel(named.values, inter_knn=2).toarray()
    assert_array_equal(
        hs.multislice_kernel(named.transpose("unit", "sample", "step", "epoch"), inter_knn=2).toarray(), plain
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"intra_knn": 0}, "intra_knn counts neighbors: it must be a whole number of at least 1, got 0"),
        ({"inter_knn": 2.5}, "inter_knn counts neighbors: it must be a whole number of at least 1, got 2.5"),
        ({"decay": -1}, "decay is an exponent: it must be positive and finite, got -1"),
        ({"n_pca": 0}, "n_pca counts principal components: it must be at least 1 or None, got 0"),
    ],
)
def test_bad_options_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hs.multislice_kernel(random_trace(2, 2, 3, 4), **options)  # type: ignore[arg-type]


def test_one_sample_one_slice_and_one_axis_too_few_are_refused_with_what_is_needed() -> None:
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        hs.multislice_kernel(random_trace(2, 2, 3, 1))
    with pytest.raises(ValueError, match=r"at least 2 \(epoch, step\) pairs with finite values, got 1"):
        hs.multislice_kernel(random_trace(1, 1, 3, 4))
    with pytest.raises(ValueError, match=r"got an array of shape \(2, 3, 4\)"):
        hs.multislice_kernel(random_trace(2, 3, 4))
    with pytest.raises(ValueError, match="at least one epoch, step and unit"):
        hs.multislice_kernel(np.zeros((2, 0, 3, 4)))


def test_a_kernel_that_does_not_fit_is_refused_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hiddenscope.embeddings.memory.available_memory", lambda: 2**20)
    with pytest.raises(
        MemoryError,
        match=r"kernel over 7,200 nodes would take 0\.0[23] GiB, of which 0\.00 GiB are available; use MMPHATE",
    ):
        hs.multislice_kernel(random_trace(30, 40, 6, 3))


def test_predicted_size_is_near_the_number_of_affinities() -> None:
    nodes = normalize(random_trace(10, 30, 5, 6))
    bandwidth = inter_bandwidth(nodes)
    affinities = hs.multislice_kernel(random_trace(10, 30, 5, 6)).nnz
    assert 0.8 < kernel_bytes(nodes, bandwidth=bandwidth) / 48 / affinities < 1.25


sizes = st.tuples(st.integers(2, 4), st.integers(1, 3), st.integers(2, 6), st.integers(3, 6))
seeds = st.integers(0, 10_000)


def quiet_kernel(trace: Array, inter_knn: int = 2) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(hs.multislice_kernel(trace, inter_knn=inter_knn).toarray())


@given(sizes, seeds)
def test_kernel_is_symmetric_and_diffusion_conserves_what_it_spreads(shape: tuple[int, ...], seed: int) -> None:
    kernel = quiet_kernel(random_trace(*shape, seed=seed))
    assert_array_equal(kernel, kernel.T)
    assert_array_equal(kernel.diagonal(), 1.0)
    assert kernel.min() >= 0
    assert kernel.max() <= 1
    assert kernel[kernel > 0].min() >= 1e-4 / 2
    assert_allclose((kernel / kernel.sum(axis=1, keepdims=True)).sum(axis=1), 1.0, rtol=1e-12)


@given(sizes, seeds, st.randoms(use_true_random=False))
def test_kernel_follows_the_order_of_units_and_ignores_that_of_samples(
    shape: tuple[int, ...], seed: int, random
) -> None:  # type: ignore[no-untyped-def]
    trace = random_trace(*shape, seed=seed)
    units = list(range(shape[2]))
    samples = list(range(shape[3]))
    random.shuffle(units)
    random.shuffle(samples)
    nodes = np.arange(shape[0] * shape[1] * shape[2]).reshape(-1, shape[2])[:, units].ravel()
    kernel = quiet_kernel(trace)
    assert_allclose(quiet_kernel(trace[:, :, units]), kernel[np.ix_(nodes, nodes)], atol=1e-10)
    assert_allclose(quiet_kernel(trace[..., samples]), kernel, atol=1e-10)


@given(sizes, seeds, st.floats(1e-3, 1e3), st.floats(-10, 10))
def test_kernel_ignores_the_scale_and_the_offset_of_every_node(
    shape: tuple[int, ...], seed: int, scale: float, offset: float
) -> None:
    trace = random_trace(*shape, seed=seed)
    assert_allclose(quiet_kernel(scale * trace + offset), quiet_kernel(trace), atol=1e-6)


@given(sizes, seeds, st.floats(1e-3, 1e3))
def test_affinities_within_a_slice_ignore_the_unit_of_length(shape: tuple[int, ...], seed: int, scale: float) -> None:
    nodes = random_trace(*shape, seed=seed).reshape(-1, *shape[2:])
    assert_allclose(intra_blocks(scale * nodes), intra_blocks(nodes), rtol=1e-6, atol=1e-12)


@given(sizes, seeds)
def test_bandwidth_grows_with_the_rank_of_the_neighbor(shape: tuple[int, ...], seed: int) -> None:
    nodes = normalize(random_trace(*shape, seed=seed))
    slices = len(nodes)
    bandwidths = [inter_bandwidth(nodes, inter_knn=rank) for rank in range(1, slices)]
    assert (np.diff(bandwidths) >= 0).all()
