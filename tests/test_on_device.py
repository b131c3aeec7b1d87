"""Every stage on a torch device against its compiled twin, on the processor and on whatever else there is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from engine_examples import correlation, recurrent_trace
from hiddenscope import MMPHATE
from hiddenscope.embeddings import on_device as there
from hiddenscope.embeddings import refinement, refinement_on_device
from hiddenscope.embeddings.bandwidth import inter_bandwidth
from hiddenscope.embeddings.diffusion import potential_distances, spectrum
from hiddenscope.embeddings.intra import intra_kernel
from hiddenscope.embeddings.landmarks import choose_landmarks
from hiddenscope.embeddings.neighbors import nearest_slices
from hiddenscope.embeddings.nodes import normalize
from hiddenscope.embeddings.refinement import inter_edges, refine, slice_mates
from hiddenscope.embeddings.transitions import Sums, interpolate, landmark_graph, landmark_operator
from hiddenscope.embeddings.unit_rows import UnitRows, unit_rows

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
    ),
]


def untied_trace(epochs: int, steps: int, units: int, samples: int) -> npt.NDArray[np.float32]:
    """A trace without equal states, of which either search might name the other first."""
    trace = recurrent_trace(epochs, steps, units, samples)
    return trace + np.random.default_rng(8).normal(0, 0.01, size=trace.shape).astype(np.float32)


@pytest.fixture(scope="module")
def rows() -> UnitRows:
    nodes = np.asarray(normalize(untied_trace(15, 10, 6, 8)))
    nodes[3, 2], nodes[7] = np.nan, np.nan  # one absent node, and a slice with no node at all
    nodes[9, 1:] = np.nan  # a slice with a single unit
    return unit_rows(nodes)


def copied(rows: UnitRows, device: str) -> there.DeviceRows:
    return there.on_device(rows, there.open_device(device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sampled", [40, "exact"])
def test_the_bandwidth_is_the_same(rows: UnitRows, device: str, sampled: int) -> None:
    expected = inter_bandwidth(rows, knn=10, sampled_rows=sampled, seed=3)
    found = there.inter_bandwidth(copied(rows, device), knn=10, sampled_rows=sampled, seed=3)
    assert found.value == pytest.approx(expected.value, rel=1e-5)
    assert found.standard_error == pytest.approx(expected.standard_error, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("device", DEVICES)
def test_the_kernel_within_slices_is_the_same(rows: UnitRows, device: str) -> None:
    expected = dense(intra_kernel(rows, knn=2, decay=5.0), len(rows.values))
    entries = there.intra_entries(copied(rows, device), knn=2, decay=5.0)
    found = dense(there.intra_in_memory(entries, len(rows.values)), len(rows.values))
    np.testing.assert_allclose(found, expected, atol=2e-5)


def dense(kernel, count: int) -> npt.NDArray[np.float32]:  # type: ignore[no-untyped-def]
    matrix = np.zeros((count, count), np.float32)
    matrix[np.repeat(np.arange(count), np.diff(kernel.starts)), kernel.neighbors] = kernel.weights
    return matrix


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sums", ["exact", "centers"])
def test_the_operator_and_the_interpolation_are_the_same(rows: UnitRows, device: str, sums: Sums) -> None:
    landmarks = choose_landmarks(rows, 90)
    graph = landmark_graph(rows, intra_kernel(rows), landmarks, bandwidth=0.9, sums=sums)
    operator = landmark_operator(graph)
    nodes = copied(rows, device)
    entries = there.intra_entries(nodes, knn=2, decay=5.0)
    found = there.landmark_sums(nodes, entries, landmarks, bandwidth=0.9, exact=sums == "exact")
    np.testing.assert_allclose(found.symmetric.cpu(), operator.symmetric, atol=2e-5)
    np.testing.assert_allclose(found.degrees.cpu(), operator.degrees, rtol=1e-4)
    np.testing.assert_allclose(found.node_degrees.cpu(), operator.node_degrees, rtol=1e-4)
    positions = np.random.default_rng(0).normal(size=(len(landmarks.centers), 3)).astype(np.float32)
    placed = there.interpolate(
        nodes, found, landmarks, torch.from_numpy(positions).to(device), bandwidth=0.9, exact=sums == "exact"
    )
    np.testing.assert_allclose(placed.cpu(), interpolate(graph, positions), atol=2e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("gamma", "tolerance"), [(0.0, 2e-3), (0.5, 3e-2), (1.0, 5e-2)])
def test_potential_distances_are_the_same(rows: UnitRows, device: str, gamma: float, tolerance: float) -> None:
    """Up to what float32 leaves of the smallest transitions, which a logarithm makes most of."""
    graph = landmark_graph(rows, intra_kernel(rows), choose_landmarks(rows, 90), bandwidth=0.9)
    operator = landmark_operator(graph)
    expected = potential_distances(spectrum(operator.symmetric), operator.degrees, t=4, gamma=gamma)
    values, vectors = there.spectrum(torch.from_numpy(operator.symmetric).to(device))
    degrees = torch.from_numpy(operator.degrees).to(device)
    found = there.potential_distances(values, vectors, degrees, t=4, gamma=gamma)
    assert float(np.abs(found.cpu().numpy() - expected).mean()) < 2e-3 * expected.max()
    np.testing.assert_allclose(found.cpu(), expected, atol=tolerance * expected.max())


@pytest.mark.parametrize("device", DEVICES)
def test_the_nearest_slices_are_the_same(rows: UnitRows, device: str) -> None:
    _, expected = nearest_slices(rows, None, 12)
    found = there.nearest_slices(copied(rows, device), 12)
    distances = np.linalg.norm(rows.values[found] - rows.values[:, None], axis=2)
    np.testing.assert_allclose(distances, expected, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_refinement_moves_the_nodes_alike(rows: UnitRows, device: str) -> None:
    anchors = np.random.default_rng(1).normal(size=(len(rows.values), 3)).astype(np.float32)
    expected = refine(rows, anchors, inter_edges(rows, None), slice_mates(rows), epochs=12, seed=7)
    found = refinement_on_device.refine(copied(rows, device), torch.from_numpy(anchors).to(device), epochs=12, seed=7)
    np.testing.assert_allclose(found.cpu(), expected, atol=2e-3)
    assert np.abs(expected - anchors).max() > 0.3


@pytest.mark.parametrize("device", DEVICES)
def test_draws_are_those_of_the_compiled_refinement(device: str) -> None:
    firsts = torch.tensor([0, 128, 1_000_064], device=device)
    key = 5 * 1_000_003 + 79
    found = refinement_on_device._drawn(firsts, 384, key, 9_973).cpu().numpy()
    for block, first in enumerate((0, 128, 1_000_064)):
        for draw in (0, 1, 383):
            counter = (first << 12) + draw + (key << 44) & 2**64 - 1
            assert found[block, draw] == int(refinement._scrambled(np.uint64(counter))) % 9_973


@pytest.mark.parametrize("device", DEVICES)
def test_the_whole_picture_is_the_same(device: str) -> None:
    trace = untied_trace(25, 16, 6, 10)
    trace[2, 3:5] = np.nan
    compiled, other = (MMPHATE(n_landmark=200, device=where, random_state=0).fit(trace) for where in (None, device))
    one, two = (np.asarray(estimator.embedding_).reshape(-1, 3) for estimator in (compiled, other))
    np.testing.assert_array_equal(np.isnan(one), np.isnan(two))
    known = np.isfinite(one[:, 0])
    assert 1 - correlation(compiled.solution_.plain, other.solution_.plain) < 1e-6
    # 80 rounds of refinement magnify the last bits, by more on some processors than on others
    assert 1 - correlation(one[known], two[known]) < 3e-3
    assert other.diffusion_time_ == compiled.diffusion_time_
    again = np.asarray(other.transform(trace)).reshape(-1, 3)
    assert correlation(again[known], two[known]) > 0.95
    other.partial_fit(recurrent_trace(1, 16, 6, 10, seed=4))
    assert np.shape(other.embedding_)[0] == 26


def test_an_unknown_device_is_refused_with_those_there_are() -> None:
    trace = recurrent_trace(6, 6, 4, 6)
    with pytest.raises(ValueError, match="got device 'nonsense'; this machine has 'cpu'"):
        MMPHATE(n_landmark=50, device="nonsense").fit(trace)
