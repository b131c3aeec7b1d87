"""What a page tells a panel when something on it is clicked: the scene it was drawn from, or anything at all."""

import numpy as np
import pytest

from hiddenscope.dashboard.library import Library
from hiddenscope.dashboard.panels.asked import run_asked, scene_asked, told
from hiddenscope.dashboard.panels.panel import Scene
from hiddenscope.description import Snapshot
from hiddenscope.store import SnapshotWriter
from store_examples import of_one_layer

CONTROLS = {"sign": ("active", ("high", "low"))}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    with SnapshotWriter.open(folder / "a" / "hiddenscope", of_one_layer(2, 3, 4)) as writer:
        writer.append(Snapshot(0.5, {"lstm": np.zeros((2, 3, 4), np.float32)}))
    return Library(folder)


def kept(library):
    view, run = library.pinned("a", "lstm")
    return told(Scene(view, run, {}, None, [], {"sign": "low"}, True), 0.5, CONTROLS)


def test_a_scene_that_was_told_is_found_again(library):
    asked = scene_asked(library, kept(library), CONTROLS)
    assert (asked.name, asked.view.layer, asked.epoch, asked.options, asked.dark) == (
        "a",
        "lstm",
        0.5,
        {"sign": "low"},
        True,
    )
    assert asked.run.epochs.tolist() == [0.5]


@pytest.mark.parametrize("odd", [None, True, "nowhere", ["x"], {"a": 1}, 10**400, float("nan")])
def test_a_scene_that_was_made_up_is_none(library, odd):
    assert scene_asked(library, odd, CONTROLS) is None
    for name in ("run", "epoch"):
        assert scene_asked(library, kept(library) | {name: odd}, CONTROLS) is None
    assert run_asked(library, odd, "lstm") is None
