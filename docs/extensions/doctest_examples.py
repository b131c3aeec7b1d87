"""For the documentation's builder: the examples that close our docstrings become code, not block quotes."""

from __future__ import annotations

import textwrap
from typing import Any

import griffe


class DoctestExamples(griffe.Extension):
    """Puts the first ``>>>`` of a docstring and what follows under a heading that the builder knows."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is None:
            return
        text, prompt, example = obj.docstring.value.partition("\n>>> ")
        if prompt:
            obj.docstring.value = f"{text}\nExamples:\n" + textwrap.indent(f">>> {example}", "    ")
