r"""Train a bundled network on rendered rooms, and measure it on the 24 held-out ones.

    python training/train.py --model meter-xxs-scenes --out runs/meter
    python training/train.py --model pixelformer-nano --out runs/nano --steps 22000
    python training/train.py --model segmenter-nano --out runs/segmenter \
        --scenes 2400 --steps 1800 --small 0 --rate 1e-3
    python training/train.py --model nearest-object-nano --out runs/nearest --steps 3600 --small 0 --rate 6e-4

The segmentation network starts from the weights of pixelformer-nano, as far as it has its layers; the classifier from
those of the segmentation network, because it has to tell the objects apart.

An interrupted run goes on where it was when it is started again with the same arguments.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from cache import prepared
from measure import errors, measure
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from tqdm import tqdm

from xai_assert.datasets.nearest import NONE
from xai_assert.models.bundled import NETWORKS, bundled, bundled_weights
from xai_assert.subject import Card
from xai_assert.tasks import Task

WARMUP = 0.05  # share of the steps
SMALL = 0.75  # the first phase sees pictures of this scale
LEAST_DEPTH = 0.1  # metres, where the logarithm of a prediction is cut off
DECAY = 0.998  # of the running mean of the weights, which is what is kept in the end
KEEP_EVERY = 500  # steps between checkpoints, and between looks at the scenes set aside
ASIDE = 80  # one scene in so many is not trained on, to see how it goes; nothing is chosen by the held-out ones
COUNTED = 40  # batches from which the statistics of batch norms are counted
DECISIVE = ("model", "scenes", "steps", "batch", "small", "rate", "seed")  # options that the weights depend on
START = {"segmenter-nano": "pixelformer-nano", "nearest-object-nano": "segmenter-nano"}  # whose weights they start from
SMOKE = {"scenes": 100, "steps": 12, "batch": 4}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=NETWORKS, default="meter-xxs-scenes")
    parser.add_argument("--out", type=Path, required=True, help="folder of weights, metrics.json, checkpoint")
    parser.add_argument("--cache", type=Path, default=Path("runs/scenes"), help="folder of the rendered scenes")
    parser.add_argument("--scenes", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--small", type=float, default=0.5, help="share of the steps on smaller pictures")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that render")
    parser.add_argument("--smoke", action="store_true", help=f"a minute's run, to see that it works: {SMOKE}")
    options = parser.parse_args()
    if options.smoke:
        vars(options).update(SMOKE)
    for name in ("steps", "batch", "workers", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, not {getattr(options, name)}")
    if options.batch >= options.scenes:
        parser.error(f"--scenes {options.scenes} must be more than --batch {options.batch}")
    if not 0 < options.rate < math.inf:
        parser.error(f"--rate must be a number above 0, not {options.rate}")
    return options


def main(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    subject = bundled(options.model)
    if options.model in START:
        start(subject.module, bundled_weights(START[options.model]))
    images, truths = prepared(options.cache, options.scenes, subject.card, options.workers)
    network = subject.module.requires_grad_(True).to(options.device)
    averaged = train(network, subject.card, images, truths, options)
    save_weights(averaged, options.out / f"{options.model}.safetensors")
    metrics = measure(averaged, subject.card, truths, options.device) | {
        "training": {name: getattr(options, name) for name in DECISIVE}
    }
    replace(options.out / "metrics.json", lambda part: part.write_text(json.dumps(metrics, indent=2) + "\n"))
    return metrics


def start(network: nn.Module, weights: Path) -> None:
    """Take over the weights of the layers that the other network has too."""
    own = network.state_dict()
    known = {k: v for k, v in load_file(weights).items() if k in own and v.shape == own[k].shape}
    assert known, f"nothing in common with {weights}"
    network.load_state_dict(known, strict=False)


def train(network: nn.Module, card: Card, images: Tensor, truths: Tensor, options: argparse.Namespace) -> nn.Module:
    """Every step's batch, augmentation and rate depend on the seed and the step alone, so that a run can be resumed."""
    assert card.task is not None
    trained = len(images) - max(1, len(images) // ASIDE)
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}])
    parts = {"network": network, "averaged": averaged, "optimizer": optimizer}
    checkpoint = options.out / "checkpoint.pt"
    first = 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, map_location=options.device, weights_only=True)
        for name in DECISIVE:
            if kept[name] != getattr(options, name):
                raise SystemExit(
                    f"--out {options.out} holds a run with --{name} {kept[name]}, not {getattr(options, name)}; "
                    "go on with that, or give another folder"
                )
        for name, part in parts.items():
            part.load_state_dict(kept[name])
        first = kept["step"]
    progress = tqdm(range(first, options.steps), initial=first, total=options.steps, desc=options.model, unit="step")
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = options.rate * schedule(step / options.steps)
        x, truth = batch(images[:trained], truths[:trained], step, options)
        x, truth = augment(x.to(options.device), truth.to(options.device), torch_random(options.seed, 1, step))
        if step < options.small * options.steps:
            x, truth = smaller(x), smaller_truth(truth)
        with torch.autocast(options.device, torch.bfloat16):
            output = network.train()(normalised(x, card))
        loss = loss_of(card.task, output.float(), truth)
        if not loss.isfinite():
            raise SystemExit(f"the loss of step {step} is {loss.item()}; a smaller --rate may help")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        averaged.update_parameters(network)
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if (step + 1) % KEEP_EVERY == 0 or step + 1 == options.steps:
            state = {name: part.state_dict() for name, part in parts.items()} | {
                "step": step + 1,
            }
            state |= {name: getattr(options, name) for name in DECISIVE}
            replace(checkpoint, lambda part, state=state: torch.save(state, part))
            count_again(averaged.module, card, images[:trained], options)
            found = look(averaged.module, card, images[trained:], truths[trained:], options.device)
            with (options.out / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step + 1, "loss": round(loss.item(), 4), **found}) + "\n")
    count_again(averaged.module, card, images[:trained], options)
    kept_network: nn.Module = averaged.module
    return kept_network.eval()


def count_again(network: nn.Module, card: Card, images: Tensor, options: argparse.Namespace) -> None:
    """The statistics of batch norms: those of training are not of averaged weights, nor of pictures of full size."""
    rows = torch.randperm(len(images), generator=torch_random(options.seed, 2))[: COUNTED * options.batch]
    batches = (normalised(images[r].to(options.device).float() / 255, card) for r in rows.split(options.batch))
    update_bn(batches, network)


@torch.no_grad()
def look(network: nn.Module, card: Card, images: Tensor, truths: Tensor, device: str) -> dict[str, float]:
    """The errors on scenes that are not trained on."""
    network.eval()
    rows = [normalised(row[None].to(device).float() / 255, card) for row in images]
    return errors(card, torch.cat([network(row).float().cpu() for row in rows]), truths)


def schedule(share: float) -> float:
    """Of the highest rate: up in a line, down in half a cosine."""
    return share / WARMUP if share < WARMUP else 0.5 + 0.5 * math.cos(math.pi * (share - WARMUP) / (1 - WARMUP))


def torch_random(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


def batch(images: Tensor, truths: Tensor, step: int, options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """The rows of this step: each epoch is one random order of all."""
    each = len(images) // options.batch
    order = torch.randperm(len(images), generator=torch_random(options.seed, 0, step // each))
    rows = order[step % each * options.batch :][: options.batch]
    return images[rows].float() / 255, truths[rows]


def augment(x: Tensor, truth: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirrored, of another exposure, contrast and colour, with some grain."""
    count, device = len(x), x.device
    flip = torch.rand(count, generator=random).to(device) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    if truth.ndim == 3:
        truth = torch.where(flip[:, None, None], truth.flip(2), truth)
    gamma = torch.randn(count, 1, 1, 1, generator=random).mul(0.15).exp().to(device)
    gain = torch.randn(count, 3, 1, 1, generator=random).mul(0.08).exp().to(device)
    grain = torch.rand(count, 1, 1, 1, generator=random) * 0.03 * torch.randn(x.shape, generator=random)
    return (x.clamp(min=1e-3) ** gamma * gain + grain.to(device)).clamp(0, 1), truth


def normalised(x: Tensor, card: Card) -> Tensor:
    assert card.mean is not None
    assert card.std is not None
    mean, std = (torch.tensor(c, device=x.device)[:, None, None] for c in (card.mean, card.std))
    return (x - mean) / std


def smaller(planes: Tensor, **how: Any) -> Tensor:
    """Of scale `SMALL`, rows cut off at top and bottom so that the sides stay multiples of 64 (of 16 in the output)."""
    unit = 64 * planes.shape[-1] // 256
    planes = F.interpolate(planes, scale_factor=SMALL, **(how or {"mode": "bilinear", "antialias": True}))
    rows = planes.shape[-2] // unit * unit
    return planes[..., (planes.shape[-2] - rows) // 2 :, :][..., :rows, :]


def smaller_truth(truth: Tensor) -> Tensor:
    """Depth as the pictures are, labels that of the nearest pixel; the one label of a picture stays."""
    if truth.ndim == 1:
        return truth
    if truth.is_floating_point():
        return smaller(truth[:, None])[:, 0]
    return smaller(truth[:, None], mode="nearest-exact")[:, 0]


def loss_of(task: Task, output: Tensor, truth: Tensor) -> Tensor:
    """Of depth (B, 1, H, W), or of logits (B, K) or (B, K, H, W) whose unknown labels are left out."""
    if task.name == "depth":
        return depth_loss(output[:, 0], truth)
    return F.cross_entropy(output, truth.long(), ignore_index=NONE)


def depth_loss(depth: Tensor, truth: Tensor) -> Tensor:
    """Metres off, ratio off, and slopes off."""
    ratio = (depth.clamp(min=LEAST_DEPTH) / truth).log().abs().mean()
    off = depth - truth
    slopes = (off[:, 1:] - off[:, :-1]).abs().mean() + (off[..., 1:] - off[..., :-1]).abs().mean()
    return off.abs().mean() + 2 * ratio + slopes


def save_weights(network: nn.Module, path: Path) -> None:
    """Half precision: a quarter of a per mille in a weight is far below what training leaves to chance."""
    state = {k: v.cpu().half() if v.is_floating_point() else v.cpu() for k, v in network.state_dict().items()}
    replace(path, lambda part: save_file({k: v.contiguous() for k, v in state.items()}, part))
    path.chmod(0o644)  # safetensors writes files that nobody else may read


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name first: one that is cut short never takes the place of a whole one."""
    part = path.with_suffix(f"{path.suffix}.part")
    write(part)
    part.replace(path)


if __name__ == "__main__":
    print(json.dumps(main(arguments()), indent=2))
