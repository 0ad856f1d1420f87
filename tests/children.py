"""Processes that tests start often, or kill: forks of a server that imported what takes time."""

from __future__ import annotations

import multiprocessing

CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(
    [
        *("pandas", "pyarrow.parquet", "pytest"),
        *("transformers.models.gpt2.modeling_gpt2", "transformers.tokenization_utils_tokenizers"),
    ]
)
