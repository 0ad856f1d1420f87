"""Sample the responses of the reference policy that exact policies are made of."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from prudent.exact.samples import given_table, sample_table
from prudent.policies.settings import SamplingSettings
from prudent.tables import metadata, read_table, write_json, write_parquet
from prudent.workflow import entry


@dataclass
class Args:
    samples: Path  # table of responses, written
    metadata: Path  # written
    prompt_count: int  # test prompts that are answered
    sample_count: int  # responses to each
    sampling: SamplingSettings  # section `sampling` of the configuration
    seed: int  # of the study
    checkpoints: Path  # folder to go on from after an interruption
    reference: Path | None = None  # its checkpoint, where it is sampled
    prompts: Path | None = None  # table, where it is sampled
    responses: Path | None = None  # file of responses to take instead
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    inputs = {"responses": args.responses}
    if args.responses is None:
        inputs = {"reference": args.reference, "prompts": args.prompts}
    said = {"prompts": args.prompt_count, "samples": args.sample_count, "seed": args.seed}
    sheet = metadata(said | dict(args.sampling), **inputs)
    if args.responses is not None:
        table, per_prompt = given_table(args.responses)
    else:
        prompts = read_table(args.prompts, "prompts")
        asked = prompts.loc[prompts["split"] == "test", "prompt"].tolist()[: args.prompt_count]
        per_prompt = args.sample_count
        variant = hashlib.sha256(json.dumps(sheet).encode()).hexdigest()[:16]
        table = sample_table(
            args.reference,
            asked,
            per_prompt,
            dict(args.sampling),
            args.seed,
            args.checkpoints / variant,
        )
    write_parquet(table, args.samples, "exact_samples")
    write_json({"responses to each prompt": per_prompt, **sheet}, args.metadata)
    shutil.rmtree(args.checkpoints, ignore_errors=True)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
