"""Make the reference policy: from scratch, fine-tuned, or as it is."""

from dataclasses import dataclass
from pathlib import Path

from prudent.policies.reference import ReferenceSettings, make_reference
from prudent.tables import file_digest, metadata, read_table, write_csv, write_json, write_text
from prudent.workflow import entry


@dataclass
class Args:
    checkpoint: Path  # written
    digest: Path  # where to write the checkpoint's
    loss: Path  # table, written
    settings: ReferenceSettings  # section `reference` of the configuration
    seed: int  # of the study
    texts: Path | None = None  # table, where it is trained
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    texts = read_table(args.texts, "texts") if args.texts else None
    losses = make_reference(texts, args.settings, args.seed, args.checkpoint)
    inputs = {"texts": args.texts} if args.texts else {}
    sheet = metadata({**dict(args.settings), "seed": args.seed}, **inputs)
    write_json(sheet, args.checkpoint / "metadata.json")
    write_csv(losses, args.loss, "losses")
    write_text(file_digest(args.checkpoint) + "\n", args.digest)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
