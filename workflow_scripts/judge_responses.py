"""Have a judge score the policies' responses."""

from dataclasses import dataclass
from pathlib import Path

from prudent.rewards.judges import judge_responses, load_judge
from prudent.tables import metadata, read_table, write_json, write_parquet
from prudent.workflow import entry


@dataclass
class Args:
    responses: Path  # table
    scores: Path  # table, written
    metadata: Path  # settings, versions and digests, written
    model: str  # world, trained, or a reward model's folder or hub id
    judge: Path | None = None  # its checkpoint, if it is local
    revision: str | None = None  # of its hub id
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    responses = read_table(args.responses, "responses")
    judge = load_judge(args.judge or args.model, args.revision)
    write_parquet(judge_responses(responses, judge), args.scores, "judgements", others=True)
    inputs = {"responses": args.responses} | ({"judge": args.judge} if args.judge else {})
    write_json(metadata({"judge": args.model, "revision": args.revision}, **inputs), args.metadata)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
