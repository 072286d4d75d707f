"""The rows of one log of lm-evaluation-harness: who asked what, and the metric."""

import hashlib
import json
import math
from collections.abc import Iterator

from racer_jax.data.errors import DataError
from racer_jax.data.formats._batches import Batch, record_batches
from racer_jax.data.formats._cells import GRADED
from racer_jax.data.formats._json import shown, too_deep
from racer_jax.data.formats._lm_eval_runs import Log
from racer_jax.data.formats._records import Record

_NUMBERS = frozenset({float, int, bool})


def read_samples(log: Log) -> Iterator[Record]:
    """The rows of a log, with what every row must have."""
    for batch in record_batches(log.path):
        yield from map(checked_sample, batch.records)


def checked_sample(record: Record) -> Record:
    """A row that has what every row must have; the hash is made where there is none."""
    doc_id, digest, name = record.doc_id, record.doc_hash, record.filter
    if type(doc_id) is int and type(digest) is str and type(name) is str:
        return record
    where = record.where()
    if isinstance(doc_id, bool) or not isinstance(doc_id, int):
        raise DataError(f"must be a whole number, got {shown(doc_id)}", field="doc_id", **where)
    if digest is None:
        # The harness's own recipe, so that logs with and without hashes join.
        try:
            text = json.dumps(record["doc"], indent=2, ensure_ascii=False)
        except RecursionError:
            raise too_deep(**where) from None
        digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    for field, value in (("doc_hash", digest), ("filter", name)):
        if not isinstance(value, str):
            raise DataError(f"must be a text, got {shown(value)}", field=field, **where)
    record.doc_hash = digest
    return record


def metric_value(sample: Record, metric: str, graded: bool) -> float:
    """The metric of a row; NaN where the harness wrote NaN or null: nobody knows it."""
    value = sample[metric]
    if type(value) is float and value in (0.0, 1.0):
        return value
    if value is None and metric in sample:
        return math.nan
    try:
        number = float(value) if isinstance(value, int | float) else math.inf
    except OverflowError:
        number = math.inf
    if math.isinf(number) or not (graded or math.isnan(number) or number in (0, 1)):
        rule = "a number" if graded else "0 or 1"
        raise DataError(
            f"must be {rule}, got {shown(value)}",
            field=metric,
            remedy=None if graded or math.isinf(number) else GRADED,
            **sample.where(),
        )
    return number


def metric_column(batch: Batch, metric: str, graded: bool) -> list[float] | None:
    """The metric of many rows; None where one must be looked at by itself."""
    values = batch.column(metric, _NUMBERS)
    if values is None:
        return None
    if not graded:
        return values if set(values) <= {0.0, 1.0} else None
    try:
        return values if math.isfinite(math.fsum(values)) else None
    except OverflowError:
        return None
