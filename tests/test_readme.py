"""The README's code, run as it stands, on a small real training."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from pytorch_lightning import seed_everything

import hiddenscope
from training_examples import LIGHTNINGS_OWN_WARNINGS, Classifier, loaders

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text()
pytestmark = [pytest.mark.filterwarnings(warning) for warning in LIGHTNINGS_OWN_WARNINGS]


def code(name: str) -> str:
    (block,) = re.findall(rf"<!-- run: {name} -->\n```python\n(.*?)```", README, re.DOTALL)
    return str(block)


@pytest.mark.filterwarnings("ignore:inter_knn lowered", "ignore:.*GPU available", "ignore:.*TPU available")
def test_the_code_in_the_readme_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    seed_everything(0)
    data, _ = loaders()
    names = {"model": Classifier(units=24), "data": data, "probe_batch": next(iter(data))}
    exec(compile(code("train"), "README, train", "exec"), names)
    assert "http://127.0.0.1:" in capsys.readouterr().out
    exec(compile(code("read"), "README, read", "exec"), names)
    trace, embedding = names["trace"], names["emb"]
    assert trace.dims == hiddenscope.trace.TRACE_DIMS
    assert list(trace.epoch.values) == list(range(-1, 20))
    assert embedding.sizes == {"epoch": 21, "step": trace.sizes["step"], "unit": trace.sizes["unit"], "component": 3}
    assert torch.isfinite(torch.from_numpy(embedding.values)).all()


def test_every_file_that_the_readme_and_the_docs_point_to_is_there() -> None:
    for page in [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"
