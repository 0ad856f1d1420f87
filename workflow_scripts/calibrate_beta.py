"""Find one method's coefficient beta for a KL: from the exact policies, corrected by pilots."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from prudent.errors import InputError
from prudent.exact.coefficient import betas_for, common_beta, kls_at, policy_terms, slope_at
from prudent.exact.evaluate import Method, methods_of
from prudent.exact.optimum import Terms
from prudent.exact.scores import load_scores
from prudent.exact.terms import NoOptimum
from prudent.objectives.single import vanilla
from prudent.policies.models import load_causal_lm
from prudent.policies.pilots import Pilots
from prudent.policies.respond import answers
from prudent.policies.settings import SamplingSettings
from prudent.policies.target_kl import (
    KL_TOLERANCE,
    Calibration,
    Estimate,
    find_beta,
    mean_of,
)
from prudent.ppo.policy import PolicyRecipe, variant
from prudent.ppo.settings import PPOSettings, TrainingSettings
from prudent.precision import decided
from prudent.rewards.last_layer import LastLayer
from prudent.rewards.loading import draws_of, load_rewards
from prudent.rewards.scoring import score_responses
from prudent.seeding import derive_seed, generator
from prudent.tables import metadata, read_table, write_csv, write_json
from prudent.workflow import entry, objectives

logger = logging.getLogger(__name__)

MOST = 100
"""The members of the ensembles whose exact policies say what the pilots' members differ by."""


@dataclass
class Args:
    reference: Path  # checkpoint that policies start from and stay near
    pilots: Path  # folder of the pilots' own ensemble
    prompts: Path  # table
    samples: Path  # table of the reference policy's responses
    scores: Path  # what the rewards say of them
    table: Path  # of all pilots, written
    calibration: Path  # the coefficient, settings, versions and digests, written
    method: str  # its name
    method_settings: dict[str, Any]  # its objective, parameters, spread, unit
    kl: float  # at which its policies are to end
    pilot_count: int  # pilots at each coefficient
    prompt_count: int  # test prompts that each of them answers
    settings: TrainingSettings  # section `ppo` of the configuration
    sampling: SamplingSettings  # section `sampling` of the configuration
    checkpoints: Path  # folder to go on from after an interruption
    seed: int  # of the study
    base: Path | None = None  # base reward model, of a last layer
    features: Path | None = None  # of the training pairs, by the base reward model
    code: str = ""  # digest of the code; another one starts afresh
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    table = read_table(args.prompts, "prompts")
    train_prompts = table.loc[table["split"] == "train", "prompt"].tolist()
    test_prompts = table.loc[table["split"] == "test", "prompt"].tolist()[: args.prompt_count]
    (path,) = draws_of(args.pilots)
    last_layer, inputs = None, {}
    if args.features is not None:
        last_layer = LastLayer.load(args.base, args.features)
        inputs = {"features": args.features}
    settings = decided(PPOSettings(**dict(args.settings), **dict(args.sampling)))
    effective = {"method": args.method, **args.method_settings, "kl": args.kl}
    effective |= {"pilots": args.pilot_count, "prompts": args.prompt_count, "seed": args.seed}
    inputs |= {name: getattr(args, name) for name in ("reference", "prompts", "samples", "scores")}
    sheet = metadata(effective | dict(settings), pilots=path, **inputs)
    fingerprint = {"code": args.code, **sheet}

    method = methods_of({args.method: args.method_settings}, objectives.load)[args.method]
    rewards = load_rewards(path)
    policies, pilots, heads = optima(args, method, rewards, last_layer)
    given = (settings, method.spread, last_layer)
    recipe = PolicyRecipe(args.reference, train_prompts, rewards, method.objective, *given)
    seed = derive_seed(args.seed, "pilots")  # no stream of the policies that are compared
    reference = load_causal_lm(args.reference)

    def train(beta: float, pilot: int, folder: Path) -> Estimate:
        """The final KL of a pilot, on the test prompts as the policies' KLs are."""
        own = {"fingerprint": {**fingerprint, "beta": beta, "pilot": pilot}, "checkpoints": folder}
        policy, tokenizer, _ = recipe.policy(beta, heads[pilot], seed, pilot, **own)
        kls = answers(
            *(policy, tokenizer, reference, test_prompts),
            **dict(args.sampling),
            draws=generator(seed, "judge", "sampling"),
        )[1]
        return Estimate(kls.mean().item(), (kls.std() / len(kls) ** 0.5).item())

    try:
        start = common_beta(policies, args.kl)
    except InputError as error:
        raise InputError(f"methods.{args.method}.beta.kl {error}") from None
    with variant(args.checkpoints, fingerprint) as checkpoints:
        tried = Tried(args, policies, pilots, heads, Pilots(train, checkpoints))
        search = find_beta(tried.kl_of, args.kl, start, slope_at(policies, start))
        best = tried.estimates[search.betas[search.nearest]]
        reached = abs(best.mean / args.kl - 1) <= KL_TOLERANCE
        if not reached:
            logger.warning(
                "%s: none of %d coefficients takes its policies to the KL %g; the nearest is %.3f, "
                "at %.4g",
                *(args.method, len(search.betas), args.kl, best.mean, search.beta),
            )
        se = best.se if args.pilot_count > 1 else None
        calibration = Calibration(search.beta, best.mean, se, args.kl, reached)
        write_csv(pd.DataFrame(tried.rows), args.table, "calibration")
        write_json({"found": calibration._asdict(), **sheet}, args.calibration)


def optima(
    args: Args, method: Method, rewards: Any, last_layer: LastLayer | None
) -> tuple[Terms, Terms, list[int]]:
    """The terms of the optimal policies: those that may be compared, and the pilots', whose heads
    are the third."""
    table = read_table(args.samples, "exact_samples")
    per_prompt = len(table) // table["prompt"].nunique()
    scores = load_scores(args.scores, len(table))
    asked, said = table["prompt"].tolist(), table["response"].tolist()
    (of_pilots,) = score_responses([rewards], asked, said, progress="rewards of the pilots")
    heads = [pilot % of_pilots.members for pilot in range(args.pilot_count)]
    own = range(of_pilots.members) if method.own else [0]
    pairs = [(draw, head) for head in own for draw in range(len(scores.draws))][:MOST]
    given = (per_prompt, args.seed, last_layer)

    def terms(method: Method) -> tuple[Terms, Terms, list[int]]:
        return (
            policy_terms(method, scores.draws, pairs, *given),
            policy_terms(method, [of_pilots], [(0, head) for head in heads], *given),
            heads,
        )

    try:
        return terms(method)
    except NoOptimum as error:
        # Such a method begins where its member's reward alone would.
        logger.warning("%s: %s; the search begins at vanilla's coefficient", args.method, error)
        return terms(Method(vanilla, method.own))


class Tried:
    """The coefficients that were tried: the estimated KLs of the policies that are compared, and a
    row for each pilot."""

    def __init__(
        self, args: Args, policies: Terms, pilots: Terms, heads: list[int], trained: Pilots
    ) -> None:
        self.args, self.policies, self.pilots = args, policies, pilots
        self.heads, self.trained = heads, trained
        self.rows: list[dict[str, Any]] = []
        self.estimates: dict[float, Estimate] = {}

    def kl_of(self, beta: float) -> float:
        """The estimated KL of the policies that are compared, at a coefficient."""
        # A head of a larger scale needs a larger coefficient to end at the same KL: each pilot has
        # its own, by which its optimal policy is as far as those of the policies are on average.
        expected = kls_at(self.policies, beta).mean().item()
        betas = betas_for(self.pilots, expected, beta).tolist()
        found = self.trained.at(betas)
        whole = self.estimates[beta] = mean_of([one.mean for one in found])
        number, target = len(self.estimates) - 1, self.args.kl
        for pilot, (own, one) in enumerate(zip(betas, found, strict=True)):
            row = {"method": self.args.method, "kl_target": target, "evaluation": number}
            row |= {"beta": beta, "exact_kl": expected}
            row |= {"policies_kl": whole.mean, "policies_kl_se": whole.se}
            row |= {"pilot": pilot, "head": self.heads[pilot], "pilot_beta": own}
            self.rows.append(row | {"kl": one.mean, "kl_se": one.se})
        logger.info(
            "evaluation %d: at %.4g the policies' KL is %.3f, to be %.3f",
            *(number, beta, whole.mean, target),
        )
        return whole.mean


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
