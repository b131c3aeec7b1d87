"""The live step: a picture that follows a training, at a cost per epoch that does not grow with its history.

Each new epoch is taken in by one `advance`: bandwidth and diffusion time follow the training at a limited rate, a few
landmarks per unit are exchanged for nodes of the new epoch, the landmarks settle by a few rounds of MDS from where they
were, and the nodes by a few rounds of refinement. Two pictures are kept: the *target*, which is what the data say now,
and the *shown* one, which eases toward it, so that nothing jumps. Beyond `LiveSettings.max_slices` the history is
sampled: slices that leave the computation keep their place beside their landmark and ride along with it.

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
from hiddenscope.embeddings.neighbors import nearest_slices
from hiddenscope.embeddings.placing import nearest_landmarks, place, placer_of
from hiddenscope.embeddings.refinement import EPOCHS, RANKS, edges_to, refine, slice_mates
from hiddenscope.embeddings.streaming import StreamingSolution, embed_nodes
from hiddenscope.embeddings.succession import Succession, renew_landmarks
from hiddenscope.embeddings.threads import one_blas_thread
from hiddenscope.embeddings.transitions import interpolate, landmark_graph, landmark_operator
from hiddenscope.embeddings.unit_rows import Float32Array, UnitRows, unit_rows
from hiddenscope.trace import FloatArray

BANDWIDTH_RATE = 0.10
"""Largest relative change of the bandwidth from one epoch to the next."""
TIME_RATE = 0.12
"""Largest relative change of the diffusion time, but one step at least is always allowed."""
RENEWAL = 0.02
"""Share of each unit's landmarks that may be exchanged in an epoch."""
MDS_ROUNDS = 30
MDS_ANCHOR = 0.1
REFINEMENT_ROUNDS = 16
EASING = 0.5
LARGEST_MOVE = 0.25
"""Largest move of a shown node in one epoch, in standard deviations of the picture."""
EXACT_PAIRS = 30_000_000
FULL_SPECTRUM_EVERY = 4
_SCALE_PAIRS = 20_000
_SLACK = 1.1  # neighbors may have left the computation
_NEGLIGIBLE = 1e-4
_FAR = 1e18


@dataclass(frozen=True)
class LiveSettings:
    """What stays the same from epoch to epoch; names and meanings as in `hiddenscope.embeddings.streaming`.

    Attributes:
        max_slices: slices that take part in the computation at most; None lets the cost grow with the history.
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
        slices: that took part.
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
        plain: shape (slice, unit, component): the target before refinement.
        labels: shape (slice, unit): landmark of each node, -1 for excluded nodes.
        reach: shape (slice, unit): how far a node's attracting neighbors were, where to look for them again.
        vectors: shape (landmark, vector): leading eigenvectors of the operator; none where all are needed.
        nodes: shape (kept slice, unit, feature): normalized responses of the slices that take part.
        kept: shape (kept slice,): which slices those are.
        landmarks: of the nodes that take part.
        landmark_positions: shape (landmark, component).
        bandwidth: of the inter-step kernel.
        time: diffusion time.
        steps: how many times the picture was advanced.
        report: of the last step.
    """

    settings: LiveSettings
    shown: Float32Array
    target: Float32Array
    plain: Float32Array
    labels: npt.NDArray[np.int32]
    reach: Float32Array
    vectors: Float32Array
    nodes: Float32Array
    kept: npt.NDArray[np.int64]
    landmarks: Landmarks
    landmark_positions: Float32Array
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
        solution: of these nodes, if they have been solved already; it is taken where all slices take part.
    """
    chosen = settings or LiveSettings()
    kept = _sample(len(nodes), len(nodes), chosen, 0)
    known = np.asarray(nodes[kept], np.float32)
    if solution is None or len(kept) < len(nodes):
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
    width, time = solution.bandwidth.value, solution.diffusion_time
    report = LiveReport(width, width, time, time, solution.placement.stress, 0.0, 0.0, 0.0, 0, len(kept))
    picture = LivePicture(
        chosen, solution.positions, solution.positions, graph.rows.to_nodes(solution.plain),
        _labels(graph.rows, graph.landmarks), np.full(graph.rows.index.shape, _FAR, np.float32),
        np.empty((len(graph.landmarks.centers), 0), np.float32), known, np.arange(len(kept)), graph.landmarks,
        solution.placement.positions, width, time, 0, report,
    )  # fmt: skip
    if len(kept) == len(nodes):
        return picture
    return _with_all_slices(picture, np.asarray(nodes, np.float32), kept)


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
        return _with_nothing_new(picture, len(fresh))
    with one_blas_thread():
        return _advance(picture, fresh)


def _advance(picture: LivePicture, fresh: Float32Array) -> LivePicture:
    settings, steps = picture.settings, picture.steps + 1
    before = len(picture.shown)
    kept = np.concatenate([picture.kept, np.arange(before, before + len(fresh))])
    staying = _sample(len(kept), len(fresh), settings, steps)
    known, kept = np.concatenate([picture.nodes, fresh])[staying], kept[staying]
    rows = unit_rows(known)

    counts = np.diff(rows.offsets)
    knn = int(counts[counts > 1].min(initial=settings.inter_knn + 1)) - 1  # not above what the smallest unit has
    measured = inter_bandwidth(rows, knn=knn, sampled_rows=SAMPLED_ROWS, seed=settings.seed).value
    width = _limited(measured, picture.bandwidth, BANDWIDTH_RATE)
    intra = intra_kernel(rows, knn=settings.intra_knn, decay=settings.decay)

    former = _padded(picture.plain, len(fresh))[kept]
    succession = renew_landmarks(
        rows, rows.from_nodes(former), kept >= before, picture.landmarks, picture.landmark_positions,
        n_landmark=settings.n_landmark, renewal=RENEWAL,
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

    plain_rows = interpolate(graph, landmark_positions)
    reach = _unknown_reach(picture.reach, len(fresh))
    target_rows, reach[kept] = _settle_nodes(picture, rows, kept, before, reach[kept], plain_rows, steps)
    labels = _padded_labels(picture.labels, len(fresh))
    riding = _ride(picture, succession, landmark_positions, len(fresh))
    target, plain = riding.copy(), _padded(picture.plain, len(fresh))
    target[kept], plain[kept] = rows.to_nodes(target_rows), rows.to_nodes(plain_rows)
    labels = _follow(labels, succession)
    labels[kept] = _labels(rows, succession.landmarks)
    shown = _ease(picture, target, labels, before)

    report = _report(picture, shown, target, before)
    report = replace(
        report, bandwidth=width, measured_bandwidth=measured, time=time, measured_time=wanted, stress=stress,
        renewed=int(np.sum(succession.ancestors < 0)), slices=len(kept),
    )  # fmt: skip
    return LivePicture(
        settings, shown, target, plain, labels, reach, _leading(decomposition, time), known, kept,
        succession.landmarks, landmark_positions, width, time, steps, report,
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
    kept: npt.NDArray[np.int64],
    before: int,
    reach: Float32Array,
    plain: Float32Array,
    steps: int,
) -> tuple[Float32Array, Float32Array]:
    """Targets of the nodes that take part: their former shift from the mean of the landmarks, then a few rounds.

    Returned with the reach of every node, shape (slice, unit), by which the next step finds its neighbors faster.
    """
    if not picture.settings.refine or plain.std() == 0:
        return plain, reach
    old = kept < before
    shifts = np.zeros((len(kept), *picture.target.shape[1:]), np.float32)
    shifts[old] = picture.target[kept[old]] - picture.plain[kept[old]]
    start = plain + np.nan_to_num(rows.from_nodes(shifts))
    within = rows.from_nodes(reach[..., None] * np.float32(_SLACK))[:, 0]
    found, distances = nearest_slices(rows, None, max(RANKS), within=within)
    settled = refine(
        rows, plain, edges_to(found), slice_mates(rows),
        epochs=REFINEMENT_ROUNDS, start=start, seed=picture.settings.seed + steps,
    )  # fmt: skip
    return settled, rows.to_nodes(distances.max(axis=1)[:, None])[..., 0]


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
    step = np.minimum(EASING, LARGEST_MOVE * spread / np.maximum(length, 1e-30))
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
    """Targets of all slices as if each node kept its place beside its landmark."""
    moves = np.zeros_like(picture.landmark_positions)
    alive = succession.ancestors >= 0
    moves[succession.ancestors[alive]] = landmark_positions[alive] - succession.positions[alive]
    riding = _padded(picture.target, count)
    riding[: len(picture.target)] += np.where(
        picture.labels[..., None] >= 0, moves[np.maximum(picture.labels, 0)], np.float32(0)
    )
    return riding


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


def _labels(rows: UnitRows, landmarks: Landmarks) -> npt.NDArray[np.int32]:
    labels = np.full(rows.index.shape, -1, np.int32)
    units = np.repeat(np.arange(rows.n_units), np.diff(rows.offsets))
    labels[rows.slices, units] = landmarks.labels
    return labels


def _padded(positions: Float32Array, count: int) -> Float32Array:
    return np.concatenate([positions, np.full((count, *positions.shape[1:]), np.nan, np.float32)])


def _padded_labels(labels: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.int32]:
    return np.concatenate([labels, np.full((count, labels.shape[1]), -1, np.int32)])


def _with_nothing_new(picture: LivePicture, count: int) -> LivePicture:
    """The picture with ``count`` slices more, none of which has a node: what is shown goes on toward its target."""
    target, labels = _padded(picture.target, count), _padded_labels(picture.labels, count)
    shown = _ease(picture, target, labels, len(picture.shown))
    return replace(
        picture,
        shown=shown,
        target=target,
        plain=_padded(picture.plain, count),
        labels=labels,
        reach=_unknown_reach(picture.reach, count),
        steps=picture.steps + 1,
        report=replace(_report(picture, shown, target, len(picture.shown)), renewed=0),
    )


def _unknown_reach(reach: Float32Array, count: int) -> Float32Array:
    return np.concatenate([reach, np.full((count, reach.shape[1]), _FAR, np.float32)])


def _with_all_slices(picture: LivePicture, nodes: Float32Array, kept: npt.NDArray[np.int64]) -> LivePicture:
    """A first picture of a sample of the slices, with the others placed in it."""
    settings, rows = picture.settings, unit_rows(picture.nodes)
    guide = placer_of(
        rows, picture.landmarks, picture.landmark_positions, rows.from_nodes(picture.shown),
        bandwidth=picture.bandwidth, intra_knn=settings.intra_knn, decay=settings.decay,
    )  # fmt: skip
    shown = place(guide, nodes)
    shown[kept] = picture.shown
    plain = place(replace(guide, shifts=np.zeros_like(guide.shifts)), nodes)
    plain[kept] = picture.plain
    labels = np.full(nodes.shape[:2], -1, np.int32)
    everyone = unit_rows(nodes)
    units = np.repeat(np.arange(everyone.n_units), np.diff(everyone.offsets))
    labels[everyone.slices, units] = nearest_landmarks(everyone, picture.landmarks)
    reach = _unknown_reach(picture.reach[:0], len(nodes))
    return replace(picture, shown=shown, target=shown, plain=plain, labels=labels, reach=reach, kept=kept)
