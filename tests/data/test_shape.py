"""From columns to canonical rows: empty cells, conversations, and every fault with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fettle.data.config import Dataset
from fettle.data.feature_config import InputFeature, TextOutput
from fettle.data.shape import Shape, canonical, resolve
from fettle.data.table import Origin, Table
from fettle.errors import DataError
from fettle.rows import Row, as_text


def table(**columns: list[Any]) -> Table:
    count = len(next(iter(columns.values())))
    return Table(dict(columns), [Origin(0, "x.csv", list(range(2, count + 2)))])


def reading(**keys: Any) -> list[InputFeature]:
    return [InputFeature(name="q", type="text", preprocessing=keys)]


def writing(**keys: Any) -> list[TextOutput]:
    return [TextOutput(name="a", type="text", preprocessing=keys)]


def rows(
    data: Table,
    inputs: Any = None,
    outputs: Any = None,
    named: tuple[str, ...] = (),
    training: bool = True,
    sampled: bool = True,
) -> list[Row | None]:
    inputs, outputs = inputs or reading(), outputs or writing()
    shape = resolve(Dataset(), inputs, outputs, named, data, training, sampled)
    found = list(canonical(data, range(len(data)), shape, inputs, outputs, training))
    assert [index for index, _ in found] == list(range(len(data)))
    return [row for _, row in found]


def conversations(*cells: Any, training: bool = True) -> list[Any]:
    data = table(messages=list(cells))
    shape = resolve(Dataset(), [], [], (), data)
    return [row.messages for _, row in canonical(data, range(len(cells)), shape, [], [], training)]


def samples(data: Table, **keys: Any) -> list[str | None]:
    return [row and row.sample for row in rows(data, reading(**keys))]


def test_columns() -> None:
    [row] = rows(table(q=["Hi"], a=[3], other=[None]))
    assert row == Row({"q": "Hi", "a": 3, "other": None}, "Hi", "3")


@pytest.mark.parametrize("gap", [None, "", float("nan")])
@pytest.mark.parametrize("side", ["q", "a"])
def test_an_empty_cell_is_named(gap: object, side: str) -> None:
    data = table(**{"q": ["x", "y"], "a": ["1", "2"], side: ["x", gap]})
    with pytest.raises(DataError, match=rf"x\.csv:3: column '{side}' is empty; .*missing_value_strategy"):
        rows(data)


def test_strategies_for_empty_cells() -> None:
    data = table(q=[None, "b", "", "b", "c", None], a=list("123456"))
    assert samples(data, missing_value_strategy="fill_with_const", fill_value="-") == ["-", "b", "-", "b", "c", "-"]
    assert samples(data, missing_value_strategy="fill_with_mode") == ["b", "b", "b", "b", "c", "b"]
    assert samples(data, missing_value_strategy="drop_row") == [None, "b", None, "b", "c", None]
    with pytest.raises(DataError, match=r"x\.csv:2: column 'q' is empty"):
        samples(data, missing_value_strategy="ffill")
    with pytest.raises(DataError, match=r"x\.csv:7: column 'q' is empty"):
        samples(data, missing_value_strategy="bfill")
    inner = table(q=["a", None, None, "b"], a=list("1234"))
    assert samples(inner, missing_value_strategy="ffill") == ["a", "a", "a", "b"]
    assert samples(inner, missing_value_strategy="bfill") == ["a", "b", "b", "b"]


def test_strategies_reach_columns_of_the_template_and_the_response() -> None:
    data = table(x=["v", None], a=["1", None])
    found = rows(
        data,
        reading(missing_value_strategy="fill_with_const", fill_value="?"),
        writing(missing_value_strategy="fill_with_const"),
        ("x",),
        sampled=False,
    )
    assert [(row.columns["x"], row.response) for row in found] == [("v", "1"), ("?", "")]
    assert rows(data, reading(missing_value_strategy="drop_row"), None, ("x",), sampled=False)[1] is None


def test_lowercase() -> None:
    [row] = rows(table(q=["ÄB"], a=["Cd"]), reading(lowercase=True), writing(lowercase=True))
    assert (row.sample, row.response) == ("äb", "cd")


def test_cells_that_are_no_texts() -> None:
    found = rows(table(q=[7, 1.5, True, ["ü", None], {"k": 1}], a=list("12345")))
    assert [row.sample for row in found] == ["7", "1.5", "true", '["ü", null]', '{"k": 1}']
    assert as_text(None) == ""


def test_a_template_that_shows_the_sample_needs_its_column() -> None:
    with pytest.raises(DataError, match=r"there is no column 'q' \(the input feature\)"):
        rows(table(x=["v"], a=["1"]), named=("x",), sampled=True)
    assert rows(table(x=["v"], a=["1"]), named=("x",), sampled=False)[0].sample == ""


def test_missing_columns() -> None:
    for data, named, said in (
        (table(question=["x"], a=["1"]), (), "no column 'q' (the input feature)"),
        (table(q=["x"], answer=["1"]), (), "no column 'a' (the output feature)"),
        (table(q=["x"], a=["1"]), ("topc",), "no column 'topc' (named by prompt.template)"),
    ):
        with pytest.raises(DataError) as caught:
            rows(data, named=named)
        assert said in str(caught.value)


def test_predicting_needs_no_response() -> None:
    assert rows(table(q=["x"]), training=False)[0].response is None
    assert [row.response for row in rows(table(q=["x", "y"], a=["1", None]), training=False)] == ["1", None]


def alpaca(**columns: list[Any]) -> list[Row | None]:
    data = table(**columns)
    shape = resolve(Dataset(), [], [], (), data)
    assert shape.format == "alpaca"
    return [row for _, row in canonical(data, range(len(data)), shape, [], [])]


def test_alpaca_with_empty_input() -> None:
    found = alpaca(instruction=["a", "b", "c"], input=["x", "", None], output=["1", "2", "3"])
    assert [row.columns["input"] for row in found] == ["x", "", ""]
    assert [row.response for row in found] == ["1", "2", "3"]
    assert alpaca(instruction=["a"], output=["1"])[0].sample == "a"
    with pytest.raises(DataError, match=r"x\.csv:2: column 'instruction' is empty"):
        alpaca(instruction=[""], output=["1"])


def test_shapes_that_are_told_by_the_columns() -> None:
    assert resolve(Dataset(), [], [], (), table(messages=[[]])) == Shape("messages", messages="messages")
    assert resolve(Dataset(messages_column="talk"), [], [], (), table(talk=[[]])).messages == "talk"
    with pytest.raises(DataError, match="cannot tell which columns to read from x, y"):
        resolve(Dataset(), [], [], (), table(x=[1], y=[2]))
    with pytest.raises(DataError, match="there is no column 'messages'"):
        resolve(Dataset(format="messages"), [], [], (), table(x=[1]))


USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


def test_conversations_as_lists_and_as_json_in_a_cell() -> None:
    assert conversations([USER, ANSWER], json.dumps([USER, ANSWER])) == [(USER, ANSWER)] * 2


def test_typed_parts_of_a_message() -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "value": "b"}], "name": "x"}
    assert conversations([parts, ANSWER])[0][0] == {"role": "user", "content": "ab", "name": "x"}


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("not json", "column 'messages': expected a list of messages, got a text that is not JSON"),
        ("{}", "column 'messages': expected a list of messages with role and content, got nothing"),
        ('{"role": "user"}', "column 'messages': expected a list of messages with role and content, got dict"),
        ([], "column 'messages': expected a list of messages with role and content, got nothing"),
        (None, "column 'messages': expected a list of messages with role and content, got nothing"),
        (3, "column 'messages': expected a list of messages with role and content, got int"),
        ([USER, "x"], "column 'messages', message 2: expected an object with role and content"),
        ([USER, {"content": "x"}], "column 'messages', message 2: expected an object with role and content"),
        (
            [{"role": "human", "content": "x"}],
            "column 'messages', message 1: unknown role 'human' (one of system, user, assistant",
        ),
        ([{"role": ["user"], "content": "x"}], "column 'messages', message 1: unknown role ['user']"),
        (
            [USER, {"role": "assistant", "content": None}],
            "column 'messages', message 2: content must be a text, got nothing",
        ),
        ([USER, {"role": "assistant"}], "column 'messages', message 2: content must be a text, got nothing"),
        ([USER, {"role": "assistant", "content": 3}], "column 'messages', message 2: content must be a text, got int"),
        (
            [{"role": "user", "content": [{"type": "image"}]}],
            "column 'messages', message 1: content parts other than text are not available",
        ),
        ([USER, {**ANSWER, "weight": 0}], "column 'messages', message 2: 'weight' per message is not available yet"),
        ([USER], "column 'messages': there is no assistant message, so nothing in this row carries loss"),
    ],
)
def test_conversations_that_cannot_be_used(cell: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        conversations([USER, ANSWER], cell)
    assert str(caught.value).startswith(f"x.csv:3: {said}")


def test_predicting_needs_no_assistant_message() -> None:
    assert conversations([USER], training=False) == [(USER,)]
