"""What to pass instead, said in Python's spelling or in the shell's.

One table holds the readers' options: keyword of a reader, option of the shell, kind of value.
Errors carry a `Remedy`; the code that prints the error chooses the spelling. What is typed in the
shell is turned into the value a reader takes by the same table, so that every remedy can be typed.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from racer_jax.data.rule_text import is_rule

Kind = Literal["text", "switch", "names", "pairs", "text or pairs", "number"]


class Option(NamedTuple):
    """An option of the readers.

    Use this when a reader has an option that the shell has too.

    Attributes:
      flag: Its name in the shell, without the `no-` of a switch.
      kind: What it takes: `text`, a `number`, a `switch` (off with `--no-...`), `names` separated
        by commas, `pairs` such as `a=b,c=d`, or `text or pairs`.
      help: What it does, for the help of a command.
    """

    flag: str
    kind: Kind
    help: str


OPTIONS: Mapping[str, Option] = MappingProxyType(
    {
        "format": Option(
            "--format",
            "text",
            "format of the files (default: guessed from the content)",
        ),
        "models": Option("--models", "names", "models to keep, in this order (default: all)"),
        "columns": Option(
            "--columns",
            "pairs",
            "columns of a table that have other names: query=prompt (default: no other names)",
        ),
        "delimiter": Option(
            "--delimiter",
            "text",
            "what separates the fields of a CSV: ',', ';' or tab (default: guessed)",
        ),
        "missing": Option(
            "--missing",
            "text",
            "queries that some model has no result for: error, drop (leave them out) or keep "
            "(default: error)",
        ),
        "label_rule": Option(
            "--label-rule",
            "text or pairs",
            "when a graded score counts as right, such as 'score > 0.5', or a rule for each "
            "benchmark (default: that of the format, else scores must be 0 or 1)",
        ),
        "metric": Option(
            "--metric",
            "text or pairs",
            "metric of the logs, or one for each task (default: the usual one of the format)",
        ),
        "filter": Option(
            "--filter",
            "text or pairs",
            "filter of lm-eval logs, or one for each task (default: the only one)",
        ),
        "tasks": Option("--tasks", "names", "patterns of the tasks to read (default: all)"),
        "groups": Option(
            "--groups",
            "pairs",
            "group of the tasks that fit a pattern: mmlu_*=mmlu (default: that of the logs)",
        ),
        "group": Option(
            "--benchmark", "text", "benchmark (group) of a single file (default: from its name)"
        ),
        "scorer": Option(
            "--scorer",
            "text",
            "scorer of Inspect logs, where there are several (default: the only one)",
        ),
        "attempt": Option(
            "--attempt",
            "number",
            "attempt to read, where each question has several (default: the only one)",
        ),
        "ignore": Option(
            "--ignore",
            "names",
            "assertions of promptfoo that say nothing about quality (default: those of cost and "
            "latency)",
        ),
        "num_fewshot": Option(
            "--num-fewshot",
            "number",
            "number of worked examples of the lm-eval runs to read (default: the only one)",
        ),
        "answers": Option(
            "--answers", "switch", "whether to read answers (default: yes, where there are any)"
        ),
        "check_results": Option(
            "--check-results",
            "switch",
            "whether to compare lm-eval logs with their reports (default: yes)",
        ),
        "whole_prompt": Option(
            "--whole-prompt",
            "switch",
            "whether the text is the whole prompt, examples included (default: no)",
        ),
        "part": Option("--part", "text", "part of a corpus: train, val or test (default: test)"),
        "pools": Option(
            "--pools",
            "text",
            "models of several files: match (they must be the same), intersect (keep those of all "
            "files), or unite (put files of other models side by side) (default: match)",
        ),
        "key": Option("--seed", "number", "seed of what is drawn at random"),
    }
)
# No value of an option in an advice is longer.
_LONGEST = 2000
_DELIMITERS = MappingProxyType({"tab": "\t", r"\t": "\t", "comma": ",", "semicolon": ";"})


@dataclass(frozen=True, init=False)
class Remedy:
    """A sentence with placeholders for its options.

    Use this when an error shall say what to pass, in Python or in the shell.

    Attributes:
      sentence: The sentence, `{}` where an option stands.
      options: Keyword and value of each option, in order; `...` for the name alone.

    >>> remedy = Remedy("pass {} if the log was shortened on purpose", check_results=False)
    >>> remedy.in_python()
    'pass check_results=False if the log was shortened on purpose'
    >>> remedy.in_shell()
    'pass --no-check-results if the log was shortened on purpose'
    """

    sentence: str
    options: tuple[tuple[str, Any], ...]

    def __init__(self, sentence: str, *options: tuple[str, Any], **more: Any) -> None:
        object.__setattr__(self, "sentence", sentence)
        object.__setattr__(self, "options", (*options, *more.items()))
        unknown = [name for name, _ in self.options if name not in OPTIONS and name != "path"]
        if unknown:
            raise ValueError(f"options must be among {tuple(OPTIONS)}, got {unknown[0]!r}")
        if sentence.count("{}") != len(self.options):
            raise ValueError(f"sentence must leave a place for each option, got {sentence!r}")

    def then(self, other: "Remedy") -> "Remedy":
        """Both remedies, one after the other. Use this when an error has two ways out."""
        return Remedy(f"{self.sentence}; {other.sentence}", *self.options, *other.options)

    def keeping(self, options: Mapping[str, Any]) -> "Remedy":
        """The same advice with the pairs that were passed already, which its own come on top of.

        Use this when an option may have been passed: passed again, it takes the place of the first.

        >>> remedy = Remedy("pass {}", columns={"correct": "ok"})
        >>> remedy.keeping({"columns": {"query": "q"}}).in_shell()
        'pass --columns query=q,correct=ok'
        """
        merged = [(name, _merged(name, options.get(name), value)) for name, value in self.options]
        return Remedy(self.sentence, *merged)

    def in_python(self) -> str:
        """The sentence with keyword arguments. Use this when the error is met in Python."""
        return self._filled(python_text)

    def in_shell(self) -> str:
        """The sentence with options of the command line.

        Use this when the error is met in the shell.
        """
        return self._filled(shell_text)

    def _filled(self, spelling: Callable[[str, Any], str]) -> str:
        texts = []
        for name, value in self.options:
            text = spelling(name, value)
            # Names in a damaged file may be as long as the file: then the option stands alone.
            is_readable = len(text) <= _LONGEST or name == "path"
            texts.append(text if is_readable else spelling(name, ...))
        # Not str.format: a sentence may name fields with braces of their own.
        first, *others = self.sentence.split("{}")
        return first + "".join(text + other for text, other in zip(texts, others, strict=True))


def _merged(option: str, before: Any, value: Any) -> Any:
    """Pairs on top of those before; a column that stands for another thing now is named once."""
    if not (isinstance(before, Mapping) and isinstance(value, Mapping)):
        return value
    renamed = set(value.values()) if option == "columns" else set()
    return {key: name for key, name in before.items() if name not in renamed} | dict(value)


def python_text(keyword: str, value: Any) -> str:
    """An option as Python spells it.

    Use this when a message names an option for a Python program.

    Args:
      keyword: The keyword; `path` for the files themselves.
      value: Its value; `...` for the name alone.

    Returns:
      The text, such as `missing='drop'`.
    """
    if value is ...:
        return f"{keyword}="
    if keyword == "path":
        return repr([str(path) for path in value])
    if keyword == "key":
        return f"key=jax.random.key({value})"
    return f"{keyword}={value!r}"


def shell_text(keyword: str, value: Any) -> str:
    r"""An option as the shell spells it, quoted where it must be.

    Use this when a message names an option for a shell.

    Args:
      keyword: The keyword of the reader; `path` for the files themselves.
      value: Its value; `...` for the name alone.

    Returns:
      The text, such as `--missing drop`; `option_value` reads it back.

    >>> shell_text("metric", {"ifeval": "prompt_level_strict_acc"})
    '--metric ifeval=prompt_level_strict_acc'
    >>> shell_text("delimiter", "\t"), shell_text("answers", False)
    ('--delimiter tab', '--no-answers')
    """
    if keyword == "path":
        return shlex.join(str(path) for path in value)
    option = OPTIONS[keyword]
    if value is ...:
        return option.flag
    if option.kind == "switch":
        return option.flag if value else f"--no-{option.flag.removeprefix('--')}"
    return f"{option.flag} {shlex.quote(_written(keyword, value))}"


def _written(keyword: str, value: Any) -> str:
    """A value as one word of the shell, before it is quoted."""
    if isinstance(value, Mapping):
        pairs = [(_escaped(key, ",="), _escaped(item, ",")) for key, item in value.items()]
        return ",".join(f"{key}={item}" for key, item in pairs)
    if OPTIONS[keyword].kind == "names" and not isinstance(value, str):
        return ",".join(_escaped(name, ",") for name in value)
    if keyword == "delimiter" and value == "\t":
        return "tab"
    return str(value)


def _escaped(text: str, special: str) -> str:
    for character in "\\" + special:
        text = text.replace(character, "\\" + character)
    return text


def option_value(keyword: str, text: str) -> Any:
    r"""What was typed in the shell, as the value the reader takes.

    Use this when a command hands its options to a reader.

    Args:
      keyword: The keyword of the reader, one of `OPTIONS` that is neither a switch nor `key`.
      text: What was typed. A comma or an equals sign that belongs to a name stands after a
        backslash.

    Returns:
      A string, an integer, a list of names, or a dictionary.

    Raises:
      ValueError: If pairs were expected and there are none, or a number and it is none; the message
        names the shell option.

    >>> option_value("columns", "query=prompt,correct=is_correct")
    {'query': 'prompt', 'correct': 'is_correct'}
    >>> option_value("label_rule", "score >= 0.5")
    'score >= 0.5'
    >>> option_value("label_rule", "gsm8k=score >= 0.5,mmlu=score > 0")
    {'gsm8k': 'score >= 0.5', 'mmlu': 'score > 0'}
    >>> option_value("models", r"org/a,b\,c")
    ['org/a', 'b,c']
    """
    option = OPTIONS[keyword]
    if option.kind == "number":
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            raise ValueError(f"{option.flag} must be a whole number, got {text[:60]!r}")
        return int(text)
    if keyword == "delimiter":
        return _DELIMITERS.get(text, text)
    if option.kind == "names":
        return _names(text)
    if option.kind == "text or pairs" and (is_rule(text) or "=" not in text):
        return text
    if option.kind == "text":
        return text
    pairs: dict[str, str] = {}
    for pair in _split(text, ","):
        key, *value = _split(pair, "=", 1)
        if not (key.strip() and value and value[0].strip()):
            raise ValueError(
                f"{option.flag} must be pairs such as {_example(keyword)}, got {pair[:60]!r}"
            )
        name = _plain(key.strip())
        if name in pairs:
            raise ValueError(f"{option.flag} must name each key once, got {name[:60]!r} twice")
        pairs[name] = _plain(value[0].strip())
    return pairs


def _example(keyword: str) -> str:
    examples = {
        "columns": "query=prompt,correct=is_correct",
        "groups": "mmlu_*=mmlu",
        "label_rule": "'gsm8k=score > 0.5,mmlu=score > 0'",
    }
    return examples.get(keyword, "task=name")


def _names(text: str) -> list[str]:
    return [_plain(name.strip()) for name in _split(text, ",") if name.strip()]


def _split(text: str, separator: str, most: int = -1) -> list[str]:
    """The parts between separators that no backslash stands before; their backslashes stay."""
    parts: list[str] = []
    start = i = 0
    while i < len(text):
        if text[i] == "\\":
            i += 1
        elif text[i] == separator and (most < 0 or len(parts) < most):
            parts.append(text[start:i])
            start = i + 1
        i += 1
    return [*parts, text[start:]]


def _plain(text: str) -> str:
    """A part with its backslashes taken away."""
    plain, i = [], 0
    while i < len(text):
        if text[i] == "\\" and i + 1 < len(text) and text[i + 1] in "\\,=":
            i += 1
        plain.append(text[i])
        i += 1
    return "".join(plain)
