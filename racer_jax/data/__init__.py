"""Data in: evaluation logs, benchmark files and spreadsheets as one validated `RoutingTable`."""

from racer_jax.data.errors import DataError
from racer_jax.data.formats.routerdc import TrainTest, read_routerdc, read_routerdc_parts
from racer_jax.data.labels import LabelRule
from racer_jax.data.synthetic import SimulatedBenchmark, simulated_pool
from racer_jax.data.table import RoutingTable

__all__ = [
    "DataError",
    "LabelRule",
    "RoutingTable",
    "SimulatedBenchmark",
    "TrainTest",
    "read_routerdc",
    "read_routerdc_parts",
    "simulated_pool",
]
