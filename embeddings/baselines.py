"""Other methods' pictures of the same nodes, to compare MM-PHATE with.

Each method gets the same matrix, the normalized nodes that MM-PHATE's kernel is built from, one row per (epoch, step,
unit). It knows nothing of epochs, steps and units; what it shows of them, it found.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.embeddings.nodes import normalize, unfold
from hiddenscope.embeddings.seeds import RandomState, draw_seed
from hiddenscope.errors import MissingExtraError
from hiddenscope.trace import FloatArray, as_trace, like

Method = Literal["pca", "tsne", "umap", "isomap", "lle", "phate", "mphate", "mmphate"]
Points = npt.NDArray[np.float32]
Placement = Callable[[Points], npt.NDArray[Any]]
Options = Mapping[str, Any]

MOST_NODES: Mapping[str, int] = MappingProxyType({"isomap": 3_000, "lle": 5_000, "tsne": 20_000, "umap": 100_000})
"""Nodes that a method is fitted on by default; with more, the others are placed by the method's own ``transform``."""


def embed(
    trace: xr.DataArray | npt.ArrayLike,
    *,
    method: Method = "mmphate",
    n_components: int = 3,
    random_state: RandomState = None,
    normalized: bool = True,
    max_nodes: int | None = None,
    options: Options = MappingProxyType({}),
) -> xr.DataArray | FloatArray:
    """A picture of the nodes by any of several methods.

    - ``"mmphate"``: `hiddenscope.MMPHATE`.
    - ``"pca"``, ``"isomap"`` and ``"lle"`` (scikit-learn), ``"tsne"`` (openTSNE), ``"umap"`` (umap-learn), ``"phate"``
      (phate): the method on the matrix of nodes, with its authors' defaults.
    - ``"mphate"``: M-PHATE, which knows epochs and units but no steps: the responses of a unit at all steps of an
      epoch are one node, and every step is shown at its place.

    Args:
        trace: hidden states, dims (epoch, step, unit, sample).
        method: one of the names above.
        n_components: dimensions of the picture.
        random_state: a seed, a generator to draw one from, or None for another picture each time.
        normalized: False gives the methods the activations as they are (published comparisons do). Not for
            ``"mmphate"`` and ``"mphate"``, whose kernel is defined on normalized nodes.
        max_nodes: fit on at most so many nodes, drawn at random, and place the others by the method's ``transform``;
            None takes `MOST_NODES`. Not for ``"mmphate"``, ``"mphate"`` and ``"phate"``, which take them all.
        options: more arguments for the class that does the work, such as ``{"perplexity": 50}``.

    Returns:
        Shape (epoch, step, unit, component), of the kind that was given; NaN for nodes with a missing value. A
        DataArray says in ``attrs`` the ``method``, and in ``note`` what was not fitted on all nodes.

    Raises:
        ValueError: an unknown method, or an argument that the method does not take.
        MissingExtraError: openTSNE or umap-learn is not installed.

    >>> trace = np.random.default_rng(0).normal(size=(4, 5, 6, 7))
    >>> embed(trace, method="pca", n_components=2).shape
    (4, 5, 6, 2)
    """
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
    if max_nodes is not None and max_nodes < 2:
        raise ValueError(f"max_nodes must be at least 2, got {max_nodes}")
    named = as_trace(trace)
    seed = draw_seed(random_state)
    if method in ("mmphate", "mphate"):
        if not normalized or max_nodes is not None:
            raise ValueError(f"{method} is defined on all normalized nodes; leave out normalized= and max_nodes=")
        picture = _multislice(named, method, n_components, seed, options)
        note = ""
    else:
        values = normalize(named, dtype=np.float32) if normalized else _raw(named)
        positions, note = _flat_picture(values, method, n_components, seed, max_nodes, options)
        picture = unfold(positions, named)
    picture.attrs = {"method": method, "note": note}
    return like(trace, picture)


def _multislice(named: xr.DataArray, method: str, n_components: int, seed: int, options: Options) -> xr.DataArray:
    from hiddenscope.embeddings.mmphate import MMPHATE

    estimator = MMPHATE(n_components, random_state=seed, **options)
    if method == "mmphate":
        return cast(xr.DataArray, estimator.fit_transform(named)).copy()
    sizes = named.sizes
    responses = named.transpose("epoch", "unit", "step", "sample").values
    responses = responses.reshape(sizes["epoch"], 1, sizes["unit"], sizes["step"] * sizes["sample"])
    places = np.asarray(estimator.fit_transform(responses))
    every_step = np.broadcast_to(places, (sizes["epoch"], sizes["step"], sizes["unit"], n_components))
    return unfold(every_step.reshape(-1, n_components), named)


def _raw(named: xr.DataArray) -> Points:
    nodes = named.values.reshape(-1, named.sizes["unit"], named.sizes["sample"]).astype(np.float32)
    nodes[~np.isfinite(nodes).all(axis=-1)] = np.nan
    return nodes


def _flat_picture(
    nodes: FloatArray, method: str, n_components: int, seed: int, max_nodes: int | None, options: Options
) -> tuple[Points, str]:
    """Positions of all nodes (node, component), and what has to be said about them."""
    rows = nodes.reshape(-1, nodes.shape[-1])
    present = np.isfinite(rows[:, 0])
    points = np.ascontiguousarray(rows[present], dtype=np.float32)
    if len(points) < 2:
        raise ValueError(f"a picture needs at least 2 nodes without missing values, got {len(points)}")
    if method == "phate" and max_nodes is not None:
        raise ValueError("phate takes all nodes; leave out max_nodes=")
    limit = max_nodes or MOST_NODES.get(method, len(points))
    positions = np.empty((len(points), n_components), np.float32)
    if len(points) <= limit:
        positions[:], _ = _FITS[method](points, n_components, seed, options)
        note = ""
    else:
        chosen = np.zeros(len(points), dtype=np.bool_)
        chosen[np.random.default_rng(seed).choice(len(points), limit, replace=False)] = True
        positions[chosen], place = _FITS[method](points[chosen], n_components, seed, options)
        positions[~chosen] = place(points[~chosen])
        note = f"fitted on {limit:,} of {len(points):,} nodes, the others placed afterwards"
    result = np.full((len(rows), n_components), np.nan, np.float32)
    result[present] = positions
    return result, note


def _pca(points: Points, n_components: int, seed: int, options: Options) -> tuple[npt.NDArray[Any], Placement]:
    from sklearn.decomposition import PCA

    model = PCA(n_components, random_state=seed, **options).fit(points)
    return model.transform(points), model.transform


def _isomap(points: Points, n_components: int, seed: int, options: Options) -> tuple[npt.NDArray[Any], Placement]:
    from sklearn.manifold import Isomap

    with warnings.catch_warnings():  # it bridges the gaps between the parts of its graph by itself
        warnings.filterwarnings("ignore", message="The number of connected components")
        # Its other eigensolver starts at a random vector that no seed reaches.
        model = Isomap(n_components=n_components, **{"eigen_solver": "dense", **options}).fit(points)
    return model.embedding_, model.transform


def _lle(points: Points, n_components: int, seed: int, options: Options) -> tuple[npt.NDArray[Any], Placement]:
    from sklearn.manifold import LocallyLinearEmbedding

    # Float32 leaves the local systems of near-identical nodes singular.
    model = LocallyLinearEmbedding(n_components=n_components, random_state=seed, **options)
    model.fit(points.astype(np.float64))
    return model.embedding_, model.transform


def _tsne(points: Points, n_components: int, seed: int, options: Options) -> tuple[npt.NDArray[Any], Placement]:
    try:
        from openTSNE import TSNE
    except ImportError as error:
        raise MissingExtraError("openTSNE", "baselines", "method 'tsne'") from error
    # Interpolation, its faster way, stops at two dimensions.
    gradient = "bh" if n_components > 2 else "auto"
    chosen = {"negative_gradient_method": gradient, "n_jobs": 1, **options}
    model = TSNE(n_components=n_components, random_state=seed, **chosen).fit(points)
    return np.asarray(model), lambda others: np.asarray(model.transform(others))


def _umap(points: Points, n_components: int, seed: int, options: Options) -> tuple[npt.NDArray[Any], Placement]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportWarning)  # about a part of it that needs TensorFlow
            import umap
    except ImportError as error:
        raise MissingExtraError("umap-learn", "baselines", "method 'umap'") from error
    model = umap.UMAP(n_components=n_components, random_state=seed, n_jobs=1, **options)
    return model.fit_transform(points), model.transform


def _phate(points: Points, n_components: int, seed: int, options: Options) -> tuple[npt.NDArray[Any], Placement]:
    import phate

    model = phate.PHATE(n_components=n_components, random_state=seed, verbose=0, n_jobs=1, **options)
    return model.fit_transform(points.astype(np.float64)), model.transform


_FITS: Mapping[str, Callable[[Points, int, int, Options], tuple[npt.NDArray[Any], Placement]]] = MappingProxyType(
    {"pca": _pca, "isomap": _isomap, "lle": _lle, "tsne": _tsne, "umap": _umap, "phate": _phate}
)
