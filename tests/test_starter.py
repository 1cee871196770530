"""The starter YAML: a sensible guess that loads and checks."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from fettle import check
from fettle.config import load
from fettle.errors import DataError
from fettle.prepare import Sources
from fettle.starter import write


def starter(folder: Path, rows: list[dict[str, Any]], name: str = "rows.csv") -> str:
    path = folder / name
    if name.endswith(".csv"):
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows))
    text = write(str(path), "fettle:pocket")
    loaded = load(text)
    report = check.run(loaded, Sources.of(loaded.config), 42)
    assert report.faults == []
    return text


@pytest.mark.parametrize(
    ("names", "guess"),
    [
        (["question", "answer"], ("question", "answer")),
        (["id", "Text", "Label"], ("Text", "Label")),
        (["response", "prompt", "score"], ("prompt", "response")),
        (["a", "b"], ("b", "a")),
        (["text", "summary", "split"], ("text", "summary")),
        (["2e-4", "null"], ("null", "2e-4")),
        (["wörter", "ziel 🙂"], ("ziel 🙂", "wörter")),
        (['user.text "x"', "reply"], ('user.text "x"', "reply")),
        (["two\nlines {x} # y", "label"], ("two\nlines {x} # y", "label")),
        (["__text__", "label"], ("__text__", "label")),
        (["a:b", "label"], ("a:b", "label")),
        (["a\u2028b", "label"], ("a\u2028b", "label")),
    ],
)
def test_guesses(tmp_path: Path, names: list[str], guess: tuple[str, str]) -> None:
    rows = [
        {name: f"cell {n} " * (at + 1) if name != "split" else "train" for at, name in enumerate(names)}
        for n in range(30)
    ]
    config = load(starter(tmp_path, rows)).config
    assert (config.input_features[0].name, config.output_features[0].name) == guess
    assert config.adapter is not None
    assert config.base_model == "fettle:pocket"


def test_template_names_the_column(tmp_path: Path) -> None:
    rows = [{"question": "a b", "answer": "c", "topic": "t"} for _ in range(20)]
    text = starter(tmp_path, rows)
    assert load(text).config.prompt.template == "{question}\n"
    assert "# other columns: topic" in text


def test_alpaca_and_conversations(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    alpaca = load(starter(tmp_path, [{"instruction": "a", "input": "", "output": "c"}] * 20)).config
    assert (alpaca.dataset.format, alpaca.input_features) == ("alpaca", [])
    assert load(starter(tmp_path, [{"messages": turns}] * 20, "x.jsonl")).config.dataset.format == "messages"


def test_more_rows_leave_more_to_train(tmp_path: Path) -> None:
    row = {"question": "a", "answer": "b"}
    assert load(starter(tmp_path, [row] * 100)).config.preprocessing.split.probabilities == [0.8, 0.1, 0.1]
    assert load(starter(tmp_path, [row] * 20)).config.preprocessing.split.probabilities == [0.7, 0.15, 0.15]


def test_one_column_is_not_enough(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,split\na,train\n")
    with pytest.raises(
        DataError, match=r"x\.csv: needs at least two columns, one to read and one to write; it has text, split"
    ):
        write(str(tmp_path / "x.csv"), "fettle:pocket")


def test_a_pretrained_base_gets_an_adapter(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question,answer\n" + "a,b\n" * 5)
    config = load(write(str(tmp_path / "rows.csv"), "some/model")).config
    assert config.adapter is not None
    assert config.trainer.learning_rate == "auto"


def test_text_files_go_on_pretraining(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("one\n\ntwo\n" * 50)
    loaded = load(write(str(path), "fettle:pocket"))
    report = check.run(loaded, Sources.of(loaded.config), 42)
    assert report.faults == []
    assert loaded.config.trainer.type == "pretrain"
    separated = load(write(str(path), "fettle:pocket"), ['dataset.document_separator="\\n\\n"'])
    assert check.run(separated, Sources.of(separated.config), 42).faults == []
