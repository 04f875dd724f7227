"""Rank correlation of maps, a row an image."""

from __future__ import annotations

import numpy as np
import scipy.stats
import torch
from torch import Tensor


def ranks(values: Tensor) -> Tensor:
    """Ranks from 1 to n in each row of (B, n), float64; equal values share the average of their ranks.

    >>> ranks(torch.tensor([[5.0, 7.0, 5.0]])).tolist()
    [[1.5, 3.0, 1.5]]
    """
    found = scipy.stats.rankdata(values.detach().double().cpu().numpy(), method="average", axis=1)
    return torch.from_numpy(np.asarray(found, dtype=np.float64)).to(values.device)


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of the rows of two tensors (B, n), (B,) float64 in [-1, 1].

    A constant row ranks nothing: its correlation is 0. A row with NaN has the correlation NaN. Equal rows have exactly
    1, reversed ones exactly -1: ranks about their mean are multiples of one half, and n has to be very large before
    their sums round.

    Raises:
        ValueError: the shapes differ, or are not (B, n).

    Example:
        >>> a = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
        >>> spearman(a, a.exp()).tolist(), spearman(a, -a).tolist()
        ([1.0], [-1.0])
    """
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"spearman: a and b must both be (B, n), not {tuple(a.shape)} and {tuple(b.shape)}; flatten")
    mean = (a.shape[1] + 1) / 2
    x, y = ranks(a) - mean, ranks(b) - mean
    norm = (x.square().sum(1) * y.square().sum(1)).sqrt()
    return ((x * y).sum(1) / norm.where(norm != 0, torch.ones_like(norm))).clamp(-1, 1)
