"""Names, and the words `name(key=value)` in which users ask for things."""

import importlib.metadata
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import xai_assert as xa
from xai_assert import registry
from xai_assert.registry import Registry, format_spec, parameters_key, parse_spec


class TestSpecs:
    @pytest.mark.parametrize(
        ("spec", "expected"),
        [
            ("saliency", ("saliency", {})),
            ("  saliency ", ("saliency", {})),
            ("saliency()", ("saliency", {})),
            ("gaussian_noise(sigma=0.5)", ("gaussian_noise", {"sigma": 0.5})),
            ("gaussian_noise (sigma = 1e-3, clip=True)", ("gaussian_noise", {"sigma": 1e-3, "clip": True})),
            ("integrated_gradients(baseline=white)", ("integrated_gradients", {"baseline": "white"})),
            ("ig(baseline='a b', steps=-3)", ("ig", {"baseline": "a b", "steps": -3})),
            ("shift(by=(1, -2), about=None)", ("shift", {"by": (1, -2), "about": None})),
            ("meter-xxs-nyu", ("meter-xxs-nyu", {})),
            ("timm/vit_tiny.v1", ("timm/vit_tiny.v1", {})),
            ("pkg.models:build", ("pkg.models:build", {})),
        ],
    )
    def test_name_and_parameters(self, spec, expected):
        assert parse_spec(spec, "method") == expected

    @pytest.mark.parametrize(
        ("spec", "why"),
        [
            ("", "not of the form"),
            ("1up", "not of the form"),
            ("saliency(", "not of the form"),
            ("two words", "not of the form"),
            ("noise(0.5)", "only key=value pairs"),
            ("noise(**{'sigma': 1})", "only key=value pairs"),
            ("noise(sigma=1)(clip=True)", "only key=value pairs"),
            ("noise(sigma=1) + other(clip=True)", "only key=value pairs"),
            ("noise(sigma=1, sigma=2)", "given twice"),
            ("noise(sigma=)", "not of the form"),
            ("noise(sigma=open('f'))", "not of the form"),
        ],
    )
    def test_anything_else_is_refused_with_the_form(self, spec, why):
        with pytest.raises(ValueError, match=why) as error:
            parse_spec(spec, "perturbation")
        assert str(error.value).startswith(f"perturbation {spec!r} is not of the form name or name(key=value, ...)")

    @settings(max_examples=50, deadline=None, derandomize=True)
    @given(
        st.dictionaries(
            st.from_regex(r"[a-z]{2,8}_", fullmatch=True),  # with an underscore: no keyword of Python's
            st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none() | st.text(),
            max_size=3,
        )
    )
    def test_writing_and_reading_are_inverse(self, parameters):
        assert parse_spec(format_spec("noise", parameters), "perturbation") == ("noise", parameters)

    def test_what_cannot_be_written_is_named_by_its_type(self):
        assert format_spec("ig", {"baseline": torch.zeros(3)}) == "ig(baseline=<Tensor>)"


class TestNames:
    def test_an_unknown_name_gets_the_nearest_known_one(self):
        with pytest.raises(xa.UnknownNameError, match=r"method 'salency'; did you mean 'saliency'\? known: .*edges"):
            registry.methods.get("salency")

    def test_a_name_like_nothing_gets_the_list_alone(self):
        with pytest.raises(xa.UnknownNameError, match=r"unknown perturbation 'xyzzy'; known: black, blur"):
            registry.perturbations.get("xyzzy")

    def test_an_unknown_name_is_a_value_error(self):
        assert issubclass(xa.UnknownNameError, ValueError)

    def test_ours_are_there(self):
        ours = {"saliency", "integrated_gradients", "attention_rollout", "random", "edges"}
        assert ours <= set(registry.methods.names())
        assert {"black", "mean", "gaussian_noise", "fgsm"} <= set(registry.perturbations.names())

    @pytest.mark.parametrize("name", ["", "two words", "1up", "ig(steps=3)", "a+b"])
    def test_a_name_that_could_not_be_asked_for_is_refused(self, name):
        with pytest.raises(ValueError, match="use letters, digits"):
            Registry("method", "json").register(name, object())

    def test_a_taken_name_is_refused_unless_replaced(self):
        with registry.isolated():
            first = registry.methods.register("mine", object())
            with pytest.raises(ValueError, match=r"the method 'mine' is already registered; pass replace=True"):
                registry.methods.register("mine", object())
            assert registry.methods.get("mine") is first
            second = registry.methods.register("mine", object(), replace=True)
            assert registry.methods.get("mine") is second

    @pytest.mark.parametrize("register", [xa.register_method, xa.register_perturbation])
    def test_the_decorators_keep_to_it(self, register):
        taken = "saliency" if register is xa.register_method else "black"
        with registry.isolated():
            with pytest.raises(ValueError, match=f"{taken!r} is already registered"):
                register(taken)(lambda *_: None)
            register(taken, replace=True)(lambda *_: None)


class TestIsolated:
    @pytest.mark.parametrize("raises", [False, True])
    def test_what_is_registered_inside_is_forgotten(self, raises):
        saliency, before = registry.methods.get("saliency"), registry.methods.names()
        try:
            with registry.isolated():
                registry.methods.register("mine", object())
                registry.methods.register("saliency", object(), replace=True)
                assert "mine" in registry.methods.names()
                if raises:
                    raise KeyError
        except KeyError:
            assert raises
        assert registry.methods.names() == before
        assert registry.methods.get("saliency") is saliency


class TestPlugins:
    @pytest.fixture
    def plugin(self, monkeypatch, tmp_path):
        """A third party's package with an entry point, not yet loaded."""
        (tmp_path / "party_plugin.py").write_text(
            "import xai_assert as xa\n"
            "@xa.register_method('party')\n"
            "def party(model, images, target):\n"
            "    return images.abs().mean(1)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        entry = importlib.metadata.EntryPoint("party", "party_plugin", "xai_assert.plugins")
        asked = []

        def entry_points(*, group):
            asked.append(group)
            return [entry] if group == "xai_assert.plugins" else []

        with registry.isolated():
            monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
            registry.load_plugins.cache_clear()
            yield asked
        sys.modules.pop("party_plugin", None)
        registry.load_plugins.cache_clear()

    def test_a_third_partys_method_is_found_and_loaded_once(self, plugin):
        images = torch.rand(2, 3, 4, 4)
        assert "party" in registry.methods.names()
        found = xa.heatmap(torch.nn.Conv2d(3, 1, 1), images, "party", task="depth")
        assert torch.equal(found, images.mean(1))
        assert plugin == ["xai_assert.plugins"]


class TestCacheKeys:
    def test_equal_plain_parameters_have_equal_keys_in_any_order(self):
        assert parameters_key({"a": 1, "b": "x"}) == parameters_key({"b": "x", "a": 1})
        assert parameters_key({"a": 1}) != parameters_key({"a": 2})

    def test_one_object_has_one_key_and_two_have_two(self):
        one, two = torch.zeros(3), torch.zeros(3)
        assert parameters_key({"baseline": one}) == parameters_key({"baseline": one})
        assert parameters_key({"baseline": one}) != parameters_key({"baseline": two})
        assert len({parameters_key({"baseline": t}) for t in (one, two, one)}) == 2

    def test_a_dead_object_leaves_its_key_to_nobody(self):
        # Freed memory is given away again at once, so that an `id` alone repeats within a few tries.
        keys = {parameters_key({"baseline": object()}) for _ in range(100)}
        assert len(keys) == 100

    def test_unhashable_parameters(self):
        sizes = [1, 2]
        assert {parameters_key({"sizes": sizes})} == {parameters_key({"sizes": sizes})}


@pytest.mark.parametrize("kind", ["method", "perturbation"])
class TestParameters:
    def register(self, kind):
        """A function with one parameter, beside what we give it, and one that takes any."""
        if kind == "method":
            xa.register_method("strict")(lambda model, images, target, *, seed, image_ids, width=1: images)
            xa.register_method("loose")(lambda model, images, target, **anything: images)
        else:
            xa.register_perturbation("strict")(lambda images, *, card, seed, image_ids, gradient, width=1: images)
            xa.register_perturbation("loose")(lambda images, **anything: images)
        return getattr(xa, kind)

    def test_an_unknown_parameter_is_refused_with_those_that_exist(self, kind):
        with registry.isolated():
            make = self.register(kind)
            with pytest.raises(TypeError, match=rf"{kind} 'strict' takes no parameter 'widht'; it takes: width$"):
                make("strict", widht=2)

    def test_what_we_give_is_no_parameter(self, kind):
        with registry.isolated():
            make = self.register(kind)
            with pytest.raises(TypeError, match="takes no parameter 'seed'"):
                make("strict(seed=3)")

    def test_a_function_that_takes_any_is_given_any(self, kind):
        with registry.isolated():
            assert str(self.register(kind)("loose", a=1)) == "loose(a=1)"

    def test_keywords_go_before_the_words(self, kind):
        with registry.isolated():
            make = self.register(kind)
            assert make("strict(width=2)", width=3).parameters == {"width": 3}
            assert make(make("strict", width=2), width=3).parameters == {"width": 3}

    def test_a_thing_that_takes_none_says_so(self, kind):
        name = "saliency" if kind == "method" else "black"
        with pytest.raises(TypeError, match=f"{name!r} takes no parameter 'sigma'; it takes: none"):
            getattr(xa, kind)(name, sigma=1)

    def test_something_else_is_refused(self, kind):
        with pytest.raises(TypeError, match=f"{kind} must be a name.*not int"):
            getattr(xa, kind)(3)
