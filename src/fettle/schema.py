"""The config's JSON Schema, for editors: every key with its documentation, the short spellings allowed as well."""

from __future__ import annotations

from typing import Any

from fettle.config import SHORT, Config
from fettle.section import Section, docs, sections_in, walk


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a YAML, as VS Code's YAML plugin takes it."""
    schema = Config.model_json_schema()
    sections: dict[str, type[Section]] = {Config.__name__: Config}
    for _, _, field in walk(Config):
        sections |= {arm.__name__: arm for arm in sections_in(field.annotation)}
    definitions = {Config.__name__: schema, **schema.get("$defs", {})}
    for name, section in sections.items():
        for key, text in docs(section).items():
            definitions[name]["properties"][key]["description"] = text
    for path, _ in SHORT:
        _allow_short(schema, path.split("."), definitions)
    # older spellings and what Ludwig writes as null
    schema["properties"]["model_name"] = {
        "type": "string",
        "description": "Older spelling of base_model.",
        "deprecated": True,
    }
    schema["required"] = [key for key in schema["required"] if key != "base_model"]
    schema["anyOf"] = [{"required": ["base_model"]}, {"required": ["model_name"]}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Fettle config",
        **{k: v for k, v in schema.items() if k != "title"},
    }


def _allow_short(schema: dict[str, Any], path: list[str], definitions: dict[str, Any]) -> None:
    """Let a text stand where a section is expected."""
    holders = [schema]
    for key in path[:-1]:
        holders = [definitions[name] for holder in holders for name in _named(holder["properties"].get(key, {}))]
    for holder in holders:
        if path[-1] in holder["properties"]:
            own = holder["properties"][path[-1]]
            about = {key: own.pop(key) for key in ("description", "default") if key in own}
            holder["properties"][path[-1]] = {**about, "anyOf": [own, {"type": "string"}]}


def _named(part: dict[str, Any]) -> list[str]:
    """Names of the definitions that a schema points to."""
    found = [part["$ref"].rpartition("/")[2]] if "$ref" in part else []
    for key in ("anyOf", "oneOf"):
        found += [name for option in part.get(key, []) for name in _named(option)]
    return found
