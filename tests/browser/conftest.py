"""A real headless Chromium, a served page, and a record of everything the browser complained about or fetched."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from dash import Dash

from hiddenscope.analyses.cocluster import COCLUSTER
from hiddenscope.analyses.studies import make
from hiddenscope.dashboard.command import listen, run_until_closed
from hiddenscope.dashboard.command import serve as server_of
from hiddenscope.dashboard.pictures import BROWSERS, FLAGS
from hiddenscope.dashboard.worker import Worker
from hiddenscope.results import ResultStore
from text_examples import record_reader

sync_api = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright: pip install playwright")


@pytest.fixture(scope="session")
def chromium() -> Iterator[sync_api.Browser]:
    """Debian's Chromium, driven by playwright."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        reason = "no Chromium on this machine (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Witness:
    """What a page did that a reader would mind."""

    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def watch(self, page: sync_api.Page) -> None:
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.foreign.append(request.url) if _is_foreign(request.url) else None)
        page.on("response", lambda answer: self.failed.append(answer.url) if answer.status >= 400 else None)

    def assert_clean(self) -> None:
        assert self.errors == []
        assert self.foreign == []
        assert self.failed == []


def _is_foreign(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in ("about", "blob", "data") and parts.hostname != "127.0.0.1"


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
def page(chromium: sync_api.Browser, witness: Witness) -> Iterator[sync_api.Page]:
    """A fresh page; at the end it must have been clean."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(90_000)
    witness.watch(page)
    yield page
    context.close()
    witness.assert_clean()


Serve = Callable[..., str]


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """Starts ``hiddenscope dashboard`` on a free port and gives its address; ends it afterwards."""
    with contextlib.ExitStack() as stack:

        def start(logdir: Path, *options: str) -> str:
            command = [sys.executable, "-m", "hiddenscope", "dashboard", str(logdir), "--port", "0", *options]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"http://\S+", line):
                    drain = threading.Thread(target=process.stdout.read, daemon=True)
                    drain.start()
                    stack.callback(_end, process, drain)
                    return found[0]
            process.stdout.close()
            raise AssertionError(f"the dashboard ended with code {process.wait()} before it served")

        yield start


@pytest.fixture(scope="module")
def serve_here() -> Iterator[Callable[[Dash], str]]:
    """Serves a page from a thread of this process, and gives its address; ends it afterwards."""
    with contextlib.ExitStack() as stack:

        def start(app: Dash) -> str:
            listener = listen("127.0.0.1", 0)
            server = server_of(app, listener)
            thread = threading.Thread(target=run_until_closed, args=(server,), daemon=True)
            thread.start()
            stack.callback(thread.join, timeout=10)
            stack.callback(server.close)
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

        yield start


@pytest.fixture(scope="module")
def tensorboard() -> Iterator[Serve]:
    """Starts TensorBoard on a free port and gives its address, path prefix included; ends it afterwards."""
    with contextlib.ExitStack() as stack:

        def start(logdir: Path, *options: str) -> str:
            with listen("127.0.0.1", 0) as probe:
                port = probe.getsockname()[1]
            command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1"]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(
                [*command, "--port", str(port), *options], stderr=subprocess.PIPE, text=True, env=environment
            )
            assert process.stderr is not None
            assert any("http://" in line for line in process.stderr), "TensorBoard did not start"
            drain = threading.Thread(target=process.stderr.read, daemon=True)
            drain.start()
            stack.callback(_end, process, drain)
            prefix = next((option.partition("=")[2] for option in options if option.startswith("--path_prefix=")), "")
            return f"http://127.0.0.1:{port}{prefix}"

        yield start


@pytest.fixture(scope="module")
def words_read(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of a network that reads words, its picture and its co-clusters."""
    logdir = tmp_path_factory.mktemp("logs")
    run, _ = record_reader(logdir / "version_0")
    worker = Worker(logdir)
    assert worker.turn()
    worker.close()
    with ResultStore.open(run.location, writable=True) as store:
        make(COCLUSTER, run, "rnn", store)
    return logdir


def _end(process: subprocess.Popen[str], drain: threading.Thread) -> None:
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    drain.join()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
