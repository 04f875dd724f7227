"""Faults that people make, a few lines each, in the methods, in the models and in the protocol."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from mutants.planting import CATALOGUE, attribute, function, layers, method, mutant, networks
from torch import nn

from xai_assert import randomness
from xai_assert.attributions import baselines, controls, gradients, integrated_gradients, rollout
from xai_assert.attributions.gradients import input_gradient
from xai_assert.metrics import fidelity
from xai_assert.models import swin
from xai_assert.perturbations import base, fillers, noise, selection
from xai_assert.perturbations.base import Perturbation, Perturbed
from xai_assert.perturbations.selection import Ranking
from xai_assert.subject import IMAGENET_MEAN, IMAGENET_STD, Card
from xai_assert.tasks import Depth

__all__ = ["CATALOGUE"]

# --- methods -------------------------------------------------------------------------------------------------------


@mutant("methods", "saliency: the channels are summed with their signs, so they cancel")
def saliency_channels_cancel(stack: ExitStack) -> None:
    method("saliency", reduction="abs_sum")


@mutant("methods", "saliency: the gradient of the first output pixel, whatever the target")
def saliency_of_the_wrong_target(stack: ExitStack) -> None:
    method("saliency", lambda model, images, target: input_gradient(model, images, lambda out: out.flatten(1)[:, 0]))


@mutant("methods", "saliency: negative gradients count as irrelevant")
def saliency_keeps_the_sign(stack: ExitStack) -> None:
    method("saliency", reduction="abs_sum", signed="as_is")


@mutant("methods", "saliency: the heatmap of the previous batch")
def saliency_of_the_batch_before(stack: ExitStack) -> None:
    kept = {}

    def stale(model, images, target):
        found = input_gradient(model, images, target)
        before = kept.get(images.shape, found)
        kept[images.shape] = found
        return before

    method("saliency", stale)


@mutant("methods", "saliency: the gradient is averaged over the batch")
def saliency_of_the_whole_batch(stack: ExitStack) -> None:
    method("saliency", lambda m, x, t: input_gradient(m, x, t).mean(0, keepdim=True).expand_as(x))


@mutant("methods", "IG: (b - x) for (x - b)")
def ig_with_the_difference_turned_round(stack: ExitStack) -> None:
    honest = integrated_gradients.integrated_gradients
    method("integrated_gradients", lambda model, images, target, **kw: -honest(model, images, target, **kw))


def ig(steps_at, factor=lambda x, b: x - b, start=None):
    """Integrated gradients at chosen points of the path, from a baseline."""

    def changed(model, images, target, *, steps: int = 200, baseline="black"):
        found = torch.zeros_like(images)
        starts = [start(images)] if start else [
            baselines.resolve_baseline(model, images, one) for one in baselines.split(baseline)
        ]  # fmt: skip
        for b in starts:
            points = steps_at(steps)
            total = sum(input_gradient(model, b + (images - b) * point, target) for point in points)
            found = found + factor(images, b) * total / len(points)
        return found / len(starts)

    return changed


def midpoints(steps):
    return [(step + 0.5) / steps for step in range(steps)]


@mutant("methods", "IG: the mean gradient, without (x - b)")
def ig_without_the_difference(stack: ExitStack) -> None:
    method("integrated_gradients", ig(midpoints, factor=lambda x, b: 1.0))


@mutant("methods", "IG: from 0 in the network's input (grey) for black, and for any other baseline")
def ig_from_the_wrong_baseline(stack: ExitStack) -> None:
    method("integrated_gradients", ig(midpoints, start=torch.zeros_like))


@mutant("methods", "IG: the gradient at the image only (gradient x difference)")
def ig_at_the_end_only(stack: ExitStack) -> None:
    method("integrated_gradients", ig(lambda steps: [1.0] * steps))


@mutant("methods", "IG: one step, whatever is asked for")
def ig_in_one_step(stack: ExitStack) -> None:
    method("integrated_gradients", ig(lambda steps: [0.5]))


@mutant("methods", "IG: the left end of each step for its middle")
def ig_left_riemann_sum(stack: ExitStack) -> None:
    method("integrated_gradients", ig(lambda steps: [step / steps for step in range(steps)]))


@mutant("methods", "rollout: attention transposed (keys for queries)")
def rollout_transposed(stack: ExitStack) -> None:
    honest = rollout.fuse
    function(stack, honest, lambda attention, tap, fusion: honest(attention.mT, tap, fusion))


@mutant("methods", "rollout: the layers of one shape in reverse order")
def rollout_of_reversed_layers(stack: ExitStack) -> None:
    honest = rollout.capture

    def changed(model, images, taps, keep):
        found = honest(model, images, taps, keep)
        by_shape: dict[torch.Size, list[torch.Tensor]] = {}
        for one in found:
            by_shape.setdefault(one.shape, []).append(one)
        return [by_shape[one.shape].pop() for one in found]

    function(stack, honest, changed)


@mutant("methods", "rollout: the first head alone")
def rollout_of_one_head(stack: ExitStack) -> None:
    honest = rollout.fuse
    function(stack, honest, lambda attention, tap, fusion: honest(attention[:, :, :1], tap, fusion))


@mutant("methods", "rollout: the residual connection (identity) is not mixed in")
def rollout_without_identity(stack: ExitStack) -> None:
    honest = rollout.spread

    function(stack, honest, lambda vector, blocks, tap, own: honest(vector, blocks, tap, own=0.0))


@mutant("methods", "rollout: the windows of Swin are not un-shifted")
def rollout_with_shifted_windows(stack: ExitStack) -> None:
    honest = swin.window_tokens
    function(stack, honest, lambda grid, window, shift=0: honest(grid, window))


@mutant("methods", "rollout: corners aligned when the map is brought to the image's size")
def rollout_with_aligned_corners(stack: ExitStack) -> None:
    def interpolate(x, size, **options):
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    attribute(stack, rollout, "F", SimpleNamespace(interpolate=interpolate, pad=F.pad))


@mutant("methods", "rollout: the map lies one patch too far right and down")
def rollout_with_an_offset(stack: ExitStack) -> None:
    honest = rollout.attention_rollout
    method("attention_rollout", lambda m, x, t, **kw: honest(m, x, t, **kw).roll((4, 4), (1, 2)))


@mutant("methods", "random control: drawn by the place in the batch")
def random_control_by_place(stack: ExitStack) -> None:
    honest = controls.random

    def changed(model, images, target, *, image_ids, seed, draw: int = 0):
        return honest(model, images, target, image_ids=range(len(image_ids)), seed=seed, draw=draw)

    method("random", changed)


# --- models --------------------------------------------------------------------------------------------------------


@mutant("models", "BatchNorm uses the statistics of the batch, in eval mode too")
def batch_norm_of_the_batch(stack: ExitStack) -> None:
    def change(network: nn.Module) -> None:
        for layer in layers(network, nn.BatchNorm2d) or layers(network, nn.GroupNorm, nn.LayerNorm)[:1]:
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean = layer.running_var = None
                layer.track_running_stats = False
            else:
                layer.register_forward_hook(lambda m, given, out: out / out.std(0, keepdim=True).add(1))

    def change_any(network: nn.Module) -> None:
        change(network)

    networks(change_any)


@mutant("models", "dropout of 10 % stays on")
def dropout_stays_on(stack: ExitStack) -> None:
    networks(lambda n: layers(n, nn.Conv2d)[-1].register_forward_pre_hook(lambda m, g: F.dropout(g[0], 0.1, True)))


def scaled(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).to(images).reshape(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return images * std + mean


@mutant("models", "the network is shown 0..1 without normalisation")
def not_normalised(stack: ExitStack) -> None:
    networks(lambda n: n.register_forward_pre_hook(lambda m, given: scaled(given[0])))


@mutant("models", "the network is shown BGR for RGB")
def bgr_for_rgb(stack: ExitStack) -> None:
    networks(lambda n: n.register_forward_pre_hook(lambda m, given: given[0].flip(1)))


@mutant("models", "one layer in the middle is initialised anew")
def a_layer_without_training(stack: ExitStack) -> None:
    def change(network: nn.Module) -> None:
        convs = layers(network, nn.Conv2d)
        convs[len(convs) // 2].reset_parameters()

    networks(change)


@mutant("models", "weights rounded to 4 bits")
def weights_of_4_bits(stack: ExitStack) -> None:
    def change(network: nn.Module) -> None:
        for weight in network.parameters():
            step = weight.data.abs().max() / 7
            weight.data = torch.round(weight.data / step).mul(step) if step > 0 else weight.data

    networks(change)


@mutant("models", "the head saturates at 2 m")
def saturated_head(stack: ExitStack) -> None:
    networks(lambda n: n.register_forward_hook(lambda m, given, out: out.clamp(max=2.0)))


@mutant("models", "depth of the picture before is mixed in")
def remembers_the_picture_before(stack: ExitStack) -> None:
    def change(network: nn.Module) -> None:
        kept: dict[str, torch.Tensor] = {}

        def mix(module, given, out):
            before = kept.get("mean", out.detach().mean())
            kept["mean"] = out.detach().mean()
            return out + 0.1 * before

        network.register_forward_hook(mix)

    networks(change)


@mutant("models", "depth is mirrored")
def mirrored_output(stack: ExitStack) -> None:
    networks(lambda n: n.register_forward_hook(lambda m, given, out: out.flip(-1)))


# --- the protocol --------------------------------------------------------------------------------------------------


@mutant("protocol", "R and I are swapped")
def ends_swapped(stack: ExitStack) -> None:
    honest = Ranking.ends
    attribute(stack, Ranking, "ends", lambda self, fraction: honest(self, fraction)[::-1])


@mutant("protocol", "each side gets noise of its own")
def another_field_for_each_side(stack: ExitStack) -> None:
    honest = Perturbation.on

    def on(self, images, *, seed, **context):
        calls: list[int] = []

        def fill(mask):
            calls.append(1)
            drawn = honest(self, images, seed=seed + 1000 * len(calls), **context)
            return drawn.fill(mask) if drawn.field is None else drawn.field

        return Perturbed(images, fill=fill)

    attribute(stack, Perturbation, "on", on)


@mutant("protocol", "I is perturbed in the image in which R already was")
def perturbs_what_is_perturbed(stack: ExitStack) -> None:
    honest = Perturbed.__call__
    kept: list[tuple[Perturbed, torch.Tensor]] = []

    def call(self, mask):
        if kept and kept[-1][0] is self:
            return torch.where(mask, honest(self, mask), kept.pop()[1])
        kept[:] = [(self, honest(self, mask))]
        return kept[-1][1]

    attribute(stack, Perturbed, "__call__", call)


@mutant("protocol", "black is the darkest value of the picture, not black")
def filler_from_the_picture(stack: ExitStack) -> None:
    def black(images, *, card):
        return images.amin((1, 2, 3), keepdim=True).expand_as(images)

    entry = base.registry.perturbations.get("black")
    base.registry.perturbations.register("black", dataclasses.replace(entry, function=black), replace=True)
    function(stack, fillers.black, black)


@mutant("protocol", "colours are RGB, whatever the card's layout")
def colours_without_layout(stack: ExitStack) -> None:
    honest = Card._channels
    attribute(stack, Card, "_channels", lambda s, rgb, n: honest(dataclasses.replace(s, layout="RGB"), rgb, n))


@mutant("protocol", "errors against the mean depth, not against the clean prediction")
def errors_against_the_mean(stack: ExitStack) -> None:
    honest = Depth.error
    attribute(stack, Depth, "error", lambda self, p, r: honest(self, p, r.mean((-2, -1), keepdim=True).expand_as(r)))


@mutant("protocol", "the mean absolute error is called RMSE")
def mae_for_rmse(stack: ExitStack) -> None:
    attribute(stack, Depth, "error", lambda self, p, r: (p - r).abs().flatten(1).mean(1))


@mutant("protocol", "ties are broken by the index of the pixel")
def ties_by_index(stack: ExitStack) -> None:
    def by_index(heatmap, *, seed, image_ids):
        flat = heatmap.flatten(1)
        keys = (selection.ordered_bits(flat) << 32) - torch.arange(flat.shape[1])
        return Ranking(keys, (heatmap.shape[1], heatmap.shape[2]), lambda: keys)

    function(stack, selection.rank, by_index)


@mutant("protocol", "twice the fraction is perturbed")
def fraction_doubled(stack: ExitStack) -> None:
    honest = selection.pixel_count
    function(stack, honest, lambda p, size: honest(p, size) and min(2 * honest(p, size), size[0] * size[1] // 2))


@mutant("protocol", "R begins with the second pixel of the ranking")
def r_off_by_one(stack: ExitStack) -> None:
    def ends(self, fraction):
        k = selection.pixel_count(fraction, self.size)
        return self.order[:, 1 : k + 1], self.order[:, -k:]

    attribute(stack, Ranking, "ends", ends)


@mutant("protocol", "masks lie one pixel too far right")
def masks_off_by_one_pixel(stack: ExitStack) -> None:
    honest = Ranking.mask
    attribute(stack, Ranking, "mask", lambda self, positions: honest(self, positions).roll(1, -1))


@mutant("protocol", "noise is drawn by the place in the batch")
def noise_by_place(stack: ExitStack) -> None:
    honest = randomness.normal

    def normal(shape, *, seed, image_ids, purpose):
        return honest(shape, seed=seed, image_ids=range(len(image_ids)), purpose=purpose)

    attribute(stack, randomness, "normal", normal)


@mutant("protocol", "every seed draws the same noise")
def seed_ignored(stack: ExitStack) -> None:
    honest = randomness.normal
    attribute(stack, randomness, "normal", lambda shape, **keys: honest(shape, **keys | {"seed": 0}))


@mutant("protocol", "noise of a tenth of the strength")
def noise_too_weak(stack: ExitStack) -> None:
    honest = noise.gaussian_noise

    def weak(images, *, card, image_ids, seed, sigma: float = 0.8, clip: bool = False):
        return honest(images, card=card, image_ids=image_ids, seed=seed, sigma=sigma / 10, clip=clip)

    entry = base.registry.perturbations.get("gaussian_noise")
    base.registry.perturbations.register("gaussian_noise", dataclasses.replace(entry, function=weak), replace=True)


@mutant("protocol", "AF without its sign")
def af_without_sign(stack: ExitStack) -> None:
    honest = fidelity.fidelity
    function(stack, honest, lambda relevant, irrelevant: honest(relevant, irrelevant).abs())


@mutant("protocol", "the target is the sum of the map's absolute deviations, not its mean")
def another_default_target(stack: ExitStack) -> None:
    attribute(stack, Depth, "target", lambda self, clean: lambda out: (out - out.mean()).abs().flatten(1).sum(1))


assert gradients  # imported so that `function` finds it
