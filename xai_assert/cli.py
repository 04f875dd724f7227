"""The command `xai-assert`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is that of its verdicts, or 2 for a mistake in what was asked."""
    parser = argparse.ArgumentParser(prog="xai-assert", description="Tests for explanations.")
    commands = parser.add_subparsers(dest="command", required=True)
    add_check(commands)
    add_calibrate(commands)
    add_merge(commands)
    add_sweep(commands)
    given = parser.parse_args(arguments)
    try:
        status: int = given.run(given)
    except (ValueError, TypeError, ImportError, OSError) as error:
        print(f"xai-assert {given.command}: {error}", file=sys.stderr)
        return 2
    return status


def add_check(commands: Any) -> None:
    """The words of `xai-assert check`."""
    check = commands.add_parser(
        "check",
        help="can a model be measured, and what will it cost?",
        description="Minutes before an hour of gates: whether the model's output, gradient and input scale are in "
        "order, which methods and perturbations apply, and how many passes and minutes all images will take. Exit "
        "status 1 if a check fails.",
    )
    check.add_argument("model", metavar="[ALIAS=]SPEC[@WEIGHTS]", help="as --xai-model takes it")
    check.add_argument("--data", help="as --xai-data takes it (default: the bundled scenes)")
    check.add_argument("--images", type=int, metavar="N", help="predict the cost of the first N images of the data")
    check.add_argument("--method", action="append", metavar="NAME", help="repeatable (default: those of the suites)")
    check.add_argument("--perturbation", action="append", metavar="NAME", help="repeatable (default: likewise)")
    check.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    check.set_defaults(run=run_check)


def run_check(given: argparse.Namespace) -> int:
    """Check a model on a few images, and say what all will cost."""
    from xai_assert.preflight import lines, preflight
    from xai_assert.testing.options import METHODS, PERTURBATIONS

    subject, images = load_model(given.model, given)
    findings = preflight(subject, images, given.method or METHODS, given.perturbation or PERTURBATIONS)
    failed = sum(finding.outcome == "fail" for finding in findings)
    print("\n".join([repr(subject), repr(images), *lines(findings)]))
    print(f"{failed} of {len(findings)} checks fail" if failed else "no check fails")
    return int(failed > 0)


def load_model(text: str, given: argparse.Namespace) -> tuple[Any, Any]:
    """The subject that `[ALIAS=]SPEC[@WEIGHTS]` means, and the images of --data and --images for it."""
    import pytest

    from xai_assert.datasets import bundled_images, open_data
    from xai_assert.models.devices import resolve_device
    from xai_assert.testing.options import ModelOption

    try:
        option = ModelOption.parse(text)
    except pytest.UsageError as error:
        raise ValueError(str(error).replace("--xai-model ", "model ")) from None
    if str(Path.cwd()) not in sys.path:  # "module:factory" of a project that is not installed
        sys.path.insert(0, str(Path.cwd()))
    subject = option.load(resolve_device(given.device))
    if given.data is None:
        return subject, bundled_images(subject.card, limit=given.images)
    return subject, open_data(given.data, subject.card, limit=given.images)


def add_calibrate(commands: Any) -> None:
    """The words of `xai-assert calibrate`."""
    calibrate = commands.add_parser(
        "calibrate",
        help="write thresholds from results",
        description="Write a gates file from the results of complete runs: each threshold lies 3 standard errors (of "
        "images and, with a file for each of several --xai-seed, of seeds) under the mean AF that was measured.",
    )
    calibrate.add_argument("results", nargs="+", type=Path, help="results.json of the suites, a file for each seed")
    calibrate.add_argument("-o", "--output", required=True, type=Path, metavar="GATES.TOML", help="file to write")
    calibrate.set_defaults(run=run_calibrate)


def run_calibrate(given: argparse.Namespace) -> int:
    """Write a gates file, and say what it stands on."""
    from xai_assert.reporting.calibrate import calibrate, table

    cells = calibrate(given.results, given.output)
    print("\n".join(table(cells)))
    count = sum(not cell.no_gate for cell in cells)
    print(f"{count} gates for {len(cells)} cells: {given.output}")
    return 0


def add_merge(commands: Any) -> None:
    """The words of `xai-assert merge`."""
    merge = commands.add_parser(
        "merge",
        help="join the results of shards",
        description="Join the results of one run's shards (--xai-shard I/N). The exit status is that of the run as "
        "one: 1 if a cell is red or a gate ran nowhere, 5 if nothing was judged.",
    )
    merge.add_argument("results", nargs="+", type=Path, help="results.json of each shard, or its folder")
    merge.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder to write")
    merge.add_argument("--baseline", type=Path, metavar="RESULTS.JSON", help="results.json of an accepted run")
    merge.add_argument("--margin", type=float, default=0.05, help="how far a score may fall below it [0.05]")
    merge.set_defaults(run=run_merge)


def run_merge(given: argparse.Namespace) -> int:
    """Make one run of its shards, and judge that."""
    from xai_assert.reporting.baseline import compare
    from xai_assert.reporting.folder import write_folder
    from xai_assert.reporting.merge import merge
    from xai_assert.reporting.terminal import table

    document, _ = merge(given.results, given.output)
    if given.baseline:
        compare(document, given.baseline, margin=given.margin).enter(document)
    *_, page = write_folder(document, given.output)
    print("\n".join([*table(document["cells"]), *document["notes"]]))
    status: int = document["exit_status"]
    print(f"report: {page}, exit status {status}")
    return status


def add_sweep(commands: Any) -> None:
    """The words of `xai-assert sweep`."""
    sweep = commands.add_parser(
        "sweep",
        help="which method to ship for a model, and how sure that is",
        description="Attribution fidelity over strengths, fractions and perturbations, beside other metrics, with a "
        "picture and the method to ship. What it will cost is said first; an interrupted run keeps what it measured. "
        "Exit status 1 if for a model no method could be measured, 130 if interrupted.",
    )
    sweep.add_argument("model", nargs="+", metavar="[ALIAS=]SPEC[@WEIGHTS]", help="as --xai-model takes it")
    sweep.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="for sweep.json and sweep.png")
    sweep.add_argument("--data", help="as --xai-data takes it (default: the bundled scenes)")
    sweep.add_argument("--images", type=int, metavar="N", help="the first N images of the data")
    sweep.add_argument("--method", action="append", metavar="NAME", help="repeatable (default: those of the suites)")
    sweep.add_argument(
        "--metric",
        action="append",
        metavar="NAME",
        help="to compare AF with; repeatable (default: deletion and insertion AUC, SRG, ROAD, sufficiency)",
    )
    sweep.add_argument(
        "--part",
        action="append",
        metavar="NAME",
        help="sigma, fraction, perturbation, metric or gradient_noise; repeatable (default: all)",
    )
    sweep.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    sweep.add_argument("--seed", type=int, default=0, help="of everything drawn at random [0]")
    sweep.add_argument("--quick", action="store_true", help="fewer points, no attack of several steps")
    sweep.set_defaults(run=run_sweep)


def run_sweep(given: argparse.Namespace) -> int:
    """Sweep over each model, and say what to ship."""
    from xai_assert.sweep.command import sweep
    from xai_assert.sweep.plan import PARTS, plan_sweep
    from xai_assert.testing.options import METHODS

    if given.images is not None and given.images < 1:
        raise ValueError(f"--images must be at least 1, not {given.images}")
    plan = plan_sweep(quick=given.quick, parts=given.part or PARTS, metrics=given.metric)
    models = [load_model(text, given) for text in given.model]
    options = {name: value for name, value in vars(given).items() if name not in ("run", "command", "output")}
    return sweep(models, given.method or METHODS, plan, given.output, seed=given.seed, options=options)


if __name__ == "__main__":
    sys.exit(main())
