"""Text metrics against worked examples."""

import pytest

from fettle.evaluation.metrics import text_metrics, token_accuracy


def test_perfect_answers():
    texts = ["the cat sat on the mat", "a dog ran fast today"]
    scores = text_metrics(texts, texts)
    for name in ("exact_match", "bleu", "rouge1", "rouge2", "rougeL"):
        assert scores[name] == pytest.approx(1.0)
    for name in ("edit_distance", "char_error_rate", "word_error_rate"):
        assert scores[name] == 0.0


def test_surrounding_white_space_is_no_mistake():
    assert text_metrics([" yes\n"], ["yes"])["exact_match"] == 1.0


def test_worked_example():
    scores = text_metrics(["the cat", "kitten"], ["the cat sat", "sitting"])
    assert scores["exact_match"] == 0.0
    assert scores["rouge1"] == pytest.approx((0.8 + 0.0) / 2)
    assert scores["word_error_rate"] == pytest.approx(2 / 4)
    assert scores["char_error_rate"] == pytest.approx((4 + 3) / (11 + 7))
    assert scores["edit_distance"] == pytest.approx((4 / 11 + 3 / 7) / 2)


def test_lists_must_match():
    with pytest.raises(ValueError, match="1 predictions for 2 targets"):
        text_metrics(["a"], ["a", "b"])


def test_token_accuracy_counts_places():
    assert token_accuracy([[1, 2, 3], []], [[1, 5, 3, 4], [7]]) == pytest.approx(2 / 5)


@pytest.mark.parametrize("text", ["你好世界", "Größe", "yes", "ответ готов"])
def test_equal_texts_of_any_script_and_length_are_perfect(text):
    scores = text_metrics([text], [text])
    assert [scores[name] for name in ("exact_match", "bleu", "rouge1", "rougeL")] == pytest.approx([1.0] * 4)
