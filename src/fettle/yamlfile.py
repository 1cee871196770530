"""YAML with the line of every key: what error messages need, and nothing a config should not be able to do.

Scalars follow YAML 1.2 (`2e-4` is a number, `no` is a text). Duplicate keys, tags, alias bombs are faults.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from fettle.errors import ConfigError, Fault

Path = tuple[str | int, ...]
MAX_NODES = 100_000
MAX_DEPTH = 60


@dataclass
class Document:
    """A parsed YAML text: plain Python data and the line (from 1) of each key and list item."""

    name: str
    data: Any
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def place(self, path: Path) -> str:
        """`run.yaml:7` for the key, or for the nearest section above it that stands in the file."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                line = self.lines[path[:length]]
                return f"{self.name}:{line}" if line else "command line"
        return self.name


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core scalars."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 -- PyYAML's own class attribute


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"^(?:[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+0123456789."),
    ),
    ("tag:yaml.org,2002:merge", r"^<<$", ["<"]),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first)


def parse(text: str, name: str) -> Document:
    """Read a YAML text into data and lines.

    Raises:
        ConfigError: the text is no YAML; the message names line and column.
    """
    document = Document(name, None)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            document.data = _Reader(loader, document).convert(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError([Fault(place, "", f"this is not valid YAML: {said}")]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError([Fault(name, "", f"this is not valid YAML: {str(error).splitlines()[0]}")]) from None
    except RecursionError:
        raise ConfigError([Fault(name, "", f"nested deeper than {MAX_DEPTH} levels")]) from None
    return document


class _Reader:
    """Turns YAML nodes into data, noting the line of each key and every duplicate."""

    def __init__(self, loader: _Loader, document: Document) -> None:
        self.loader, self.document, self.nodes = loader, document, 0

    def convert(self, node: yaml.Node, path: Path) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH:
            self._refuse(node, path, "too large or too deep for a config (are there aliases that repeat each other?)")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                self.document.lines[(*path, index)] = item.start_mark.line + 1
                items.append(self.convert(item, (*path, index)))
            return items
        if not node.tag.startswith("tag:yaml.org,2002:"):
            self._refuse(node, path, f"tags such as {node.tag} are not allowed")
        if node.tag.endswith((":str", ":null", ":bool", ":int", ":float")):
            return self.loader.construct_object(node)
        return str(node.value)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        own = {id(key) for key, _ in node.value}
        self.loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        stated: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(key_node, path, "a key must be a plain word")
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in stated and id(key_node) in own:
                fault = Fault(
                    f"{self.document.name}:{line}", dotted((*path, key)), f"stands twice (first in line {stated[key]})"
                )
                self.document.faults.append(fault)
            if id(key_node) in own:
                stated[key] = line
            self.document.lines[(*path, key)] = line
            found[key] = self.convert(value_node, (*path, key))
        return found

    def _refuse(self, node: yaml.Node, path: Path, why: str) -> None:
        raise ConfigError([Fault(f"{self.document.name}:{node.start_mark.line + 1}", dotted(path), why)])


def dotted(path: Path) -> str:
    """`trainer.optimizer.betas[0]` of a path."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
