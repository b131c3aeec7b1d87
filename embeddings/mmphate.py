"""The MM-PHATE estimator: a trace in, a picture of its units over steps and epochs out.

The recipe is M-PHATE's, on slices that are (epoch, step) pairs: normalize, relate the nodes by the multislice kernel,
let affinity diffuse, and place the nodes so that distances between diffusion potentials are kept (MM-PHATE, Xie et al.
2024, section 3). Parameters are named as in M-PHATE and PHATE.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt
import xarray as xr
from sklearn.base import BaseEstimator
from sklearn.utils import Tags

from hiddenscope.embeddings.kernel import (
    assemble_kernel,
    check_kernel_options,
    inter_bandwidth,
    kernel_bytes,
)
from hiddenscope.embeddings.memory import require_memory
from hiddenscope.embeddings.nodes import normalize, reduce_samples, unfold
from hiddenscope.trace import FloatArray, as_trace, like

SOLVERS = ("exact",)


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
        solver: "exact" materializes the kernel and hands it to graphtools and PHATE.
        random_state: a seed, a generator to draw one from, or None for another picture each time. The global
            generator is neither read nor moved.

    Attributes:
        embedding_: shape (epoch, step, unit, component), a DataArray or a plain array, as the trace was; NaN for nodes
            with a missing value. Unlike PHATE's, in units of the potential distance, not scaled to norm 1.
        diffusion_time_: the exponent used.
        bandwidth_: inter-step bandwidth, in normalized activation.
        n_features_in_: samples in the trace.

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
        t: int | str = "auto",
        gamma: float = 0,
        n_landmark: int | None = 1000,
        n_pca: int | None = 100,
        solver: str = "exact",
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
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
        from hiddenscope.embeddings.exact import solve_exactly

        named = as_trace(trace)
        nodes = reduce_samples(normalize(named), n_pca=self.n_pca)
        bandwidth = inter_bandwidth(nodes, inter_knn=self.inter_knn)
        require_memory(
            kernel_bytes(nodes, bandwidth=bandwidth),
            purpose=f"solver='exact' on {nodes.shape[0] * nodes.shape[1]:,} nodes",
            remedy="use solver='streaming', or fewer epochs or steps",
        )
        kernel = assemble_kernel(nodes, bandwidth=bandwidth, intra_knn=self.intra_knn, decay=self.decay)
        solution = solve_exactly(
            kernel,
            n_components=self.n_components,
            t=self.t,
            gamma=self.gamma,
            n_landmark=self.n_landmark,
            seed=seed,
        )
        self.bandwidth_ = bandwidth
        self.diffusion_time_ = solution.diffusion_time
        self.n_features_in_ = named.sizes["sample"]
        self.embedding_ = like(trace, unfold(solution.positions, named))
        return self

    def fit_transform(self, trace: xr.DataArray | npt.ArrayLike, y: None = None) -> xr.DataArray | FloatArray:
        """Embed the nodes of a trace and return their positions; see `fit` and ``embedding_``."""
        return self.fit(trace).embedding_

    def _check_options(self) -> None:
        check_kernel_options(intra_knn=self.intra_knn, inter_knn=self.inter_knn, decay=self.decay)
        for name, value, least in (("n_components", self.n_components, 1), ("n_landmark", self.n_landmark, 2)):
            if name == "n_landmark" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if self.t != "auto" and (isinstance(self.t, str) or int(self.t) != self.t or self.t < 1):
            raise ValueError(f"t must be 'auto' or a whole number of at least 1, got {self.t!r}")
        if not -1 <= self.gamma <= 1:
            raise ValueError(f"gamma must lie in -1..1, got {self.gamma!r}")
        if self.solver not in SOLVERS:
            raise ValueError(f"solver must be one of {SOLVERS}, got {self.solver!r}")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.allow_nan = True
        tags.non_deterministic = self.random_state is None
        return tags


def draw_seed(random_state: int | np.random.Generator | np.random.RandomState | None) -> int:
    """A seed from whatever a caller may give as ``random_state``, leaving the global generator alone.

    >>> draw_seed(7)
    7
    """
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if random_state is None or isinstance(random_state, np.random.Generator):
        return int(np.random.default_rng(random_state).integers(2**31 - 1))
    if isinstance(random_state, (int, np.integer)) and 0 <= random_state < 2**32:
        return int(random_state)
    raise ValueError(f"random_state must be None, a seed in 0..2**32 - 1 or a numpy generator, got {random_state!r}")
