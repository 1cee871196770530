"""Check: every kind of fault together, and nothing heavy imported to find them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fettle import check
from fettle.config import load
from fettle.hardware import facts
from fettle.hardware.facts import DeviceFacts
from fettle.prepare import Sources
from tests.conftest import POCKET, make_config

HEAVY = ("torch", "transformers", "numpy", "datasets", "peft", "trl", "pandas", "pyarrow", "accelerate")


def report(folder: Path, rows: Any, **changes: Any) -> check.Report:
    loaded = load(make_config(**changes))
    return check.run(loaded, Sources(rows), 42)


def table(count: int = 30, **columns: Any) -> list[dict[str, Any]]:
    return [{"question": f"q {n}", "answer": "a", **columns} for n in range(count)]


def test_a_good_run(tmp_path: Path) -> None:
    found = report(tmp_path, table())
    assert found.faults == []
    assert found.notes[0] == "base model: fettle:pocket (llama, 3.7 M weights, context 1024, 4,096 ids)"
    assert found.notes[1] == "data: 30 rows (21 training, 3 validation, 6 test), read as columns"
    assert found.notes[2].startswith("device: ")
    assert [warning.partition(";")[0] for warning in found.warnings] == [
        "the base model has a chat template, but rows are shown to it as plain text",
        "prompt and response follow each other with nothing between them",
    ]


def test_faults_of_data_and_hardware_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "device", lambda: DeviceFacts("cpu", "tiny", 2**20, 1, False))
    rows = [*table(3), {"question": "x " * 2000, "answer": "a"}]
    every = {"type": "random", "probabilities": [1.0, 0.0, 0.0]}
    found = report(tmp_path, rows, preprocessing__split=every, trainer__bucketing_field="x")
    assert len(found.faults) == 2
    assert found.faults[0].startswith("1 rows are longer than 1024 tokens: row 4 (")
    assert found.faults[1].startswith("this run needs about ")
    assert "but tiny, 0.0 GiB free" in found.faults[1]
    assert "config: trainer.bucketing_field: has no effect: nothing is padded in training" in found.warnings
    assert any(warning.startswith("there are no validation rows") for warning in found.warnings)


def test_faults_of_the_base_model_and_the_data_together(tmp_path: Path) -> None:
    found = report(tmp_path, [{"qestion": "x", "answer": "y"}], base_model=str(tmp_path))
    assert len(found.faults) == 2
    assert "config.json is missing" in found.faults[0]
    assert "there is no column 'question' (the input feature), did you mean 'qestion'?" in found.faults[1]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("config.json", "no base model here (config.json is missing)"),
        ("model.safetensors", "no weights here (model.safetensors is missing)"),
        ("tokenizer.json", "no tokenizer here (tokenizer.json is missing)"),
    ],
)
def test_a_base_model_that_lacks_a_part(tmp_path: Path, broken: str, said: str) -> None:
    folder = shutil.copytree(POCKET, tmp_path / "model")
    (folder / broken).unlink()
    assert report(tmp_path, table(), base_model=str(folder)).faults == [f"{folder}: {said}"]


def test_a_row_that_cannot_be_used(tmp_path: Path) -> None:
    found = report(tmp_path, [*table(9), {"question": None, "answer": "a"}])
    assert len(found.faults) == 1
    assert found.faults[0].startswith("row 10: column 'question' is empty")


def test_overlong_rows(tmp_path: Path) -> None:
    rows = [{"question": "x", "answer": "word " * 1100}] * 5 + table(20)
    every = {"type": "random", "probabilities": [1.0, 0.0, 0.0]}
    assert (
        "5 rows are longer than 1024 tokens: row 1 ("
        in report(tmp_path, rows, preprocessing={"split": every}).faults[0]
    )
    for how, said in (("truncate", "they are cut at the end"), ("drop", "they are left out")):
        found = report(tmp_path, rows, preprocessing={"split": every, "overlong_rows": how})
        assert found.faults == []
        assert any(said in warning for warning in found.warnings)


def test_check_agrees_with_training_on_an_empty_answer(tmp_path: Path, tokenizers: dict[str, Path]) -> None:
    const = {"missing_value_strategy": "fill_with_const"}
    rows = [{"question": "x", "answer": ""}] * 20
    assert report(tmp_path, rows, output_features__0__preprocessing=const).faults == []
    folder = shutil.copytree(POCKET, tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizers["bare"] / name, folder)
    found = report(tmp_path, rows, output_features__0__preprocessing=const, base_model=str(folder))
    assert "nothing in this row carries loss" in found.faults[0]
    assert any("the tokenizer has no end-of-text token" in warning for warning in found.warnings)


def test_conversations_without_a_chat_template(tmp_path: Path, tokenizers: dict[str, Path]) -> None:
    folder = shutil.copytree(POCKET, tmp_path / "bare")
    (folder / "chat_template.jinja").unlink()
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    keys = {"input_features": [], "output_features": [], "base_model": str(folder)}
    found = report(tmp_path, [{"messages": turns}] * 20, **keys)
    assert found.faults == [
        "the tokenizer has no chat template; set prompt.chat_template: plain (or chatml, or a Jinja file)"
    ]
    assert report(tmp_path, [{"messages": turns}] * 20, prompt__chat_template="plain", **keys).faults == []


def test_no_row_left_to_train_on(tmp_path: Path) -> None:
    found = report(tmp_path, table(split="test"), preprocessing__split="fixed")
    assert "no row is left to train on; preprocessing.split gives none to training" in found.faults


@pytest.mark.parametrize("verb", [["--help"], ["check"], ["preview"], ["init"], ["schema"]])
def test_light_verbs_import_nothing_heavy(tmp_path: Path, verb: list[str]) -> None:
    (tmp_path / "x.csv").write_text("question,answer\n" + "a,b\n" * 30)
    (tmp_path / "run.yaml").write_text(json.dumps(make_config(dataset="x.csv")))
    arguments = {"check": ["--config", "run.yaml"], "preview": ["--config", "run.yaml"], "init": ["x.csv"]}.get(
        verb[0], []
    )
    code = (
        "import sys\nfrom fettle.cli import main\n"
        f"try:\n    main({verb + arguments!r})\n"
        "except SystemExit as end:\n    status = end.code\n"
        f"print(status, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr


def cli(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fettle", *arguments], capture_output=True, text=True, cwd=folder, check=False
    )


def test_exit_status_and_what_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("question,answer\n" + "a,b\n" * 30 + ",b\n")
    (tmp_path / "run.yaml").write_text(json.dumps(make_config(dataset="x.csv")))
    done = cli(tmp_path, "check", "--config", "run.yaml")
    assert done.returncode == 1
    assert "fault: x.csv:32: column 'question' is empty" in done.stdout.replace(f"{tmp_path}/", "")
    assert done.stdout.endswith("1 fault\n")
    done = cli(tmp_path, "check", "--config", "run.yaml", "trainer.epoch=3", "adaptr=lora")
    assert done.returncode == 1
    told = done.stdout.split("\n")
    assert "fault: command line: adaptr: unknown key, did you mean 'adapter'?" in told
    assert "fault: command line: trainer.epoch: unknown key, did you mean 'epochs'?" in told
    assert told[-2] == "3 faults"


def test_faults_of_config_rows_and_base_are_told_together(tmp_path, capsys):
    from fettle.cli import main

    rows = ['{"text": "a", "loud": "A"}', '{"text": "", "loud": "B"}', '{"text": "c", "loud": null}']
    (tmp_path / "rows.jsonl").write_text("\n".join(rows * 5))
    (tmp_path / "run.yaml").write_text(
        "model_type: llm\nbase_model: fettle:pocket\ninput_features: [{name: text, type: text}]\n"
        "output_features: [{name: loud, type: text}]\ntrainer: {type: finetune, epoch: 3}\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["check", "--config", str(tmp_path / "run.yaml"), "--dataset", str(tmp_path / "rows.jsonl")])
    told = capsys.readouterr().out
    assert ended.value.code == 1
    assert "trainer.epoch: unknown key, did you mean 'epochs'?" in told
    assert "rows.jsonl:2" in told
    assert " and 2 more rows: column 'text' is empty" in told
    assert told.count("column 'loud' is empty") == 1
    assert told.endswith("3 faults\n")


def test_adapter_targets(tmp_path: Path) -> None:
    from fettle.errors import ConfigError

    adapter = {"type": "lora", "target_modules": ["q_projj"]}
    told = [warning for warning in report(tmp_path, table(), adapter=adapter).warnings if "target_modules" in warning]
    assert told[0].startswith("adapter.target_modules: the base's weights name no 'q_projj', did you mean 'q_proj'?")
    adapter["target_modules"] = ["q_proj"]
    assert not [
        warning for warning in report(tmp_path, table(), adapter=adapter).warnings if "target_modules" in warning
    ]
    with pytest.raises(ConfigError, match="not a regular expression"):
        load(make_config(adapter={"type": "lora", "target_modules": "("}))
