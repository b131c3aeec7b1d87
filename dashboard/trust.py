"""How far a picture is to be trusted, as a bar each for neighbors within a step and across steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dash import html

from hiddenscope.dashboard import words

EXPLAINED = (
    "Of the ten points that are truly nearest to a point, so many are still among its ten nearest in the picture. "
    "The mark in each bar is what chance would keep. Near it, do not read the picture; read the curves."
)


def gauges(attributes: Mapping[str, Any]) -> html.Div | None:
    """The measures that are stored with a picture, as bars; None where none is."""
    found = words.kept_neighbors(attributes)
    if not found:
        return None
    parts: list[Any] = [html.Span(words.neighbors_kept(attributes), className="trust-name")]
    for where, kept, chance in found:
        bar: list[Any] = [html.I(style={"width": f"{100 * kept:.0f}%"})]
        if chance is not None:
            bar.append(html.U(style={"left": f"{min(100 * chance, 98):.0f}%"}))
        parts.append(
            html.Span(
                [where, html.Span(bar, className="gauge"), html.B(f"{10 * kept:.1f}"), " of 10"],
                className="trust-part",
            )
        )
    said = f"{words.fidelity(attributes)}. {EXPLAINED}"
    named: Any = {"aria-label": said}
    return html.Div(parts, className="trust", title=said, role="img", **named)
