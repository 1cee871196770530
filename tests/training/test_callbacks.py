"""Metrics files survive cuts; trackers receive what was measured; displays are readable."""

import importlib.util
import io
import json
import sys

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fettle.errors import ConfigError, MissingExtraError
from fettle.training import callbacks
from tests.training.conftest import config

START = {"total_steps": 4, "start_step": 2, "run_folder": "x", "config": {}}


def test_a_resumed_file_drops_what_came_after_the_checkpoint_and_cut_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    listener = callbacks.MetricsFile(path)
    listener.on_train_start(START)
    listener.on_step({"step": 3, "loss": 1.0})
    listener.on_train_end({})
    assert [json.loads(line)["step"] for line in path.read_text().strip().split("\n")] == [1, 2, 3]
    assert callbacks.read_metrics(path)[-1] == {"split": "training", "step": 3, "loss": 1.0}


def shown(terminal):
    out = io.StringIO()
    display = callbacks.Display(Console(file=out, force_terminal=terminal, width=120))
    display.on_train_start({**START, "start_step": 0})
    for step in (1, 2, 3, 4):
        display.on_step({"step": step, "epoch": 0.5, "loss": 1.25, "tokens_per_second": 12345.6})
    display.on_evaluation({"step": 4, "split": "validation", "loss": 0.5, "next_token_accuracy": 0.25})
    display.on_train_end({})
    return out.getvalue()


def test_plain_lines_where_there_is_no_terminal():
    text = shown(False)
    assert "\x1b" not in text
    assert "step 4/4 · epoch 0.50 · loss 1.2500 · 12,346 tokens/s" in text
    assert "validation loss 0.5000 · next-token accuracy 25.0%" in text


def test_one_bar_on_a_terminal():
    text = shown(True)
    assert "training" in text
    assert "12,346 tokens/s" in text
    assert "step 4/4" not in text


def test_tensorboard_holds_the_scalars(run):
    _, results = run(config(callbacks=["tensorboard"], train_steps=3))
    events = EventAccumulator(f"{results.output_directory}/logs")
    events.Reload()
    assert [event.step for event in events.Scalars("training/loss")] == [1, 2, 3]
    assert [event.step for event in events.Scalars("validation/loss")] == [0, 3]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_mlflow_holds_metrics_and_parameters(run, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the slim package has no database store
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    mlflow.set_tracking_uri(f"file://{tmp_path}/mlruns")
    run(config(callbacks=["mlflow"], train_steps=3))
    [found] = mlflow.search_runs(experiment_names=["fettle"], output_format="list")
    history = mlflow.MlflowClient().get_metric_history(found.info.run_id, "training.loss")
    assert [metric.step for metric in history] == [1, 2, 3]
    assert found.data.params["trainer.train_steps"] == "3"


def test_a_missing_tracker_names_its_extra(run, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name, *rest))
    with pytest.raises(ConfigError, match=r"fettle\[wandb\]"):
        run(config(callbacks=["wandb"]))
    assert not (tmp_path / "results").exists()
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"fettle\[wandb\]"):
        callbacks.trackers(["wandb"], tmp_path)
