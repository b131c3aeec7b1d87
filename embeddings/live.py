"""The live step: a picture that follows a training, at a cost per epoch that does not grow with its history.

Each new epoch is taken in by one `advance`: bandwidth and diffusion time follow the training at a limited rate, a few
landmarks per unit are exchanged for nodes of the new epoch, the landmarks settle by a few rounds of MDS from where they
were, and the nodes by a few rounds of refinement. Two pictures are kept: the *target*, which is what the data say now,
and the *shown* one, which eases toward it, so that nothing jumps.

What would grow with the history is done to a part of it. Landmarks and bandwidth are taken from a sample of at most
`LiveSettings.max_slices` slices. Refinement moves the new nodes and, in turn, others up to `REFINED_NODES`, among all
the rest, which stay; until it is their turn they ride along with the landmarks around them. Who is near whom is never
searched anew, but kept (`hiddenscope.embeddings.neighborhoods`).

Source of the recipe: ours. A frozen model fails, because the bandwidth falls severalfold while a network learns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from hiddenscope.embeddings.bandwidth import SAMPLED_ROWS, inter_bandwidth
from hiddenscope.embeddings.diffusion import (
    Spectrum,
    diffusion_time,
    leading_spectrum,
    potential_distances,
    spectrum,
)
from hiddenscope.embeddings.intra import intra_kernel
from hiddenscope.embeddings.landmarks import Landmarks
from hiddenscope.embeddings.mds import metric_mds
from hiddenscope.embeddings.neighborhoods import Neighborhoods, carried, neighborhoods, surroundings, with_arrivals
from hiddenscope.embeddings.neighbors import nearest_slices
from hiddenscope.embeddings.placing import landmark_means, nearest_landmarks
from hiddenscope.embeddings.refinement import EPOCHS, RANKS, refine, slice_mates
from hiddenscope.embeddings.streaming import StreamingSolution, embed_nodes
from hiddenscope.embeddings.succession import Succession, renew_landmarks
from hiddenscope.embeddings.threads import one_blas_thread
from hiddenscope.embeddings.transitions import landmark_graph, landmark_operator
from hiddenscope.embeddings.unit_rows import Float32Array, UnitRows, unit_rows
from hiddenscope.trace import FloatArray

BANDWIDTH_RATE = 0.10
"""Largest relative change of the bandwidth from one epoch to the next."""
TIME_RATE = 0.12
"""Largest relative change of the diffusion time, but one step at least is always allowed."""
RENEWAL = 0.02
"""Share of each unit's landmarks that may be exchanged in an epoch."""
MDS_ROUNDS = 30
MDS_ANCHOR = 0.2
REFINEMENT_ROUNDS = (12, 24)
"""At least and at most: more of them while fewer nodes than `REFINED_NODES` are there."""
EASING = (0.35, 0.7)
"""Share of the way to the target that is shown after an epoch, at least and at most."""
EAGERNESS = 5.0
"""Easing per standard deviation of the picture that the nodes lie from their targets: a small gap is mostly noise."""
LARGEST_MOVE = 0.25
"""Largest move of a shown node in one epoch, in standard deviations of the picture."""
EXACT_PAIRS = 30_000_000
REFINED_NODES = 36_000
"""Nodes that are refined in one epoch: the new ones, and others in turn."""
FULL_SPECTRUM_EVERY = 4
_SCALE_PAIRS = 20_000
_NEGLIGIBLE = 1e-4
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class LiveSettings:
    """What stays the same from epoch to epoch; names and meanings as in `hiddenscope.embeddings.streaming`.

    Attributes:
        max_slices: slices that landmarks and bandwidth are taken from at most; None lets the cost grow with the
            history.
    """

    n_components: int = 3
    intra_knn: int = 2
    inter_knn: int = 25
    decay: float = 5.0
    t: int | Literal["auto"] = "auto"
    gamma: float = 0.0
    n_landmark: int = 1000
    refine: bool = True
    max_slices: int | None = 1000
    seed: int = 0


@dataclass(frozen=True)
class LiveReport:
    """How the last step went.

    Attributes:
        bandwidth: used, and ``measured_bandwidth``, wanted by the nodes: their ratio is the drift of the kernel.
        time: diffusion time used, and ``measured_time``, wanted by the operator.
        stress: of the landmarks' MDS.
        moved: median move of the nodes shown before, in standard deviations of the picture, and ``moved_most``.
        lag: root mean square distance from the shown nodes to their targets, in standard deviations.
        renewed: landmarks exchanged or added.
        slices: that landmarks and bandwidth were taken from.
    """

    bandwidth: float
    measured_bandwidth: float
    time: int
    measured_time: int
    stress: float
    moved: float
    moved_most: float
    lag: float
    renewed: int
    slices: int


@dataclass(frozen=True)
class LivePicture:
    """A picture in motion.

    Attributes:
        settings: as given at the start.
        shown: shape (slice, unit, component): what to draw; NaN for excluded nodes.
        target: shape (slice, unit, component): where the nodes are heading.
        nodes: shape (slice, unit, feature): normalized responses.
        labels: shape (slice, unit): landmark of each node, -1 for excluded nodes.
        near: who is near whom.
        sample: shape (sampled slice,): the slices that landmarks and bandwidth are taken from.
        landmarks: of the sampled nodes.
        landmark_positions: shape (landmark, component).
        vectors: shape (landmark, vector): leading eigenvectors of the operator; none where all are needed.
        bandwidth: of the inter-step kernel.
        time: diffusion time.
        steps: how many times the picture was advanced.
        report: of the last step.
    """

    settings: LiveSettings
    shown: Float32Array
    target: Float32Array
    nodes: Float32Array
    labels: npt.NDArray[np.int32]
    near: Neighborhoods
    sample: npt.NDArray[np.int64]
    landmarks: Landmarks
    landmark_positions: Float32Array
    vectors: Float32Array
    bandwidth: float
    time: int
    steps: int
    report: LiveReport


def begin(
    nodes: FloatArray, settings: LiveSettings | None = None, *, solution: StreamingSolution | None = None
) -> LivePicture:
    """A first picture, by the full streaming solver.

    Args:
        nodes: normalized, shape (slice, unit, feature), at least 2 complete slices.
        settings: of this and every later step.
        solution: of these nodes, if they have been solved already.
    """
    chosen = settings or LiveSettings()
    known = np.asarray(nodes, np.float32)
    if solution is None:
        solution = embed_nodes(
            known,
            n_components=chosen.n_components,
            intra_knn=chosen.intra_knn,
            inter_knn=min(chosen.inter_knn, max(1, len(known) - 1)),
            decay=chosen.decay,
            t=chosen.t,
            gamma=chosen.gamma,
            n_landmark=chosen.n_landmark,
            refine=EPOCHS if chosen.refine else 0,
            seed=chosen.seed,
        )
    graph = solution.graph
    rows, landmarks, width, time = graph.rows, graph.landmarks, solution.bandwidth.value, solution.diffusion_time
    with one_blas_thread():
        near = neighborhoods(rows, *nearest_slices(rows, None if graph.on_nodes else landmarks, max(RANKS)))
    report = LiveReport(width, width, time, time, solution.placement.stress, 0.0, 0.0, 0.0, 0, len(known))
    return LivePicture(
        chosen, solution.positions, solution.positions, known, _labels(rows, landmarks.labels), near,
        _sample(len(known), len(known), chosen, 0), landmarks, solution.placement.positions,
        np.empty((len(landmarks.centers), 0), np.float32), width, time, 0, report,
    )  # fmt: skip


def advance(picture: LivePicture, nodes: FloatArray) -> LivePicture:
    """The picture after one more epoch, or a few; the old one stays as it was.

    Args:
        picture: so far.
        nodes: of the new slices, normalized, shape (slice, unit, feature).

    Raises:
        ValueError: another number of units or features than before.
    """
    fresh = np.asarray(nodes, np.float32)
    if fresh.shape[1:] != picture.nodes.shape[1:]:
        raise ValueError(
            f"new epochs must have {picture.nodes.shape[1]} units and {picture.nodes.shape[2]} samples as the picture "
            f"has, got {fresh.shape[1]} and {fresh.shape[2]}"
        )
    if not np.isfinite(fresh[..., 0]).any():
        return _with_nothing_new(picture, fresh)
    with one_blas_thread():
        return _advance(picture, fresh)


def _advance(picture: LivePicture, fresh: Float32Array) -> LivePicture:
    settings, steps = picture.settings, picture.steps + 1
    before, total = len(picture.nodes), len(picture.nodes) + len(fresh)
    nodes = np.concatenate([picture.nodes, fresh])
    candidates = np.concatenate([picture.sample, np.arange(before, total)])
    sample = candidates[_sample(len(candidates), len(fresh), settings, steps)]
    rows = unit_rows(nodes[sample])

    counts = np.diff(rows.offsets)
    knn = int(counts[counts > 1].min(initial=settings.inter_knn + 1)) - 1  # not above what the smallest unit has
    measured = inter_bandwidth(rows, knn=knn, sampled_rows=SAMPLED_ROWS, seed=settings.seed).value
    width = _limited(measured, picture.bandwidth, BANDWIDTH_RATE)
    intra = intra_kernel(rows, knn=settings.intra_knn, decay=settings.decay)

    labels = _padded_labels(picture.labels, len(fresh))
    here = rows.from_nodes(labels[sample][..., None])[:, 0]
    succession = renew_landmarks(
        rows, np.where(here[:, None] >= 0, picture.landmark_positions[here], np.float32(np.nan)), sample >= before,
        picture.landmarks, picture.landmark_positions, n_landmark=settings.n_landmark, renewal=RENEWAL,
    )  # fmt: skip
    graph = landmark_graph(rows, intra, succession.landmarks, bandwidth=width, sums="auto", most_pairs=EXACT_PAIRS)
    operator = landmark_operator(graph)
    decomposition = _spectrum(picture, operator.symmetric, succession, steps)
    full = len(decomposition.values) == len(operator.symmetric)
    wanted = picture.report.measured_time
    if settings.t == "auto" and full:
        wanted = diffusion_time(decomposition.values)
    time = _limited_steps(wanted, picture.time)
    distances = potential_distances(decomposition, operator.degrees, t=time, gamma=settings.gamma)
    landmark_positions, stress = _settle(distances, succession, seed=settings.seed + steps)

    labels = _follow(labels, succession)
    labels[sample] = _labels(rows, succession.landmarks.labels)
    target = _ride(picture, succession, landmark_positions, len(fresh))
    near = with_arrivals(picture.near, nodes)
    active = _active(total, len(fresh), rows.n_units, steps)
    moving = unit_rows(nodes[active])
    own = nearest_landmarks(moving, succession.landmarks)
    labels[active] = _labels(moving, own)
    if graph.on_nodes and len(moving.values) == len(landmark_positions):
        anchors = landmark_positions
    else:
        anchors = landmark_means(
            moving, succession.landmarks, own, landmark_positions,
            bandwidth=width, intra_knn=settings.intra_knn, decay=settings.decay,
        )  # fmt: skip
    target[active] = moving.to_nodes(_settle_nodes(picture, moving, active, near, anchors, target, steps))
    shown = _ease(picture, target, labels, before)

    report = _report(picture, shown, target, before)
    report = replace(
        report, bandwidth=width, measured_bandwidth=measured, time=time, measured_time=wanted, stress=stress,
        renewed=int(np.sum(succession.ancestors < 0)), slices=len(sample),
    )  # fmt: skip
    return LivePicture(
        settings, shown, target, nodes, labels, near, sample, succession.landmarks, landmark_positions,
        _leading(decomposition, time), width, time, steps, report,
    )  # fmt: skip


def _settle(distances: Float32Array, succession: Succession, *, seed: int) -> tuple[Float32Array, float]:
    """Landmark positions a few rounds of MDS from where they were, in the scale and posture of the former picture."""
    start = succession.positions
    old = np.flatnonzero(succession.ancestors >= 0)
    generator = np.random.default_rng(seed)
    one, other = old[generator.integers(0, len(old), (2, _SCALE_PAIRS))]
    drawn = np.linalg.norm(start[one] - start[other], axis=1).astype(np.float64)
    meant = distances[one, other].astype(np.float64)
    product = float(drawn @ meant)
    scale = float(drawn @ drawn) / product if product > 0 else 1.0
    anchor = np.where(succession.ancestors >= 0, MDS_ANCHOR, 0.0).astype(np.float32)
    found = metric_mds(distances * np.float32(scale), start, rounds=MDS_ROUNDS, anchor=anchor)
    return _turned_onto(found.positions, start, old), found.stress


def _turned_onto(positions: Float32Array, former: Float32Array, common: npt.NDArray[np.int64]) -> Float32Array:
    """Positions rotated, reflected and shifted, not scaled, so that the common ones come closest to the former."""
    center, goal = positions[common].mean(axis=0), former[common].mean(axis=0)
    left, _, right = np.linalg.svd((positions[common] - center).T @ (former[common] - goal))
    return np.asarray((positions - center) @ (left @ right) + goal, np.float32)


def _settle_nodes(
    picture: LivePicture,
    rows: UnitRows,
    active: npt.NDArray[np.int64],
    near: Neighborhoods,
    anchors: Float32Array,
    target: Float32Array,
    steps: int,
) -> Float32Array:
    """Targets of the active nodes after a few rounds among all others, which stay where they are."""
    if not picture.settings.refine or anchors.std() == 0:
        return anchors
    there = rows.from_nodes(target[active])
    start = np.where(np.isfinite(there), there, anchors)
    placed = target.copy()
    placed[active] = rows.to_nodes(start)
    edges, around = surroundings(near, rows, active, placed)
    least, most = REFINEMENT_ROUNDS
    rounds = int(np.clip(least * REFINED_NODES // len(anchors), least, most))
    return refine(
        rows, anchors, edges, slice_mates(rows),
        epochs=rounds, start=start, around=around, seed=picture.settings.seed + steps,
    )  # fmt: skip


def _active(total: int, fresh: int, n_units: int, steps: int) -> npt.NDArray[np.int64]:
    """Which slices are refined in this step: the new ones, and a share of the others that changes from step to step."""
    room = max(REFINED_NODES // n_units - fresh, fresh)
    if total - fresh <= room:
        return np.arange(total)
    turn = np.mod(np.arange(total - fresh) * np.sqrt(2) - steps * _GOLDEN, 1) < room / (total - fresh)
    return np.concatenate([np.flatnonzero(turn), np.arange(total - fresh, total)])


def _spectrum(picture: LivePicture, symmetric: Float32Array, succession: Succession, steps: int) -> Spectrum:
    """All of the spectrum every few steps, which the diffusion time needs; its leading part, followed, in between."""
    vectors = picture.vectors
    if vectors.shape[1] == 0 or steps % FULL_SPECTRUM_EVERY == 0 or len(symmetric) < 4 * vectors.shape[1]:
        return spectrum(symmetric)
    guess = np.zeros((len(symmetric), vectors.shape[1]), np.float32)
    alive = succession.ancestors >= 0
    guess[alive] = vectors[succession.ancestors[alive]]
    return leading_spectrum(symmetric, guess)


def _leading(decomposition: Spectrum, time: int) -> Float32Array:
    """Eigenvectors that still matter after the diffusion time, and some to spare."""
    matter = int(np.sum(np.abs(decomposition.values.astype(np.float64)) ** time > _NEGLIGIBLE))
    return decomposition.vectors[:, -min(len(decomposition.values), matter + matter // 8 + 8) :]


def _ease(picture: LivePicture, target: Float32Array, labels: npt.NDArray[np.int32], before: int) -> Float32Array:
    """Shown positions: old nodes part of the way to their targets, new ones beside the old ones of their landmark."""
    spread = float(np.nanstd(picture.shown))
    way = target[:before] - picture.shown
    length = np.linalg.norm(way, axis=2, keepdims=True)
    gap = float(np.sqrt(np.nanmean(length**2))) / max(spread, 1e-30)
    easing = float(np.clip(EAGERNESS * gap, *EASING))
    step = np.minimum(easing, LARGEST_MOVE * spread / np.maximum(length, 1e-30))
    shown = target.copy()
    shown[:before] = picture.shown + step * way
    lag = np.nan_to_num(shown[:before] - target[:before])
    present = labels[:before] >= 0
    count = np.bincount(labels[:before][present], minlength=labels.max() + 1)
    for component in range(target.shape[2]):
        total = np.bincount(labels[:before][present], lag[..., component][present], minlength=len(count))
        mean = total / np.maximum(count, 1)
        shown[before:, :, component] += mean[np.maximum(labels[before:], 0)].astype(np.float32)
    return shown


def _ride(picture: LivePicture, succession: Succession, landmark_positions: Float32Array, count: int) -> Float32Array:
    """Targets of all slices as if the landmarks around each node took it along."""
    moves = np.zeros_like(picture.landmark_positions)
    alive = succession.ancestors >= 0
    moves[succession.ancestors[alive]] = landmark_positions[alive] - succession.positions[alive]
    return _padded(picture.target + carried(picture.near, picture.labels, moves), count)


def _follow(labels: npt.NDArray[np.int32], succession: Succession) -> npt.NDArray[np.int32]:
    """Labels in the new numbering; nodes of a landmark that is gone go to the landmark that took it over."""
    return np.where(labels >= 0, succession.heirs[np.maximum(labels, 0)], -1).astype(np.int32)


def _report(picture: LivePicture, shown: Float32Array, target: Float32Array, before: int) -> LiveReport:
    spread = max(float(np.nanstd(shown)), 1e-30)
    moves = np.linalg.norm(shown[:before] - picture.shown, axis=2) / spread
    lag = float(np.sqrt(np.nanmean(np.sum((shown - target) ** 2, axis=2)))) / spread
    return replace(picture.report, moved=float(np.nanmedian(moves)), moved_most=float(np.nanmax(moves)), lag=lag)


def _sample(count: int, fresh: int, settings: LiveSettings, steps: int) -> npt.NDArray[np.int64]:
    """Which of the slices stay: the newest, and as many others, drawn at random, as there is room for."""
    limit = settings.max_slices
    if limit is None or count <= limit:
        return np.arange(count)
    generator = np.random.default_rng([settings.seed, steps])
    newest = min(fresh, limit) if steps else 0
    others = generator.choice(count - newest, limit - newest, replace=False)
    return np.concatenate([np.sort(others), np.arange(count - newest, count)])


def _limited(wanted: float, former: float, rate: float) -> float:
    return float(np.clip(wanted, former * (1 - rate), former * (1 + rate)))


def _limited_steps(wanted: int, former: int) -> int:
    room = max(1, round(former * TIME_RATE))
    return int(np.clip(wanted, former - room, former + room))


def _labels(rows: UnitRows, of_rows: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    labels = np.full(rows.index.shape, -1, np.int32)
    units = np.repeat(np.arange(rows.n_units), np.diff(rows.offsets))
    labels[rows.slices, units] = of_rows
    return labels


def _padded(positions: Float32Array, count: int) -> Float32Array:
    return np.concatenate([positions, np.full((count, *positions.shape[1:]), np.nan, np.float32)])


def _padded_labels(labels: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.int32]:
    return np.concatenate([labels, np.full((count, labels.shape[1]), -1, np.int32)])


def _with_nothing_new(picture: LivePicture, fresh: Float32Array) -> LivePicture:
    """The picture with slices more, none of which has a node: what is shown goes on toward its target."""
    target, labels = _padded(picture.target, len(fresh)), _padded_labels(picture.labels, len(fresh))
    shown = _ease(picture, target, labels, len(picture.shown))
    nodes = np.concatenate([picture.nodes, fresh])
    return replace(
        picture,
        shown=shown,
        target=target,
        nodes=nodes,
        labels=labels,
        near=with_arrivals(picture.near, nodes),
        steps=picture.steps + 1,
        report=replace(_report(picture, shown, target, len(picture.shown)), renewed=0),
    )
