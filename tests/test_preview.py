"""Preview: the rows as the model sees them, and what their lengths are."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from fettle import base
from fettle.config import load
from fettle.data.encode import encode_rows
from fettle.errors import DataError
from fettle.prepare import Rows, Sources
from fettle.preview import coloured, pieces, show
from fettle.rows import Rendered
from fettle.tokenizer import read_tokenizer
from tests.conftest import TOKENIZERS, make_config


def shown(folder: Path, data: Any, examples: int = 3, **changes: Any) -> str:
    loaded = load(make_config(**changes))
    found = base.find(loaded.config, folder, weights=False)
    rows = Rows(loaded.config, Sources(data), folder, found.tokenizer, found.facts.context, 42)
    stream = io.StringIO()
    show(rows, Console(file=stream, width=200, color_system=None), examples)
    return stream.getvalue()


def figures(text: str, split: str) -> list[str]:
    """The cells of a split in the table of lengths."""
    below = text[text.index("tokens per row") :]
    return next(line.split() for line in below.splitlines() if line.strip().startswith(split))


def test_rows_and_statistics(tmp_path: Path) -> None:
    rows = [{"question": f"Question {n}?", "answer": "Antwort: ü [bold]x[/bold]"} for n in range(20)]
    text = shown(tmp_path, rows, prompt__template="Q: {question}\nA:")
    assert text.count("tokens, ") == 3
    assert text.count("Antwort: ü [bold]x[/bold]<|im_end|>") == 3
    assert "│ Q: Question 0?" in text
    assert "tokens per row (limit: 1024)" in text
    assert [figures(text, name)[1] for name in ("training", "validation", "test")] == ["14", "2", "4"]
    assert "no row is truncated, dropped or empty" in text


ROWS = [("x", "yes"), ("x", "word " * 1100), ("word " * 1100, "yes"), (None, "yes")]
DATA = [{"question": question, "answer": answer, "split": 0} for question, answer in ROWS]


def test_counts_of_what_does_not_fit(tmp_path: Path) -> None:
    keys = {"split": "fixed", "overlong_rows": "truncate"}
    drop = {"missing_value_strategy": "drop_row"}
    text = shown(tmp_path, DATA, preprocessing=keys, input_features__0__preprocessing=drop)
    assert figures(text, "training")[:2] == ["training", "2"]
    assert figures(text, "training")[5] == "1104"
    assert (
        "training: 2 longer than the limit, 1 truncated, 1 dropped because nothing of their response is left, "
        "1 dropped for an empty cell\n"
    ) in text


def test_overlong_rows_are_counted_not_refused(tmp_path: Path) -> None:
    text = shown(tmp_path, DATA[:2], preprocessing__split="fixed")
    assert "training: 1 longer than the limit, training will refuse them; set preprocessing.overlong_rows" in text


def test_a_faulty_row_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 1: column 'answer' is empty"):
        shown(tmp_path, [{"question": "x", "answer": "", "split": 0}], preprocessing__split="fixed")


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=2, max_size=2))
def test_pieces_together_are_the_row(tokenizers: dict[str, Path], name: str, texts: list[str]) -> None:
    tokenizer = read_tokenizer(tokenizers[name])
    [row] = encode_rows([Rendered(((texts[0], False), (texts[1], True)), whole=False)], tokenizer)
    found = pieces(row, tokenizer)
    assert "".join(text for text, _, _ in found) == tokenizer.decode(row.ids, skip_special=False)


def test_colours(tokenizers: dict[str, Path]) -> None:
    tokenizer = read_tokenizer(tokenizers["closing"])
    [row] = encode_rows([Rendered((("Hi", False), (" you", True)), whole=False)], tokenizer)
    text = coloured(row, tokenizer)
    assert text.plain == "<s>Hi you</s>"
    assert [str(span.style) for span in text.spans] == ["grey62 reverse", "grey62", "green", "green reverse"]


def test_what_is_loss_and_what_is_special(tokenizers: dict[str, Path]) -> None:
    tokenizer = read_tokenizer(tokenizers["closing"])
    [row] = encode_rows([Rendered((("Hi ü", False), (" there 🙂", True)), whole=False)], tokenizer)
    assert pieces(row, tokenizer) == [
        ("<s>", False, True),
        ("Hi ü", False, False),
        (" there 🙂", True, False),
        ("</s>", True, True),
    ]
