"""The kernel and the pictures against m-phate 0.1.6 itself; run by `make oracle`, in an environment of its own."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_allclose
from scipy.spatial import procrustes

import hiddenscope as hs
from hiddenscope.embeddings.kernel import inter_bandwidth
from hiddenscope.embeddings.nodes import normalize

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("default"),  # its own deprecations are not ours to fix
]
m_phate = pytest.importorskip("m_phate", reason="m-phate is not installed; make oracle installs it")

Array = npt.NDArray[np.float64]


def walk(*shape: int, seed: int = 0) -> Array:
    epochs, steps, units, samples = shape
    rng = np.random.default_rng(seed)
    drift = rng.normal(size=(epochs, 1, units, samples)).cumsum(axis=0) + rng.normal(size=(1, steps, units, samples))
    return drift + 0.1 * rng.normal(size=shape)


def theirs(trace: Array, **options: int) -> Array:
    """m-phate's kernel of the folded, normalized trace, its affinities under the threshold set to 0.

    m-phate leaves that to the graph which it hands the kernel to.
    """
    nodes = m_phate.utils.normalize(trace.reshape(-1, *trace.shape[2:]))
    kernel = m_phate.kernel.multislice_kernel(nodes, n_jobs=1, **options).toarray()
    kernel[kernel < 1e-4] = 0
    return np.asarray(kernel)


def kernels_of(trace: Array, **options: int) -> tuple[Array, Array]:
    ours = hs.multislice_kernel(
        trace, intra_knn=options.get("intraslice_knn", 2), inter_knn=options.get("interslice_knn", 25)
    ).toarray()
    ours[ours < 1e-4] = 0  # half of a one-sided affinity
    return ours, theirs(trace, **options)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [walk, lambda *shape, seed: np.random.default_rng(seed).normal(size=shape)])
def test_kernel_equals_that_of_m_phate(make, seed: int) -> None:  # type: ignore[no-untyped-def]
    ours, reference = kernels_of(make(6, 7, 5, 8, seed=seed))
    assert_allclose(ours, reference, atol=1e-5)


@pytest.mark.parametrize("units", [3, 4, 12])
def test_kernel_equals_that_of_m_phate_for_few_and_many_units(units: int) -> None:
    ours, reference = kernels_of(walk(5, 6, units, 8))
    assert_allclose(ours, reference, atol=1e-5)


def test_kernel_equals_that_of_m_phate_with_other_neighbors_and_many_samples() -> None:
    # Its PCA is randomized and unseeded, and exact to rounding only where the nodes span few dimensions.
    trace = walk(5, 6, 6, 20) @ np.random.default_rng(1).normal(size=(20, 150))
    ours, reference = kernels_of(trace, intraslice_knn=3, interslice_knn=7)
    assert_allclose(ours, reference, atol=1e-5)


def test_kernel_equals_that_of_m_phate_where_units_and_epochs_coincide() -> None:
    trace = walk(6, 5, 6, 8)
    trace[:, :, 3] = trace[:, :, 2]
    trace[3:] = trace[:3]
    ours, reference = kernels_of(trace)
    assert_allclose(ours, reference, atol=1e-5)


@pytest.mark.parametrize("knn", [1, 5, 25])
def test_bandwidth_is_exactly_that_of_m_phate(knn: int) -> None:
    trace = walk(6, 7, 5, 8)
    nodes = m_phate.utils.normalize(trace.reshape(-1, 5, 8))
    medians = [
        m_phate.kernel.knn_dist(m_phate.kernel.square_pdist(nodes[:, unit]), knn) for unit in range(nodes.shape[1])
    ]
    assert inter_bandwidth(normalize(trace), inter_knn=knn) == pytest.approx(np.mean(medians), rel=1e-12)


def correlation(one: Array, other: Array) -> float:
    return float(np.sqrt(1 - procrustes(one.reshape(-1, 3), other.reshape(-1, 3))[2]))


@pytest.mark.parametrize("landmarks", [None, 200])
def test_picture_of_the_exact_solver_is_that_of_m_phate(landmarks: int | None) -> None:
    trace = walk(8, 9, 6, 10)
    operator = m_phate.M_PHATE(n_components=3, n_landmark=landmarks, random_state=0, n_jobs=1, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = operator.fit_transform(trace.reshape(-1, 6, 10))
    found = hs.MMPHATE(3, solver="exact", n_landmark=landmarks, random_state=0).fit_transform(trace)
    assert correlation(np.asarray(found), expected) > 0.999
