"""From pydantic's errors to faults a user can act on: the key's own path, what was expected, the nearest known key."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fettle.errors import nearest
from fettle.section import Section, arm_for, container_item, sections_in, tags, walk
from fettle.yamlfile import Path


def to_faults(root: type[Section], error: ValidationError, data: Any) -> list[tuple[Path, str]]:
    """(path, message) of every fault; the arms of a union that failed at one place are told as one."""
    found: dict[Path, list[str]] = {}
    for detail in error.errors(include_url=False):
        path = _own_path(detail["loc"], data)
        said = found.setdefault(path, [])
        message = _message(root, detail, path, data)
        if message not in said:
            said.append(message)
    return [(path, _joined(said)) for path, said in found.items()]


def _joined(said: list[str]) -> str:
    """One sentence out of what each arm of a union expected."""
    if len(said) == 1:
        return said[0]
    expected = [part.removeprefix("expected ").rpartition(", got ") for part in said]
    wanted = [before or after for before, _, after in expected]
    got = next((after for before, _, after in expected if before), "")
    return f"expected {' or '.join(dict.fromkeys(wanted))}" + (f", got {got}" if got else "")


def _own_path(loc: Sequence[str | int], data: Any) -> Path:
    """pydantic's location without the names of union arms, which stand nowhere in the YAML."""
    path: Path = ()
    here = data
    for position, part in enumerate(loc):
        if (isinstance(here, dict) and part in here) or (isinstance(here, list) and isinstance(part, int)):
            here = _into(here, part)
            path = (*path, part)
        elif isinstance(here, dict) and position == len(loc) - 1:
            path = (*path, part)
    return path


def _into(data: Any, part: str | int) -> Any:
    """What stands at one step of a path; None where nothing does."""
    if isinstance(data, dict):
        return data.get(part)
    return data[part] if isinstance(data, list) and isinstance(part, int) and part < len(data) else None


def _annotation(root: type[Section], path: Path, data: Any) -> Any:
    """The type that the schema expects at a path."""
    annotation: Any = root
    here = data
    for part in path:
        item = container_item(annotation)
        holder = arm_for(annotation, here) if item is annotation else None
        field = holder.model_fields.get(str(part)) if holder is not None else None
        annotation = item if field is None else field.annotation
        here = _into(here, part)
    return annotation


def _holder(root: type[Section], path: Path, data: Any) -> type[Section] | None:
    """The section class in which the last key of a path stands."""
    here = data
    for part in path[:-1]:
        here = _into(here, part)
    return arm_for(_annotation(root, path[:-1], data), here)


def _message(root: type[Section], detail: ErrorDetails, path: Path, data: Any) -> str:
    kind, context, got = detail["type"], detail.get("ctx", {}), _shown(detail["input"])
    if kind == "extra_forbidden":
        return _unknown(root, path, data)
    if kind == "missing":
        return "missing; this key is required"
    if kind == "union_tag_not_found":
        return f"`type` is missing; one of {', '.join(_types(root, path, data))}"
    if kind == "union_tag_invalid":
        tags = [tag.strip().strip("'") for tag in str(context["expected_tags"]).split(",")]
        return f"unknown type {context['tag']!r}{nearest(str(context['tag']), tags)} (one of {', '.join(tags)})"
    if kind == "literal_error":
        expected = str(context["expected"])
        known = expected.replace(" or ", ", ").replace("'", "").split(", ")
        return f"expected {expected}, got {got}{nearest(str(detail['input']), known)}"
    if kind == "string_type" and isinstance(detail["input"], dict):
        return "expected a text, got a section; put the text in quotes: '\"...\"'"
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"expected a section of keys and values, got {got}"
    words = {
        "int_type": "expected a whole number", "float_type": "expected a number", "string_type": "expected a text",
        "bool_type": "expected true or false", "list_type": "expected a list", "finite_number": "expected a finite number",
        "int_from_float": "expected a whole number", "greater_than": f"expected a number > {context.get('gt', 0):g}",
        "greater_than_equal": f"expected a number >= {context.get('ge', 0):g}",
        "less_than": f"expected a number < {context.get('lt', 0):g}",
        "less_than_equal": f"expected a number <= {context.get('le', 0):g}",
    }  # fmt: skip
    said = words.get(kind) or "expected: " + detail["msg"].removeprefix("Input should ")
    return f"{said}, got {got}"


def _types(root: type[Section], path: Path, data: Any) -> list[str]:
    """The values that `type` may have at a path."""
    return [tag for arm in sections_in(_annotation(root, path, data)) for tag in tags(arm)]


def _unknown(root: type[Section], path: Path, data: Any) -> str:
    """`unknown key`, with the nearest key of the same section, or the section in which the key does exist."""
    key = str(path[-1])
    holder = _holder(root, path, data)
    hint = nearest(key, holder.model_fields) if holder else ""
    if not hint or key not in hint:
        elsewhere = {".".join(at) for at, _, _ in walk(root) if at[-1] == key and at != path}
        if elsewhere:
            hint = f", did you mean '{min(elsewhere, key=lambda at: (at.count('.'), at))}'?"
    return f"unknown key{hint}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def prune(data: Any, paths: list[Path]) -> Any:
    """A copy of the raw config without what stands at the given paths."""
    pruned = copy.deepcopy(data)
    for path in sorted(paths, key=len, reverse=True):
        here = pruned
        for part in path[:-1]:
            here = _into(here, part)
        if isinstance(here, dict):
            here.pop(path[-1], None)
        elif isinstance(here, list) and isinstance(path[-1], int) and path[-1] < len(here):
            here[path[-1]] = None
    return pruned
