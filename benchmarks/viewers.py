"""Viewers of the live page without a browser: they send what its script would, over HTTP, and keep what comes back."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

Json = Any


class Viewer:
    """One open page. Its inputs and what they begin with are read from the server, as a browser does.

    Args:
        host: where the page is served.
        port: its port.
    """

    def __init__(self, host: str, port: int) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=60)
        self.received = 0
        """Bytes of all answers."""
        self._values: dict[str, Json] = {}
        self._callback: dict[str, Any] = {}

    def open(self) -> dict[str, Json]:
        """Load the page and its first views; what came."""
        self.get("/")
        for part in _components(self.get_json("/_dash-layout")):
            props = part.get("props", {})
            if isinstance(props.get("id"), str):
                self._values |= {f"{props['id']}.{name}": value for name, value in props.items()}
        callbacks = self.get_json("/_dash-dependencies")
        self._callback = next(each for each in callbacks if "picture-data.data" in each["output"])
        return self.tick()

    def tick(self) -> dict[str, Json]:
        """Ask for what is new: by ``id.property``."""
        outputs = self._callback["output"]
        names = outputs.removeprefix("..").removesuffix("..").split("...")
        body = {
            "output": outputs,
            "outputs": [dict(zip(("id", "property"), name.rsplit(".", 1), strict=True)) for name in names],
            "inputs": [self._entry(part) for part in self._callback["inputs"]],
            "state": [self._entry(part) for part in self._callback["state"]],
            "changedPropIds": ["tick.n_intervals"],
        }
        answer = json.loads(self._ask("POST", "/_dash-update-component", json.dumps(body)))
        news = {
            f"{name}.{prop}": value for name, changed in answer["response"].items() for prop, value in changed.items()
        }
        self._values |= news
        return news

    def frame(self, epoch: float) -> Json:
        """One epoch in full, as the cursor asks for it in a picture with gaps."""
        states = (
            "run.value",
            "layer.value",
            "dark.data",
            "method.value",
            "color.value",
            "dimensions.value",
            "range.data",
        )
        body = {
            "output": "frame.data",
            "outputs": {"id": "frame", "property": "data"},
            "inputs": [{"id": "frame-wanted", "property": "data", "value": epoch}],
            "state": [self._entry(dict(zip(("id", "property"), name.split("."), strict=True))) for name in states],
            "changedPropIds": ["frame-wanted.data"],
        }
        return json.loads(self._ask("POST", "/_dash-update-component", json.dumps(body)))["response"]["frame"]["data"]

    @property
    def run(self) -> str:
        """The run that is looked at; set it to look at another one from the next tick on."""
        return str(self._values["run.value"])

    @run.setter
    def run(self, name: str) -> None:
        self._values["run.value"] = name

    def get(self, path: str) -> bytes:
        """What lies at a path."""
        return self._ask("GET", path, None)

    def get_json(self, path: str) -> Json:
        """The JSON at a path."""
        return json.loads(self.get(path))

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _entry(self, part: dict[str, str]) -> dict[str, Json]:
        value = self._values.get(f"{part['id']}.{part['property']}")
        return {"id": part["id"], "property": part["property"], "value": value}

    def _ask(self, method: str, path: str, body: str | None) -> bytes:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        self.received += len(content)
        if answer.status >= 400:
            raise OSError(f"{path} answered {answer.status}: {content[:200]!r}")
        return content


def _components(part: Json) -> Iterator[dict[str, Any]]:
    if isinstance(part, list):
        for each in part:
            yield from _components(each)
    elif isinstance(part, dict):
        if "props" in part:
            yield part
        for value in part.values():
            if isinstance(value, dict | list):
                yield from _components(value)


def seconds_of(task: Any) -> float:
    """How long a call takes, in seconds."""
    began = time.perf_counter()
    task()
    return time.perf_counter() - began
