"""The config's JSON Schema, for editors: every key with its documentation, the short spellings allowed as well."""

from __future__ import annotations

from typing import Any

from fettle.config import SHORT, Config
from fettle.section import Section, docs, sections_in, tags, walk


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
    for path, key in SHORT:
        _allow_short(schema, path, key, definitions)
    rope = definitions["RopeScaling"]["properties"]
    rope["type"] = {**rope["rope_type"], "description": "Older spelling of rope_type.", "deprecated": True}
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


def _allow_short(schema: dict[str, Any], path: str, key: str, definitions: dict[str, Any]) -> None:
    """Let the one key that is meant stand where its section is expected."""
    *parents, last = path.split(".")
    holders = [schema]
    for parent in parents:
        holders = [definitions[name] for holder in holders for name in _named(holder["properties"].get(parent, {}))]
    found = {tag: None for at, _, field in walk(Config) if ".".join(at) == path for arm in sections_in(field.annotation)
             for tag in tags(arm)}  # fmt: skip
    short = {"enum": list(found)} if key == "type" else {"type": "string"}
    for holder in holders:
        if last in holder["properties"]:
            own = holder["properties"][last]
            about = {name: own.pop(name) for name in ("description", "default") if name in own}
            holder["properties"][last] = {**about, "anyOf": [own, short]}


def _named(part: dict[str, Any]) -> list[str]:
    """Names of the definitions that a schema points to."""
    found = [part["$ref"].rpartition("/")[2]] if "$ref" in part else []
    for key in ("anyOf", "oneOf"):
        found += [name for option in part.get(key, []) for name in _named(option)]
    return found
