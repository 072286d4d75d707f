"""Pretrained weights in and out.

`config.json` and `model.safetensors`, the format of the Hugging Face hub, no PyTorch.

The modules are named after the weights, so one rule translates them all: a `kernel` is a `weight`
with its axes reversed, an `embedding` or a `scale` is a `weight`.
"""

import fnmatch
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from safetensors import safe_open
from safetensors.numpy import save_file

from racer_jax._files import address_problem, written_whole
from racer_jax.encoders.bert import Bert
from racer_jax.encoders.deberta import Deberta
from racer_jax.encoders.kept_parts import CheckpointConfig, kept_config

Model: TypeAlias = Bert | Deberta

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# Weights that pretrained files carry and an encoder without heads has no use for.
IGNORED = (
    "pooler.*",
    "cls.*",
    "classifier.*",
    "qa_outputs.*",
    "lm_predictions.*",
    "mask_predictions.*",
    "*.position_ids",
)
_MODELS: dict[str, tuple[str, type[Model], str]] = {
    # model_type in config.json: configuration class in transformers, our class, prefix of models
    # saved with a head
    "bert": ("BertConfig", Bert, "bert."),
    "deberta-v2": ("DebertaV2Config", Deberta, "deberta."),
}
_LEGACY = {"gamma": "weight", "beta": "bias"}
_PARAMETERS = {"kernel": "weight", "embedding": "weight", "scale": "weight"}


def resolve(source: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The folder of a checkpoint: a local one as it is, a hub id as its downloaded snapshot.

    Without a network, or with `HF_HUB_OFFLINE=1`, a snapshot that was downloaded before is found in
    the hub's cache.

    Use this when a checkpoint is named by folder or hub id.

    Args:
      source: A folder, or a hub id `owner/name`.
      revision: Branch, tag or commit on the hub.

    Returns:
      The folder.

    Raises:
      FileNotFoundError: If it is neither a folder nor a model that the hub or its cache has.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if problem := address_problem(source):
        raise FileNotFoundError(f"{problem}, or a hub id such as owner/name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=patterns))
    except (HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError) as error:
        raise FileNotFoundError(
            f"source must be a folder, or a hub id that the hub or its cache has, got "
            f"{str(source)!r} ({error})"
        ) from error


def load_config(folder: str | os.PathLike[str]) -> CheckpointConfig:
    """The configuration of a checkpoint, as `transformers` reads it.

    Use this when only the sizes and options of a checkpoint are needed.

    Args:
      folder: Holds `config.json`.

    Returns:
      Its settings, with the defaults of `BertConfig` or `DebertaV2Config`.

    Raises:
      FileNotFoundError: If there is no `config.json`.
      ValueError: If it is not JSON, or names an architecture that is not here.
    """
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"no {CONFIG_FILE} in {folder}")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must hold JSON: {error}") from error
    model_type = fields.get("model_type") if isinstance(fields, dict) else None
    if model_type not in _MODELS:
        raise ValueError(f"{path}: model_type must be one of {sorted(_MODELS)}, got {model_type!r}")

    def read() -> dict[str, Any]:
        import transformers  # takes seconds to import, so only where nothing was kept

        config = getattr(transformers, _MODELS[model_type][0]).from_dict(fields)
        settings: dict[str, Any] = config.to_dict()
        return settings

    return kept_config(Path(folder), read)


def _weight_name(path: Iterable[Any]) -> str:
    *module, parameter = (str(part) for part in path)
    return ".".join([*module, _PARAMETERS.get(parameter, parameter)])


def _to_file_axes(path: tuple[Any, ...], array: Any) -> Any:
    """Reverses the axes of kernels, ours to theirs or theirs to ours."""
    return array.T if path[-1] == "kernel" else array


def _file_shape(path: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[::-1] if path[-1] == "kernel" else shape


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, one or its shards."""
    if (folder / INDEX_FILE).is_file():
        index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
        files = [folder / name for name in sorted(set(index["weight_map"].values()))]
    else:
        files = [folder / WEIGHTS_FILE]
    if absent := [file.name for file in files if not file.is_file()]:
        others = sorted(file.name for file in folder.glob("*.bin"))
        hint = (
            f"; {', '.join(others)} is a pickle, which is not read: save it as safetensors first"
            if others
            else ""
        )
        raise FileNotFoundError(f"no {', '.join(absent)} in {folder}{hint}")
    return files


class _Weights:
    """Names and shapes of a checkpoint's tensors, read one at a time.

    Names are those of a model without heads.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self._handles = [safe_open(file, framework="numpy") for file in _weight_files(folder)]
        names = {name: handle for handle in self._handles for name in handle.keys()}  # noqa: SIM118
        has_prefix = any(name.startswith(prefix) for name in names)
        self.origin: dict[str, tuple[Any, str]] = {}
        for name, handle in names.items():
            plain = name.removeprefix(prefix) if has_prefix else name
            *module, last = plain.split(".")
            # Old BERT files call the two vectors of a LayerNorm gamma and beta.
            if module and module[-1] == "LayerNorm":
                plain = ".".join([*module, _LEGACY.get(last, last)])
            self.origin[plain] = (handle, name)

    def shape(self, name: str) -> tuple[int, ...]:
        handle, key = self.origin[name]
        return tuple(handle.get_slice(key).get_shape())

    def read(self, name: str) -> np.ndarray:
        handle, key = self.origin[name]
        return np.asarray(handle.get_tensor(key))


def _listed(names: Iterable[str]) -> str:
    return "".join(f"\n  {name}" for name in names)


def load_weights(
    model: Model, folder: str | os.PathLike[str], ignore: Iterable[str] = IGNORED
) -> Model:
    """A copy of the model with the weights of a checkpoint.

    Use this when the structure of a model is there and its weights are in a folder.

    Args:
      model: Gives structure, dtypes and shapes; may be abstract (`nnx.eval_shape`).
      folder: Holds `model.safetensors`, or its shards and their index.
      ignore: Patterns of weights in the file that may go unused.

    Returns:
      The loaded model, its parameters on the default device.

    Raises:
      FileNotFoundError: If a file is absent.
      ValueError: If weights are missing or left over, or a shape is another; the message lists
        every one.
    """
    prefix = next(prefix for _, kind, prefix in _MODELS.values() if isinstance(model, kind))
    weights = _Weights(Path(folder), prefix)
    graph, state = nnx.split(model)
    flat = {path: variable for path, variable in nnx.to_flat_state(state)}
    names = {path: _weight_name(path) for path in flat}
    missing = sorted(name for name in names.values() if name not in weights.origin)
    surplus = sorted(
        name
        for name in set(weights.origin) - set(names.values())
        if not any(fnmatch.fnmatch(name, pattern) for pattern in ignore)
    )
    wrong = [
        f"{names[path]}: model {shape}, file {weights.shape(names[path])}"
        for path, variable in flat.items()
        if names[path] in weights.origin
        and weights.shape(names[path]) != (shape := _file_shape(path, variable.get_value().shape))
    ]
    problems = [
        f"{len(names)} {what}:{_listed(names)}"
        for names, what in ((missing, "missing"), (surplus, "surplus"), (wrong, "of another shape"))
        if names
    ]
    if problems:
        raise ValueError(f"the weights in {folder} do not fit the model; " + "\n".join(problems))

    def loaded(path: tuple[Any, ...], variable: Any) -> Any:
        array = np.ascontiguousarray(_to_file_axes(path, weights.read(names[path])))
        return variable.replace(jnp.asarray(array, dtype=variable.get_value().dtype))

    values = [(path, loaded(path, variable)) for path, variable in flat.items()]
    return nnx.merge(graph, nnx.from_flat_state(values))


def load_model(
    source: str | os.PathLike[str],
    *,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    remat: bool = False,
    revision: str | None = None,
    ignore: Iterable[str] = IGNORED,
) -> Model:
    """A pretrained encoder.

    Use this when you need a pretrained model; `TextEncoder.from_pretrained` adds the tokenizer.

    Args:
      source: A folder, or a hub id `owner/name`.
      dtype: Compute dtype, float32 or bfloat16; products accumulate in float32 in both.
      param_dtype: Dtype the parameters are kept in.
      remat: Whether the backward pass recomputes the layers' inner values instead of keeping them.
      revision: Branch, tag or commit on the hub.
      ignore: Patterns of weights in the file that may go unused.

    Returns:
      The model its `config.json` names.

    Raises:
      FileNotFoundError: If the source or one of its files is absent.
      ValueError: If the architecture is unknown, or weights are missing, left over or of another
        shape.
    """
    folder = resolve(source, revision)
    return load_weights(
        abstract_model(load_config(folder), dtype=dtype, param_dtype=param_dtype, remat=remat),
        folder,
        ignore,
    )


def abstract_model(config: Any, **options: Any) -> Model:
    """The structure of a configuration's model, with shapes in the place of weights.

    Costs neither time nor memory.

    Use this when weights are about to be loaded and none shall be allocated before.
    """
    kind = _MODELS[config.model_type][1]
    return nnx.eval_shape(lambda: kind(config, rngs=nnx.Rngs(0), **options))


def new_model(key: jax.Array, config: Any, **options: Any) -> Model:
    """A model of a configuration with random weights; options are those of `Bert` and `Deberta`.

    Use this when you train an encoder from nothing, or test one.
    """
    kind = _MODELS[config.model_type][1]
    return kind(config, rngs=nnx.Rngs(key), **options)


def _shards(tensors: Mapping[str, np.ndarray], max_bytes: int) -> list[dict[str, np.ndarray]]:
    shards: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for name, array in tensors.items():
        if shards[-1] and size + array.nbytes > max_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = array
        size += array.nbytes
    return shards


def save_model(
    model: Model, folder: str | os.PathLike[str], max_shard_bytes: int = 5_000_000_000
) -> None:
    """Writes `config.json` and `model.safetensors`, which `load_model` and `transformers` read.

    Use this when a trained encoder shall be read by this package or by `transformers`.

    Args:
      model: A `Bert` or `Deberta`.
      folder: Made if absent; files of these names are replaced.
      max_shard_bytes: Larger models are cut into shards of at most this size, with an index.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        _weight_name(path): np.ascontiguousarray(
            _to_file_axes(path, np.asarray(variable.get_value()))
        )
        for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param))
    }
    shards = _shards(dict(sorted(tensors.items())), max_shard_bytes)
    metadata = {"format": "pt"}  # transformers refuses files without it

    if len(shards) == 1:
        with written_whole(folder / WEIGHTS_FILE) as path:
            save_file(shards[0], path, metadata)
        (folder / INDEX_FILE).unlink(missing_ok=True)
    else:
        names = [
            f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)
        ]
        for name, shard in zip(names, shards, strict=True):
            with written_whole(folder / name) as path:
                save_file(shard, path, metadata)
        index = {
            "metadata": {"total_size": sum(array.nbytes for array in tensors.values())},
            "weight_map": {
                key: name for name, shard in zip(names, shards, strict=True) for key in shard
            },
        }
        _write_json(folder / INDEX_FILE, index)
        (folder / WEIGHTS_FILE).unlink(missing_ok=True)
    _write_json(folder / CONFIG_FILE, model.config.to_dict())


def _write_json(path: Path, value: Any) -> None:
    with written_whole(path) as file:
        file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
