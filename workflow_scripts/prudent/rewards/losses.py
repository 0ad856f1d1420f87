"""Losses of reward models: pure functions of tensors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bradley_terry(margins: Tensor) -> Tensor:
    """Each head's Bradley-Terry loss [K]: the mean over the pairs of -log sigmoid(margin).

    ``margins`` [n, K] are chosen less rejected rewards. The paper adds the heads' losses
    (2410.23726, Section 4: sum over k of l(theta_k)), so each head's gradient comes from its own
    loss alone.
    """
    return -F.logsigmoid(margins).mean(dim=0)
