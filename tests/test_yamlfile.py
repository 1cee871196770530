"""YAML with lines: scalars, places, and texts that a config must not be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.errors import ConfigError
from fettle.yamlfile import MAX_CHARACTERS, dotted, dump, parse


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "run.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("7", 7),
        ("+7", 7),
        ("-3", -3),
        ("010", 10),
        ("089", 89),
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2024-05-31", "2024-05-31"),
        ("0x10", "0x10"),
        ("'7'", "7"),
        ('"null"', "null"),
        (".inf", float("inf")),
        ('"\\ud83d\\ude42"', "🙂"),
        ("=", "="),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = parse(f"key: {text}", "x").data["key"]
    assert found == value
    assert type(found) is type(value)


def test_lines_and_places() -> None:
    document = parse("a: 1\nb:\n  - x: 2\n  -\n    y: 3\n", "run.yaml")
    assert document.data == {"a": 1, "b": [{"x": 2}, {"y": 3}]}
    assert document.place(("b", 1, "y")) == "run.yaml:5"
    assert document.place(("b", 0, "missing")) == "run.yaml:3"
    assert document.place(("zzz",)) == "run.yaml"


def test_duplicate_keys_name_both_lines() -> None:
    document = parse("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n", "run.yaml")
    assert [str(fault) for fault in document.faults] == [
        "run.yaml:4: b.c: stands twice (first in line 3)",
        "run.yaml:5: a: stands twice (first in line 1)",
    ]


def test_broken_text_names_line_and_column() -> None:
    assert refusal("a: 1\nb: [1, 2\nc: 3\n").startswith("run.yaml:3:")
    assert refusal('a: 1\nb: "unclosed\n').startswith("run.yaml:")


def test_tab_is_named() -> None:
    said = refusal("a:\n\tb: 1\n")
    assert said.startswith("run.yaml:2:1:")
    assert "'\\t'" in said


def test_control_character_is_named() -> None:
    assert refusal("a: 1\nbc: x\x07y\n") == "run.yaml:2:6: the character 0x0007 is not allowed here"


def test_escape_that_is_no_character() -> None:
    assert "not valid YAML" in refusal('a: "\\UFFFFFFFF"')
    assert "cannot be read as str" in refusal('a: "\\ud83d"')


def test_number_too_long_names_its_line() -> None:
    assert refusal("a: 1\nb: " + "9" * 5000).startswith("run.yaml:2: b: cannot be read as int")


@pytest.mark.parametrize("text", ["a: !!python/object/apply:os.system ['ls']", "a: !env TOKEN", "a: !!binary aGk="])
def test_tags_run_nothing(text: str) -> None:
    assert "tags such as" in refusal(text)


def test_merge_key() -> None:
    data = parse("base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  y: 3\nboth:\n  <<: [{x: 7}, *b]\n", "x").data
    assert data["other"] == {"x": 1, "y": 3}
    assert data["both"] == {"x": 7, "y": 2}


def test_merge_of_a_scalar_is_refused() -> None:
    assert "<< takes a mapping" in refusal("a:\n  <<: 3\n")


@pytest.mark.timeout(20)
def test_alias_bomb() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "aliases" in refusal("\n".join(lines))


@pytest.mark.timeout(20)
def test_merge_bomb() -> None:
    text = "{x: 1}"
    for level in range(12):
        text = f"{{<<: [&m{level} {text}, {', '.join([f'*m{level}'] * 9)}]}}"
    assert "too large or too deep" in refusal("a: " + text)


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: &a {<<: *a}"])
def test_alias_to_itself(text: str) -> None:
    assert "deep" in refusal(text)


def test_deep_nesting() -> None:
    assert "deep" in refusal("[" * 100 + "]" * 100)
    assert "deeper than" in refusal("[" * 50_000 + "]" * 50_000)


def test_giant_text() -> None:
    assert "too large for a config" in refusal("a" * (MAX_CHARACTERS + 1))


def test_key_that_is_no_word() -> None:
    assert "a key must be a plain word" in refusal("? [a, b]\n: 1\n")


def test_dotted() -> None:
    assert dotted(("trainer", "optimizer", "betas", 0)) == "trainer.optimizer.betas[0]"
    assert dotted(("input_features", 1, "name")) == "input_features[1].name"


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]))
    | st.sampled_from(
        ["2e-4", "1e5", "010", "089", "no", "null", "1.", ".5", "+7", "-", "~", "=", "<<", "- a", "a: b", "#"]
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(categories=["L", "N", "P"]), min_size=1), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(PLAIN)
def test_what_dump_writes_parse_reads_back(data: object) -> None:
    assert parse(dump({"a": data}), "x").data == {"a": data}
