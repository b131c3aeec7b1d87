"""Two studies of a recorded layer: its orthogonal modes in every epoch, and how well they separate the classes.

Where a run has an encoder and a decoder of as many units (layers whose names differ in just these words), both are
snapshots of one system, as in Su & Shlizerman (2019, arXiv:1905.12176); any other layer is decomposed alone. Epochs
that were studied before are not studied again, so the cost of an epoch does not grow with the training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.analyses.encoder_decoder import attractor, steering
from hiddenscope.analyses.separability import MEASURES, label_codes, measures, overtraining, sequence_means
from hiddenscope.analyses.separability import training_phase as phase_of
from hiddenscope.analyses.studies import Study
from hiddenscope.embeddings.pod import EpochBasis, diverged, follow, snapshots
from hiddenscope.embeddings.spectrum import (
    THRESHOLDS,
    decompose,
    effective_dimension,
    energy_fractions,
    participation_ratio,
)
from hiddenscope.embeddings.subspaces import subspace_angles
from hiddenscope.run import Run

Float64 = npt.NDArray[np.float64]
Masks = list[npt.NDArray[np.bool_]]

COMPONENTS = 6
"""Modes that are stored for every epoch."""
SPECTRUM = 64
"""Shares of energy that are stored for every epoch."""


def encoder_and_decoder(layers: Iterable[str], layer: str) -> tuple[str, str] | None:
    """The pair that a layer belongs to, by its name; None where it is alone.

    >>> encoder_and_decoder(("encoder", "decoder", "other"), "decoder")
    ('encoder', 'decoder')
    >>> encoder_and_decoder(("encoder", "decoder", "other"), "other") is None
    True
    """
    names = tuple(layers)
    for own, other in (("encoder", "decoder"), ("decoder", "encoder")):
        partner = layer.replace(own, other)
        if own in layer and partner in names:
            return (layer, partner) if own == "encoder" else (partner, layer)
    return None


def parts_of(run: Run, layer: str) -> tuple[str, ...]:
    """The layers that are decomposed together with this one: encoder and decoder, or the layer alone."""
    pair = encoder_and_decoder(run.layers, layer)
    if pair is None or len({run.description.layer(name).units.size for name in pair}) > 1:
        return (layer,)
    return pair


def _pod(run: Run, layer: str) -> xr.Dataset | None:
    parts = parts_of(run, layer)
    earlier = _earlier(run, layer, POD_STUDY)
    done = 0 if earlier is None else earlier.sizes["epoch"]
    units = run.description.layer(layer).units
    kept = min(COMPONENTS, units.size)
    padding = padding_of(run, parts)
    previous = None if earlier is None else _last_basis(earlier)
    labels = run.labels
    rows = []
    for epoch in run.epochs[done:]:
        states = [run.trace(part, epochs=float(epoch)).values[0] for part in parts]
        columns, _ = snapshots(states, [1.0] * len(parts), padding=padding)
        if columns is None:
            basis = diverged(float(epoch), units.size)
        else:
            basis = follow(float(epoch), decompose(columns), kept, previous)
        row = _row(basis, previous, units.size) | {"unit_energy": _unit_energy(columns, units.size)}
        if len(parts) == 2 and labels is not None and len(np.unique(labels)) > 1:
            row |= _roles(states, labels.values, basis)
        rows.append(row)
        previous = previous if basis.skipped else basis
    coords = {"epoch": run.epochs[done:], "unit": units, "threshold": np.array(THRESHOLDS)}
    for part, role in zip(parts, ("encoder_step", "decoder_step"), strict=False):
        if len(parts) == 2:
            coords[role] = run.description.layer(part).steps
    return _joined(earlier, _stacked(rows, _POD_DIMS, coords)).assign_attrs(
        parts=list(parts), center=False, unit_columns={"unit_energy": "energy share"}
    )


_POD_DIMS: Mapping[str, tuple[str, ...]] = {
    "energy": ("mode",),
    "dimension": ("threshold",),
    "percent_used": ("threshold",),
    "participation_ratio": (),
    "total_energy": (),
    "modes": ("unit", "component"),
    "rotation": ("component", "other_component"),
    "angle": (),
    "skipped": (),
    "unit_energy": ("unit",),
    "steering": ("encoder_step",),
    "spread": ("decoder_step",),
    "recurrence": ("decoder_step",),
}


def _row(basis: EpochBasis, previous: EpochBasis | None, units: int) -> dict[str, npt.NDArray[np.generic]]:
    """What is stored of one epoch; NaN where it has diverged."""
    kept = min(COMPONENTS, units)
    lost = basis.skipped
    shares = np.zeros(min(SPECTRUM, units))
    found = energy_fractions(basis.singular_values)[: len(shares)] if not lost else np.full(len(shares), np.nan)
    shares[: len(found)] = found
    modes, rotation = np.full((units, kept), np.nan), np.full((kept, kept), np.nan)
    if not lost:
        modes = np.pad(basis.modes, ((0, 0), (0, kept - basis.modes.shape[1])))
        rotation = np.eye(kept)
        rotation[: len(basis.rotation), : len(basis.rotation)] = basis.rotation
    dimensions = [0 if lost else int(effective_dimension(basis.singular_values, energy=p)) for p in THRESHOLDS]
    angle = np.nan
    if previous is not None and not lost:
        own = basis.modes[:, : max(dimensions[0], 1)]
        angles = subspace_angles(own, previous.modes[:, : own.shape[1]])
        angle = float(angles[0]) if angles.size else np.nan
    return {
        "energy": shares.astype(np.float32),
        "dimension": np.array(dimensions),
        "percent_used": np.where(lost, np.nan, 100 * np.array(dimensions) / units),
        "participation_ratio": np.asarray(np.nan if lost else participation_ratio(basis.singular_values)),
        "total_energy": np.asarray(np.nan if lost else (basis.singular_values**2).sum()),
        "modes": modes.astype(np.float32),
        "rotation": rotation.astype(np.float32),
        "angle": np.asarray(angle),
        "skipped": np.asarray(lost),
    }


def _unit_energy(snapshots: Float64 | None, units: int) -> npt.NDArray[np.float32]:
    """Each unit's share of the energy of all snapshots (snapshot, unit); NaN for an epoch that has diverged."""
    if snapshots is None:
        return np.full(units, np.nan, dtype=np.float32)
    energy = (snapshots**2).sum(axis=0)
    return np.asarray(energy / max(float(energy.sum()), np.finfo(float).tiny), dtype=np.float32)


def _roles(states: list[Float64], labels: npt.ArrayLike, basis: EpochBasis) -> dict[str, npt.NDArray[np.generic]]:
    """Steering of the encoder, spread and recurrence of the decoder relative to the distance between clusters.

    In the coordinates of the stored modes, averaged over classes.
    """
    if basis.skipped:
        return {
            "steering": np.full(len(states[0]), np.nan),
            "spread": np.full(len(states[1]), np.nan),
            "recurrence": np.full(len(states[1]), np.nan),
        }
    encoder, decoder = (np.einsum("tus,uk->tsk", part.astype(np.float64), basis.modes) for part in states)
    stay = attractor(decoder, labels, most_states=500)
    scale = np.where(stay.separation > 0, stay.separation, np.nan)
    return {
        "steering": steering(encoder, decoder, labels).median,
        "spread": _mean_of_known(stay.spread / scale),
        "recurrence": _mean_of_known(stay.recurrence / scale),
    }


def _mean_of_known(values: Float64) -> Float64:
    """The mean over classes (last axis) of what is known: a class of one sequence has no recurrence."""
    known = np.isfinite(values)
    count = known.sum(axis=-1)
    return np.asarray(np.where(count > 0, np.where(known, values, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan))


def _separability(run: Run, layer: str) -> xr.Dataset | None:
    if run.labels is None or len(np.unique(run.labels)) < 2:
        return None
    earlier = _earlier(run, layer, SEPARABILITY_STUDY)
    done = 0 if earlier is None else earlier.sizes["epoch"]
    padding = padding_of(run, (layer,))
    mask = None if padding is None else padding[0]
    rows = []
    for epoch in run.epochs[done:]:
        trace = run.trace(layer, epochs=float(epoch))
        found = measures(sequence_means(trace, padding=mask)[0], label_codes(trace))
        rows.append({name: np.asarray(value) for name, value in found.items()})
    dims: dict[str, tuple[str, ...]] = dict.fromkeys(MEASURES, ())
    joined = _joined(earlier, _stacked(rows, dims, {"epoch": run.epochs[done:]}))
    joined["phase"] = ("epoch", phase_of(joined["silhouette"].values))
    loss = _training_loss(run)
    if loss is not None:
        joined["overtraining"] = ("epoch", overtraining(joined["silhouette"].values, loss))
    return joined


def _training_loss(run: Run) -> Float64 | None:
    """The training loss of each epoch, if one was logged under a name that says so."""
    metrics = run.metrics()
    names = [str(name) for name in metrics.columns if "loss" in str(name).lower()]
    names.sort(key=lambda name: ("train" not in name.lower(), name))
    return metrics[names[0]].to_numpy(dtype=np.float64) if names else None


def _earlier(run: Run, layer: str, study: Study) -> xr.Dataset | None:
    """What was studied before, if it was made from epochs that the run still has; phases are not kept."""
    stored = run.results.get(layer, study.method, study.parameters)
    if stored is None or not 0 < stored.sizes["epoch"] < run.epochs.size:
        return None
    count = stored.sizes["epoch"]
    if not np.array_equal(stored["epoch"], run.epochs[:count]):
        return None
    if stored.attrs.get("made_from") != run.fingerprint(layer, count=count):
        return None
    return stored.drop_vars(["phase", "overtraining"], errors="ignore")


def _last_basis(stored: xr.Dataset) -> EpochBasis | None:
    """The newest basis that did not diverge."""
    good = np.flatnonzero(~stored["skipped"].values)
    if not good.size:
        return None
    newest = stored.isel(epoch=good[-1])
    modes = newest["modes"].values.astype(np.float64)
    epoch, rotation = float(newest["epoch"]), newest["rotation"].values.astype(np.float64)
    return EpochBasis(epoch, np.zeros(0), modes, rotation, np.zeros(len(modes)), np.zeros(0))


def padding_of(run: Run, parts: tuple[str, ...]) -> Masks | None:
    """Which (step, sample) of each layer are padding: those that are NaN in the first epoch that is not all NaN."""
    for epoch in run.epochs:
        masks = [np.isnan(run.trace(part, epochs=float(epoch)).values[0]).all(axis=1) for part in parts]
        if not all(mask.all() for mask in masks):
            return masks
    return None


def _stacked(
    rows: list[dict[str, npt.NDArray[np.generic]]],
    dims: Mapping[str, tuple[str, ...]],
    coords: Mapping[str, npt.NDArray[np.generic]],
) -> xr.Dataset:
    variables = {name: (("epoch", *dims[name]), np.stack([row[name] for row in rows])) for name in rows[0]}
    return xr.Dataset(variables, coords=dict(coords))


def _joined(earlier: xr.Dataset | None, new: xr.Dataset) -> xr.Dataset:
    if earlier is None:
        return new
    return xr.concat([earlier, new], "epoch", data_vars="minimal", coords="minimal", compat="override", join="override")


POD_STUDY = Study(
    "pod", "orthogonal modes (POD)", _pod, {"center": False, "components": COMPONENTS, "version": 2}, live=True
)
SEPARABILITY_STUDY = Study("separability", "separability of classes", _separability, {}, live=True)
