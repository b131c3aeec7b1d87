"""Small runs for the tests of the store, whose every number follows from its epoch. Imports the core alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from hiddenscope.run import Run
from hiddenscope.store import LayerDescription, ModuleDescription, RunDescription, Snapshot, SnapshotWriter

STEPS, SAMPLES = 3, 50  # the smallest states that are files of their own, not parts of a manifest
SHAPES = {
    "lstm": {"weight_hh_l0": (12, 3), "bias_hh_l0": (12,)},
    "decoder/gru.0": {"weight_hh_l0": (40, 40), "scale": ()},  # a chunk of its own
}
UNITS = {"lstm": np.array([0, 1, 5]), "decoder/gru.0": np.array(["forward 0", "backward 0"])}


def description(**changes: Any) -> RunDescription:
    """A run with two layers, one of whose names and units are awkward."""
    kinds = {"lstm": "LSTM", "decoder/gru.0": "GRU"}
    settings: dict[str, Any] = {
        "layers": tuple(
            LayerDescription(name, kinds[name], units, np.arange(STEPS), {"batch_first": True, "module": name})
            for name, units in UNITS.items()
        ),
        "samples": np.arange(10, 10 + SAMPLES),
        "labels": np.arange(SAMPLES) % 3,
        "label_names": ("walk", "run", "sit"),
        "probe_fingerprint": "f00d",
        "model": "Classifier",
        "settings": {"every": 1},
        "modules": tuple(ModuleDescription(name, kinds[name], SHAPES[name]) for name in UNITS),
        "token_names": ("the", "a", "naïve"),
        "probe": np.arange(SAMPLES * STEPS * 2, dtype=np.float32).reshape(SAMPLES, STEPS, 2),
    }
    return RunDescription(**{**settings, **changes})


def of_one_layer(
    steps: int, units: int, samples: int, *, layer: str = "lstm", kind: str = "LSTM", **changes: Any
) -> RunDescription:
    """A run with one layer and no labels."""
    settings: dict[str, Any] = {
        "layers": (LayerDescription(layer, kind, np.arange(units), np.arange(steps)),),
        "samples": np.arange(samples),
        "labels": None,
        "label_names": None,
        "probe_fingerprint": "probe",
        "model": "Net",
    }
    return RunDescription(**{**settings, **changes})


def states(epoch: float, *, seed: int = 0) -> dict[str, np.ndarray]:
    """The states of both layers: noise that only this epoch and seed have."""
    rng = np.random.default_rng([seed, round(1000 * (epoch + 2))])
    return {name: rng.normal(size=(STEPS, units.size, SAMPLES)).astype(np.float32) for name, units in UNITS.items()}


def weights(epoch: float, *, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """The parameters of both modules."""
    rng = np.random.default_rng([seed, round(1000 * (epoch + 2)), 1])
    return {
        module: {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        for module, shapes in SHAPES.items()
    }


def metrics(epoch: float, *, seed: int = 0) -> dict[str, float]:
    """Two metrics; the second appears only from epoch 2 on."""
    found = {"train_loss": 1 / (epoch + 2) + seed}
    return found if epoch < 2 else {**found, "val_loss": 2 * epoch}


def snapshot(epoch: float, *, seed: int = 0) -> Snapshot:
    """What is recorded after ``epoch``."""
    return Snapshot(epoch, states(epoch, seed=seed), metrics(epoch, seed=seed), weights(epoch, seed=seed))


def assert_holds(run: Run, expected: Mapping[float, int]) -> None:
    """The run holds exactly the snapshots of these epochs, each made with its seed."""
    np.testing.assert_array_equal(run.epochs, list(expected))
    table = run.metrics()
    for layer in UNITS:
        trace = run.trace(layer)
        for row, (epoch, seed) in enumerate(expected.items()):
            np.testing.assert_array_equal(trace.values[row], states(epoch, seed=seed)[layer])
            assert_equal_weights(run.weights(layer, epoch), weights(epoch, seed=seed)[layer])
    for epoch, seed in expected.items():
        for name, value in metrics(epoch, seed=seed).items():
            assert table.loc[epoch, name] == value


def assert_equal_weights(found: Mapping[str, np.ndarray] | None, expected: Mapping[str, np.ndarray]) -> None:
    """The same names in the same order, with the same numbers."""
    assert found is not None
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def write_until_killed(location: str, after: float | None, seed: int, pipe: Connection) -> None:
    """Write epoch after epoch and tell of each, until somebody ends this process."""
    heavy = {"torch", "phate", "dash", "pytorch_lightning"} & set(sys.modules)
    pipe.send(("started", sorted(heavy)))
    with SnapshotWriter.open(location, description(), resume_after=after) as writer:
        epoch = float(writer.epochs[-1]) if writer.epochs.size else -2.0
        pipe.send(("opened", epoch))
        while True:
            epoch += 1
            writer.append(snapshot(epoch, seed=seed))
            pipe.send(("committed", epoch))
