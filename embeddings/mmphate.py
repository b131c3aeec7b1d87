"""The MM-PHATE estimator: a trace in, a picture of its units over steps and epochs out.

The recipe is M-PHATE's, on slices that are (epoch, step) pairs: normalize, relate the nodes by the multislice kernel,
let affinity diffuse, and place the nodes so that distances between diffusion potentials are kept (MM-PHATE, Xie et al.
2024, section 3). Parameters are named as in M-PHATE and PHATE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import xarray as xr
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from hiddenscope.embeddings.agreement import procrustes_correlation
from hiddenscope.embeddings.kernel import affordable_inter_knn, check_kernel_options
from hiddenscope.embeddings.nodes import normalize, sample_reduction, unfold
from hiddenscope.embeddings.seeds import RandomState, draw_seed
from hiddenscope.trace import TRACE_DIMS, FloatArray, as_trace, like

if TYPE_CHECKING:
    from hiddenscope.embeddings.live import LivePicture
    from hiddenscope.embeddings.placing import Placer
    from hiddenscope.embeddings.streaming import StreamingSolution

SOLVERS = ("streaming", "phate", "exact")
LANDMARKS = ("per_unit", "spectral")


def _is_streaming(estimator: MMPHATE) -> bool:
    if estimator.solver != "streaming":
        raise AttributeError(f"only solver='streaming' can take in other epochs; this one is {estimator.solver!r}")
    return True


class MMPHATE(BaseEstimator):
    """Multiway multislice PHATE: one picture of all hidden units, at all steps, over all epochs.

    Units, steps and epochs share one space in which near means "responds to the samples alike": units of one slice are
    compared with each other, and each unit with itself in other slices.

    Args:
        n_components: dimensions of the picture.
        intra_knn: neighbor among the units of a slice whose distance is a unit's bandwidth.
        inter_knn: neighbor among the slices that sets the one bandwidth between slices.
        decay: exponent of the kernel within a slice.
        t: diffusion time, or "auto" for the knee of the operator's von Neumann entropy.
        gamma: informational distance, from -1 to 1; 0 is M-PHATE's square root, 1 PHATE's logarithm.
        n_landmark: landmarks that stand for the nodes when there are more nodes; None embeds every node by itself.
        n_pca: principal components that stand for the samples when there are more; None keeps the samples.
        solver: "streaming" never builds the kernel: memory and time grow with the number of nodes, and the nodes are
            refined at the end. "phate" hands the streamed kernel to an unmodified PHATE as a graph. "exact" builds the
            kernel and hands it to graphtools and PHATE's own stages: the reference, for small traces.
        bandwidth: slices per unit at which the streaming solvers measure the bandwidth, or "exact" for all of them.
        landmarks: of solver="streaming": "per_unit" clusters each unit's nodes by their responses; "spectral" by the
            kernel's leading eigenvectors, as M-PHATE does, which takes several times as long.
        refine: epochs of the final refinement of solver="streaming", which restores the neighborhoods that averaging
            over landmarks blurs; 0 for M-PHATE's plain interpolation.
        device: of solver="streaming": a torch device such as "cuda" for `fit`; None for compiled code.
        random_state: a seed, a generator to draw one from, or None for another picture each time. The global
            generator is neither read nor moved.

    Attributes:
        embedding_: shape (epoch, step, unit, component), a DataArray or a plain array, as the trace was; NaN for nodes
            with a missing value. In units of the potential distance (solver="phate": PHATE's own, of norm 1).
        diffusion_time_: the exponent used.
        bandwidth_: inter-step bandwidth, in normalized activation.
        n_features_in_: samples in the trace.
        target_: after `partial_fit`, where ``embedding_`` is heading; None before.
        live_: after `partial_fit`, the picture in motion, its ``report`` on the last step included
            (`hiddenscope.embeddings.live.LivePicture`); None before.
        reduction_: principal components that stand for the samples, or None.
        solution_: of solver="streaming", every stage's result (`hiddenscope.embeddings.streaming.StreamingSolution`).

    Source: MM-PHATE, Xie et al. 2024, section 3; M-PHATE, Gigante et al. 2019; PHATE, Moon et al. 2019.

    >>> trace = np.random.default_rng(0).normal(size=(4, 5, 6, 7))
    >>> MMPHATE(n_components=2, inter_knn=5, random_state=0).fit_transform(trace).shape
    (4, 5, 6, 2)
    """

    embedding_: xr.DataArray | FloatArray
    solution_: StreamingSolution | None
    live_: LivePicture | None
    target_: xr.DataArray | FloatArray | None
    _guide: Placer | None

    def __init__(
        self,
        n_components: int = 3,
        *,
        intra_knn: int = 2,
        inter_knn: int = 25,
        decay: float = 5,
        t: int | Literal["auto"] = "auto",
        gamma: float = 0,
        n_landmark: int | None = 1000,
        n_pca: int | None = 100,
        solver: Literal["streaming", "phate", "exact"] = "streaming",
        bandwidth: int | Literal["exact"] = 256,
        landmarks: Literal["per_unit", "spectral"] = "per_unit",
        refine: int = 80,
        device: str | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.n_components = n_components
        self.intra_knn = intra_knn
        self.inter_knn = inter_knn
        self.decay = decay
        self.t = t
        self.gamma = gamma
        self.n_landmark = n_landmark
        self.n_pca = n_pca
        self.solver = solver
        self.bandwidth = bandwidth
        self.landmarks = landmarks
        self.refine = refine
        self.device = device
        self.random_state = random_state

    def fit(self, trace: xr.DataArray | npt.ArrayLike, y: None = None) -> Self:
        """Embed the nodes of a trace; what an earlier fit found is forgotten.

        Args:
            trace: hidden states, shape (epoch, step, unit, sample).
            y: ignored, for scikit-learn's sake.

        Raises:
            ValueError: an option out of range, or a trace with fewer than 2 slices or 2 samples.
            MemoryError: the exact solver would not fit; the message says how much it takes.
        """
        self._check_options()
        seed = self._seed = draw_seed(self.random_state)
        named = as_trace(trace)
        # Float32 is what the streaming stages compute in; the reference keeps float64 throughout.
        nodes = normalize(named, dtype=np.float64 if self.solver == "exact" else np.float32)
        self._forget()
        self.reduction_ = sample_reduction(nodes, n_pca=self.n_pca)
        positions, self.bandwidth_, self.diffusion_time_ = self._solve(self._reduced(nodes), seed)
        self.n_features_in_ = named.sizes["sample"]
        self._frame = _frame(named)
        self._samples = _sample_names(trace)
        self.embedding_ = like(trace, unfold(positions, self._frame))
        return self

    def fit_transform(self, trace: xr.DataArray | npt.ArrayLike, y: None = None) -> xr.DataArray | FloatArray:
        """Embed the nodes of a trace and return their positions; see `fit` and ``embedding_``."""
        return self.fit(trace).embedding_

    @available_if(_is_streaming)
    def transform(self, trace: xr.DataArray | npt.ArrayLike) -> xr.DataArray | FloatArray:
        """Place other epochs, checkpoints or runs in the picture of the fit, which stays as it is.

        Units are matched by index, and the samples must be those of the fit, in the same order. A node that was in the
        fit lands where the fit put it, nearly (`hiddenscope.embeddings.placing`).

        Args:
            trace: shape (epoch, step, unit, sample); epochs and steps may be others than in the fit.

        Returns:
            Positions, shape (epoch, step, unit, component), of the kind that was given.

        Raises:
            NotFittedError: before `fit`.
            ValueError: other units or samples than in the fit.
        """
        from hiddenscope.embeddings.placing import place

        check_is_fitted(self, "embedding_")
        named = as_trace(trace)
        self._check_agreement(trace, named, ("unit", "sample"))
        nodes = self._reduced(normalize(named, dtype=np.float32))
        return like(trace, unfold(place(self._placer(), nodes), _frame(named)))

    @available_if(_is_streaming)
    def partial_fit(self, trace: xr.DataArray | npt.ArrayLike, y: None = None) -> Self:
        """Take in the epochs that a training has reached since, at a cost that does not grow with its history.

        The first call, without a `fit` before it, is a fit. Later calls move the picture on: bandwidth and diffusion
        time follow the training at a limited rate, and ``embedding_`` eases toward ``target_``, so that nothing jumps.
        It stays close to what a `fit` of all epochs would give without being equal to it; `drift` says how close.

        Args:
            trace: the new epochs alone, shape (epoch, step, unit, sample), with the steps, units and samples of before.
            y: ignored, for scikit-learn's sake.

        Raises:
            ValueError: other steps, units or samples than before, or an epoch that is in the picture already.
        """
        from hiddenscope.embeddings.live import LiveSettings, advance, begin

        if not hasattr(self, "embedding_"):
            return self.fit(trace)
        named = as_trace(trace)
        self._check_agreement(trace, named, ("step", "unit", "sample"))
        arrived = _frame(named)
        if isinstance(trace, xr.DataArray) and isinstance(self.embedding_, xr.DataArray):
            known = np.intersect1d(arrived.epoch, self._frame.epoch)
            if len(known):
                raise ValueError(
                    f"epochs {known.tolist()} are in the picture already; fit the whole trace to renew them"
                )
        else:
            arrived = arrived.assign_coords(epoch=np.arange(arrived.sizes["epoch"]) + self._frame.sizes["epoch"])
        if self.live_ is None:
            solution = self._streamed()
            rows = solution.graph.rows
            settings = LiveSettings(
                n_components=self.n_components,
                intra_knn=self.intra_knn,
                inter_knn=self.inter_knn,
                decay=self.decay,
                t=self.t,
                gamma=self.gamma,
                n_landmark=self.n_landmark or len(rows.values),
                refine=self.refine > 0,
                seed=self._seed,
            )
            self.live_ = begin(rows.to_nodes(rows.values), settings, solution=solution)
        self.live_ = advance(self.live_, self._reduced(normalize(named, dtype=np.float32)))
        self.bandwidth_, self.diffusion_time_ = self.live_.bandwidth, self.live_.time
        self._guide = None
        self._frame = xr.concat([self._frame, arrived], "epoch", join="override", combine_attrs="drop_conflicts")
        kind = self.embedding_
        self.embedding_ = like(kind, unfold(self.live_.shown, self._frame))
        self.target_ = like(kind, unfold(self.live_.target, self._frame))
        return self

    @available_if(_is_streaming)
    def drift(self) -> float:
        """How far `partial_fit` has strayed: 1 less the Procrustes correlation of its target with a fit made anew.

        0 right after a `fit`. The new fit is of all epochs, and costs as much as any; when the drift is large, or the
        bandwidth of ``live_.report`` lags behind the measured one, fit the whole trace again.

        Raises:
            NotFittedError: before `fit`.
        """
        check_is_fitted(self, "embedding_")
        if self.live_ is None:
            return 0.0
        anew = self._stream(self.live_.nodes, self._seed)
        return 1 - procrustes_correlation(self.live_.target, anew.positions)

    def _placer(self) -> Placer:
        """What places other nodes, prepared once for every state of the picture."""
        from hiddenscope.embeddings.placing import placer, placer_of
        from hiddenscope.embeddings.unit_rows import unit_rows

        if self._guide is not None:
            return self._guide
        if self.live_ is None:
            self._guide = placer(self._streamed(), intra_knn=self.intra_knn, decay=self.decay)
            return self._guide
        rows = unit_rows(self.live_.nodes[self.live_.sample])
        self._guide = placer_of(
            rows,
            self.live_.landmarks,
            self.live_.landmark_positions,
            rows.from_nodes(self.live_.shown[self.live_.sample]),
            bandwidth=self.live_.bandwidth,
            intra_knn=self.intra_knn,
            decay=self.decay,
        )
        return self._guide

    def _streamed(self) -> StreamingSolution:
        if self.solution_ is None:
            raise NotFittedError("this picture was made by another solver; fit it again with solver='streaming'")
        return self.solution_

    def _reduced(self, nodes: FloatArray) -> FloatArray:
        return nodes if self.reduction_ is None else self.reduction_.apply(nodes)

    def _forget(self) -> None:
        self.solution_ = self.live_ = self.target_ = self._guide = None

    def _check_agreement(self, trace: object, named: xr.DataArray, dims: tuple[str, ...]) -> None:
        """Raise where a trace differs from the fitted one in its ``dims``."""
        fitted = {**self._frame.sizes, "sample": self.n_features_in_}
        for dim in dims:
            if named.sizes[dim] != fitted[dim]:
                raise ValueError(
                    f"the picture was made of {fitted[dim]} {dim}s, got {named.sizes[dim]}; "
                    f"{' and '.join(dims)} must be those of the fit, in the same order"
                )
        names = _sample_names(trace)
        if names is not None and self._samples is not None and not np.array_equal(names, self._samples):
            raise ValueError(
                "the picture was made from other samples; record the same probe samples, in the same order"
            )

    def _solve(self, nodes: FloatArray, seed: int) -> tuple[FloatArray, float, int]:
        """Positions, bandwidth and diffusion time of normalized nodes, by the chosen solver."""
        kernel: dict[str, Any] = {"intra_knn": self.intra_knn, "inter_knn": self.inter_knn, "decay": self.decay}
        diffusion: dict[str, Any] = {"n_components": self.n_components, "t": self.t, "gamma": self.gamma}
        if self.solver == "exact":
            from hiddenscope.embeddings.exact import embed_nodes_exactly

            exact = embed_nodes_exactly(nodes, **kernel, **diffusion, n_landmark=self.n_landmark, seed=seed)
            return exact.positions, exact.bandwidth, exact.diffusion_time
        if self.solver == "phate":
            from hiddenscope.embeddings.graph import embed_by_phate

            return embed_by_phate(
                nodes, **kernel, **diffusion, n_landmark=self.n_landmark, bandwidth=self.bandwidth, seed=seed
            )
        affordable_inter_knn(nodes, self.inter_knn)
        solution = self.solution_ = self._stream(nodes, seed)
        return solution.positions, solution.bandwidth.value, solution.diffusion_time

    def _stream(self, nodes: FloatArray, seed: int) -> StreamingSolution:
        from hiddenscope.embeddings.streaming import embed_nodes

        count = nodes.shape[0] * nodes.shape[1]
        return embed_nodes(
            nodes,
            n_components=self.n_components,
            intra_knn=self.intra_knn,
            inter_knn=self.inter_knn,
            decay=self.decay,
            t=self.t,
            gamma=self.gamma,
            n_landmark=self.n_landmark or count,
            bandwidth=self.bandwidth,
            landmarks=self.landmarks,
            refine=self.refine,
            device=self.device,
            seed=seed,
        )

    def _check_options(self) -> None:
        check_kernel_options(intra_knn=self.intra_knn, inter_knn=self.inter_knn, decay=self.decay)
        for name, value, least in (("n_components", self.n_components, 1), ("n_landmark", self.n_landmark, 2)):
            if name == "n_landmark" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        time: Any = self.t
        if time != "auto" and (isinstance(time, str) or int(time) != time or time < 1):
            raise ValueError(f"t must be 'auto' or a whole number of at least 1, got {self.t!r}")
        if not -1 <= self.gamma <= 1:
            raise ValueError(f"gamma must lie in -1..1, got {self.gamma!r}")
        if isinstance(self.refine, bool) or not isinstance(self.refine, (int, np.integer)) or self.refine < 0:
            raise ValueError(
                f"refine counts refinement epochs: it must be a whole number, 0 for none, got {self.refine!r}"
            )
        slices: Any = self.bandwidth
        if slices != "exact" and (isinstance(slices, str) or slices < 2):
            raise ValueError(f"bandwidth must be 'exact' or at least 2 slices per unit, got {self.bandwidth!r}")
        if self.solver not in SOLVERS:
            raise ValueError(f"solver must be one of {SOLVERS}, got {self.solver!r}")
        if self.landmarks not in LANDMARKS:
            raise ValueError(f"landmarks must be one of {LANDMARKS}, got {self.landmarks!r}")
        for option, chosen, default in (("landmarks", self.landmarks, "per_unit"), ("device", self.device, None)):
            if self.solver != "streaming" and chosen != default:
                raise ValueError(f"{option}={chosen!r} works with solver='streaming', got solver={self.solver!r}")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.allow_nan = True
        tags.non_deterministic = self.random_state is None
        return tags


def _frame(trace: xr.DataArray) -> xr.DataArray:
    """The epochs, steps and units of a trace with their coordinates, and which of their nodes are present."""
    shape = tuple(trace.sizes[dim] for dim in TRACE_DIMS[:3])
    present = np.isfinite(trace.values).all(axis=-1)
    coords = {name: coord for name, coord in trace.coords.items() if "sample" not in coord.dims}
    return xr.DataArray(present.reshape(shape), dims=TRACE_DIMS[:3], coords=coords, name=trace.name)


def _sample_names(trace: object) -> npt.NDArray[Any] | None:
    """What a caller calls the samples, or None where they have no names."""
    return np.asarray(trace["sample"]) if isinstance(trace, xr.DataArray) and "sample" in trace.coords else None
