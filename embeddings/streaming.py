"""MM-PHATE streamed: the recipe from normalized nodes to a picture, without ever holding the kernel.

    rows → bandwidth, intra-step kernel → landmarks → node-to-landmark sums → operator → spectrum, diffusion time
    → potential distances → metric MDS of the landmarks → interpolation to the nodes → refinement

Each stage is a public function of its own module; docs/design/engine.md has the formulas, the cost of each stage and
what differs from M-PHATE. The result depends on the input and the seed alone, not on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hiddenscope.embeddings import bandwidth as bandwidths
from hiddenscope.embeddings.bandwidth import Bandwidth, inter_bandwidth
from hiddenscope.embeddings.diffusion import diffusion_time, potential_distances, spectrum
from hiddenscope.embeddings.intra import intra_kernel
from hiddenscope.embeddings.landmarks import choose_landmarks
from hiddenscope.embeddings.mds import Placement, classic_mds, metric_mds
from hiddenscope.embeddings.refinement import EPOCHS, refine_nodes
from hiddenscope.embeddings.threads import one_blas_thread
from hiddenscope.embeddings.transitions import (
    LandmarkGraph,
    LandmarkOperator,
    Sums,
    interpolate,
    landmark_graph,
    landmark_operator,
)
from hiddenscope.embeddings.unit_rows import Float32Array, UnitRows, unit_rows
from hiddenscope.trace import FloatArray

@dataclass(frozen=True)
class StreamingSolution:
    """A picture and all that is needed to go on from it.

    Attributes:
        graph: nodes, landmarks and the sums between them.
        operator: diffusion among the landmarks.
        bandwidth: of the inter-step kernel.
        diffusion_time: exponent of the diffusion operator.
        placement: of the landmarks, by metric MDS.
        plain: shape (row, component): nodes interpolated from the landmarks.
        refined: shape (row, component): the same after refinement.
    """

    graph: LandmarkGraph
    operator: LandmarkOperator
    bandwidth: Bandwidth
    diffusion_time: int
    placement: Placement
    plain: Float32Array
    refined: Float32Array

    @property
    def positions(self) -> Float32Array:
        """The picture: shape (slice, unit, component), NaN for excluded nodes."""
        return self.graph.rows.to_nodes(self.refined)


def embed_nodes(
    nodes: FloatArray,
    *,
    n_components: int = 3,
    intra_knn: int = 2,
    inter_knn: int = 25,
    decay: float = 5.0,
    t: int | Literal["auto"] = "auto",
    gamma: float = 0.0,
    n_landmark: int = 1000,
    bandwidth: int | Literal["exact"] = bandwidths.SAMPLED_ROWS,
    sums: Sums = "auto",
    refine: int = EPOCHS,
    seed: int = 0,
) -> StreamingSolution:
    """Embed normalized nodes by the streaming solver.

    Args:
        nodes: shape (slice, unit, feature), NaN rows excluded; see `hiddenscope.embeddings.nodes.normalize`.
        n_components: dimensions of the picture; refinement works in up to 3.
        intra_knn: neighbor among the units of a slice whose distance is a unit's bandwidth.
        inter_knn: neighbor among the slices that sets the one bandwidth between slices.
        decay: exponent of the kernel within a slice.
        t: diffusion time, or "auto" for the knee of the operator's von Neumann entropy.
        gamma: informational distance, from -1 to 1.
        n_landmark: landmarks at most; with no more nodes than that every node is embedded by itself.
        bandwidth: slices per unit that the bandwidth is measured at, or "exact" for all of them.
        sums: "exact" adds the affinities of all members of a landmark, "centers" takes that of its center for each;
            "auto" is exact while that is cheap (`hiddenscope.embeddings.transitions.landmark_graph`).
        refine: epochs of the final refinement; 0 turns it off.
        seed: of every random choice.

    Raises:
        ValueError: no complete node, or fewer than 2 slices, or refinement in more than 3 dimensions.

    >>> nodes = np.random.default_rng(0).normal(size=(30, 4, 5))
    >>> embed_nodes(nodes, n_components=2, inter_knn=5).positions.shape
    (30, 4, 2)
    """
    if refine and n_components > 3:
        raise ValueError(f"refinement works in up to 3 dimensions, got {n_components}; use refine=0")
    with one_blas_thread():
        rows = unit_rows(nodes)
        width = inter_bandwidth(rows, knn=inter_knn, sampled_rows=bandwidth, seed=seed)
        landmarks = choose_landmarks(rows, n_landmark, seed=seed)
        graph = landmark_graph(
            rows,
            intra_kernel(rows, knn=intra_knn, decay=decay),
            landmarks,
            bandwidth=width.value,
            sums=sums,
        )
        operator = landmark_operator(graph)
        decomposition = spectrum(operator.symmetric)
        time = diffusion_time(decomposition.values) if t == "auto" else int(t)
        distances = potential_distances(decomposition, operator.degrees, t=time, gamma=gamma)
        placement = metric_mds(distances, classic_mds(distances, n_components, seed=seed))
        plain = interpolate(graph, placement.positions)
        refined = refine_nodes(rows, landmarks, plain, epochs=refine, seed=seed)
    return StreamingSolution(graph, operator, width, time, placement, plain, refined)
