"""Pilots: policies that are trained only to find a coefficient."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from prudent.checkpoint_files import read_json
from prudent.errors import InputError
from prudent.policies.target_kl import Estimate
from prudent.tables import write_json

logger = logging.getLogger(__name__)


class Pilots:
    """Policies at any coefficient, whose KLs are stored on disk.

    After an interruption, finished pilots are not trained again.
    """

    def __init__(self, train: Callable[[float, int, Path], Estimate], folder: Path) -> None:
        """``train(beta, pilot, checkpoints)`` is the final KL of a pilot, with its standard error.

        Args:
            folder: for this search alone; holds the KLs and each pilot's checkpoints.
        """
        self.train, self.folder = train, folder
        self.memory = folder / "pilots.json"
        self.known: dict[tuple[float, int], Estimate] = {}
        if self.memory.exists():
            rows = read_json(self.memory).get("pilots")
            try:
                self.known = {(row["beta"], row["pilot"]): _estimate(row) for row in rows}
            except (KeyError, TypeError) as error:
                raise InputError(
                    f"{self.memory}: found no pilots; to start afresh, delete it"
                ) from error
            logger.info("%s: going on after %d pilot(s)", self.memory, len(self.known))

    def at(self, betas: Sequence[float]) -> list[Estimate]:
        """The final KLs of all pilots, each at its own coefficient."""
        return [self._of(beta, pilot) for pilot, beta in enumerate(betas)]

    def _of(self, beta: float, pilot: int) -> Estimate:
        if (found := self.known.get((beta, pilot))) is not None:
            return found
        checkpoints = self.folder / str(len(self.known))
        try:
            found = self.train(beta, pilot, checkpoints)
        except InputError as error:
            raise InputError(f"pilot {pilot} at the coefficient {beta:.4g}: {error}") from error
        self.known[beta, pilot] = found
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = [
            {"beta": beta, "pilot": pilot, "kl": one.mean, "se": one.se}
            for (beta, pilot), one in self.known.items()
        ]
        write_json({"pilots": rows}, self.memory)
        shutil.rmtree(checkpoints, ignore_errors=True)
        logger.info("pilot %d at the coefficient %.4g: final KL %.3f", pilot, beta, found.mean)
        return found


def _estimate(row: dict[str, float]) -> Estimate:
    return Estimate(float(row["kl"]), float(row["se"]))
