"""A Bayesian last layer: the precision that training pairs give a linear reward on features."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from prudent.errors import InputError
from prudent.rewards.features import check_features, load_features
from prudent.rewards.models import final_linear, load_reward_model


class LastLayer:
    """A linear reward's precision A = ridge I + sum of d d' over n training pairs.

    d is the features of a pair's chosen response less those of the rejected one. A is the posterior
    precision of ridge regression on pairs; Bradley-Terry's likelihood would weight d d' by the
    pair's p (1 - p). Zhang et al. (AdvPO, arXiv 2403.05171) sum over responses; RewardUQ (arXiv
    2602.24040) sums over pairs, as here.
    """

    def __init__(self, pairs: Tensor) -> None:
        """``pairs``: the differences d [n, width]. Raises InputError for anything else."""
        if pairs.dim() != 2 or not len(pairs) or not pairs.isfinite().all():
            raise InputError(
                f"pairs: found a tensor of shape {tuple(pairs.shape)}; expected finite differences "
                "of features, [n, width]"
            )
        pairs = pairs.double()
        self.gram = pairs.T @ pairs
        self._factors: dict[float, Tensor] = {}

    @classmethod
    def load(cls, base: Path, features: Path) -> LastLayer:
        """From the training pairs' features by ``base``; ``InputError`` for another's features."""
        check_features(features, base)
        width = final_linear(load_reward_model(base))[1].in_features
        return cls(load_features(features, width).differences("train"))

    def whitened(self, features: Tensor, ridge: float) -> Tensor:
        """L^-1 h [B, width] of features h [B, width], where L L' = A: |L^-1 h|^2 = h' A^-1 h.

        Computed in float64 and returned in the features' type. Raises InputError for another width.
        """
        width = len(self.gram)
        if features.shape[1] != width:
            raise InputError(
                f"the last layer is of {width} features, and the responses have "
                f"{features.shape[1]}; expected those of one model"
            )
        if ridge not in self._factors:
            whole = self.gram + ridge * torch.eye(width, dtype=torch.float64)
            self._factors[ridge] = torch.linalg.cholesky(whole)
        factor = self._factors[ridge].to(features.device)
        solved = torch.linalg.solve_triangular(factor, features.double().T, upper=False).T
        return solved.to(features.dtype)
