"""Normal forms: from what a model wrote to the answer that is compared, or None for none."""

import json
import re
from collections.abc import Callable, Mapping

from racer_jax.data.answers import answer_pattern, last_number, letter, text

NormalForm = Callable[[str], str | None]
FORMS: Mapping[str, NormalForm] = {"text": text, "letter": letter, "number": last_number}
_JSON, _REGEX = "json:", "regex:"
# In the place of a group: every group that is not named.
OTHERS = "*"
# The end of a response that a pattern is looked for in.
_LONGEST = 20_000


class UnknownFormError(ValueError):
    """A normal form that has no name here. Use this when you catch a normal form without a name."""


def json_field(response: str, field: str) -> str | None:
    """A field of a response that is a JSON object.

    Its text, or JSON in one spelling for what is no text.

    Use this when answers are objects of JSON.

    Args:
      response: The response.
      field: Name of the field.

    Returns:
      The value; None where the response is no such object, or the value is null or empty.

    >>> json_field('{"answer": [1, 2]}', "answer"), json_field("I cannot say.", "answer")
    ('[1, 2]', None)
    """
    try:
        value = json.loads(response)[field]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if value is None:
        return None
    if isinstance(value, str):
        return value.strip() or None
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def last_match(response: str, pattern: re.Pattern[str]) -> str | None:
    r"""The last place of a response that a pattern fits: its first group, else all of it.

    Use this when answers are parts of longer texts.

    Args:
      response: The response.
      pattern: The pattern; what its first group holds is the answer, where it has one.

    Returns:
      The text without white space around it; None where nothing fits, or what fits is empty.

    >>> last_match("Is it A? The answer is (B).", re.compile(r"answer is \(?([A-E])"))
    'B'
    """
    matches = list(pattern.finditer(response[-_LONGEST:]))
    if not matches:
        return None
    return (matches[-1][1 if pattern.groups else 0] or "").strip() or None


def normal_form(name: str, forms: Mapping[str, NormalForm] | None = None) -> NormalForm:
    """A normal form by name.

    Use this when you bring logged answers into the form that a cascade compares; `tell` does it by
    itself.

    Args:
      name: `text` (the response without white space around it), `letter` (a lone letter A to E),
        `number` (the last number), `json:FIELD` (a field of a JSON object), `regex:PATTERN` (see
        `last_match`), or one of `forms`.
      forms: The caller's own, by name.

    Returns:
      A function from a response to its normal form, None where the response holds no answer.

    Raises:
      UnknownFormError: If there is none of this name.

    >>> normal_form("number")("It is 1,018.50."), normal_form("json:choice")('{"choice": "B"}')
    ('1018.5', 'B')
    """
    if forms is not None and name in forms:
        return forms[name]
    if name in FORMS:
        return FORMS[name]
    if not isinstance(name, str):
        raise UnknownFormError(f"a normal form must be named by a string, got {name!r}")
    if name.startswith(_JSON) and len(name) > len(_JSON):
        field = name[len(_JSON) :]
        return lambda response: json_field(response, field)
    if name.startswith(_REGEX) and len(name) > len(_REGEX):
        pattern = answer_pattern(name[len(_REGEX) :])
        if pattern is None:
            raise UnknownFormError(
                f"the normal form {name!r} must be a pattern that takes linear time: characters, "
                "classes and anchors in a row, one group at most, + and * at the end alone"
            )
        return lambda response: last_match(response, pattern)
    raise UnknownFormError(
        f"the normal form {name!r} is not known: it must be one of {tuple(FORMS)}, json:FIELD, "
        "regex:PATTERN, or a function of your own given as forms={name: function}"
    )


def forms_by_group(name: str) -> Mapping[str, str]:
    """The name of the normal form of each group.

    Use this when the answers of the groups of an artefact are of different kinds.

    Args:
      name: The name of one form for all groups; or `GROUP=FORM,GROUP=FORM`, with `*` for all
        groups that are not named. A pattern in such a list must hold no comma.

    Returns:
      Names by group, each of them checked; `*` alone for one form for all.

    Raises:
      UnknownFormError: If one is not known, or a group is named twice.

    >>> forms_by_group("letter"), forms_by_group("math=number,*=letter")
    ({'*': 'letter'}, {'math': 'number', '*': 'letter'})
    """
    single = "=" not in name or name.startswith((_JSON, _REGEX))
    names: dict[str, str] = {}
    for entry in (f"{OTHERS}={name}",) if single else name.split(","):
        group, _, form = entry.strip().partition("=")
        if group in names:
            raise UnknownFormError(f"{name!r} must name each group once, got {group!r} twice")
        normal_form(form)
        names[group] = form
    return names
