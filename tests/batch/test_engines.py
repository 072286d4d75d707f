"""The same rows on engines of their own: Ray Data, Spark, Hugging Face datasets and DuckDB."""

import os
import shutil

import pyarrow as pa
import pytest

from racer_jax.batch import RouteBatch
from tests.batch.test_columns import check

pytestmark = [pytest.mark.slow, pytest.mark.extra]


@pytest.fixture
def route(queries):
    return RouteBatch(str(queries.artefact), group="group", keep=["id"], rows=16)


def by_column(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow"])
def test_ray_data(queries, route, batch_format):
    ray = pytest.importorskip("ray")
    ray_data = pytest.importorskip("ray.data")

    def as_batch(columns):
        return pa.table(route(columns))

    paths = {"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}}
    ray.init(num_cpus=2, include_dashboard=False, runtime_env=paths, log_to_driver=False)
    try:
        table = pa.table(queries.columns)
        rows = ray_data.from_arrow(table).repartition(3)
        done = rows.map_batches(as_batch, batch_format=batch_format, batch_size=20).take_all()
    finally:
        ray.shutdown()
    check(queries, by_column(done))


@pytest.mark.filterwarnings("ignore")
def test_a_racer_itself_goes_to_the_workers_of_ray(queries):
    ray = pytest.importorskip("ray")
    paths = {"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}}
    ray.init(num_cpus=2, include_dashboard=False, runtime_env=paths, log_to_driver=False)
    texts, groups = queries.columns["text"], queries.columns["group"]

    @ray.remote
    def routed(racer, rows):
        decisions = racer.route(texts[rows], groups[rows])
        return os.getpid(), [(one.models, one.threshold, one.reason) for one in decisions]

    try:
        sent = ray.put(queries.racer)  # once, for all workers
        parts = [slice(0, 20), slice(20, 50)]
        pids, done = zip(*ray.get([routed.remote(sent, rows) for rows in parts]), strict=True)
        as_argument = ray.get(routed.remote(queries.racer, parts[0]))[1]
    finally:
        ray.shutdown()
    here = [(one.models, one.threshold, one.reason) for one in queries.racer.route(texts, groups)]
    assert done[0] + done[1] == here
    assert as_argument == here[:20]
    assert os.getpid() not in pids


@pytest.mark.filterwarnings("ignore")
def test_spark(queries, route, monkeypatch):
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("no Java")
    import sys

    import pandas as pd

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)

    def as_frames(frames):
        for frame in frames:
            yield pd.DataFrame(route(frame))

    spark = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = spark.getOrCreate()
    try:
        table = session.createDataFrame(pd.DataFrame(queries.columns)).repartition(3)
        schema = (
            "id string, models array<string>, reason string, threshold double, scores array<double>"
        )
        done = table.mapInPandas(as_frames, schema).toPandas()
    finally:
        session.stop()
    check(queries, done.to_dict("list"))


@pytest.mark.filterwarnings("ignore")
def test_hugging_face_datasets(queries, route, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict(queries.columns)
    done = rows.map(
        route,
        batched=True,
        batch_size=20,
        remove_columns=["text", "group", "correct"],
        cache_file_name=str(tmp_path / "routed.arrow"),
    )
    check(queries, done.to_dict())


def test_duckdb(queries, route, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    from pyarrow import parquet

    parquet.write_table(pa.table(queries.columns), tmp_path / "queries.parquet")
    with duckdb.connect() as connection:
        relation = connection.sql(f"select * from '{tmp_path / 'queries.parquet'}'")
        batches = relation.to_arrow_reader(20)
        done = pa.concat_tables(pa.table(route(batch)) for batch in batches)
        counted = connection.sql("select count(*) from done").fetchall()
    assert counted == [(50,)]
    check(queries, done.to_pydict())


def test_parquet_files_batch_by_batch(queries, route, tmp_path):
    from pyarrow import dataset, parquet

    table = pa.table(queries.columns)
    for i in range(3):
        parquet.write_table(table.slice(i * 20, 20), tmp_path / f"{i}.parquet")
    batches = dataset.dataset(tmp_path).to_batches(batch_size=8)
    done = pa.concat_tables(pa.table(route(batch)) for batch in batches)
    check(queries, done.to_pydict())
