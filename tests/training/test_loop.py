"""The loop: equal to a plain unpacked reference, resumable bit for bit, and honest when it stops."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fettle import Callback, Model
from fettle.base import find
from fettle.config import load
from fettle.data import pack
from fettle.errors import DataError, DivergedError, OutOfMemoryError
from fettle.prepare import Rows, Sources
from fettle.training.callbacks import read_metrics
from fettle.training.encoded import encoded_rows
from fettle.training.loop import Loop
from fettle.training.schedule import factor
from tests.training.conftest import config, rows

LORA = {"type": "lora", "r": 4, "dropout": 0.0}


def steps_of(results):
    records = read_metrics(Path(results.output_directory) / "metrics.jsonl")
    return [record for record in records if "learning_rate" in record]


def reference_losses(section, data, tmp_path):
    """Each example alone, no packing, plain torch: the mean over the labelled tokens of every step."""
    loaded = load(section)
    base = find(loaded.config, tmp_path)
    rows = Rows(loaded.config, Sources(whole=data), tmp_path, base.tokenizer, base.facts.context, 42)
    split = encoded_rows(rows).splits["training"]
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    if section["adapter"]:
        torch.manual_seed(42)
        targets = ["q_proj", "v_proj"]
        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))
    model.train()
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    matrices = [weight for weight in trained.values() if weight.ndim >= 2]
    vectors = [weight for weight in trained.values() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=1e-3)
    orders = [pack.order(len(split), epoch, 42, True) for epoch in range(2)]
    plan = [order[start : start + 8] for order in orders for start in range(0, len(order), 8)]
    losses = []
    for step, part in enumerate(plan):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * factor(loaded.config.trainer.learning_rate_scheduler, step, len(plan), 1e-3, 0)
        total, count = 0.0, 0
        for row in part:
            ids, mask = split.example(row)
            ids_1T = torch.tensor(ids.tolist())[None]
            labels_1T = torch.where(torch.tensor(mask.tolist())[None], ids_1T, -100)
            logits = model(ids_1T).logits[0, :-1]
            total = total + torch.nn.functional.cross_entropy(
                logits, labels_1T[0, 1:], ignore_index=-100, reduction="sum"
            )
            count += int((labels_1T[0, 1:] != -100).sum())
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(total.detach()) / count)
    return losses


@pytest.mark.parametrize("fast", ["auto", "off"])
@pytest.mark.parametrize("adapter", [None, {**LORA, "target_modules": ["q_proj", "v_proj"]}], ids=["full", "lora"])
def test_losses_equal_a_plain_unpacked_reference_at_every_step(run, data, tmp_path, adapter, fast):
    section = config(adapter=adapter, epochs=2, fast=fast)
    _, results = run(section)
    losses = [record["loss"] for record in steps_of(results)]
    expected = reference_losses(section, data, tmp_path)
    assert len(losses) == 12
    assert losses == pytest.approx(expected, abs=1e-4)


def test_the_loss_does_not_depend_on_how_rows_are_packed(run):
    whole = [record["loss"] for record in steps_of(run(config())[1])]
    alone = [record["loss"] for record in steps_of(run(config(batch_size=1))[1])]
    some = [record["loss"] for record in steps_of(run(config(gradient_accumulation_steps=4))[1])]
    assert alone == pytest.approx(whole, abs=1e-5)
    assert some == pytest.approx(whole, abs=1e-5)


def test_golden_losses(run):
    losses = [record["loss"] for record in steps_of(run(config())[1])]
    assert losses == pytest.approx(GOLDEN, abs=2e-3)


GOLDEN = [4.3333, 2.6577, 2.4490, 1.6742, 1.7659, 1.3291]


class StopAt(Callback):
    """Kills the process's run at a step, as a power cut would."""

    def __init__(self, step):
        self.step = step

    def on_step(self, record):
        if record["step"] == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("adapter", [None, {**LORA, "dropout": 0.3}], ids=["full", "lora with dropout"])
def test_a_stopped_run_resumes_to_the_same_weights_bit_for_bit(run, adapter):
    section = config(adapter=adapter, epochs=3)
    _, straight = run(section)
    with pytest.raises(KeyboardInterrupt):
        run(section, experiment_name="stopped", callbacks=[StopAt(9)])
    stopped = Path(straight.output_directory).parent / "stopped_run"
    assert not (stopped / "model").exists()
    _, resumed = run(section, model_resume_path=stopped)
    name = "adapter_model.safetensors" if adapter else "model.safetensors"
    expected, found = (load_file(Path(one.output_directory) / "model" / name) for one in (straight, resumed))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    losses = [[record["loss"] for record in steps_of(one)] for one in (straight, resumed)]
    assert losses[0] == losses[1]


COMMAND = [sys.executable, "-m", "fettle", "train"]


def start(tmp_path, data, **trainer):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config(**trainer)))
    command = [*COMMAND, "--config", str(path), "--dataset", str(data), "--output_directory", str(tmp_path / "results")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(path, lines, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if path.is_file() and len(path.read_text().split("\n")) > lines:
            return
        time.sleep(0.05)
    raise AssertionError(process.stdout.read())


def test_kill_minus_nine_then_resume_ends_with_the_same_weights(tmp_path, data):
    long = {"epochs": 8, "steps_per_checkpoint": 3, "early_stop": -1}
    process = start(tmp_path, data, **long)
    wait_for(tmp_path / "results/experiment_run/metrics.jsonl", 12, process)
    process.kill()
    process.communicate()
    resume = subprocess.run(
        [*COMMAND, "--resume", str(tmp_path / "results/experiment_run")], capture_output=True, text=True, check=False
    )
    assert resume.returncode == 0, resume.stderr
    assert "resumed from" in resume.stderr
    straight = start(tmp_path, data, **long)
    assert straight.communicate()[0] is not None
    weights = [load_file(tmp_path / f"results/experiment_run{end}/model/model.safetensors") for end in ("", "_1")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_ctrl_c_saves_a_checkpoint_and_says_how_to_go_on(tmp_path, data):
    process = start(tmp_path, data, epochs=400, early_stop=-1)
    wait_for(tmp_path / "results/experiment_run/metrics.jsonl", 10, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in output
    checkpoints = sorted((tmp_path / "results/experiment_run/checkpoints").glob("step-*"))
    last = read_metrics(tmp_path / "results/experiment_run/metrics.jsonl")[-1]["step"]
    assert json.loads((checkpoints[-1] / "state.json").read_text())["step"] == last
    assert not (tmp_path / "results/experiment_run/model").exists()


ENDLESS = """
import sys, time
from fettle.cli import main
from fettle.training.sft import Supervised
loss = Supervised.loss
calls = []
def slow(self, model, packed):
    calls.append(1)
    if len(calls) > 2:
        print("in a step that takes an hour", flush=True)
        time.sleep(3600)
    return loss(self, model, packed)
Supervised.loss = slow
main(sys.argv[1:])
"""


def test_a_second_ctrl_c_quits_at_once(tmp_path, data):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config()))
    arguments = [
        "train",
        "--config",
        str(path),
        "--dataset",
        str(data),
        "--output_directory",
        str(tmp_path / "results"),
    ]
    command = [sys.executable, "-c", ENDLESS, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_line(process, "in a step that takes an hour")
    process.send_signal(signal.SIGINT)
    wait_for_line(process, "press Ctrl-C again")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert not list((tmp_path / "results").rglob(".part-*"))


def wait_for_line(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"ended without saying {text!r}")


def test_a_damaged_checkpoint_is_passed_over(run, tmp_path):
    section = config(epochs=3)
    with pytest.raises(KeyboardInterrupt):
        run(section, experiment_name="stopped", callbacks=[StopAt(15)])
    stopped = tmp_path / "results/stopped_run"
    newest = sorted((stopped / "checkpoints").glob("step-*"))[-1]
    (newest / "trained.safetensors").write_bytes(b"cut short")
    _, resumed = run(section, model_resume_path=stopped)
    assert resumed.train_stats["summary"]["step"] == 18


def test_nan_loss_stops_names_the_batch_and_keeps_the_last_good_checkpoint(run, monkeypatch):
    from fettle.training.sft import Supervised

    loss = Supervised.loss
    calls = []

    def poisoned(self, model, packed):
        calls.append(1)
        return loss(self, model, packed) * (math.nan if len(calls) > 8 else 1.0)

    monkeypatch.setattr(Supervised, "loss", poisoned)
    with pytest.raises(DivergedError) as error:
        run(config(epochs=3))
    assert "step 9" in str(error.value)
    assert "rows.jsonl:" in str(error.value)
    assert "step-00000006" in str(error.value)


def test_memory_that_runs_out_halves_the_packs(run, monkeypatch):
    from fettle.training.sft import Supervised

    loss = Supervised.loss

    def narrow(self, model, packed):
        if packed.input_ids_1N.shape[1] > 100:
            raise torch.OutOfMemoryError("no room")
        return loss(self, model, packed)

    plain = [record["loss"] for record in steps_of(run(config())[1])]
    monkeypatch.setattr(Supervised, "loss", narrow)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    halved = [record["loss"] for record in steps_of(run(config())[1])]
    assert halved == pytest.approx(plain, abs=1e-5)


def test_not_even_one_row_fits(run, monkeypatch):
    from fettle.training.sft import Supervised

    def never(self, model, packed):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(Supervised, "loss", never)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    with pytest.raises(OutOfMemoryError, match="not even one row"):
        run()


def test_early_stop_keeps_the_best_weights(run):
    _, results = run(config(epochs=20, learning_rate=0.5, early_stop=2, gradient_clipping=None))
    summary = results.train_stats["summary"]
    assert summary["stopped"] == "early"
    losses = results.train_stats["validation"]["combined"]["loss"]
    assert summary["best"] == min(losses[1:])
    best = json.loads((Path(results.output_directory) / "checkpoints/best/metrics.json").read_text())
    assert best["step"] == summary["best_step"] < summary["step"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"epochs": 2}, [0, 6, 12]),
        ({"checkpoints_per_epoch": 2}, [0, 3, 6]),
        ({"steps_per_checkpoint": 4}, [0, 4, 6]),
        ({"train_steps": 3}, [0, 3]),
        ({"skip_all_evaluation": True}, []),
    ],
)
def test_when_it_evaluates(run, keys, expected):
    _, results = run(config(**keys))
    records = read_metrics(Path(results.output_directory) / "metrics.jsonl")
    assert [record["step"] for record in records if record["split"] == "validation"] == expected


def test_training_set_is_evaluated_on_request(run):
    _, results = run(config(evaluate_training_set=True))
    assert len(results.train_stats["training"]["combined"]["perplexity"]) == 2


def test_rate_falls_on_a_plateau(run):
    scheduler = {"decay": None, "warmup_fraction": 0.0, "reduce_on_plateau": 2, "reduce_on_plateau_patience": 1}
    _, results = run(
        config(epochs=6, learning_rate=0.3, learning_rate_scheduler=scheduler, early_stop=-1, gradient_clipping=None)
    )
    rates = sorted({record["learning_rate"] for record in steps_of(results)}, reverse=True)
    assert rates[:2] == pytest.approx([0.3, 0.03])


def test_batch_grows_on_a_plateau(run):
    keys = {
        "increase_batch_size_on_plateau": 1,
        "increase_batch_size_on_plateau_patience": 1,
        "increase_batch_size_eval_split": "validation",
    }
    _, results = run(config(epochs=6, learning_rate=0.3, early_stop=-1, gradient_clipping=None, **keys))
    assert {record["rows"] for record in steps_of(results)} >= {8, 16}


@pytest.mark.parametrize(
    "clipping",
    [
        {"clipglobalnorm": 1e-9},
        {"clipglobalnorm": None, "clipnorm": 1e-9},
        {"clipglobalnorm": None, "clipvalue": 1e-12},
    ],
)
def test_clipping_limits_what_sgd_learns(run, clipping):
    keys = {"optimizer": {"type": "sgd", "weight_decay": 0.0}, "learning_rate": 0.5}
    losses = {}
    for name, value in (("free", None), ("clipped", clipping)):
        _, results = run(config(epochs=2, gradient_clipping=value, **keys))
        found = results.train_stats["validation"]["combined"]["loss"]
        losses[name] = abs(found[-1] - found[0])
    assert losses["clipped"] < 1e-4 < losses["free"]


def test_regularisation_shrinks_the_weights(run):
    norms = []
    for strength in (0.0, 0.1):
        keys = {
            "optimizer": {"type": "sgd", "weight_decay": 0.0},
            "regularization_lambda": strength,
            "regularization_type": "l1_l2",
        }
        model, _ = run(config(**keys, learning_rate=0.01, gradient_clipping=None))
        norms.append(sum(float(weight.detach().square().sum()) for weight in model._session.model.parameters()))
    assert norms[1] < norms[0] * 0.99


def test_without_shuffling_rows_come_in_their_order(run):
    _, results = run(config(should_shuffle=False))
    lengths = results.preprocessed_data.training_set.lengths_R
    expected = [int(lengths[start : start + 8].sum()) for start in range(0, len(lengths), 8)]
    assert [record["tokens"] for record in steps_of(results)] == expected
    assert [record["tokens"] for record in steps_of(run(config())[1])] != expected


@pytest.mark.parametrize(
    "keys", [{"enable_gradient_checkpointing": True}, {"precision": "bfloat16"}, {"use_mixed_precision": True}]
)
@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
def test_other_arithmetic_stays_close(run, keys, adapter):
    plain = [record["loss"] for record in steps_of(run(config(adapter=adapter))[1])]
    other = [record["loss"] for record in steps_of(run(config(adapter=adapter, **keys))[1])]
    assert other == pytest.approx(plain, rel=2e-2)
    assert ("precision" not in keys) or other != plain


def test_trained_weights_stay_float32_under_bfloat16(run):
    model, _ = run(config(precision="bfloat16"))
    assert {weight.dtype for weight in model._session.model.parameters()} == {torch.float32}


def test_signals_are_put_back(run):
    before = signal.getsignal(signal.SIGINT)
    run()
    assert signal.getsignal(signal.SIGINT) is before


def test_profiling_writes_traces(run):
    keys = {"enable_profiling": True, "profiler": {"wait": 0, "warmup": 1, "active": 1, "repeat": 2}}
    _, results = run(config(**keys))
    traces = sorted((Path(results.output_directory) / "profile").glob("*.json"))
    assert len(traces) == 2
    assert json.loads(traces[0].read_text())["traceEvents"]


def test_a_tokenizer_that_transformers_reads_otherwise_is_told(run, monkeypatch):
    class Other:
        @staticmethod
        def from_pretrained(_):
            return lambda text: {"input_ids": [1, 2, 3]}

    told = []

    class Listener(Callback):
        def on_message(self, text):
            told.append(text)

    run(callbacks=[Listener()])
    assert not [text for text in told if "AutoTokenizer" in text]
    monkeypatch.setattr("fettle.model.load.AutoTokenizer", Other)
    run(callbacks=[Listener()])
    assert [text for text in told if "AutoTokenizer encodes 20 of 20" in text]


class InterruptAt(Callback):
    """Presses Ctrl-C during a step."""

    def __init__(self, step):
        self.step = step

    def on_step(self, record):
        if record["step"] == self.step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("step", [4, 6, 12], ids=["between", "at an evaluation", "before the last"])
def test_an_interrupted_run_resumes_to_the_same_end(run, step):
    section = config(epochs=3)
    _, straight = run(section)
    _, stopped = run(section, experiment_name="stopped", callbacks=[InterruptAt(step)])
    assert stopped.train_stats["summary"]["stopped"] == "interrupted"
    _, resumed = run(section, model_resume_path=stopped.output_directory)
    weights = [load_file(Path(one.output_directory) / "model/model.safetensors") for one in (straight, resumed)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert straight.train_stats["validation"] == resumed.train_stats["validation"]


def test_ctrl_c_on_the_last_step_finishes_the_run(run):
    _, results = run(config(), callbacks=[InterruptAt(6)])
    assert results.train_stats["summary"]["stopped"] == "finished"


def test_resume_keeps_the_plan_whatever_memory_is_free(run, monkeypatch):
    section = config(epochs=2)
    section["trainer"]["effective_batch_size"] = "auto"
    with pytest.raises(KeyboardInterrupt):
        run(section, experiment_name="stopped", callbacks=[StopAt(50)])
    _, straight = run(section)
    monkeypatch.setattr("fettle.hardware.plan.largest_batch", lambda *_: 16)
    stopped = Path(straight.output_directory).parent / "stopped_run"
    _, resumed = run(section, model_resume_path=stopped)
    assert resumed.train_stats["summary"]["total_steps"] == straight.train_stats["summary"]["total_steps"]


def test_resume_refuses_another_config(run):
    with pytest.raises(KeyboardInterrupt):
        run(config(epochs=2), experiment_name="stopped", callbacks=[StopAt(8)])
    _, other = run(config())
    stopped = Path(other.output_directory).parent / "stopped_run"
    with pytest.raises(DataError, match=r"trainer changed"):
        run(config(epochs=2, learning_rate=0.1), model_resume_path=stopped)


def test_a_gradient_that_is_no_number_is_never_applied(run, monkeypatch):
    accumulate = Loop._accumulate

    def poisoned(self, rows):
        loss = accumulate(self, rows)
        if self.state.step == 5:
            self.weights[0].grad.fill_(math.nan)
        return loss

    monkeypatch.setattr(Loop, "_accumulate", poisoned)
    with pytest.raises(DivergedError, match="the gradient became nan at step 6"):
        run(config(steps_per_checkpoint=3))


def test_schedule_free_keeps_the_weights_it_evaluated(run):
    keys = {"optimizer": "schedule_free_adamw", "learning_rate_scheduler": {"decay": None}, "learning_rate": 1e-2}
    _, results = run(config(epochs=2, **keys))
    saved = Model.load(results.output_directory).evaluate(rows(64), split="validation")[0]
    assert saved["combined"]["loss"] == pytest.approx(
        results.train_stats["validation"]["combined"]["loss"][-1], abs=1e-5
    )


FULL = """
import resource, sys
from fettle.cli import main
import fettle.api
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
main(sys.argv[1:])
"""


def test_a_disk_that_takes_no_more_is_told(tmp_path, data):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config()))
    arguments = [
        "train",
        "--config",
        str(path),
        "--dataset",
        str(data),
        "--output_directory",
        str(tmp_path / "results"),
    ]
    done = subprocess.run([sys.executable, "-c", FULL, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Nothing was half-written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "results").rglob(".part-*"))
