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
from sklearn.utils import Tags

from hiddenscope.embeddings.kernel import affordable_inter_knn, check_kernel_options
from hiddenscope.embeddings.nodes import normalize, reduce_samples, unfold
from hiddenscope.embeddings.seeds import RandomState, draw_seed
from hiddenscope.trace import FloatArray, as_trace, like

if TYPE_CHECKING:
    from hiddenscope.embeddings.streaming import StreamingSolution

SOLVERS = ("streaming", "phate", "exact")


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
        refine: epochs of the final refinement of solver="streaming", which restores the neighborhoods that averaging
            over landmarks blurs; 0 for M-PHATE's plain interpolation.
        random_state: a seed, a generator to draw one from, or None for another picture each time. The global
            generator is neither read nor moved.

    Attributes:
        embedding_: shape (epoch, step, unit, component), a DataArray or a plain array, as the trace was; NaN for nodes
            with a missing value. In units of the potential distance (solver="phate": PHATE's own, of norm 1).
        diffusion_time_: the exponent used.
        bandwidth_: inter-step bandwidth, in normalized activation.
        n_features_in_: samples in the trace.
        solution_: of solver="streaming", every stage's result (`hiddenscope.embeddings.streaming.StreamingSolution`).

    Source: MM-PHATE, Xie et al. 2024, section 3; M-PHATE, Gigante et al. 2019; PHATE, Moon et al. 2019.

    >>> trace = np.random.default_rng(0).normal(size=(4, 5, 6, 7))
    >>> MMPHATE(n_components=2, inter_knn=5, random_state=0).fit_transform(trace).shape
    (4, 5, 6, 2)
    """

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
        bandwidth: int | Literal["exact"] = 200,
        refine: int = 80,
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
        self.refine = refine
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
        seed = draw_seed(self.random_state)
        named = as_trace(trace)
        # Float32 is what the streaming stages compute in; the reference keeps float64 throughout.
        nodes = normalize(named, dtype=np.float64 if self.solver == "exact" else np.float32)
        self.solution_: StreamingSolution | None = None
        positions, self.bandwidth_, self.diffusion_time_ = self._solve(reduce_samples(nodes, n_pca=self.n_pca), seed)
        self.n_features_in_ = named.sizes["sample"]
        self.embedding_ = like(trace, unfold(positions, named))
        return self

    def fit_transform(self, trace: xr.DataArray | npt.ArrayLike, y: None = None) -> xr.DataArray | FloatArray:
        """Embed the nodes of a trace and return their positions; see `fit` and ``embedding_``."""
        return self.fit(trace).embedding_

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
        from hiddenscope.embeddings.streaming import embed_nodes

        affordable_inter_knn(nodes, self.inter_knn)
        count = nodes.shape[0] * nodes.shape[1]
        solution = embed_nodes(
            nodes,
            **kernel,
            **diffusion,
            n_landmark=self.n_landmark or count,
            bandwidth=self.bandwidth,
            refine=self.refine,
            seed=seed,
        )
        self.solution_ = solution
        return solution.positions, solution.bandwidth.value, solution.diffusion_time

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

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.allow_nan = True
        tags.non_deterministic = self.random_state is None
        return tags
