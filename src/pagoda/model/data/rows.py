"""A row of training data: one of five forms, or refused with the reason. Not how files are read, nor its tokens.

::

    chat            messages: [{role, content}, ...]           (ShareGPT's conversations: [{from, value}] too)
    completion      prompt, completion                         both text (Alpaca's instruction, input, output too)
    preference      chosen, rejected, and perhaps prompt       text, or lists of messages
    classification  text, label
    text            text
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from pagoda.core.errors import InvalidRequest

Form: TypeAlias = Literal["chat", "completion", "preference", "classification", "text"]
FORMS: tuple[Form, ...] = get_args(Form)

_COLUMNS: Mapping[Form, tuple[str, ...]] = {
    "chat": ("messages",),
    "completion": ("prompt", "completion"),
    "preference": ("chosen", "rejected"),
    "classification": ("text", "label"),
    "text": ("text",),
}
_ROLES = ("system", "user", "assistant", "tool")
_SHAREGPT = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}


@dataclass(frozen=True, slots=True)
class Row:
    """A row in its form. ``number`` counts the rows of its file from 1."""

    number: int
    form: Form
    content: Mapping[str, Any]
    """The columns of the form, and whatever else the file has."""
    source: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """All text of the row, part by part."""
        return tuple(text for name in self._parts for text in _texts(self.content.get(name)))

    @property
    def text(self) -> str:
        """All text of the row in one piece."""
        return "\n".join(self.texts)

    @property
    def label(self) -> str | None:
        """The class, of a row that has one."""
        return str(self.content["label"]) if self.form == "classification" else None

    @property
    def _parts(self) -> tuple[str, ...]:
        own = tuple(name for name in _COLUMNS[self.form] if name != "label")
        return ("prompt", *own) if self.form == "preference" and "prompt" in self.content else own

    def with_content(self, **content: Any) -> Row:
        """The row with some columns replaced."""
        return replace(self, content={**self.content, **content})


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that cannot be used: ``reason`` is a word for programs, ``why`` a sentence's part for people."""

    number: int
    reason: str
    why: str
    content: Any = None
    source: str = ""


def row_from(
    record: Mapping[str, Any], number: int, *, form: Form | None = None, columns: Mapping[str, str] | None = None
) -> Row | Refused:
    """A row of a record; ``columns`` says under which names the columns of the form stand in it.

    With a ``form`` a record of another one is refused.
    """
    content = _in_our_words(_renamed(record, columns or {}))
    found = _form_of(content)
    if form is not None and not _has(content, form):
        lacking = next(name for name in _COLUMNS[form] if content.get(name) is None)
        what = f"it looks like {found}" if found else f"it has the columns {', '.join(map(str, record)) or 'none'}"
        return Refused(number, "form", f"it has no {lacking}, which the form {form} needs; {what}", record)
    if (chosen := form or found) is None:
        names = ", ".join(map(str, record)) or "none"
        return Refused(number, "form", f"its columns ({names}) fit no form ({', '.join(FORMS)})", record)
    row = Row(number, chosen, content)
    if fault := _type_fault(row):
        return Refused(number, "type", fault, record)
    if row.label is not None and not row.label.strip():
        return Refused(number, "empty", "its label is empty", record)
    return row


def conversation_fault(messages: Sequence[Mapping[str, Any]], *, answered: bool = True) -> str | None:
    """What breaks the order that chat templates expect, or ``None``. ``answered``: it must end with the assistant."""
    if not messages:
        return "the conversation is empty"
    before = ""
    for place, message in enumerate(messages, 1):
        role = message.get("role")
        if role not in _ROLES:
            return f"message {place} has the role {role!r}; roles are {', '.join(_ROLES)}"
        if role == "system" and place > 1:
            return f"message {place} is a system message, which may stand only at the beginning"
        if role == "user" and before == "user":
            return f"messages {place - 1} and {place} are both from the user"
        if role == "assistant" and before in ("", "system", "assistant"):
            return f"message {place} is from the assistant, but no user asked before it"
        if role == "tool" and before not in ("assistant", "tool"):
            return f"message {place} is a tool's, but no assistant called one before it"
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            return f"message {place} ({role}) holds something other than text"
        if not (content or "").strip() and not message.get("tool_calls"):
            return f"message {place} ({role}) is empty"
        before = role
    if answered and before != "assistant":
        return f"it ends with a message of the {before}, so there is no answer to learn"
    return None


def check_form(form: str) -> Form:
    """The form of that name. Raises ``InvalidRequest``."""
    if form not in FORMS:
        raise InvalidRequest(f"There is no form {form!r} of data; there are {', '.join(FORMS)}.", param="form")
    return form


def _renamed(record: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    taken = set(columns.values())
    content = {name: value for name, value in record.items() if name not in taken and name not in columns}
    return content | {name: record[theirs] for name, theirs in columns.items() if theirs in record}


def _form_of(content: Mapping[str, Any]) -> Form | None:
    return next((form for form in FORMS if _has(content, form)), None)


def _has(content: Mapping[str, Any], form: Form) -> bool:
    return all(content.get(name) is not None for name in _COLUMNS[form])


def _type_fault(row: Row) -> str | None:
    for name in row._parts:
        value = row.content[name]
        listed = isinstance(value, list) and all(isinstance(each, Mapping) for each in value)
        wanted = listed if name == "messages" else isinstance(value, str) or (listed and row.form == "preference")
        if not wanted:
            kind = "a list of messages" if name == "messages" else "text"
            return f"its {name} is {type(value).__name__}, not {kind}"
    if row.form == "classification" and not isinstance(row.content["label"], str | int):
        return f"its label is {type(row.content['label']).__name__}, not a word or a whole number"
    return None


def _in_our_words(content: dict[str, Any]) -> dict[str, Any]:
    """What other tools write in words of their own."""
    if "conversations" in content and "messages" not in content:
        content["messages"] = content.pop("conversations")
    for name in ("messages", "chosen", "rejected"):
        if isinstance(turns := content.get(name), list) and all(isinstance(turn, Mapping) for turn in turns):
            content[name] = [_turn(turn) for turn in turns]
    if {"instruction", "output"} <= content.keys() and not {"prompt", "completion"} & content.keys():
        asked = [str(content.pop(name, None) or "") for name in ("instruction", "input")]
        content["prompt"] = "\n\n".join(part for part in asked if part.strip())
        content["completion"] = content.pop("output")
    return content


def _turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A message: ShareGPT's too, and one whose text comes in parts."""
    found = dict(turn)
    if "from" in found and "role" not in found:
        said = found.pop("from")
        found |= {"role": _SHAREGPT.get(str(said), said), "content": found.pop("value", None)}
    parts = found.get("content")
    if isinstance(parts, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in parts):
        found["content"] = "\n".join(str(part.get("text") or "") for part in parts)
    return found


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(each["content"]) for each in value or () if isinstance(each.get("content"), str)]
