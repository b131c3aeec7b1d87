"""The streamed sums against the materialized kernel: the same affinities, never held together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from engine_examples import recurrent_trace
from hiddenscope.embeddings import kernel as reference
from hiddenscope.embeddings.bandwidth import inter_bandwidth
from hiddenscope.embeddings.intra import intra_kernel
from hiddenscope.embeddings.landmarks import Landmarks, choose_landmarks
from hiddenscope.embeddings.nodes import normalize
from hiddenscope.embeddings.transitions import LandmarkGraph, interpolate, landmark_graph, landmark_operator
from hiddenscope.embeddings.unit_rows import UnitRows, unit_rows


def nodes_with_gaps() -> npt.NDArray[np.float64]:
    nodes = np.asarray(normalize(recurrent_trace(units=6)))
    nodes[5] = np.nan
    nodes[20, 2] = np.nan
    nodes[70:, 4] = np.nan
    nodes[11] = nodes[12]
    return nodes


def materialized(nodes: npt.NDArray[np.float64], rows: UnitRows, width: float) -> npt.NDArray[np.float64]:
    """The reference kernel with its nodes in the order of the rows."""
    kernel = reference.assemble_kernel(nodes, bandwidth=width).toarray()
    units = np.repeat(np.arange(rows.n_units), np.diff(rows.offsets))
    order = rows.slices * rows.n_units + units
    return np.asarray(kernel[np.ix_(order, order)])


@pytest.fixture(scope="module")
def case() -> tuple[LandmarkGraph, npt.NDArray[np.float64]]:
    nodes = nodes_with_gaps()
    rows = unit_rows(nodes)
    width = inter_bandwidth(rows, knn=10, sampled_rows="exact").value
    landmarks = choose_landmarks(rows, 60)
    graph = landmark_graph(rows, intra_kernel(rows), landmarks, bandwidth=width, sums="exact")
    return graph, materialized(nodes, rows, width)


def node_sums(kernel: npt.NDArray[np.float64], landmarks: Landmarks) -> npt.NDArray[np.float64]:
    return kernel @ np.eye(len(landmarks.centers))[landmarks.labels]


def test_the_exact_bandwidth_is_that_of_the_reference() -> None:
    nodes = nodes_with_gaps()
    found = inter_bandwidth(unit_rows(nodes), knn=10, sampled_rows="exact")
    assert found.value == pytest.approx(reference.inter_bandwidth(nodes, inter_knn=10), rel=1e-5)
    assert found.standard_error == 0


def test_a_sampled_bandwidth_is_within_four_of_its_standard_errors() -> None:
    nodes = np.asarray(normalize(recurrent_trace(40, 20, 4, 8)))
    exact = inter_bandwidth(unit_rows(nodes), sampled_rows="exact").value
    for seed in range(5):
        sampled = inter_bandwidth(unit_rows(nodes), sampled_rows=100, seed=seed)
        assert 0 < sampled.standard_error < exact
        assert abs(sampled.value - exact) < 4 * sampled.standard_error


def test_intra_step_affinities_equal_the_reference_blocks() -> None:
    nodes = nodes_with_gaps()
    rows = unit_rows(nodes)
    intra = intra_kernel(rows)
    blocks = reference.intra_blocks(nodes)
    dense = np.zeros((len(rows.values), len(rows.values)))
    dense[np.repeat(np.arange(len(dense)), np.diff(intra.starts)), intra.neighbors] = intra.weights
    for position, present in enumerate(rows.index):
        here = present[present >= 0]
        block = blocks[position][np.ix_(present >= 0, present >= 0)]
        np.testing.assert_allclose(dense[np.ix_(here, here)] + np.eye(len(here)), block, atol=3e-6)
    assert (dense > 0).sum() == sum((block > 0).sum() - np.trace(block) for block in blocks)


def test_node_to_landmark_sums_equal_those_of_the_materialized_kernel(
    case: tuple[LandmarkGraph, npt.NDArray[np.float64]],
) -> None:
    graph, kernel = case
    expected = node_sums(kernel, graph.landmarks)
    operator = landmark_operator(graph)
    np.testing.assert_allclose(operator.node_degrees, expected.sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(operator.degrees, expected.sum(axis=0), rtol=1e-5)
    for unit, count in enumerate(np.diff(graph.rows.offsets)):
        here, own = graph.rows.of(unit), graph.landmarks.of(unit)
        np.testing.assert_allclose(graph.block(unit, 0, int(count)), expected[here, own], rtol=1e-5, atol=1e-6)


def test_the_landmark_operator_is_that_of_the_materialized_sums(
    case: tuple[LandmarkGraph, npt.NDArray[np.float64]],
) -> None:
    graph, kernel = case
    sums = node_sums(kernel, graph.landmarks)
    node, landmark = sums.sum(axis=1), sums.sum(axis=0)
    expected = (sums / node[:, None]).T @ sums / np.sqrt(landmark) / np.sqrt(landmark)[:, None]
    np.testing.assert_allclose(landmark_operator(graph).symmetric, expected, atol=1e-6)


def test_interpolation_is_the_weighted_mean_of_landmarks(
    case: tuple[LandmarkGraph, npt.NDArray[np.float64]],
) -> None:
    graph, kernel = case
    sums = node_sums(kernel, graph.landmarks)
    positions = np.random.default_rng(0).normal(size=(len(graph.landmarks.centers), 3)).astype(np.float32)
    expected = sums / sums.sum(axis=1, keepdims=True) @ positions
    np.testing.assert_allclose(interpolate(graph, positions), expected, atol=2e-6)


def test_where_every_node_is_a_landmark_the_operator_is_that_of_the_kernel_itself() -> None:
    nodes = np.asarray(normalize(recurrent_trace(4, 5, 6, 8)))
    rows = unit_rows(nodes)
    graph = landmark_graph(rows, intra_kernel(rows), choose_landmarks(rows, 120), bandwidth=0.8, sums="exact")
    kernel = materialized(nodes, rows, 0.8)
    degrees = kernel.sum(axis=1)
    expected = kernel / np.sqrt(degrees) / np.sqrt(degrees)[:, None]
    np.testing.assert_allclose(landmark_operator(graph).symmetric, expected, atol=3e-6)


def test_center_sums_are_exact_where_the_members_of_a_landmark_coincide() -> None:
    values = np.repeat(np.asarray(normalize(np.random.default_rng(0).normal(size=(3, 5, 4, 8)))), 6, axis=0)
    rows = unit_rows(values)
    landmarks = choose_landmarks(rows, 60)
    assert len(landmarks.centers) == 60
    intra = intra_kernel(rows)
    operators = [
        landmark_operator(landmark_graph(rows, intra, landmarks, bandwidth=0.7, sums=sums))
        for sums in ("exact", "centers")
    ]
    np.testing.assert_allclose(operators[0].symmetric, operators[1].symmetric, atol=2e-6)
    np.testing.assert_allclose(operators[0].node_degrees, operators[1].node_degrees, rtol=1e-5)


def test_center_sums_do_not_depend_on_whether_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = unit_rows(nodes_with_gaps())
    intra, landmarks = intra_kernel(rows), choose_landmarks(rows, 60)
    kept = landmark_graph(rows, intra, landmarks, bandwidth=0.7, sums="centers")
    monkeypatch.setattr("hiddenscope.embeddings.transitions._KEPT_ENTRIES", 0)
    streamed = landmark_graph(rows, intra, landmarks, bandwidth=0.7, sums="centers")
    assert kept.blocks is not None
    assert streamed.blocks is None
    np.testing.assert_array_equal(landmark_operator(kept).symmetric, landmark_operator(streamed).symmetric)
