"""Models whose right answers are known on paper, and models that misbehave: one place for all tests."""

from __future__ import annotations

import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_assert.attention import AttentionTap
from xai_assert.known_models import Blind, Corner, Pixelwise, Squares  # noqa: F401  (tests take all from here)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float32, the same on every call; the global random state is not touched."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights normal with variance 1 / fan in, biases 0; the scales of norms (one dimension) stay as they are."""
    for number, (name, parameter) in enumerate(sorted(module.named_parameters())):
        if parameter.ndim > 1:
            values = draw(*parameter.shape, seed=1000 * seed + number)
            parameter.data.copy_(values / parameter.shape[1:].numel() ** 0.5)
        elif name.endswith("bias"):
            parameter.data.zero_()
    return module


class SignedSum(nn.Module):
    """sum_ci w_ci x_ci, one number spread over the whole map (B, 1, H, W).

    The documented counter-example: signed terms cancel in the sum. A pixel's |w| says how far it alone moves the
    output; two pixels with +w and -w, changed alike and together, move it not at all.
    """

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights.clone())  # (C, H, W)

    def forward(self, images: Tensor) -> Tensor:
        total = (images * self.weights.to(images)).sum((1, 2, 3), keepdim=True)
        return total.expand(-1, 1, *images.shape[-2:])


class ReturnsNaN(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(1, keepdim=True) * float("nan")


class ReturnsTuple(nn.Module):
    """(depth, features), as networks with auxiliary outputs do."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.mean(1, keepdim=True), images


class WrongBatch(nn.Module):
    """Two maps for each image."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(1, keepdim=True).repeat(2, 1, 1, 1)


class Counting(nn.Module):
    """`inner`, with its forward and backward passes counted in images, and the largest batch it was given."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.forwards = self.backwards = self.largest = 0

    def forward(self, images: Tensor) -> Tensor:
        count = len(images)
        self.forwards += count
        self.largest = max(self.largest, count)
        output = self.inner(images)
        if output.requires_grad:
            output.register_hook(lambda _: self._went_back(count))
        return output

    def _went_back(self, count: int) -> None:
        self.backwards += count


class TokenAttention(nn.Module):
    """Two heads of attention inside groups of tokens; its `attend` outputs (B, G, heads, N, N)."""

    heads = 2

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.attend = nn.Softmax(dim=-1)

    def forward(self, x: Tensor, groups: Tensor) -> Tensor:
        """(B, T, dim) with the tokens `groups` (G, N); -1 is a padding of zeros, which is attended to like the rest."""
        members = x[:, groups.clamp(min=0)].masked_fill((groups < 0)[..., None], 0)
        batch, count, size, dim = members.shape
        qkv = self.qkv(members).reshape(batch, count, size, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5)
        mixed = (self.attend(3 * query @ key.transpose(-1, -2)) @ value).transpose(2, 3).reshape(members.shape)
        real = groups >= 0
        return x + torch.zeros_like(x).index_add(1, groups[real], mixed[:, real])


class Attentive(nn.Module):
    """Depth from patches of 4x4: a layer of attention on their grid, and one on that grid pooled by 2 (rounded up).

    `prefix` tokens without a place stand before the others. With `window`, tokens attend inside windows of that many
    rows and columns, and a grid that does not divide is padded (tokens -1), as in a Swin network.
    """

    patch, dim = 4, 8

    def __init__(self, *, prefix: int = 0, window: tuple[int, int] | None = None, seed: int = 0) -> None:
        super().__init__()
        if prefix and window:
            raise ValueError("prefix tokens belong to no window")
        self.prefix, self.window = prefix, window
        self.embed = nn.Conv2d(3, self.dim, self.patch, self.patch)
        self.tokens = nn.Parameter(torch.zeros(prefix, self.dim))
        self.fine, self.coarse = TokenAttention(self.dim), TokenAttention(self.dim)
        self.head = nn.Linear(self.dim, 1)
        seeded(self, seed)

    def forward(self, images: Tensor) -> Tensor:
        first, second = self.attention_taps(*images.shape[-2:])
        prefix, places = self.tokens.expand(len(images), -1, -1), self.embed(images)
        prefix, places = self._attend(self.fine, prefix, places, first)
        prefix, places = self._attend(self.coarse, prefix, F.avg_pool2d(places, 2, ceil_mode=True), second)
        return self.head(places.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _attend(
        self, layer: TokenAttention, prefix: Tensor, places: Tensor, tap: AttentionTap
    ) -> tuple[Tensor, Tensor]:
        x = torch.cat([prefix, places.flatten(2).transpose(1, 2)], 1)
        x = layer(x, tap.tokens.to(x.device))
        return x[:, : tap.prefix], x[:, tap.prefix :].transpose(1, 2).reshape(places.shape)

    def attention_taps(self, height: int, width: int) -> list[AttentionTap]:
        fine = (height // self.patch, width // self.patch)
        coarse = (-(-fine[0] // 2), -(-fine[1] // 2))
        layers = ((self.fine, fine), (self.coarse, coarse))
        return [AttentionTap(layer.attend, grid, self._groups(grid), self.prefix) for layer, grid in layers]

    def _groups(self, grid: tuple[int, int]) -> Tensor:
        if self.window is None:
            return torch.arange(self.prefix + grid[0] * grid[1])[None]
        rows, columns = self.window
        place = torch.arange(grid[0] * grid[1]).reshape(grid)
        place = F.pad(place, (0, -grid[1] % columns, 0, -grid[0] % rows), value=-1)
        windows = place.unfold(0, rows, rows).unfold(1, columns, columns)
        return windows.reshape(-1, rows * columns)


class Capturing(nn.Module):
    """`inner`, with a copy of every batch that it was shown in `seen`."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        return self.inner(images)


class Failing(nn.Module):
    """`inner`, but call number `call` (from 1) and all later ones raise `error`."""

    def __init__(self, inner: nn.Module, call: int, error: BaseException) -> None:
        super().__init__()
        self.inner, self.call, self.error = inner, call, error
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        if self.calls >= self.call:
            raise self.error
        return self.inner(images)


class Whisper(nn.Module):
    """1 + 1e-6 * the sum of the channels, (B, 1, H, W): what it says of its input is lost in float32's rounding."""

    def forward(self, images: Tensor) -> Tensor:
        return 1 + 1e-6 * images.sum(1, keepdim=True)


class SquareRoot(nn.Module):
    """The mean of the channels' square roots, (B, 1, H, W): NaN where a pixel is negative."""

    def forward(self, images: Tensor) -> Tensor:
        return images.sqrt().mean(1, keepdim=True)


class CountingAttentive(Counting):
    """A `Counting` model that shows the attention of what is in it."""

    def attention_taps(self, height: int, width: int) -> list[AttentionTap]:
        return self.inner.attention_taps(height, width)


class Dicey(nn.Module):
    """`inner`, which shows its attention, but for draws from every global random state on each call."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        torch.rand(3), np.random.rand(3), random.random()
        return self.inner(images)

    def attention_taps(self, height: int, width: int) -> list[AttentionTap]:
        return self.inner.attention_taps(height, width)


def curved():
    """A small network whose gradient depends on the image, and not in a straight line."""
    return seeded(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1)))


class Samples:
    """A lazy data set that gives what `make(index)` gives."""

    def __init__(self, count, make):
        self.count, self.make = count, make
        self.asked = []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.asked.append(index)
        return self.make(index)
