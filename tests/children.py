"""Processes that tests kill."""

import multiprocessing

# Processes that can be killed: from a server that has imported what takes time, but has no threads.
CHILDREN = multiprocessing.get_context("forkserver")
