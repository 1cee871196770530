"""Accelerated models stay the models they were: restored, copied, saved, merged, generating, in every precision."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from fettle.hardware.allocator import keep_memory
from fettle.model.fast import PackedBatch, accelerate, packed_loss, packed_outcome, restore
from fettle.model.fast import loss as loss_module
from fettle.model.fast.cross_entropy import fused_cross_entropy, head_outcome
from fettle.model.fast.exchange import fast_model
from fettle.model.fast.linear import Weights, project, project_onto

VOCABULARY = 97
# peft still reads a name that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


def tiny(family: str = "llama", **changes: Any) -> nn.Module:
    """A random model of two layers."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    if family != "gpt2":
        sizes |= {"num_key_value_heads": 2, "head_dim": 8}
    marks = {"max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**(sizes | marks | changes)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def with_lora(model: nn.Module, **changes: Any) -> PeftModel:
    wrapped = get_peft_model(
        model,
        LoraConfig(**({"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | changes)),
    )
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return wrapped


@pytest.fixture
def batch() -> PackedBatch:
    draw = torch.Generator().manual_seed(1)
    rows = [
        (torch.randint(3, VOCABULARY, (n,), generator=draw), torch.rand(n, generator=draw) < 0.5) for n in (9, 1, 14, 6)
    ]
    return PackedBatch.from_examples(rows)


def gradients(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def plain_and_fast(model: nn.Module, batch: PackedBatch) -> tuple[Any, Any]:
    """(loss, gradients) before and after acceleration."""
    before = packed_loss(model, batch)
    plain = before.detach(), gradients(model, before)
    assert accelerate(model)
    after = packed_loss(model, batch)
    return plain, (after.detach(), gradients(model, after))


def takes_fast_way(model: nn.Module, batch: PackedBatch, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the next loss comes from exchanged layers."""
    taken: list[bool] = []
    with monkeypatch.context() as patch:
        original = loss_module.labelled_logits
        patch.setattr(loss_module, "labelled_logits", lambda *a: taken.append(False) or original(*a))
        packed_loss(model, batch)
    return not taken


def test_float32_loss_and_gradients(batch: PackedBatch) -> None:
    plain, fast = plain_and_fast(with_lora(tiny()), batch)
    torch.testing.assert_close(fast[0], plain[0], rtol=1e-5, atol=1e-5)
    for name, gradient in plain[1].items():
        torch.testing.assert_close(
            fast[1][name], gradient, rtol=1e-4, atol=1e-5 * max(1.0, gradient.abs().max().item())
        )


@pytest.mark.parametrize("adapters", [torch.float32, torch.bfloat16])
def test_bfloat16_is_close_to_float32(adapters: torch.dtype, batch: PackedBatch) -> None:
    exact = with_lora(tiny("qwen2"))
    low = copy.deepcopy(exact).bfloat16()
    for name, parameter in low.named_parameters():
        if "lora" in name:
            parameter.data = parameter.data.to(adapters)
    want = gradients(exact, packed_loss(exact, batch))
    assert accelerate(low)
    loss = packed_loss(low, batch)
    got = gradients(low, loss)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(packed_loss(exact, batch).item(), rel=0.02)
    for name, gradient in want.items():
        assert got[name].dtype == adapters
        assert F.cosine_similarity(got[name].float().flatten(), gradient.flatten(), dim=0) > 0.98


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
@pytest.mark.parametrize("lora", [False, True])
def test_autocast_keeps_master_weights(lora: bool, family: str, batch: PackedBatch) -> None:
    model = with_lora(tiny(family)) if lora else tiny(family, tie_word_embeddings=True)
    exact = gradients(model, packed_loss(model, batch))
    assert accelerate(model)
    with torch.autocast("cpu", torch.bfloat16):
        loss = packed_loss(model, batch)
    got = gradients(model, loss)
    for name, gradient in exact.items():
        assert got[name].dtype == torch.float32
        assert F.cosine_similarity(got[name].flatten(), gradient.flatten(), dim=0) > 0.98


def test_dropout_of_adapters_has_the_right_mean(batch: PackedBatch) -> None:
    """With p given, kept elements are scaled by 1 / (1 - p): over many draws the mean is the layer without dropout."""
    torch.manual_seed(0)
    x, weight, down, up = torch.randn(3, 8), torch.randn(5, 8), torch.randn(2, 8), torch.randn(5, 2)
    layer = Weights(weight, None, down, up, 0.5, 0.25)
    draws = torch.stack([project(x, [layer, layer])[1] for _ in range(4000)])
    torch.testing.assert_close(draws.mean(0), x @ (weight + 0.5 * up @ down).T, rtol=0.1, atol=0.15)
    model = with_lora(tiny(), lora_dropout=0.5).train()
    assert accelerate(model)
    torch.manual_seed(0)
    first, second = packed_loss(model, batch), packed_loss(model, batch)
    assert first.item() != second.item()
    assert packed_loss(model.eval(), batch).item() == packed_loss(model, batch).item()


def test_linear_gradients_numerically() -> None:
    torch.manual_seed(0)
    shapes = [(4, 5), (4, 3), (3, 5), (3,), (2, 5), (3, 2), (4, 3), (3, 3)]
    tensors = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def run(x: Any, residual: Any, weight: Any, bias: Any, down: Any, up: Any, y: Any, square: Any) -> Any:
        one, two = project(x, [Weights(weight, bias, down, up, 0.7), Weights(weight, None)])
        return one + two, project_onto(residual, y, Weights(square, None))

    assert torch.autograd.gradcheck(run, tensors)


@pytest.mark.parametrize("rows", [1, 64, 200])
def test_fused_cross_entropy_over_several_chunks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fettle.model.fast.cross_entropy.chunk_rows", lambda *_: 64)
    torch.manual_seed(0)
    hidden = torch.randn(rows, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 8, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(11, (rows,))
    want = F.cross_entropy(hidden @ weight.T, labels, reduction="sum")
    got = fused_cross_entropy(hidden, weight, labels)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(3 * got, (hidden, weight)), torch.autograd.grad(3 * want, (hidden, weight))
    )
    loss, correct = head_outcome(hidden, weight, labels)
    torch.testing.assert_close(loss, want.detach())
    assert correct == ((hidden @ weight.T).argmax(-1) == labels).sum()


def test_frozen_first_layer_gets_no_input_gradient(batch: PackedBatch) -> None:
    """Embeddings are frozen under LoRA: nothing may be kept to reach them, and a frozen head has no gradient."""
    model = with_lora(tiny())
    accelerate(model)
    gradients(model, packed_loss(model, batch))
    assert all(p.grad is None for name, p in model.named_parameters() if "lora" not in name)


def test_restore_puts_everything_back(batch: PackedBatch) -> None:
    model = with_lora(tiny())
    before = packed_loss(model, batch)
    keys = list(model.state_dict())
    assert accelerate(model)
    assert accelerate(model) == []
    assert list(model.state_dict()) == keys
    restore(model)
    restore(model)
    assert fast_model(model) is None
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert torch.equal(packed_loss(model, batch), before)
    assert accelerate(model)


def test_other_models_stay_untouched() -> None:
    model, other = tiny(), tiny()
    accelerate(model)
    assert not any("forward" in module.__dict__ for module in other.modules())


def test_copies_are_independent(batch: PackedBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_lora(tiny())
    accelerate(model)
    before = packed_loss(model, batch).item()
    duplicate = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in duplicate.parameters():
            parameter.mul_(0.5)
    assert takes_fast_way(duplicate, batch, monkeypatch)
    assert packed_loss(duplicate, batch).item() != pytest.approx(before)
    assert packed_loss(model, batch).item() == before


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
def test_generation_is_untouched(family: str) -> None:
    model = with_lora(tiny(family)).eval()
    ids = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]])
    inputs = {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "max_new_tokens": 12,
        "do_sample": False,
        "pad_token_id": 0,
    }
    before = model.generate(**inputs, output_scores=True, return_dict_in_generate=True)
    logits = model(input_ids=ids, attention_mask=(ids != 0).long()).logits
    accelerate(model)
    after = model.generate(**inputs, output_scores=True, return_dict_in_generate=True)
    assert torch.equal(before.sequences, after.sequences)
    assert all(torch.equal(a, b) for a, b in zip(before.scores, after.scores, strict=True))
    assert torch.equal(model(input_ids=ids, attention_mask=(ids != 0).long()).logits, logits)


def test_saved_while_accelerated(tmp_path: Path, batch: PackedBatch) -> None:
    full = tiny()
    accelerate(full)
    full.save_pretrained(tmp_path / "full")
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "full")
    torch.testing.assert_close(packed_loss(reloaded, batch), packed_loss(full, batch))
    adapted = with_lora(tiny())
    accelerate(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(tiny(), tmp_path / "adapter")
    torch.testing.assert_close(packed_loss(again, batch), packed_loss(adapted, batch))


def test_disabled_merged_and_switched_adapters(batch: PackedBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    base_loss = packed_loss(tiny(), batch).item()
    model = with_lora(tiny())
    model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    own = packed_loss(model, batch).item()
    accelerate(model)
    with model.disable_adapter():
        assert takes_fast_way(model, batch, monkeypatch)
        assert packed_loss(model, batch).item() == pytest.approx(base_loss, rel=1e-5)
    model.set_adapter("other")  # its B is zero: the base model
    assert packed_loss(model, batch).item() == pytest.approx(base_loss, rel=1e-5)
    model.set_adapter("default")
    model.merge_adapter()
    assert packed_loss(model, batch).item() == pytest.approx(own, rel=1e-5)
    model.unmerge_adapter()
    assert packed_loss(model, batch).item() == pytest.approx(own, rel=1e-5)
    model.base_model.set_adapter(["default", "other"])  # two at once are left to peft
    assert not takes_fast_way(model, batch, monkeypatch)
    assert packed_loss(model, batch).item() == pytest.approx(own, rel=1e-5)


@pytest.mark.parametrize("change", ["dropout", "hook"])
def test_what_would_not_be_exact_takes_the_plain_way(
    change: str, batch: PackedBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny().train()
    accelerate(model)
    assert takes_fast_way(model, batch, monkeypatch)
    if change == "dropout":
        model.model.layers[0].self_attn.attention_dropout = 0.1
    else:
        model.model.layers[1].mlp.up_proj.register_forward_hook(lambda module, args, out: out * 2)
    assert not takes_fast_way(model, batch, monkeypatch)


UNKNOWN: dict[str, Callable[[], nn.Module]] = {
    "another family": lambda: tiny("gpt2"),
    "softcapped attention": lambda: tiny("gemma2"),
    "softcapped logits": lambda: tiny("gemma3_text", final_logit_softcapping=5.0),
    "dora": lambda: with_lora(tiny(), use_dora=True),
    "bias in adapters": lambda: with_lora(tiny(mlp_bias=True), target_modules=["up_proj"], lora_bias=True),
}


@pytest.mark.parametrize("make", UNKNOWN.values(), ids=UNKNOWN)
def test_unknown_parts_are_left_alone(make: Callable[[], nn.Module], batch: PackedBatch) -> None:
    model = make()
    assert accelerate(model) == []
    assert fast_model(model) is None
    assert packed_loss(model, batch).isfinite()


def test_outcome_while_accelerated_has_no_graph(batch: PackedBatch) -> None:
    model = tiny().eval()
    plain = packed_outcome(model, batch)
    accelerate(model)
    loss, correct = packed_outcome(model, batch)
    assert not loss.requires_grad
    torch.testing.assert_close((loss, correct), plain)


def test_allocator_keeps_memory() -> None:
    assert keep_memory() is (platform.libc_ver()[0] == "glibc")
