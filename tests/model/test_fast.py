"""The fast path against the plain one: the same loss and gradients, for every family, and no example sees another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from fettle.model.fast import PackedBatch, accelerate, packed_loss, packed_outcome
from fettle.model.fast import attention as attention_module
from fettle.model.fast import loss as loss_module
from fettle.model.fast.packing import Way, packing_way

VOCABULARY = 97
# peft and older transformers know activation checkpointing by a name that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GQA = {"num_key_value_heads": 2}
KNOWN: dict[str, dict[str, Any]] = {
    "llama": GQA,
    "mistral": GQA | {"sliding_window": 5, "head_dim": 8},
    "qwen2": GQA
    | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "tie_word_embeddings": True},
    "qwen3": GQA | {"head_dim": 16},
    "gemma": GQA | {"head_dim": 8},
    "gemma3_text": GQA
    | {"head_dim": 8, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
}
OTHERS: dict[str, dict[str, Any]] = {
    "gemma2": GQA | {"head_dim": 8, "sliding_window": 5, "final_logit_softcapping": 2.0},
    "phi3": GQA,
    "phi": {},
    "gpt2": {"n_positions": 64},
    "gpt_neox": {},
    "gptj": {"rotary_dim": 4},
    "gpt_neo": {"num_layers": 3, "attention_types": [[["global", "local", "local"], 1]], "window_size": 5},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "bloom": {"n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2},
    "cohere": GQA | {"logit_scale": 0.3},
    "granite": GQA | {"logits_scaling": 3.0},
    "olmo2": GQA,
    "mixtral": GQA | {"num_local_experts": 4, "sliding_window": None, "experts_implementation": "eager"},
    "mamba": {"state_size": 4},
}
LENGTHS = (9, 1, 14, 6, 3)


def tiny(family: str, **changes: Any) -> nn.Module:
    """A random model with weights large enough that a leak would show."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**(SIZES | KNOWN.get(family, {}) | OTHERS.get(family, {}) | changes))
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.double().eval()


def with_lora(model: nn.Module, targets: Any = "all-linear", **changes: Any) -> PeftModel:
    settings = {"r": 4, "lora_alpha": 8, "target_modules": targets, "task_type": "CAUSAL_LM"} | changes
    wrapped = get_peft_model(model, LoraConfig(**settings))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return wrapped


def examples(lengths: tuple[int, ...] = LENGTHS) -> list[tuple[list[int], list[bool]]]:
    draw = torch.Generator().manual_seed(1)
    made = []
    for length in lengths:
        ids = torch.randint(3, VOCABULARY, (length,), generator=draw).tolist()
        made.append((ids, (torch.rand(length, generator=draw) < 0.5).tolist()))
    return made


def plain_loss(model: nn.Module, rows: list[tuple[list[int], list[bool]]]) -> torch.Tensor:
    """One example at a time through the model's own forward: the truth."""
    total = torch.zeros((), dtype=torch.float64)
    for ids, mask in rows:
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].to(torch.float64)
        labels, trained = torch.tensor(ids[1:], dtype=torch.int64), torch.tensor(mask[1:], dtype=torch.bool)
        total = total + F.cross_entropy(logits[trained], labels[trained], reduction="sum")
    return total


def gradients(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_training(model: nn.Module, tolerance: float = 1e-6, lengths: tuple[int, ...] = LENGTHS) -> None:
    """packed_loss and its gradients against the truth, on the model as it is."""
    rows = examples(lengths)
    got = packed_loss(model, PackedBatch.from_examples(rows))
    got_gradients = gradients(model, got)
    want = plain_loss(model, rows)
    want_gradients = gradients(model, want)
    assert got.item() == pytest.approx(want.item(), rel=tolerance)
    assert got_gradients.keys() == want_gradients.keys()
    for name, gradient in want_gradients.items():
        scale = gradient.abs().max().item() + 1e-12
        assert (got_gradients[name] - gradient).abs().max().item() <= 10 * tolerance * max(scale, 1e-3), name


@contextmanager
def fast_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail if the loss takes the plain way."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the plain way was taken")

    with monkeypatch.context() as patch:
        patch.setattr(loss_module, "labelled_logits", refuse)
        yield


# --- batches


def test_batch_lays_examples_end_to_end() -> None:
    batch = PackedBatch.from_examples([([5, 6, 7], [True, False, True]), ([8, 9], [1, 1])])
    assert batch.input_ids_1N.tolist() == [[5, 6, 7, 8, 9]]
    assert batch.position_ids_1N.tolist() == [[0, 1, 2, 0, 1]]
    assert batch.lengths == (3, 2)
    assert batch.predictors_M.tolist() == [1, 3]
    assert batch.labels_M.tolist() == [7, 9]


def test_batch_split_keeps_every_label_in_place() -> None:
    batch = PackedBatch.from_examples(examples())
    parts = list(batch.split(15))
    assert [part.lengths for part in parts] == [(9, 1), (14,), (6, 3)]
    assert torch.cat([part.labels_M for part in parts]).tolist() == batch.labels_M.tolist()
    for part in parts:
        assert part.input_ids_1N[0, part.predictors_M + 1].tolist() == part.labels_M.tolist()


@pytest.mark.parametrize("rows", [[], [([], [])], [([1, 2], [True])]])
def test_batch_refuses_what_is_no_example(rows: Any) -> None:
    with pytest.raises(ValueError, match="example"):
        PackedBatch.from_examples(rows)


# --- any model, not accelerated


@pytest.mark.parametrize("family", [*KNOWN, *OTHERS])
def test_plain_way_equals_examples_alone(family: str) -> None:
    assert_same_training(tiny(family))


@pytest.mark.parametrize("family", KNOWN)
def test_plain_way_with_eager_attention(family: str) -> None:
    model = tiny(family)
    model.set_attn_implementation("eager")
    assert_same_training(model)


@pytest.mark.parametrize(
    ("family", "way"),
    [
        ("llama", Way.PACKED),
        ("gpt_neo", Way.PACKED),
        ("opt", Way.PADDED),
        ("bloom", Way.PADDED),
        ("mpt", Way.PADDED),
        ("mamba", Way.PADDED),
    ],
)
def test_way_is_found(family: str, way: Way) -> None:
    assert packing_way(tiny(family)) is way


def test_leaking_model_is_found_out() -> None:
    """A model that ignores position_ids for its mask must not be given packed rows."""
    model = tiny("llama")
    original = type(model).forward

    def leaky(self: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return original(self, **kwargs)

    model.forward = leaky.__get__(model)
    assert packing_way(model) is Way.PADDED


def test_trial_leaves_no_trace() -> None:
    model = tiny("llama").train()
    state = torch.get_rng_state()
    packing_way(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())


def test_rows_longer_than_a_causal_table_are_split() -> None:
    assert_same_training(tiny("gpt_neo"), lengths=(40, 30, 50))


def test_dynamic_rope_is_not_packed_beyond_its_length() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert_same_training(tiny("llama", max_position_embeddings=16, rope_parameters=rope), lengths=(8, 30, 5))


def test_virtual_tokens_are_run_alone() -> None:
    model = get_peft_model(tiny("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)).double()
    assert packing_way(model) is Way.ALONE
    rows = [row for row in examples() if any(row[1][1:])]
    total = torch.zeros((), dtype=torch.float64)
    for ids, mask in rows:
        logits = model(input_ids=torch.tensor([ids])).logits[0, 3:-1]
        trained = torch.tensor(mask[1:])
        total += F.cross_entropy(logits[trained], torch.tensor(ids[1:])[trained], reduction="sum")
    assert packed_loss(model, PackedBatch.from_examples(rows)).item() == pytest.approx(total.item(), rel=1e-9)


# --- accelerated


@pytest.mark.parametrize("family", KNOWN)
def test_accelerated_full_training_is_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(family)
    assert accelerate(model)
    with fast_only(monkeypatch):
        assert_same_training(model)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"], ["down_proj", "k_proj"]])
@pytest.mark.parametrize("family", KNOWN)
def test_accelerated_lora_is_the_same(family: str, targets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_lora(tiny(family), targets)
    assert accelerate(model)
    with fast_only(monkeypatch):
        assert_same_training(model)


def test_rank_and_alpha_patterns_and_rslora(monkeypatch: pytest.MonkeyPatch) -> None:
    patterns = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}, "use_rslora": True}
    model = with_lora(tiny("llama"), **patterns)
    assert accelerate(model)
    with fast_only(monkeypatch):
        assert_same_training(model)


def test_head_and_embeddings_that_train_beside_lora(monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_lora(tiny("llama"), ["q_proj"], modules_to_save=["lm_head", "embed_tokens"])
    assert accelerate(model)
    with fast_only(monkeypatch):
        assert_same_training(model)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("lora", [False, True])
def test_activation_checkpointing(lora: bool, reentrant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("qwen3")
    model = with_lora(model) if lora else model
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.enable_input_require_grads()
    calls = count_checkpoints(model, monkeypatch)
    assert accelerate(model)
    with fast_only(monkeypatch):
        assert_same_training(model)
    assert calls.count("packed") == 3


def count_checkpoints(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    for module in model.modules():
        function: Callable[..., Any] | None = module.__dict__.get("_gradient_checkpointing_func")
        if function is not None and "DecoderLayer" in type(module).__name__:

            def counted(run: Any, *args: Any, function: Any = function) -> Any:
                calls.append("packed" if run.func.__name__ == "_packed_layer" else "plain")
                return function(run, *args)

            monkeypatch.setattr(module, "_gradient_checkpointing_func", counted)
    return calls


def test_accumulation_adds_up() -> None:
    model = with_lora(tiny("llama"))
    accelerate(model)
    rows = examples()
    whole = gradients(model, packed_loss(model, PackedBatch.from_examples(rows)))
    model.zero_grad()
    for part in PackedBatch.from_examples(rows).split(15):
        packed_loss(model, part).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, whole[name])


def test_long_examples_go_through_scaled_dot_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_module, "LONGEST_EXPLICIT", 4)
    monkeypatch.setattr(attention_module, "_attention", None)
    for family in ("mistral", "gemma3_text"):
        model = with_lora(tiny(family))
        accelerate(model)
        assert_same_training(model)


@pytest.mark.parametrize("family", KNOWN)
def test_own_attention_as_on_gpus(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_lora(tiny(family))
    accelerate(model)
    call = loss_module.Call
    monkeypatch.setattr(loss_module, "Call", lambda batch, own_attention, outcome: call(batch, True, outcome))
    with fast_only(monkeypatch):
        assert_same_training(model)


def test_batch_without_labels_gives_zero() -> None:
    for fast in (False, True):
        model = tiny("llama")
        if fast:
            accelerate(model)
        loss = packed_loss(model, PackedBatch.from_examples([([3, 4, 5], [True, False, False])]))
        loss.backward()
        assert loss.item() == 0.0


def test_outcome_counts_right_labels() -> None:
    rows = examples()
    batch = PackedBatch.from_examples(rows)
    model = tiny("qwen2")
    want_loss = plain_loss(model, rows).item()
    right = sum(
        int(
            (model(input_ids=torch.tensor([ids])).logits[0, :-1].argmax(-1) == torch.tensor(ids[1:]))[
                torch.tensor(mask[1:], dtype=torch.bool)
            ].sum()
        )
        for ids, mask in rows
    )
    for _ in range(2):  # plain, then fast
        loss, correct = packed_outcome(model, batch)
        assert loss.item() == pytest.approx(want_loss, rel=1e-9)
        assert correct.item() == right
        assert not loss.requires_grad
        accelerate(model)


def test_padding_that_fills_a_window_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """With eager attention a window full of padding turns to NaN, in real tokens too, layers later."""
    model = tiny("mistral")
    model.set_attn_implementation("eager")
    monkeypatch.setattr("fettle.model.fast.packing.packing_way", lambda _: Way.PADDED)
    assert_same_training(model)
