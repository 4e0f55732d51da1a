"""Prompts as they are written in YAML files: read with every mistake told by line and column.

Not here: keeping them (``book``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import yaml
from pydantic import ValidationError

from pagoda.core.errors import InvalidRequest, UserError
from pagoda.logic.inference.output import check_schema
from pagoda.logic.prompts import form
from pagoda.logic.prompts.filling import check_default, check_examples
from pagoda.logic.prompts.prompt import (
    ChainOfThought,
    Example,
    FewShot,
    ModelSettings,
    Prompt,
    PromptVersion,
    Reading,
    SelfConsistency,
    StructuredOutput,
    Techniques,
    Turn,
    Variable,
    Variant,
)
from pagoda.logic.prompts.template import Template, compile_template
from pagoda.logic.prompts.wording import Wording, wording

MOST_CHARACTERS = 250_000
_DEEPEST = 50
EXAMPLES, QUESTION, ANSWER, SCHEMA = "_examples", "_question", "_answer", "_schema"
"""Places that Pagoda fills itself; no variable's name begins like these."""


def read_prompt_file(path: Path) -> PromptVersion:
    """The prompt in a file. Raises ``InvalidRequest``."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error.strerror}).") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidRequest(f"{path}, line {line}: this is not UTF-8; save the file as UTF-8.") from error
    return read_prompt(text, str(path))


def read_prompt(text: str, where: str = "prompt", *, tenant: str = "") -> PromptVersion:
    """The prompt in a YAML text; ``where`` names it in errors. Raises ``InvalidRequest``."""
    if len(text) > MOST_CHARACTERS:
        raise InvalidRequest(f"{where} has more than {MOST_CHARACTERS:,} characters; a prompt is shorter.")
    root, data = _parse(text, where)
    if not isinstance(data, dict):
        raise _wrong(where, root, "a prompt is a table that begins with `name:`")
    try:
        read = form.PromptForm.model_validate(data)
    except ValidationError as error:
        first = max(error.errors(include_url=False), key=lambda found: len(found["loc"]))
        raise _explained(where, root, first) from error
    said = read.model_dump(exclude={"version"}, exclude_defaults=True, by_alias=True)
    try:
        canonical = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:  # YAML knows more than JSON: bytes, sets, numbers of any length
        raise InvalidRequest(f"{where} holds what is no JSON value ({error}); write a string.") from error
    return PromptVersion(
        prompt=_prompt(read, where),
        version=read.version,
        tenant=tenant,
        digest=hashlib.sha256(canonical).hexdigest(),
        source=text,
    )


def _prompt(read: form.PromptForm, where: str) -> Prompt:
    variables = tuple(_variable(name, each or form.VariableForm()) for name, each in read.variables.items())
    techniques = _techniques(read.techniques)
    languages = {tag: _variant(read, tag, each, f"{where}, {tag}") for tag, each in read.languages.items()}
    prompt = Prompt(
        name=read.name,
        description=read.description,
        variables=variables,
        languages=languages,
        settings=ModelSettings(**{**read.settings.model_dump(), "stop": tuple(read.settings.stop)}),
        techniques=techniques,
        answer=_reading(read, where),
        tags=tuple(read.tags),
    )
    known = {variable.name for variable in variables}
    for tag, variant in languages.items():
        for name in sorted({name for body in _bodies(variant) for name in body.names if not name.startswith("_")}):
            if name not in known:
                raise InvalidRequest(f"{where}, {tag}: {name!r} is used, but there is no such variable; declare it.")
    try:
        for variable in variables:
            check_default(variable, languages)
        check_examples(prompt)
        if techniques.structured_output is not None:
            check_schema(techniques.structured_output.schema, "techniques.structured-output")
    except UserError as error:
        raise InvalidRequest(f"{where}: {error.message}", code=error.code) from error
    return prompt


def _bodies(variant: Variant) -> Iterator[Template]:
    yield from (turn.body for turn in variant.turns)
    yield variant.example


def _variable(name: str, given: form.VariableForm) -> Variable:
    required = given.default is None if given.required is None else given.required
    fields = given.model_dump(exclude={"required", "choices", "default"})
    by_language = isinstance(given.default, dict)
    return Variable(
        name=name,
        required=required,
        choices=tuple(given.choices),
        default=None if by_language else given.default,
        defaults=given.default if by_language else {},
        **fields,
    )


def _techniques(given: form.TechniquesForm) -> Techniques:
    few, chain, vote, structured = (
        given.few_shot,
        given.chain_of_thought,
        given.self_consistency,
        given.structured_output,
    )
    return Techniques(
        few_shot=None if few is None else _few_shot(few),
        chain_of_thought=None if chain is None else ChainOfThought(steps=chain.steps),
        self_consistency=None if vote is None else SelfConsistency(**vote.model_dump()),
        structured_output=None
        if structured is None
        else StructuredOutput(schema=structured.schema_, name=structured.name),
    )


def _few_shot(given: form.FewShotForm) -> FewShot:
    examples = tuple(
        Example(
            values=dict(each.model_extra or {}), answer=each.answer, reasoning=each.reasoning, language=each.language
        )
        for each in given.examples
    )
    return FewShot(examples=examples, **given.model_dump(exclude={"examples"}))


def _reading(read: form.PromptForm, where: str) -> Reading | None:
    given = read.answer
    if given is None and read.techniques.chain_of_thought is None:
        return None
    given = given or form.AnswerForm()
    marks: dict[str, str] = {}
    if isinstance(given.after, dict):
        marks = dict(given.after)
    elif given.after is not None:
        marks = dict.fromkeys(read.languages, given.after)
    elif read.techniques.chain_of_thought is not None:
        marks = {tag: wording(read.wording, tag).mark for tag in read.languages}
    if isinstance(given.choices, str):
        if read.variables.get(given.choices) is None or read.variables[given.choices].type != "list":  # type: ignore[union-attr]
            raise InvalidRequest(f"{where}, answer.choices: {given.choices!r} is not a variable of the type list.")
        return Reading(type=given.type, after=marks, choices_from=given.choices)
    return Reading(type=given.type, after=marks, choices=tuple(given.choices or ()))


def _variant(read: form.PromptForm, tag: str, given: form.VariantForm, where: str) -> Variant:
    words = wording(read.wording, tag)
    asked = _instructions(read.techniques, words)
    parts = {
        **{name: text.strip("\n") for name, text in given.parts.items()},
        **asked,
        "examples": "{{" + EXAMPLES + "}}",
    }
    if given.messages is not None:
        written = [next(iter(message.items())) for message in given.messages]
        question = next((text for role, text in reversed(written) if role == "user"), None)
        if question is None:
            raise InvalidRequest(f"{where}: there is no user's message; a prompt asks something.")
        last = max(index for index, (role, _) in enumerate(written) if role == "user")
    else:
        head = [given.task, given.requirements, *("{{> " + name + "}}" for name in asked)]
        system = "\n\n".join(text.strip() for text in head if text is not None)
        question = given.input or ""
        written, last = [("system", system), ("user", question)], -1
    bodies = [
        compile_template(text.strip("\n"), parts, f"{where}, {role}'s message {number}")
        for number, (role, text) in enumerate(written, 1)
    ]
    placed = {name for body in bodies for name in body.parts}
    missing = [text for name, text in asked.items() if name not in placed]
    if missing:
        text = "\n\n".join([written[last][1].strip("\n"), *missing])
        bodies[last] = compile_template(text, parts, f"{where}, message {last + 1}")
    turns = tuple(Turn(role, body) for (role, _), body in zip(written, bodies, strict=True))
    example = compile_template((given.example or question).strip("\n"), parts, f"{where}, example")
    return Variant(
        turns=turns,
        example=example,
        separator=words.separator if given.separator is None else given.separator,
        mark=words.mark,
        layout=compile_template(words.example),
    )


def _instructions(techniques: form.TechniquesForm, words: Wording) -> dict[str, str]:
    """What techniques ask the model for, by the name of the part that says it."""
    asked = {}
    if techniques.chain_of_thought is not None:
        asked["reasoning"] = words.four
    if techniques.structured_output is not None:
        asked["schema"] = words.schema
    return asked


def _parse(text: str, where: str) -> tuple[yaml.Node, object]:
    """The tree and the content of a YAML text, without what may do harm: aliases, keys twice, deep nesting."""
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise _at(where, event.start_mark, f"it is nested more than {_DEEPEST} deep")
            if isinstance(event, yaml.AliasEvent):
                raise _at(where, event.start_mark, "anchors and aliases are not used in prompts; write it out")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise _at(where, mark, f"this is not YAML ({why})") from error
    except yaml.YAMLError as error:
        raise InvalidRequest(f"{where} is not YAML ({' '.join(str(error).split())}).", code="bad_prompt") from error
    except (ValueError, TypeError) as error:  # a date that does not exist, a list as key
        raise InvalidRequest(f"{where} is not YAML that a prompt can use ({error}).", code="bad_prompt") from error
    if root is None:
        raise InvalidRequest(f"{where} is empty; a prompt begins with `name:`.", code="bad_prompt")
    for mapping in _mappings(root):
        seen: set[str] = set()
        for key, _ in mapping.value:
            if key.value in seen:
                raise _wrong(where, key, f"{key.value!r} stands there twice")
            seen.add(key.value)
    return root, data


def _mappings(node: yaml.Node) -> Iterator[yaml.MappingNode]:
    if isinstance(node, yaml.MappingNode):
        yield node
        for _, value in node.value:
            yield from _mappings(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _mappings(value)


def _explained(where: str, root: yaml.Node, found: Mapping[str, Any]) -> InvalidRequest:
    place = [str(part) for part in found["loc"] if not str(part).startswith(("str", "list[", "dict[", "bool", "int"))]
    node = _node(root, place)
    name = ".".join(place) or "the prompt"
    if found["type"] == "extra_forbidden":
        return _wrong(where, node, f"there is no {name}")
    if found["type"] == "missing":
        return _wrong(where, node, f"{name} is missing")
    return _wrong(where, node, f"{name}: {found['msg'].removeprefix('Value error, ').rstrip('.')}")


def _node(node: yaml.Node, place: Sequence[str]) -> yaml.Node:
    """The node at a place, or the last one on the way to it."""
    for number, part in enumerate(place, 1):
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == part), None)
            if found is None:
                return node
            node = found[0] if number == len(place) else found[1]
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
    return node


def _wrong(where: str, node: yaml.Node, why: str) -> InvalidRequest:
    return _at(where, node.start_mark, why)


def _at(where: str, mark: Any, why: str) -> InvalidRequest:
    place = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
    return InvalidRequest(f"{where}{place}: {why}.", code="bad_prompt")
