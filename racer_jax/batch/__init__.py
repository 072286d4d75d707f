"""Many queries on an engine that exists: columns in, columns out; thresholds of sharded scores.

`RouteBatch` and `ScoreBatch` are functions of a batch of columns that pickle as the path of an
artefact: what runs them (Ray Data, Spark, Hugging Face datasets, DuckDB, a loop over Parquet) cuts
the rows into batches and spreads them, and JAX is imported in the worker. May use: `core`,
`encoders`, `racer`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from racer_jax.batch.columns import RouteBatch, ScoreBatch
    from racer_jax.batch.sharded import (
        Bucket,
        bucket_of_threshold,
        count_buckets,
        count_within,
        threshold_in_bucket,
        threshold_of_shards,
    )

_HOMES = {
    "columns": ("RouteBatch", "ScoreBatch"),
    "sharded": (
        "Bucket",
        "bucket_of_threshold",
        "count_buckets",
        "count_within",
        "threshold_in_bucket",
        "threshold_of_shards",
    ),
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)

__all__ = [
    "Bucket",
    "RouteBatch",
    "ScoreBatch",
    "bucket_of_threshold",
    "count_buckets",
    "count_within",
    "threshold_in_bucket",
    "threshold_of_shards",
]
