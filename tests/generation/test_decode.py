"""Batched answers equal single ones, in the rows' order; stops, streams and probabilities are exact."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from fettle.base import find
from fettle.config import load
from fettle.errors import DataError
from fettle.generation.config import Generation
from fettle.generation.decode import Decoder, settings

TEXTS = [
    "Message: a",
    "Message: where is my router? It should have been here long ago\nJSON: ",
    "x",
    "Message: b\nJSON: ",
]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    base = find(load({"model_type": "llm", "base_model": "fettle:pocket"}).config, tmp_path_factory.mktemp("x"))
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32).eval()
    made = settings(Generation(max_new_tokens=12), base.tokenizer, [base.tokenizer.eos_id], base.facts.context, None)
    return Decoder(model, base.tokenizer, made, base.facts.context, "cpu")


@pytest.fixture(scope="module")
def prompts(decoder):
    return decoder.tokenizer.encode(TEXTS, special=True)


def test_batched_equals_one_by_one_in_order(decoder, prompts):
    alone = [next(decoder.answers([prompt], 1)) for prompt in prompts]
    together = list(decoder.answers(prompts, 4))
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]
    assert together[1].probabilities == pytest.approx(alone[1].probabilities, rel=1e-3)


def test_probabilities_are_those_of_the_model(decoder, prompts):
    answer = next(decoder.answers([prompts[1]], 1))
    ids = torch.tensor([prompts[1] + answer.ids])
    with torch.no_grad():
        chances = decoder.model(ids).logits[0].softmax(-1)
    expected = [float(chances[len(prompts[1]) - 1 + at, token]) for at, token in enumerate(answer.ids)]
    assert answer.probabilities == pytest.approx(expected, rel=1e-3)


def test_ends_at_a_stop_token_which_is_not_part_of_the_answer(decoder, prompts):
    first = next(decoder.answers([prompts[1]], 1))
    assert not first.stopped
    assert len(first.ids) == 12
    stop = first.ids[5]
    made = GenerationConfig(max_new_tokens=12, eos_token_id=[stop], pad_token_id=0, do_sample=False)
    again = next(Decoder(decoder.model, decoder.tokenizer, made, 512, "cpu").answers([prompts[1]], 1))
    assert again.stopped
    assert again.ids == first.ids[: first.ids.index(stop)]


def test_streamed_pieces_make_the_answer(decoder, prompts):
    pieces = []
    answer = decoder.stream(prompts[1], pieces.append)
    assert len(pieces) > 2
    assert "".join(pieces).strip() == answer.text


def test_a_prompt_that_leaves_no_room_is_cut_from_the_left(decoder):
    long = decoder.tokenizer.encode(["word " * 1100], special=True)[0]
    answer = next(decoder.answers([long], 1))
    assert answer.truncated
    assert len(answer.ids) <= 12


def test_an_empty_prompt_is_refused(decoder):
    with pytest.raises(DataError, match="empty prompt"):
        list(decoder.answers([[]], 1))


def test_the_bases_own_generation_config_has_no_say(decoder, prompts):
    expected = next(decoder.answers([prompts[1]], 1)).ids
    before = decoder.model.generation_config
    decoder.model.generation_config = GenerationConfig(suppress_tokens=expected[:2], no_repeat_ngram_size=1)
    try:
        assert next(decoder.answers([prompts[1]], 1)).ids == expected
        assert decoder.model.generation_config.no_repeat_ngram_size == 1
    finally:
        decoder.model.generation_config = before


def test_sampling_repeats_with_its_seed(decoder, prompts):
    made = settings(Generation(max_new_tokens=12, do_sample=True, temperature=1.0), decoder.tokenizer, [2], 512, None)
    sampler = Decoder(decoder.model, decoder.tokenizer, made, 512, "cpu")
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(next(sampler.answers([prompts[1]], 1)).ids)
    assert found[0] == found[1] != found[2]


def test_settings_name_only_what_acts(decoder):
    greedy = settings(Generation(), decoder.tokenizer, [2, 3], 512, None)
    assert greedy.temperature is None or not greedy.do_sample
    assert greedy.max_new_tokens == 256
    assert greedy.eos_token_id == [2, 3]
    assert settings(Generation(), decoder.tokenizer, [], 512, 7).max_new_tokens == 7
    assert settings(Generation(eos_token_id=9), decoder.tokenizer, [2], 512, 7).eos_token_id == 9


def test_a_prompt_near_the_end_of_the_context_is_whole_and_answered_with_less_room(decoder):
    [ids] = decoder.tokenizer.encode(["a b c d e f g h i j " * 200], special=True)
    answer = next(decoder.answers([ids[: decoder.context - 5]], 8))
    assert not answer.truncated
    assert len(answer.ids) <= 5
    full = next(decoder.answers([ids[: decoder.context]], 8))
    assert full.truncated
