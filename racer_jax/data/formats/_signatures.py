"""What distinguishes formats: the first bytes of a file, the keys of its first record, a header.

Only the head of a file is read, so that guessing costs nothing where the file is large.
"""

import zipfile
from pathlib import Path

from racer_jax.data.formats import helm
from racer_jax.data.formats._folders import bare_name, walked
from racer_jax.data.formats._heads import head, head_keys
from racer_jax.data.formats._source import opened

# So many files of a folder are looked at, since others may stand among them.
_LOOKED_AT = 20
# Read as a folder, with how the names of the files in it end.
FOLDERS = (
    ("helm", helm.FILES[2]),
    ("every_eval_ever", "_samples.jsonl"),
    ("inspect", ".eval"),
    ("parquet", ".parquet"),
)
OF_FOLDERS = frozenset(
    {"helm", "every_eval_ever", "inspect", "parquet", "llmrouterbench", "routerarena"}
)


def of_bytes(path: Path) -> str | None:
    """The format of a file that is no text, None where it is text or unknown."""
    with opened(path) as file:
        start = file.read(4)
    if start == b"PAR1":
        return "parquet"
    if start[:2] != b"PK":
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, EOFError):
        return "inspect" if path.suffix == ".eval" else None
    is_inspect = path.suffix == ".eval" or names & {"header.json", "_journal/start.json"}
    return "inspect" if is_inspect else None


def of_folder(path: Path) -> str | None:
    """The format of a folder, None where it is one of the older ones or unknown."""
    files = walked(path, "")
    names = [bare_name(file) for file in files]
    for format_name, ending in FOLDERS:
        if any(name.endswith(ending) for name in names):
            return format_name
    for ending in (".json", ".jsonl"):
        ours = [file for file, name in zip(files, names, strict=True) if name.endswith(ending)]
        for file in ours[:_LOOKED_AT]:
            if (format_of_file := of_json(file)) in OF_FOLDERS:
                return format_of_file
    return None


def of_json(path: Path) -> str | None:
    """The format of JSON by the keys of its first record, None where they are of no format."""
    keys = head_keys(head(path))
    inner = keys.get("results", {})
    if {"eval", "status"} <= set(keys):
        return "inspect"
    if "evalId" in keys or {"version", "prompts"} <= set(inner):
        return "promptfoo"
    if {"evaluation_id", "sample_id", "evaluation"} <= set(keys):
        return "every_eval_ever"
    if {"instance_id", "stats"} <= set(keys):
        return "helm"
    # LLMRouter's records hold `model_name` and `performance` as well.
    if {"records", "performance"} <= set(keys):
        return "llmrouterbench"
    if {"global_index", "global index"} & set(keys) and {"llm_selected", "prediction"} & set(keys):
        return "routerarena"
    return None


def of_header(header: set[str]) -> str | None:
    """The format of a CSV by its columns, None where they are of none of the newer ones."""
    models = {"model_name", "model_id"} & header
    return "embedllm" if {"prompt_id", "prompt", "label"} <= header and models else None
