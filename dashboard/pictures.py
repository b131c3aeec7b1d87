"""Pictures of the page for README and docs, taken of a recorded run: ``make pictures``.

python -m hiddenscope.dashboard.pictures RUN --out docs/images
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from hiddenscope.dashboard.worker import Worker
from hiddenscope.errors import HiddenscopeError, MissingExtraError
from hiddenscope.run import Run, open_run

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


def views(run: Run) -> dict[str, dict[str, str]]:
    """Name of the picture to the query of the page that it shows."""
    epochs = run.epochs
    middle = f"{epochs[len(epochs) // 2]:g}"
    units = ",".join(str(unit) for unit in run.description.layers[0].units[[1, 4]]) if _has_units(run, 5) else ""
    label = "class" if run.labels is not None else "unit"
    return {
        "page": {"theme": "light"},
        "page-dark": {"theme": "dark", "color": label, "epoch": middle, "units": units},
        "page-steps": {"theme": "light", "color": "step", "view": "2"},
    }


def take(run: Run, out: Path) -> list[Path]:
    """Take every picture of `views` of the page that shows ``run``.

    Args:
        run: with at least one epoch; its picture is made first where it has none.
        out: the folder for the PNG files; made where it does not exist.

    Raises:
        MissingExtraError: playwright is not installed.
        HiddenscopeError: there is no Chromium.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise MissingExtraError("playwright", "pictures", "taking pictures of the page") from None
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        raise HiddenscopeError("taking pictures needs Chromium, found none; on Debian: apt-get install chromium")
    folder = Path(run.path)
    _embed(folder)
    out.mkdir(parents=True, exist_ok=True)
    taken = []
    with _served(folder) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=list(FLAGS))
        for name, query in views(run).items():
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.goto(f"{address}/?{urlencode({key: value for key, value in query.items() if value})}")
            page.wait_for_function(_DRAWN, timeout=PATIENCE_MS)
            _settle(page)
            target = out / f"{name}.png"
            page.screenshot(path=str(target))
            page.close()
            taken.append(target)
        browser.close()
    return taken


def main(argv: Sequence[str] | None = None) -> int:
    """Take the pictures and say where they are."""
    parser = argparse.ArgumentParser(prog="python -m hiddenscope.dashboard.pictures", description=__doc__)
    parser.add_argument("run", type=Path, help="a recorded run, or a folder above it")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="where to put them (%(default)s)")
    args = parser.parse_args(argv)
    try:
        for picture in take(open_run(args.run), args.out):
            print(picture)
    except HiddenscopeError as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 2
    return 0


def _embed(folder: Path) -> None:
    worker = Worker(folder)
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
