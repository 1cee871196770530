"""Make `fettle:pocket`: a tokenizer, a Llama to start from, and at the end the folder that travels with the package.

    python recipes/pocket/corpus.py --data DATA --out corpus
    python recipes/pocket/make_pocket.py start --corpus corpus --out start
    fettle train --config recipes/pocket/pretrain.yaml
    fettle train --config recipes/pocket/chat.yaml
    python recipes/pocket/make_pocket.py ship --model results/pocket_chat/model --out src/fettle/model/pocket

Everything is seeded. README.md beside this file tells the whole story.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

VOCAB_SIZE = 4096
MAX_LENGTH = 1024
EMBEDDING_STD = 0.04
LAYERS = 4
PAD_TOKEN, START_TOKEN, EOS_TOKEN = SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{%- for message in messages -%}\n"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}\n"
    "{%- if message['role'] == 'assistant' -%}\n"
    "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}\n"
    "{%- else -%}\n"
    "{{- message['content'] + '<|im_end|>' -}}\n"
    "{%- endif -%}\n"
    "{{- '\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "{{- '<|im_start|>assistant\\n' -}}\n"
    "{%- endif -%}\n"
)


def read_texts(corpus: Path) -> Iterator[str]:
    """The documents that are trained on."""
    with (corpus / "pretrain.jsonl").open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)["text"]


def train_tokenizer(texts: Iterator[str]) -> Tokenizer:
    """Byte-level BPE with single digits; all 256 bytes are in the vocabulary, so every text survives a round trip."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def tokenizer_settings() -> dict[str, Any]:
    """What tokenizer_config.json says. No begin-of-text token is ever added."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": EOS_TOKEN,
        "pad_token": PAD_TOKEN,
        "additional_special_tokens": [START_TOKEN],
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": MAX_LENGTH,
        "padding_side": "right",
    }


def model_settings(tokenizer: Tokenizer) -> dict[str, Any]:
    """What config.json says, in the spelling which old and new transformers releases both read."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 256,
        "intermediate_size": 640,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "hidden_act": "silu",
        "max_position_embeddings": MAX_LENGTH,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "initializer_range": EMBEDDING_STD,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id(EOS_TOKEN),
        "pad_token_id": tokenizer.token_to_id(PAD_TOKEN),
        "torch_dtype": "float32",
    }


def spread(name: str, shape: torch.Size) -> float:
    """Standard deviation of a matrix; what writes into the residual stream starts smaller, for every layer adds to it."""
    if "embed_tokens" in name:
        return EMBEDDING_STD
    scale = (2 * LAYERS) ** -0.5 if "o_proj" in name or "down_proj" in name else 1.0
    return float(scale * shape[1] ** -0.5)


def random_weights(settings: dict[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """Norms start at one, all else is normal noise; drawn here, so that a new transformers release changes nothing."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in LlamaForCausalLM(LlamaConfig(**settings)).state_dict().items()}
    shapes.pop("lm_head.weight")  # tied to the embedding
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.ones(shape) if "norm" in name else torch.randn(shape, generator=generator) * spread(name, shape)
        for name, shape in sorted(shapes.items())
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Indented, with a final newline."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def write_start(folder: Path, corpus: Path, seed: int) -> None:
    """Write a model folder with random weights and the tokenizer of the corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(read_texts(corpus))
    settings = model_settings(tokenizer)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", tokenizer_settings())
    write_json(folder / "config.json", settings)
    write_json(
        folder / "generation_config.json",
        {"do_sample": False, "eos_token_id": settings["eos_token_id"], "pad_token_id": settings["pad_token_id"]},
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8", newline="\n")
    (folder / "model.safetensors").write_bytes(save(random_weights(settings, seed), metadata={"format": "pt"}))


def ship(model: Path, start: Path, folder: Path) -> None:
    """Write what travels with the package: the files of the start with the trained weights in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        shutil.copyfile(start / name, folder / name)
    settings = json.loads((start / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", settings | {"torch_dtype": "bfloat16"})
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(model / "model.safetensors").items()}
    weights.pop("lm_head.weight", None)  # tied to the embedding
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))


def main() -> None:
    """Read the command line, and write the folder that it asks for."""
    parser = argparse.ArgumentParser(description="Make fettle:pocket.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    first = verbs.add_parser("start", help="tokenizer and random weights")
    first.add_argument("--corpus", type=Path, required=True)
    first.add_argument("--seed", type=int, default=7)
    last = verbs.add_parser("ship", help="what travels with the package")
    last.add_argument("--model", type=Path, required=True)
    last.add_argument("--start", type=Path, default=Path("start"))
    for verb in (first, last):
        verb.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.verb == "start":
        write_start(args.out, args.corpus, args.seed)
    else:
        ship(args.model, args.start, args.out)


if __name__ == "__main__":
    main()
