"""The model card that lies beside the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import yaml

from fettle.config import Config


def card(
    config: Config,
    reference: str,
    text: str,
    statistics: Mapping[str, Any],
    described: Mapping[str, Any],
    test: Mapping[str, float],
    samples: Sequence[Mapping[str, Any]],
) -> str:
    """A Hugging Face model card in Markdown: what the model is, how it was trained, what it scored, how to load it.

    Args:
        reference: the base model's hub id, absolute path, or `fettle:pocket`.
        text: the user's YAML.
    """
    adapter = config.adapter is not None
    head: dict[str, Any] = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["fettle", "text-generation", *(["lora"] if adapter else [])],
    }
    if not reference.startswith(("fettle:", "/")):  # a hub id, which the hub links to
        head["base_model"] = reference
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {config.base_model.rsplit('/', 1)[-1]}, {'a LoRA adapter' if adapter else 'fine-tuned'} by Fettle",
        _facts(reference, statistics, described),
        _scores(statistics, test),
        _samples(samples),
        _loading(adapter),
        _config(text, described.get("overrides", [])),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(reference: str, statistics: Mapping[str, Any], described: Mapping[str, Any]) -> str:
    summary = statistics.get("summary", {})
    versions = described.get("versions", {})
    rows = [
        ("base model", f"`{PurePath(reference).name if reference.startswith('/') else reference}`"),
        ("data", f"{_data(described)}, fingerprint `{described.get('data_fingerprint')}`"),
        ("steps", f"{summary.get('step')} of {summary.get('total_steps')}, {summary.get('tokens', 0):,} tokens"),
        ("seed", f"{described.get('seed')}"),
        ("versions", ", ".join(f"{name} {number}" for name, number in versions.items() if number)),
    ]
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)


def _data(described: Mapping[str, Any]) -> str:
    """Names of the files, without the paths of the machine they lay on."""
    named = described.get("dataset") or {}
    return (
        ", ".join(f"`{PurePath(name).name}`" if name else "rows in memory" for name in named.values()) or "not recorded"
    )


def _config(text: str, overrides: Sequence[str]) -> str:
    changed = "".join(f"- `{override}`\n" for override in overrides)
    also = f"\n\nwith these changes on the command line:\n\n{changed}" if changed else ""
    return f"## Config\n\n```yaml\n{text.strip()}\n```{also}"


def _scores(statistics: Mapping[str, Any], test: Mapping[str, float]) -> str:
    validation = statistics.get("validation", {}).get("combined", {})
    lines = []
    if validation.get("loss"):
        lines.append(
            f"- validation loss: {validation['loss'][0]:.4f} before, {min(validation['loss']):.4f} after training"
        )
    lines += [f"- test {name.replace('_', ' ')}: {value:.4f}" for name, value in test.items()]
    return "## Scores\n\n" + "\n".join(lines) if lines else ""


def _samples(samples: Sequence[Mapping[str, Any]]) -> str:
    if not samples:
        return ""
    shown = [
        f"**{'response before training' if key == 'base' else key}**\n\n```text\n{sample[key]}\n```"
        for sample in samples
        for key in ("prompt", "target", "base", "response")
        if sample.get(key) is not None
    ]
    return "## Samples of the test split\n\n" + "\n\n".join(shown)


def _loading(adapter: bool) -> str:
    if adapter:
        code = (
            "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer\n\n"
            'model = AutoPeftModelForCausalLM.from_pretrained("model")\ntokenizer = AutoTokenizer.from_pretrained("model")'
        )
    else:
        code = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("model")\ntokenizer = AutoTokenizer.from_pretrained("model")'
        )
    return f"## Loading\n\nNothing of Fettle is needed:\n\n```python\n{code}\n```"
