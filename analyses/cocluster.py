"""Words and units that belong together: co-clusters of the bipartite graph of expected responses, as in RNNVis.

RNNVis (Ming et al. 2017) joins words and units by spectral co-clustering (Dhillon 2001) and draws one signed edge
between each word cluster and each unit cluster. Two choices here are ours. Absolute responses are clustered and signs
kept for the color, because scikit-learn shifts a matrix with negative entries, which loses planted blocks. And labels
are carried from epoch to epoch, so that a cluster keeps its name and its color while the network learns.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.optimize import linear_sum_assignment

from hiddenscope.analyses.expected_response import SILENT, TOP_WORDS, events_of, run_responses
from hiddenscope.analyses.studies import Study
from hiddenscope.description import INPUTS
from hiddenscope.run import Run

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]

UNASSIGNED = -1
"""The label of words and units that answer to nothing."""
MOST_CLUSTERS = 20
DEFAULT_CLUSTERS = 10
FILTER = (0.2, 1.0)
"""Edges weaker than the first, or stronger than the second share of the strongest are hidden."""
MOST_EPOCHS = 48
"""Epochs that the study looks at; of longer runs every second, fourth … epoch, and the newest."""


@dataclass(frozen=True)
class CoClusters:
    """One label for each word and each unit; those with the same label belong together.

    Attributes:
        words: labels 0, 1, …, or `UNASSIGNED`, shape (word,).
        units: the same, shape (unit,).
    """

    words: Ints
    units: Ints

    @property
    def labels(self) -> Ints:
        """The labels in use, growing."""
        used = np.union1d(self.words, self.units)
        return np.asarray(used[used != UNASSIGNED], dtype=np.int64)


def co_cluster(responses: npt.ArrayLike, *, n_clusters: int | None = None, seed: int = 0) -> CoClusters:
    """Cluster words and units together by the size of the responses between them.

    Args:
        responses: signed expected responses, shape (word, unit), finite.
        n_clusters: how many; never more than there are words or units that answer. None chooses, see `choose_count`.
        seed: of k-means and of the singular vectors.

    Raises:
        ValueError: another shape, values that are not finite, or fewer than 1 cluster.

    >>> found = co_cluster([[1.0, 0.9, 0, 0], [0, 0, -1.0, 0.8], [0.8, 1.0, 0, 0]], n_clusters=2)
    >>> bool(found.words[0] == found.words[2] != found.words[1])
    True
    """
    values = np.asarray(responses, dtype=np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"responses need finite values of shape (word, unit), got shape {values.shape}")
    if n_clusters is not None and n_clusters < 1:
        raise ValueError(f"n_clusters must be at least 1, got {n_clusters}")
    weights = np.abs(values)
    rows, columns = _answering(weights)
    words = np.full(values.shape[0], UNASSIGNED, dtype=np.int64)
    units = np.full(values.shape[1], UNASSIGNED, dtype=np.int64)
    if not rows.any():
        return CoClusters(words, units)
    graph = weights[np.ix_(rows, columns)]
    wanted = choose_count(graph) if n_clusters is None else n_clusters
    of_words, of_units = _partition(graph, min(wanted, *graph.shape), seed)
    words[rows], units[columns] = of_words, of_units
    return _compact(CoClusters(words, units))


def choose_count(weights: npt.ArrayLike, *, most: int = MOST_CLUSTERS) -> int:
    """How many co-clusters a bipartite graph has: where the singular values of its normalized matrix drop the most.

    k separate blocks give k singular values of 1 and smaller ones after them. Ours; in RNNVis the reader chooses.

    >>> choose_count(np.kron(np.eye(3), np.ones((4, 5))))
    3
    """
    values = np.abs(np.asarray(weights, dtype=np.float64))
    rows, columns = _answering(values)
    graph = values[np.ix_(rows, columns)]
    if min(graph.shape) < 3:
        return max(1, int(min(graph.shape)))
    normalized = graph / np.sqrt(np.outer(graph.sum(axis=1), graph.sum(axis=0)))
    singular = np.linalg.svd(normalized, compute_uv=False)
    last = min(most, len(singular) - 1)
    drops = singular[1:last] - singular[2 : last + 1]  # after 2 clusters, after 3, …
    return 2 + int(np.argmax(drops))


def carry_labels(previous: CoClusters, found: CoClusters) -> CoClusters:
    """The same clusters under the labels of an earlier epoch: each takes that of the cluster it shares most with.

    One to one, by the largest total overlap (the Hungarian method), words and units weighing the same in all; clusters
    that share nothing take labels that were not in use.

    >>> before = CoClusters(np.array([0, 0, 1]), np.array([1, 0]))
    >>> carry_labels(before, CoClusters(np.array([1, 1, 0]), np.array([0, 1]))).words.tolist()
    [0, 0, 1]
    """
    old, new = previous.labels, found.labels
    overlap = np.zeros((len(new), len(old)))
    for before, now in ((previous.words, found.words), (previous.units, found.units)):
        shared = (now[np.newaxis] == new[:, np.newaxis]).astype(float) @ (before[:, np.newaxis] == old).astype(float)
        overlap += shared / max(len(now), 1)
    renamed: dict[int, int] = {UNASSIGNED: UNASSIGNED}
    for row, column in zip(*linear_sum_assignment(-overlap), strict=True):
        if overlap[row, column] > 0:
            renamed[int(new[row])] = int(old[column])
    unused = iter(np.setdiff1d(np.arange(len(old) + len(new)), old).tolist())
    for label in new.tolist():
        if label not in renamed:
            renamed[label] = next(unused)
    return CoClusters(_renamed(found.words, renamed), _renamed(found.units, renamed))


def agreement(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Adjusted Rand index of two labelings over what both assign; NaN where both assign fewer than two.

    >>> agreement([0, 0, 1, 1], [1, 1, 0, 0])
    1.0
    """
    from sklearn.metrics import adjusted_rand_score

    before, now = np.asarray(first), np.asarray(second)
    both = (before != UNASSIGNED) & (now != UNASSIGNED)
    return float(adjusted_rand_score(before[both], now[both])) if both.sum() > 1 else float("nan")


def edges(responses: npt.ArrayLike, found: CoClusters) -> xr.DataArray:
    """The signed mean response in each block, dims (word_cluster, unit_cluster); 0 for a block without words or units.

    Source: RNNVis; the sum over the block by the number of its words times the number of its units.

    >>> edges([[1.0, 3.0], [-1.0, 1.0]], CoClusters(np.array([0, 0]), np.array([0, 1]))).values.tolist()
    [[0.0, 2.0], [0.0, 0.0]]
    """
    values = np.asarray(responses, dtype=np.float64)
    labels = found.labels
    in_words = (found.words[np.newaxis] == labels[:, np.newaxis]).astype(float)
    in_units = (found.units[:, np.newaxis] == labels).astype(float)
    sizes = np.outer(in_words.sum(axis=1), in_units.sum(axis=0))
    sums = in_words @ values @ in_units
    return xr.DataArray(
        np.divide(sums, sizes, out=np.zeros_like(sums), where=sizes > 0),
        dims=("word_cluster", "unit_cluster"),
        coords={"word_cluster": labels, "unit_cluster": labels},
        name="edge",
    )


def shown(strengths: npt.ArrayLike, *, low: float = FILTER[0], high: float = FILTER[1]) -> npt.NDArray[np.bool_]:
    """Which edges are drawn: neither below ``low`` nor above ``high`` of the strongest, in absolute value; 0 never.

    >>> shown([1.0, -0.2, 0.19]).tolist()
    [True, True, False]
    """
    if not 0 <= low <= high:
        raise ValueError(f"a filter needs 0 <= low <= high, got {low} and {high}")
    sizes = np.abs(np.asarray(strengths, dtype=np.float64))
    strongest = float(sizes.max(initial=0.0))
    slack = 1e-9 * strongest
    visible: npt.NDArray[np.bool_] = (
        (sizes > 0) & (sizes >= low * strongest - slack) & (sizes <= high * strongest + slack)
    )
    return visible


def word_links(responses: npt.ArrayLike, found: CoClusters) -> xr.DataArray:
    """The mean response of each unit cluster to each single word, dims (word, unit_cluster)."""
    values = np.asarray(responses, dtype=np.float64)
    labels = found.labels
    in_units = (found.units[:, np.newaxis] == labels).astype(float)
    means = values @ in_units / np.maximum(in_units.sum(axis=0), 1)
    return xr.DataArray(means, dims=("word", "unit_cluster"), coords={"unit_cluster": labels}, name="link")


def study_count(n_words: int, n_units: int) -> int:
    """The number of clusters that is kept through a run: the root of the smaller side, 2 to `DEFAULT_CLUSTERS`. Ours.

    >>> study_count(300, 64), study_count(6, 8)
    (8, 2)
    """
    return min(DEFAULT_CLUSTERS, max(2, round(math.sqrt(min(n_words, n_units)))))


def study_co_clusters(run: Run, layer: str) -> xr.Dataset | None:
    """Co-clusters of a layer over the epochs of a run, under labels that stay, and how much they change.

    Their number, `study_count`, is the same at all epochs. Of long runs some epochs are looked at (see `MOST_EPOCHS`).
    What an earlier result holds for an epoch that has not changed is taken from there, so that a training pays for its
    new epochs only, and gets what a fresh start would give.

    Returns:
        ``word_cluster`` (epoch, word) and ``unit_cluster`` (epoch, unit): labels, -1 for none; ``agreement_words`` and
        ``agreement_units`` (epoch): adjusted Rand index with the epoch before, NaN for the first; ``response_size``
        (epoch): mean absolute response; ``silent_units`` (epoch): share of units that answer to nothing. None where
        there are no events.
    """
    epochs = run.epochs[_studied(len(run.epochs))]
    events = None if run.description.layer(layer).kind == INPUTS else events_of(run, layer)
    if events is None:
        return None
    known = _known(run, layer)
    rows: list[dict[str, Any]] = []
    words: xr.Dataset | None = None
    for epoch in epochs.tolist():
        if epoch in known:
            rows.append(known[epoch])
            continue
        responses = run_responses(run, layer, epoch=epoch, events=events, reservoir=0)
        if responses is None:
            rows.append({"epoch": epoch})  # the network diverged there
            continue
        words = responses
        rows.append(_row(responses))
    if all("word" not in row for row in rows):
        return None
    return _assembled(rows, words, run, layer)


COCLUSTER = Study(
    method="cocluster",
    title="co-clusters of units and the events they answer to",
    compute=study_co_clusters,
    parameters={"most_clusters": DEFAULT_CLUSTERS, "top_words": TOP_WORDS, "most_epochs": MOST_EPOCHS, "seed": 0},
    live=True,
)


def _row(responses: xr.Dataset) -> dict[str, Any]:
    values = responses["response"].values
    found = co_cluster(values, n_clusters=study_count(*values.shape))
    sizes = np.abs(values)
    return {
        "epoch": float(responses.attrs["epoch"]),
        "word": responses["word"].values,
        "found": found,
        "size": float(sizes.mean()),
        "silent": float((sizes.max(axis=0) <= SILENT).mean()),
    }


def _assembled(rows: list[dict[str, Any]], words: xr.Dataset | None, run: Run, layer: str) -> xr.Dataset | None:
    """One dataset of all rows. Words are those of the newest epoch: the probe does not change."""
    units = run.description.layer(layer).units
    last = next(row for row in reversed(rows) if "word" in row)
    codes = last["word"]
    shape = len(rows)
    of_words = np.full((shape, len(codes)), UNASSIGNED, dtype=np.int64)
    of_units = np.full((shape, len(units)), UNASSIGNED, dtype=np.int64)
    raw_words, raw_units = of_words.copy(), of_units.copy()
    numbers = {name: np.full(shape, np.nan) for name in ("agreement_words", "agreement_units", "size", "silent")}
    before: CoClusters | None = None
    for i, row in enumerate(rows):
        if "word" not in row or not np.array_equal(row["word"], codes):
            continue
        raw = row["found"]
        found = raw if before is None else carry_labels(before, raw)
        raw_words[i], raw_units[i] = raw.words, raw.units
        of_words[i], of_units[i] = found.words, found.units
        numbers["size"][i], numbers["silent"][i] = row["size"], row["silent"]
        if before is not None:
            numbers["agreement_words"][i] = agreement(before.words, found.words)
            numbers["agreement_units"][i] = agreement(before.units, found.units)
        before = found
    if words is None:
        words = run_responses(run, layer, epoch=last["epoch"], reservoir=0)
        assert words is not None
    return xr.Dataset(
        {
            "word_cluster": (("epoch", "word"), of_words),
            "unit_cluster": (("epoch", "unit"), of_units),
            "raw_word_cluster": (("epoch", "word"), raw_words),
            "raw_unit_cluster": (("epoch", "unit"), raw_units),
            "agreement_words": (("epoch",), numbers["agreement_words"]),
            "agreement_units": (("epoch",), numbers["agreement_units"]),
            "response_size": (("epoch",), numbers["size"]),
            "silent_units": (("epoch",), numbers["silent"]),
            "count": (("word",), words["count"].values),
        },
        coords={
            "epoch": [row["epoch"] for row in rows],
            "word": codes,
            "unit": units,
            "name": ("word", words["name"].values),
        },
        attrs={
            "kind": str(words.attrs["kind"]),
            "unit_columns": {"unit_cluster": "co-cluster"},
        },
    )


def _known(run: Run, layer: str) -> dict[float, dict[str, Any]]:
    """The rows of an earlier result whose epochs are still those of the run."""
    stored = run.results.get(layer, COCLUSTER.method, COCLUSTER.parameters)
    if stored is None or not stored.sizes.get("epoch"):
        return {}
    count = int(np.searchsorted(run.epochs, stored.attrs.get("covers_epoch", -np.inf), side="right"))
    if count < 1 or stored.attrs.get("made_from") != run.fingerprint(layer, count=count):
        return {}
    rows: dict[float, dict[str, Any]] = {}
    for i, epoch in enumerate(stored["epoch"].values.tolist()):
        if np.isfinite(stored["response_size"].values[i]):
            rows[epoch] = {
                "epoch": epoch,
                "word": stored["word"].values,
                "found": CoClusters(stored["raw_word_cluster"].values[i], stored["raw_unit_cluster"].values[i]),
                "size": float(stored["response_size"].values[i]),
                "silent": float(stored["silent_units"].values[i]),
            }
    return rows


def _studied(count: int) -> Ints:
    """Positions of the epochs that are looked at; as a run grows none comes in between two that were."""
    stride = 1
    while -(-count // stride) > MOST_EPOCHS:
        stride *= 2
    chosen = np.arange(0, count, stride)
    return np.union1d(chosen, [count - 1]).astype(np.int64) if count else chosen


def _answering(weights: Floats) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Words and units with any weight; one that only has weights below `SILENT` has none."""
    large = weights > SILENT
    return np.asarray(large.any(axis=1)), np.asarray(large.any(axis=0))


def _partition(graph: Floats, count: int, seed: int) -> tuple[Ints, Ints]:
    if count < 2:
        return np.zeros(graph.shape[0], dtype=np.int64), np.zeros(graph.shape[1], dtype=np.int64)
    from sklearn.cluster import SpectralCoclustering
    from sklearn.exceptions import ConvergenceWarning

    model = SpectralCoclustering(n_clusters=count, random_state=seed, n_init=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer clusters than asked for are what there is
        model.fit(graph)
    return np.asarray(model.row_labels_, dtype=np.int64), np.asarray(model.column_labels_, dtype=np.int64)


def _compact(found: CoClusters) -> CoClusters:
    """Labels 0, 1, … by falling number of units, then of words: the largest memory chip comes first."""
    sizes = [(-(found.units == label).sum(), -(found.words == label).sum(), label) for label in found.labels]
    renamed = {int(label): rank for rank, (_, _, label) in enumerate(sorted(sizes))}
    renamed[UNASSIGNED] = UNASSIGNED
    return CoClusters(_renamed(found.words, renamed), _renamed(found.units, renamed))


def _renamed(labels: Ints, names: dict[int, int]) -> Ints:
    return np.array([names[int(label)] for label in labels], dtype=np.int64).reshape(labels.shape)
