"""Two trainings of two threads each on two cores: with threads that spin while they wait, or sleep.

python tests/bench/shared_cores.py prints seconds a step, alone and beside a second training, and
their ratios. The workflow's jobs sleep (OMP_WAIT_POLICY=PASSIVE, rules/common.smk).
"""

import os
import subprocess
import sys
import time

STEPS = 5


def train(threads: int) -> float:
    """Seconds that a step of a small GPT-2 takes: 24 tokens sampled, and two updates."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    sizes = {"n_embd": 256, "n_layer": 4, "n_head": 4, "vocab_size": 1024, "n_positions": 64}
    special = {"bos_token_id": 0, "eos_token_id": 0, "loss_type": "ForCausalLM"}
    model = GPT2LMHeadModel(GPT2Config(**sizes, **special)).eval()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    ids = torch.randint(0, 1024, (64, 32))

    def step() -> None:
        with torch.no_grad():
            inputs, cache = ids[:, :8], None
            for _ in range(24):
                output = model(inputs, past_key_values=cache, use_cache=True)
                inputs, cache = output.logits[:, -1:].argmax(-1), output.past_key_values
        for _ in range(2):
            model(ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    step()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - start) / STEPS


def measure(policy: str | None, threads: int, jobs: int) -> float:
    """Seconds a step, the mean of so many trainings at once."""
    environment = {name: value for name, value in os.environ.items() if name[:4] != "OMP_"}
    if policy:
        environment["OMP_WAIT_POLICY"] = policy
    command = [sys.executable, __file__, str(threads)]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(jobs)
    ]
    return sum(float(process.communicate()[0]) for process in running) / jobs


def main() -> None:
    print("waiting   threads  alone  beside another  ratio")
    for policy, threads in ((None, 2), ("PASSIVE", 2), (None, 1)):
        alone, shared = measure(policy, threads, 1), measure(policy, threads, 2)
        print(
            f"{policy or 'default':9s} {threads:7d} {alone:5.2f} s {shared:13.2f} s "
            f"{shared / alone:6.1f}"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(train(int(sys.argv[1])))
    else:
        main()
