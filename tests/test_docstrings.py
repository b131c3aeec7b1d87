"""Every example in a docstring runs, and gives what it says."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "hiddenscope"
ROOMS = ("", "callbacks", "embeddings", "analyses", "dashboard", "experiments")


def modules_with_examples() -> Iterator[str]:
    for room in ROOMS:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            if path.is_relative_to(PACKAGE) and ">>> " in path.read_text():
                yield ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.filterwarnings("ignore:inter_knn lowered")
@pytest.mark.parametrize("module", sorted(set(modules_with_examples())))
def test_the_examples_of_a_module_give_what_they_say(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert outcome.attempted > 0
    assert outcome.failed == 0
