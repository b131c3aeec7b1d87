"""Proper orthogonal decomposition of hidden states: how many dimensions a layer uses, and its motion in them.

The method of Su & Shlizerman (2019, arXiv:1905.12176): the states of an encoder and of a decoder, together, are
snapshots of one dynamical system, and a few orthogonal modes carry most of their energy. Their public code centers
(a principal component analysis of three components); the method's name says not to, so ``center`` is an option here.
Following the basis from epoch to epoch, the balance of unequal parts and the marks are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import xarray as xr
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from hiddenscope.embeddings.spectrum import (
    THRESHOLDS,
    Decomposition,
    Float64,
    Gram,
    check_energy,
    decompose,
    effective_dimension,
    energy_fractions,
    participation_ratio,
)
from hiddenscope.embeddings.subspaces import aligned_signs, alignment, standard_signs, subspace_angles
from hiddenscope.trace import TRACE_DIMS, FloatArray, as_trace, like

Trace = xr.DataArray | npt.ArrayLike
Part = npt.NDArray[np.floating[Any]]
COORDINATE_DIMS = ("epoch", "step", "sample", "component")


class POD(BaseEstimator):
    """Proper orthogonal decomposition of hidden states, epoch by epoch.

    It is given one trace, or a pair ``(encoder, decoder)`` of traces with the same epochs and units whose steps and
    samples may differ; the pair shares one basis, and comes back as a pair.

    Args:
        n_components: modes that are kept; None keeps, in each epoch, as many as ``energy`` takes.
        energy: share of the energy that counts as enough, for ``dimension_`` and for ``n_components=None``.
        center: subtract the mean state first (principal component analysis).
        basis: ``"epoch"`` gives each epoch its own modes, aligned with those of the epoch before. ``"last"``, ``"all"``
            (all epochs together) or the number of an epoch give one fixed basis to all of them: an honest time-lapse.
        align: how ``basis="epoch"`` follows the epoch before: ``"signs"`` keeps the modes, and flips them at most;
            ``"rotation"`` turns them within their span (orthogonal Procrustes), so that pictures move smoothly, but
            the components are no longer sorted by energy.
        weights: factors of the encoder's and the decoder's snapshots, or ``"balanced"`` for 1 / sqrt(steps) each, so
            that the longer part does not dominate. Energies are then of the weighted snapshots.

    Attributes:
        epochs_: shape (epoch,), the epochs that were fitted.
        singular_values_: shape (epoch, mode), each epoch's own spectrum; zeros beyond its rank.
        energy_: shape (epoch, mode), shares of the energy.
        dimension_: shape (epoch,), the fewest modes that carry a share ``energy``; 0 for a dead layer.
        dimensions_: shape (epoch, threshold), the same for 90, 95 and 99 % (`THRESHOLDS`).
        percent_used_: shape (epoch,), ``dimension_`` in percent of the number of units.
        participation_ratio_: shape (epoch,).
        modes_: spatial modes, shape (epoch, unit, component), a DataArray if a DataArray was given; zeros beyond the
            components that an epoch has.
        mean_: shape (epoch, unit), what is subtracted; zeros unless ``center``.
        angles_: shape (epoch, angle), degrees between the spans of an epoch's own modes and those of the epoch before,
            the largest first; NaN where there is none.
        skipped_: shape (epoch,), epochs that have diverged; everything about them is NaN, and the dimension 0.

    Snapshots that are NaN in every unit are padding and left out. An epoch with other NaN or infinite values has
    diverged; so has one whose padding is larger than that of the first.

    Source: Su & Shlizerman 2019, arXiv:1905.12176.

    >>> time = np.arange(400) * 2 * np.pi / 100
    >>> ellipse = np.stack([2 * np.cos(time), np.sin(time), 0 * time]).T[None, :, :, None]
    >>> pod = POD(energy=0.8).fit(ellipse)
    >>> pod.singular_values_.round(4).tolist(), pod.dimension_.tolist()
    ([[28.2843, 14.1421, 0.0]], [1])
    """

    epochs_: Float64
    singular_values_: Float64
    energy_: Float64
    dimension_: npt.NDArray[np.int64]
    dimensions_: npt.NDArray[np.int64]
    percent_used_: Float64
    participation_ratio_: Float64
    modes_: xr.DataArray | FloatArray
    mean_: Float64
    angles_: Float64
    skipped_: npt.NDArray[np.bool_]

    def __init__(
        self,
        n_components: int | None = None,
        *,
        energy: float = 0.9,
        center: bool = False,
        basis: Literal["epoch", "last", "all"] | float = "epoch",
        align: Literal["signs", "rotation"] = "signs",
        weights: Literal["balanced"] | Sequence[float] | None = None,
    ) -> None:
        self.n_components = n_components
        self.energy = energy
        self.center = center
        self.basis = basis
        self.align = align
        self.weights = weights

    def fit(self, trace: Trace | tuple[Trace, Trace], y: None = None) -> Self:
        """Find the modes of every epoch; what an earlier fit found is forgotten.

        Args:
            trace: hidden states, shape (epoch, step, unit, sample), or a pair of them.
            y: ignored, for scikit-learn's sake.

        Raises:
            ValueError: an option is out of range, or the two traces of a pair differ in epochs or units.
        """
        self._check_options()
        self._bases: list[EpochBasis] = []
        self._sums: Gram | None = None
        self._padding: list[npt.NDArray[np.bool_]] | None = None
        return self._take(trace)

    def partial_fit(self, trace: Trace | tuple[Trace, Trace], y: None = None) -> Self:
        """Take in further epochs; the result is that of one `fit` to all of them.

        Memory grows with units times components for each epoch, not with steps and samples, so a run of any length
        can be given epoch by epoch. With ``basis="all"`` the sums over all epochs are kept in float64 (`Gram`).

        Raises:
            ValueError: other units, steps or samples than before, or an epoch that was there before.
        """
        return self._take(trace) if hasattr(self, "_bases") else self.fit(trace)

    def fit_transform(self, trace: Trace | tuple[Trace, Trace], y: None = None) -> Any:
        """Fit, then give the coordinates of the same states; see `transform`."""
        return self.fit(trace).transform(trace)

    def transform(self, trace: Trace | tuple[Trace, Trace]) -> Any:
        """Coordinates of states in the modes: temporal modes of every sequence.

        Args:
            trace: shape (epoch, step, unit, sample), or a pair. With ``basis="epoch"`` its epochs must be among the
                fitted ones (plain arrays: all of them, in order); a fixed basis takes any.

        Returns:
            Shape (epoch, step, sample, component), of the kind that was given, a pair for a pair; NaN at padding and
            in epochs that have diverged, zeros in components that an epoch does not have.
        """
        check_is_fitted(self, "modes_")
        parts, is_pair = _parts(trace)
        found = []
        for given, part in zip(trace if isinstance(trace, tuple) else (trace,), parts, strict=True):
            modes, mean = self._at(part, given)
            values = np.einsum("etus,euk->etsk", part.values.astype(np.float64) - mean[:, None, :, None], modes)
            coords = {name: coord for name, coord in part.coords.items() if "unit" not in coord.dims}
            named = xr.DataArray(values, dims=COORDINATE_DIMS, coords=coords, name=part.name)
            found.append(like(given, named))
        return tuple(found) if is_pair else found[0]

    def inverse_transform(self, coordinates: Trace | tuple[Trace, Trace]) -> Any:
        """States from their coordinates: the part of the states that the modes hold, plus what was subtracted."""
        check_is_fitted(self, "modes_")
        is_pair = isinstance(coordinates, tuple)
        found = []
        for given in coordinates if isinstance(coordinates, tuple) else (coordinates,):
            named = given if isinstance(given, xr.DataArray) else xr.DataArray(np.asarray(given), dims=COORDINATE_DIMS)
            named = named.transpose(*COORDINATE_DIMS)
            modes, mean = self._at(named, given)
            values = np.einsum("etsk,euk->etus", named.values, modes) + mean[:, None, :, None]
            coords = {name: coord for name, coord in named.coords.items() if "component" not in coord.dims}
            result = xr.DataArray(values, dims=TRACE_DIMS, coords={**coords, "unit": self._units}, name=named.name)
            found.append(like(given, result))
        return tuple(found) if is_pair else found[0]

    def captured(self, trace: Trace | tuple[Trace, Trace]) -> Float64:
        """Share of the energy of the states that lies in the basis, shape (epoch,); NaN where it has diverged.

        1 less the squared error of reconstruction, relative. With a fixed basis this tells how far an epoch still is
        from it, or has left it.
        """
        check_is_fitted(self, "modes_")
        parts, _ = _parts(trace)
        inside, all_energy = 0.0, 0.0
        for part, factor in zip(parts, _factors(self.weights, parts), strict=True):
            modes, mean = self._at(part, part if self._named else part.values)
            values = part.values.astype(np.float64) - mean[:, None, :, None]
            padding = np.isnan(values).all(axis=2, keepdims=True) & ~np.isnan(values).all(axis=(1, 2, 3), keepdims=True)
            values = np.where(padding, 0.0, values)
            inside = inside + factor**2 * (np.einsum("etus,euk->etsk", values, modes) ** 2).sum(axis=(1, 2, 3))
            all_energy = all_energy + factor**2 * (values**2).sum(axis=(1, 2, 3))
        total = np.asarray(all_energy)
        return np.asarray(np.divide(inside, total, out=total * 0.0, where=~(total <= 0)))

    def _take(self, trace: Trace | tuple[Trace, Trace]) -> Self:
        parts, _ = _parts(trace)
        self._named = isinstance(trace[0] if isinstance(trace, tuple) else trace, xr.DataArray)
        epochs = parts[0]["epoch"].values.astype(np.float64)
        shapes = [part.shape[1:] for part in parts]
        if self._bases:
            if not self._named:
                epochs = epochs + len(self._bases)
            known = np.intersect1d(epochs, [basis.epoch for basis in self._bases])
            if known.size:
                raise ValueError(f"epochs {known.tolist()} are fitted already; fit the whole trace to renew them")
            if shapes != self._shapes:
                raise ValueError(f"steps, units and samples of {self._shapes} are fitted, got {shapes}")
        self._shapes: list[tuple[int, ...]] = shapes
        self._units = parts[0]["unit"].values
        factors = _factors(self.weights, parts)
        for index, epoch in enumerate(epochs):
            states = [np.asarray(part.values[index]) for part in parts]
            if self._padding is None:
                padding = [np.isnan(one).all(axis=1) for one in states]
                self._padding = None if all(mask.all() for mask in padding) else padding
            rows, weights = snapshots(states, factors, padding=self._padding)
            previous = next((basis for basis in reversed(self._bases) if not basis.skipped), None)
            self._bases.append(self._basis(float(epoch), rows, weights, previous))
            if self.basis == "all" and rows is not None:
                self._sums = (self._sums or Gram(len(self._units))).add(rows, weights=weights)
        self._publish()
        return self

    def _basis(
        self, epoch: float, rows: Float64 | None, weights: Float64 | None, previous: EpochBasis | None
    ) -> EpochBasis:
        if rows is None:
            return diverged(epoch, len(self._units))
        found = decompose(rows, center=self.center, weights=weights)
        return follow(epoch, found, self._kept(found), previous)

    def _kept(self, found: Decomposition) -> int:
        if self.n_components is not None:
            return int(min(self.n_components, found.modes.shape[1]))
        return int(effective_dimension(found.singular_values, energy=self.energy)) if found.singular_values.size else 0

    def _publish(self) -> None:
        bases, units = self._bases, len(self._units)
        fixed = self._fixed()
        self.epochs_ = np.array([basis.epoch for basis in bases])
        self.skipped_ = np.array([basis.skipped for basis in bases])
        lost = self.skipped_[:, None]
        values = _padded([basis.singular_values for basis in bases], units)
        self.singular_values_ = np.where(lost, np.nan, values)
        self.energy_ = energy_fractions(self.singular_values_)
        self.dimension_ = effective_dimension(self.singular_values_, energy=self.energy)
        at = [effective_dimension(self.singular_values_, energy=threshold) for threshold in THRESHOLDS]
        self.dimensions_ = np.stack(at, axis=-1)
        self.percent_used_ = 100 * np.where(self.skipped_, np.nan, self.dimension_) / units
        self.participation_ratio_ = participation_ratio(self.singular_values_)
        used = [self._oriented(basis) for basis in bases] if fixed is None else [fixed.modes] * len(bases)
        width = max(modes.shape[1] for modes in used)
        modes = np.stack([np.pad(one, ((0, 0), (0, width - one.shape[1]))) for one in used])
        if fixed is None:
            modes[self.skipped_] = np.nan
        self._modes = modes
        self.mean_ = np.stack([basis.mean if fixed is None else fixed.mean for basis in bases])
        angles = [basis.angles for basis in bases]
        most = max((len(one) for one in angles), default=0)
        self.angles_ = np.array([np.pad(one, (0, most - len(one)), constant_values=np.nan) for one in angles])
        named = xr.DataArray(modes, dims=("epoch", "unit", "component"), name="modes")
        self.modes_ = named.assign_coords(epoch=self.epochs_, unit=self._units) if self._named else modes

    def _oriented(self, basis: EpochBasis) -> Float64:
        return basis.modes @ basis.rotation if self.align == "rotation" else basis.modes

    def _fixed(self) -> EpochBasis | None:
        if self.basis == "epoch":
            return None
        if self.basis == "all":
            found = (self._sums or Gram(len(self._units))).decompose(center=self.center)
            return follow(np.nan, found, self._kept(found), None)
        good = [basis for basis in self._bases if not basis.skipped]
        if self.basis != "last":
            good = [basis for basis in good if basis.epoch == self.basis]
        if not good:
            raise ValueError(f"basis={self.basis!r}: there is no such epoch with finite states")
        return good[-1]

    def _at(self, named: xr.DataArray, given: object) -> tuple[Float64, Float64]:
        """Modes (epoch, unit, component) and means (epoch, unit) for the epochs of ``named``."""
        count = named.sizes["epoch"]
        if self.basis != "epoch":
            return np.repeat(self._modes[:1], count, axis=0), np.repeat(self.mean_[:1], count, axis=0)
        if isinstance(given, xr.DataArray) and "epoch" in given.coords:
            wanted = np.asarray(given["epoch"].values, dtype=np.float64)
            rows = [np.flatnonzero(self.epochs_ == epoch) for epoch in wanted]
            absent = [epoch for epoch, row in zip(wanted, rows, strict=True) if not row.size]
            if absent:
                raise ValueError(f"epochs {absent[:5]} have no modes of their own; fit them, or take a fixed basis")
            at = np.concatenate(rows)
            return self._modes[at], self.mean_[at]
        if count != len(self.epochs_):
            raise ValueError(f"{len(self.epochs_)} epochs are fitted, got {count}; give all, or take a fixed basis")
        return self._modes, self.mean_

    def _check_options(self) -> None:
        check_energy(self.energy)
        if self.n_components is not None and self.n_components < 1:
            raise ValueError(f"n_components must be at least 1 or None, got {self.n_components}")
        if isinstance(self.basis, str) and self.basis not in ("epoch", "last", "all"):
            raise ValueError(f"basis is 'epoch', 'last', 'all' or the number of an epoch, got {self.basis!r}")
        if self.align not in ("signs", "rotation"):
            raise ValueError(f"align is 'signs' or 'rotation', got {self.align!r}")


@dataclass(frozen=True)
class EpochBasis:
    """The modes of one epoch, and how they relate to the epoch before.

    Attributes:
        epoch: its number.
        singular_values: shape (mode,), the whole spectrum.
        modes: shape (unit, component), those that are kept, signs aligned with the epoch before.
        rotation: shape (component, component); ``modes @ rotation`` follows the epoch before within its span.
        mean: shape (unit,), what is subtracted.
        angles: degrees between the kept modes and those of the epoch before; empty without one.
        skipped: the epoch has diverged; then there are no modes.
    """

    epoch: float
    singular_values: Float64
    modes: Float64
    rotation: Float64
    mean: Float64
    angles: Float64
    skipped: bool = False


def follow(epoch: float, found: Decomposition, kept: int, previous: EpochBasis | None) -> EpochBasis:
    """The first ``kept`` modes of an epoch, aligned with those of an epoch before it, if there is one."""
    modes = standard_signs(found.modes[:, :kept])
    if previous is None:
        return EpochBasis(epoch, found.singular_values, modes, np.eye(kept), found.mean, np.zeros(0))
    modes = aligned_signs(modes, previous.modes)
    rotation = alignment(modes, previous.modes @ previous.rotation)
    angles = subspace_angles(modes, previous.modes)
    return EpochBasis(epoch, found.singular_values, modes, rotation, found.mean, angles)


def diverged(epoch: float, units: int) -> EpochBasis:
    """What stands for an epoch whose states are not finite."""
    nothing = np.zeros((units, 0))
    return EpochBasis(epoch, np.zeros(0), nothing, np.zeros((0, 0)), np.full(units, np.nan), np.zeros(0), skipped=True)


def snapshots(
    states: Sequence[Part], factors: Sequence[float], *, padding: Sequence[npt.NDArray[np.bool_]] | None
) -> tuple[Float64 | None, Float64 | None]:
    """The snapshots of one epoch, one row each, and their factors; None where the epoch has diverged.

    Args:
        states: each part's states (step, unit, sample).
        factors: each part's weight.
        padding: which (step, sample) of each part are padding; None when that is not known, because no epoch with
            finite states has been seen.
    """
    if padding is None:
        return None, None
    rows, weights = [], []
    for part, mask, factor in zip(states, padding, factors, strict=True):
        kept = part.transpose(0, 2, 1)[~mask].astype(np.float64)
        rows.append(kept)
        weights.append(np.full(len(kept), factor))
    together = np.concatenate(rows)
    if not np.isfinite(together).all():
        return None, None
    return together, None if all(factor == 1 for factor in factors) else np.concatenate(weights)


def _parts(trace: Trace | tuple[Trace, Trace]) -> tuple[list[xr.DataArray], bool]:
    """The trace, or the two traces of a pair, with named dims."""
    is_pair = isinstance(trace, tuple)
    parts = [as_trace(part) for part in (trace if isinstance(trace, tuple) else (trace,))]
    if is_pair and len(parts) != 2:
        raise ValueError(f"a pair is (encoder, decoder), got {len(parts)} traces")
    for part in parts:
        for dim in TRACE_DIMS:
            if not part.sizes[dim]:
                raise ValueError(f"a trace needs at least one {dim}, got shape {part.shape}")
    if is_pair:
        for dim in ("epoch", "unit"):
            if not np.array_equal(parts[0][dim].values, parts[1][dim].values):
                raise ValueError(
                    f"encoder and decoder share one space, so their {dim}s must be the same: "
                    f"got {parts[0].sizes[dim]} and {parts[1].sizes[dim]}"
                )
    return parts, is_pair


def _factors(weights: Literal["balanced"] | Sequence[float] | None, parts: Sequence[xr.DataArray]) -> list[float]:
    if weights is None:
        return [1.0] * len(parts)
    if isinstance(weights, str):
        if weights != "balanced":
            raise ValueError(f"weights are 'balanced' or one factor for each part, got {weights!r}")
        return [float(part.sizes["step"]) ** -0.5 for part in parts]
    factors = [float(weight) for weight in weights]
    if len(factors) != len(parts) or not all(np.isfinite(factors)) or min(factors) <= 0:
        raise ValueError(f"weights need {len(parts)} positive factors, one for each part, got {list(weights)}")
    return factors


def _padded(rows: Sequence[Float64], width: int) -> Float64:
    return np.stack([np.pad(row, (0, width - len(row))) for row in rows])
