"""Nothing of the caller's is changed, whatever is measured and however it ends."""

import contextlib
import random
import re

import numpy as np
import pytest
import torch
from known_models import Dicey, Failing, draw, seeded

import xai_assert as xa
from xai_assert import registry
from xai_assert.models.meter import Meter

METHODS = registry.methods.names()
METRICS = registry.metrics.names()
PERTURBATIONS = registry.perturbations.names()
MODES = {"grad": contextlib.nullcontext, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
HOOKS = [
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_always_called",
    "_forward_hooks_with_kwargs",
]


class Belongings:
    """All that a caller owns: a model in a state of its own choosing, images, and the random states.

    The model is a METER, most of it in training mode (its batch norms would update), with some frozen parameters, some
    gradients waiting for an optimizer, and a hook.
    """

    def __init__(self):
        self.called = []
        self.model = Dicey(seeded(Meter("xxs"))).train()
        self.model.inner.decoder.eval()
        for parameter in self.model.inner.encoder.conv1.parameters():
            parameter.requires_grad_(False)
        for parameter in self.model.inner.decoder.parameters():
            parameter.grad = torch.ones_like(parameter)
        self.model.inner.encoder.register_forward_hook(lambda *_: self.called.append("hook"))
        self.images = draw(2, 3, 64, 64).requires_grad_()
        self.images.grad = torch.full_like(self.images, 3)
        self.truth = draw(2, 16, 16, seed=1).exp().requires_grad_()

    @property
    def head(self):
        return self.model.inner.decoder.conv2d_out.weight

    def state(self):
        """Copies of it all, as one flat dictionary that says by name what differs."""
        found = {"torch's random state": torch.get_rng_state(), "random's": random.getstate()}
        found |= {f"numpy's {i}": part for i, part in enumerate(np.random.get_state())}
        found |= {"grad mode": torch.is_grad_enabled(), "inference mode": torch.is_inference_mode_enabled()}
        found |= {"threads": torch.get_num_threads(), "deterministic": torch.are_deterministic_algorithms_enabled()}
        for name, module in self.model.named_modules():
            found |= {f"{name}.training": module.training}
            found |= {f"{name}.{kind}": list(getattr(module, kind).items()) for kind in HOOKS}
        tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        for name, tensor in {**tensors, "images": self.images, "truth": self.truth}.items():
            found |= {name: tensor.detach().clone(), f"{name}.requires_grad": tensor.requires_grad}
            found |= {f"{name}.grad": None if tensor.grad is None else tensor.grad.clone()}
            found |= {f"{name} is": id(tensor), f"{name} was written": tensor._version}
        return found


@contextlib.contextmanager
def unchanged(own):
    """Fail if anything that the caller owns differs afterwards, also after an exception."""
    before = own.state()
    try:
        yield
    finally:
        after = own.state()
        assert before.keys() == after.keys()
        changed = [name for name, value in before.items() if not same(value, after[name])]
        assert not changed, f"changed: {', '.join(changed)}"


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    return bool(np.all(a == b)) if isinstance(a, np.ndarray) else a == b


@pytest.fixture
def own():
    return Belongings()


def method_of(name):
    fewer = {"integrated_gradients": {"steps": 2}, "smoothgrad": {"draws": 2}}
    return xa.method(name, **fewer.get(name, {}))


def evaluation(own, **options):
    options = {"task": "depth", "mean": [0.5] * 3, "std": [0.5] * 3, "ground_truth": own.truth} | options
    return xa.Evaluation(own.model, own.images, **options)


CHANGES = {
    "inner.decoder.conv2d_out.weight": lambda own: own.head.data.add_(1),
    "inner.decoder.conv2d_out.weight.requires_grad": lambda own: own.head.requires_grad_(False),
    "inner.decoder.conv2d_out.weight.grad": lambda own: own.head.grad.zero_(),
    "inner.encoder.conv1.1.running_mean": lambda own: own.model.inner.encoder.conv1[1].running_mean.add_(1),
    "inner.encoder.mvit.1.training": lambda own: own.model.inner.encoder.mvit[1].eval(),
    "inner.decoder._forward_pre_hooks": lambda own: own.model.inner.decoder.register_forward_pre_hook(print),
    "torch's random state": lambda own: torch.rand(1),
    "numpy's 2": lambda own: np.random.rand(),
    "random's": lambda own: random.random(),
    "images": lambda own: own.images.data.add_(1),
    "images.requires_grad": lambda own: own.images.requires_grad_(False),
    "images.grad": lambda own: setattr(own.images, "grad", None),
    "truth": lambda own: own.truth.data.add_(1),
}


class TestTheTester:
    """What follows is worth something only if a change is noticed."""

    @pytest.mark.parametrize("what", CHANGES)
    def test_notices(self, own, what):
        with pytest.raises(AssertionError, match=rf"changed: .*{re.escape(what)}"), unchanged(own):
            CHANGES[what](own)

    def test_the_model_would_change_by_itself(self, own):
        words = "changed: torch's random state, .*running_mean"
        with pytest.raises(AssertionError, match=words), unchanged(own):
            own.model(own.images)
        assert own.called == ["hook"]


# what Grad-CAM leaves at 0 ties; this is not about its ranks
TIES = pytest.mark.filterwarnings("ignore::xai_assert.errors.TiedHeatmapWarning")


class TestNothingIsChanged:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("method", METHODS)
    def test_by_a_method(self, own, method, mode):
        options = {"task": "depth", "mean": [0.5] * 3, "std": [0.5] * 3}
        with MODES[mode](), unchanged(own):
            xa.attribute(own.model, own.images, method_of(method), **options)
            xa.heatmap(own.model, own.images, method_of(method), **options)

    @TIES
    @pytest.mark.parametrize("method", METHODS)
    def test_by_a_metric(self, own, method):
        chosen = method_of(method)
        if method == "grad_cam":  # of the 2x2 places at the bottom none speaks for the target
            chosen = xa.method(method, layer="inner.encoder.conv1.0")
        with unchanged(own):
            ev = evaluation(own)
            for metric in METRICS:
                registry.metrics.get(metric).measure(ev, chosen, xa.perturbation("gaussian_noise"), 0.05)
            ev.faithfulness_estimate(chosen, mode="cumulative", groups=4)
            ev.attribution_fidelity(chosen, reference="ground_truth", asr="degrades", aggregate="set")
        assert own.called  # the caller's own hook went on working

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("perturbation", PERTURBATIONS)
    def test_by_a_perturbation(self, own, perturbation, mode):
        with MODES[mode](), unchanged(own):
            for truth in (None, own.truth):
                evaluation(own, ground_truth=truth).attribution_fidelity("saliency", perturbation=perturbation)

    @TIES
    @pytest.mark.parametrize("error", [RuntimeError("out of luck"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
    @pytest.mark.parametrize("method", METHODS)
    def test_by_a_model_that_fails_in_the_middle(self, own, method, error):
        taps = own.model.attention_taps
        own.model = Failing(own.model, 0, error)
        own.model.attention_taps = taps
        # in the clean pass; in the method or the first perturbed pass; in a later one; in the second batch
        for call in (1, 2, 4, 6):
            own.model.call, own.model.calls = call, 0
            with unchanged(own), pytest.raises((type(error), xa.ModelOutputError)):
                evaluation(own, batch_size=1).attribution_fidelity(method_of(method), perturbation="fgsm")
            assert own.model.calls == call

    @pytest.mark.parametrize("stage", ["method", "perturbation", "target"])
    def test_by_a_callers_function_that_fails(self, own, stage):
        def fails(*args, **kwargs):
            raise ZeroDivisionError("mine")

        with registry.isolated(), unchanged(own):
            xa.register_perturbation("fails")(lambda images: fails())
            chosen = {"method": xa.method(fails)} if stage == "method" else {"method": "saliency"}
            chosen |= {"perturbation": "fails"} if stage == "perturbation" else {}
            ev = evaluation(own, target=fails if stage == "target" else None)
            with pytest.raises(ZeroDivisionError, match="mine"):
                ev.attribution_fidelity(**chosen)

    @pytest.mark.parametrize("stage", ["method", "perturbation"])
    def test_by_a_callers_function_that_writes_on_the_images(self, own, stage):
        def writes(images):
            images.mul_(2)
            return images

        with registry.isolated(), unchanged(own):
            xa.register_perturbation("writes")(writes)
            method = xa.method(lambda model, images, target: writes(images))
            ev = evaluation(own)
            ev.attribution_fidelity(method if stage == "method" else "edges", perturbation="writes")

    def test_by_what_is_refused(self, own):
        with unchanged(own):
            ev = evaluation(own)
            for options in ({"fraction": 0.6}, {"perturbation": "gaussian_noise(sigma=-1)"}, {"reference": "truth"}):
                with pytest.raises(ValueError, match=r"fraction|sigma|reference"):
                    ev.attribution_fidelity("saliency", **options)

    def test_by_an_assertion_that_fails(self, own):
        with unchanged(own):
            for check, bound in (
                (xa.assert_attribution_fidelity, {"min_af": 1.1}),
                (xa.assert_faithfulness_estimate, {"min_fe": 1.1}),
            ):
                with pytest.raises(AssertionError, match=r"below min_[af]"):
                    check(evaluation(own), "saliency", **bound)

    def test_what_is_returned_is_not_the_callers(self, own):
        ev = evaluation(own)
        score = ev.attribution_fidelity(xa.method(lambda model, images, target: images), perturbation="gaussian_noise")
        tensors = [score.values, score.relevant_error, *score.details.values()]
        assert not any(t.requires_grad or t.is_inference() for t in tensors)
        assert not any(a.data_ptr() == own.images.data_ptr() for a in tensors)


def test_every_metric_and_method_is_here():
    assert {"saliency", "integrated_gradients", "attention_rollout", "random", "edges"} <= set(METHODS)
    assert {"af", "fe"} <= set(METRICS)
    assert {"black", "mean", "gaussian_noise", "fgsm"} <= set(PERTURBATIONS)
