"""Values for the variables of a prompt: checked by type and limits, with defaults for those that are not given."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import Json
from pagoda.logic.prompts.prompt import Prompt, Variable

_EMPTY: Mapping[str, Json] = {"string": "", "list": []}
_NAMES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "list": "a list",
}


def fill_in(prompt: Prompt, given: Mapping[str, Json], language: str) -> dict[str, Json]:
    """A value for every variable, defaults in the language. Raises ``InvalidRequest`` that names the variable."""
    variables = {variable.name: variable for variable in prompt.variables}
    for name in given:
        if name not in variables:
            raise _unknown(prompt, name, list(variables))
    values: dict[str, Json] = {}
    for variable in prompt.variables:
        if variable.name in given:
            values[variable.name] = _checked(variable, given[variable.name], prompt.name)
        elif variable.required:
            raise _wrong(
                variable.name, f"The prompt {prompt.name} needs the variable {variable.name!r}{_told(variable)}."
            )
        else:
            values[variable.name] = default_of(variable, language)
    return values


def default_of(variable: Variable, language: str) -> Json:
    """What stands where nothing was given."""
    default = variable.defaults.get(language, variable.default)
    return _EMPTY.get(variable.type) if default is None else default


def check_default(variable: Variable, languages: Collection[str]) -> None:
    """Refuse defaults and choices that their own variable would refuse. Raises ``InvalidRequest``."""
    for choice in variable.choices:
        if not _is(variable.type if variable.type != "list" else "string", choice):
            raise _wrong(variable.name, f"The choice {choice!r} of {variable.name!r} is not {_NAMES[variable.type]}.")
    if variable.defaults and set(variable.defaults) != set(languages):
        raise _wrong(variable.name, f"The default of {variable.name!r} must have a value for {', '.join(languages)}.")
    for default in (variable.default, *variable.defaults.values()):
        if default is not None:
            _checked(variable, default, "itself")


def check_examples(prompt: Prompt) -> None:
    """Refuse examples that their own prompt could not show. Raises ``InvalidRequest``."""
    few = prompt.techniques.few_shot
    if few is None:
        return
    variables = {variable.name: variable for variable in prompt.variables}
    for number, example in enumerate(few.examples, 1):
        for name, value in example.values.items():
            if name not in variables:
                raise _unknown(prompt, name, list(variables), f"Example {number}: ")
            _checked(variables[name], value, prompt.name)
        if example.language is not None and example.language not in prompt.languages:
            raise InvalidRequest(f"Example {number} is in {example.language}, which {prompt.name} does not speak.")
        for tag, variant in prompt.languages.items():
            lacking = sorted(
                name
                for name in variant.example.names
                if name not in example.values and name in variables and variables[name].required
            )
            if lacking and example.language in (None, tag):
                raise InvalidRequest(f"Example {number} of {prompt.name} lacks the variable {lacking[0]!r}.")
    if few.choose != "fixed" and compared(prompt) is None:
        raise InvalidRequest(
            f"{prompt.name} chooses examples by a text; name a string variable in techniques.few-shot.by."
        )


def compared(prompt: Prompt) -> str | None:
    """The variable whose texts say how near an example is to the question."""
    few = prompt.techniques.few_shot
    texts = [variable.name for variable in prompt.variables if variable.type == "string"]
    if few is None or few.by is None:
        return texts[0] if texts else None
    return few.by if few.by in texts else None


def value_from(variable: Variable, text: str) -> Json:
    """A value that was written on a command line or in a table of text. Raises ``InvalidRequest``."""
    word = text.strip().lower()
    try:
        match variable.type:
            case "integer":
                return int(word)
            case "number":
                return float(word)
            case "boolean" if word in ("true", "yes", "1", "false", "no", "0"):
                return word in ("true", "yes", "1")
            case "list":
                return [item.strip() for item in text.split(",") if item.strip()]
            case "string":
                return text
    except ValueError:
        pass  # said below, together with what is no truth value
    raise _wrong(variable.name, f"{variable.name!r} must be {_NAMES[variable.type]}, not {text[:60]!r}.")


def _checked(variable: Variable, value: Json, owner: str) -> Json:
    name = variable.name
    if variable.type == "list" and isinstance(value, tuple):
        value = list(value)
    if not _is(variable.type, value):
        kind = "null" if value is None else type(value).__name__
        raise _wrong(name, f"The variable {name!r} of {owner} must be {_NAMES[variable.type]}, not {kind}.")
    if variable.choices:
        for item in value if variable.type == "list" else [value]:
            if item not in variable.choices:
                allowed = ", ".join(map(str, variable.choices[:20]))
                raise _wrong(name, f"The variable {name!r} of {owner} is {str(item)[:60]!r}; it may be {allowed}.")
    if variable.max_length is not None and len(value) > variable.max_length:
        unit = "items" if variable.type == "list" else "characters"
        if not (variable.trim and variable.type == "string"):
            raise _wrong(
                name, f"The variable {name!r} of {owner} has {len(value)} {unit}; {variable.max_length} may be."
            )
        value = cut(value, variable.max_length, variable.trim)
    if variable.minimum is not None and value < variable.minimum:
        raise _wrong(name, f"The variable {name!r} of {owner} is {value}; it must be at least {variable.minimum:g}.")
    if variable.maximum is not None and value > variable.maximum:
        raise _wrong(name, f"The variable {name!r} of {owner} is {value}; it must be at most {variable.maximum:g}.")
    return value


def cut(text: str, length: int, trim: str) -> str:
    """A text without its start, middle or end, so that ``length`` characters are left, the ellipsis among them."""
    if len(text) <= length:
        return text
    if length <= 1:
        return "…"[:length]
    keep = length - 1
    if trim == "start":
        return "…" + text[len(text) - keep :]
    if trim == "middle":
        head = (keep + 1) // 2
        return text[:head] + "…" + text[len(text) - (keep - head) :]
    return text[:keep] + "…"


def _is(kind: str, value: Json) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, list) and all(isinstance(item, str | int | float) for item in value)


def _told(variable: Variable) -> str:
    return f" ({variable.description.rstrip('.')})" if variable.description else ""


def _unknown(prompt: Prompt, name: str, known: list[str], before: str = "") -> InvalidRequest:
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(known) or 'none'}."
    return _wrong(name, f"{before}{prompt.name} has no variable {name[:60]!r}; {hint}")


def _wrong(name: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, param=name[:100])
