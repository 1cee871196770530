"""Base models and adapters: loaded, wrapped, saved as the standard folders that plain transformers and peft open."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from fettle.errors import ModelError
from fettle.files import whole_folder
from fettle.model.adapter_config import LoraFamily
from fettle.tokenizer import TOKENIZER_FILES, Tokenizer

_INIT = {"default": True, "gaussian": "gaussian", "olora": "olora", "pissa": "pissa", "orthogonal": "orthogonal"}


def load_base(folder: Path, dtype: str, device: str, trust_remote_code: bool = False) -> Any:
    """Load the base model of a Hugging Face folder onto a device.

    Raises:
        ModelError: transformers cannot open it; the message says why.
    """
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
        model, report = AutoModelForCausalLM.from_pretrained(
            str(folder),
            config=config,
            dtype=getattr(torch, dtype),
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{folder}: cannot be loaded: {str(error).strip().splitlines()[0]}") from None
    absent = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if absent:  # transformers would go on with random weights in their place
        raise ModelError(f"{folder}: {len(absent)} weights are missing or of the wrong shape: {', '.join(absent[:3])}")
    return model.to(device)


def add_lora(model: Any, section: LoraFamily, family: str, base_name: str) -> Any:
    """Wrap a model in LoRA adapters (float32, whatever the base's precision).

    Args:
        base_name: how the saved adapter names its base, so that plain peft finds it.

    Raises:
        ModelError: target_modules fit no layer.
    """
    targets: Any = section.target_modules
    if targets is None and family not in TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING:
        targets = "all-linear"  # a family peft has no usual layers for
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=section.r,
        lora_alpha=section.alpha if section.alpha is not None else 2 * section.r,
        lora_dropout=section.dropout,
        bias=section.bias_type,
        target_modules=targets,
        # GPT-2's layers hold their weights transposed
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        use_rslora=section.use_rslora,
        use_dora=section.use_dora,
        init_lora_weights=_INIT[section.init_lora_weights],
        rank_pattern=section.rank_pattern or {},
        alpha_pattern=section.alpha_pattern or {},
        layer_replication=[(first, last) for first, last in section.layer_replication]
        if section.layer_replication
        else None,
    )
    try:
        wrapped = get_peft_model(model, config, autocast_adapter_dtype=True)
    except (ValueError, NotImplementedError) as error:
        raise ModelError(f"adapter.target_modules: {str(error).strip().splitlines()[0]}") from None
    wrapped.peft_config["default"].base_model_name_or_path = base_name
    return wrapped


def load_adapter(model: Any, folder: Path) -> Any:
    """Put a saved adapter on its base model.

    Raises:
        ModelError: the adapter does not fit the base.
    """
    try:
        return PeftModel.from_pretrained(model, str(folder))
    except (ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise ModelError(
            f"{folder}: the adapter cannot be put on the base model: {str(error).strip().splitlines()[0]}"
        ) from None


def counts(model: torch.nn.Module) -> tuple[int, int]:
    """(all weights, weights that train)."""
    weights = list(model.parameters())
    return sum(weight.numel() for weight in weights), sum(weight.numel() for weight in weights if weight.requires_grad)


def check_fit(model: Any, tokenizer: Tokenizer) -> None:
    """Make sure that every id of the tokenizer has an embedding.

    Raises:
        ModelError: the tokenizer and the model do not belong together.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer.size > rows:
        raise ModelError(
            f"{tokenizer.folder}: the tokenizer has {tokenizer.size} ids but the model embeds {rows}; they do not belong together"
        )


def save(model: Any, tokenizer: Tokenizer, folder: Path, texts: dict[str, str]) -> None:
    """Write adapter or full weights, tokenizer and chat template; whole or not at all.

    Args:
        texts: further files of the folder, by name.

    Raises:
        StorageError: the disk refuses.
    """
    with whole_folder(folder) as part:
        # embeddings are never resized here, so peft need not ask the hub whether they were
        options = {"save_embedding_layers": False} if isinstance(model, PeftModel) else {}
        model.save_pretrained(str(part), **options)
        for name in TOKENIZER_FILES:
            if (tokenizer.folder / name).is_file():
                shutil.copyfile(tokenizer.folder / name, part / name)
        _write_template(part, tokenizer)
        for name, text in texts.items():
            (part / name).write_text(text, encoding="utf-8")


def differing(folder: Path, tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """The texts that plain transformers encodes otherwise than this tokenizer did: what is served would not be what was trained.

    transformers rebuilds the tokenizers of some families by rules of its own instead of reading tokenizer.json as it is.
    """
    plain = AutoTokenizer.from_pretrained(str(folder))
    ids = tokenizer.encode(texts, special=True)
    return [text for text, own in zip(texts, ids, strict=True) if plain(text)["input_ids"] != own]


def _write_template(folder: Path, tokenizer: Tokenizer) -> None:
    """The chat template in use goes beside the weights, also where the base model has another or none."""
    if tokenizer.chat_template is None:
        return
    (folder / "chat_template.jinja").write_text(tokenizer.chat_template, encoding="utf-8")
    path = folder / "tokenizer_config.json"
    if path.is_file():
        settings = json.loads(path.read_text(encoding="utf-8"))
        if settings.pop("chat_template", None) is not None:  # the file beside it is what counts
            path.write_text(json.dumps(settings, ensure_ascii=False, indent=2), encoding="utf-8")
