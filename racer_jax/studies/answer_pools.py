"""Pools of models whose answers are logged: RouterBench's ARC-Challenge and ZeroEval's GSM8K."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.loading import load
from racer_jax.data.table import RoutingTable

ROUTERBENCH, ZEROEVAL = "routerbench", "zeroeval/gsm8k.npz"
_GSM8K = {
    "small7": (
        "gemma-2-9b-it",
        "Meta-Llama-3.1-8B-Instruct",
        "Phi-3.5-mini-instruct",
        "Qwen2-7B-Instruct",
        "Meta-Llama-3-8B-Instruct",
        "Yi-1.5-9B-Chat",
        "Mistral-Nemo-Instruct-2407",
    ),
    "mid7": (
        "gemini-1.5-flash",
        "gpt-4o-mini-2024-07-18",
        "claude-3-haiku-20240307",
        "Meta-Llama-3.1-70B-Instruct",
        "Qwen2-72B-Instruct",
        "claude-3-5-haiku-20241022",
        "Meta-Llama-3-70B-Instruct",
    ),
    "api11": (
        "Meta-Llama-3.1-8B-Instruct",
        "gemma-2-9b-it",
        "gemini-1.5-flash",
        "gpt-4o-mini-2024-07-18",
        "claude-3-haiku-20240307",
        "Meta-Llama-3.1-70B-Instruct",
        "Qwen2-72B-Instruct",
        "gemini-1.5-pro",
        "Mistral-Large-2",
        "gpt-4o-2024-08-06",
        "claude-3-5-sonnet-20241022",
    ),
}


def read_zeroeval(path: str | Path) -> RoutingTable:
    """The answers of many models to one benchmark of ZeroEval, in one `.npz`.

    Use this when you have results of ZeroEval on disk.

    Args:
      path: A file with `models` `[m]`, `ids` and `questions` `[n]`, `answers` (codes, int `[n, m]`,
        equal within a question where the answers are; -1 for none) and `correct`, bool `[n, m]`.

    Returns:
      The table; its answers are the codes as text.

    Raises:
      DataError: If an array is missing.
    """
    with np.load(path, allow_pickle=False) as file:
        for name in ("models", "ids", "questions", "answers", "correct"):
            if name not in file.files:
                raise DataError(f"must hold the array {name!r}", path=Path(path))
        models, ids, texts, codes, correct = (
            file[name] for name in ("models", "ids", "questions", "answers", "correct")
        )
    # An answer of no code is none, and never right.
    answers = codes.astype(str).astype(object)
    answers[codes < 0] = None
    return RoutingTable(
        ids=ids.astype(str).tolist(),
        texts=texts.astype(str).tolist(),
        models=models.astype(str).tolist(),
        correct=correct & (codes >= 0),
        answers=answers,
    )


def _weakest(table: RoutingTable, num: int) -> RoutingTable:
    """The models with the fewest right answers, in the order of the table."""
    weak = sorted(np.argsort(table.correct.mean(axis=0), kind="stable")[:num].tolist())
    return table.select(models=[table.models[m] for m in weak])


def _without_gpt4(table: RoutingTable) -> RoutingTable:
    return table.select(models=[name for name in table.models if "gpt-4" not in name])


_ARC: Mapping[str, Callable[[RoutingTable], RoutingTable]] = {
    "arc all": lambda table: table,
    "arc without gpt-4": _without_gpt4,
    "arc weak7": lambda table: _weakest(table, 7),
}


def answer_pools(data: str | Path) -> dict[str, RoutingTable]:
    """The pools of a folder, or of a single table.

    Use this when a study of votes needs its pools.

    Args:
      data: A folder with `routerbench/` or `zeroeval/gsm8k.npz`, or anything that `load` reads,
        with answers.

    Returns:
      Tables by name of the pool; queries that lack a model's result are left out.

    Raises:
      DataError: If nothing can be read.
    """
    folder = Path(data)
    pools: dict[str, RoutingTable] = {}
    if (folder / ROUTERBENCH).is_dir():
        table = load(folder / ROUTERBENCH, missing="drop")
        pools |= {name: subset(table) for name, subset in _ARC.items()}
    if (folder / ZEROEVAL).is_file():
        table = read_zeroeval(folder / ZEROEVAL)
        pools |= {f"gsm8k {name}": table.select(models=m) for name, m in _GSM8K.items()}
    return pools or {folder.stem: load(folder).complete()}
