"""The way of the rows: limits, faults with their place, and the cache's fingerprint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fettle import base
from fettle.config import load
from fettle.data import read
from fettle.errors import ConfigError, DataError, FettleError
from fettle.prepare import OverlongRowsError, Rows, Sources
from fettle.training.encoded import encoded_rows
from tests.conftest import CHATML, make_config

SPLIT = {"type": "fixed", "column": "split"}
LONG = "word " * 700


def write(folder: Path, rows: list[dict[str, Any]], name: str = "x.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def rows_of(folder: Path, seed: int = 42, context: int | None = 512, **changes: Any) -> Rows:
    loaded = load(make_config(**{"dataset__path": str(folder / "x.jsonl"), **changes}))
    found = base.find(loaded.config, folder)
    return Rows(loaded.config, Sources.of(loaded.config), folder, found.tokenizer, context, seed)


def encode(rows: Rows, name: str = "training") -> tuple[list[int], list[int], dict[str, int]]:
    """Indices, lengths and counts of a split."""
    indices, lengths, totals = [], [], {}
    for chunk, _, encoded, counts in rows.encoded(name):
        indices += chunk
        lengths += [len(one.ids) for one in encoded]
        for key, value in counts.items():
            totals[key] = totals.get(key, 0) + value
    return indices, lengths, totals


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Row 2 has a long answer, row 3 a long question."""
    rows = [("short", "yes"), ("short", LONG), (LONG, "yes"), ("other", "no")]
    write(tmp_path, [{"question": q, "answer": a, "split": 0} for q, a in rows])
    return tmp_path


def test_overlong_rows_are_an_error_that_names_them(mixed: Path) -> None:
    with pytest.raises(OverlongRowsError) as caught:
        encode(rows_of(mixed, preprocessing__split=SPLIT))
    said = str(caught.value)
    assert said.startswith("2 rows are longer than the model's context of 512 tokens: ")
    assert f"{mixed / 'x.jsonl'}:2 (" in said
    assert f"{mixed / 'x.jsonl'}:3 (" in said
    assert said.endswith("or to drop")


def test_overlong_rows_truncated(mixed: Path) -> None:
    indices, lengths, counts = encode(rows_of(mixed, preprocessing={"split": SPLIT, "overlong_rows": "truncate"}))
    assert indices == [0, 1, 3]
    assert lengths[1] == 512
    assert counts == {"empty": 0, "overlong": 2, "truncated": 1, "unlabelled": 1}


def test_overlong_rows_dropped(mixed: Path) -> None:
    indices, _, counts = encode(rows_of(mixed, preprocessing={"split": SPLIT, "overlong_rows": "drop"}))
    assert indices == [0, 3]
    assert counts == {"empty": 0, "overlong": 2, "dropped": 2}


def test_a_limit_of_the_users_truncates(mixed: Path) -> None:
    rows = rows_of(mixed, preprocessing={"split": SPLIT, "global_max_sequence_length": 20})
    assert encode(rows)[1][1] == 20
    strict = {"split": SPLIT, "global_max_sequence_length": 20, "overlong_rows": "error"}
    with pytest.raises(OverlongRowsError, match="context of 20 tokens"):
        encode(rows_of(mixed, preprocessing=strict))


def test_limits_of_the_features(mixed: Path) -> None:
    cut = {"max_sequence_length": 5}
    rows = rows_of(
        mixed, preprocessing__split=SPLIT, input_features__0__preprocessing=cut, output_features__0__preprocessing=cut
    )
    [(_, _, encoded, _)] = rows.encoded("training")
    stop = rows.tokenizer.eos_id
    assert [one.trained.count(False) for one in encoded] == [2, 2, 5, 1]
    assert [(sum(one.trained), one.ids[-1] == stop) for one in encoded] == [(3, True), (5, False), (3, True), (3, True)]
    chat = rows_of(mixed, input_features__0__preprocessing=cut, prompt__use_chat_template=True)
    with pytest.raises(DataError, match="max_sequence_length cannot be combined with a chat template"):
        encode(chat)


def test_a_row_in_which_nothing_carries_loss_is_named(tmp_path: Path) -> None:
    write(
        tmp_path,
        [{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}], "split": 0}] * 2,
    )
    (tmp_path / "t.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    rows = rows_of(
        tmp_path, input_features=[], output_features=[], prompt__chat_template="t.jinja", preprocessing__split=SPLIT
    )
    with pytest.raises(DataError, match=r"x\.jsonl:1: nothing in this row carries loss"):
        encode(rows)


def test_half_a_character_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"question": "a", "answer": "b"}\n{"question": "a\\ud83d", "answer": "b"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl:2: half of a character \('\\ud83d'\)"):
        encode(rows_of(tmp_path))


def test_dropped_rows_are_counted(tmp_path: Path) -> None:
    write(tmp_path, [{"question": q, "answer": "a", "split": 0} for q in ("x", None, "y")])
    drop = {"missing_value_strategy": "drop_row"}
    indices, _, counts = encode(rows_of(tmp_path, input_features__0__preprocessing=drop, preprocessing__split=SPLIT))
    assert indices == [0, 2]
    assert counts["empty"] == 1


def test_prompts_are_what_training_shows(mixed: Path) -> None:
    rows = rows_of(
        mixed, preprocessing={"split": SPLIT, "overlong_rows": "truncate"}, prompt__template="Q: {question}\nA:"
    )
    trained = {
        index: one.ids
        for indices, _, encoded, _ in rows.encoded("training")
        for index, one in zip(indices, encoded, strict=True)
    }
    for index, row, ids in rows.prompts([0, 1, 3]):
        assert row is not None
        assert trained[index][: len(ids)] == ids
        assert rows.tokenizer.decode(ids) == f"Q: {row.sample}\nA:"


def test_sources_with_splits_of_their_own(tmp_path: Path) -> None:
    import datasets

    part = datasets.Dataset.from_dict({"question": ["x"] * 4, "answer": ["y"] * 4})
    loaded = load(make_config())
    tokenizer = base.find(loaded.config, tmp_path).tokenizer

    def splits(source: Any) -> list[int]:
        rows = Rows(loaded.config, Sources(source), tmp_path, tokenizer, 512, 42)
        return [len(one) for one in rows.splits.values()]

    assert splits(datasets.DatasetDict(train=part, validation_matched=part, test_sft=part)) == [4, 4, 4]
    assert splits(datasets.DatasetDict(train=part, dev=part)) == [4, 4, 0]
    assert splits(datasets.DatasetDict(train=part)) == splits(part)
    with pytest.raises(DataError, match="has a part 'unsupervised' that is neither train, validation nor test"):
        splits(datasets.DatasetDict(train=part, unsupervised=part))


def test_one_file_per_split(tmp_path: Path) -> None:
    row = {"question": "x", "answer": "y"}
    for name, count in (("a", 3), ("b", 2), ("c", 1)):
        write(tmp_path, [row] * count, f"{name}.jsonl")
    loaded = load(make_config())
    given = Sources.of(loaded.config, None, *(str(tmp_path / f"{name}.jsonl") for name in "abc"))
    rows = Rows(loaded.config, given, tmp_path, base.find(loaded.config, tmp_path).tokenizer, 512, 42)
    assert rows.splits == {"training": [0, 1, 2], "validation": [3, 4], "test": [5]}
    assert rows.table.place(4) == f"{tmp_path / 'b.jsonl'}:2"


def test_no_data_and_too_much() -> None:
    config = load(make_config()).config
    with pytest.raises(ConfigError, match=r"no data given; set dataset\.path"):
        Sources.of(config)
    with pytest.raises(ConfigError, match="give either dataset or training_set"):
        Sources.of(config, "a", "b")
    assert Sources.of(load(make_config(dataset="in.csv")).config, "given.csv").whole == "given.csv"


def test_chatml_needs_its_tokens(tmp_path: Path, tokenizers: dict[str, Path]) -> None:
    from fettle.prepare import make_renderer
    from fettle.tokenizer import read_tokenizer

    config = load(make_config(prompt__chat_template="chatml")).config
    with pytest.raises(DataError, match=r"chatml needs the tokens <\|im_start\|> and <\|im_end\|>"):
        make_renderer(config, "columns", read_tokenizer(tokenizers["bare"]), tmp_path)
    assert make_renderer(config, "columns", read_tokenizer(tokenizers["byte"]), tmp_path).chat is not None


# ---- the cache ----


def simple(folder: Path, answer: str = "yes") -> Path:
    write(folder, [{"question": f"q {n}", "answer": answer} for n in range(20)])
    return folder


def test_fingerprint_is_the_same_when_nothing_changed(tmp_path: Path) -> None:
    first = rows_of(simple(tmp_path), prompt__template="{question}").fingerprint()
    assert rows_of(simple(tmp_path), prompt__template="{question}").fingerprint() == first
    same = rows_of(tmp_path, prompt__template="{question}", trainer__epochs=9, generation__top_k=3)
    assert same.fingerprint() == first


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt__template": "{question}!"},
        {"prompt__system": "x", "prompt__use_chat_template": True},
        {"preprocessing__global_max_sequence_length": 100},
        {"preprocessing__split": "fixed"},
        {"input_features__0__preprocessing": {"lowercase": True}},
        {"output_features__0__preprocessing": {"max_sequence_length": 3}},
        {"dataset__data_format": "jsonl"},
        {"prompt__chat_template": "plain"},
        {"seed": 43},
        {"context": 256},
        {"context": None},
    ],
)
def test_fingerprint_changes_with_what_shapes_the_ids(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert rows_of(simple(tmp_path)).fingerprint() != rows_of(tmp_path, **changes).fingerprint()


def test_fingerprint_changes_with_data_tokenizer_and_template_file(tmp_path: Path, tiny_llama: Path) -> None:
    (tmp_path / "t.jinja").write_text(CHATML)
    seen = [rows_of(simple(tmp_path), prompt__chat_template="t.jinja").fingerprint()]
    (tmp_path / "t.jinja").write_text(CHATML + " ")
    seen.append(rows_of(tmp_path, prompt__chat_template="t.jinja").fingerprint())
    seen.append(rows_of(simple(tmp_path, "no"), prompt__chat_template="t.jinja").fingerprint())
    seen.append(rows_of(tmp_path, prompt__chat_template="t.jinja", base_model=str(tiny_llama)).fingerprint())
    assert len(set(seen)) == 4


def test_fingerprint_of_rows_in_memory(tmp_path: Path) -> None:
    loaded = load(make_config())
    tokenizer = base.find(loaded.config, tmp_path).tokenizer

    def fingerprint(answer: str) -> str:
        return Rows(
            loaded.config, Sources([{"question": "x", "answer": answer}]), tmp_path, tokenizer, 512, 42
        ).fingerprint()

    assert fingerprint("a") == fingerprint("a") != fingerprint("b")


def test_the_second_run_reads_the_cache_and_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = encoded_rows(rows_of(simple(tmp_path, "cached answer")))
    assert not made.cached

    def unread(*_: object) -> None:
        raise AssertionError("the data was parsed again")

    monkeypatch.setattr(read, "read", unread)
    again = encoded_rows(rows_of(tmp_path))
    assert again.cached
    assert again.format == made.format == "columns"
    for name, split in made.splits.items():
        assert again.splits[name].ids_S.tolist() == split.ids_S.tolist()
        assert again.splits[name].rows_R.tolist() == split.rows_R.tolist()
    with pytest.raises(AssertionError, match="parsed again"):
        encoded_rows(rows_of(tmp_path, seed=1))


def test_a_cache_that_cannot_be_written_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("FETTLE_CACHE", str(tmp_path / "file"))
    made = encoded_rows(rows_of(simple(tmp_path, "unkept")))
    assert not made.cached
    assert len(made.splits["training"]) == 14


def test_every_fault_is_a_fettle_error(tmp_path: Path) -> None:
    for text in ("", "{", "[]", '{"question": 1}', '{"answer": "x"}', '{"question": "x", "answer": null}'):
        (tmp_path / "x.jsonl").write_text(text)
        with pytest.raises(FettleError):
            encode(rows_of(tmp_path))
