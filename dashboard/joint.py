"""Two runs in one picture: embedded together, so that what lies close in it responds alike, in whichever run."""

from __future__ import annotations

import time
import warnings

import numpy as np
import xarray as xr

from hiddenscope.dashboard.picture import measured, most_active_class, named, node_limit, note_of, parameters, thinned
from hiddenscope.run import Run

METHOD = "joint"


def why_not(first: Run, second: Run, layer: str) -> str:
    """Why two runs cannot be in one picture; empty where they can.

    One picture needs the same probe, for a node is what a unit answers to each sample; and the same units and steps.
    """
    if layer not in first.layers or layer not in second.layers:
        return f"both runs need a layer {layer!r}; they have {', '.join(first.layers)} and {', '.join(second.layers)}"
    one, two = first.description, second.description
    if one.probe_fingerprint != two.probe_fingerprint or not np.array_equal(one.samples, two.samples):
        return "the runs were recorded on different probe samples; record both with the same probe="
    for what in ("units", "steps"):
        ours, theirs = getattr(one.layer(layer), what), getattr(two.layer(layer), what)
        if not np.array_equal(ours, theirs):
            return f"the layers have {len(ours)} and {len(theirs)} {what}; one picture needs the same {what} in both"
    return ""


def joint_picture(first: Run, second: Run, layer: str) -> xr.Dataset:
    """Two runs embedded as one: the epochs of the second follow those of the first on the axis of epochs.

    A unit is tied to itself across epochs and thereby across the runs, as MM-PHATE ties the epochs of one run. Our own
    choice: the paper embeds one run at a time.

    Args:
        first, second: runs of the same units, steps and probe samples.
        layer: the layer, of the same name in both.

    Returns:
        ``embedding`` (epoch, step, unit, component), entropies and ``most_active_class`` as `Painter.paint` gives them,
        where ``epoch`` counts on through both runs; ``run`` (epoch,), 0 or 1, and ``epoch_of_run`` (epoch,) tell which
        epoch of which run that is.

    Raises:
        ValueError: the runs do not match; the message is `why_not`'s.
    """
    from hiddenscope.analyses.entropy import inter_step_entropy, intra_step_entropy
    from hiddenscope.embeddings.mmphate import MMPHATE

    problem = why_not(first, second, layer)
    if problem:
        raise ValueError(problem)
    began = time.time()
    described = first.description.layer(layer)
    counts = [len(run.epochs) for run in (first, second)]
    estimator = MMPHATE(**parameters())
    sizes = {"epoch": sum(counts), "step": len(described.steps), "unit": len(described.units)}
    longest = {**sizes, "epoch": 2 * max(counts)}
    stride, _ = thinned(longest, node_limit(estimator.solver))
    steps = described.steps[stride]
    kept = [thinned({**sizes, "epoch": n, "step": len(steps)}, node_limit(estimator.solver) // 2)[1] for n in counts]
    traces = [
        run.trace(layer, epochs=run.epochs[chosen], steps=steps)
        for run, chosen in zip((first, second), kept, strict=True)
    ]
    epochs = np.concatenate([trace["epoch"].values for trace in traces])
    trace = xr.concat(traces, dim="epoch", join="override").assign_coords(epoch=np.arange(len(epochs), dtype=float))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        embedding = named(estimator.fit(trace).embedding_)
    return xr.Dataset(
        {
            "embedding": embedding,
            "intra_step_entropy": named(intra_step_entropy(embedding)),
            "inter_step_entropy": named(inter_step_entropy(embedding)),
            "most_active_class": most_active_class(trace),
            "run": ("epoch", np.repeat([0, 1], [len(chosen) for chosen in kept])),
            "epoch_of_run": ("epoch", epochs),
        },
        attrs={
            "method": METHOD,
            "parameters": parameters(),
            "runs": [first.path, second.path],
            "made_from": [first.fingerprint(layer), second.fingerprint(layer)],
            "covers_epoch": float(first.epochs[-1]),
            "computed_at": time.time(),
            "seconds": time.time() - began,
            "note": note_of(sizes, {"step": len(steps), "epoch": len(epochs)}),
            **measured(trace, embedding),
        },
    )
