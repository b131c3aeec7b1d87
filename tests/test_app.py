"""The page's server: what it says in every state of a run, what it sends when nothing is new, and what it refuses."""

import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiddenscope.cli import main
from hiddenscope.dashboard import journal, words
from hiddenscope.dashboard.app import create_app
from hiddenscope.dashboard.command import listen, run_until_closed, serve
from hiddenscope.dashboard.journal import Entry
from hiddenscope.dashboard.library import Library
from hiddenscope.dashboard.picture import picture
from hiddenscope.dashboard.safety import check_token
from hiddenscope.dashboard.supervisor import Supervisor
from hiddenscope.description import LayerDescription, RunDescription, Snapshot
from hiddenscope.results import ResultStore
from hiddenscope.run import open_run
from hiddenscope.store import SnapshotWriter

STEPS, UNITS, SAMPLES = 5, 4, 6


def describe(labels=True):
    return RunDescription(
        layers=(LayerDescription("lstm", "LSTM", np.arange(UNITS), np.arange(STEPS)),),
        samples=np.arange(SAMPLES),
        labels=np.arange(SAMPLES) % 2 if labels else None,
        label_names=("up", "down") if labels else None,
        probe_fingerprint="probe",
        model="Net",
    )


def append(writer, epoch):
    states = np.random.default_rng(int(epoch) + 1).normal(size=(STEPS, UNITS, SAMPLES)).astype(np.float32)
    writer.append(Snapshot(float(epoch), {"lstm": states}, {"train_loss": 1 / (epoch + 2)}))


def record(folder, epochs=range(-1, 2), *, labels=True, embed=False):
    with SnapshotWriter.open(folder / "hiddenscope", describe(labels)) as writer:
        for epoch in epochs:
            append(writer, epoch)
        writer.finish("finished")
    if embed:
        run = open_run(folder)
        with ResultStore.open(run.location, writable=True) as store:
            store.put("lstm", "mmphate", {"seed": 0}, picture(run, "lstm"))
    return folder / "hiddenscope"


class Viewer:
    """What the browser sends and keeps, without the browser."""

    def __init__(self, logdir, **options):
        self.app = create_app(logdir, **options)
        self.client = self.app.server.test_client()
        self.key = next(key for key in self.app.callback_map if "picture-data.data" in key)
        self.inputs = {
            "tick.n_intervals": 0,
            "run.value": None,
            "layer.value": None,
            "method.value": "mmphate",
            "color.value": "epoch",
            "dimensions.value": "3",
            "range.data": {},
            "zoom.data": None,
            "log.checked": False,
            "smooth.value": 0,
            "dark.data": False,
            "panel.value": "units",
        }
        self.state = {"compare.value": [], "seen.data": {}, "url.search": ""}

    def body(self):
        def listed(values):
            return [
                {"id": name.split(".")[0], "property": name.split(".")[1], "value": v} for name, v in values.items()
            ]

        outputs = [
            {"id": part.split(".")[0], "property": part.split(".")[1]} for part in self.key.strip(".").split("...")
        ]
        return {
            "output": self.key,
            "outputs": outputs,
            "inputs": listed(self.inputs),
            "state": listed(self.state),
            "changedPropIds": ["tick.n_intervals"],
        }

    def tick(self):
        answer = self.client.post("/_dash-update-component", json=self.body())
        assert answer.status_code == 200, answer.text
        news = {
            f"{name}.{prop}": value
            for name, changed in answer.get_json()["response"].items()
            for prop, value in changed.items()
        }
        for name in ("run.value", "layer.value"):
            self.inputs[name] = news.get(name, self.inputs[name])
        self.state["seen.data"] = news.get("seen.data", self.state["seen.data"])
        return news


def text(component):
    return json.dumps(component)


def test_a_folder_without_runs_explains_how_to_make_one(tmp_path):
    news = Viewer(tmp_path).tick()
    assert "Waiting for the first run" in text(news["empty.children"])
    assert "HiddenStateMonitor" in text(news["empty.children"])
    assert news["views.style"] == {"display": "none"}


def test_a_folder_that_is_not_there_yet_is_awaited(tmp_path):
    viewer = Viewer(tmp_path / "lightning_logs")
    assert "no folder yet" in text(viewer.tick()["empty.children"])
    record(tmp_path / "lightning_logs" / "version_0")
    viewer.app  # noqa: B018  the library looks at most once a second, so the next look is asked for until it comes
    news = {}
    for _ in range(200):
        news = viewer.tick()
        if "curves-data.data" in news:
            break
        socket_wait()
    assert news["run.value"] == "version_0"


def socket_wait():
    """A hundredth of a second, as select waits it."""
    import select

    select.select([], [], [], 0.01)


def test_a_run_that_has_begun_and_recorded_nothing_says_so(tmp_path):
    with SnapshotWriter.open(tmp_path / "version_0" / "hiddenscope", describe()):
        news = Viewer(tmp_path).tick()
    assert "version_0 has begun" in text(news["empty.children"])


def test_a_run_without_a_picture_shows_its_loss_and_awaits_the_picture(tmp_path):
    record(tmp_path / "version_0", epochs=[-1])
    news = Viewer(tmp_path).tick()
    names = [trace["name"] for trace in news["curves-data.data"]["data"]]
    assert names == ["train_loss"]
    assert "being made" in text(news["picture-data.data"]["layout"]["annotations"])
    assert "untrained network recorded" in text(news["status.children"])
    assert "no picture yet" in text(news["status.children"])


def test_a_run_of_one_epoch_has_a_picture(tmp_path):
    record(tmp_path / "version_0", epochs=[-1], embed=True)
    news = Viewer(tmp_path).tick()
    assert news["picture-data.data"]["layout"]["meta"]["epochs"] == [-1]


def test_an_address_with_a_layer_opens_that_layer(tmp_path):
    description = replace(
        describe(),
        layers=tuple(LayerDescription(name, "GRU", np.arange(UNITS), np.arange(STEPS)) for name in ("lower", "upper")),
    )
    with SnapshotWriter.open(tmp_path / "version_0" / "hiddenscope", description) as writer:
        states = np.zeros((STEPS, UNITS, SAMPLES), np.float32)
        writer.append(Snapshot(0.0, {"lower": states, "upper": states}, {"train_loss": 1.0}))
    viewer = Viewer(tmp_path)
    viewer.state["url.search"] = "?run=version_0&layer=upper"
    assert viewer.tick()["layer.value"] == "upper"
    assert "layer.value" not in viewer.tick()
    viewer = Viewer(tmp_path)
    viewer.state["url.search"] = "?run=version_0&layer=nowhere"
    assert viewer.tick()["layer.value"] == "lower"


def test_what_was_seen_is_not_sent_again_and_what_is_new_is(tmp_path):
    record(tmp_path / "version_0", embed=True)
    viewer = Viewer(tmp_path)
    first = viewer.tick()
    assert {"picture-data.data", "curves-data.data", "run.value", "layer.value"} <= first.keys()
    second = viewer.tick()
    assert not {"picture-data.data", "curves-data.data", "seen.data", "run.data"} & second.keys()
    assert "status.children" in second
    viewer.inputs["color.value"] = "class"
    third = viewer.tick()
    assert "picture-data.data" in third
    assert "curves-data.data" not in third


def test_a_lost_answer_is_made_good_by_the_next(tmp_path):
    record(tmp_path / "version_0", embed=True)
    viewer = Viewer(tmp_path)
    lost = viewer.tick()
    viewer.state["seen.data"] = {}  # the browser never got it
    again = viewer.tick()
    assert again["picture-data.data"] == lost["picture-data.data"]
    assert again["curves-data.data"] == lost["curves-data.data"]


@pytest.mark.parametrize("color", ["epoch", "step", "unit", "class", "intra", "inter", "loss"])
@pytest.mark.parametrize("dimensions", ["2", "3"])
def test_every_coloring_is_drawn_in_both_dimensions(tmp_path, color, dimensions):
    record(tmp_path / "version_0", embed=True)
    viewer = Viewer(tmp_path)
    viewer.inputs |= {"color.value": color, "dimensions.value": dimensions}
    figure = viewer.tick()["picture-data.data"]
    assert figure["data"][0]["type"] == ("scatter3d" if dimensions == "3" else "scattergl")
    assert figure["data"][0]["marker"]["color"]["dtype"] == "f4"


def test_color_by_class_without_labels_explains_itself(tmp_path):
    record(tmp_path / "version_0", labels=False, embed=True)
    viewer = Viewer(tmp_path)
    viewer.inputs["color.value"] = "class"
    assert "no class labels" in text(viewer.tick()["picture-data.data"])


def test_a_failed_worker_is_shown_with_what_to_do(tmp_path):
    folder = record(tmp_path / "version_0")
    journal.write(folder, Entry("failed", layer="lstm", error="MemoryError: too much", advice="close other programs"))
    notice = text(Viewer(tmp_path).tick()["notice.children"])
    assert "too much" in notice
    assert "close other programs" in notice


def test_a_dead_worker_process_is_shown(tmp_path):
    record(tmp_path / "version_0")
    supervisor = Supervisor([sys.executable, "-c", ""])
    supervisor.problem = "The worker that makes the pictures was ended by signal 9; it starts again in 2 s."
    assert "signal 9" in text(Viewer(tmp_path, supervisor=supervisor).tick()["notice.children"])


def test_a_second_dashboard_says_that_it_only_reads(tmp_path):
    folder = record(tmp_path / "version_0")
    journal.write(folder, Entry("idle", dashboard=os.getppid()))
    supervisor = Supervisor([sys.executable, "-c", ""])
    notice = text(Viewer(tmp_path, supervisor=supervisor).tick()["notice.children"])
    assert f"process id {os.getppid()}" in notice
    journal.write(folder, Entry("idle", dashboard=os.getpid()))
    assert Viewer(tmp_path, supervisor=supervisor).tick()["notice.children"] == []


def test_what_is_computed_is_told_only_while_its_worker_lives(tmp_path):
    folder = record(tmp_path / "version_0")
    journal.write(folder, Entry("embedding", layer="lstm", epoch=1.0))
    assert "embedding epoch 1" in text(Viewer(tmp_path).tick()["status.children"])
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    journal.write(folder, Entry("embedding", layer="lstm", epoch=1.0, pid=ended.pid))
    assert "embedding epoch" not in text(Viewer(tmp_path).tick()["status.children"])


def test_a_broken_run_is_listed_and_the_others_are_shown(tmp_path):
    record(tmp_path / "version_0", embed=True)
    broken = tmp_path / "version_1" / "hiddenscope"
    (broken / "snapshots").mkdir(parents=True)
    for name in ("repo", "config.yaml", "refs"):
        (broken / "snapshots" / name).write_bytes(b"\x00nonsense")
    (broken / "worker.json").write_text("{{{")
    viewer = Viewer(tmp_path)
    news = viewer.tick()
    assert news["run.value"] == "version_0"
    if "version_1" in Library(tmp_path).runs():
        viewer.inputs["run.value"] = "version_1"
        assert "cannot be read" in text(viewer.tick()["empty.children"])


def test_names_from_the_browser_never_reach_the_file_system(tmp_path):
    record(tmp_path / "logs" / "version_0")
    record(tmp_path / "secret")
    viewer = Viewer(tmp_path / "logs")
    for name in ("../secret", str(tmp_path / "secret"), "..", "/", "version_0/../../secret", "\x00"):
        viewer.inputs["run.value"] = name
        viewer.state["seen.data"] = {}
        assert viewer.tick()["run.value"] == "version_0", "an unknown name falls back to the newest run"
    viewer.inputs["run.value"] = None
    viewer.state["url.search"] = "?run=../secret"
    assert viewer.tick()["run.value"] == "version_0"


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def viewer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    record(folder / "version_0", embed=True)
    return Viewer(folder)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(ODD, min_size=15, max_size=15))
def test_whatever_a_browser_sends_as_values_the_page_answers(viewer, values):
    names = [*viewer.inputs, *viewer.state]
    sent = dict(zip(names, values, strict=True))
    body = viewer.body()
    for part in ("inputs", "state"):
        for item in body[part]:
            item["value"] = sent[f"{item['id']}.{item['property']}"]
    assert viewer.client.post("/_dash-update-component", json=body).status_code == 200


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=ODD | st.fixed_dictionaries({"output": ODD, "inputs": ODD, "state": ODD, "changedPropIds": ODD}))
def test_a_body_that_is_no_request_of_the_page_gets_a_clean_refusal(viewer, body):
    assert 400 <= viewer.client.post("/_dash-update-component", json=body).status_code < 500


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.lists(
        st.sampled_from(
            ["..", ".", "assets", "_dash-component-suites", "%2e%2e", "etc", "passwd", "worker.py", "\\..", "~"]
        )
        | st.text(
            st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="?#"), min_size=1, max_size=8
        ),
        max_size=6,
    )
)
def test_no_path_reads_a_file_that_is_not_an_asset(viewer, path):
    answer = viewer.client.get("/" + "/".join(path).lstrip("/"), buffered=True)
    assert answer.status_code < 500
    assert b"root:" not in answer.data
    assert b"import annotations" not in answer.data
    if path[:1] == ["assets"] and answer.status_code == 200 and len(path) > 1:
        assert answer.mimetype in ("text/css", "text/javascript", "image/svg+xml", "text/html")


def test_every_response_carries_the_policy_and_nosniff(viewer):
    for path in ("/", "/assets/scope.js", "/_dash-layout", "/_dash-dependencies", "/none/such"):
        headers = viewer.client.get(path, buffered=True).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert "default-src 'self'" in headers["Content-Security-Policy"], path
        assert "unsafe-inline" not in headers["Content-Security-Policy"].split("script-src")[1].split(";")[0]


def test_a_body_that_is_too_large_is_refused(viewer):
    answer = viewer.client.post("/_dash-update-component", data=b"x" * (2**20 + 1), content_type="application/json")
    assert answer.status_code == 413


def test_the_page_asks_no_other_host(viewer):
    html = viewer.client.get("/").text
    assert "http://" not in html
    assert "https://" not in html


def test_with_a_token_nobody_enters_without_and_the_cookie_is_out_of_scripts_reach(tmp_path):
    client = create_app(tmp_path, token="a-long-enough-token").server.test_client()
    for path in ("/", "/assets/scope.js", "/_dash-layout", "/?token=wrong"):
        assert client.get(path, buffered=True).status_code == 401, path
    assert client.post("/_dash-update-component", json={}).status_code == 401
    answer = client.get("/?token=a-long-enough-token&run=version_0")
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/?run=version_0", "the token leaves the address bar"
    assert "HttpOnly" in answer.headers["Set-Cookie"]
    assert "SameSite=Strict" in answer.headers["Set-Cookie"]
    assert client.get("/").status_code == 200
    client.set_cookie("hiddenscope-token", "\u00e4 wrong one")
    assert client.get("/").status_code == 401


def test_others_may_reach_the_page_only_with_a_token():
    check_token("127.0.0.1", None)
    check_token("::1", None)
    check_token("0.0.0.0", "a-long-enough-token")
    with pytest.raises(ValueError, match="--token"):
        check_token("0.0.0.0", None)
    with pytest.raises(ValueError, match="--token"):
        check_token("example.org", None)
    with pytest.raises(ValueError, match="fewer than 12"):
        check_token("0.0.0.0", "short")


def test_a_port_in_use_is_one_line_with_exit_code_2(tmp_path, capsys):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert main(["dashboard", str(tmp_path), "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"port {port} is in use" in error
    assert "--port" in error


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere/at/all"], "does not exist"),
        ([__file__], "got the file"),
        ([".", "--port", "70000"], "0..65535"),
        ([".", "--host", "0.0.0.0"], "--token"),
        ([".", "--host", "203.0.113.7", "--port", "0", "--token", "a-long-enough-token"], "cannot serve on"),
    ],
)
def test_what_the_command_cannot_do_is_one_line_with_exit_code_2(arguments, complaint, capsys):
    assert main(["dashboard", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert complaint in error


def test_the_words_of_age_never_shrink():
    shown = [words.age(seconds) for seconds in (0, 5, 99, 101, 5000, 7000, 350_000, 400_000)]
    assert shown == ["0 s", "5 s", "99 s", "2 min", "83 min", "2 h", "97 h", "5 days"]


def test_what_was_left_out_is_said(tmp_path):
    record(tmp_path / "version_0", embed=True)
    view = Library(tmp_path).view("version_0")
    assert words.left_out(view.result, "").startswith("embedded from every step and epoch")
    assert view.result is not None
    view.result.attrs["note"] = "13 of 128 steps"
    assert "13 of 128 steps" in words.left_out(view.result, "showing 5 of 10 points")


def test_the_table_of_units_shows_what_stored_results_know_of_each_unit(tmp_path):
    folder = record(tmp_path / "version_0", embed=True)
    run = open_run(folder)
    coords = {"unit": np.arange(UNITS), "epoch": [-1.0, 0.0, 1.0]}
    importance = xr.DataArray([[1.0] * UNITS, [0.1, 0.2, np.nan, 0.4], [np.nan] * UNITS], dims=("epoch", "unit"))
    dataset = xr.Dataset(
        {"importance": importance, "group": ("unit", ["B", "A", "A", "B"]), "whole": ((), 3.0)}, coords=coords
    )
    dataset.attrs["unit_columns"] = {"importance": "importance (nats)", "group": "group", "whole": "no", "lost": "no"}
    viewer = Viewer(tmp_path)
    assert "importance (nats)" not in text(viewer.tick()["unit-table.columnDefs"])
    with ResultStore.open(run.location, writable=True) as store:
        store.put("lstm", "ablation", {}, dataset)
    news = viewer.tick()
    assert [row["importance (nats)"] for row in news["unit-table.rowData"]] == [0.1, 0.2, None, 0.4]
    assert [row["group"] for row in news["unit-table.rowData"]] == ["B", "A", "A", "B"]
    headers = [column.get("headerName") for column in news["unit-table.columnDefs"]]
    assert headers[-2:] == ["importance (nats)", "group"]
    viewer.inputs["panel.value"] = "pod"
    assert "unit-table.rowData" not in viewer.tick()


@pytest.mark.parametrize(
    "line", [b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"GET / HTTP/1.1\r\nno colon here\r\n\r\n"]
)
def test_even_what_is_no_http_is_answered_with_the_headers_of_the_page(tmp_path, line):
    listener = listen("127.0.0.1", 0)
    address = listener.getsockname()
    server = serve(create_app(tmp_path), listener)
    thread = threading.Thread(target=run_until_closed, args=(server,))
    thread.start()
    try:
        with socket.create_connection(address, timeout=60) as caller:
            caller.sendall(line)
            answer = b""
            while part := caller.recv(4096):
                answer += part
    finally:
        server.close()
        thread.join(20)
    assert answer.split(b" ")[1] == b"400"
    assert b"X-Content-Type-Options: nosniff" in answer
    assert b"Content-Security-Policy: default-src 'none'" in answer
