"""Measure, print the table, write ``benchmarks/results/`` and the plot."""

from __future__ import annotations

import argparse
import json
import sys

from benchmarks import report
from benchmarks.measure import machine
from benchmarks.rows import ROWS, Outcome


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen rows, or all; exit 1 when a goal was missed and ``--strict`` was given."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only the rows that take minutes")
    parser.add_argument("--only", nargs="+", choices=names, metavar="ROW", help=f"of {', '.join(names)}")
    parser.add_argument("--name", help="of the results file; default: full, quick or selected")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a goal is missed")
    asked = parser.parse_args(arguments)
    skipped = set() if asked.quick else {"growth-quick", "live-quick", "quality-lstm-quick"}
    chosen = [
        row
        for row in ROWS
        if (row.name in asked.only if asked.only else (row.quick or not asked.quick) and row.name not in skipped)
    ]
    where = machine()
    name = asked.name or ("selected" if asked.only else "quick" if asked.quick else "full")
    outcomes: list[Outcome] = []
    for row in chosen:
        print(f"measuring {row.name} ...", file=sys.stderr, flush=True)
        fresh = row.run()
        outcomes += fresh
        for outcome in fresh:
            print(f"  {outcome.row}: {outcome.value} (goal {outcome.goal})", file=sys.stderr, flush=True)
        written = report.write(outcomes, where, name=name)  # after every row: a run of an hour may be interrupted
    print(report.table(outcomes, where))
    print(f"written to {written}", file=sys.stderr)
    if name == "full":
        results = json.loads(written.read_text())
        report.plot(results)
        report.plot_live(results)
        report.document(results)
    return int(asked.strict and any(outcome.met is False for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
