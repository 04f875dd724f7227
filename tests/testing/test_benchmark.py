"""`attribution_benchmark` and the latency suite, in real runs of pytest; no time is judged."""

import json

import pytest
import torch
from known_models import Counting, Squares, draw
from untouched import untouched

import xai_assert as xa
from xai_assert import cost, resources
from xai_assert.testing.benchmark import AttributionBenchmark

TESTS = """
import pytest, torch, usermodel, xai_assert as xa

@pytest.mark.parametrize("module", [usermodel.Net()], ids=["net"])
def test_cost(attribution_benchmark, module):
    images = torch.rand(6, 3, 16, 16)
    score = attribution_benchmark(usermodel.build(), "integrated_gradients(steps=7)", images, rounds=4)
    xa.assert_score(score.of_passes(), max=7)
    print("rounds:", score.rounds)
"""


class Fixture:
    """What `benchmark` is to us: it calls `setup` and `target` as pytest-benchmark's `pedantic` does."""

    def __init__(self, enabled=True):
        self.enabled, self.group, self.params, self.extra_info, self.asked = enabled, None, None, {}, []

    def pedantic(self, target, *, setup, rounds, iterations):
        self.asked.append((self.group, rounds, iterations))
        for _ in range(rounds if self.enabled else 1):
            assert setup() is None  # anything else would be the arguments of `target`
            target()


@pytest.fixture(autouse=True)
def _not_a_worker(monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # our own tests may run in one


@pytest.fixture
def net():
    module = Counting(Squares(draw(3, 8, 8)))
    return xa.describe(module, name="net", task="depth", mean=[0.5] * 3, std=[0.25] * 3)


class TestCall:
    IMAGES = draw(6, 3, 8, 8, seed=1)

    def test_rounds_as_they_are_said(self, net):
        fixture = Fixture()
        score = AttributionBenchmark(fixture)(net, "saliency", self.IMAGES, rounds=3)
        assert fixture.asked == [("net", 3, 1)]
        assert (score.rounds, score.passes, net.module.backwards) == (3, (0, 1), 3 * 4)

    def test_rounds_from_the_budget(self, net, monkeypatch):
        monkeypatch.setattr(cost, "clock", lambda: net.module.forwards / 32)  # 1/8 second for a chunk of four
        fixture = Fixture()
        score = AttributionBenchmark(fixture)(net, "saliency", self.IMAGES)
        assert fixture.asked == [("net", 8, 1)]  # 2 seconds / (1/8 + 1/8)
        assert (score.rounds, score.value) == (8, 1)

    def test_one_round_where_nothing_is_measured(self, net):
        fixture = Fixture(enabled=False)
        score = AttributionBenchmark(fixture)(net, "saliency", self.IMAGES)
        assert (score.rounds, net.module.backwards) == (1, 4)

    def test_what_is_stored_beside(self, net):
        fixture = Fixture()
        fixture.group, fixture.params = "mine", {"module": net, "size": 8}
        score = AttributionBenchmark(fixture)(net, "saliency", self.IMAGES, rounds=1, batch_size=2)
        assert (fixture.asked[0][0], fixture.params) == ("mine", {"size": 8})  # a kept module would stay in memory
        info = json.loads(json.dumps(fixture.extra_info))
        assert info["images_per_second"] == pytest.approx(1000 / info["milliseconds"])
        assert info["forward_ratio"] == score.value
        assert info["forward_ratio"] == pytest.approx(info["milliseconds"] / info["forward_milliseconds"])
        assert (info["model"], info["method"], info["passes_per_image"]) == ("net", "saliency", 1)
        assert (info["batch_size"], info["size"], info["peak_memory"]) == (2, [3, 8, 8], None)
        assert (info["device"], info["threads"]) == ("cpu", torch.get_num_threads())
        assert info["versions"]["torch"] == torch.__version__

    def test_the_model_is_measured_in_evaluation_mode_and_left_as_it_was(self, net):
        seen = []

        def looks(subject, images, target):
            seen.append(subject.module.training)
            return images

        with untouched(net.train(), self.IMAGES):
            AttributionBenchmark(Fixture())(net, looks, self.IMAGES, rounds=1)
        assert seen == [False]

    def test_an_evaluation_remembers_it(self, net):
        ev = xa.Evaluation(net, self.IMAGES)
        score = AttributionBenchmark(Fixture())(ev, "saliency", rounds=1)
        assert xa.registry.metrics.get("forward_ratio").measure(ev, "saliency", None, 0.05) is score

    def test_a_worker_of_xdist_skips(self, net, monkeypatch):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
        with pytest.raises(pytest.skip.Exception, match=r"latency is measured alone: needs -n 0"):
            AttributionBenchmark(Fixture())(net, "saliency", self.IMAGES)
        assert net.module.forwards == 0


class TestRuns:
    @pytest.fixture
    def timed(self, project):
        project.makepyfile(test_release=TESTS)
        return project

    def test_the_users_tools_work(self, timed):
        result = timed.run_gates("--benchmark-json=times.json", "-s", gates=False)
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["*rounds: 4", "*benchmark 'net-v7': 1 tests*", "test_cost*net*"])
        (stored,) = json.loads((timed.path / "times.json").read_text())["benchmarks"]
        assert (stored["group"], stored["stats"]["rounds"], stored["stats"]["iterations"]) == ("net-v7", 4, 1)
        assert (stored["extra_info"]["passes_per_image"], stored["params"]) == (7, {})

    def test_disabled_it_runs_once(self, timed):
        result = timed.run_gates("--benchmark-disable", "-s", gates=False)
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["*rounds: 1*"])

    def test_under_xdist_it_says_what_to_do(self, timed):
        pytest.importorskip("xdist")
        result = timed.run_gates("-n2", "-rs", "-Werror", gates=False, inprocess=False)
        result.assert_outcomes(skipped=1)
        result.stdout.fnmatch_lines(["*SKIPPED*latency is measured alone: needs -n 0*"])


class TestSuite:
    def run(self, project, gates, *arguments):
        project.makefile(".toml", mine=gates)
        project.makepyfile(test_release=(resources.suites() / "test_latency.py").read_text())
        return project.run_gates("--xai-method=saliency", "--xai-method=edges", *arguments)

    def gate(self, metric, bound):
        return f'[[gate]]\nmetric = "{metric}"\nmethod = "saliency"\nmax = {bound}\n'

    def test_bounds_that_are_met(self, project):
        result = self.run(project, self.gate("passes_per_image", 1.0) + self.gate("forward_ratio", 1e6))
        result.assert_outcomes(passed=2)
        assert result.ret == 0
        cells = {cell["method"]: cell for cell in project.results()["cells"]}
        assert (cells["saliency"]["verdict"], cells["edges"]["verdict"]) == ("pass", "report")
        assert cells["saliency"]["scores"]["passes_per_image"]["value"] == 1
        assert cells["edges"]["scores"]["passes_per_image"]["value"] == 0
        assert cells["edges"]["scores"]["forward_ratio"]["provenance"]["batch_size"] == 4

    def test_a_bound_that_is_not(self, project):
        result = self.run(project, self.gate("passes_per_image", 0.5))
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(
            ["E*AssertionError: passes_per_image of net-v7 / saliency is 1.000 passes, above max=0.500 (by 0.500)"]
        )

    def test_a_method_of_many_passes_is_measured_once_on_one_image(self, project):
        gate = self.gate("passes_per_image", 1.0)
        result = self.run(project, gate, "--xai-method=integrated_gradients(steps=65)")
        result.assert_outcomes(passed=3)
        scores = [cell["scores"]["forward_ratio"] for cell in project.results()["cells"]]
        found = {
            score["provenance"]["method"]: (score["provenance"]["batch_size"], score["rounds"]) for score in scores
        }
        assert found == {"saliency": (4, 5), "edges": (4, 5), "integrated_gradients(steps=65)": (1, 1)}
