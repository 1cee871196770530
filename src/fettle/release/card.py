"""The model card that lies beside the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from fettle.config import Config


def card(
    config: Config,
    text: str,
    statistics: Mapping[str, Any],
    described: Mapping[str, Any],
    test: Mapping[str, float],
    samples: Sequence[Mapping[str, Any]],
) -> str:
    """A Hugging Face model card in Markdown: what the model is, how it was trained, what it scored, how to load it."""
    adapter = config.adapter is not None
    head: dict[str, Any] = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["fettle", "text-generation", *(["lora"] if adapter else [])],
    }
    if not config.base_model.startswith(("fettle:", "/", ".")):
        head["base_model"] = config.base_model
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {config.base_model.rsplit('/', 1)[-1]}, {'a LoRA adapter' if adapter else 'fine-tuned'} by Fettle",
        _facts(config, statistics, described),
        _scores(statistics, test),
        _samples(samples),
        _loading(adapter),
        f"## Config\n\n```yaml\n{text.strip()}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(config: Config, statistics: Mapping[str, Any], described: Mapping[str, Any]) -> str:
    summary = statistics.get("summary", {})
    versions = described.get("versions", {})
    rows = [
        ("base model", f"`{config.base_model}`"),
        ("data", f"`{described.get('dataset')}`, fingerprint `{described.get('data_fingerprint')}`"),
        ("steps", f"{summary.get('step')} of {summary.get('total_steps')}, {summary.get('tokens', 0):,} tokens"),
        ("seed", f"{described.get('seed')}"),
        ("versions", ", ".join(f"{name} {number}" for name, number in versions.items() if number)),
    ]
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)


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
        f"**{key}**\n\n```text\n{sample[key]}\n```"
        for sample in samples
        for key in ("prompt", "target", "response")
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
