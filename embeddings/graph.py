"""The streamed kernel as a graph that PHATE accepts, without the kernel.

PHATE asks a graphtools graph for three things: its landmark operator, the number of its nodes, and the interpolation of
landmark positions to nodes. All three come from node-to-landmark sums that are streamed unit by unit, so that an
unmodified ``phate.PHATE(...).fit_transform(graph)`` runs on hundreds of thousands of nodes. (MM-PHATE, Xie et al. 2024,
section 3; the landmark operator is PHATE's, Moon et al. 2019.)
"""

from __future__ import annotations

from typing import Literal

import graphtools
import numpy as np
import numpy.typing as npt
import phate
import scipy.sparse
import xarray as xr
from scipy.sparse.linalg import LinearOperator

from hiddenscope.embeddings.bandwidth import SAMPLED_ROWS, inter_bandwidth
from hiddenscope.embeddings.exact import affinity_graph
from hiddenscope.embeddings.intra import intra_kernel
from hiddenscope.embeddings.kernel import affordable_inter_knn, assemble_kernel, check_kernel_options, kernel_bytes
from hiddenscope.embeddings.landmarks import choose_landmarks
from hiddenscope.embeddings.memory import require_memory
from hiddenscope.embeddings.nodes import normalize, present_nodes, reduce_samples
from hiddenscope.embeddings.seeds import RandomState, draw_seed
from hiddenscope.embeddings.threads import one_blas_thread
from hiddenscope.embeddings.transitions import (
    LandmarkGraph,
    LandmarkOperator,
    interpolate,
    landmark_graph,
    landmark_operator,
)
from hiddenscope.embeddings.unit_rows import unit_rows
from hiddenscope.trace import FloatArray


class MultisliceGraph(graphtools.graphs.LandmarkGraph):
    """A graphtools landmark graph over the present nodes of a trace, its kernel streamed.

    Made by `multislice_graph`. Nodes are in the order of the trace, (epoch, step, unit), excluded ones left out.
    ``kernel`` and what graphtools derives from it materialize the kernel, when it fits.

    Attributes:
        nodes: number of each present node among all of the trace, shape (present node,).
        data: their normalized responses, shape (present node, feature).
        inter_bandwidth: of the inter-step kernel.
    """

    def __init__(
        self,
        normalized: FloatArray,
        streamed: LandmarkGraph,
        operator: LandmarkOperator,
        *,
        intra_knn: int,
        decay: float,
    ) -> None:
        present = present_nodes(normalized)
        self.nodes = np.flatnonzero(present)
        self.inter_bandwidth = streamed.bandwidth
        self._normalized = normalized
        self._intra_knn, self._decay = intra_knn, decay
        self._streamed = streamed
        self._operator = operator
        self._rows = streamed.rows.index[present]  # the engine keeps nodes by unit; this is where each of ours is
        count = len(streamed.landmarks.centers)
        super().__init__(normalized[present], n_landmark=count, n_svd=1, n_pca=None, initialize=False, verbose=0)
        root = np.sqrt(operator.degrees.astype(np.float64))
        self._landmark_op = operator.symmetric / root[:, None] * root
        self._transitions = LinearOperator(
            (len(self.nodes), count), matvec=self._spread, matmat=self._spread, dtype=np.float32
        )
        self._clusters = streamed.landmarks.labels[self._rows]

    def build_kernel(self) -> scipy.sparse.csr_matrix:
        """The materialized kernel of the present nodes; see `multislice_kernel`.

        Raises:
            MemoryError: it does not fit.
        """
        require_memory(
            kernel_bytes(self._normalized, bandwidth=self.inter_bandwidth),
            purpose=f"the kernel over {len(self.nodes):,} nodes",
            remedy="landmark_op, transitions and interpolate do without it",
        )
        kernel = assemble_kernel(
            self._normalized, bandwidth=self.inter_bandwidth, intra_knn=self._intra_knn, decay=self._decay
        )
        return scipy.sparse.csr_matrix(kernel[self.nodes][:, self.nodes])

    def build_kernel_to_data(self, Y: FloatArray, **options: object) -> FloatArray:
        """Not offered: responses alone do not say which epoch, step and unit they belong to.

        Raises:
            NotImplementedError: always; `MMPHATE.transform` places a trace in a picture.
        """
        raise NotImplementedError("new nodes need an epoch, step and unit; use MMPHATE.transform on their trace")

    def build_landmark_op(self) -> None:
        """Nothing to do: the operator is streamed when the graph is made."""

    def _reset_landmarks(self) -> None:
        """PHATE may set parameters that change nothing here; the landmarks stay."""

    def _spread(self, values: FloatArray) -> FloatArray:
        columns = np.asarray(values, np.float32).reshape(self._transitions.shape[1], -1)
        with one_blas_thread():
            spread = interpolate(self._streamed, np.ascontiguousarray(columns))[self._rows]
        return spread.reshape(len(spread), *np.shape(values)[1:])


def multislice_graph(
    trace: xr.DataArray | npt.ArrayLike,
    *,
    intra_knn: int = 2,
    inter_knn: int = 25,
    decay: float = 5,
    n_landmark: int | None = 1000,
    n_pca: int | None = 100,
    bandwidth: int | Literal["exact"] = SAMPLED_ROWS,
    random_state: RandomState = None,
) -> graphtools.base.BaseGraph:
    """The multislice kernel of a trace as a graph for PHATE.

    Args:
        trace: hidden states, shape (epoch, step, unit, sample).
        intra_knn: neighbor within the slice that sets a unit's bandwidth.
        inter_knn: neighbor among the slices that sets the one bandwidth between slices.
        decay: exponent of the kernel within a slice.
        n_landmark: landmarks that stand for the nodes. With no more nodes than landmarks, or with None, the graph has
            no landmarks and a materialized kernel.
        n_pca: principal components that stand for the samples when there are more; None keeps the samples.
        bandwidth: slices per unit that the bandwidth is measured at, or "exact" for all of them.
        random_state: a seed, a generator to draw one from, or None for other landmarks each time.

    Returns:
        A graphtools graph over the present nodes, in the order of the trace.

    Raises:
        ValueError: an option out of range, fewer than 2 slices or 2 samples.
        MemoryError: a materialized kernel that does not fit.

    >>> import phate
    >>> trace = np.random.default_rng(0).normal(size=(6, 8, 5, 7))
    >>> graph = multislice_graph(trace, n_landmark=50, random_state=0)
    >>> phate.PHATE(n_components=2, random_state=0, verbose=0).fit_transform(graph).shape
    (240, 2)
    """
    check_kernel_options(intra_knn=intra_knn, inter_knn=inter_knn, decay=decay)
    return graph_of_nodes(
        reduce_samples(normalize(trace, dtype=np.float32), n_pca=n_pca),
        intra_knn=intra_knn,
        inter_knn=inter_knn,
        decay=decay,
        n_landmark=n_landmark,
        bandwidth=bandwidth,
        seed=draw_seed(random_state),
    )


def graph_of_nodes(
    nodes: FloatArray,
    *,
    intra_knn: int,
    inter_knn: int,
    decay: float,
    n_landmark: int | None,
    bandwidth: int | Literal["exact"],
    seed: int,
) -> graphtools.base.BaseGraph:
    """`multislice_graph` of nodes that are normalized already, shape (slice, unit, feature)."""
    affordable_inter_knn(nodes, inter_knn)
    with one_blas_thread():
        rows = unit_rows(nodes)
        width = inter_bandwidth(rows, knn=inter_knn, sampled_rows=bandwidth, seed=seed).value
        if n_landmark is None or n_landmark >= len(rows.values):
            require_memory(
                kernel_bytes(nodes, bandwidth=width),
                purpose=f"the kernel over {len(rows.values):,} nodes",
                remedy="give n_landmark, with which it is never built",
            )
            kernel = assemble_kernel(nodes, bandwidth=width, intra_knn=intra_knn, decay=decay)
            present = np.flatnonzero(present_nodes(nodes))
            graph = affinity_graph(kernel[present][:, present], n_landmark=None, seed=seed)
            graph.inter_bandwidth = width
            return graph
        streamed = landmark_graph(
            rows,
            intra_kernel(rows, knn=intra_knn, decay=decay),
            choose_landmarks(rows, n_landmark, seed=seed),
            bandwidth=width,
            sums="auto",
        )
        operator = landmark_operator(streamed)
    return MultisliceGraph(nodes, streamed, operator, intra_knn=intra_knn, decay=decay)


def embed_by_phate(
    nodes: FloatArray,
    *,
    intra_knn: int,
    inter_knn: int,
    decay: float,
    n_components: int,
    t: int | Literal["auto"],
    gamma: float,
    n_landmark: int | None,
    bandwidth: int | Literal["exact"],
    seed: int,
) -> tuple[FloatArray, float, int]:
    """Positions, shape (slice, unit, component), by an unmodified PHATE on the graph; bandwidth and diffusion time."""
    graph = graph_of_nodes(
        nodes,
        intra_knn=intra_knn,
        inter_knn=inter_knn,
        decay=decay,
        n_landmark=n_landmark,
        bandwidth=bandwidth,
        seed=seed,
    )
    operator = phate.PHATE(
        n_components=n_components, t=t, gamma=gamma, n_landmark=None, random_state=seed, n_jobs=1, verbose=0
    )
    positions = np.full((nodes.shape[0] * nodes.shape[1], n_components), np.nan)
    positions[present_nodes(nodes).ravel()] = operator.fit_transform(graph)
    width = graph.inter_bandwidth
    return positions.reshape(*nodes.shape[:2], -1), width, int(operator.optimal_t if t == "auto" else t)
