"""Let a policy answer the test prompts and have the answers judged."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prudent.rewards.judges import judge_checkpoint, load_judge
from prudent.tables import metadata, read_table, write_json, write_parquet
from prudent.workflow import entry


@dataclass
class Args:
    policy: Path
    prompts: Path
    scores: Path
    metadata: Path
    scorer: str
    prompt_count: int
    sampling: dict[str, Any]
    seed: int
    judge: Path | None = None
    threads: int = 1


def main(args: Args) -> None:
    table = read_table(args.prompts, "prompts")
    prompts = table.loc[table["split"] == "test", "prompt"].tolist()[: args.prompt_count]
    judge = load_judge(args.judge or args.scorer)
    scores = judge_checkpoint(args.policy, prompts, judge, **args.sampling, root=args.seed)
    write_parquet(scores, args.scores)
    inputs = {"policy": args.policy, "prompts": args.prompts}
    if args.judge:
        inputs["judge"] = args.judge
    settings = {"judge": args.scorer, "prompts": len(prompts), "seed": args.seed, **args.sampling}
    write_json(metadata(settings, **inputs), args.metadata)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
