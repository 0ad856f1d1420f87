"""Compare the rewards with the judge's on several responses of the reference to each prompt."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from prudent.policies.respond import sample_responses
from prudent.policies.settings import SamplingSettings
from prudent.rewards import diagnosis
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.evidence import drawn_anew, evidence_of
from prudent.rewards.judges import load_judge
from prudent.rewards.loading import draws_of, load_rewards
from prudent.rewards.scoring import long_table
from prudent.rewards.settings import RewardSettings
from prudent.seeding import generator
from prudent.tables import read_table, write_csv, write_parquet
from prudent.workflow import entry
from prudent.world.rarity import counts_of_rarest

logger = logging.getLogger(__name__)


@dataclass
class Args:
    reference: Path  # checkpoint of the reference policy
    base: Path  # checkpoint of the base reward model
    ensembles: list[Path]  # folders of the draws' checkpoints
    names: list[str]  # of the ensembles; the first one's draws are in the table of samples
    prompts: Path  # table
    preferences: Path  # table of pairs
    samples: Path  # rewards of the responses, written
    table: Path  # written
    kinds: Path  # table, a row an ensemble, written
    frequency: Path  # table by frequency of the rarest judgement, written
    prompt_count: int  # test prompts that the reference policy answers
    response_count: int  # responses to each
    reward: RewardSettings  # section `reward` of the configuration
    model: str  # world, trained, or a reward model's folder or hub id
    sampling: SamplingSettings  # section `sampling` of the configuration
    seed: int  # of the study
    replicates: list[Path] = field(default_factory=list)  # of the first ensemble, drawn anew
    from_base: list[str] = field(default_factory=list)  # ensembles whose models start from base
    promised: str = ""  # the ensemble that has to keep the world's promises
    judge: Path | None = None  # its checkpoint, if it is local
    trained_judge: Path | None = None  # checkpoint of another one
    by_judge: Path | None = None  # table of what both say, written
    revision: str | None = None  # of its hub id
    backbone: Path | None = None  # checkpoint that reward models start from, if it is local
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    table = read_table(args.prompts, "prompts")
    prompts = table.loc[table["split"] == "test", "prompt"].tolist()[: args.prompt_count]
    count = args.response_count
    repeated = [prompt for prompt in prompts for _ in range(count)]
    draws = generator(args.seed, "diagnosis", "sampling")
    responses = sample_responses(args.reference, repeated, **dict(args.sampling), draws=draws)
    verdict = load_judge(args.judge or args.model, args.revision)(repeated, responses)
    shape = (len(prompts), count)

    preferences = read_table(args.preferences, "preferences")
    pairs = preferences[preferences["split"] == "validation"]
    backbone = args.backbone or args.reward.checkpoint
    evidence, rewards = {}, []
    for name, path in zip(args.names, args.ensembles, strict=True):
        models = [load_rewards(draw) for draw in draws_of(path)]
        logger.info("rewards of %s: %d draw(s)", name, len(models))
        start = args.base if name in args.from_base else backbone
        said = list(evidence_of(models, repeated, responses, count, pairs, start))
        evidence[name] = [of_draw for _, of_draw in said]
        rewards = rewards or [of_draw for of_draw, _ in said]

    if args.replicates:
        models = [load_rewards(path) for path in args.replicates]
        said = list(evidence_of(models, repeated, responses, count, pairs, backbone))
        evidence |= drawn_anew(args.names[0], [of_replicate for _, of_replicate in said])

    asked, base = pairs["prompt"].tolist(), RewardEnsemble.load(args.base)
    margins = [base(asked, pairs[side].tolist()).mean[:, 0] for side in ("chosen", "rejected")]
    found = diagnosis.diagnosis_table(
        evidence,
        verdict["score"].reshape(shape),
        args.seed,
        base=(margins[0] - margins[1]).double().numpy(),
        pair_prompts=pairs["prompt"].map(str).factorize()[0],
        grammatical=verdict["grammatical"].reshape(shape) if "grammatical" in verdict else None,
        promised=args.promised if args.model == "world" else None,
        progress="ensembles checked",
    )
    write_csv(found, args.table, "diagnosis")
    write_csv(diagnosis.kinds_table(found), args.kinds, "kinds")
    if args.trained_judge and args.by_judge:
        second = load_judge(args.trained_judge)(repeated, responses)
        said = {args.model: verdict["score"], "trained": second["score"]}
        scores = {judge: values.reshape(shape) for judge, values in said.items()}
        of_judges = diagnosis.by_judge(evidence, scores, args.seed, progress="ensembles checked")
        write_csv(of_judges, args.by_judge, "kinds_by_judge")
    counts = np.full(shape, np.nan)
    if args.model == "world":
        trained = preferences[preferences["split"] == "train"]
        written = [*trained["chosen"], *trained["rejected"]]
        counts = counts_of_rarest(repeated, responses, written).reshape(shape)
    frequency = diagnosis.by_frequency(evidence, verdict["score"].reshape(shape), counts, args.seed)
    write_csv(frequency, args.frequency, "frequency")

    samples = pd.DataFrame({"prompt": repeated, "response": responses, **verdict})
    samples.insert(0, "prompt_index", np.repeat(np.arange(len(prompts)), count))
    write_parquet(long_table(samples, rewards), args.samples, "reward_samples", others=True)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
