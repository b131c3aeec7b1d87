"""Hostile paths, queries and bodies against both servers: clean refusals, and nothing read outside the log folder."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from tensorboard.plugins.base_plugin import TBContext
from werkzeug.test import run_wsgi_app

from hiddenscope.dashboard.app import create_app
from hiddenscope.dashboard.safety import LARGEST_BODY
from hiddenscope.dashboard.tensorboard import HiddenscopePlugin
from hiddenscope.dashboard.worker import Worker
from hiddenscope.description import Snapshot
from hiddenscope.store import SnapshotWriter
from store_examples import of_one_layer

CANARY = "canary7f3a"
Request = tuple[str, str, str, bytes, dict[str, str]]  # method, path, query, body, headers

PIECES = (
    "..", ".", "%2e%2e", "%252e%252e", "..%2f", "..%5c", "\\..\\", "~", "~root", "etc", "passwd", "proc", "self",
    "environ", "assets", "_dash-component-suites", "_dash-layout", "_dash-update-component", "_dash-dependencies",
    "_reload-hash", "_favicon.ico", "hiddenscope", "snapshots", "secret", "version_0", "data", "plugin", "view",
    "panel", "index.html", "index.js", "plotly.min.js", "C:", "\x00", "%00", "\r\nSet-Cookie: a=b", "a" * 3000, "ÿþ",
    "\udcff", "{{7*7}}", "<script>", "' OR 1=1", "$(id)", "|id", "worker.py", "__init__.py", "dash", "dcc",
    "async-graph.js", ";", "?", "//", "file:", "http://example.org",
)  # fmt: skip
NAMES = (
    "run", "layer", "color", "dimensions", "log", "dark", "curves_seen", "picture_seen", "panel", "epoch", "units",
    "seen", "option.show", "token", "theme", "view", "compare", "plugins", "tag", "__proto__",
)  # fmt: skip
SCALARS = (
    None, True, False, 0, -1, 1, 2**63, 10**400, -(2**70), 1e308, -0.0, float("nan"), float("inf"), "", "version_0",
    "lstm", "units", "epoch", "class", "../secret", "/etc/passwd", "\x00", "a" * 5000, "💥", "__class__", "{}", "[]",
    "3", "2", "mmphate", "pca", "umap", "version_0,version_0", "0", "nan", "inf", "-1e400", "<img src=x onerror=a()>",
)  # fmt: skip


def record(folder: Path, layer: str) -> None:
    classes = {"labels": np.arange(6) % 2, "label_names": ("up", "down")}
    description = of_one_layer(5, 4, 6, layer=layer, model="Net" if layer == "lstm" else CANARY, **classes)
    with SnapshotWriter.open(folder / "hiddenscope", description) as writer:
        for epoch in range(-1, 3):
            states = np.random.default_rng(epoch + 1).normal(size=(5, 4, 6)).astype(np.float32)
            writer.append(Snapshot(float(epoch), {layer: states}, {"train_loss": 1.0}))


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log folder with a run and some wreckage; beside it, secrets."""
    folder = tmp_path_factory.mktemp("fuzz")
    record(folder / "logs" / "version_0", "lstm")
    record(folder / "secret", CANARY)
    (folder / "secret" / "password").write_text(CANARY)
    (folder / "logs" / "version_0" / "note.txt").write_text(CANARY)  # a file, and none of ours
    (folder / "logs" / "link").symlink_to(folder / "secret")
    broken = folder / "logs" / "broken" / "hiddenscope" / "snapshots"
    (broken / "refs").mkdir(parents=True)
    (broken / "config.yaml").write_bytes(b"\x80\x04\x95 a pickle's beginning \x00\xff")
    worker = Worker(folder / "logs")
    while worker.turn():
        continue
    worker.close()
    return folder / "logs"


@pytest.fixture(scope="module")
def page(logs: Path) -> Any:
    logging.getLogger("hiddenscope.dashboard.app").setLevel(logging.CRITICAL)
    return create_app(logs).server


@pytest.fixture(scope="module")
def tab(logs: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a library inside TensorBoard
        from tensorboard.backend.application import TensorBoardWSGI
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hiddenscope.dashboard.supervisor.Supervisor.start", lambda self: None)
        yield TensorBoardWSGI([HiddenscopePlugin(TBContext(logdir=str(logs)))])


class Opened:
    """Every file that Python opens while it listens."""

    def __init__(self) -> None:
        self.listening = False
        self.paths: set[str] = set()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.listening and event == "open" and isinstance(arguments[0], str | bytes):
            self.paths.add(os.path.realpath(os.fsdecode(arguments[0])))


@pytest.fixture(scope="module")
def opened() -> Opened:
    return Opened()


def odd_value(dice: random.Random, depth: int = 0) -> Any:
    kind = dice.random()
    if depth > 3 or kind < 0.6:
        return dice.choice(SCALARS)
    if kind < 0.8:
        return [odd_value(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {
        str(dice.choice((*NAMES, "x", "points", "id"))): odd_value(dice, depth + 1) for _ in range(dice.randrange(4))
    }


def odd_path(dice: random.Random) -> str:
    starts = ("/", "/assets/", "/_dash-component-suites/", "/data/plugin/hiddenscope/", "/data/", "//")
    return dice.choice(starts) + "/".join(dice.choice(PIECES) for _ in range(dice.randrange(6)))


def odd_query(dice: random.Random) -> str:
    if dice.random() < 0.1:
        return "".join(dice.choice("&=%+;\x00ÿ[]ab") for _ in range(40))
    return "&".join(
        f"{quote(dice.choice(NAMES))}={quote(str(dice.choice(SCALARS)).encode('utf-8', 'replace'))}"
        for _ in range(dice.randrange(6))
    )


def odd_body(dice: random.Random) -> bytes:
    kind = dice.randrange(7)
    if kind == 0:
        return dice.randbytes(dice.randrange(200))
    if kind == 1:
        return b"[" * dice.choice((10, 100_000))
    if kind == 2:
        return b'{"output":"' + b"a" * dice.choice((10, 70_000)) + b'"}'
    if kind == 3:
        return b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R."  # a pickle that runs a program
    return json.dumps(odd_value(dice)).encode()


def any_request(dice: random.Random) -> Request:
    method = dice.choice(("GET", "GET", "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "BREW"))
    path = dice.choice((odd_path(dice), odd_path(dice), "/_dash-update-component", "/", "/data/plugin/hiddenscope/view",
                        "/data/plugin/hiddenscope/panel"))  # fmt: skip
    headers = {"HTTP_COOKIE": dice.choice(("", "hiddenscope-token=x", "a=\x00", "=;=;")), "HTTP_HOST": "localhost"}
    if dice.random() < 0.2:
        headers |= {"HTTP_RANGE": "bytes=0-99999999999", "HTTP_IF_NONE_MATCH": dice.choice(("*", '"', "W/"))}
    headers["CONTENT_TYPE"] = dice.choice(("application/json", "text/plain", "multipart/form-data; boundary=", "\xff"))
    return method, path, odd_query(dice), odd_body(dice) if method not in ("GET", "HEAD") else b"", headers


def callback_request(dice: random.Random, callbacks: list[dict[str, Any]]) -> Request:
    """A call of the page's own, shaped as its browser would, with values that its browser would not send."""
    chosen = dice.choice(callbacks)

    def filled(parts: list[dict[str, Any]]) -> list[Any]:
        found: list[Any] = []
        for part in parts:
            name = json.loads(part["id"]) if part["id"].startswith("{") else part["id"]
            value = dice.choice(("version_0", "lstm")) if dice.random() < 0.3 else odd_value(dice)
            entry = {"id": name, "property": part["property"], "value": value}
            found.append([entry] if isinstance(name, dict) and dice.random() < 0.8 else entry)
        return found

    outputs = chosen["output"]
    body = {
        "output": outputs,
        "outputs": _outputs(outputs),
        "inputs": filled(chosen["inputs"]),
        "state": filled(chosen["state"]),
        "changedPropIds": [f"{part['id']}.{part['property']}" for part in chosen["inputs"]][: dice.randrange(3)],
    }
    return "POST", "/_dash-update-component", "", json.dumps(body).encode(), {"CONTENT_TYPE": "application/json"}


def _outputs(text: str) -> Any:
    names = text.removeprefix("..").removesuffix("..").split("...") if text.startswith("..") else [text]
    parts = [dict(zip(("id", "property"), name.rsplit(".", 1), strict=True)) for name in names]
    return parts if text.startswith("..") else parts[0]


def answer(application: Callable[..., Any], request: Request) -> tuple[int, bytes, Any]:
    method, path, query, body, headers = request
    environ = {
        "REQUEST_METHOD": method, "PATH_INFO": path.encode("utf-8", "surrogateescape").decode("latin-1"),
        "QUERY_STRING": query.encode("utf-8", "surrogateescape").decode("latin-1"), "SERVER_NAME": "localhost",
        "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.version": (1, 0), "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body), "wsgi.errors": io.StringIO(), "wsgi.multithread": True,
        "wsgi.multiprocess": False, "wsgi.run_once": False, "SCRIPT_NAME": "", "CONTENT_LENGTH": str(len(body)),
        "REMOTE_ADDR": "127.0.0.1", **headers,
    }  # fmt: skip
    chunks, status, found = run_wsgi_app(application, environ, buffered=True)
    return int(status.split()[0]), b"".join(chunks), found


def attack(application: Any, requests: Iterator[Request], logs: Path, opened: Opened) -> dict[int, int]:
    """Send all; how often each status was answered. Whatever must not happen is an AssertionError with the request."""
    counted: dict[int, int] = {}
    outside = logs.parent / "secret"
    opened.paths.clear()
    opened.listening = True
    try:
        for request in requests:
            status, body, headers = answer(application, request)
            counted[status] = counted.get(status, 0) + 1
            shown = str(request)[:2000]
            assert status < 500, f"{status} {body[:300]!r} for {shown}"
            assert CANARY.encode() not in body, f"a secret in the answer to {shown}"
            assert b"root:x:" not in body, shown
            assert b"Traceback" not in body, shown
            assert headers.get("Set-Cookie", "").partition("=")[0] != "a", f"a header was smuggled in by {shown}"
            if status >= 400:
                assert len(body) < 2_000, f"a long refusal of {shown}"
    finally:
        opened.listening = False
    strays = [path for path in opened.paths if path.startswith((str(outside), "/etc/passwd", "/etc/shadow"))]
    assert not strays
    assert not any(path.endswith("note.txt") for path in opened.paths)
    return counted


def callbacks_of(page: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(answer(page, ("GET", "/_dash-dependencies", "", b"", {}))[1])
    return [each for each in found if not each.get("clientside_function")]


@pytest.mark.parametrize("odd", [10**400, -(10**400), 1e308, True, [10**400, 10**400]], ids=str)
def test_a_number_that_no_float_can_hold_is_no_number(odd: Any, page: Any, logs: Path, opened: Opened) -> None:
    def filled(parts: list[dict[str, Any]]) -> list[Any]:
        known = {"run": "version_0", "layer": "lstm"}
        return [
            {"id": part["id"], "property": part["property"], "value": known.get(part["id"], odd)}
            for part in parts
            if not part["id"].startswith("{")
        ]

    def requests() -> Iterator[Request]:
        for each in callbacks_of(page):
            body = {
                "output": each["output"],
                "outputs": _outputs(each["output"]),
                "inputs": filled(each["inputs"]),
                "state": filled(each["state"]),
                "changedPropIds": [],
            }
            sent = json.dumps(body).encode()
            yield "POST", "/_dash-update-component", "", sent, {"CONTENT_TYPE": "application/json"}

    assert sum(attack(page, requests(), logs, opened).values()) == len(callbacks_of(page))


COUNTS = [150, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])]


@pytest.mark.parametrize("count", COUNTS)
def test_the_page_answers_anything_cleanly(count: int, page: Any, logs: Path, opened: Opened) -> None:
    dice = random.Random(count)
    counted = attack(page, (any_request(dice) for _ in range(count)), logs, opened)
    assert sum(counted[status] for status in counted if 400 <= status < 500) > count / 3


@pytest.mark.parametrize("count", COUNTS)
def test_the_page_answers_its_own_calls_whatever_values_they_bring(
    count: int, page: Any, logs: Path, opened: Opened
) -> None:
    dice = random.Random(count)
    callbacks = callbacks_of(page)
    counted = attack(page, (callback_request(dice, callbacks) for _ in range(count)), logs, opened)
    assert set(counted) <= {200, 204, 400}
    assert counted.get(200, 0) + counted.get(204, 0) > count / 3, "the calls were refused before they were looked at"


@pytest.mark.parametrize("count", COUNTS)
def test_the_tab_answers_anything_cleanly(count: int, tab: Any, logs: Path, opened: Opened) -> None:
    dice = random.Random(count)
    counted = attack(tab, (any_request(dice) for _ in range(count)), logs, opened)
    assert counted.get(200, 0) > 0
    assert sum(counted[status] for status in counted if 400 <= status < 500) > count / 5


def test_with_a_token_nothing_gets_through_without_it(logs: Path, opened: Opened) -> None:
    guarded = create_app(logs, token="a-long-enough-token").server
    dice = random.Random(1)
    callbacks = callbacks_of(create_app(logs).server)
    requests = [any_request(dice) for _ in range(60)] + [callback_request(dice, callbacks) for _ in range(60)]
    counted = attack(guarded, iter(requests), logs, opened)
    assert set(counted) <= {400, 401}


def test_a_body_larger_than_allowed_is_refused_unread(page: Any) -> None:
    body = io.BytesIO(b"x" * (LARGEST_BODY + 1))
    request = ("POST", "/_dash-update-component", "", body.getvalue(), {"CONTENT_TYPE": "application/json"})
    assert answer(page, request)[0] == 413


def test_a_broken_run_hides_no_other_and_its_pickle_is_not_loaded(page: Any, tab: Any, logs: Path) -> None:
    view = json.loads(answer(tab, ("GET", "/data/plugin/hiddenscope/view", "run=broken", b"", {}))[1])
    assert view["run"] == "version_0"
    assert view["picture"]["data"]
