"""The report is one file that says everything and asks nobody; the figures are at hand in Python too."""

import ast
import re
import shutil
import urllib.error
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import dash_mantine_components as dmc
import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from dash import dcc, html
from dash_ag_grid import AgGrid
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from hiddenscope.cli import main
from hiddenscope.dashboard import plot
from hiddenscope.dashboard.figures.table import HEAD, ROW
from hiddenscope.dashboard.panels import Panel
from hiddenscope.dashboard.picture import picture
from hiddenscope.dashboard.report import chapters, report_html
from hiddenscope.description import LayerDescription, RunDescription, Snapshot
from hiddenscope.run import open_run
from hiddenscope.store import ResultStore, SnapshotWriter
from hiddenscope.trace import EMBEDDING_DIMS

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


def draw(scene):
    """What a panel may draw: words, figures in nested parts, a table, and a control."""
    values = scene.results["numbers"]["value"]
    graph = dcc.Graph(figure=go.Figure(go.Scatter(y=values.values)), style={"height": "300px"}, config={})
    return [
        html.Div([html.P(["How many ", html.B("numbers"), " there are."]), dmc.Select(data=["not a word"])]),
        html.Div(html.Div(graph)),
        dcc.Graph(figure={"data": [{"type": "bar", "y": [1, 2]}], "layout": {"height": 250}}),
        html.Label(["a control", dmc.Select(data=["not a word"])]),
        AgGrid(
            rowData=[{"at": i, "value": i / 3 if i else None, "more": "<b>"} for i in range(20)],
            columnDefs=[{"field": "at", "flex": 2}, {"field": "value", "headerName": "a third"}],
        ),
    ]


PANEL = Panel("numbers", "Numbers", "A panel of numbers.", ("numbers",), draw, {"kind": ("kind", ["a", "b"])})
FAILS = Panel("fails", "Fails", "It fails.", (), lambda scene: 1 / 0)


@pytest.fixture
def panels(monkeypatch):
    """Two panels of our own, in place of whatever panels there are."""
    monkeypatch.setattr("hiddenscope.dashboard.panels.all_panels", lambda: (PANEL, FAILS))


def test_panels_are_part_of_the_report_once_something_is_stored_for_them(folder, tmp_path, panels):
    copied = tmp_path / "version_1"
    shutil.copytree(folder, copied)
    assert "A panel of numbers" not in report_html(open_run(copied))
    with ResultStore.open(copied / "hiddenscope", writable=True) as store:
        store.put("lstm", "numbers", {}, xr.Dataset({"value": ("at", np.arange(3.0))}))
    found = [
        chapter for chapter in chapters(open_run(copied), "lstm", picture(open_run(copied), "lstm")) if chapter.part
    ]
    assert [(each.part, each.about, each.height) for each in found] == [
        ("Numbers", ("A panel of numbers.", "How many numbers there are."), 300),
        ("Numbers", (), 250),
        ("Numbers", (), HEAD + 13 * ROW + 24),
        ("Fails", ("This part failed: ZeroDivisionError: division by zero",), 0),
    ]
    assert list(found[0].figure.data[0].y) == [0, 1, 2]
    cells = found[2].figure.data[0].cells["values"]
    assert list(cells[0]) == [*map(str, range(12)), "\u2026"]
    assert list(cells[1][:3]) == ["", "0.3333", "0.6667"]
    assert list(found[2].figure.data[0].header["values"]) == ["<b>at</b>", "<b>a third</b>"]
    page = report_html(open_run(copied))
    assert "How many numbers there are." in page
    assert "not a word" not in page


def test_figures_that_would_make_the_report_too_large_are_left_out_and_named(folder, monkeypatch, panels):
    monkeypatch.setattr("hiddenscope.dashboard.report.LARGEST", 5 * 2**20 + 20_000)
    page = report_html(open_run(folder))
    assert re.search(r"This figure takes \d+\.\d MB; the page shows it", page)


@pytest.mark.browser
def test_every_figure_becomes_a_picture(folder, tmp_path, panels, capsys):
    assert main(["report", str(folder), "--png", str(tmp_path / "pictures")]) == 0
    said = capsys.readouterr().out.split()
    taken = sorted((tmp_path / "pictures").iterdir())
    assert sorted(said) == [str(path) for path in taken]
    assert len(taken) == 2 * 4
    assert "lstm-01-embedding-by-epoch.png" in [path.name for path in taken]
    for path in taken:
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert path.stat().st_size > 5_000


def test_the_report_holds_facts_and_figures_of_every_layer_and_fetches_nothing(folder, panels):
    page = report_html(open_run(folder))
    seen = Seen()
    seen.feed(page)
    text = " ".join(seen.text)
    assert [place for place in seen.fetched if not place.startswith("#part-")] == []
    assert seen.graphs == 2 * 4
    for fact in (
        "Net",
        "finished",
        "4 epochs, untrained to 2",
        "train_loss",
        "0.25",
        "a<b>&c",
        "LSTM, 4 units, 5 steps",
        "true neighbors kept",
        "no false neighbors",
        "distances in order",
        " by chance)",
    ):
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


def test_every_figure_there_is_is_one_public_function(folder):
    names = set(dir(plot))
    public = {
        f"{path.stem}.{node.name}"
        for path in Path(plot.figures.__file__).parent.glob("*.py")
        if path.stem not in ("template", "panels", "decimate", "raster")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and node.returns is not None
        and ast.unparse(node.returns) == "go.Figure"
    }
    assert len(public) > 10
    short = [name.partition(".")[2] for name in public]
    assert sorted(set(short)) == sorted(short), "two figures share a name"
    assert set(short) <= names
    assert all(callable(getattr(plot, name)) for name in names)
    with pytest.raises(AttributeError, match="no attribute 'pie'; its figures are "):
        _ = plot.pie


def test_a_panel_of_a_run_is_a_list_of_figures(folder, panels):
    with pytest.raises(ValueError, match="got panel 'x'; there are 'numbers', 'fails'"):
        plot.panel(open_run(folder), "x")
    with pytest.raises(ValueError, match="nothing is stored for 'numbers' of layer 'lstm' yet; hiddenscope analyze"):
        plot.panel(open_run(folder), "numbers", "lstm")


def test_an_embedding_shows_itself_after_the_extension_is_loaded(tmp_path):

    points = xr.DataArray(np.random.default_rng(0).normal(size=(3, 4, 5, 2)), dims=EMBEDDING_DIMS)
    quiet = Config({"HistoryManager": {"enabled": False}})
    shell = InteractiveShell(ipython_dir=str(tmp_path), config=quiet)
    format_of = shell.display_formatter.format
    assert "<circle" not in format_of(points)[0]["text/html"]
    shell.run_line_magic("load_ext", "hiddenscope")
    shown = format_of(points)[0]["text/html"]
    assert shown.count("<circle") == 60
    assert points._repr_html_()[:20] in shown
    other = xr.DataArray(np.zeros((2, 2)), dims=("epoch", "step"))
    assert "<circle" not in format_of(other)[0]["text/html"]


def test_a_run_shows_its_pictures_and_serves_its_page_in_a_notebook(folder, tmp_path):
    copied = tmp_path / "version_2"
    shutil.copytree(folder, copied)
    run = open_run(copied)
    assert "<svg" not in run._repr_html_()
    with ResultStore.open(run.location, writable=True) as store:
        store.put("lstm", "mmphate", {}, picture(run, "lstm"))
    assert open_run(copied)._repr_html_().count("<svg") == 1
    page = run.dashboard(worker=False, height=500)
    try:
        assert f'<iframe src="{page.address}"' in page._repr_html_()
        assert "height:500px" in page._repr_html_()
        with urllib.request.urlopen(page.address) as answer:
            policy = answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'self' http://127.0.0.1:* http://localhost:* vscode-webview:" in policy
        assert page.address.startswith("http://127.0.0.1:")
    finally:
        page.stop()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(page.address, timeout=5)
