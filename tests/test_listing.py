"""The list of runs: what became of each, and where its metrics stand."""

import numpy as np
import pytest

from hiddenscope.dashboard import listing
from hiddenscope.dashboard.library import MOST_SHELVES, Library
from hiddenscope.description import Snapshot
from hiddenscope.store import SnapshotWriter
from store_examples import of_one_layer

DESCRIPTION = of_one_layer(2, 3, 4)


def record(folder, epochs, *, status="finished", resume_after=None):
    with SnapshotWriter.open(folder / "hiddenscope", DESCRIPTION, resume_after=resume_after) as writer:
        for epoch in epochs:
            metrics = {"accuracy": 0.5, "val_loss": 1.0 / (epoch + 1), "hiddenscope/lstm/change": 1.0}
            writer.append(Snapshot(float(epoch), {"lstm": np.zeros((2, 3, 4), np.float32)}, metrics))
        writer.finish(status)


@pytest.fixture
def folder(tmp_path):
    record(tmp_path / "whole", range(4))
    record(tmp_path / "again", range(3), status="interrupted")
    record(tmp_path / "again", range(2, 5), resume_after=1.0)
    broken = tmp_path / "broken" / "hiddenscope" / "snapshots"
    broken.mkdir(parents=True)
    (broken / "repo").write_bytes(b"\x00 not a repository")
    return tmp_path


def test_each_run_says_what_became_of_it_how_far_it_came_and_where_its_metrics_stand(folder):
    rows = {row["run"]: row for row in listing.rows(Library(folder), "whole")}
    assert (rows["whole"]["status"], rows["whole"]["epochs"], rows["whole"]["last"]) == ("finished", 4, 3.0)
    assert rows["again"]["status"] == "finished, resumed after epoch 1"
    assert rows["again"]["last"] == 4.0
    assert rows["whole"]["open"]
    assert not rows["again"]["open"]
    assert list(rows["whole"]["metrics"].items()) == [("val_loss", 0.25), ("accuracy", 0.5)], "losses first, ours not"
    assert rows["broken"]["epochs"] == 0
    assert rows["broken"]["metrics"] == {}
    assert rows["broken"]["state"] != "finished"


def test_the_columns_of_metrics_are_those_of_the_runs(folder):
    names = [
        column.get("headerName", column.get("field")) for column in listing.columns(listing.rows(Library(folder), None))
    ]
    assert names[-2:] == ["val_loss", "accuracy"]
    assert listing.columns([])[-1]["field"] == "layers"


def test_the_metrics_of_a_run_are_read_again_only_when_it_has_grown(folder, monkeypatch):
    library = Library(folder)
    assert library.final_metrics("again")["val_loss"] == 0.2
    monkeypatch.setattr("hiddenscope.dashboard.library.LISTING_SECONDS", 0.0)
    reads = []
    honest = library.__class__.final_metrics.__globals__["open_run"]
    monkeypatch.setattr("hiddenscope.dashboard.library.open_run", lambda path: reads.append(path) or honest(path))
    library.final_metrics("again")
    assert reads == []
    record(folder / "again", [5], resume_after=4.0)
    assert library.final_metrics("again")["val_loss"] == pytest.approx(1 / 6)
    assert len(reads) == 1
    assert library.final_metrics("no such run") == {}


def test_only_a_few_runs_stay_open_however_many_are_looked_at(tmp_path):
    for number in range(MOST_SHELVES + 3):
        record(tmp_path / f"version_{number}", [0])
    library = Library(tmp_path)
    for name in library.runs():
        assert library.view(name).epochs.tolist() == [0.0]
    assert len(library._shelves) == MOST_SHELVES
    assert library.view(next(iter(library.runs()))).layer == "lstm"
