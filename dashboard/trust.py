"""How far a picture is to be trusted, as bars: what it keeps of neighborhoods, and of the layout at large."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from dash import html

from hiddenscope.dashboard import words

EXPLAINED = (
    "True neighbors kept: of the ten points that truly respond most alike, so many are still among the ten nearest in "
    "the picture. No false neighbors: 1 when whatever lies close together truly responds alike, less when strangers "
    "lie among it (trustworthiness). Distances in order: 1 when what lies farther apart always responds more "
    "differently, 0 when distances mean nothing (Spearman's rank correlation). "
    "The mark in each bar is what chance would give. Near it, do not read the picture; read the curves."
)


def gauges(attributes: Mapping[str, Any]) -> html.Div | None:
    """The measures that are stored with a picture, as bars; None where none is."""
    found = words.measures(attributes)
    if not found:
        return None
    parts: list[Any] = []
    for group, members in groupby(found, key=lambda one: one.group):
        parts.append(html.Span(group, className="trust-name"))
        parts += [_bar(one) for one in members]
    said = explained(attributes)
    named: Any = {"aria-label": said}
    return html.Div(parts, className="trust", title=said, role="img", **named)


def explained(attributes: Mapping[str, Any]) -> str:
    """The measures in words, and what they mean; empty where none is stored.

    >>> explained({"fidelity_inter": 0.8}).split(". ")[0]
    'Trust: true neighbors kept: across steps 8.0 of 10'
    """
    said = words.fidelity(attributes)
    return f"Trust: {said}. {EXPLAINED}" if said else ""


def _bar(one: words.Measure) -> html.Span:
    bar: list[Any] = [html.I(style={"width": f"{100 * one.value:.0f}%"})]
    if one.chance is not None:
        bar.append(html.U(style={"left": f"{min(100 * one.chance, 98):.0f}%"}))
    number = html.Span([html.B(one.number), f" {one.unit}"], className="trust-number")
    return html.Span([one.name, html.Span(bar, className="gauge"), number], className="trust-part")
