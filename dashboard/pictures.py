"""Pictures of the page for README and docs, taken of a recorded run: ``make pictures``.

python -m hiddenscope.dashboard.pictures RUN --out docs/images
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from hiddenscope.dashboard.report import report_html
from hiddenscope.dashboard.studio import live_studies
from hiddenscope.dashboard.worker import Worker
from hiddenscope.errors import HiddenscopeError, MissingExtraError
from hiddenscope.run import Run, find_runs, open_run

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1440, 900
PATIENCE_MS = 120_000
_DRAWN = """() => ['picture', 'curves'].every(id => {
  const graph = document.querySelector('#' + id + ' .js-plotly-plot');
  return graph && graph._fullData && graph._fullData.length && graph._fullLayout._size;
})"""


def views(run: Run, other: str = "") -> dict[str, dict[str, str]]:
    """Name of the picture to the query of the page that it shows; ``other`` is a run to compare with, if any."""
    epochs = run.epochs
    middle = f"{epochs[len(epochs) // 2]:g}"
    units = ",".join(str(unit) for unit in run.description.layers[0].units[[1, 4]]) if _has_units(run, 5) else ""
    label = "class" if run.labels is not None else "unit"
    found = {
        "page": {"theme": "light"},
        "page-dark": {"theme": "dark", "color": label, "epoch": middle, "units": units},
        "page-steps": {"theme": "light", "color": "step", "view": "2"},
    }
    return found | ({"page-compare": {"theme": "light", "compare": other}} if other else {})


def take(logdir: Path, out: Path, *, only: Sequence[str] = ()) -> list[Path]:
    """Take every picture of `views`, of TensorBoard's tab and scalars, and of the report.

    Args:
        logdir: a run or a folder above it; the newest run that has finished is shown, and compared with the next one if
            there are two.
        out: the folder for the PNG files; made where it does not exist.
        only: names of the pictures to take; all where it is empty.

    Raises:
        MissingExtraError: playwright is not installed.
        HiddenscopeError: there is no Chromium, or no run with an epoch.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise MissingExtraError("playwright", "pictures", "taking pictures of the page") from None
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        raise HiddenscopeError("taking pictures needs Chromium, found none; on Debian: apt-get install chromium")
    infos = sorted((info for info in find_runs(logdir) if info.epoch_count), key=lambda info: info.status != "finished")
    run = open_run(infos[0].path if infos else logdir)
    names = [info.name for info in infos]
    _embed(logdir)
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=list(FLAGS))

        def shoot(name: str, address: str, ready: Callable[[Any], None]) -> None:
            if only and name not in only:
                return
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.goto(address)
            ready(page)
            target = out / f"{name}.png"
            page.screenshot(path=str(target))
            page.close()
            taken.append(target)

        taken: list[Path] = []
        with _served(logdir) as address:
            for name, query in views(run, *names[1:2]).items():
                told = {"run": names[0], **{key: value for key, value in query.items() if value}}
                shoot(name, f"{address}/?{urlencode(told)}", _compared if "compare" in query else _drawn)
        with _tensorboard(logdir) as address:
            shoot("tensorboard", f"{address}/#hiddenscope", _tab_drawn)
            shoot("tensorboard-scalars", f"{address}/#timeseries", _scalars_drawn)
        with tempfile.TemporaryDirectory() as scratch:
            report = Path(scratch) / "report.html"
            report.write_text(report_html(run), encoding="utf-8")
            shoot("report", report.as_uri(), _settle)
        browser.close()
    return taken


def _drawn(page: Any) -> None:
    page.wait_for_function(_DRAWN, timeout=PATIENCE_MS)
    _settle(page)


def _compared(page: Any) -> None:
    page.wait_for_selector("#compare-graph .js-plotly-plot .main-svg", timeout=PATIENCE_MS)
    _settle(page)


def _tab_drawn(page: Any) -> None:
    """TensorBoard puts a page of its own around the tab's, so the tab is a frame in a frame."""
    until = time.monotonic() + PATIENCE_MS / 1000
    while True:
        found = [frame for frame in page.frames if frame.url.endswith("/hiddenscope/index.html")]
        if found:
            break
        if time.monotonic() > until:
            raise HiddenscopeError("TensorBoard did not open the tab")
        page.wait_for_timeout(200)
    found[0].wait_for_function(_DRAWN, timeout=PATIENCE_MS)
    _settle(found[0])


def _scalars_drawn(page: Any) -> None:
    """Time Series with the loss and the entropies alone, first chart drawn."""
    search = page.wait_for_selector("input[placeholder^='Filter tags']", timeout=PATIENCE_MS)
    search.fill("loss|step_entropy")
    search.press("Escape")
    page.wait_for_function(
        """() => document.querySelectorAll('card-view').length > 2
              && document.querySelectorAll('card-view canvas, card-view svg path').length > 3""",
        timeout=PATIENCE_MS,
    )
    page.wait_for_timeout(2_500)


def main(argv: Sequence[str] | None = None) -> int:
    """Take the pictures and say where they are."""
    parser = argparse.ArgumentParser(prog="python -m hiddenscope.dashboard.pictures", description=__doc__)
    parser.add_argument("run", type=Path, help="a recorded run, or a folder above it")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="where to put them (%(default)s)")
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="take these pictures alone")
    args = parser.parse_args(argv)
    try:
        for picture in take(args.run, args.out, only=args.only):
            print(picture)
    except HiddenscopeError as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 2
    return 0


def _embed(folder: Path) -> None:
    worker = Worker(folder, studies=live_studies()[0])
    try:
        while worker.turn():
            continue
    finally:
        worker.close()


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    from hiddenscope.dashboard.app import create_app
    from hiddenscope.dashboard.command import listen, serve

    listener = listen("127.0.0.1", 0)
    server = serve(create_app(folder), listener)
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def _tensorboard(logdir: Path) -> Iterator[str]:
    """A TensorBoard of the folder; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + PATIENCE_MS / 1000
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/data/environment", timeout=5).close()
                break
            except OSError:
                if time.monotonic() > until or process.poll() is not None:
                    raise HiddenscopeError("TensorBoard does not answer; is it installed?") from None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _settle(page: Any) -> None:
    """Wait until nothing on the page has been drawn anew for a while."""
    page.evaluate(
        """() => new Promise(resolve => {
          let timer = null;
          const again = () => { clearTimeout(timer); timer = setTimeout(resolve, 2500); };
          document.querySelectorAll('.js-plotly-plot').forEach(graph => graph.on('plotly_afterplot', again));
          again();
        })"""
    )


def _has_units(run: Run, count: int) -> bool:
    return len(run.description.layers[0].units) >= count


if __name__ == "__main__":
    raise SystemExit(main())
