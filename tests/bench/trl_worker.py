"""Runs TRL's PPOTrainer, a step at a time: python trl_worker.py '{"size": "4x256", ...}'."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable
from typing import Any

from common import EvenReward, Work, steps, tokenizer
from datasets import Dataset
from torch import Tensor, nn
from trl.experimental.ppo import PPOConfig, PPOTrainer


def trl_trainer(
    work: Work,
    models: tuple[nn.Module, nn.Module, nn.Module],
    words: Any,
    batches: Iterable[dict[str, Tensor]],
    folder: str,
    stop: int | None = None,
    **options: Any,
) -> PPOTrainer:
    """TRL's trainer of this work, for the models policy, reference and value network.

    It evaluates, saves and reports nothing beside its steps. ``batches`` take the place of its data
    loader.
    """
    trainer = PPOTrainer(
        args=PPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=work.dtype == "bfloat16",
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            num_sample_generations=0,
            gradient_checkpointing=False,
            per_device_train_batch_size=work.batch,
            num_mini_batches=1,
            num_ppo_epochs=work.epochs,
            local_rollout_forward_batch_size=work.batch,
            total_episodes=options.pop("steps", 1000) * work.batch,
            response_length=work.response,
            stop_token_id=stop,
            temperature=1.0,
            learning_rate=work.learning_rate,
            lr_scheduler_type="constant",
            kl_coef=work.beta,
        ),
        processing_class=words,
        model=models[0],
        ref_model=models[1],
        reward_model=EvenReward(),
        value_model=models[2],
        train_dataset=Dataset.from_dict({"input_ids": [[0]]}),
        **options,
    )
    # `bf16=True` alone changes nothing here: the trainer makes its own Accelerator, which hears of
    # the precision from `accelerate launch`, that is from the environment.
    assert trainer.accelerator.mixed_precision == ("bf16" if work.dtype == "bfloat16" else "no")
    trainer.dataloader = batches
    return trainer


class Batches:
    """The next batch comes when the next step is asked for."""

    def __init__(self, queries: Tensor) -> None:
        self.queries = queries

    def __iter__(self):
        for _ in steps():
            yield {"input_ids": self.queries}


if __name__ == "__main__":
    task = Work(**json.loads(sys.argv[1]))
    networks = task.policy(), task.policy(), task.value_model()
    with tempfile.TemporaryDirectory() as folder:
        trl_trainer(task, networks, tokenizer(), Batches(task.queries()), folder).train()
