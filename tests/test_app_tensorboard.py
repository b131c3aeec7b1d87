"""The tab's answers: the same figures as the page, nothing twice, nothing from outside the log folder."""

import json
import shutil
import subprocess
import sys

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from dash import dcc, html
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.plugins.base_plugin import TBContext
from werkzeug.test import Client

from hiddenscope.dashboard.library import Library
from hiddenscope.dashboard.panels import Panel
from hiddenscope.dashboard.tensorboard.answers import view_json
from hiddenscope.dashboard.tensorboard.panels import panel_json
from hiddenscope.dashboard.tensorboard.plugin import HiddenscopePlugin
from hiddenscope.dashboard.worker import Worker
from hiddenscope.description import Snapshot
from hiddenscope.results import ResultStore
from hiddenscope.store import SnapshotWriter
from store_examples import of_one_layer

STEPS, UNITS, SAMPLES = 5, 4, 6


def record(folder, epochs=3):
    description = of_one_layer(STEPS, UNITS, SAMPLES)
    with SnapshotWriter.open(folder / "hiddenscope", description) as writer:
        for epoch in range(epochs):
            states = np.random.default_rng(epoch).normal(size=(STEPS, UNITS, SAMPLES)).astype(np.float32)
            writer.append(Snapshot(float(epoch), {"lstm": states}, {"train_loss": float("nan") if epoch == 1 else 1.0}))
        writer.finish("finished")


@pytest.fixture
def quiet(monkeypatch):
    """No worker: these tests only read."""
    monkeypatch.setattr("hiddenscope.dashboard.supervisor.Supervisor.start", lambda self: None)


def clients(logdir):
    apps = HiddenscopePlugin(TBContext(logdir=str(logdir))).get_plugin_apps()
    return {route: Client(app) for route, app in apps.items()}


def test_nothing_heavy_is_imported_when_tensorboard_starts():
    code = (
        "import hiddenscope.dashboard.tensorboard as tab, sys; "
        "print([n for n in ('torch', 'dash', 'phate', 'plotly', 'icechunk', 'xarray', 'numba') if n in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_the_plugin_is_installed_as_an_entry_point():
    from importlib.metadata import entry_points

    found = {point.name: point.value for point in entry_points(group="tensorboard_plugins")}
    assert found["hiddenscope"] == "hiddenscope.dashboard.tensorboard:HiddenscopePlugin"


def test_the_tab_is_active_when_something_is_recorded(tmp_path):
    assert not HiddenscopePlugin(TBContext(logdir=str(tmp_path))).is_active()
    assert not HiddenscopePlugin(TBContext(logdir="")).is_active()
    record(tmp_path / "version_0")
    assert HiddenscopePlugin(TBContext(logdir=str(tmp_path))).is_active()
    run = tmp_path / "version_0" / "hiddenscope"
    run.rename(run.with_name("hiddenscope_2"))
    assert HiddenscopePlugin(TBContext(logdir=str(tmp_path))).is_active(), "a second monitor's run is one as well"
    (run / "snapshots").mkdir(parents=True)
    shutil.rmtree(run.with_name("hiddenscope_2"))
    assert HiddenscopePlugin(TBContext(logdir=str(tmp_path))).is_active(), "a run that is about to begin"


def test_the_answer_holds_the_run_and_leaves_out_what_was_seen(tmp_path):
    record(tmp_path / "version_0")
    library = Library(tmp_path)
    first = view_json(library, {})
    assert first["run"] == "version_0"
    assert first["epochs"] == [0, 1, 2]
    assert [trace["name"] for trace in first["curves"]["data"]] == ["train_loss"]
    again = view_json(library, {"curves_seen": first["curves_mark"], "picture_seen": first["picture_mark"]})
    assert "curves" not in again
    assert "picture" not in again
    recolored = view_json(library, {"color": "unit", "picture_seen": first["picture_mark"]})
    assert recolored["picture_mark"] != first["picture_mark"]


def test_an_empty_log_folder_explains_itself(tmp_path):
    assert "HiddenStateMonitor" in view_json(Library(tmp_path), {})["message"]
    assert "HiddenStateMonitor" in view_json(None, {})["message"]


def test_every_route_carries_the_policy_and_nosniff(tmp_path, quiet):
    record(tmp_path / "version_0")
    for route, client in clients(tmp_path).items():
        answer = client.get(route)
        assert answer.status_code == 200, route
        assert answer.headers["X-Content-Type-Options"] == "nosniff", route
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"], route
    assert "max-age" in clients(tmp_path)["/plotly.min.js"].get("/plotly.min.js").headers["Cache-Control"]


def test_the_tab_page_asks_only_for_routes_that_exist(tmp_path):
    routes = clients(tmp_path)
    page = routes["/index.html"].get("/index.html").text
    asked = {part.split('"')[0] for part in page.split('="./')[1:]}
    assert asked
    assert {f"/{name}" for name in asked} <= set(routes)
    assert "http" not in page.replace("http-equiv", "")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tab")
    record(folder / "logs" / "version_0")
    record(folder / "secret")
    return Library(folder / "logs")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.dictionaries(
        st.sampled_from(["run", "layer", "color", "dimensions", "log", "dark", "curves_seen"]) | st.text(max_size=5),
        st.sampled_from(["../secret", "/etc/passwd", "..", "version_0", "lstm", "1", "2"]) | st.text(max_size=30),
        max_size=5,
    )
)
def test_no_query_reads_outside_the_log_folder_or_breaks_the_tab(library, query):
    answer = json.loads(json.dumps(view_json(library, query), allow_nan=False))
    assert answer["run"] == "version_0"
    assert answer["layer"] == "lstm"


def draw(scene):
    figure = go.Figure(go.Scatter(y=scene.results["numbers"]["value"].values))
    return [
        html.P(f"kind {scene.options['kind']}, epoch {scene.epoch}, units {list(scene.units)}"),
        dcc.Graph(id={"type": "panel-units", "name": f"sequence {scene.focus.sample}"}, figure=figure),
    ]


NUMBERS = Panel(
    "numbers", "Numbers", "A panel of numbers.", ("numbers",), draw, {"kind": ("kind", ["a", "b"])}, follows_cursor=True
)
FAILS = Panel("fails", "Fails", "It fails.", (), lambda scene: 1 / 0)


def test_a_panel_is_told_as_words_and_figures_once_something_is_stored(tmp_path, monkeypatch):
    monkeypatch.setattr("hiddenscope.dashboard.tensorboard.panels.all_panels", lambda: (NUMBERS, FAILS))
    record(tmp_path / "version_0")
    library = Library(tmp_path)
    asked = {"run": "version_0", "panel": "numbers", "option.kind": "b", "epoch": "1", "units": "0,3"}
    waiting = panel_json(library, asked)
    assert waiting["figures"] == []
    assert "hiddenscope analyze" in waiting["message"]
    with ResultStore.open(tmp_path / "version_0" / "hiddenscope", writable=True) as store:
        store.put("lstm", "numbers", {}, xr.Dataset({"value": ("at", np.array([1.0, np.nan]))}))
    told = json.loads(json.dumps(panel_json(Library(tmp_path), asked), allow_nan=False))
    assert [panel["value"] for panel in told["panels"]] == ["units", "numbers", "fails"]
    assert told["controls"] == [{"name": "kind", "label": "kind", "choices": ["a", "b"], "value": "b"}]
    (figure,) = told["figures"]
    assert figure["words"] == ["kind b, epoch 1.0, units ['0', '3']"]
    assert figure["data"][0]["type"] == "scatter"
    assert figure["picks"] == "units"
    again = panel_json(Library(tmp_path), {**asked, "seen": told["mark"]})
    assert "figures" not in again
    for focus, nodes, said in (
        ({"by": "sequence", "run": "version_0", "sample": 2, "start": 1, "end": 3, "units": ["0"]}, [("0", 1, 3)], "0"),
        ({"by": "word", "words": ["xyzzy"]}, [], "xyzzy"),
    ):
        picked = panel_json(Library(tmp_path), {**asked, "focus": json.dumps(focus), "seen": told["mark"]})
        assert picked["picked"]["nodes"] == nodes
        assert said in picked["picked"]["text"]
        assert "figures" in picked, "another focus is another panel"
    for nonsense in ('{"by": "sequence", "sample": 10', "[" * 900, "7"):
        assert "figures" not in panel_json(Library(tmp_path), {**asked, "focus": nonsense, "seen": told["mark"]})
    odd = {"run": "version_0", "panel": "numbers", "option.kind": "../x", "epoch": "1e999", "units": "," * 500}
    assert panel_json(Library(tmp_path), odd)["figures"][0]["words"] == ["kind a, epoch None, units []"]


def test_the_table_of_units_is_told_once_until_a_picture_is_made_anew(tmp_path):
    record(tmp_path / "version_0")
    assert "first picture" in panel_json(Library(tmp_path), {"run": "version_0"})["message"]
    worker = Worker(tmp_path)
    while worker.turn():
        continue
    worker.close()
    library = Library(tmp_path)
    told = json.loads(json.dumps(panel_json(library, {"run": "version_0"}), allow_nan=False))
    headers, rows = told["table"]["headers"], told["table"]["rows"]
    assert headers[:2] == ["unit", "inter-step entropy (nats)"]
    assert [row[0] for row in rows] == [str(unit) for unit in range(UNITS)]
    stored = library.view("version_0").result["inter_step_entropy"].isel(epoch=-1)
    assert [row[1] for row in rows] == pytest.approx(stored.values.tolist(), rel=1e-6)
    assert "table" not in panel_json(library, {"run": "version_0", "seen": told["mark"]})


def test_another_method_and_the_clusters_are_shown_in_the_tab_as_on_the_page(tmp_path):
    record(tmp_path / "version_0")
    library = Library(tmp_path)
    asked = view_json(library, {"method": "pca", "color": "epoch"})
    assert len(asked["picture"]["data"]) == 1
    bars = {one["name"]: one for one in asked["trust"]}
    assert list(bars) == ["across steps", "no false neighbors", "distances in order"]
    assert bars["no false neighbors"]["value"] > bars["no false neighbors"]["chance"] > 0.4
    assert bars["distances in order"]["number"] in asked["trust_said"]
    assert {choice["value"] for choice in asked["methods"]} >= {"mmphate", "pca", "umap"}
    assert "no worker" in str(view_json(library, {"method": "umap"})["picture"]["layout"]["annotations"])
    with ResultStore.open(tmp_path / "version_0" / "hiddenscope", writable=True) as store:
        names = xr.DataArray(np.array(["A", "A", "B", "B"]), dims="unit", coords={"unit": np.arange(UNITS)})
        store.put("lstm", "clusters", {}, xr.Dataset({"unit_cluster": names}))
    query = {"method": "pca", "color": "cluster", "picture_seen": asked["picture_mark"]}
    (cloud,) = view_json(Library(tmp_path), query)["picture"]["data"]
    assert cloud["marker"]["colorbar"]["ticktext"] == ["A", "B"]


def test_a_panel_that_fails_says_so_and_an_unknown_run_has_none(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("hiddenscope.dashboard.tensorboard.panels.all_panels", lambda: (NUMBERS, FAILS))
    record(tmp_path / "version_0")
    failed = panel_json(Library(tmp_path), {"run": "version_0", "panel": "fails"})
    assert failed["message"] == "This panel failed: ZeroDivisionError: division by zero"
    assert set(panel_json(Library(tmp_path), {"run": "../secret"})) == {"panels"}
    assert set(panel_json(None, {})) == {"panels"}


def test_the_tab_can_only_be_read(tmp_path, quiet):
    record(tmp_path / "version_0")
    for route in ("/view", "/panel"):
        assert clients(tmp_path)[route].post(route, data=b"x").status_code == 405
