"""The streaming recipe: against the exact solver, on odd traces, and the same bits whatever the number of threads."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from engine_examples import correlation, recurrent_trace
from hiddenscope.embeddings.exact import embed_kernel
from hiddenscope.embeddings.kernel import assemble_kernel
from hiddenscope.embeddings.kernel import inter_bandwidth as reference_bandwidth
from hiddenscope.embeddings.nodes import normalize
from hiddenscope.embeddings.streaming import embed_nodes


def test_without_landmarks_the_plain_picture_is_that_of_the_exact_solver() -> None:
    nodes = np.asarray(normalize(recurrent_trace(10, 8, 6, 10)))
    kernel = assemble_kernel(nodes, bandwidth=reference_bandwidth(nodes))
    exact, _ = embed_kernel(kernel, n_components=2, t=12, gamma=0, n_landmark=None, seed=0)
    found = embed_nodes(nodes, n_components=2, t=12, bandwidth="exact", refine=0)
    assert correlation(found.positions, exact) > 0.98


def test_with_landmarks_the_plain_picture_agrees_with_the_exact_solver() -> None:
    nodes = np.asarray(normalize(recurrent_trace(20, 12, 6, 10)))
    kernel = assemble_kernel(nodes, bandwidth=reference_bandwidth(nodes))
    exact, _ = embed_kernel(kernel, n_components=3, t="auto", gamma=0, n_landmark=300, seed=0)
    found = embed_nodes(nodes, n_landmark=300, refine=0).positions
    assert correlation(found, exact) > 0.98


@pytest.mark.parametrize("shape", [(2, 2, 2, 2), (1, 2, 3, 2), (3, 1, 1, 4), (2, 3, 40, 3)])
@pytest.mark.filterwarnings("ignore:inter_knn lowered")
def test_the_smallest_traces_have_a_picture(shape: tuple[int, ...]) -> None:
    nodes = normalize(np.random.default_rng(0).normal(size=shape))
    positions = embed_nodes(nodes, n_components=2).positions
    assert positions.shape == (shape[0] * shape[1], shape[2], 2)
    assert np.isfinite(positions).all()


def test_dead_units_constant_slices_and_repeated_epochs_have_finite_places() -> None:
    trace = recurrent_trace(12, 8, 5, 6)
    trace[:, :, 2] = 0.25
    trace[5] = trace[4]
    trace[7, 3] = 1.0
    solution = embed_nodes(normalize(trace), n_landmark=80, inter_knn=10)
    assert np.isfinite(solution.positions).all()
    plain = solution.graph.rows.to_nodes(solution.plain).reshape(12, 8, 5, 3)
    assert np.linalg.norm(plain[5] - plain[4], axis=-1).max() < 1e-3 * plain.std()
    assert np.linalg.norm(plain[5] - plain[11], axis=-1).max() > 1e-2 * plain.std()


def test_a_trace_in_which_nothing_varies_is_one_point() -> None:
    positions = embed_nodes(np.zeros((40, 3, 4)), n_landmark=60).positions
    assert np.isfinite(positions).all()


def test_excluded_nodes_are_not_a_number_and_disturb_no_one() -> None:
    nodes = np.asarray(normalize(recurrent_trace(10, 8, 5, 6)))
    gaps = nodes.copy()
    gaps[[3, 77]] = np.nan
    gaps[40, 1] = np.nan
    found = embed_nodes(gaps, n_landmark=1000, inter_knn=10).positions
    np.testing.assert_array_equal(np.isnan(found).any(axis=2), np.isnan(gaps).any(axis=2))
    cut = embed_nodes(np.delete(gaps, [3, 77], axis=0), n_landmark=1000, inter_knn=10).positions
    np.testing.assert_array_equal(np.delete(found, [3, 77], axis=0), cut)


def test_a_trace_without_a_complete_slice_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one slice must be complete"):
        embed_nodes(np.full((4, 3, 2), np.nan))
    nodes = np.full((4, 3, 2), np.nan)
    nodes[0] = [[1, -1]]
    with pytest.raises(ValueError, match="at least 2"):
        embed_nodes(nodes)


def test_neither_the_order_of_samples_nor_that_of_units_matters() -> None:
    trace = recurrent_trace(10, 8, 6, 10)
    generator = np.random.default_rng(0)
    base = embed_nodes(normalize(trace), inter_knn=10, refine=0).positions
    samples = embed_nodes(normalize(trace[..., generator.permutation(10)]), inter_knn=10, refine=0).positions
    assert correlation(base, samples) > 0.9999
    order = generator.permutation(6)
    units = embed_nodes(normalize(trace[:, :, order]), inter_knn=10, refine=0).positions
    assert correlation(base[:, order], units) > 0.9999


def test_a_constant_added_to_every_response_of_a_node_changes_nothing() -> None:
    trace = recurrent_trace(8, 6, 5, 8).astype(np.float64)
    shifts = np.random.default_rng(0).normal(size=(8, 6, 5, 1))
    base = embed_nodes(normalize(trace), inter_knn=10).positions
    shifted = embed_nodes(normalize(trace + shifts), inter_knn=10).positions
    assert correlation(base, shifted) > 0.9999


def test_center_sums_and_exact_sums_draw_nearly_the_same_picture() -> None:
    nodes = np.asarray(normalize(recurrent_trace(30, 20, 5, 10)))
    pictures = [
        embed_nodes(nodes, n_landmark=300, sums=sums, t=20, refine=0).positions for sums in ("exact", "centers")
    ]
    assert correlation(*pictures) > 0.97


_DIGEST = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from engine_examples import recurrent_trace
from hiddenscope.embeddings.live import LiveSettings, advance, begin
from hiddenscope.embeddings.nodes import normalize
from hiddenscope.embeddings.streaming import embed_nodes
nodes = normalize(recurrent_trace(40, 20, 5, 10))
for sums in ("exact", "centers"):
    print(hashlib.sha256(embed_nodes(nodes, n_landmark=200, sums=sums, seed=4).positions.tobytes()).hexdigest())
picture = begin(nodes[:720], LiveSettings(n_landmark=200, max_slices=500))
for epoch in (36, 37, 38):
    picture = advance(picture, nodes[20 * epoch : 20 * epoch + 20])
print(hashlib.sha256(picture.shown.tobytes()).hexdigest())
"""


def test_the_bits_depend_on_the_seed_and_not_on_the_number_of_threads() -> None:
    digests = set()
    for threads in ("1", "2", "4"):
        environment = {**os.environ, "NUMBA_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        result = subprocess.run(
            [sys.executable, "-c", _DIGEST, os.path.dirname(__file__)],
            env=environment, capture_output=True, text=True, timeout=240, check=True,
        )  # fmt: skip
        digests.add(result.stdout)
    assert len(digests) == 1
    nodes = normalize(recurrent_trace(6, 6, 5, 10))
    one, other = (embed_nodes(nodes, inter_knn=5, n_landmark=50, seed=seed).positions for seed in (0, 1))
    assert np.abs(one - other).max() > 0
