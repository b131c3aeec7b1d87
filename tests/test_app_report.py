"""The report is one file that says everything and asks nobody; the figures are at hand in Python too."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

from hiddenscope.cli import main
from hiddenscope.dashboard import plot
from hiddenscope.dashboard.report import report_html
from hiddenscope.description import LayerDescription, RunDescription, Snapshot
from hiddenscope.run import open_run
from hiddenscope.store import SnapshotWriter

STEPS, UNITS, SAMPLES = 5, 4, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs") / "version_<0>"
    description = RunDescription(
        layers=tuple(LayerDescription(n, "LSTM", np.arange(UNITS), np.arange(STEPS)) for n in ("lstm", "a<b>&c")),
        samples=np.arange(SAMPLES),
        labels=np.arange(SAMPLES) % 2,
        label_names=("up", "down"),
        probe_fingerprint="probe",
        model="Net",
    )
    rng = np.random.default_rng(0)
    with SnapshotWriter.open(folder / "hiddenscope", description) as writer:
        for epoch in range(-1, 3):
            states = {n: rng.normal(size=(STEPS, UNITS, SAMPLES)).astype(np.float32) for n in ("lstm", "a<b>&c")}
            writer.append(Snapshot(float(epoch), states, {"train_loss": 0.25}))
        writer.finish("finished")
    return folder


class Seen(HTMLParser):
    """Addresses that a browser would fetch, and the text a reader sees."""

    def __init__(self):
        super().__init__()
        self.fetched, self.text, self.graphs, self._script = [], [], 0, False

    def handle_starttag(self, tag, attrs):
        self._script = tag in ("script", "style")
        named = dict(attrs)
        self.fetched += [named[name] for name in ("src", "href", "data", "action") if named.get(name)]
        self.graphs += "plotly-graph-div" in (named.get("class") or "")

    def handle_endtag(self, tag):
        self._script = False

    def handle_data(self, data):
        if not self._script:
            self.text.append(data)


def test_the_report_holds_facts_and_figures_of_every_layer_and_fetches_nothing(folder):
    page = report_html(open_run(folder))
    seen = Seen()
    seen.feed(page)
    text = " ".join(seen.text)
    assert seen.fetched == []
    assert seen.graphs == 2 * 4
    for fact in ("Net", "finished", "4: untrained to 2", "train_loss", "0.25", "a<b>&c", "LSTM, 4 units, 5 steps"):
        assert fact in text, fact
    assert len(re.findall(r"\* plotly\.js v", page)) == 1, "plotly.js is inside once"
    assert len(page.encode()) < 12 * 2**20


def test_the_command_writes_the_report_and_says_where(folder, tmp_path, capsys):
    target = tmp_path / "out.html"
    assert main(["report", str(folder), "-o", str(target)]) == 0
    assert str(target) in capsys.readouterr().out
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere", "-o", "x.html"], "nowhere"),
        (["{run}", "-o", "no/such/folder/x.html"], "create no/such/folder first"),
        (["{run}", "-o", "{out}"], "got the folder"),
    ],
)
def test_what_the_report_cannot_do_is_one_line_with_exit_code_2(folder, tmp_path, arguments, complaint, capsys):
    told = [argument.format(run=folder, out=tmp_path) for argument in arguments]
    assert main(["report", *told]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert complaint in error


def test_a_run_plots_both_sides_of_the_page(folder):
    cloud, curves = plot.run(open_run(folder), "lstm")
    assert len(cloud.data[0].x) == 4 * STEPS * UNITS
    assert "train_loss" in {trace.name for trace in curves.data}
    with pytest.raises(ValueError, match="say which"):
        plot.run(open_run(folder))


def test_an_entropy_is_drawn_by_its_dims():
    over_steps = xr.DataArray(np.ones((2, 3)), dims=("epoch", "step"), coords={"epoch": [0, 1]})
    assert plot.entropy(over_steps).data[-1].name == "mean over steps"
    over_units = xr.DataArray(np.ones((2, 3)), dims=("epoch", "unit"), coords={"epoch": [0, 1], "unit": [0, 1, 2]})
    assert plot.entropy(over_units).data[-1].name == "median"
    with pytest.raises(ValueError, match="dims"):
        plot.entropy(over_steps.rename(step="sample"))


def test_the_figures_are_at_the_front_door():
    import hiddenscope as hs

    cloud = np.random.default_rng(0).normal(size=(2, 3, 4, 3))
    assert len(hs.plot.embedding(cloud).data[0].x) == 24
