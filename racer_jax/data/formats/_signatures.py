"""What distinguishes formats: the first bytes of a file, the keys of its first record, a header.

Only the head of a file is read, so that guessing costs nothing where the file is large.
"""

import re
import zipfile
from json.decoder import scanstring  # type: ignore[attr-defined]
from pathlib import Path

from racer_jax.data.formats import helm
from racer_jax.data.formats._folders import walked
from racer_jax.data.formats._source import opened

HEAD = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r"[^,}\]]*")
_MARKS = re.compile(r'["\[\]{}]')
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
    for name, ending in FOLDERS:
        if walked(path, ending):
            return name
    for ending in (".json", ".jsonl"):
        first = next(iter(walked(path, ending)), None)
        format_name = None if first is None else of_json(first)
        if format_name in OF_FOLDERS:
            return format_name
    return None


def head(path: Path) -> str:
    """The head of a file as text, plain or compressed."""
    with opened(path) as file:
        return file.read(HEAD).decode("utf-8-sig", errors="replace")


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


def head_keys(text: str) -> dict[str, dict[str, object]]:
    """The keys of the first object of a text that may be cut short, each with those of its value.

    Args:
      text: The head of JSON, of a JSON list or of JSON lines.

    Returns:
      Key -> keys of its value, empty where that is no object. What follows a fault is left out.

    >>> head_keys('[{"results": {"version": 3, "prompts": ["a')
    {'results': {'version': {}, 'prompts': {}}}
    """
    start = _SPACE.match(text)
    at = start.end() if start else 0
    if text[at : at + 1] == "[":
        at = _after(_SPACE, text, at + 1)
    return _keys(text, at, 2)[0]


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _keys(text: str, at: int, levels: int) -> tuple[dict[str, dict[str, object]], int | None]:
    """The keys of the object at a place, and where it ends; None where it is cut short."""
    keys: dict[str, dict[str, object]] = {}
    if text[at : at + 1] != "{":
        return keys, None
    at += 1
    while True:
        at = _after(_SPACE, text, at)
        if text[at : at + 1] == "}":
            return keys, at + 1
        try:
            name, at = scanstring(text, at + 1, False) if text[at : at + 1] == '"' else ("", -1)
        except ValueError:
            return keys, None
        if at < 0:
            return keys, None
        at = _after(_SPACE, text, at)
        if text[at : at + 1] != ":":
            return keys, None
        keys[name] = {}
        at = _after(_SPACE, text, at + 1)
        end: int | None
        if text[at : at + 1] == "{" and levels > 1:
            inner, end = _keys(text, at, levels - 1)
            keys[name] = dict(inner)
        else:
            end = _skipped(text, at)
        if end is None:
            return keys, None
        at = _after(_SPACE, text, end)
        if text[at : at + 1] == ",":
            at += 1


def _skipped(text: str, at: int) -> int | None:
    """Where the value at a place ends; None where it is cut short."""
    depth = 0
    if text[at : at + 1] not in ('"', "{", "["):
        end = _after(_PLAIN, text, at)
        return end if end < len(text) else None
    while True:
        match = _MARKS.search(text, at)
        if match is None:
            return None
        at = match.end()
        if match[0] == '"':
            try:
                _, at = scanstring(text, at, False)
            except ValueError:
                return None
        else:
            depth += 1 if match[0] in "[{" else -1
        if depth <= 0:
            return at
