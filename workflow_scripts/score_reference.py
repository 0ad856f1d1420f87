"""Score the reference policy's responses once: by the judge, by each ensemble, as features."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from prudent.exact.scores import Scores, save_scores
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import extract
from prudent.rewards.judges import load_judge
from prudent.rewards.loading import draws_of, load_rewards
from prudent.rewards.scoring import score_responses
from prudent.tables import metadata, read_table, write_json
from prudent.workflow import entry


@dataclass
class Args:
    samples: Path  # table of responses
    ensemble: Path  # folder of the draws' checkpoints
    scores: Path  # written
    metadata: Path  # written
    model: str  # world, trained, or a reward model's folder or hub id
    replicates: list[Path] = field(default_factory=list)  # checkpoints of ensembles
    base: Path | None = None  # base reward model, where fresh heads are to be made on its features
    judge: Path | None = None  # its checkpoint, if it is local
    revision: str | None = None  # of its hub id
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    table = read_table(args.samples, "exact_samples")
    prompts, responses = table["prompt"].tolist(), table["response"].tolist()
    verdict = load_judge(args.judge or args.model, args.revision)(prompts, responses)
    features = None
    if args.base is not None:
        base = RewardEnsemble.load(args.base)
        features = extract(base.model, base.tokenizer, prompts, responses, progress="features")
    of_draws = score_responses(
        [load_rewards(path) for path in draws_of(args.ensemble)],
        prompts,
        responses,
        progress="rewards",
    )
    anew = []
    for path in args.replicates:  # one at a time in memory
        anew += score_responses(
            [load_rewards(path)], prompts, responses, progress=f"rewards of replicate {path.name}"
        )
    save_scores(Scores(torch.tensor(verdict["score"]), of_draws, anew, features), args.scores)
    inputs = {"samples": args.samples, "ensemble": args.ensemble}
    inputs |= {f"replicate {path.name}": path for path in args.replicates}
    inputs |= {name: path for name in ("base", "judge") if (path := getattr(args, name))}
    said = {"judge": args.model, "revision": args.revision}
    write_json(metadata(said, **inputs), args.metadata)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
