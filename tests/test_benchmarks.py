"""The benchmarks measure what they say: ratios, alternation, passes, and promises judged from the data."""

import copy
import dataclasses
import doctest
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import xai_assert as xa
from xai_assert.preserve import hooks

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
try:
    from benchmarks import acceptance, bare, cases, command, measuring, memory, networks, tables, tokens, weaving
    from benchmarks.measuring import BARE, Contender
finally:
    sys.path.remove(str(ROOT))


class FakeTime:
    """A clock that only works move, and a diary of them."""

    def __init__(self):
        self.now, self.diary, self.slowness = 0.0, [], 1

    def __call__(self):
        return self.now

    def work(self, name, *seconds):
        """A contender that takes these seconds, one after another, the last of them for ever."""
        left = list(seconds)

        def run():
            self.diary.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return Contender(name, run)


@pytest.fixture
def setup():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softplus(), nn.Conv2d(4, 1, 3, padding=1))
    return networks.prepare(
        networks.Network(
            "tiny",
            lambda: xa.describe(network, name="tiny", task="depth", unit="m", **networks.IMAGENET),
            (32, 32),
            2,
            2,
            steps=5,
            table_steps=5,
            most=17,
            attention=False,
        ),
        torch.device("cpu"),
    )


class TestMeasuring:
    def test_a_ratio_is_taken_round_by_round(self):
        """The machine is four times slower in the second round, for both: the medians apart would be 2.2 and 1.1."""
        found = measuring.ratios([2.2, 8.8, 2.0], [1.1, 4.4, 1.0])
        assert found == pytest.approx({"median": 2.0, "q1": 2.0, "q3": 2.0})

    def test_the_spread_is_that_of_the_ratios(self):
        assert measuring.ratios([1, 2, 3, 4, 5], [1] * 5) == {"median": 3, "q1": 2, "q3": 4}

    def test_everyone_has_a_turn_in_each_round_and_begins_in_turn(self):
        time = FakeTime()
        work = [time.work(name, 10.0) for name in (BARE, "ours", "theirs")]
        measuring.alternate(work, measuring.alone(nn.Identity(), time), seconds=0, fewest=3)
        assert time.diary == [BARE, "ours", "theirs", "theirs", "ours", BARE, "ours", "theirs", BARE]

    def test_a_short_first_round_is_a_warm_up(self):
        time = FakeTime()
        turns = measuring.alone(nn.Identity(), time)
        timed = measuring.alternate([time.work(BARE, 2.0, 1.0)], turns, seconds=4, fewest=2)
        assert timed[BARE].seconds == [1.0] * 4

    def test_a_long_first_round_counts(self):
        time = FakeTime()
        turns = measuring.alone(nn.Identity(), time)
        timed = measuring.alternate([time.work(BARE, 9.0, 8.0)], turns, seconds=0, fewest=2)
        assert timed[BARE].seconds == [9.0, 8.0]

    def test_rounds_end_with_the_time_that_is_left(self):
        time = FakeTime()
        turns = measuring.alone(nn.Identity(), time)
        timed = measuring.alternate([time.work(BARE, 9.0)], turns, seconds=0, fewest=5, left=20)
        assert len(timed[BARE].seconds) == 2

    def test_twice_the_passes_are_reported_as_twice(self, setup):
        work = [Contender(BARE, bare.passes(setup, 2, 1)), Contender("ours", bare.passes(setup, 4, 2))]
        timed = measuring.alternate(work, measuring.alone(setup.module), seconds=0, exact=1)
        found = measuring.as_record(timed, setup.batch)
        assert found[BARE]["passes"] == {"forward": 2, "gradient": 1}
        assert found["ours"]["passes"] == {"forward": 4, "gradient": 2}

    def test_who_fails_is_out_and_says_why(self):
        time = FakeTime()

        def fail():
            raise ValueError("steps must be a whole number")

        work = [time.work(BARE, 10.0), Contender("ours", fail), Contender("theirs", None, "not installed")]
        timed = measuring.alternate(work, measuring.alone(nn.Identity(), time), seconds=0, fewest=3)
        found = measuring.as_record(timed, 1)
        assert len(found[BARE]["seconds"]) == 3
        assert found["ours"] == {"missing": "ValueError: steps must be a whole number"}
        assert found["theirs"] == {"missing": "not installed"}

    def test_bare_passes_that_fail_are_an_error(self):
        with pytest.raises(ZeroDivisionError):
            measuring.alternate([Contender(BARE, lambda: 1 / 0)], measuring.alone(nn.Identity()), seconds=0)


class TestWeaving:
    """A fake clock: a forward pass of the network takes 1 s, with its graph 3 s."""

    @pytest.fixture
    def time(self, setup):
        time = FakeTime()

        class Slow(nn.Module):
            def __init__(self, network):
                super().__init__()
                self.network = network

            def forward(self, images):
                time.now += time.slowness * (3 if images.requires_grad else 1) * len(images) / setup.batch
                return self.network(images)

            def __deepcopy__(self, memo):  # the clock is one for both
                return Slow(copy.deepcopy(self.network, memo))

        slow = xa.describe(Slow(setup.module), name="slow", task="depth", unit="m", **networks.IMAGENET)
        self.setup = dataclasses.replace(setup, subject=slow)
        return time

    def take(self, time, needed, run):
        return weaving.woven(self.setup, needed, time)(run)

    def test_the_passes_themselves_are_one(self, time):
        turn = self.take(time, (2, 5), bare.passes(self.setup, 2, 5))
        assert turn == (2 + 5 * 3, measuring.Passes(2 * self.setup.batch, 5 * self.setup.batch), 2 + 5 * 3)

    def test_the_needed_passes_are_the_base_not_those_made(self, time):
        turn = self.take(time, (1, 2), bare.passes(self.setup, 4, 6))
        assert (turn.seconds, turn.base) == (4 + 6 * 3, 1 + 2 * 3)

    def test_what_is_done_in_between_is_the_works(self, time):
        def work():
            bare.gradient(self.setup)
            time.now += 0.5

        turn = self.take(time, (0, 1), work)
        assert (turn.seconds, turn.base) == (3.5, 3)

    def test_the_images_of_a_smaller_batch_are_weighed(self, time):
        turn = self.take(time, (1, 0), lambda: bare.forward(self.setup, self.setup.images[:1]))
        assert (turn.seconds, turn.base) == (0.5, 1)

    def test_a_slower_machine_strikes_both_alike(self, time):
        """Ten times slower from the second of two passes on: one run after another, ours would seem far slower."""

        def work():
            bare.gradient(self.setup)
            time.slowness = 10
            bare.gradient(self.setup)

        turn = self.take(time, (0, 2), work)
        assert turn.seconds == turn.base == 3 + 30

    def test_a_hook_that_looks_for_attention_sees_one_pass(self, time):
        """The bare pass is that of a copy: a method that gathers what its layers gave is not given it twice."""
        seen = []

        def work():
            with hooks(self.setup.module.network.register_forward_hook(lambda *_: seen.append(1))):
                bare.forward(self.setup)

        self.take(time, (1, 0), work)
        assert seen == [1]

    def test_a_work_without_a_needed_pass_is_out(self, time):
        work = [Contender("ours", bare.passes(self.setup, 1, 0)), Contender("theirs", bare.passes(self.setup, 1, 1))]
        timed = weaving.weave(work, self.setup, (1, 1), ours="theirs", clock=time, rounds={"seconds": 0, "fewest": 2})
        found = measuring.as_record(timed, self.setup.batch)
        assert "no pass of a kind that it needs" in found["ours"]["missing"]
        assert found["theirs"]["ratio"]["median"] == 1
        assert found["theirs"]["base_seconds"] == found[BARE]["seconds"]

    @pytest.mark.parametrize("work", ["table", "adaptive_ig", "ig"])
    def test_every_long_work_can_be_woven(self, setup, work, recwarn):
        case = cases.cases(setup)[work]()
        rounds = {"seconds": 0, "exact": 1}
        now = measuring.clock_of(setup.images.device)
        timed = weaving.weave(case.contenders, setup, case.needed, ours="ours", clock=now, rounds=rounds)
        found = measuring.as_record(timed, setup.batch)
        bare_passes = next(one for one in case.contenders if one.name == BARE)
        alone = measuring.alternate([bare_passes], measuring.alone(setup.module), seconds=0, exact=1)
        assert found[BARE]["passes"] == measuring.as_record(alone, setup.batch)[BARE]["passes"]
        assert found["ours"]["passes"]["gradient"] == found[BARE]["passes"]["gradient"]
        assert found["ours"]["ratio"]["median"] > 0

    def test_the_table_beside_captum_is_judged_by_the_base_of_each(self):
        """Captum ran while the machine was twice as slow, and its bare passes did too: .5, not .25."""
        found = results()
        contenders = {"bare": [1], "ours": [1], "captum": [4]}
        made = {name: measuring.Timed(seconds) for name, seconds in contenders.items()}
        made["captum"].base = [2.0]
        found["cases"][3]["contenders"] = measuring.as_record(made, 1)
        assert acceptance.judge(found)[5].worst == ("net", 0.5)


class TestWorks:
    """Each work on a tiny network: everybody runs, and ours makes no pass that it does not need."""

    @pytest.fixture(autouse=True)
    def _quiet(self, recwarn):
        pass

    @pytest.mark.parametrize("work", cases.WORKS)
    def test_runs(self, setup, work):
        case = cases.cases(setup)[work]()
        assert case.work == work
        timed = measuring.alternate(case.contenders, measuring.alone(setup.module), seconds=0, exact=1)
        found = measuring.as_record(timed, setup.batch)
        if work == "rollout":
            assert found == {"ours": {"missing": "a network without attention"}}
            return
        needed, ours = found[BARE]["passes"], found["ours"]["passes"]
        assert ours["gradient"] == needed["gradient"]
        # deletion measures both ends; saliency's own pass gives the clean prediction, which IG of the table lacks again
        more = {"deletion": 14, "cell": -1, "fe": -1, "srg": -1, "infidelity": -1}
        assert ours["forward"] - needed["forward"] == more.get(work, 0)
        if "captum" in found and cases.rivals.installed("captum") and work not in ("fe", "deletion", "srg"):
            assert "seconds" in found["captum"] or work == "adaptive_ig", found["captum"]

    def test_what_is_not_installed_says_so(self, setup, monkeypatch):
        monkeypatch.setitem(cases.rivals.NEEDED, "captum", ("no_such_package",))
        found = {one.name: one for one in cases.saliency(setup).contenders}
        assert found["captum"].run is None
        assert found["captum"].missing == "not installed"

    def test_both_rollouts_are_one(self):
        module, contenders, apart = tokens.rollouts(6, torch.device("cpu"))
        assert [one.name for one in contenders] == [tokens.PRODUCT, "ours"]
        assert len(module.attention) == tokens.LAYERS
        assert 0 < apart <= tokens.TOLERANCE  # not 0: it would be the same computation twice

    def test_a_peak_is_seen(self):
        """64 MiB that are gone when the work ends: a block that large is mapped for itself, and given back."""
        if not os.access(memory.FORGET, os.W_OK):
            pytest.skip(f"writes {memory.FORGET}")
        # in a process of its own, as the command does it: in this one, what other tests left behind is freed meanwhile
        script = "import torch; from benchmarks import memory; run = lambda: torch.ones(2**24).sum(); run(); "
        script += "print(memory.peak(run, torch.device('cpu')))"
        folder = Path(memory.__file__).parents[1]
        done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
        assert 60 * 2**20 < int(done.stdout) < 80 * 2**20  # pages of others come and go


def timed(**seconds):
    """Contenders with these seconds a round (over three rounds)."""
    made = {name: measuring.Timed([each, each, each]) for name, each in seconds.items()}
    return measuring.as_record(made, 1)


def results():
    """Data in which every promise is kept, just."""
    case = {"network": "net", "size": [8, 8], "batch_size": 1, "images": 1, "rounds": 3}
    works = {"saliency": 1.04, "ig": 1.04, "cell": 1.09, "table": 1.09}
    found = [
        case | {"work": work, "title": f"whole {work}, 9 cells", "contenders": timed(bare=1, ours=ours, captum=2.8)}
        for work, ours in works.items()
    ]
    peaks = [("one gradient batch", "bare", 100), ("IG", "ours", 119)]
    point = {"x": 1024, "apart": 1e-6, "contenders": timed(**{tokens.PRODUCT: 5.1, "ours": 1})}
    curve = {"network": "net", "along": "tokens", "work": "rollout", "points": [point]}
    return {
        "schema": 1,
        "kind": "benchmarks",
        "created": "2026-01-02T03:04:05+00:00",
        "quick": False,
        "seconds": 60.0,
        "settings": {},
        "machine": command.machine(torch.device("cpu")),
        "versions": command.versions(),
        "cases": found,
        "growth": [curve],
        "memory": [{"network": "net", "what": w, "who": o, "bytes": b, "steps": 200} for w, o, b in peaks],
    }


def slow(found, work, seconds):
    next(c for c in found["cases"] if c["work"] == work)["contenders"] = timed(bare=1, ours=seconds, captum=2.8)


def forget(found, *names):
    for name in names:
        found[name] = []


PLANTED = [
    lambda found: slow(found, "saliency", 1.06),
    lambda found: slow(found, "ig", 1.06),
    lambda found: slow(found, "cell", 1.11),
    lambda found: slow(found, "table", 1.11),
    lambda found: found["memory"][1].update(bytes=121),
    lambda found: found["cases"][3].update(contenders=timed(bare=1, ours=1.09, captum=2.7)),
    lambda found: found["growth"][0]["points"][0].update(contenders=timed(**{tokens.PRODUCT: 4.9, "ours": 1})),
]


class TestPromises:
    def test_kept(self):
        assert [verdict.kept for verdict in acceptance.judge(results())] == [True] * 7

    @pytest.mark.parametrize("line", range(7))
    def test_each_is_broken_by_data_that_break_it(self, line):
        found = results()
        PLANTED[line](found)
        assert [i for i, verdict in enumerate(acceptance.judge(found)) if not verdict.kept] == [line]

    def test_the_worst_network_decides(self):
        found = results()
        other = copy.deepcopy(found["cases"][0]) | {"network": "other"}
        found["cases"].append(other | {"contenders": timed(bare=1, ours=1.2)})
        verdict = acceptance.judge(found)[0]
        assert not verdict.kept
        assert verdict.worst == ("other", pytest.approx(1.2))

    def test_another_result_is_no_gain(self):
        found = results()
        found["growth"][0]["points"][0]["apart"] = 2 * tokens.TOLERANCE
        assert not acceptance.judge(found)[6].kept

    def test_what_was_not_measured_is_not_kept(self):
        found = results()
        forget(found, "cases", "memory", "growth")
        verdicts = acceptance.judge(found)
        assert not any(verdict.kept for verdict in verdicts)
        assert tables.promises(verdicts).count("| not measured | **no** |") == 7


@pytest.mark.parametrize("module", [measuring, tables], ids=lambda module: module.__name__)
def test_examples_of_docstrings(module):
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed


class TestCommand:
    def test_the_page_says_what_the_data_say(self):
        found = results()
        found["cases"][0]["contenders"]["quantus"] = {"missing": "not installed"}
        text = tables.page(found)
        assert "| **1.04 [1.04, 1.04]** | 2.80 [2.80, 2.80] | (a) |" in text
        assert "(a): not installed." in text
        assert text.count("| yes |") == 7
        assert found["machine"]["cpu"] in text
        assert "quick run" not in text
        assert "quick run" in tables.page(found | {"quick": True})

    def test_a_run_from_measuring_to_page(self, setup, monkeypatch, tmp_path, capsys, recwarn):
        monkeypatch.setattr(command, "NETWORKS", [setup.network])
        assert command.main(["--quick", "--only", "saliency", "--only", "cell", "-o", str(tmp_path / "one")]) == 0
        raw = json.loads((tmp_path / "one" / "benchmarks.json").read_text())
        assert [case["work"] for case in raw["cases"]] == ["saliency", "cell"]
        assert set(results()) | {"acceptance"} == set(raw)
        assert {"cpu", "cores", "memory_gib", "system", "python", "threads", "device"} <= set(raw["machine"])
        assert raw["cases"][0]["batch_size"] == 1
        assert [line["kept"] for line in raw["acceptance"]][4:] == [False] * 3  # not measured
        assert (tmp_path / "one" / "ratios.svg").stat().st_size > 1000
        assert "saliency: time over the bare gradient pass" in capsys.readouterr().out

        assert command.main(["--from", str(tmp_path / "one" / "benchmarks.json"), "-o", str(tmp_path / "two")]) == 0
        pages = [(tmp_path / name / "benchmarks.md").read_text() for name in ("one", "two")]
        assert pages[0] == pages[1]

    def test_an_unknown_name_is_refused(self, capsys):
        with pytest.raises(SystemExit):
            command.main(["--only", "salience"])
        assert "--only: no salience; there are meter-xxs" in capsys.readouterr().err

    def test_when_time_is_out_nothing_is_begun(self, setup, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(command, "NETWORKS", [setup.network])
        command.main(["--quick", "--minutes", "0", "-o", str(tmp_path)])
        assert json.loads((tmp_path / "benchmarks.json").read_text())["cases"] == []
        assert "out of time in tiny" in capsys.readouterr().err
