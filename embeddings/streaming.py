"""MM-PHATE streamed: the recipe from normalized nodes to a picture, without ever holding the kernel.

    rows → bandwidth, intra-step kernel → landmarks → node-to-landmark sums → operator → spectrum, diffusion time
    → potential distances → metric MDS of the landmarks → interpolation to the nodes → refinement

Each stage is a public function of its own module; docs/design/engine.md has the formulas, the cost of each stage and
what differs from M-PHATE. The result depends on the input and the seed alone, not on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hiddenscope.embeddings import bandwidth as bandwidths
from hiddenscope.embeddings.bandwidth import Bandwidth, inter_bandwidth
from hiddenscope.embeddings.diffusion import diffusion_time, potential_distances, spectrum
from hiddenscope.embeddings.intra import IntraKernel, intra_kernel
from hiddenscope.embeddings.landmarks import Landmarks, choose_landmarks
from hiddenscope.embeddings.mds import Placement, classic_mds, metric_mds
from hiddenscope.embeddings.refinement import EPOCHS, refine_nodes
from hiddenscope.embeddings.spectral import spectral_coordinates
from hiddenscope.embeddings.threads import one_blas_thread
from hiddenscope.embeddings.transitions import (
    LandmarkGraph,
    LandmarkOperator,
    Sums,
    interpolate,
    landmark_graph,
    landmark_operator,
    resolved,
)
from hiddenscope.embeddings.unit_rows import Float32Array, UnitRows, unit_rows
from hiddenscope.trace import FloatArray

LandmarkChoice = Literal["per_unit", "spectral"]


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
    landmarks: LandmarkChoice = "per_unit",
    refine: int = EPOCHS,
    device: str | None = None,
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
        landmarks: "per_unit" clusters each unit's nodes by their responses; "spectral" by their coordinates in the
            leading eigenvectors of the kernel, as M-PHATE does, at the cost of a dozen products with the kernel.
        refine: epochs of the final refinement; 0 turns it off.
        device: a torch device such as "cuda" on which all stages but the choice of landmarks run; None for compiled
            code. Traces of no more than ``n_landmark`` nodes stay in compiled code.
        seed: of every random choice.

    Raises:
        ValueError: no complete node, or fewer than 2 slices, refinement in more than 3 dimensions, or no such device.

    >>> import numpy as np
    >>> nodes = np.random.default_rng(0).normal(size=(30, 4, 5))
    >>> embed_nodes(nodes, n_components=2, inter_knn=5).positions.shape
    (30, 4, 2)
    """
    if refine and n_components > 3:
        raise ValueError(f"refinement works in up to 3 dimensions, got {n_components}; use refine=0")
    with one_blas_thread():
        rows = unit_rows(nodes)
        if device is not None and len(rows.values) > n_landmark:
            return _embed_on_device(
                rows, device=device, n_components=n_components, intra_knn=intra_knn, inter_knn=inter_knn, decay=decay,
                t=t, gamma=gamma, n_landmark=n_landmark, bandwidth=bandwidth, sums=sums, landmarks=landmarks,
                refine=refine, seed=seed,
            )  # fmt: skip
        width = inter_bandwidth(rows, knn=inter_knn, sampled_rows=bandwidth, seed=seed)
        intra = intra_kernel(rows, knn=intra_knn, decay=decay)
        chosen = _landmarks(rows, intra, landmarks, bandwidth=width.value, n_landmark=n_landmark, seed=seed)
        graph = landmark_graph(rows, intra, chosen, bandwidth=width.value, sums=sums)
        operator = landmark_operator(graph)
        decomposition = spectrum(operator.symmetric)
        time = diffusion_time(decomposition.values) if t == "auto" else int(t)
        distances = potential_distances(decomposition, operator.degrees, t=time, gamma=gamma)
        placement = metric_mds(distances, classic_mds(distances, n_components, seed=seed))
        plain = interpolate(graph, placement.positions)
        refined = refine_nodes(rows, chosen, plain, epochs=refine, seed=seed)
    return StreamingSolution(graph, operator, width, time, placement, plain, refined)


def _landmarks(
    rows: UnitRows, intra: IntraKernel, choice: LandmarkChoice, *, bandwidth: float, n_landmark: int, seed: int
) -> Landmarks:
    coordinates = None
    if choice == "spectral" and len(rows.values) > n_landmark:
        coordinates = spectral_coordinates(rows, intra, bandwidth=bandwidth, seed=seed)
    return choose_landmarks(rows, n_landmark, coordinates=coordinates, seed=seed)


def _embed_on_device(
    rows: UnitRows,
    *,
    device: str,
    n_components: int,
    intra_knn: int,
    inter_knn: int,
    decay: float,
    t: int | Literal["auto"],
    gamma: float,
    n_landmark: int,
    bandwidth: int | Literal["exact"],
    sums: Sums,
    landmarks: LandmarkChoice,
    refine: int,
    seed: int,
) -> StreamingSolution:
    from hiddenscope.embeddings import on_device as there
    from hiddenscope.embeddings.refinement_on_device import refine as refine_there

    nodes = there.on_device(rows, there.open_device(device))
    width = there.inter_bandwidth(nodes, knn=inter_knn, sampled_rows=bandwidth, seed=seed)
    entries = there.intra_entries(nodes, knn=intra_knn, decay=decay)
    intra = there.intra_in_memory(entries, len(rows.values))
    chosen = _landmarks(rows, intra, landmarks, bandwidth=width.value, n_landmark=n_landmark, seed=seed)
    how = resolved(sums, rows)
    summed = there.landmark_sums(nodes, entries, chosen, bandwidth=width.value, exact=how == "exact")
    values, vectors = there.spectrum(summed.symmetric)
    time = diffusion_time(values.cpu().numpy()) if t == "auto" else int(t)
    distances = there.potential_distances(values, vectors, summed.degrees, t=time, gamma=gamma)
    positions, placement = there.metric_mds(distances, n_components, seed=seed)
    plain = there.interpolate(nodes, summed, chosen, positions, bandwidth=width.value, exact=how == "exact")
    refined = refine_there(nodes, plain, epochs=refine, seed=seed)
    graph = LandmarkGraph(rows, intra, chosen, width.value, "centers", None)
    operator = LandmarkOperator(
        summed.symmetric.cpu().numpy(), summed.degrees.cpu().numpy(), summed.node_degrees.cpu().numpy()
    )
    return StreamingSolution(graph, operator, width, time, placement, plain.cpu().numpy(), refined.cpu().numpy())
