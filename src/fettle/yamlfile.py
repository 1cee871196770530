"""YAML with the line of every key: what error messages need, and nothing a config should not be able to do.

Scalars follow YAML 1.2 (`2e-4` is a number, `010` is ten, `no` is a text). Duplicate keys, tags, alias bombs are faults.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from fettle.errors import ConfigError, Fault

Path = tuple[str | int, ...]
MERGE = "tag:yaml.org,2002:merge"
KNOWN_TAGS = {MERGE, *(f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null"))}
MAX_NODES = 100_000
MAX_DEPTH = 60
MAX_CHARACTERS = 4_000_000


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


class _Dumper(yaml.SafeDumper):
    """Writes what _Loader reads back: a text that it would take for a number is put in quotes."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def dump(data: Any) -> str:
    """Plain data as a YAML text that `parse` reads back as the same data.

    Raises:
        yaml.YAMLError: something in it is no plain value.
    """
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def parse(text: str, name: str) -> Document:
    """Read a YAML text into data and lines.

    Raises:
        ConfigError: the text is no YAML; the message names line and column.
    """
    document = Document(name, None)
    if len(text) > MAX_CHARACTERS:
        raise ConfigError([Fault(name, "", f"too large for a config ({len(text):,} characters)")])
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
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = f"{name}:{before.count(chr(10)) + 1}:{error.position - before.rfind(chr(10))}"
        raise ConfigError([Fault(place, "", f"the character {error.character:#06x} is not allowed here")]) from None
    except ConfigError:
        raise
    except (ValueError, OverflowError) as error:  # an escape such as "\UFFFFFFFF", which is no character
        raise ConfigError([Fault(name, "", f"this is not valid YAML: {error}")]) from None
    except RecursionError:
        raise ConfigError([Fault(name, "", f"nested deeper than {MAX_DEPTH} levels")]) from None
    return document


class _Reader:
    """Turns YAML nodes into data, noting the line of each key and every duplicate."""

    def __init__(self, loader: _Loader, document: Document) -> None:
        self.loader, self.document = loader, document
        self.nodes = self.depth = 0  # depth counts merges, which add nothing to the path

    def convert(self, node: yaml.Node, path: Path) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) + self.depth > MAX_DEPTH:
            self._refuse(node, path, "too large or too deep for a config (are there aliases that repeat each other?)")
        if node.tag not in KNOWN_TAGS:
            self._refuse(node, path, f"tags such as {node.tag} are not allowed")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                self.document.lines[(*path, index)] = item.start_mark.line + 1
                items.append(self.convert(item, (*path, index)))
            return items
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node, path)

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        kind = node.tag.rpartition(":")[2]
        try:
            if kind in ("float", "null", "bool"):
                return self.loader.construct_object(node)
            # JSON writes characters beyond 16 bits as two escapes
            return int(node.value) if kind == "int" else _joined(str(node.value))
        except (ValueError, KeyError, yaml.YAMLError):
            self._refuse(node, path, f"cannot be read as {kind}: {node.value[:40]!r}")

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found = self._merged(node, path)
        stated: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(key_node, path, "a key must be a plain word")
            if key_node.tag == MERGE:
                continue
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in stated:
                fault = Fault(
                    f"{self.document.name}:{line}", dotted((*path, key)), f"stands twice (first in line {stated[key]})"
                )
                self.document.faults.append(fault)
            stated[key] = line
            self.document.lines[(*path, key)] = line
            found[key] = self.convert(value_node, (*path, key))
        return found

    def _merged(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        """What the `<<` keys of a mapping bring along; the first of several sources goes before the later ones."""
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag != MERGE:
                continue
            sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for source in sources:
                if not isinstance(source, yaml.MappingNode):
                    self._refuse(source, path, "<< takes a mapping or a list of mappings")
                self.depth += 1
                found = {**self.convert(source, path), **found}
                self.depth -= 1
        return found

    def _refuse(self, node: yaml.Node, path: Path, why: str) -> NoReturn:
        raise ConfigError([Fault(f"{self.document.name}:{node.start_mark.line + 1}", dotted(path), why)])


def _joined(text: str) -> str:
    """The text with surrogate pairs made one character; a ValueError for half a pair."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16")


def dotted(path: Path) -> str:
    """`trainer.optimizer.betas[0]` of a path."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
