"""``hiddenscope experiment``: run one experiment, and leave its tables, figures and summary in a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hiddenscope.experiments.experiment import Context, all_experiments, carry_out

_OWN = ("experiment", "out", "quick", "seed", "fresh", "no_png", "list", "command", "run")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command: the name of an experiment, and then its options."""
    parser.add_argument("--list", action="store_true", help="list the experiments and end")
    names = parser.add_subparsers(dest="experiment", metavar="NAME")
    for name, experiment in all_experiments().items():
        summary = experiment.summary.replace("%", "%%")
        chosen = names.add_parser(name, help=summary, description=summary[:1].upper() + summary[1:] + ".")
        chosen.add_argument("--out", type=Path, help=f"folder for what comes out (default: results/{name})")
        chosen.add_argument("--quick", action="store_true", help="seconds instead of minutes: to see that it runs")
        chosen.add_argument("--seed", type=int, default=0, help="of all randomness (default: %(default)s)")
        chosen.add_argument("--fresh", action="store_true", help="compute anew what an earlier run left in the folder")
        chosen.add_argument("--no-png", action="store_true", help="write figures as HTML only")
        if experiment.add_arguments is not None:
            experiment.add_arguments(chosen)


def run(args: argparse.Namespace) -> int:
    """Run the experiment that was named, or list all of them."""
    experiments = all_experiments()
    if args.list or args.experiment is None:
        width = max(map(len, experiments), default=0)
        for name, experiment in experiments.items():
            print(f"{name:<{width}}  {experiment.summary}")
        if not args.list:
            print(
                "hiddenscope experiment: say which one, as in: hiddenscope experiment NAME --out DIR", file=sys.stderr
            )
        return 0 if args.list else 2
    experiment = experiments[args.experiment]
    out: Path = (Path("results") / experiment.name if args.out is None else args.out).expanduser()
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out takes a folder, got the file {out}")
    own = {name: value for name, value in vars(args).items() if name not in _OWN}
    context = Context(out, quick=args.quick, seed=args.seed, arguments=argparse.Namespace(**own), fresh=args.fresh)
    summary = carry_out(experiment, context, pictures=not args.no_png, command=_typed(args))
    for name, value in context.numbers.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    print(f"Results: {out} ({len(set(context.files))} files; {summary.name} says how they were made)")
    return 0


def _typed(args: argparse.Namespace) -> str:
    """The command as it can be typed again."""
    words = ["hiddenscope", "experiment", str(args.experiment)]
    words += ["--quick"] if args.quick else []
    words += ["--seed", str(args.seed)]
    for name, value in vars(args).items():
        if name in _OWN or value in (None, False):
            continue
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{name.replace('_', '-')}", *([] if one is True else [str(one)])]
    return " ".join(words)
