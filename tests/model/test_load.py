"""Every LoRA key of the vocabulary changes what peft is given; saved folders open in plain peft and transformers."""

import json

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from fettle.base import find
from fettle.config import load as load_config
from fettle.errors import ModelError
from fettle.model import load


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return find(load_config({"model_type": "llm", "base_model": "fettle:pocket"}).config, tmp_path_factory.mktemp("x"))


def lora(base, **keys):
    section = load_config(
        {"model_type": "llm", "base_model": "x", "trainer": {"type": "finetune"}, "adapter": {"type": "lora", **keys}}
    ).config.adapter
    model = load.load_base(base.folder, "float32", "cpu")
    return load.add_lora(model, section, base.facts.family, base.loadable)


def trained(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def layer(model):
    return model.get_base_model().model.layers[0].self_attn.q_proj


def test_defaults(base):
    model = lora(base)
    assert layer(model).scaling["default"] == 2.0
    assert layer(model).r["default"] == 8
    assert layer(model).lora_dropout["default"].p == 0.05
    assert {name.split(".")[-4] for name in trained(model)} == {"q_proj", "v_proj"}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [({"r": 4, "alpha": 2}, 0.5), ({"r": 16, "alpha": 16, "use_rslora": True}, 4.0), ({"r": 4}, 2.0)],
)
def test_scaling(base, keys, expected):
    assert layer(lora(base, **keys)).scaling["default"] == expected


def test_all_linear_reaches_every_layer_but_the_head(base):
    names = {name.split(".")[-4] for name in trained(lora(base, target_modules="all-linear"))}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_targets_by_list_and_by_expression(base):
    assert {name.split(".")[-4] for name in trained(lora(base, target_modules=["k_proj"]))} == {"k_proj"}
    assert all("layers.1" in name for name in trained(lora(base, target_modules=r".*layers\.1\..*proj")))


def test_unknown_targets_are_refused(base):
    with pytest.raises(ModelError, match="target_modules"):
        lora(base, target_modules=["no_such_layer"])


def test_patterns(base):
    model = lora(base, target_modules=["q_proj", "v_proj"], rank_pattern={"q_proj": 2}, alpha_pattern={"q_proj": 8})
    assert layer(model).r["default"] == 2
    assert layer(model).scaling["default"] == 4.0


def test_dora_has_magnitudes(base):
    assert any("magnitude" in name for name in trained(lora(base, use_dora=True)))


@pytest.mark.parametrize("init", ["default", "gaussian", "olora", "pissa", "orthogonal"])
def test_every_start_leaves_the_model_as_it_is(base, init):
    plain = load.load_base(base.folder, "float32", "cpu")
    ids = torch.tensor([[5, 6, 7, 8]])
    model = lora(base, init_lora_weights=init, dropout=0.0).eval()
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, plain(ids).logits, atol=1e-3)
    if init in ("olora", "pissa"):
        assert layer(model).lora_B["default"].weight.abs().sum() > 0


def test_inits_differ(base):
    starts = []
    for init in ("default", "gaussian"):
        torch.manual_seed(0)
        starts.append(layer(lora(base, init_lora_weights=init)).lora_A["default"].weight)
    assert not torch.equal(*starts)


def test_layer_replication_stacks_layers(base):
    assert len(lora(base, layer_replication=[[0, 2], [1, 2]]).get_base_model().model.layers) == 3


def test_biases_train_on_request(tmp_path):
    GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=16, n_embd=8, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    section = load_config(
        {
            "model_type": "llm",
            "base_model": "x",
            "trainer": {"type": "finetune"},
            "adapter": {"type": "lora", "bias_type": "all"},
        }
    ).config.adapter
    model = load.add_lora(load.load_base(tmp_path, "float32", "cpu"), section, "gpt2", str(tmp_path))
    assert any(name.endswith("bias") for name in trained(model))


def test_an_unknown_family_gets_all_linear_layers(base):
    section = load_config(
        {"model_type": "llm", "base_model": "x", "trainer": {"type": "finetune"}, "adapter": "lora"}
    ).config.adapter
    model = load.add_lora(load.load_base(base.folder, "float32", "cpu"), section, "family_of_tomorrow", base.loadable)
    assert len({name.split(".")[-4] for name in trained(model)}) == 7


@pytest.mark.parametrize("init", ["default", "pissa", "olora"])
def test_saved_adapter_opens_in_plain_peft(base, tmp_path, init):
    model = lora(base, init_lora_weights=init, dropout=0.0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.05)
    model.eval()
    load.save(model, base.tokenizer, tmp_path / "model", {"fettle.yaml": "x: 1\n"})
    plain = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.allclose(plain(ids).logits, model(ids).logits, atol=1e-4)
    assert json.loads((tmp_path / "model/adapter_config.json").read_text())["base_model_name_or_path"] == base.loadable


def test_saved_full_weights_open_in_plain_transformers(base, tmp_path):
    model = load.load_base(base.folder, "float32", "cpu").eval()
    load.save(model, base.tokenizer.with_chat_template("{{ messages[0]['content'] }}!"), tmp_path / "model", {})
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, model(ids).logits)
    assert tokenizer("Message: x").input_ids == base.tokenizer.encode(["Message: x"], special=True)[0]
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi!"


def test_a_tokenizer_larger_than_the_model_is_refused(base, tmp_path):
    GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=16, n_embd=8, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="do not belong together"):
        load.check_fit(load.load_base(tmp_path, "float32", "cpu"), base.tokenizer)


def test_a_broken_base_says_why(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no_such_family"}')
    with pytest.raises(ModelError, match="cannot be loaded"):
        load.load_base(tmp_path, "float32", "cpu")


def test_missing_weights_are_refused_not_drawn_at_random(base, tmp_path):
    model = load.load_base(base.folder, "float32", "cpu")
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("model.layers.0.mlp.up_proj.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="1 weights are missing or of the wrong shape"):
        load.load_base(tmp_path, "float32", "cpu")
