"""The command `xai-assert`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 2 for a mistake in what was asked."""
    parser = argparse.ArgumentParser(prog="xai-assert", description="Tests for explanations.")
    commands = parser.add_subparsers(dest="command", required=True)
    calibrate = commands.add_parser(
        "calibrate",
        help="write thresholds from results",
        description="Write a gates file from the results of complete runs: each threshold lies 3 standard errors (of "
        "images and, with a file for each of several --xai-seed, of seeds) under the mean AF that was measured.",
    )
    calibrate.add_argument("results", nargs="+", type=Path, help="results.json of the suites, a file for each seed")
    calibrate.add_argument("-o", "--output", required=True, type=Path, metavar="GATES.TOML", help="file to write")
    given = parser.parse_args(arguments)
    try:
        return run_calibrate(given.results, given.output)
    except (ValueError, OSError) as error:
        print(f"xai-assert {given.command}: {error}", file=sys.stderr)
        return 2


def run_calibrate(results: Sequence[Path], output: Path) -> int:
    from xai_assert.reporting.calibrate import calibrate, table

    cells = calibrate(results, output)
    print("\n".join(table(cells)))
    count = sum(not cell.no_gate for cell in cells)
    print(f"{count} gates for {len(cells)} cells: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
