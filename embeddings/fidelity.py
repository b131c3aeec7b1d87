"""How far a picture can be trusted: what it keeps of the neighborhoods and distances among the normalized nodes.

Every measure comes with the value that a shuffled picture gets, and with the standard error of sampling when only some
nodes were asked. They see different things: `neighborhood_preservation` the order nearby along each of the two ways in
which nodes are related, `trustworthiness` false neighbors among all nodes, `distance_rank_correlation` the layout at
large.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.stats import rankdata

from hiddenscope.embeddings.compiled import compiled
from hiddenscope.embeddings.geodesics import distances_between, neighbor_graph, shortest_paths
from hiddenscope.embeddings.kept_neighbors import Floats, draw, inter_shares, intra_shares
from hiddenscope.embeddings.nodes import normalize
from hiddenscope.embeddings.seeds import RandomState, draw_seed
from hiddenscope.embeddings.threads import ranges, run_blocks
from hiddenscope.embeddings.unit_rows import Float32Array, unit_rows
from hiddenscope.trace import as_embedding, as_trace

_JACKKNIFE_GROUPS = 10


@dataclass(frozen=True)
class NeighborhoodPreservation:
    """Share of each node's nearest neighbors in the data that are also among its nearest in the picture.

    Attributes:
        intra: among the units of the same slice; NaN where slices have fewer than 3 units.
        inter: among the slices of the same unit; NaN where there are fewer than 3.
        intra_k: neighbors counted for ``intra``.
        inter_k: neighbors counted for ``inter``.
        intra_chance: what a shuffled picture gets: k over the number of candidates.
        inter_chance: the same for ``inter``.
        intra_error: standard error from asking only some nodes; 0 when all were asked.
        inter_error: the same for ``inter``.
    """

    intra: float
    inter: float
    intra_k: int
    inter_k: int
    intra_chance: float
    inter_chance: float
    intra_error: float
    inter_error: float


@dataclass(frozen=True)
class Score:
    """One number about a picture; ``float(score)`` is its value.

    Attributes:
        value: of this picture.
        chance: of a shuffled picture.
        error: standard error from asking only some nodes; 0 when all were asked.
    """

    value: float
    chance: float
    error: float

    def __float__(self) -> float:
        return self.value


def neighborhood_preservation(
    trace: xr.DataArray | npt.ArrayLike,
    embedding: xr.DataArray | npt.ArrayLike,
    k: int = 10,
    *,
    intra_k: int | None = None,
    n_queries: int | None = 50_000,
    random_state: RandomState = 0,
) -> NeighborhoodPreservation:
    """How many nearest neighbors a picture keeps, within steps and across steps.

    With k above half the candidates the share is large whatever the picture (with 6 units and k = 5 it is always 1).
    k is then lowered to half the candidates, with a warning.

    Args:
        trace: hidden states, dims (epoch, step, unit, sample).
        embedding: a picture of the same nodes, dims (epoch, step, unit, component).
        k: neighbors to count.
        intra_k: neighbors to count within a slice, where that should be another number.
        n_queries: ask no more than about this many nodes, drawn at random; None asks all.
        random_state: of the draw.

    Raises:
        ValueError: picture and trace differ in their nodes, ``k`` or ``n_queries`` is below 1, or ``intra_k`` is given
            and above half the other units.
    Source: Xie et al. 2024, the neighborhood-preservation table; k within the slice is lowered by us.

    >>> trace = np.random.default_rng(0).normal(size=(5, 6, 7, 4))
    >>> shown = trace - trace.mean(axis=-1, keepdims=True)
    >>> shown = shown / shown.std(axis=-1, keepdims=True)  # the nodes themselves
    >>> kept = neighborhood_preservation(trace, shown, k=3)
    >>> kept.intra, kept.inter, kept.intra_chance
    (1.0, 1.0, 0.5)
    """
    _check_at_least_one(k=k, intra_k=intra_k, n_queries=n_queries)
    nodes, positions = _matched(trace, embedding)
    n_slices, n_units, _ = nodes.shape
    if intra_k is not None and intra_k > (n_units - 1) // 2:
        raise ValueError(
            f"intra_k must lie in 1..{(n_units - 1) // 2} for {n_units} units: with more than half the other units "
            f"counted, preservation is high whatever the picture; got {intra_k}"
        )
    rng = np.random.default_rng(draw_seed(random_state))
    inter_k = _meaningful(k, n_slices, "slices")
    inter = _sampled_mean(*inter_shares(nodes, positions, inter_k, n_queries, rng)) if inter_k else (math.nan, 0.0)
    within = _meaningful(k, n_units, "units") if intra_k is None else intra_k
    intra = _sampled_mean(*intra_shares(nodes, positions, within, n_queries, rng)) if within else (math.nan, 0.0)
    return NeighborhoodPreservation(
        intra=intra[0],
        inter=inter[0],
        intra_k=within,
        inter_k=inter_k,
        intra_chance=within / (n_units - 1) if within else math.nan,
        inter_chance=inter_k / (n_slices - 1) if inter_k else math.nan,
        intra_error=intra[1],
        inter_error=inter[1],
    )


def trustworthiness(
    trace: xr.DataArray | npt.ArrayLike,
    embedding: xr.DataArray | npt.ArrayLike,
    k: int = 10,
    *,
    n_queries: int | None = 1_000,
    random_state: RandomState = 0,
) -> Score:
    """How free a picture is of false neighbors, over all nodes at once: 1 when the k nearest in the picture always are
    so in the data, less the farther away the strangers among them truly are.

    Args:
        trace: hidden states, dims (epoch, step, unit, sample).
        embedding: a picture of the same nodes, dims (epoch, step, unit, component).
        k: neighbors in the picture that are judged; below half the nodes.
        n_queries: ask no more than this many nodes, drawn at random; None asks all, in time that grows as their square.
        random_state: of the draw.

    Raises:
        ValueError: picture and trace differ in their nodes, or ``k`` does not fit their number.
    Source: Venna and Kaski 2001; the same number as scikit-learn's ``trustworthiness`` of the normalized nodes.
    """
    _check_at_least_one(k=k, n_queries=n_queries)
    nodes, positions = _matched(trace, embedding)
    data, shown = _flat(nodes), _flat(positions)
    n = len(data)
    if 2 * k >= n:
        raise ValueError(f"k must be below half the {n} nodes, got {k}")
    rng = np.random.default_rng(draw_seed(random_state))
    chosen = draw(n, n_queries, rng)
    penalties = np.empty(len(chosen))

    def judge(block: tuple[int, int]) -> None:
        part = slice(*block)
        _rank_penalties(data, shown, chosen[part], k, penalties[part])

    run_blocks(judge, ranges(len(chosen), 64))
    scale = 2.0 / (k * (2.0 * n - 3.0 * k - 1.0))
    mean, error = _sampled_mean(1.0 - scale * penalties, n)
    # A random neighbor has a rank that is uniform on 1 .. n - 1.
    return Score(mean, chance=1.0 - scale * k * (n - 1 - k) * (n - k) / (2.0 * (n - 1)), error=error)


def distance_rank_correlation(
    trace: xr.DataArray | npt.ArrayLike,
    embedding: xr.DataArray | npt.ArrayLike,
    *,
    against: Literal["nodes", "geodesic"] = "nodes",
    n_pairs: int = 100_000,
    n_nodes: int = 50_000,
    intra_knn: int = 2,
    inter_knn: int = 25,
    random_state: RandomState = 0,
) -> Score:
    """Spearman's rank correlation of distances in the picture with distances in the data, over random pairs of nodes.

    Args:
        trace: hidden states, dims (epoch, step, unit, sample).
        embedding: a picture of the same nodes, dims (epoch, step, unit, component).
        against: ``"nodes"``: Euclidean distances between normalized nodes. ``"geodesic"``: shortest paths over the
            edges that carry the multislice kernel, from each node to its ``intra_knn`` nearest units in the slice and
            its ``inter_knn`` nearest slices of the unit, either way, each as long as the distance between its ends.
            Pairs that no path joins are left out.
        n_pairs: pairs to draw. For geodesics they share one start among every 2,000.
        n_nodes: with more nodes than this, geodesics run over slices drawn at random.
        intra_knn: see ``against``.
        inter_knn: see ``against``.
        random_state: of the draws.

    Raises:
        ValueError: picture and trace differ in their nodes, there are fewer than 3, or ``against`` is unknown.
    Source: ``"geodesic"`` after DEMaP, Moon et al. 2019, which takes the paths from noiseless data.
    """
    _check_at_least_one(n_pairs=n_pairs, n_nodes=n_nodes, intra_knn=intra_knn, inter_knn=inter_knn)
    if against not in ("nodes", "geodesic"):
        raise ValueError(f"against must be 'nodes' or 'geodesic', got {against!r}")
    nodes, positions = _matched(trace, embedding)
    rng = np.random.default_rng(draw_seed(random_state))
    if against == "geodesic" and nodes.shape[0] * nodes.shape[1] > n_nodes:
        kept = np.sort(rng.choice(len(nodes), max(3, n_nodes // nodes.shape[1]), replace=False))
        nodes, positions = nodes[kept], positions[kept]
    rows = unit_rows(nodes)
    if len(rows.values) < 3:
        raise ValueError(f"correlating distances needs at least 3 nodes without missing values, got {len(rows.values)}")
    shown = rows.from_nodes(positions)
    if against == "nodes":
        one, other = rng.integers(len(shown), size=(2, n_pairs))
        one, other = one[one != other], other[one != other]
        true = distances_between(rows.values, one, other)
    else:
        graph = neighbor_graph(rows, intra_knn=intra_knn, inter_knn=inter_knn)
        one, other, true = shortest_paths(graph, n_pairs, rng)
    shuffled = shown[rng.permutation(len(shown))]
    value, error = _rank_correlation(true, distances_between(shown, one, other))
    return Score(value, chance=_rank_correlation(true, distances_between(shuffled, one, other))[0], error=error)


def _check_at_least_one(**options: int | None) -> None:
    for name, value in options.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _matched(
    trace: xr.DataArray | npt.ArrayLike, embedding: xr.DataArray | npt.ArrayLike
) -> tuple[Float32Array, Float32Array]:
    """Normalized nodes (slice, unit, feature) and their positions (slice, unit, component), NaN where either is."""
    data, shown = as_trace(trace), as_embedding(embedding)
    for dim in ("epoch", "step", "unit"):
        if data.sizes[dim] != shown.sizes[dim]:
            raise ValueError(f"the trace has {data.sizes[dim]} {dim}s, the embedding {shown.sizes[dim]}; {_ADVICE}")
        named = isinstance(trace, xr.DataArray) and isinstance(embedding, xr.DataArray)
        if named and not np.array_equal(data[dim].values, shown[dim].values):
            raise ValueError(f"trace and embedding are of different {dim}s; {_ADVICE}")
    nodes = cast(Float32Array, normalize(data, dtype=np.float32))
    points = shown.values.reshape(*nodes.shape[:2], -1).astype(np.float64)
    known = np.isfinite(points).all(axis=-1) & np.isfinite(nodes[..., 0])
    if known.any():
        points -= points[known].mean(axis=0)  # float32 is for differences, not for a far origin
    points[~known] = np.nan
    return np.where(known[..., None], nodes, np.float32(np.nan)), points.astype(np.float32)


_ADVICE = "select the nodes that were embedded, as in trace.sel(epoch=embedding.epoch, step=embedding.step)"


def _meaningful(k: int, candidates: int, what: str) -> int:
    """k, or half the other candidates with a warning, where k is more than that."""
    half = (candidates - 1) // 2
    if k > half:
        how = f"measured with k = {half}" if half else "not measured"
        warnings.warn(
            f"k = {k} neighbors of {candidates} {what} would mostly be kept by any picture; {how}", stacklevel=3
        )
    return min(k, half)


def _sampled_mean(values: Floats, population: int) -> tuple[float, float]:
    """Mean, and its standard error as a sample without replacement from a finite population."""
    n = len(values)
    if n == 0:
        return math.nan, 0.0
    if n == population:
        return float(values.mean()), 0.0
    return float(values.mean()), float(values.std(ddof=1) * math.sqrt((1 - n / population) / n)) if n > 1 else math.inf


def _flat(nodes: Float32Array) -> Float32Array:
    """Present nodes as rows."""
    rows = nodes.reshape(-1, nodes.shape[-1])
    return np.ascontiguousarray(rows[np.isfinite(rows[:, 0])])


@compiled
def _rank_penalties(data, shown, chosen, k, penalties):  # type: ignore[no-untyped-def]
    """Per chosen node, the sum over its k nearest in the picture of how far their rank in the data exceeds k."""
    n = len(data)
    distances, found, true = np.empty(k, np.float32), np.empty(k, np.int64), np.empty(k, np.float32)
    order = np.empty(n, np.float32)
    for place in range(len(chosen)):
        i = chosen[place]
        for a in range(k):
            distances[a] = np.float32(3.0e38)
        for j in range(n):
            squared = np.float32(0.0)
            for c in range(data.shape[1]):
                difference = data[i, c] - data[j, c]
                squared += difference * difference
            order[j] = squared
            if j == i:
                continue
            squared = np.float32(0.0)
            for c in range(shown.shape[1]):
                difference = shown[i, c] - shown[j, c]
                squared += difference * difference
            if squared < distances[k - 1]:
                a = k - 1
                while a > 0 and distances[a - 1] > squared:
                    distances[a], found[a] = distances[a - 1], found[a - 1]
                    a -= 1
                distances[a], found[a] = squared, j
        for a in range(k):
            true[a] = order[found[a]]
        total = 0.0
        for a in range(k):
            nearer = 0  # nodes other than i itself that are nearer in the data, so that the rank is one more
            for j in range(n):
                nearer += order[j] < true[a]
            if order[i] < true[a]:
                nearer -= 1
            total += max(0, nearer + 1 - k)
        penalties[place] = total


def _rank_correlation(one: Floats, other: Floats) -> tuple[float, float]:
    """Spearman's correlation, and its standard error by a jackknife over consecutive groups of pairs."""
    value = _spearman(one, other)
    groups = np.array_split(np.arange(len(one)), min(_JACKKNIFE_GROUPS, len(one)))
    without = np.array([_spearman(np.delete(one, group), np.delete(other, group)) for group in groups])
    spread = ((without - without.mean()) ** 2).sum() * (len(groups) - 1) / len(groups)
    return value, float(np.sqrt(spread))


def _spearman(one: Floats, other: Floats) -> float:
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])
