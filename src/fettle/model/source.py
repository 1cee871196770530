"""Where a base model lies, and what its folder says without loading a weight."""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from fettle.errors import MissingFileError, ModelError
from fettle.tokenizer import TOKENIZER_FILES

EMBEDDED = {"fettle:pocket": "pocket"}
PRESETS = {
    "bloomz-3b": "bigscience/bloomz-3b",
    "bloomz-7b1": "bigscience/bloomz-7b1",
    **{
        f"codellama-{size}{kind}": f"codellama/CodeLlama-{size}{kind.title()}-hf"
        for size in ("7b", "13b", "34b")
        for kind in ("", "-instruct")
    },
    "gpt-neo-2.7B": "EleutherAI/gpt-neo-2.7B",
    "gpt-j-6b": "EleutherAI/gpt-j-6b",
    **{
        f"llama-2-{size}{kind}": f"meta-llama/Llama-2-{size}{kind}-hf"
        for size in ("7b", "13b", "70b")
        for kind in ("", "-chat")
    },
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "mistral-7b-instruct": "mistralai/Mistral-7B-Instruct-v0.1",
    "mixtral-8x7b": "mistralai/Mixtral-8x7B-v0.1",
    "mixtral-8x7b-instruct": "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "opt-350m": "facebook/opt-350m",
    "opt-1.3b": "facebook/opt-1.3b",
    "opt-6.7b": "facebook/opt-6.7b",
    "pythia-2.8b": "EleutherAI/pythia-2.8b",
    "pythia-12b": "EleutherAI/pythia-12b",
    "vicuna-7b": "lmsys/vicuna-7b-v1.3",
    "vicuna-13b": "lmsys/vicuna-13b-v1.3",
    "zephyr-7b-alpha": "HuggingFaceH4/zephyr-7b-alpha",
    "zephyr-7b-beta": "HuggingFaceH4/zephyr-7b-beta",
    "phi-1": "microsoft/phi-1",
    "phi-1_5": "microsoft/phi-1_5",
    "phi-2": "microsoft/phi-2",
}
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx", "max_sequence_length")
_DESCRIPTION = ("config.json", "generation_config.json", *TOKENIZER_FILES, "model.safetensors.index.json", "*.jinja")


@dataclass(frozen=True)
class BaseFacts:
    """What a base model's folder says about it."""

    name: str
    folder: Path
    family: str
    context: int | None
    """Most tokens of a sequence; None where the config does not say."""
    vocab_size: int
    hidden: int
    layers: int
    parameters: int
    """Number of weights, from the headers of the weight files; 0 where they are not here yet."""
    weights: frozenset[str] = frozenset()
    """Names of the weights."""


def locate(name: str, folder: Path = Path(), weights: bool = True) -> Path:
    """The local folder of a base model; a hub id is downloaded (without `weights`, its description only).

    Raises:
        MissingFileError: there is neither such a folder nor such a hub id.
    """
    if name in EMBEDDED:
        return Path(str(resources.files("fettle.model") / EMBEDDED[name]))
    if name.startswith("fettle:"):
        raise MissingFileError(f"base_model: there is no {name!r}; Fettle carries {', '.join(EMBEDDED)}")
    for path in (folder / name, Path(name)):
        if os.path.isdir(path):  # unlike Path.is_dir, also for a name too long for the system
            return path
        if os.path.isfile(path):
            raise ModelError(f"base_model: {path} is a file; name the folder that holds config.json")
    return _download(PRESETS.get(name, name), weights)


def _download(repository: str, weights: bool) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*_DESCRIPTION, *(["*.safetensors"] if weights else [])]
    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=patterns))
    except HFValidationError:
        raise MissingFileError(f"base_model: {repository!r} is neither a local folder nor a hub id") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MissingFileError(
            f"base_model: {repository!r} is no local folder, and the hub gives it not: {said} "
            "(gated models need the environment variable HF_TOKEN)"
        ) from None


def facts(name: str, folder: Path, weights: bool = True) -> BaseFacts:
    """Read a base model's description, and with `weights` make sure that its weights can be used.

    Raises:
        ModelError: config.json is missing or broken; there are no safetensors weights.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder}: no base model here (config.json is missing)")
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path}: expected an object of settings")
    text = {**config, **(config.get("text_config") or {})}
    if "model_type" not in text or not isinstance(text.get("vocab_size"), int):
        raise ModelError(f"{path}: not a language model's config (model_type or vocab_size is missing)")
    if config.get("is_encoder_decoder"):
        raise ModelError(
            f"{folder}: an encoder-decoder model ({text['model_type']}); Fettle fine-tunes causal language models"
        )
    if config.get("auto_map") and not config.get("model_type"):
        raise ModelError(f"{folder}: brings its own code; set trust_remote_code: true if you trust it")
    sizes = _sizes(folder) if weights else {}
    return BaseFacts(
        name=name,
        folder=folder,
        family=str(text["model_type"]),
        context=next((int(text[key]) for key in CONTEXT_KEYS if isinstance(text.get(key), int)), None),
        vocab_size=int(text["vocab_size"]),
        hidden=int(text.get("hidden_size") or text.get("n_embd") or text.get("d_model") or 0),
        layers=int(text.get("num_hidden_layers") or text.get("n_layer") or text.get("num_layers") or 0),
        parameters=sum(sizes.values()),
        weights=frozenset(sizes),
    )


def _sizes(folder: Path) -> dict[str, int]:
    """Name and number of values of each weight in the safetensors files of a folder, from their headers."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            files = sorted({folder / name for name in json.loads(index.read_text())["weight_map"].values()})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ModelError(f"{index}: not an index of weight files") from None
    else:
        files = sorted(folder.glob("*.safetensors"))
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise ModelError(f"{folder}: the weight files {', '.join(missing)} are missing")
    if not files:
        pickles = sorted(path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")))
        if pickles:
            raise ModelError(
                f"{folder}: only pickled weights here ({pickles[0]}), which can run code when opened; Fettle reads safetensors. "
                "Convert them where you trust them: AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)"
            )
        raise ModelError(f"{folder}: no weights here (model.safetensors is missing)")
    return {name: size for path in files for name, size in _header(path).items()}


def _header(path: Path) -> dict[str, int]:
    there = path.stat().st_size
    try:
        with path.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(size, there)))
        entries = {key: entry for key, entry in header.items() if key != "__metadata__"}
        whole = 8 + size + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        found: dict[str, int] = {key: math.prod(entry["shape"]) for key, entry in entries.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise ModelError(f"{path}: not a safetensors file, or one cut short ({there} bytes)") from None
    if whole != there:
        raise ModelError(f"{path}: the file is cut short ({there} of {whole} bytes); copy or download it again")
    return found
