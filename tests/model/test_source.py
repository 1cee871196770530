"""Base models as folders: what they say of themselves, and what makes them unusable."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from fettle.errors import MissingFileError, ModelError
from fettle.model.source import facts, locate
from tests.conftest import POCKET


@pytest.fixture
def pocket(tmp_path: Path) -> Path:
    return Path(shutil.copytree(POCKET, tmp_path / "model"))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        facts("name", folder)
    return str(caught.value)


def change(folder: Path, **keys: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def test_pocket() -> None:
    found = facts("fettle:pocket", locate("fettle:pocket"))
    shape = (found.family, found.context, found.vocab_size, found.hidden, found.layers)
    assert shape == ("llama", 1024, 4096, 256, 4)
    attention, feed_forward, embeddings = 256 * (256 + 64 + 64 + 256), 3 * 256 * 640, 4096 * 256
    assert found.parameters == embeddings + 4 * (attention + feed_forward + 2 * 256) + 256


def test_parameters_are_those_of_the_model(tiny_llama: Path) -> None:
    from transformers import AutoModelForCausalLM

    assert facts("x", tiny_llama).parameters == AutoModelForCausalLM.from_pretrained(tiny_llama).num_parameters()
    assert facts("x", tiny_llama, weights=False).parameters == 0


def test_sharded_weights(pocket: Path) -> None:
    whole = facts("x", pocket).parameters
    index = pocket / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model.safetensors"}}))
    assert facts("x", pocket).parameters == whole
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "gone-2.safetensors"}}))
    assert "the weight files gone-2.safetensors are missing" in refusal(pocket)
    for text in ("{", "[]", '{"weight_map": 3}', "{}"):
        index.write_text(text)
        assert "not an index of weight files" in refusal(pocket)


def test_missing_parts(pocket: Path) -> None:
    weights = (pocket / "model.safetensors").read_bytes()
    (pocket / "model.safetensors").unlink()
    assert "no weights here" in refusal(pocket)
    (pocket / "pytorch_model.bin").write_bytes(b"x")
    assert "only pickled weights here (pytorch_model.bin)" in refusal(pocket)
    (pocket / "model.safetensors").write_bytes(weights)
    (pocket / "config.json").unlink()
    assert "config.json is missing" in refusal(pocket)


def header(entries: Any, size: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a safetensors file"),
        (b"<html>not found</html>", "not a safetensors file"),
        (header({}, 10**18), "the file is cut short (10 of 1000000000000000008 bytes)"),
        (header([1]), "not a safetensors file"),
        (header({"a": 3}), "not a safetensors file"),
        (header({"a": {"shape": [2], "data_offsets": []}}), "not a safetensors file"),
        (header({"a": {"shape": [2], "dtype": "F32", "data_offsets": [0, 8]}}) + b"1234", "the file is cut short"),
    ],
)
def test_damaged_weights(pocket: Path, content: bytes, said: str) -> None:
    (pocket / "model.safetensors").write_bytes(content)
    assert said in refusal(pocket)


def test_weights_cut_short_name_both_sizes(pocket: Path) -> None:
    path = pocket / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert refusal(pocket) == (
        f"{path}: the file is cut short ({len(whole) // 2} of {len(whole)} bytes); copy or download it again"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected an object of settings"),
        ("{}", "not a language model's config"),
        ('{"model_type": "bert"}', "not a language model's config"),
        ('{"model_type": "x", "vocab_size": "many"}', "not a language model's config"),
        ('{"model_type": "t5", "vocab_size": 9, "is_encoder_decoder": true}', "an encoder-decoder model (t5)"),
    ],
)
def test_configs_that_are_no_language_models(pocket: Path, text: str, said: str) -> None:
    (pocket / "config.json").write_text(text)
    assert said in refusal(pocket)


def test_sizes_under_other_names(pocket: Path) -> None:
    (pocket / "config.json").write_text(
        json.dumps({"model_type": "gpt2", "vocab_size": 9, "n_embd": 8, "n_layer": 3, "n_positions": 64})
    )
    found = facts("x", pocket)
    assert (found.hidden, found.layers, found.context) == (8, 3, 64)
    change(pocket, text_config={"model_type": "inner", "vocab_size": 11}, n_positions=None)
    assert (facts("x", pocket).family, facts("x", pocket).vocab_size, facts("x", pocket).context) == ("inner", 11, None)
    change(pocket, text_config=None)
    assert facts("x", pocket).family == "gpt2"


def test_locate(tmp_path: Path, pocket: Path) -> None:
    assert locate("model", tmp_path) == pocket
    assert locate(str(pocket)) == pocket
    with pytest.raises(ModelError, match=r"config\.json is a file; name the folder"):
        locate("model/config.json", tmp_path)
    with pytest.raises(MissingFileError, match="there is no 'fettle:rocket'; Fettle carries fettle:pocket"):
        locate("fettle:rocket")


@pytest.mark.parametrize("name", ["no/such/folder/here", "owner/model-that-is-not-cached", "a" * 300, "../x y"])
def test_a_name_that_is_nowhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingFileError, match="base_model"):
        locate(name, tmp_path)
