"""The logits of packed examples are those of the same examples alone."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from fettle.model.fast import PackedBatch
from fettle.model.fast.packing import Way, labelled_logits, packing_way

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MODELS = {
    "llama": lambda **own: LlamaForCausalLM(LlamaConfig(vocab_size=60, **SIZES, **own)),
    "qwen2": lambda **own: Qwen2ForCausalLM(Qwen2Config(vocab_size=60, **SIZES, **own)),
    "gpt2": lambda **own: GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, **own)),
}
LENGTHS = (7, 1, 12, 3, 20)


def examples():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(60, (length,), generator=generator) for length in LENGTHS]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", MODELS)
def test_packed_equals_alone(family, attention):
    torch.manual_seed(0)
    model = MODELS[family](attn_implementation=attention).eval()
    rows = examples()
    batch = PackedBatch.from_examples([(ids.numpy(), [True] * len(ids)) for ids in rows])
    with torch.no_grad():
        packed_MV = torch.cat([logits for logits, _ in labelled_logits(model, batch)])
        alone_MV = torch.cat([model(ids[None], use_cache=False).logits[0, :-1] for ids in rows if len(ids) > 1])
    assert packing_way(model) is Way.PACKED
    assert packed_MV.shape == alone_MV.shape
    assert torch.allclose(packed_MV, alone_MV, atol=1e-5)


def test_a_row_does_not_see_its_neighbours():
    torch.manual_seed(0)
    model = MODELS["llama"]().eval()
    rows = examples()
    with torch.no_grad():
        first = next(logits for logits, _ in labelled_logits(model, _pack(rows)))
        rows[0] = (rows[0] + 1) % 60
        changed = next(logits for logits, _ in labelled_logits(model, _pack(rows)))
    own = LENGTHS[0] - 1
    assert not torch.allclose(first[:own], changed[:own], atol=1e-3)
    assert torch.allclose(first[own:], changed[own:], atol=1e-6)


def _pack(rows):
    return PackedBatch.from_examples([(ids.numpy(), [True] * len(ids)) for ids in rows])
