"""What a page has drawn, asked of the figures in the browser, and how it is operated there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

PATIENCE_MS = 180_000
"""What is awaited comes within seconds; on a crowded machine it may take long, and then it is no failure."""

CURVE = """name => {
  const graph = document.querySelector('#curves .js-plotly-plot');
  const found = graph && graph._fullData && graph._fullData.find(trace => trace.name === name);
  return found ? (found.type === 'heatmap' ? found.z[0].length : found.x.length) : 0;
}"""
POINTS = """() => {
  const graph = document.querySelector('#picture .js-plotly-plot');
  return graph && graph._fullData && graph._fullData.length ? graph._fullData[0].x.length : 0;
}"""
TRACES = """(id) => {
  const graph = document.querySelector('#' + (id || 'picture') + ' .js-plotly-plot');
  return (graph && graph._fullData || []).filter(trace => trace.x).map(trace => ({
    name: trace.name, type: trace.type, count: trace.x.length, opacity: trace.opacity, first: trace.x[0],
    epochs: Array.from(new Set(Array.from(trace.customdata || [], row => row[0]))),
    steps: Array.from(new Set(Array.from(trace.customdata || [], row => row[1]))),
    units: Array.from(new Set(Array.from(trace.customdata || [], row => row[2]))),
    title: trace.marker && trace.marker.colorbar && trace.marker.colorbar.title.text || '',
    width: trace.line ? trace.line.width : 0, mode: trace.mode,
    colors: trace.marker && trace.marker.color && trace.marker.color.length > 7
      && typeof trace.marker.color !== 'string' ? Array.from(trace.marker.color) : null,
  }));
}"""
EYE = "() => document.querySelector('#picture .js-plotly-plot')._fullLayout.scene._scene.getCamera().eye"
NAMELESS = """() => Array.from(document.querySelectorAll('main button, main input, main [role=slider]'))
  .filter(e => !e.closest('.modebar-container') && e.type !== 'hidden' && !e.hidden)
  .filter(e => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.innerText
                 || (e.labels && e.labels.length)))
  .map(e => e.outerHTML.slice(0, 120))"""


def until(page: Any, condition: str, graph: str = "picture") -> list[dict[str, Any]]:
    """Wait for a condition on the ``traces`` of a graph, as `TRACES` tells them; gives them."""
    told = page.wait_for_function(
        f"id => {{ const traces = ({TRACES})(id); return ({condition}) ? traces : false; }}",
        arg=graph,
        timeout=PATIENCE_MS,
    )
    found: list[dict[str, Any]] = told.json_value()
    return found


def choose(page: Any, control: str, label: str) -> None:
    """Choose from a list of the page by its label."""
    page.click(f"#{control}")
    page.get_by_role("option", name=label, exact=True).click()


def turn_camera(page: Any) -> dict[str, float]:
    """Turn the 3-D picture by hand; gives where it is seen from then."""
    page.wait_for_function(f"() => {{ try {{ return ({EYE})().x > 0; }} catch {{ return false; }} }}")
    before = page.evaluate(EYE)
    box = page.locator("#picture").bounding_box()
    x, y = box["x"] + box["width"] / 3, box["y"] + box["height"] / 2
    for _ in range(5):  # a busy machine may miss a fast hand
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 120, y + 30, steps=8)
        page.mouse.up()
        page.wait_for_timeout(500)
        turned: dict[str, float] = page.evaluate(EYE)
        if abs(turned["x"] - before["x"]) > 0.01:
            return turned
    raise AssertionError(f"the camera was dragged, and stayed at {before}")


def point_until(page: Any, place: Callable[[], Sequence[float]], noticed: str, arg: object = None) -> None:
    """Point at a place until that is noticed: what is just being drawn moves, and lets a single move of a hand pass.

    Args:
        page: the page.
        place: where it is now, in pixels.
        noticed: a function in JavaScript that tells whether it is.
        arg: given to it.
    """
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(noticed, arg):
        assert time.monotonic() < deadline, f"pointing at {tuple(place())} is not noticed"
        x, y = place()
        page.mouse.move(x - 2, y)
        page.mouse.move(x, y)
        page.wait_for_timeout(100)


def assert_fits(page: Any, width: int, height: int) -> None:
    """Everything essential is on a screen of this size."""
    page.set_viewport_size({"width": width, "height": height})
    for part in ("#picture", "#curves", "#status", "#transport"):
        box = page.locator(part).bounding_box()
        assert box["y"] >= 0, part
        assert box["y"] + box["height"] <= height, part
        assert box["x"] + box["width"] <= width, part
        assert box["width"] > 100, part
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
