"""The time of exact policies per ensemble, method and KL, and how near it is to the floor.

The floor is one read of a score and a coefficient, 16 bytes a response in float64, for each solver
iteration, at the speed at which this machine's memory is read.

    python tests/bench/exact.py --ensembles 100 --prompts 128 --responses 256
"""

import argparse
import time

import torch

from prudent.exact import optimum
from prudent.exact.evaluate import Method, exact_policies
from prudent.rewards.interface import Rewards
from prudent.workflow.objectives import load

METHODS = {"vanilla": True, "variance_aware": True, "mean": False, "mean_variance_aware": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ensembles", type=int, default=100)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--responses", type=int, default=256)
    parser.add_argument("--kl", type=float, nargs="+", default=[0.3, 0.8])
    args = parser.parse_args()
    size = args.prompts * args.responses
    draws = torch.Generator().manual_seed(0)
    truth = torch.randn(size, 1, generator=draws)
    rewards = [
        Rewards(truth + torch.randn(size, args.members, generator=draws))
        for _ in range(args.ensembles)
    ]
    judge = truth.reshape(args.prompts, args.responses)
    speed = bandwidth()
    print(f"{torch.get_num_threads()} threads, memory is read at {speed / 1e9:.1f} GB/s")
    calls = [0]
    solved = optimum._solved

    def counted(*given):
        calls[0] += 1
        return solved(*given)

    optimum._solved = counted
    print("method               ms a policy  solver calls  share of the floor")
    for name, own in METHODS.items():
        calls[0], start = 0, time.perf_counter()
        found = exact_policies(Method(load(name), own), rewards, judge, args.kl, 0)
        seconds = time.perf_counter() - start
        # Each call is of a chunk; a policy takes as many as a chunk does for a KL.
        chunks = -(-args.ensembles // max(1, optimum_chunk(size)))
        each = calls[0] / chunks / len(args.kl)
        floor = each * 16 * size / speed * len(found)
        row = f"{name:20} {1000 * seconds / len(found):11.2f} {each:13.1f} {floor / seconds:19.1%}"
        print(row, flush=True)


def optimum_chunk(size: int) -> int:
    """The ensembles that are solved at once."""
    from prudent.exact.evaluate import AT_ONCE

    return AT_ONCE // size


def bandwidth() -> float:
    """Bytes a second at which a sum reads 400 MB."""
    table = torch.ones(50_000_000, dtype=torch.float64)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        table.sum()
        times.append(time.perf_counter() - start)
    return 8 * len(table) / min(times)


if __name__ == "__main__":
    main()
