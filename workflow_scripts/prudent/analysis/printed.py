"""What arXiv 2410.23726 prints: the numbers of its figures and tables."""

from __future__ import annotations

from typing import Any, NamedTuple

TITLES = {
    "Figure 1": "Ten heads on one response",
    "Figure 2": "A bandit of three arms",
    "Figure 3": "Simulated returns, high variability",
    "Figure 4": "Simulated returns, low variability",
    "Figure 5": "Simulated returns at the same step",
    "Figure 6": "Variance of the heads' rewards on RewardBench",
    "Figure 7": "Judge scores of 40 policies a method",
    "Figure 8": "Training losses of the reward models",
    "Figure 9": "Accuracy of each head on RewardBench",
    "Figure 10": "KL over PPO's steps",
    "Figure 11": "Proxy reward over PPO's steps",
    "Figure 12": "Judge scores of 100 policies a method",
    "Table 1": "RewardBench",
    "Table 2": "Settings of the base reward model",
    "Table 3": "Resources of the base reward model",
    "Table 4": "Settings of the ensemble",
    "Table 5": "Resources of the ensemble",
    "Table 6": "Settings of PPO, vanilla",
    "Table 7": "Settings of PPO, variance-aware",
    "Table 8": "Resources of PPO",
    "Theorem 2.2": "How far estimates are from the truth",
    "Theorem 3.3": "The probability of a policy worse than the reference",
    "Theorem 3.6": "The optimal policy",
    "Algorithms": "The papers' objectives, by their names here",
    "Later papers": "arXiv 2507.15906 and 2409.15360",
    "Choices": "Where the paper leaves a choice, or contradicts itself",
}

SECTIONS = ("Chat", "Chat Hard", "Safety", "Reasoning", "Prior")
REWARDBENCH = {
    "GRM-Gemma-2B-sftreg": (74.7, 95.5, 48.7, 80.0, 76.8, 69.8),
    "Gemma-2B-rewardmodel-baseline": (73.1, 94.1, 46.9, 79.7, 73.8, 69.0),
    "Our Model": (69.4, 95.6, 44.5, 55.9, 81.8, 69.0),
    "Qwen1.5-72B-Chat": (68.2, 62.3, 66.0, 72.0, 85.5, 42.3),
    "MiniCPM-2B-dpo-fp32": (66.2, 89.1, 49.3, 52.5, 82.3, 49.6),
    "RM-Gemma-2B": (64.2, 94.4, 40.8, 44.0, 76.4, 66.5),
}
"""Table 1: the average, and the accuracy in each of ``SECTIONS``, in percent."""


class Scores(NamedTuple):
    """Judge scores: mean and variance over policies, and the number of policies a method."""

    policies: int
    reference: tuple[float, float]
    aware: tuple[float, float]
    vanilla: tuple[float, float]


SCORES = {
    "Figure 7": Scores(40, (0.19, 0.002), (0.22, 0.012), (0.34, 0.06)),
    "Figure 12": Scores(100, (0.15, 0.012), (0.41, 0.016), (0.43, 0.038)),
}
FINAL_KL = (1.2, 1.4)
"""Figure 10: where both methods end."""


class Setting(NamedTuple):
    """A printed setting: its value, and the key that has ours, of the item's section."""

    quantity: str
    printed: Any
    key: str


SETTINGS = {
    "Table 2": (
        Setting("batch size", 32, "batch_size"),
        Setting("learning rate", 1e-5, "learning_rate"),
        Setting("weight decay", 0.001, "weight_decay"),
        Setting("epochs", 1, "epochs"),
    ),
    "Table 4": (
        Setting("batch size", 32, "batch_size"),
        Setting("learning rate", 1e-5, "learning_rate"),
        Setting("weight decay", 0.001, "weight_decay"),
        Setting("epochs", 0.5, "epochs"),
    ),
    "Table 6": (
        Setting("batch size", 128, "batch_size"),
        Setting("learning rate", 1.414e-5, "learning_rate"),
        Setting("steps", 192, "steps"),
    ),
    "Table 7": (
        Setting("batch size", 128, "batch_size"),
        Setting("learning rate", 1.5e-5, "learning_rate"),
        Setting("steps", 192, "steps"),
    ),
}
STEPS = {"Table 2": 4125, "Table 4": 2060}
"""Steps of the reward models' trainings."""
KL_COEFFICIENTS = {"Table 6": 0.2, "Table 7": 0.05}


class Resources(NamedTuple):
    """What a training takes: hours, GB of memory and GB of disk."""

    hours: float
    memory: float
    disk: float


RESOURCES = {
    "Table 3": Resources(51, 12.68, 30),
    "Table 5": Resources(7, 6.12, 38),
    "Table 8": Resources(3.86, 18.4, 6.55),
}
