"""The base of every config section, and what can be asked of a section's class without an instance."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """A part of the YAML: frozen, unknown keys forbidden, no silent conversions (a text is never a number)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


def sections_in(annotation: Any) -> list[type[Section]]:
    """The Section classes that an annotation (`A | B | None`, `list[A]`, `dict[str, A]`) can hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in get_args(annotation) for found in sections_in(part)]


def arm_for(annotation: Any, value: object) -> type[Section] | None:
    """The Section class that the raw `value` asks for: by its `type` where the annotation is a union."""
    arms = sections_in(annotation)
    if len(arms) <= 1:
        return arms[0] if arms else None
    wanted = value.get("type") if isinstance(value, Mapping) else None
    return next((arm for arm in arms if wanted is not None and wanted in tags(arm)), None)


def tags(arm: type[Section]) -> tuple[str, ...]:
    """The values of `type` that choose this class in a union."""
    field = arm.model_fields.get("type")
    return tuple(str(tag) for tag in get_args(field.annotation)) if field else ()


def container_item(annotation: Any) -> Any:
    """`A` of `list[A]` or `dict[str, A]`, looking through `| None`; the annotation itself elsewhere."""
    if get_origin(annotation) in (list, tuple, dict):
        return get_args(annotation)[-1]
    if get_origin(annotation) is Union or type(annotation).__name__ == "UnionType":
        for part in get_args(annotation):
            if get_origin(part) in (list, tuple, dict):
                return get_args(part)[-1]
    return annotation


def walk(
    root: type[Section], prefix: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], type[Section], FieldInfo]]:
    """Every key of the vocabulary below `root`: its path, the class that has it, its field."""
    for name, field in root.model_fields.items():
        path = (*prefix, name)
        yield path, root, field
        for arm in sections_in(field.annotation):
            yield from walk(arm, path)


@cache
def docs(section: type[Section]) -> dict[str, str]:
    """The docstring under each field of a section, read from its source (nothing is paid for at import)."""
    found: dict[str, str] = {}
    for owner in reversed(section.__mro__):
        if not issubclass(owner, Section) or owner is Section:
            continue
        body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                assert isinstance(text.value, ast.Constant)
                found[field.target.id] = inspect.cleandoc(str(text.value.value))
    return found
