"""The caller's model and random states come out of every context manager as they went in."""

import random

import numpy as np
import pytest
import torch
from known_models import Attentive, draw
from torch import nn
from untouched import untouched

from xai_assert.preserve import full_precision, hooks, undisturbed


def untidy() -> nn.Module:
    """Mixed flags: a training dropout beside an evaluating norm, a frozen weight, a shared module, a grad, a hook."""
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Sequential(nn.BatchNorm1d(4), nn.Dropout()), shared, nn.Linear(4, 1))
    model.train()
    model[1][0].eval()
    model[3].weight.requires_grad_(False)
    model[3].bias.grad = torch.ones(1)
    model[0].register_forward_hook(lambda *_: None)
    return model


def draw_from_every_global_generator() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("raises", [False, True])
class TestUndisturbed:
    def test_the_model_and_the_random_states_are_restored(self, raises):
        model = untidy()
        with untouched(model):
            try:
                with undisturbed(model):
                    draw_from_every_global_generator()
                    model(draw(3, 4)).sum()
                    if raises:
                        raise Interrupted
            except Interrupted:
                assert raises

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
    def test_gradients_work_inside_whatever_the_caller_is_in(self, raises, mode):
        model = Attentive()
        with mode():
            before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            try:
                with undisturbed(model):
                    assert not torch.is_inference_mode_enabled()
                    images = draw(1, 3, 8, 8).requires_grad_(True)
                    (gradient,) = torch.autograd.grad(model(images).sum(), images)
                    assert gradient.abs().max() > 0
                    if raises:
                        raise Interrupted
            except Interrupted:
                assert raises
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before

    def test_full_precision_is_restored(self, raises):
        cudnn = torch.backends.cudnn
        switches = [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn]
        before = [s.fp32_precision for s in switches]
        try:
            with full_precision():
                assert [s.fp32_precision for s in switches] == ["ieee"] * 3
                if raises:
                    raise Interrupted
        except Interrupted:
            assert raises
        assert [s.fp32_precision for s in switches] == before

    def test_full_precision_also_where_the_caller_allowed_tf32(self, raises):
        matmul = torch.backends.cuda.matmul
        before = matmul.fp32_precision
        matmul.fp32_precision = "tf32"
        try:
            with full_precision():
                assert matmul.fp32_precision == "ieee"
                if raises:
                    raise Interrupted
        except Interrupted:
            assert raises
        finally:
            left, matmul.fp32_precision = matmul.fp32_precision, before
        assert left == "tf32"

    def test_hooks_are_removed(self, raises):
        model, seen = nn.Linear(2, 2), []
        with untouched(model):
            try:
                with hooks(model.register_forward_hook(lambda *_: seen.append(1))):
                    model(draw(1, 2))
                    if raises:
                        raise Interrupted
            except Interrupted:
                assert raises
        assert seen == [1]


class TestInside:
    def test_everything_evaluates_and_nothing_trains(self):
        model = untidy()
        with undisturbed(model):
            assert not any(m.training for m in model.modules())
            assert not any(p.requires_grad for p in model.parameters())

    def test_dropout_is_off_and_batch_statistics_stay(self):
        model, rows = untidy().train(), draw(3, 4)
        statistics = model[1][0].running_mean.clone()
        with undisturbed(model), torch.no_grad():
            assert torch.equal(model(rows), model(rows))
        assert torch.equal(model[1][0].running_mean, statistics)

    def test_no_gradient_is_left_on_the_weights(self):
        model = untidy()
        model[3].bias.grad = None
        with undisturbed(model):
            rows = draw(3, 4).requires_grad_(True)
            model(rows).sum().backward()
        assert all(p.grad is None for p in model.parameters())

    def test_a_model_made_in_inference_mode_comes_out_as_it_was(self):
        """Its weights can enter no gradient, and torch says so; their flags cannot be set back, so they are let be."""
        with torch.inference_mode():
            model = nn.Linear(4, 1)
        with undisturbed(model):
            model(draw(3, 4))
        assert model.weight.requires_grad

    def test_a_module_without_parameters(self):
        with undisturbed(nn.Identity()):
            pass


def test_the_check_itself_notices_a_change():
    """`untouched` is what many tests stand on: each kind of damage must be seen."""

    def flag(model):
        model[1].training = not model[1].training

    def weight(model):
        model[0].weight.data.mul_(2)

    def trainable(model):
        model[0].weight.requires_grad_(False)

    def gradient(model):
        model[0].weight.grad = torch.zeros_like(model[0].weight)

    def hook(model):
        model[0].register_forward_hook(lambda *_: None)

    def buffer(model):
        model[1][0].running_mean.add_(1)

    def generator(model):
        torch.rand(1)

    for damage in (flag, weight, trainable, gradient, hook, buffer, generator):
        model = untidy()
        with torch.random.fork_rng(devices=()), pytest.raises(AssertionError, match="changed"), untouched(model):
            damage(model)
