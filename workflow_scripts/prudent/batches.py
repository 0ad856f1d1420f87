"""Batches of token ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def collate(
    ids: Sequence[Sequence[int]], pad_token_id: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Right-padded ``input_ids`` and ``attention_mask`` [n, longest]."""
    longest = max(len(row) for row in ids)
    input_ids = torch.full((len(ids), longest), pad_token_id)
    mask = torch.zeros(len(ids), longest, dtype=torch.long)
    for number, row in enumerate(ids):
        input_ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    return {"input_ids": input_ids.to(device), "attention_mask": mask.to(device)}
