"""Every optimizer of the vocabulary takes steps that lower a loss, with the keys of its section in force."""

import pytest
import torch

from fettle.config import load
from fettle.section import sections_in, tags
from fettle.training import optimizers
from fettle.training.config import FinetuneTrainer
from fettle.training.optimizer_config import OptimizerSection

KINDS = sorted({tag for arm in sections_in(FinetuneTrainer.model_fields["optimizer"].annotation) for tag in tags(arm)})
RATES = {"sgd": 1e-3, "sgd_8bit": 1e-3, "lars": 1e-3, "lars_8bit": 1e-3, "adadelta": 1.0, "lbfgs": 0.1}


def section(kind, **keys):
    trainer = {"type": "finetune", "optimizer": {"type": kind, **keys}}
    if kind == "schedule_free_adamw":
        trainer["learning_rate_scheduler"] = {"decay": None}
    return load({"model_type": "llm", "base_model": "x", "trainer": trainer}).config.trainer.optimizer


def problem():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 8192), torch.nn.ReLU(), torch.nn.Linear(8192, 1))
    inputs = torch.randn(64, 16)
    return model, inputs, inputs.sum(1, keepdim=True)


def descend(model, optimizer, inputs, targets, steps=12):
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        losses.append(float(loss.detach()))
        return loss.detach()

    if hasattr(optimizer, "train"):
        optimizer.train()
    for _ in range(steps):
        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    return losses


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_lowers_the_loss_and_resumes_from_its_state(kind, tmp_path):
    keys = {"momentum": 0.9} if kind == "sgd_8bit" else {}
    model, inputs, targets = problem()
    build = lambda: optimizers.build(section(kind, **keys), list(model.named_parameters()), RATES.get(kind, 1e-3))  # noqa: E731
    optimizer = build()
    losses = descend(model, optimizer, inputs, targets)
    assert losses[-1] < losses[0]
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    again = build()
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    before = [weight.detach().clone() for weight in model.parameters()]
    descend(model, optimizer, inputs, targets, steps=1)
    after = [weight.detach().clone() for weight in model.parameters()]
    with torch.no_grad():
        for weight, old in zip(model.parameters(), before, strict=True):
            weight.copy_(old)
    descend(model, again, inputs, targets, steps=1)
    for weight, expected in zip(model.parameters(), after, strict=True):
        assert torch.equal(weight, expected)


def test_there_are_the_thirty_of_the_vocabulary():
    assert len(KINDS) == 30


def test_weight_decay_is_for_matrices_only():
    model, _, _ = problem()
    groups = optimizers.build(section("adamw", weight_decay=0.5), list(model.named_parameters()), 1e-3).param_groups
    decays = {weight.ndim: group["weight_decay"] for group in groups for weight in group["params"]}
    assert decays == {2: 0.5, 1: 0.0}


def test_lora_plus_gives_b_its_own_rate():
    weights = [
        (name, torch.nn.Parameter(torch.zeros(2, 2))) for name in ("q.lora_A.default.weight", "q.lora_B.default.weight")
    ]
    groups = optimizers.build(section("adamw"), weights, 1e-3, lora_plus=16.0).param_groups
    assert sorted(group["lr"] for group in groups) == pytest.approx([1e-3, 16e-3])


def test_muon_takes_hidden_matrices_only():
    names = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "lm_head.weight"]
    weights = [(name, torch.nn.Parameter(torch.zeros(4, 4))) for name in names] + [
        ("norm", torch.nn.Parameter(torch.zeros(4)))
    ]
    optimizer = optimizers.build(section("muon"), weights, 1e-3)
    muon, adamw = optimizer.parts
    assert [id(w) for group in muon.param_groups for w in group["params"]] == [id(weights[1][1])]
    assert sum(len(group["params"]) for group in adamw.param_groups) == 3


def test_every_section_has_weight_decay_but_those_without():
    arms = sections_in(FinetuneTrainer.model_fields["optimizer"].annotation)
    assert {arm.__name__ for arm in arms if not issubclass(arm, OptimizerSection)} == {"Lbfgs", "Adafactor"}
