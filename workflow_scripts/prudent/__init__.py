"""Prudent: RLHF that knows when its reward is guessing.

The library under the workflow. It does not import Snakemake, and each module imports only from
the layers below it: pure functions, models, loops, figures.
"""
