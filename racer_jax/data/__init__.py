"""Data in: evaluation logs, benchmark files and spreadsheets as one validated `RoutingTable`.

`load(path)` reads any of the formats; see `docs/data` for a page on each.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from racer_jax.data.combine import concat
    from racer_jax.data.download import fetch
    from racer_jax.data.errors import DataError
    from racer_jax.data.export import write_predictions, write_routerarena
    from racer_jax.data.formats.embedllm import read_embedllm
    from racer_jax.data.formats.every_eval_ever import read_every_eval_ever
    from racer_jax.data.formats.helm import read_helm
    from racer_jax.data.formats.inspect_ai import read_inspect
    from racer_jax.data.formats.llmrouter import read_llmrouter
    from racer_jax.data.formats.llmrouterbench import read_llmrouterbench
    from racer_jax.data.formats.lm_eval import LmEvalOptions, read_lm_eval
    from racer_jax.data.formats.long_csv import read_long_csv, write_long_csv
    from racer_jax.data.formats.parquet import read_parquet, write_parquet
    from racer_jax.data.formats.promptfoo import read_promptfoo
    from racer_jax.data.formats.routellm import read_routellm
    from racer_jax.data.formats.routerarena import read_routerarena
    from racer_jax.data.formats.routerbench import read_routerbench
    from racer_jax.data.formats.routerdc import TrainTest, read_routerdc, read_routerdc_parts
    from racer_jax.data.formats.routereval import read_routereval, read_routereval_embeddings
    from racer_jax.data.formats.score_matrix import ScoredTable, read_score_matrix
    from racer_jax.data.formats.table_npz import read_table, save_table
    from racer_jax.data.formats.wide_csv import read_wide_csv
    from racer_jax.data.guessing import guess
    from racer_jax.data.labels import LabelRule
    from racer_jax.data.loading import load, save
    from racer_jax.data.pools import unite
    from racer_jax.data.splits import Split, paper_split, split
    from racer_jax.data.summary import Summary, summarize
    from racer_jax.data.synthetic import SimulatedBenchmark, simulated_pool
    from racer_jax.data.table import RoutingTable

_HOMES = {
    "combine": ("concat",),
    "errors": ("DataError",),
    "export": (
        "write_predictions",
        "write_routerarena",
    ),
    "download": ("fetch",),
    "formats.embedllm": ("read_embedllm",),
    "formats.every_eval_ever": ("read_every_eval_ever",),
    "formats.helm": ("read_helm",),
    "formats.inspect_ai": ("read_inspect",),
    "formats.llmrouter": ("read_llmrouter",),
    "formats.llmrouterbench": ("read_llmrouterbench",),
    "formats.lm_eval": ("LmEvalOptions", "read_lm_eval"),
    "formats.long_csv": (
        "read_long_csv",
        "write_long_csv",
    ),
    "formats.parquet": (
        "read_parquet",
        "write_parquet",
    ),
    "formats.promptfoo": ("read_promptfoo",),
    "formats.routellm": ("read_routellm",),
    "formats.routerarena": ("read_routerarena",),
    "formats.routerbench": ("read_routerbench",),
    "formats.routerdc": (
        "TrainTest",
        "read_routerdc",
        "read_routerdc_parts",
    ),
    "formats.routereval": (
        "read_routereval",
        "read_routereval_embeddings",
    ),
    "formats.score_matrix": (
        "ScoredTable",
        "read_score_matrix",
    ),
    "formats.table_npz": (
        "read_table",
        "save_table",
    ),
    "formats.wide_csv": ("read_wide_csv",),
    "guessing": ("guess",),
    "labels": ("LabelRule",),
    "loading": (
        "load",
        "save",
    ),
    "splits": (
        "Split",
        "paper_split",
        "split",
    ),
    "summary": (
        "Summary",
        "summarize",
    ),
    "synthetic": (
        "SimulatedBenchmark",
        "simulated_pool",
    ),
    "table": ("RoutingTable",),
    "pools": ("unite",),
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)

__all__ = [
    "DataError",
    "LabelRule",
    "LmEvalOptions",
    "RoutingTable",
    "ScoredTable",
    "SimulatedBenchmark",
    "Split",
    "Summary",
    "TrainTest",
    "concat",
    "fetch",
    "guess",
    "load",
    "paper_split",
    "read_embedllm",
    "read_every_eval_ever",
    "read_helm",
    "read_inspect",
    "read_llmrouter",
    "read_llmrouterbench",
    "read_lm_eval",
    "read_long_csv",
    "read_parquet",
    "read_promptfoo",
    "read_routellm",
    "read_routerarena",
    "read_routerbench",
    "read_routerdc",
    "read_routerdc_parts",
    "read_routereval",
    "read_routereval_embeddings",
    "read_score_matrix",
    "read_table",
    "read_wide_csv",
    "save",
    "save_table",
    "simulated_pool",
    "split",
    "summarize",
    "unite",
    "write_long_csv",
    "write_parquet",
    "write_predictions",
    "write_routerarena",
]
