"""``hiddenscope experiment seq2seq``: the orthogonal modes of a GRU encoder and decoder that predict sequences.

The setting of Su & Shlizerman (2019, arXiv:1905.12176): motion on circles and ellipses, whose modes are known, then
human motion, or the watch data where no motion capture is installed. How many dimensions does the network use, do the
kinds of motion come apart, what do encoder and decoder do, and where does a long sequence change its kind?
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.experiments.experiment import Context, Experiment

if TYPE_CHECKING:
    import pandas as pd

    from hiddenscope.experiments.sequence_models import EncoderDecoder
    from hiddenscope.run import Run

Windows = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int64]

ENCODER_STEPS = DECODER_STEPS = 25
"""Steps read and steps predicted, as in the authors' code."""


@dataclass(frozen=True)
class Task:
    """Windows to learn from and to be judged on, and a long sequence to cut into pieces.

    Attributes:
        name: of the data.
        train, held_out: shape (window, step, feature), standardized by the training part.
        train_labels, held_out_labels: kind of each window; the training does not see them.
        names: of the kinds.
        long: shape (step, feature).
        long_truth: shape (step,), the kind of each step.
        note: what a reader of the numbers has to know.
    """

    name: str
    train: Windows
    train_labels: Codes
    held_out: Windows
    held_out_labels: Codes
    names: tuple[str, ...]
    long: npt.NDArray[np.float64]
    long_truth: Codes
    note: str


def ellipses(*, quick: bool, seed: int) -> Task:
    """Circles and ellipses, and a long sequence of six pieces of three periods each."""
    from hiddenscope.experiments.datasets.ellipses import KINDS, ellipse, load_ellipses

    steps, names = ENCODER_STEPS + DECODER_STEPS, tuple(KINDS)
    train, labels = load_ellipses(per_kind=8 if quick else 64, steps=steps, seed=seed)
    judged, judged_labels = load_ellipses(per_kind=6 if quick else 16, steps=steps, seed=seed + 1)
    order = np.array([0, 1, 2, 1, 0, 2])
    pieces = [ellipse(list(KINDS.values())[kind], 75, phase=k) for k, kind in enumerate(order)]
    return _standardized("ellipses", train, labels, judged, judged_labels, names, pieces, order, "")


def motion(*, quick: bool, seed: int) -> Task:
    """Motion capture: windows of every clip, each fifth held out, and a long sequence of six clips."""
    from hiddenscope.experiments.datasets.motion import load_motion

    clips = load_motion()
    if quick:
        clips = {name: clips[name] for name in list(clips)[:3]}
    steps, stride = ENCODER_STEPS + DECODER_STEPS, 25 if quick else 5
    windows, labels = [], []
    for code, frames in enumerate(clips.values()):
        cut = np.lib.stride_tricks.sliding_window_view(frames, steps, axis=0)[::stride].transpose(0, 2, 1)
        windows.append(cut)
        labels.append(np.full(len(cut), code))
    all_windows, all_labels = np.concatenate(windows), np.concatenate(labels)
    held = np.arange(len(all_labels)) % 5 == 2
    wanted: list[str] = [
        name for name in ("walk", "spin", "crawl", "run", "dance b", "cartwheel") if name in clips
    ] or list(clips)
    order = np.array([list(clips).index(name) for name in wanted])
    pieces = [clips[name][:160] for name in wanted]
    note = "held-out windows overlap training windows of the same clips: there is one person and one take of each"
    return _standardized(
        "motion",
        all_windows[~held],
        all_labels[~held],
        all_windows[held],
        all_labels[held],
        tuple(clips),
        pieces,
        order,
        note,
    )


def watch(*, quick: bool, seed: int) -> Task:
    """The watch data: the first 50 steps of each window, whole subjects held out, and six held-out windows in a row."""
    from hiddenscope.experiments.datasets.sequences import hold_out_groups
    from hiddenscope.experiments.datasets.watch import HELD_OUT_SUBJECTS, load_watch

    split = hold_out_groups(load_watch(), HELD_OUT_SUBJECTS)
    steps, stride = ENCODER_STEPS + DECODER_STEPS, 60 if quick else 4
    train, held = split.train, split.held_out
    order = np.random.default_rng(seed).permutation(len(train.label_names))[:6]
    pieces = [held.inputs[np.flatnonzero(held.labels == kind)[20]].astype(np.float64) for kind in order]
    return _standardized(
        "watch",
        train.inputs[::stride, :steps],
        train.labels[::stride],
        held.inputs[::stride, :steps],
        held.labels[::stride],
        train.label_names,
        pieces,
        order,
        "",
    )


def _standardized(
    name: str,
    train: npt.NDArray[np.floating],
    labels: Codes,
    judged: npt.NDArray[np.floating],
    judged_labels: Codes,
    names: tuple[str, ...],
    pieces: list[npt.NDArray[np.float64]],
    order: Codes,
    note: str,
) -> Task:
    """A task with every feature scaled to mean 0 and deviation 1; features that hardly vary are left out."""
    mean, deviation = train.mean(axis=(0, 1)), train.std(axis=(0, 1))
    kept = deviation > 1e-4  # as in the authors' code

    def scaled(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        return np.asarray(((values - mean) / np.where(kept, deviation, 1.0))[..., kept])

    return Task(
        name,
        scaled(train).astype(np.float32),
        np.asarray(labels, dtype=np.int64),
        scaled(judged).astype(np.float32),
        np.asarray(judged_labels, dtype=np.int64),
        names,
        scaled(np.concatenate(pieces)).astype(np.float64),
        np.repeat(order, [len(piece) for piece in pieces]).astype(np.int64),
        note,
    )


def probe_of(task: Task, *, per_kind: int) -> tuple[Windows, Codes]:
    """Held-out windows, at most so many of each kind, evenly spread."""
    chosen = []
    for kind in range(len(task.names)):
        members = np.flatnonzero(task.held_out_labels == kind)
        chosen.append(members[np.unique(np.linspace(0, len(members) - 1, per_kind).astype(int))])
    picked = np.concatenate(chosen)
    return task.held_out[picked], task.held_out_labels[picked]


def observe(
    task: Task, folder: Path, *, units: int, epochs: int, seed: int, quick: bool, context: Context
) -> xr.Dataset:
    """Train and record one network, study its run, and cut the long sequence; what came of it for each epoch."""
    from hiddenscope.analyses.pod import POD_STUDY, SEPARABILITY_STUDY
    from hiddenscope.analyses.studies import make
    from hiddenscope.errors import RunLockedError
    from hiddenscope.experiments.sequence_models import train
    from hiddenscope.results import ResultStore
    from hiddenscope.run import open_run

    shutil.rmtree(folder, ignore_errors=True)
    model = train(
        folder,
        task.train,
        task.held_out,
        probe_of(task, per_kind=4 if quick else 8),
        label_names=task.names,
        encoder_steps=ENCODER_STEPS,
        units=units,
        epochs=epochs,
        seed=seed,
        watch=lambda numbers: context.progress(numbers, task.name),
    )
    run = open_run(folder)
    pieces = segments(task, model)
    try:
        with ResultStore.open(run.location, writable=True) as store:
            for layer in run.layers:
                for study in (POD_STUDY, SEPARABILITY_STUDY):
                    make(study, run, layer, store)
                store.put(layer, "segmentation", {"threshold": pieces.attrs["threshold"]}, pieces)
    except RunLockedError:
        context.note(f"{task.name}: a page that is open on this run writes its results, so it does not show the pieces")
    modes, classes = POD_STUDY.compute(run, "decoder"), SEPARABILITY_STUDY.compute(run, "decoder")
    assert modes is not None
    assert classes is not None
    return _numbers(run, modes, classes, pieces).merge(pieces, combine_attrs="drop_conflicts")


def segments(task: Task, model: EncoderDecoder) -> xr.Dataset:
    """The long sequence cut by the authors' threshold of 1; where that cuts nothing, by one that suits the model.

    The second is ours: the 99th percentile of the loss of single held-out windows. Both are scored.
    """
    import torch
    from sklearn.metrics import adjusted_rand_score

    from hiddenscope.analyses.segmentation import best_match, label_steps, segment
    from hiddenscope.experiments.sequence_models import predictor

    with torch.no_grad():
        found = model(torch.from_numpy(task.held_out[:, :ENCODER_STEPS])).numpy()
    ordinary = float(np.percentile(((found - task.held_out[:, ENCODER_STEPS:]) ** 2).mean(axis=(1, 2)), 99))
    kinds = len(np.unique(task.long_truth))
    outcomes: dict[str, Any] = {}
    for name, threshold in (("authors", 1.0), ("ordinary", ordinary)):
        cut = segment(
            task.long,
            predictor(model),
            encoder_steps=ENCODER_STEPS,
            decoder_steps=DECODER_STEPS,
            threshold=threshold,
        )
        labelled = np.isfinite(cut.states).all(axis=1).sum() >= kinds
        labels = label_steps(cut, kinds) if labelled else np.zeros(len(task.long), dtype=np.int64)
        outcomes[name] = (cut, labels, float(adjusted_rand_score(task.long_truth, labels)), threshold)
    cut, labels, _, threshold = outcomes["authors" if outcomes["authors"][0].cuts.size else "ordinary"]
    changes = np.flatnonzero(np.diff(task.long_truth)) + 1
    near = [bool(cut.cuts.size and np.abs(cut.cuts - change).min() <= 12) for change in changes]
    return xr.Dataset(
        {
            "label": ("step", best_match(labels, task.long_truth)),
            "truth": ("step", task.long_truth),
            "error": ("step", cut.errors),
            "cut": ("piece", cut.cuts),
        },
        attrs={
            "threshold": threshold,
            "ari_authors": outcomes["authors"][2],
            "ari_ordinary": outcomes["ordinary"][2],
            "changes": len(changes),
            "changes_found": sum(near),
            "cuts": len(cut.cuts),
            "names": list(task.names),
        },
    )


def _numbers(run: Run, modes: xr.Dataset, classes: xr.Dataset, pieces: xr.Dataset) -> xr.Dataset:
    """What the tables need, over epochs."""
    from hiddenscope.analyses.separability import separability

    metrics = run.metrics()
    below = modes["steering"].values < 1
    lasting = np.logical_and.accumulate(below[:, ::-1], axis=1)[:, ::-1]
    found = xr.Dataset(coords={"epoch": run.epochs})
    found["train_loss"] = ("epoch", metrics["train_loss"].to_numpy())
    found["val_loss"] = ("epoch", metrics["val_loss"].to_numpy())
    for share in (0.9, 0.99):
        found[f"modes_{share:.0%}"] = ("epoch", modes["dimension"].sel(threshold=share).values)
    found["percent_used"] = ("epoch", modes["percent_used"].sel(threshold=0.9).values)
    found["participation_ratio"] = ("epoch", modes["participation_ratio"].values)
    found["crossing"] = ("epoch", np.where(lasting.any(axis=1), lasting.argmax(axis=1), -1))
    found["spread"] = ("epoch", modes["spread"].mean("decoder_step").values)
    found["recurrence"] = ("epoch", modes["recurrence"].mean("decoder_step").values)
    for name in ("silhouette", "nearest_centroid", "ari"):
        found[name] = ("epoch", classes[name].values)
    found["ari_states"] = ("epoch", separability(run.trace("decoder"), points="states")["ari"].values)
    return found


def table(found: xr.Dataset, name: str) -> pd.DataFrame:
    """The untrained network, the epoch of lowest held-out loss, and the last epoch, one row each."""
    import pandas as pd

    best = int(np.nanargmin(found["val_loss"].values))
    rows = []
    for when, at in (("untrained", 0), ("lowest loss", best), ("last", found.sizes["epoch"] - 1)):
        here = found.isel(epoch=at)
        row = {"data": name, "when": when, "epoch": float(here["epoch"])}
        rows.append(row | {str(key): float(value) for key, value in here.data_vars.items() if not value.dims})
    return pd.DataFrame(rows)


def known_modes(seed: int) -> pd.DataFrame:
    """Share of energy of the first mode of each kind's sequences, and what its semi-axes say that it must be."""
    import pandas as pd

    from hiddenscope.embeddings.pod import POD
    from hiddenscope.experiments.datasets.ellipses import KINDS, load_ellipses

    inputs, labels = load_ellipses(per_kind=64, steps=50, seed=seed)
    rows = []
    for kind, (name, (a, b)) in enumerate(KINDS.items()):
        states = inputs[labels == kind].transpose(1, 2, 0)[None]
        first = float(POD().fit(states).energy_[0, 0])
        rows.append({"kind": name, "expected": max(a, b) ** 2 / (a**2 + b**2), "measured": first})
    return pd.DataFrame(rows)


def draw(context: Context, name: str, run: Run, pieces: xr.Dataset) -> None:
    """The panel's figures for the last epoch of a run, and its paths before the training."""
    from hiddenscope.analyses.pod import POD_STUDY, SEPARABILITY_STUDY, parts_of
    from hiddenscope.dashboard.figures.pod import scree, trajectories
    from hiddenscope.dashboard.figures.pod_course import progress, segmentation_strip

    modes, classes = POD_STUDY.compute(run, "decoder"), SEPARABILITY_STUDY.compute(run, "decoder")
    assert modes is not None
    assert run.labels is not None
    for when, at in (("before", 0), ("after", modes.sizes["epoch"] - 1)):
        spatial = modes["modes"].isel(epoch=at).values.astype(np.float64)
        states = [run.trace(part, epochs=float(modes["epoch"][at])).values[0] for part in parts_of(run, "decoder")]
        encoder, decoder = (np.einsum("tus,uk->tsk", part.astype(np.float64), spatial) for part in states)
        figure = trajectories(
            decoder,
            encoder=encoder,
            labels=run.labels.values,
            class_names=run.label_names,
            means=name != "ellipses",  # the mean of circles of random phase is a point
            title=f"{name}, {when} the training: encoder dotted, decoder solid",
        )
        context.figure(f"{name}-paths-{when}", figure, width=760, height=560)
    context.figure(f"{name}-scree", scree(modes["energy"], dimension=modes["dimension"]), width=620, height=380)
    context.figure(f"{name}-course", progress(modes, classes, run.metrics()), width=900, height=620)
    strip = segmentation_strip(
        pieces["label"].values,
        pieces["truth"].values,
        names=run.label_names,
        cuts=pieces["cut"].values,
        errors=pieces["error"].values,
    )
    context.figure(f"{name}-segments", strip, width=1000, height=300)


def _run(context: Context) -> None:
    import pandas as pd
    import torch

    from hiddenscope.experiments.datasets.motion import motion_installed
    from hiddenscope.experiments.stopping import rank_correlation
    from hiddenscope.run import open_run

    torch.set_num_threads(1)
    units, epochs = (8, 2) if context.quick else (64, 60)
    second = motion if motion_installed() else watch
    if second is watch:
        context.note("no motion capture is installed (pybullet), so the watch data takes its place")
    tables = []
    for make_task in (ellipses, second):
        task = make_task(quick=context.quick, seed=context.seed)
        folder = context.out / "runs" / task.name
        parameters = {"units": units, "epochs": epochs, "windows": len(task.train), "layout": 2}
        if not folder.exists():
            for path in (context.out / "cache").glob(f"{task.name}-*"):  # what was made from a run that is gone
                path.unlink()
        found = context.cached(
            task.name,
            parameters,
            lambda task=task, folder=folder: observe(  # type: ignore[misc]
                task, folder, units=units, epochs=epochs, seed=context.seed, quick=context.quick, context=context
            ),
        )
        if task.note:
            context.note(f"{task.name}: {task.note}")
        tables.append(table(found, task.name))
        context.number(f"{task.name}: windows", len(task.train))
        for key in ("ari_authors", "ari_ordinary", "threshold", "changes", "changes_found", "cuts"):
            context.number(f"{task.name}: segmentation {key}", found.attrs[key])
        trained = found.isel(epoch=slice(1, None))
        agreement = rank_correlation(trained["silhouette"].values, -trained["val_loss"].values)
        context.number(f"{task.name}: rank correlation of silhouette and falling loss", agreement)
        draw(context, task.name, open_run(folder), found)
    both = pd.concat(tables)
    context.table("epochs", both)
    context.table("known-modes", known_modes(context.seed))
    context.say(both.T.to_string(header=False, float_format=lambda value: f"{value:.3f}"))
    context.say(known_modes(context.seed).to_string(index=False))


EXPERIMENT = Experiment("seq2seq", "Orthogonal modes of an encoder and a decoder that predict sequences", _run)
