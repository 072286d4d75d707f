"""What results are written as: options of a run, text and Markdown tables, JSON, CSV and figures.

May use: `core`, `data`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from racer_jax.reporting.drawing import DrawingOptions
    from racer_jax.reporting.files import (
        as_plain,
        environment,
        finish,
        write_csv,
        write_figure,
        write_json,
    )
    from racer_jax.reporting.options import ParsedOptions, parse_config, parse_configs, with_flags
    from racer_jax.reporting.restoring import as_typed, read_results
    from racer_jax.reporting.tables import left_table, markdown_table, text_table

_HOMES = {
    "files": ("as_plain", "environment", "finish", "write_csv", "write_figure", "write_json"),
    "drawing": ("DrawingOptions",),
    "options": ("ParsedOptions", "parse_config", "parse_configs", "with_flags"),
    "restoring": ("as_typed", "read_results"),
    "tables": ("left_table", "markdown_table", "text_table"),
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)

__all__ = [
    "DrawingOptions",
    "ParsedOptions",
    "as_plain",
    "as_typed",
    "environment",
    "finish",
    "left_table",
    "markdown_table",
    "parse_config",
    "parse_configs",
    "read_results",
    "text_table",
    "with_flags",
    "write_csv",
    "write_figure",
    "write_json",
]
