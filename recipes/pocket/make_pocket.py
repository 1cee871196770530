"""Write the pocket model: a tiny Llama with random weights and its own tokenizer, as a plain Hugging Face folder.

It knows nothing until it is trained. It is there so that the quickstart and the tests can run a real fine-tuning,
from first step to exported folder, on two CPU cores and without a download. The same seed, tickets file and library
versions give the same bytes.

Run: python recipes/pocket/make_pocket.py [--out FOLDER] [--tickets FILE] [--seed N]
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[2]
VOCAB_SIZE = 1536
MAX_LENGTH = 512
EMBEDDING_STD = 0.1
QUERY_KEY_SCALE = 0.1
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


def read_texts(tickets: Path) -> Iterator[str]:
    """Both columns of the tickets file, row by row."""
    for line in tickets.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield row["message"]
        yield row["answer"]


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
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
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
    """Standard deviation of a matrix. Small queries and keys let attention begin as a plain average over the text.

    From there, a thousand rows are enough to learn which words matter; from sharp random attention they are learned
    by heart instead.
    """
    if "embed_tokens" in name:
        return EMBEDDING_STD
    scale = QUERY_KEY_SCALE if "q_proj" in name or "k_proj" in name else 1.0
    return scale * shape[1] ** -0.5


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


def write_pocket(folder: Path, tickets: Path, seed: int) -> None:
    """Write all files of the model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(read_texts(tickets))
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


def main() -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "src/fettle/model/pocket")
    parser.add_argument("--tickets", type=Path, default=ROOT / "examples/quickstart/tickets.jsonl")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    write_pocket(args.out, args.tickets, args.seed)


if __name__ == "__main__":
    main()
