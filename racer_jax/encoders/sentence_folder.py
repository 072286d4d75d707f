"""What a sentence-transformers folder says of itself: tokens read, pooling, scaling.

Such a folder lists its steps in `modules.json`: a transformer, whose `sentence_bert_config.json`
says how many tokens of a text are read, a pooling, and perhaps a scaling to length 1. An embedding
is only that of the model where all of them are kept.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

MODULES_FILE = "modules.json"
LENGTH_FILE = "sentence_bert_config.json"
PROMPT_FILE = "config_sentence_transformers.json"
# The poolings of `racer_jax.encoders.text` by their names there, old and new.
_OLD_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_POOLINGS = {"mean": "mean", "cls": "cls"}


class SentenceSettings(NamedTuple):
    """How a folder says that its embeddings are made.

    Use this when you read the result of `sentence_settings`.

    Attributes:
      transformer: The folder with the weights and the tokenizer.
      options: Options of `TextEncoder` that it settles.
    """

    transformer: Path
    options: dict[str, Any]


def sentence_settings(folder: Path) -> SentenceSettings:
    """What a folder says of itself; a plain checkpoint settles nothing.

    Args:
      folder: A folder of a checkpoint.

    Raises:
      ValueError: If a file is not what it should be, or names a step that is not known here.

    Use this when a folder may come from sentence-transformers; `TextEncoder.from_pretrained` does.
    """
    if not (folder / MODULES_FILE).is_file():
        return SentenceSettings(folder, _length(folder))
    steps = _json(folder / MODULES_FILE, list)
    kinds = [_kind(step, folder / MODULES_FILE) for step in steps]
    expected = [["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]]
    if kinds not in expected:
        raise ValueError(
            f"{folder / MODULES_FILE}: the steps must be a Transformer, a Pooling and perhaps a "
            f"Normalize, got {', '.join(kinds)}: what another step does to the embeddings is not "
            f"known here"
        )
    transformer = folder / str(steps[0].get("path", ""))
    options: dict[str, Any] = {
        "pooling": _pooling(folder / str(steps[1].get("path", "")) / "config.json"),
        "normalize": len(steps) == 3,
    }
    _check_prompt(folder / PROMPT_FILE)
    return SentenceSettings(transformer, options | _length(transformer))


def _json(path: Path, kind: type) -> Any:
    """The JSON of a file, of the kind that is expected."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must hold JSON: {error}") from error
    except OSError as error:
        raise FileNotFoundError(f"no {path.name} in {path.parent}") from error
    if not isinstance(value, kind):
        raise ValueError(f"{path} must hold a {kind.__name__}, got {type(value).__name__}")
    return value


def _kind(step: Any, path: Path) -> str:
    """The last word of a step's type: versions differ in the module it stands in."""
    kind = step.get("type") if isinstance(step, dict) else None
    if not isinstance(kind, str):
        raise ValueError(f"{path}: each step must have a type, got {step!r}")
    return kind.rsplit(".", 1)[-1]


def _length(folder: Path) -> dict[str, Any]:
    """Tokens read of a text, and whether it is put in lower case first."""
    path = folder / LENGTH_FILE
    if not path.is_file():
        return {}
    fields = _json(path, dict)
    length, options = fields.get("max_seq_length"), {}
    if length is not None:
        if isinstance(length, bool) or not isinstance(length, int) or length < 3:
            raise ValueError(f"{path}: max_seq_length must be an integer from 3 on, got {length!r}")
        options["max_length"] = length
    if fields.get("do_lower_case"):
        options["lower_case"] = True
    return options


def _pooling(path: Path) -> str:
    """The pooling of a folder's configuration, by its new or its old names."""
    fields = _json(path, dict)
    if "pooling_mode" in fields:
        mode = fields["pooling_mode"]
        modes = [mode] if isinstance(mode, str) else list(mode)
        poolings = [_POOLINGS.get(name, name) for name in modes]
    else:
        chosen = [name for name in fields if name.startswith("pooling_mode_") and fields[name]]
        poolings = [_OLD_POOLINGS.get(name, name.removeprefix("pooling_mode_")) for name in chosen]
    if poolings not in (["mean"], ["cls"]):
        raise ValueError(
            f"{path}: the pooling must be 'mean' or 'cls', got {', '.join(poolings) or 'none'}"
        )
    return str(poolings[0])


def _check_prompt(path: Path) -> None:
    """Refuses a folder whose texts begin with a prompt: embeddings without it are other ones."""
    if not path.is_file():
        return
    fields = _json(path, dict)
    name = fields.get("default_prompt_name")
    prompt = (fields.get("prompts") or {}).get(name) if name is not None else None
    if prompt:
        raise ValueError(
            f"{path}: every text is to begin with the prompt {prompt!r}, which is not added here: "
            f"put it before the texts, and set default_prompt_name to null in a copy of the folder"
        )
