"""The grid of regimes: ensembles of a pool, and intervals that leave out each replicate in turn."""

import functools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from tiny_ensembles import rng

from prudent.analysis.statistics import share_interval, t_interval, variance_ratio
from prudent.exact import regimes
from prudent.exact.evaluate import Method
from prudent.exact.regimes import Design, Team, cell_policies, regime_table, teams_of_pool
from prudent.objectives.pooled import mean
from prudent.objectives.single import vanilla
from prudent.rewards.interface import Rewards

CELL = {"pairs": 100, "noise": 1.0, "ensemble": "members", "members": 3, "kl_target": 0.5}
P, N = 4, 16


def policies(gains: dict[str, np.ndarray], teams: list[tuple[int, tuple[int, ...]]]):
    """Rows of the schema "regime_policies" of one cell; a team is a partition and replicates."""
    tables = []
    for method, of in gains.items():
        table = pd.DataFrame({"method": method, "team": range(len(of)), "gain": of})
        table["partition"] = [partition for partition, _ in teams]
        table["replicates"] = [list(replicates) for _, replicates in teams]
        tables.append(table.assign(**CELL, effective_size=20.0))
    return pd.concat(tables, ignore_index=True)


def on_base(count: int):
    return [(0, (number,)) for number in range(count)]


def pool(count: int, seed: int = 0) -> list[Rewards]:
    draw = rng(seed)
    return [Rewards(torch.tensor(draw.normal(size=(P * N, 1)))) for _ in range(count)]


@functools.cache
def partitioned(count: int, members: int, seed: int = 0):
    """The partitions and replicates of the ensembles of a pool."""
    return [
        (team.partition, team.replicates) for team in teams_of_pool(pool(count), members, N, seed)
    ]


def one(table: pd.DataFrame, method: str, against: str = "vanilla") -> pd.Series:
    return table[(table["method"] == method) & (table["against"] == against)].iloc[0]


def interval(row: pd.Series, name: str) -> list[float]:
    return [row[name], row[f"{name}_low"], row[f"{name}_high"]]


# --- Ensembles


def test_ensembles_on_a_base_model_are_its_first_members():
    given = [Rewards(torch.randn(6, 5), std=torch.rand(6, 5)) for _ in range(4)]
    teams = regimes.teams_on_base(given, 3)
    assert [team.replicates for team in teams] == [(0,), (1,), (2,), (3,)]
    for team, whole in zip(teams, given, strict=True):
        assert torch.equal(team.rewards.mean, whole.mean[:, :3])
        assert torch.equal(team.rewards.std, whole.std[:, :3])
    assert regimes.teams_on_base(given, 6) == []


def test_ensembles_of_a_pool_are_disjoint_within_partitions():
    models = pool(11)
    teams = teams_of_pool(models, 3, N, 0)
    partitions: dict[int, list[int]] = {}
    for team in teams:
        partitions.setdefault(team.partition, []).extend(team.replicates)
        assert team.rewards.members == 3
    assert len(teams) == 60 and len(partitions) == 20
    assert all(len(of) == len(set(of)) == 9 for of in partitions.values())
    assert {number for of in partitions.values() for number in of} == set(range(11))
    # The rewards are the models', at one scale within prompts.
    first = teams[0]
    for column, number in enumerate(first.replicates):
        found, given = first.rewards.mean[:, column], models[number].mean[:, 0]
        assert (found / given).std() == pytest.approx(0, abs=1e-12)
        within = found.reshape(P, N) - found.reshape(P, N).mean(1, keepdim=True)
        assert within.square().mean() == pytest.approx(1)
    assert partitioned(11, 3) == partitioned(11, 3) != partitioned(11, 3, seed=1)


@pytest.mark.parametrize(("count", "members", "ensembles"), [(8, 3, 0), (9, 3, 60), (2, 1, 0)])
def test_a_pool_gives_three_disjoint_ensembles_or_none(count, members, ensembles):
    assert len(partitioned(count, members)) == ensembles


# --- Intervals


def test_for_ensembles_of_their_own_replicates_intervals_are_the_usual_ones():
    draw = rng(1)
    base = draw.normal(0.1, 1, 25)
    own = 0.5 * base + draw.normal(0.3, 0.5, 25)
    table = regime_table(policies({"vanilla": base, "mean": own}, on_base(25)), "vanilla", {})
    row = one(table, "mean")
    assert row["ensembles"] == 25
    assert interval(row, "gain") == pytest.approx(t_interval(own))
    assert interval(row, "difference") == pytest.approx(t_interval(own - base))
    assert interval(row, "ratio") == pytest.approx(variance_ratio(base, own))
    assert interval(row, "below_share") == pytest.approx(share_interval(own < 0))
    fewer = 1.0 * (own < 0) - 1.0 * (base < 0)
    assert interval(row, "below_difference") == pytest.approx(t_interval(fewer))
    assert np.isnan(interval(one(table, "vanilla"), "difference")).all()


def brute(gains: np.ndarray, teams, statistic):
    """A statistic of partitions' lists of gains, of all and without each replicate in turn."""
    names = sorted({number for _, replicates in teams for number in replicates})
    found = []
    for left_out in [None, *names]:
        kept: dict[int, list[float]] = {}
        for gain, (partition, replicates) in zip(gains, teams, strict=True):
            if left_out not in replicates:
                kept.setdefault(partition, []).append(gain)
        found.append(statistic(list(kept.values())))
    return found


def pooled_variance(partitions) -> float:
    squares = sum(np.sum((np.array(of) - np.mean(of)) ** 2) for of in partitions)
    return squares / sum(len(of) - 1 for of in partitions)


def test_intervals_of_a_pool_leave_out_each_replicate_with_all_its_ensembles():
    teams, draw = partitioned(12, 3), rng(2)
    base, own = draw.normal(size=(2, len(teams)))
    row = one(regime_table(policies({"vanilla": base, "mean": own}, teams), "vanilla", {}), "mean")
    means = brute(own - base, teams, lambda of: np.mean(np.concatenate(of)))
    variances = [brute(gains, teams, pooled_variance) for gains in (base, own)]
    logs = np.log(variances[0]) - np.log(variances[1])
    for name, (estimate, *left_out), shown in (
        ("difference", means, lambda value: value),
        ("ratio", logs, np.exp),
    ):
        left_out = np.array(left_out)
        variation = 11 / 12 * np.sum((left_out - left_out.mean()) ** 2)
        half = stats.t.ppf(0.975, 11) * np.sqrt(variation)
        wanted = shown(np.array([estimate, estimate - half, estimate + half]))
        assert interval(row, name) == pytest.approx(wanted)
    assert row["ensembles"] == 4


def simulated(count: int, members: int, seed: int):
    """Gains of a pool's ensembles, the mean of their members' own values and noise of their own."""
    draw, teams = rng(seed), partitioned(count, members, seed % 10)
    value = draw.normal(size=count)
    gains = [value[list(of)].mean() + 0.3 * draw.normal() for _, of in teams]
    return np.array(gains), teams


def test_the_variance_of_a_pool_is_that_of_disjoint_ensembles():
    found = []
    for seed in range(300):
        gains, teams = simulated(15, 5, seed)
        design = Design(np.array([p for p, _ in teams]), [of for _, of in teams])
        found.append(design.variance(gains)[0])
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) == pytest.approx(1 / 5 + 0.3**2, abs=4 * error)
    assert error < 0.01


@pytest.mark.parametrize("members", [3, 5])
def test_intervals_of_a_pool_hold_the_mean_as_often_as_they_say(members):
    held = 0
    for seed in range(200):
        gains, teams = simulated(15, members, seed)
        design = Design(np.array([p for p, _ in teams]), [of for _, of in teams])
        _, low, high = design.interval(design.mean(gains))
        held += low < 0 < high
    # 95%, and more where partitions are chosen at random; 4 standard errors are 0.06.
    assert 0.89 <= held / 200 <= 1


def test_a_method_is_held_against_its_controls_too():
    draw = rng(3)
    gains = {name: draw.normal(size=8) for name in ("vanilla", "mean", "random", "unused")}
    controls = {"mean": ["random", "absent"]}
    table = regime_table(policies(gains, on_base(8)), "vanilla", controls)
    assert list(table["method"] + " " + table["against"]) == [
        "vanilla vanilla",
        "mean vanilla",
        "mean random",
        "random vanilla",
        "unused vanilla",
    ]
    row = one(table, "mean", "random")
    assert row["difference"] == pytest.approx((gains["mean"] - gains["random"]).mean())


def test_policies_that_do_not_reach_the_kl_are_left_out():
    base, own = rng(4).normal(size=(2, 9))
    own[2], base[5] = np.nan, np.nan
    kept = np.isfinite(base + own)
    row = one(
        regime_table(policies({"vanilla": base, "mean": own}, on_base(9)), "vanilla", {}), "mean"
    )
    assert row["gain"] == pytest.approx(np.nanmean(own))
    assert row["difference"] == pytest.approx((own - base)[kept].mean())
    assert row["ratio"] == pytest.approx(base[kept].var(ddof=1) / own[kept].var(ddof=1))
    nothing = regime_table(
        policies({"vanilla": base, "mean": np.full(9, np.nan)}, on_base(9)), "vanilla", {}
    )
    assert np.isnan(interval(one(nothing, "mean"), "ratio")).all()
    assert np.isnan(one(nothing, "mean")["gain"])


# --- Policies


def test_policies_of_a_cell_are_those_of_its_ensembles():
    draw = rng(5)
    truth = torch.tensor(draw.normal(size=(P, N)))
    models = pool(9)
    teams = {("members", 3): teams_of_pool(models, 3, N, 0), ("heads", 2): []}
    methods = {"vanilla": Method(vanilla, True), "mean": Method(mean, False)}
    table = cell_policies(methods, teams, truth, [0.2, 0.4], 0)
    assert len(table) == 60 * 2 * 2 and set(table["ensemble"]) == {"members"}
    assert table["kl"].to_numpy() == pytest.approx(table["kl_target"].to_numpy(), rel=1e-6)
    row = table[(table["method"] == "mean") & (table["team"] == 7) & (table["kl_target"] == 0.4)]
    team: Team = teams["members", 3][7]
    assert row["replicates"].item() == list(team.replicates)
    # The softmax of the mean at the row's beta, by hand.
    score = team.rewards.mean.mean(1).reshape(P, N) / row["beta"].item()
    gain = (score.softmax(1) * truth).sum(1).mean() - truth.mean()
    assert row["gain"].item() == pytest.approx(gain.item())
