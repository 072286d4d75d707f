"""Normal forms: from what a model wrote to the answer that is compared, or None for none."""

import json
from collections.abc import Callable, Mapping

from racer_jax.data.answers import last_number, letter, text

NormalForm = Callable[[str], str | None]
FORMS: Mapping[str, NormalForm] = {"text": text, "letter": letter, "number": last_number}
_JSON = "json:"


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


def normal_form(name: str, forms: Mapping[str, NormalForm] | None = None) -> NormalForm:
    """A normal form by name.

    Use this when you bring logged answers into the form that a cascade compares; `tell` does it by
    itself.

    Args:
      name: `text` (the response without white space around it), `letter` (a lone letter A to E),
        `number` (the last number), `json:FIELD` (a field of a JSON object), or one of `forms`.
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
    raise UnknownFormError(
        f"the normal form {name!r} is not known: it must be one of {tuple(FORMS)}, json:FIELD, or "
        "a function of your own given as forms={name: function}"
    )
