"""Fidelity measures against slow twins, scikit-learn, published numbers and pictures whose score is known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse.csgraph import floyd_warshall
from scipy.spatial.distance import cdist, pdist
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness as sklearn_trustworthiness

import hiddenscope as hs
from hiddenscope.embeddings.geodesics import neighbor_graph
from hiddenscope.embeddings.unit_rows import unit_rows
from hiddenscope.experiments.datasets.bifurcations import simulate


def random_trace(sizes: tuple[int, int, int, int] = (6, 5, 9, 8), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=sizes)


def random_picture(sizes: tuple[int, int, int] = (6, 5, 9), seed: int = 1, components: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*sizes, components))


def z_scores(trace: np.ndarray) -> np.ndarray:
    centered = trace - trace.mean(axis=-1, keepdims=True)
    return centered / centered.std(axis=-1, keepdims=True)


def shared_twin(one: np.ndarray, other: np.ndarray, k: int) -> np.ndarray:
    """Per point, the share of its k nearest others in one space that are so in another."""
    near = []
    for points in (one, other):
        distances = cdist(points, points)
        np.fill_diagonal(distances, np.inf)
        near.append(np.argsort(distances, axis=1)[:, :k])
    return np.array([len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)])


def twin(trace: np.ndarray, picture: np.ndarray, k: int) -> tuple[float, float]:
    units = trace.shape[2]
    nodes = z_scores(trace).reshape(-1, units, trace.shape[-1])
    shown = picture.reshape(-1, units, picture.shape[-1])
    intra = np.mean([shared_twin(nodes[i], shown[i], k) for i in range(len(nodes))])
    inter = np.mean([shared_twin(nodes[:, u], shown[:, u], k) for u in range(units)])
    return float(intra), float(inter)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_preservation_equals_a_slow_twin(k: int) -> None:
    trace, picture = random_trace(), random_picture()
    kept = hs.neighborhood_preservation(trace, picture, k=k)
    assert_allclose((kept.intra, kept.inter), twin(trace, picture, k), rtol=1e-6)
    assert (kept.intra_k, kept.inter_k, kept.intra_error, kept.inter_error) == (k, k, 0, 0)


def test_published_pca_row_of_the_synthetic_benchmark_is_reproduced() -> None:
    trace = simulate("hopf_bif__pitchfork_bif__no_warp")
    raw = trace.values.reshape(-1, trace.sizes["sample"])  # the published picture is of values that are not normalized
    picture = PCA(3).fit_transform(raw).reshape(101, 80, 6, 3)
    at_10 = hs.neighborhood_preservation(trace, picture, k=10, intra_k=2)
    at_40 = hs.neighborhood_preservation(trace, picture, k=40, intra_k=2)
    assert_allclose((at_10.inter, at_40.inter), (0.1487, 0.1434), atol=1e-4)
    sampled = hs.neighborhood_preservation(trace, picture, k=10, intra_k=2, n_queries=5_000)
    assert 0.001 < sampled.inter_error < 0.004
    assert abs(sampled.inter - at_10.inter) < 4 * sampled.inter_error
    assert abs(sampled.intra - at_10.intra) < 4 * sampled.intra_error


def test_a_perfect_picture_scores_one_everywhere() -> None:
    trace = random_trace()
    picture = 5 * z_scores(trace) + 3
    kept = hs.neighborhood_preservation(trace, picture, k=4)
    assert (kept.intra, kept.inter) == (1.0, 1.0)
    assert hs.trustworthiness(trace, picture).value == 1.0
    assert_allclose(hs.distance_rank_correlation(trace, picture).value, 1.0, atol=1e-6)


def test_a_shuffled_picture_gets_the_stated_chance() -> None:
    trace = random_trace((10, 10, 21, 6))
    nodes = z_scores(trace).reshape(-1, 6)
    values = []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(nodes))
        shuffled = nodes[order].reshape(trace.shape)
        kept = hs.neighborhood_preservation(trace, shuffled, k=8)
        trust = hs.trustworthiness(trace, shuffled, k=8, n_queries=300)
        values.append((kept.intra, kept.inter, trust.value))
    assert_allclose((kept.intra_chance, kept.inter_chance), (8 / 20, 8 / 99))
    spread = np.std(values, axis=0) / np.sqrt(len(values))
    error = np.abs(np.mean(values, axis=0) - (kept.intra_chance, kept.inter_chance, trust.chance))
    assert (error < 4 * spread + 1e-3).all()
    assert abs(hs.distance_rank_correlation(trace, shuffled).value) < 0.05
    assert abs(hs.distance_rank_correlation(trace, nodes.reshape(trace.shape)).chance) < 0.05


def test_an_answer_from_some_nodes_states_its_error() -> None:
    trace, picture = random_trace((20, 20, 15, 6)), random_picture((20, 20, 15))
    picture[..., :2] += z_scores(trace)[..., :2]
    exact = hs.neighborhood_preservation(trace, picture, k=5, n_queries=None)
    misses = []
    for seed in range(20):
        sampled = hs.neighborhood_preservation(trace, picture, k=5, n_queries=400, random_state=seed)
        misses.append(
            ((sampled.intra - exact.intra) / sampled.intra_error, (sampled.inter - exact.inter) / sampled.inter_error)
        )
    assert np.abs(misses).max() < 4.5
    assert (np.std(misses, axis=0) > 0.5).all()
    assert (np.std(misses, axis=0) < 1.6).all()


@pytest.mark.parametrize("k", [1, 5, 20])
def test_trustworthiness_is_scikit_learns(k: int) -> None:
    trace = random_trace((4, 5, 6, 7))
    picture = random_picture((4, 5, 6), components=2)
    picture += 2 * z_scores(trace)[..., :2]
    expected = sklearn_trustworthiness(z_scores(trace).reshape(-1, 7), picture.reshape(-1, 2), n_neighbors=k)
    score = hs.trustworthiness(trace, picture, k=k, n_queries=None)
    assert_allclose(float(score), expected, rtol=1e-6)
    assert score.error == 0
    sampled = hs.trustworthiness(trace, picture, k=k, n_queries=60)
    assert abs(sampled.value - expected) < 4 * sampled.error


def test_rank_correlation_of_random_pairs_is_that_of_all_pairs_within_its_error() -> None:
    trace, picture = random_trace(), random_picture()
    picture += 0.7 * z_scores(trace)[..., :3]
    flat = z_scores(trace).reshape(-1, 8), picture.reshape(-1, 3)
    expected = spearmanr(pdist(flat[0]), pdist(flat[1])).statistic
    score = hs.distance_rank_correlation(trace, picture, n_pairs=40_000)
    assert 0 < score.error < 0.02
    assert abs(score.value - expected) < 4 * score.error


def test_the_neighbor_graph_equals_a_slow_twin() -> None:
    nodes = z_scores(random_trace((3, 4, 5, 6))).reshape(12, 5, 6).astype(np.float32)
    rows = unit_rows(nodes)
    graph = neighbor_graph(rows, intra_knn=2, inter_knn=3).toarray()
    expected = np.zeros((60, 60))
    for slice_ in range(12):
        for unit in range(5):
            here = nodes[slice_, unit].astype(np.float64)
            in_slice = np.argsort(np.linalg.norm(nodes[slice_] - here, axis=1))[1:3]
            in_unit = np.argsort(np.linalg.norm(nodes[:, unit] - here, axis=1))[1:4]
            for other in [(slice_, v) for v in in_slice] + [(other, unit) for other in in_unit]:
                one, two = rows.index[slice_, unit], rows.index[other]
                expected[one, two] = expected[two, one] = np.linalg.norm(here - nodes[other].astype(np.float64))
    assert_allclose(graph, expected, atol=1e-6)


def test_geodesics_are_the_shortest_paths_of_that_graph() -> None:
    trace, picture = random_trace((3, 4, 5, 6)), random_picture((3, 4, 5))
    rows = unit_rows(z_scores(trace).reshape(12, 5, 6).astype(np.float32))
    lengths = floyd_warshall(neighbor_graph(rows, intra_knn=2, inter_knn=3), directed=False)
    shown = cdist(rows.from_nodes(picture.reshape(12, 5, 3)), rows.from_nodes(picture.reshape(12, 5, 3)))
    upper = np.triu_indices(60, 1)
    assert np.isfinite(lengths).all()
    expected = spearmanr(lengths[upper], shown[upper]).statistic
    score = hs.distance_rank_correlation(
        trace, picture, against="geodesic", intra_knn=2, inter_knn=3, n_pairs=2_000 * 60
    )
    assert_allclose(score.value, expected, atol=1e-9)  # all starts, all ends


def test_unrolling_a_curve_keeps_geodesics_but_not_straight_distances() -> None:
    angles = np.sort(np.random.default_rng(0).uniform(0, 1.9 * np.pi, (1, 400, 1)), axis=1)
    circle = np.linalg.qr(np.hstack([np.ones((6, 1)), np.random.default_rng(1).normal(size=(6, 2))]))[0][:, 1:]
    trace = np.cos(angles)[..., None] * circle[:, 0] + np.sin(angles)[..., None] * circle[:, 1]
    unrolled = angles[..., None]
    geodesic = hs.distance_rank_correlation(trace, unrolled, against="geodesic", inter_knn=5)
    straight = hs.distance_rank_correlation(trace, unrolled)
    assert geodesic.value > 0.999
    assert straight.value < 0.9


def test_geodesics_of_a_large_trace_run_over_some_of_its_slices() -> None:
    trace, picture = random_trace((20, 20, 5, 6)), random_picture((20, 20, 5))
    picture += z_scores(trace)[..., :3]
    whole = hs.distance_rank_correlation(trace, picture, against="geodesic")
    part = hs.distance_rank_correlation(trace, picture, against="geodesic", n_nodes=500)
    assert part.value != whole.value
    assert abs(part.value - whole.value) < 0.15


def test_nodes_with_missing_values_are_left_out() -> None:
    trace, picture = random_trace(), random_picture()
    short, holed = trace.copy(), picture.copy()
    short[:, 3:, :, :5] = np.nan  # 5 of 8 samples end after 3 steps
    holed[0, 0] = np.nan
    whole = hs.neighborhood_preservation(short, holed, k=3)
    inter = [
        shared_twin(z_scores(trace)[:, :3, u].reshape(18, 8)[1:], picture[:, :3, u].reshape(18, 3)[1:], 3)
        for u in range(9)
    ]
    assert_allclose(whole.inter, np.mean(inter), rtol=1e-6)
    scores = [hs.trustworthiness(short, holed, k=3), hs.distance_rank_correlation(short, holed)]
    assert np.isfinite([score.value for score in scores]).all()


def test_too_many_neighbors_are_lowered_with_a_word() -> None:
    trace, picture = random_trace((10, 10, 6, 5)), random_picture((10, 10, 6))
    with pytest.warns(UserWarning, match=r"k = 10 neighbors of 6 units would mostly be kept by any picture; .* k = 2"):
        kept = hs.neighborhood_preservation(trace, picture)
    assert (kept.intra_k, kept.inter_k) == (2, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hs.neighborhood_preservation(trace, picture, intra_k=2).intra == kept.intra
    with pytest.raises(ValueError, match=r"intra_k must lie in 1\.\.2 for 6 units.*got 3"):
        hs.neighborhood_preservation(trace, picture, intra_k=3)


def test_where_nothing_can_be_measured_the_answer_is_nan() -> None:
    with pytest.warns(UserWarning, match="not measured"):
        kept = hs.neighborhood_preservation(random_trace((1, 2, 2, 5)), random_picture((1, 2, 2)))
    assert np.isnan([kept.intra, kept.inter, kept.intra_chance, kept.inter_chance]).all()


def test_picture_and_trace_must_be_of_the_same_nodes() -> None:
    coords = {"epoch": np.arange(6), "step": np.arange(5), "unit": np.arange(9)}
    trace = xr.DataArray(random_trace(), dims=("epoch", "step", "unit", "sample"), coords=coords)
    picture = xr.DataArray(random_picture(), dims=("epoch", "step", "unit", "component"), coords=coords)
    same = hs.neighborhood_preservation(trace, picture, k=3)
    assert same == hs.neighborhood_preservation(trace.values, picture.values, k=3)
    assert same == hs.neighborhood_preservation(trace.transpose("sample", "unit", "step", "epoch"), picture, k=3)
    with pytest.raises(ValueError, match=r"the trace has 6 epochs, the embedding 4; select the nodes"):
        hs.neighborhood_preservation(trace, picture[:4])
    with pytest.raises(ValueError, match="different steps"):
        hs.trustworthiness(trace, picture.assign_coords(step=np.arange(5) * 10))
    assert hs.neighborhood_preservation(trace.sel(epoch=picture.epoch[:4]), picture[:4], k=3).inter > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t, p: hs.neighborhood_preservation(t, p, k=0), "k must be at least 1, got 0"),
        (lambda t, p: hs.neighborhood_preservation(t, p, n_queries=0), "n_queries must be at least 1"),
        (lambda t, p: hs.trustworthiness(t, p, k=135), "k must be below half the 270 nodes, got 135"),
        (lambda t, p: hs.distance_rank_correlation(t, p, against="kernel"), "'nodes' or 'geodesic', got 'kernel'"),
    ],
)
def test_wrong_options_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(random_trace(), random_picture())  # type: ignore[operator]


def test_a_seed_fixes_the_sample_and_the_inputs_stay_as_they_were() -> None:
    trace, picture = random_trace(), random_picture()
    before = trace.copy(), picture.copy()
    first, second, other = (
        hs.distance_rank_correlation(trace, picture, n_pairs=500, random_state=seed) for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other
    assert_array_equal(trace, before[0])
    assert_array_equal(picture, before[1])
