"""What the strategies draw: edge cases by name, small to print, shrunk to the smallest strength."""

import subprocess
import sys
import tomllib
from pathlib import Path

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.database import InMemoryExampleDatabase

import xai_assert as xa
from xai_assert import known_models, recipes, registry, strategies
from xai_assert.attributions import check_ranks
from xai_assert.perturbations import pixel_count
from xai_assert.perturbations.base import CONTEXT
from xai_assert.recipes import Heatmap, Images
from xai_assert.strategies import STRENGTHS

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
OURS = ("gaussian_noise", "fgsm", "patch_noise", "brightness", "pgd", "black", "mean", "noisy_linear")
EVERYTHING = st.one_of(
    strategies.images(),
    strategies.heatmaps(),
    strategies.heatmaps(degenerate=True),
    strategies.masks(),
    strategies.fractions((48, 64)),
    strategies.perturbations(OURS),
    strategies.seeds(),
    strategies.known_models(),
    strategies.cases((192, 256), OURS),
)


def find(strategy, condition):
    """The simplest example; without the database, whose examples are not shrunk again."""
    return hypothesis.find(strategy, condition, settings=settings(strategies.profile, max_examples=2000, database=None))


def failure(test, **options):
    """The text of a failing property, with the sentences that Hypothesis adds."""
    chosen = settings(strategies.profile, **{"database": None, "derandomize": True} | options)
    with pytest.raises(AssertionError) as caught:
        chosen(test)()
    return "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


def sigma(spec):
    return float(spec.removeprefix("gaussian_noise(sigma=").removesuffix(")"))


class TestPerturbations:
    def test_all_of_ours_are_drawn_and_accepted(self):
        seen = set()

        @settings(QUICK, max_examples=300)
        @given(strategies.perturbations(OURS))
        def draw(spec):
            found = xa.perturbation(spec)
            assert str(found) == spec
            seen.add(found.name)
            for name, value in found.parameters.items():
                assert (found.name, name) in {(key, parameter) for key, (parameter, _) in STRENGTHS.items()}
                assert 0 < value <= STRENGTHS[found.name][1]

        draw()
        assert seen == set(OURS)

    def test_no_strength_of_ours_is_forgotten(self):
        """A new perturbation with a strength of its own belongs into the table."""
        for name in registry.perturbations.names():
            entry = registry.perturbations.get(name)
            if not entry.function.__module__.startswith("xai_assert."):
                continue
            own = registry.keywords(entry.function, skip=1, given=CONTEXT)
            strength = {STRENGTHS[name][0]} if name in STRENGTHS else set()
            assert strength <= own
            in_pixels = {"sigma"} if name == "blur" else set()
            left = (own & {"sigma", "epsilon", "delta", "strength"}) - strength - in_pixels
            assert not left, f"{name} is not in STRENGTHS"

    def test_all_registered_ones_by_default_also_the_users(self):
        with registry.isolated():
            xa.register_perturbation("negative")(lambda images: -images)
            assert find(strategies.perturbations(), lambda spec: spec == "negative") == "negative"

    @pytest.mark.parametrize("limit", [0.0, 0.237, 0.995])
    def test_it_shrinks_to_the_smallest_step(self, limit):
        strategy = strategies.perturbations(["gaussian_noise"], max_strength=1.0)
        expected = {0.0: 0.01, 0.237: 0.24, 0.995: 1.0}[limit]
        assert sigma(find(strategy, lambda spec: sigma(spec) > limit)) == expected

    def test_it_shrinks_to_a_strength_before_it_shrinks_to_none(self):
        def breaks(spec):
            return not spec.startswith("gaussian_noise") or sigma(spec) >= 0.2

        assert find(strategies.perturbations(OURS), breaks) == "gaussian_noise(sigma=0.2)"
        assert find(strategies.perturbations(OURS), lambda spec: "(" not in spec) == "black"

    def test_max_strength_bounds_and_leaves_out_what_has_none(self):
        @QUICK
        @given(strategies.perturbations(max_strength=0.2))
        def draw(spec):
            ((_, value),) = xa.perturbation(spec).parameters.items()
            assert 0 < value <= 0.2

        draw()

    def test_mistakes_are_told(self):
        with pytest.raises(xa.UnknownNameError, match="unknown perturbation 'gausian_noise'; did you mean"):
            strategies.perturbations(["gausian_noise"])
        with pytest.raises(
            ValueError, match=r"names: \['black'\] leaves no perturbation; those with a strength: gauss"
        ):
            strategies.perturbations(["black"], max_strength=1)
        for wrong in (0, -1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match=f"max_strength must be a positive number, not {wrong}"):
                strategies.perturbations(max_strength=wrong)


class TestSentence:
    """What the text of a failure says of the strength, and when it may not."""

    def test_the_smallest_strength_stands_in_the_failure(self):
        @given(spec=strategies.perturbations(["gaussian_noise"], max_strength=1.0), seed=strategies.seeds())
        def holds(spec, seed):
            assert sigma(spec) <= 0.237

        text = failure(holds)
        sentence = (
            "smallest strength that breaks it: gaussian_noise(sigma=0.24) (Hypothesis shrank it in steps of 0.01)"
        )
        assert text.count(sentence) == text.count("smallest strength") == 1
        assert "spec='gaussian_noise(sigma=0.24)',\n    seed=0," in text

    def test_a_case_says_seed_and_fraction_too(self):
        @given(case=strategies.cases((4, 5), ["gaussian_noise"]))
        def holds(case):
            assert sigma(case.perturbation) <= 0.237

        sentence = "gaussian_noise(sigma=0.24), seed 0, 5% of the pixels, heatmap of distinct values"
        assert f"smallest strength that breaks it: {sentence} (Hypothesis shrank it in steps of 0.04)" in failure(holds)

    def test_what_has_no_strength_is_not_called_smallest(self):
        @given(spec=strategies.perturbations(OURS))
        def holds(spec):
            assert "(" in spec

        text = failure(holds)
        assert "what breaks it: black\n" in text
        assert "smallest" not in text

    def test_what_was_not_shrunk_is_not_called_smallest(self):
        def holds(spec):
            raise AssertionError

        drawn = given(spec=strategies.perturbations(["gaussian_noise"], max_strength=1.0))
        assert "smallest strength" in failure(drawn(holds))
        assert "smallest" not in failure(drawn(holds), phases=[hypothesis.Phase.generate])
        assert "smallest" not in failure(example(spec="gaussian_noise(sigma=2.0)")(drawn(holds)))

    def test_what_was_replayed_is_not_called_smallest_today(self):
        """A model that got worse since: Hypothesis shows the example of then, and does not shrink it again."""
        bears = [0.237, 0.1]

        @settings(strategies.profile, derandomize=False, database=InMemoryExampleDatabase())
        @given(spec=strategies.perturbations(["gaussian_noise"], max_strength=1.0))
        def holds(spec):
            assert sigma(spec) <= bears[0]

        sentence = "gaussian_noise(sigma=0.24) (Hypothesis shrank it in steps of 0.01, when it first failed)"
        while bears:
            with pytest.raises(AssertionError) as caught:
                holds()
            assert f"smallest strength that breaks it: {sentence}" in caught.value.__notes__
            bears.pop(0)


class TestHeatmaps:
    SIZES = ((1, 2), (2, 1), (1, 3), (3, 3), (7, 5))

    @pytest.mark.parametrize("kind", recipes.RANKABLE)
    def test_what_ranks_is_accepted(self, kind):
        for size in self.SIZES:
            for seed in range(20):
                heatmap = Heatmap(kind, seed).tensor(size)
                assert (tuple(heatmap.shape), heatmap.dtype) == (size, torch.float32)
                check_ranks(heatmap[None], ["image"], kind)
                assert torch.equal(heatmap, Heatmap(kind, seed).tensor(size))

    @pytest.mark.parametrize("kind", recipes.DEGENERATE)
    def test_what_ranks_nothing_is_refused(self, kind):
        for size in self.SIZES:
            for seed in range(5):
                with pytest.raises(xa.DegenerateHeatmapError):
                    check_ranks(Heatmap(kind, seed).tensor(size)[None], ["image"], kind)

    def test_they_are_what_their_names_say(self):
        def values(kind):
            return Heatmap(kind, 0).tensor((6, 6)).flatten().tolist()

        assert len(set(values("distinct values"))) == 36
        assert max(values("negative values")) == -1
        assert min(values("both signs")) == -1
        assert sorted(set(values("ties"))) == [0, 1, 2]
        assert sorted(values("one hot pixel")) == [0] * 35 + [1]
        assert sorted(values("one cold pixel")) == [0] + [1] * 35
        assert {str(value) for value in values("signed zeros")} == {"-0.0", "0.0", "1.0"}
        assert sorted(set(values("neighbouring values"))) == [1 - 2**-24, 1, 1 + 2**-23]
        assert 0 < max(map(abs, values("denormals"))) < torch.finfo(torch.float32).tiny
        assert max(values("huge values")) == -min(values("huge values")) == torch.finfo(torch.float32).max

    def test_the_method_finds_it_or_a_rescale_of_it_in_every_image(self):
        recipe, images = Heatmap("negative values", 3), torch.zeros(2, 3, 4, 5)
        subject = known_models.KnownModel("corner", 0).subject((4, 5))
        for transform, expected in ((torch.clone, recipe.tensor((4, 5))), (torch.neg, -recipe.tensor((4, 5)))):
            found = xa.heatmap(subject, images, recipe.method(transform))
            assert torch.equal(found, expected.expand(2, -1, -1))
        assert str(recipe.method()) == "heatmap of negative values"


class TestImages:
    @QUICK
    @given(strategies.images())
    def test_they_are_as_asked(self, recipe):
        images = recipe.tensor()
        assert (tuple(images.shape), images.dtype) == ((recipe.count, 3, *recipe.size), recipe.dtype)
        assert torch.isfinite(images).all()
        assert torch.equal(images, recipe.tensor())
        width = recipe.size[1]
        strides = {"contiguous": (width, 1), "channels_last": (3 * width, 3), "strided": (2 * width, 2)}
        assert images.stride()[2:] == strides[recipe.layout]

    def test_one_size_if_one_is_given(self):
        @QUICK
        @given(strategies.images((5, 7)), strategies.images(st.just((5, 7))))
        def drawn(one, other):
            assert one.size == other.size == (5, 7)

        drawn()

    def test_contents(self):
        def drawn(kind):
            return Images(kind, (8, 8), 2, "contiguous", torch.float32, 0).tensor()

        assert not drawn("zeros").any()
        assert torch.equal(drawn("flat"), drawn("flat")[..., :1, :1].expand(2, 3, 8, 8))
        assert set(drawn("extremes").flatten().tolist()) == {-2.5, 2.5}
        assert 0 < drawn("denormals").abs().max() < torch.finfo(torch.float32).tiny


class TestFractions:
    @pytest.mark.parametrize("size", [(1, 2), (1, 3), (3, 3), (7, 9), (192, 256)])
    def test_every_number_of_pixels_can_come(self, size):
        most = size[0] * size[1] // 2

        @QUICK
        @given(strategies.fractions(size))
        def usable(fraction):
            assert 1 <= pixel_count(fraction, size) <= most

        usable()
        for k in {1, most, (1 + most) // 2}:
            find(strategies.fractions(size), lambda p, k=k: pixel_count(p, size) >= k)
        assert pixel_count(find(strategies.fractions(size), lambda p: True), size) == 1

    def test_one_pixel_has_none(self):
        with pytest.raises(ValueError, match="size 1x1: R and I need a pixel each"):
            strategies.fractions((1, 1))


@QUICK
@given(strategies.masks(), strategies.sizes())
def test_a_mask_selects_something(recipe, size):
    mask = recipe.tensor(size)
    assert (tuple(mask.shape), mask.dtype) == (size, torch.bool)
    assert mask.any()
    rows, columns = mask.any(1), mask.any(0)
    if recipe.kind != "scattered":  # all pixels of its rows and columns, without a gap
        assert torch.equal(mask, rows[:, None] & columns)
        assert all((side.int().diff() == 1).sum() <= 1 - int(side[0]) for side in (rows, columns))
    assert recipe.kind != "pixel" or mask.sum() == 1
    assert xa.tasks.depth_in_mask(mask)(torch.ones(2, 1, *size)).tolist() == [1, 1]


@QUICK
@given(strategies.known_models(), strategies.sizes(), strategies.seeds())
def test_the_relevance_of_a_known_model_is_true(recipe, size, seed):
    subject, relevance = recipe.subject(size), recipe.relevance(size)
    images = Images("noise", size, 1, "contiguous", torch.float64, seed).tensor()
    relevant = relevance > 0
    assert relevant.any()
    assert int((~relevant).sum()) >= size[0] * size[1] // 2
    clean = subject(images)
    assert torch.equal(subject(torch.where(relevant, images, 9.0)), clean)
    one = torch.zeros(size, dtype=torch.bool)
    one.view(-1)[relevance.argmax()] = True
    assert not torch.equal(subject(torch.where(one, 9.0, images)), clean)


def test_everything_prints_on_one_line():
    """Hypothesis prints every argument, and a batch of small images took 140 lines."""

    @settings(QUICK, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
    @given(EVERYTHING)
    def short(drawn):
        assert "\n" not in repr(drawn)
        assert len(repr(drawn)) < 160

    short()


class TestProfile:
    def test_what_it_sets(self):
        for found in (strategies.profile, settings.get_profile("xai")):
            assert (found.deadline, found.max_examples, found.print_blob) == (None, 25, True)
            assert set(found.phases) == set(hypothesis.Phase) - {hypothesis.Phase.explain}

    def test_it_is_registered_not_loaded_and_imports_nothing(self):
        code = (
            "import sys, hypothesis\n"
            "from xai_assert import _register_hypothesis_profile as register\n"
            "before = hypothesis.settings.default.max_examples\n"
            "register()\n"
            "assert hypothesis.settings.default.max_examples == before != 25\n"
            "assert hypothesis.settings.get_profile('xai').max_examples == 25\n"
            "print(*sorted(m for m in sys.modules if m.startswith(('xai_assert', 'torch.', 'numpy.'))))\n"
        )
        done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
        assert done.stdout.split() == ["xai_assert"], done.stderr

    def test_the_entry_point_is_declared(self):
        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
        assert project["entry-points"]["hypothesis"] == {"xai_assert": "xai_assert:_register_hypothesis_profile"}
