"""The edge-case suite itself: a planted fault of each kind is caught, and shrinks to the smallest strength."""

import dataclasses
import importlib.util
import warnings
from types import SimpleNamespace

import h5py  # noqa: F401  (imported before pytester restores sys.modules: torch refuses a second import)
import pytest
import scipy.stats  # noqa: F401
import torch
from PIL import Image

import xai_assert as xa
import xai_assert.testing.reports
import xai_assert.testing.session
from xai_assert import randomness, resources
from xai_assert.batching import Batch
from xai_assert.known_models import Corner, KnownModel
from xai_assert.metrics import fidelity, prepared
from xai_assert.perturbations import selection
from xai_assert.perturbations.selection import Ranking
from xai_assert.subject import Card

FILE = resources.suites() / "test_perturbation_edge_cases.py"
spec = importlib.util.spec_from_file_location("edge_case_suite", FILE)
suite = importlib.util.module_from_spec(spec)
spec.loader.exec_module(suite)


def failures_of(property_of_suite):
    """What a property raises: Hypothesis gathers distinct failures, each shrunk on its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xa.TiedHeatmapWarning)
        with pytest.raises((AssertionError, ExceptionGroup, pytest.fail.Exception)) as caught:
            property_of_suite()
    return caught.value.exceptions if isinstance(caught.value, ExceptionGroup) else [caught.value]


def overlapping(monkeypatch):
    def ends(self, fraction):
        k = selection.pixel_count(fraction, self.size)
        return self.order[:, :k], torch.cat([self.order[:, :1], self.order[:, 1 - k :][:, : k - 1]], 1)

    monkeypatch.setattr(Ranking, "ends", ends)


def leaking(monkeypatch):
    honest = fidelity.measure

    def measure(batch, perturb, *rest):
        return honest(batch, lambda mask: perturb(mask) + 1 / 64, *rest)

    monkeypatch.setattr(fidelity, "measure", measure)


def index_breaks_ties(monkeypatch):
    def rank(heatmap, *, seed, image_ids):
        flat = heatmap.flatten(1)
        keys = (selection.ordered_bits(flat) << 32) - torch.arange(flat.shape[1])
        return Ranking(keys, tuple(heatmap.shape[1:]), lambda: keys)

    monkeypatch.setattr(prepared, "rank", rank)
    monkeypatch.setattr(suite, "rank", rank)


def keyed_by_position(monkeypatch):
    honest = randomness.normal
    monkeypatch.setattr(
        randomness, "normal", lambda shape, **keys: honest(shape, **keys | {"image_ids": range(len(keys["image_ids"]))})
    )


def unbounded(monkeypatch):
    honest = fidelity.fidelity
    monkeypatch.setattr(fidelity, "fidelity", lambda rel, irr: 2 * honest(rel, irr))


def upside_down(monkeypatch):
    honest = Ranking.ends
    monkeypatch.setattr(Ranking, "ends", lambda self, fraction: honest(self, fraction)[::-1])


def always_rgb(monkeypatch):
    honest = Card._channels
    monkeypatch.setattr(Card, "_channels", lambda self, rgb, n: honest(dataclasses.replace(self, layout="RGB"), rgb, n))


def accepting_any_map(monkeypatch):
    monkeypatch.setattr(prepared, "check_ranks", lambda *_: None)


def at_least_one_pixel(monkeypatch):
    honest = selection.pixel_count
    for module in (selection, fidelity):
        monkeypatch.setattr(module, "pixel_count", lambda p, size: honest(max(p, 0.5 / (size[0] * size[1])), size))


@pytest.mark.parametrize(
    ("plant", "name", "text"),
    [
        (overlapping, "test_both_ends_have_exactly_k_pixels_and_share_none", "R and I overlap"),
        (overlapping, "test_nothing_but_the_selected_pixels_changes", "a pixel was changed that was not selected: "),
        (leaking, "test_nothing_but_the_selected_pixels_changes", "pixels were changed: "),
        (index_breaks_ties, "test_both_ends_have_exactly_k_pixels_and_share_none", "changes from h to -h"),
        (index_breaks_ties, "test_af_is_bounded_odd_and_blind_to_scale", "AF of neg(h) does not follow that of h: "),
        (keyed_by_position, "test_what_is_drawn_does_not_depend_on_the_batch", "was shown something else: "),
        (unbounded, "test_af_is_bounded_odd_and_blind_to_scale", "AF outside of [-1, 1]: "),
        (upside_down, "test_the_true_map_never_scores_below_its_inverse", "that the model does not see move it: "),
        (always_rgb, "test_colours_and_strengths_follow_the_card", "Tensor-likes are not close"),
        (accepting_any_map, "test_a_map_that_ranks_nothing_is_refused", "DID NOT RAISE"),
        (at_least_one_pixel, "test_a_fraction_of_no_pixel_is_refused", "DID NOT RAISE"),
    ],
)
def test_a_planted_fault_is_caught(plant, name, text, monkeypatch):
    plant(monkeypatch)
    failed = [error for error in failures_of(getattr(suite, name)) if text in str(error)]
    assert failed
    if text.endswith(": "):
        smallest = "smallest strength that breaks it: gaussian_noise(sigma=0.04), seed 0"
        assert smallest in "\n".join(failed[0].__notes__)


MODEL = """
import torch, xai_assert as xa

class Net(torch.nn.Module):
    # bears a change of 0.237 standard deviations in any pixel of an image of zeros, and none beyond
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(0.1, 2, 48).reshape(6, 8))

    def forward(self, images):
        depth = images.mean(1, keepdim=True) * self.weight
        return torch.where(images.abs().amax((1, 2, 3), keepdim=True) > {limit}, {beyond}, depth)

def build():
    colours = {{"mean": [0.2] * 3, "std": [0.229, 0.224, 0.225]}}
    return xa.describe(Net(), name="net-v7", task="depth", unit="m", input_size=(6, 8), **colours)
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """The suite on a user's model, on two grey pictures, which are zeros in its input."""
    folder = pytester.mkdir("data")
    for name in "ab":
        Image.new("RGB", (8, 6), (51, 51, 51)).save(folder / f"{name}.png")
    monkeypatch.syspath_prepend(pytester.path)
    options = ["-p", "no:cacheprovider", "-p", "no:randomly", "--import-mode=importlib", "-W", "error"]
    options += ["--xai-model=usermodel:build", "--xai-data=data", "-k", "your_model"]

    def start(*arguments, limit=0.237, beyond="torch.nan"):
        pytester.makepyfile(usermodel=MODEL.format(limit=limit, beyond=beyond))
        return pytester.runpytest_inprocess(str(FILE), *options, *arguments)

    return start


def test_a_model_that_breaks_at_a_known_strength(run):
    result = run("--xai-perturbation=fgsm", "--xai-perturbation=black")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "E*AssertionError: net-v7 returned NaN or infinity for images a, b perturbed by fgsm(epsilon=0.25); "
            "fgsm(epsilon=0.25), seed 0, 2.08% of the pixels, heatmap of distinct values",
            "E*smallest strength that breaks it: fgsm(epsilon=0.25), seed 0, 2.08% of the pixels, heatmap of "
            "distinct values (Hypothesis shrank it in steps of 0.05)",
            "E*case=Case(perturbation='fgsm(epsilon=0.25)',",
            "E*fraction=0.02083*",
        ]
    )


def test_a_model_that_raises_beyond_a_strength(run):
    result = run("--xai-perturbation=fgsm", beyond="1 / int((images.abs() <= 0.237).all()) * depth")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "E*ZeroDivisionError: division by zero",  # with the lines of the model that raised it
            "E*AssertionError: the model net-v7 failed on images (4, 3, 6, 8) of torch.float32: division by zero; fg*",
            "E*smallest strength that breaks it: fgsm(epsilon=0.25), seed 0, *",
        ]
    )


def test_a_sound_model_passes(run):
    result = run(limit=1e9)
    assert result.ret == 0
    result.assert_outcomes(passed=1, deselected=9)


def test_a_model_that_is_no_function_of_its_input(run):
    result = run(limit=-1, beyond="torch.rand_like(depth)")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "E*AssertionError: net-v7: AF of h and of -h, which should cancel, sum to *; gaussian_noise(sigma=0.04), *",
            "E*smallest strength that breaks it: gaussian_noise(sigma=0.04), seed *",
        ]
    )


def test_a_model_that_drifts(run):
    # a step of float32 for some weights at each call, which moves an AF by less than is looked at
    result = run(limit=-1, beyond="(self.weight.data.mul_(1 + 2e-7), depth)[1]")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["E*AssertionError: measuring changed the weights of net-v7"])


def test_without_a_model_of_the_users_both_networks_of_the_project_are_tested(pytester):
    result = pytester.runpytest_inprocess(str(FILE), "--import-mode=importlib", "--collect-only", "-q")
    for name in ("meter-xxs-scenes", "pixelformer-nano"):
        result.stdout.fnmatch_lines([f"*::test_your_model_under_any_perturbation[[]{name}[]]"])


@pytest.mark.parametrize(
    ("forward", "gradients", "examples"),
    [(0.001, 1, 25), (0.03, 1, 11), (0.03, 0, 22), (0.03, 3, 5), (1.0, 1, 3), (60.0, 1, 3)],
)
def test_the_number_of_examples_follows_the_time_of_the_passes(forward, gradients, examples, monkeypatch):
    clock = iter([100.0, 100.0 + forward])  # 4 s for examples of 6 passes, and 6 more for each gradient
    monkeypatch.setattr(suite, "time", SimpleNamespace(perf_counter=clock.__next__))
    subject = KnownModel("corner", 0).subject((4, 4))
    batch = Batch(torch.zeros(1, 3, 4, 4), ("a",), None)
    assert suite.affordable(subject, batch, gradients) == examples


DEFAULT = ("gaussian_noise", "fgsm", "black", "mean")


def cases_of(monkeypatch, subject, *, seed=0):
    """The examples that a subject is given."""
    drawn = []
    run = SimpleNamespace(seed=seed, perturbations=[xa.perturbation(name) for name in DEFAULT])
    monkeypatch.setattr(suite, "session_of", lambda config: run)
    monkeypatch.setattr(suite, "affordable", lambda *_: 25)
    monkeypatch.setattr(suite, "check", lambda subject, batch, case: drawn.append(case))
    suite.test_your_model_under_any_perturbation(subject, torch.zeros(1, 3, 4, 4), None)
    return drawn


def test_the_examples_are_those_of_the_seed(monkeypatch):
    subject = KnownModel("corner", 0).subject((4, 4))
    first, again, other = (cases_of(monkeypatch, subject, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert {case.perturbation.partition("(")[0] for case in first} == set(DEFAULT)


def test_a_model_without_mean_and_std_is_not_asked_for_colours(monkeypatch):
    subject = xa.describe(Corner(), name="bare", task="depth")
    drawn = {case.perturbation.partition("(")[0] for case in cases_of(monkeypatch, subject)}
    assert drawn == {"gaussian_noise", "fgsm"}
