"""From a materialized kernel to a picture, by way of graphtools and PHATE: the reference solution.

Each stage is the published implementation's own where it has one: landmarks and their operator are graphtools', the
entropy and its knee, classic MDS and SMACOF are PHATE's. What is ours: distances that are symmetric to the last bit
(SMACOF refuses others), and a picture in the units of the potential distance, where PHATE scales every picture to norm
1. Up to that scale, `phate.PHATE` fitted to the same graph draws the same picture.
(PHATE, Moon et al. 2019; M-PHATE, Gigante et al. 2019.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import graphtools
import numpy as np
import numpy.typing as npt
import phate
import scipy.sparse
from scipy.linalg import orthogonal_procrustes
from sklearn.metrics.pairwise import euclidean_distances

from hiddenscope.embeddings.kernel import assemble_kernel, inter_bandwidth, kernel_bytes
from hiddenscope.embeddings.memory import require_memory
from hiddenscope.trace import FloatArray

_SPECTRAL_COMPONENTS = 100
_DENSE_COPIES = 12  # operator, its powers and singular vectors, potential, distances, SMACOF's buffers


@dataclass(frozen=True)
class ExactSolution:
    """What the reference solution found.

    Attributes:
        positions: shape (slice, unit, component), NaN for excluded nodes.
        bandwidth: of the inter-step kernel, in normalized activation.
        diffusion_time: exponent of the diffusion operator.
    """

    positions: npt.NDArray[np.float64]
    bandwidth: float
    diffusion_time: int


def embed_nodes_exactly(
    nodes: FloatArray,
    *,
    n_components: int = 3,
    intra_knn: int = 2,
    inter_knn: int = 25,
    decay: float = 5,
    t: int | Literal["auto"] = "auto",
    gamma: float = 0,
    n_landmark: int | None = 1000,
    seed: int = 0,
) -> ExactSolution:
    """Normalized nodes to a picture, by way of the materialized kernel.

    Args:
        nodes: shape (slice, unit, feature), NaN rows excluded.
        n_components: dimensions of the picture.
        intra_knn: neighbor within the slice that sets a unit's bandwidth.
        inter_knn: neighbor among the slices that sets the one bandwidth between slices.
        decay: exponent of the kernel within a slice.
        t: diffusion time, or "auto".
        gamma: informational distance, from -1 to 1.
        n_landmark: landmarks when there are more nodes; None embeds every node.
        seed: of the landmarks and the MDS.

    Raises:
        MemoryError: it would not fit; the message says how much it takes.
    """
    bandwidth = inter_bandwidth(nodes, inter_knn=inter_knn)
    require_memory(
        kernel_bytes(nodes, bandwidth=bandwidth),
        purpose=f"solver='exact' on {nodes.shape[0] * nodes.shape[1]:,} nodes",
        remedy="use solver='streaming', or fewer epochs or steps",
    )
    kernel = assemble_kernel(nodes, bandwidth=bandwidth, intra_knn=intra_knn, decay=decay)
    positions, time = embed_kernel(
        kernel, n_components=n_components, t=t, gamma=gamma, n_landmark=n_landmark, seed=seed
    )
    return ExactSolution(positions.reshape(*nodes.shape[:2], -1), bandwidth, time)


def embed_kernel(
    kernel: scipy.sparse.csr_array,
    *,
    n_components: int,
    t: int | Literal["auto"],
    gamma: float,
    n_landmark: int | None,
    seed: int,
) -> tuple[npt.NDArray[np.float64], int]:
    """Embed the nodes of a kernel as M-PHATE does: positions, NaN for nodes without affinities, and diffusion time.

    Args:
        kernel: affinities, shape (node, node), symmetric; a node without affinities is left out.
        n_components: dimensions of the picture.
        t: diffusion time, or "auto" for the knee of the von Neumann entropy of the operator.
        gamma: informational distance, from -1 to 1; 0 is M-PHATE's square root, 1 the logarithm.
        n_landmark: landmarks that stand for the nodes when there are more nodes; None embeds every node.
        seed: of the landmarks and the MDS.
    """
    present = kernel.diagonal() > 0
    graph = affinity_graph(kernel[present][:, present], n_landmark=n_landmark, seed=seed)
    landmarked = isinstance(graph, graphtools.graphs.LandmarkGraph)
    operator = graph.landmark_op if landmarked else graph.diff_op.toarray()
    time = knee_of_entropy(operator) if t == "auto" else int(t)
    potential = diffusion_potential(operator, t=time, gamma=gamma)
    picture = metric_mds(potential, n_components=n_components, seed=seed)
    positions = np.full((kernel.shape[0], n_components), np.nan)
    positions[present] = graph.interpolate(picture) if landmarked else picture
    return positions, time


def affinity_graph(kernel: scipy.sparse.csr_array, *, n_landmark: int | None, seed: int) -> graphtools.base.DataGraph:
    """A graphtools graph over given affinities, with spectral landmarks when there are more nodes than landmarks."""
    count = kernel.shape[0]
    landmarks = n_landmark if n_landmark is not None and n_landmark < count else None
    size = count if landmarks is None else landmarks
    require_memory(
        _DENSE_COPIES * 8 * size**2 + 4 * 12 * kernel.nnz,
        purpose=f"diffusion among {size:,} {'nodes' if landmarks is None else 'landmarks'}",
        remedy="lower n_landmark, or use MMPHATE(solver='streaming')",
    )
    return graphtools.Graph(
        scipy.sparse.csr_matrix(kernel),
        precomputed="affinity",
        n_landmark=landmarks,
        n_svd=min(_SPECTRAL_COMPONENTS, count - 1),
        knn=None,  # of no use to a given affinity, and warned about when nodes are few
        bandwidth=1.0,
        random_state=seed,
        n_jobs=1,
        verbose=0,
    )


def knee_of_entropy(operator: FloatArray) -> int:
    """Diffusion time at the knee of the operator's von Neumann entropy, at least 1.

    Source: PHATE's own two-line fit over the first 100 times; the time is an index, one less than the power of the
    singular values it was found at.
    """
    return int(phate.vne.find_knee_point(phate.vne.compute_von_neumann_entropy(operator)))


def diffusion_potential(operator: FloatArray, *, t: int, gamma: float) -> npt.NDArray[np.float64]:
    """Diffusion after ``t`` steps, on the scale that gamma chooses: -ln(P^t + 1e-7) at 1, 2 sqrt(P^t) at 0.

    Args:
        operator: rows sum to 1, shape (landmark, landmark).
        t: number of steps.
        gamma: from -1 to 1.

    Source: PHATE, Moon et al. 2019, the informational distances.

    >>> diffusion_potential(np.array([[0.25, 0.75], [0.75, 0.25]]), t=1, gamma=0)[0, 0]
    np.float64(1.0)
    """
    diffused = np.linalg.matrix_power(np.asarray(operator, np.float64), t)
    if gamma == 1:
        return np.asarray(-np.log(diffused + 1e-7))
    exponent = (1 - gamma) / 2
    return np.asarray(diffused**exponent / exponent)


def metric_mds(potential: FloatArray, *, n_components: int, seed: int) -> npt.NDArray[np.float64]:
    """Points whose distances are as near as can be to those between the rows of the potential.

    Classic MDS starts SMACOF, whose solution is turned back onto the classic one.

    Args:
        potential: shape (landmark, landmark).
        n_components: dimensions of the picture.
        seed: of the randomized decomposition.

    Returns:
        Shape (landmark, n_components), in the units of the potential distance, centered.

    Raises:
        ValueError: fewer landmarks than dimensions.
    """
    if len(potential) < n_components:
        raise ValueError(f"a picture in {n_components} dimensions needs at least as many nodes, got {len(potential)}")
    distance = euclidean_distances(potential)
    distance = (distance + distance.T) / 2
    np.fill_diagonal(distance, 0.0)
    start = phate.mds.classic(distance, n_components=n_components, random_state=seed)
    if not np.any(distance):
        return np.zeros((len(potential), n_components))
    picture = phate.mds.smacof(distance, n_components=n_components, init=start, random_state=seed)
    picture = picture - picture.mean(axis=0)
    turn, _ = orthogonal_procrustes(picture, start)
    return np.asarray(picture @ turn)
