"""Let a method's policies answer the test prompts."""

from dataclasses import dataclass
from pathlib import Path

from prudent.policies.respond import respond
from prudent.policies.settings import SamplingSettings
from prudent.tables import metadata, read_table, write_json, write_parquet
from prudent.workflow import entry


@dataclass
class Args:
    policies: list[Path]  # checkpoints
    reference: Path  # checkpoint that their KL is to
    prompts: Path  # table
    responses: Path  # table, written
    metadata: Path  # settings, versions and digests, written
    method: str  # name of their method
    seeds: list[int]  # of these policies
    prompt_count: int  # test prompts to answer
    sampling: SamplingSettings  # section `sampling` of the configuration
    seed: int  # of the study
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    table = read_table(args.prompts, "prompts")
    prompts = table.loc[table["split"] == "test", "prompt"].tolist()[: args.prompt_count]
    policies = dict(zip(args.seeds, args.policies, strict=True))
    responses = respond(policies, args.reference, prompts, **dict(args.sampling), seed=args.seed)
    write_parquet(responses.assign(method=args.method), args.responses, "responses")
    inputs = {f"policy {seed}": path for seed, path in policies.items()}
    settings = {"prompts": len(prompts), "seed": args.seed, **dict(args.sampling)}
    inputs |= {"reference": args.reference, "prompts": args.prompts}
    write_json(metadata(settings, **inputs), args.metadata)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
