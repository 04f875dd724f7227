"""The command: measure, judge, write."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from benchmarks import acceptance, growth, memory, pictures, tables
from benchmarks.cases import OURS, SHORT, WORKS, Case, cases
from benchmarks.machine import machine, versions
from benchmarks.measuring import Rounds, alone, alternate, as_record, clock_of
from benchmarks.networks import NETWORKS, Network, Setup, prepare, quick
from benchmarks.weaving import weave
from xai_assert.preserve import full_precision

ROOT = Path(__file__).parents[1]
SCHEMA = 1
SECONDS, FEWEST = 5.0, 3  # of a short case, and its rounds
# short ones with a bound: neighbours in time differ by a tenth here, and the median of many rounds does not
PROMISED = {"saliency": 38.0, "cell": 10.0}
MEMORY_STEPS = 16  # of IG on all but the first network, which has them all: the peak does not grow with them
GROWTHS = ("images", "steps", "tokens", "fractions")
Say = Callable[[str], None]


class Clock:
    """How long the run has lasted, and whether there is time for more."""

    def __init__(self, minutes: float) -> None:
        self.begun, self.limit = time.monotonic(), 60 * minutes

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    @property
    def left(self) -> float:
        return self.limit - self.seconds

    @property
    def over(self) -> bool:
        return self.left <= 0


def parser(description: str | None = None) -> argparse.ArgumentParser:
    """The options."""
    layout = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(prog="benchmarks/run.py", description=description, formatter_class=layout)
    made.add_argument("--quick", action="store_true", help="one round, one image, few steps: does everything work?")
    made.add_argument("-o", "--output", type=Path, default=Path("benchmark-results"), metavar="DIR")
    made.add_argument("--only", action="append", default=[], metavar="NAME", help="a network, a work, memory, growth")
    made.add_argument("--device", default="cpu", help="cpu (the default) or cuda")
    made.add_argument("--threads", type=int, help="of torch; its default otherwise")
    made.add_argument("--minutes", type=float, default=28.0, help="begin nothing after so many (default: %(default)g)")
    made.add_argument("--docs", action="store_true", help="write docs/benchmarks.md and docs/benchmarks/")
    made.add_argument("--from", dest="source", type=Path, metavar="JSON", help="measure nothing: write from these")
    return made


def main(arguments: Sequence[str] | None = None, *, description: str | None = None) -> int:
    """See `benchmarks/run.py`."""
    made = parser(description)
    options = made.parse_args(arguments)
    known = [*(one.name for one in NETWORKS), *WORKS, "memory", "growth", *GROWTHS]
    if unknown := sorted(set(options.only) - set(known)):
        made.error(f"--only: no {', '.join(unknown)}; there are {', '.join(known)}")
    if options.threads:
        torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # of near baselines and ties: not what is measured here
    results = json.loads(options.source.read_text()) if options.source else measure(options, tell)
    folder, page = options.output, options.output / "benchmarks.md"
    if options.docs:
        folder, page = ROOT / "docs" / "benchmarks", ROOT / "docs" / "benchmarks.md"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks.json").write_text(json.dumps(results, indent=1) + "\n")
    pictures.write(results, folder)
    text = tables.page(results)
    page.write_text(text if options.docs else text.replace("(benchmarks/", "("))
    print(tables.promises(acceptance.judge(results)))
    print(f"{page}, {folder / 'benchmarks.json'}")
    return 0


def tell(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def measure(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """All of it, as plain JSON types."""
    device, clock = torch.device(options.device), Clock(options.minutes)
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "benchmarks",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "settings": {"only": options.only, "minutes": options.minutes, "seconds_of_a_short_case": SECONDS},
        "machine": machine(device),
        "versions": versions(),
    }
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(full_precision())  # as ours runs, and so must the others
        # what every promise needs comes first: if time runs out, it is the last network that goes without
        results["memory"] = all_memory(options, device, clock, say)
        results["growth"] = all_growth(options, device, clock, say)
        results["cases"] = all_cases(options, device, clock, say)
    results["seconds"] = clock.seconds
    results["acceptance"] = [verdict.as_record() for verdict in acceptance.judge(results)]
    return results


def networks(options: argparse.Namespace) -> list[Network]:
    """Those asked for, or all."""
    chosen = [one for one in NETWORKS if one.name in options.only] or NETWORKS
    return [quick(one) for one in chosen] if options.quick else list(chosen)


def wanted(options: argparse.Namespace, *names: str) -> bool:
    """Whether one of these is asked for; all are where only networks or nothing is."""
    asked = set(options.only) - {one.name for one in NETWORKS}
    return not asked or bool(asked & set(names))


def all_cases(options: argparse.Namespace, device: torch.device, clock: Clock, say: Say) -> list[dict[str, Any]]:
    """Every work on every network."""
    if not wanted(options, *WORKS):
        return []
    found = []
    for network in networks(options):
        few, more = prepare(network, device), prepare(network, device, images=network.short)
        for work in WORKS:
            if clock.over or not wanted(options, work):
                continue
            setup = more if work in SHORT else few
            found.append(measured(cases(setup)[work](), setup, options, clock))
            say(f"{clock.seconds:5.0f} s  {network.name}: {found[-1]['title']}  {words(found[-1]['contenders'])}")
        if clock.over:
            say(f"{clock.seconds:5.0f} s  out of time in {network.name}: what is left is not measured")
    return found


def measured(case: Case, setup: Setup, options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """One work on one network, as many rounds as there is time for; a long one has its bare passes woven in.

    Not on a GPU, which works ahead of the CPU: to stop it before each pass would be to time the stops.
    """
    network, now = setup.network, clock_of(setup.images.device)
    seconds, fewest = (0.0, network.rounds) if case.needed else (PROMISED.get(case.work, SECONDS), FEWEST)
    rounds: Rounds = {"seconds": seconds, "fewest": fewest, "left": clock.left, "exact": 1 if options.quick else None}
    if case.needed and setup.images.device.type == "cpu":
        timed = weave(case.contenders, setup, case.needed, ours=OURS, clock=now, rounds=rounds)
    else:
        timed = alternate(case.contenders, alone(setup.module, now), **rounds)
    return {
        "network": network.name,
        "work": case.work,
        "title": case.title,
        "size": list(network.size),
        "images": setup.batch,
        "batch_size": setup.batch,
        "rounds": max(len(one.seconds) for one in timed.values()),
        "contenders": as_record(timed, setup.batch),
    }


def words(contenders: dict[str, Any]) -> str:
    """The ratios in one line."""
    known = {who: one["ratio"]["median"] for who, one in contenders.items() if "ratio" in one}
    return ", ".join(f"{who} {ratio:.2f}" for who, ratio in known.items() if who != "bare")


def all_growth(options: argparse.Namespace, device: torch.device, clock: Clock, say: Say) -> list[dict[str, Any]]:
    """The curves."""
    asked = [name for name in GROWTHS if wanted(options, "growth", name)]
    if not asked:
        return []
    curves, found = growth.growths(device, small=options.quick), []
    for name in asked:
        if clock.over:
            say(f"{clock.seconds:5.0f} s  out of time: growth with {name} is not measured")
            continue
        found.append(curves[name]())
        say(f"{clock.seconds:5.0f} s  growth with {name}")
    return found


def all_memory(options: argparse.Namespace, device: torch.device, clock: Clock, say: Say) -> list[dict[str, Any]]:
    """The peaks."""
    found: list[dict[str, Any]] = []
    asked = networks(options)[: 1 if options.quick else None]
    for network in asked if wanted(options, "memory") else []:
        if clock.over:
            say(f"{clock.seconds:5.0f} s  out of time: memory on {network.name} is not measured")
            continue
        steps = network.steps if options.quick or network.name == NETWORKS[0].name else MEMORY_STEPS
        found += memory.of_network(network.name, steps, device=device, small=options.quick)
        say(f"{clock.seconds:5.0f} s  memory on {network.name}")
    return found
