"""Callbacks that a browser answers by itself, with functions of the scripts in ``assets``."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from dash import ClientsideFunction, Dash


class Browser(Protocol):
    """Registers a function of the browser's by its name, with its outputs, inputs and states as for Dash."""

    def __call__(self, function: str, *arguments: Any, **options: Any) -> None: ...


def browser_of(app: Dash, namespace: str = "hiddenscope") -> Browser:
    """What registers functions of one namespace of ``window.dash_clientside``."""
    return partial(_register, app, namespace)


def _register(app: Dash, namespace: str, function: str, *arguments: Any, **options: Any) -> None:
    clientside: Any = app.clientside_callback
    clientside(ClientsideFunction(namespace, function), *arguments, **options)
