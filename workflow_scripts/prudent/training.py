"""What trainings with a Hugging Face trainer share: arguments and recorded losses."""

from __future__ import annotations

import logging
import math
import os
import time
from typing import Any

import pandas as pd
import torch
from transformers import TrainerCallback

from prudent.errors import InputError

logger = logging.getLogger(__name__)


def common_arguments(seed: int, bfloat16: bool) -> dict[str, Any]:
    """Arguments of every Hugging Face training here: quiet, local, nothing pickled to disk."""
    cuda = torch.cuda.is_available()
    return {
        "seed": seed,
        "data_seed": seed,
        "bf16": bfloat16,
        "use_cpu": not cuda,
        "save_strategy": "no",
        "logging_nan_inf_filter": False,  # which would leave out what is not finite
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": cuda,
    }


def is_first() -> bool:
    """Whether this process is the one of its training that reports and writes."""
    return os.environ.get("RANK", "0") == "0"


class LossRecorder(TrainerCallback):
    """Keeps a trainer's losses and accuracies as rows, and prints them as progress."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.started = time.monotonic()

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        for prefix, split in (("", "train"), ("eval_", "validation")):
            if f"{prefix}loss" in (logs or {}):
                loss = float(logs[f"{prefix}loss"])
                if not math.isfinite(loss):
                    raise InputError(
                        f"step {state.global_step} of {state.max_steps}: the {split} loss is "
                        f"{loss}, expected a finite one; a smaller learning_rate may help"
                    )
                row = {
                    "step": state.global_step,
                    "split": split,
                    "loss": loss,
                    "accuracy": float(logs.get(f"{prefix}accuracy", float("nan"))),
                }
                self.rows.append(row)
                if is_first():
                    logger.info(
                        "step %d of %d: %s loss %.4f, %.0f s",
                        row["step"],
                        state.max_steps,
                        split,
                        row["loss"],
                        time.monotonic() - self.started,
                    )

    def last(self, split: str) -> int:
        """The last step with a loss of ``split``; -1 without one."""
        return max((row["step"] for row in self.rows if row["split"] == split), default=-1)

    def frame(self) -> pd.DataFrame:
        """The rows as a table: step, split, loss, accuracy."""
        return pd.DataFrame(self.rows, columns=["step", "split", "loss", "accuracy"])
