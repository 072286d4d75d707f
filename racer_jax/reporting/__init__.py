"""What results are written as: options of a run, text and Markdown tables, JSON, CSV and figures.

May use: `core`, `data`.
"""

from typing import TYPE_CHECKING

from racer_jax._lazy import attach

if TYPE_CHECKING:
    from racer_jax.reporting.files import (
        as_plain,
        environment,
        finish,
        markdown_table,
        parse_alphas,
        parse_config,
        text_table,
        write_csv,
        write_figure,
        write_json,
    )

_HOMES = {
    "files": (
        "as_plain",
        "environment",
        "finish",
        "markdown_table",
        "parse_alphas",
        "parse_config",
        "text_table",
        "write_csv",
        "write_figure",
        "write_json",
    ),
}
__getattr__, __dir__ = attach(__name__, _HOMES, globals())

__all__ = [
    "as_plain",
    "environment",
    "finish",
    "markdown_table",
    "parse_alphas",
    "parse_config",
    "text_table",
    "write_csv",
    "write_figure",
    "write_json",
]
