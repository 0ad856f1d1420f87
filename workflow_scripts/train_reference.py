"""Make the reference policy: from scratch, fine-tuned, or as it is."""

from dataclasses import dataclass
from pathlib import Path

from prudent.policies.reference import ReferenceSettings, make_reference
from prudent.resuming import TrainingCheckpoints
from prudent.tables import file_digest, metadata, read_table, write_csv, write_json, write_text
from prudent.workflow import entry


@dataclass
class Args:
    checkpoint: Path  # written
    digest: Path  # where to write the checkpoint's
    loss: Path  # table, written
    settings: ReferenceSettings  # section `reference` of the configuration
    checkpoints: Path  # folder to go on from after an interruption
    seed: int  # of the study
    texts: Path | None = None  # table, where it is trained
    code: str = ""  # digest of the code; another one starts afresh
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    texts = read_table(args.texts, "texts") if args.texts else None
    inputs = {"texts": args.texts} if args.texts else {}
    sheet = metadata({**dict(args.settings), "seed": args.seed}, **inputs)
    start = Path(args.settings.checkpoint or "")
    # A hub's counts by the name and the revision in its settings.
    digest = file_digest(start) if args.settings.checkpoint and start.exists() else None
    fingerprint = {"code": args.code, "start": digest, **sheet}
    with TrainingCheckpoints(args.checkpoints, fingerprint) as checkpoints:
        losses = make_reference(texts, args.settings, args.seed, args.checkpoint, checkpoints)
        write_json(sheet, args.checkpoint / "metadata.json")
        write_csv(losses, args.loss, "losses")
        write_text(file_digest(args.checkpoint) + "\n", args.digest)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
