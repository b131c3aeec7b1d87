"""``hiddenscope analyze``: make every analysis of a run and store it there."""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("path", metavar="RUN", help="a run, or a folder in which the newest is taken")
    parser.add_argument("--layer", action="append", help="a layer (may be repeated; default: all)")
    parser.add_argument("--method", action="append", help="an analysis by its name (may be repeated; default: all)")
    parser.add_argument(
        "--model", metavar="MODULE:CLASS", help="the LightningModule that was trained, to remove units and steps"
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="its checkpoint (default: the newest in the folder checkpoints of the run)"
    )
    parser.add_argument("--again", action="store_true", help="make also what is stored and current")


def run(args: argparse.Namespace) -> int:
    """Analyze, and say in one line each what was made; 1 when something failed."""
    from hiddenscope.analyses.analyze import analyze
    from hiddenscope.run import open_run

    if args.checkpoint is not None and args.model is None:
        raise ValueError("--checkpoint needs --model MODULE:CLASS, the class that it was made from")
    opened = open_run(args.path)
    model = None if args.model is None else _model(args.model, args.checkpoint or _newest_checkpoint(opened.path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # failures are told below
        outcomes = analyze(
            opened,
            layers=args.layer,
            model=model,
            methods=args.method,
            progress=sys.stderr.isatty(),
            again=args.again,
        )
    for one in outcomes:
        took = f" in {one.seconds:.1f} s" if one.status == "made" else ""
        print(f"{one.layer}  {one.method}: {one.status}{took}{': ' + one.note if one.note else ''}")
    return int(any(one.status == "failed" for one in outcomes))


def _model(place: str, checkpoint: Path) -> Any:
    from hiddenscope.analyses.models import ModelAccess

    module, _, name = place.partition(":")
    if not module or not name:
        raise ValueError(f"--model takes MODULE:CLASS, such as my_project.models:Classifier, got {place!r}")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as python -m does; the model is often a script of the user's own
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--model {place} cannot be imported ({error})") from None
    return ModelAccess.from_checkpoint(found, checkpoint)


def _newest_checkpoint(path: str) -> Path:
    folder = Path(path).parent / "checkpoints"
    found = sorted(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise ValueError(f"there is no checkpoint in {folder}; name one with --checkpoint")
    return found[-1]
