"""How near predicted texts are to their targets, by the field's own libraries."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU


def text_metrics(predictions: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
    """Metrics of generated texts; 1.0 is a perfect score except for edit distances, where 0.0 is.

    exact_match: share of equal texts (surrounding white space aside). bleu: corpus BLEU of sacrebleu, 0 to 1 (its signature
    is 13a tokenisation, exponential smoothing, effective order). rouge1, rouge2, rougeL: mean F-measure of rouge_score over
    lower-cased words of any script, no stemming.
    edit_distance: mean Levenshtein distance over the longer length, 0 to 1. word_error_rate and char_error_rate:
    edits over the targets' words and characters.

    Raises:
        ValueError: the lists differ in length or are empty.
    """
    if len(predictions) != len(targets) or not targets:
        raise ValueError(f"{len(predictions)} predictions for {len(targets)} targets")
    pairs = list(zip(predictions, targets, strict=True))
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Words())
    rouge = [scorer.score(target, prediction) for prediction, target in pairs]
    words = [(prediction.split(), target.split()) for prediction, target in pairs]
    return {
        "exact_match": _mean([float(prediction.strip() == target.strip()) for prediction, target in pairs]),
        "bleu": BLEU(effective_order=True).corpus_score(list(predictions), [list(targets)]).score / 100,
        **{key: _mean([score[key].fmeasure for score in rouge]) for key in ("rouge1", "rouge2", "rougeL")},
        "edit_distance": _mean([Levenshtein.normalized_distance(prediction, target) for prediction, target in pairs]),
        "char_error_rate": _rate(pairs),
        "word_error_rate": _rate(words),
    }


class _Words:
    """Words of any script; rouge_score's own tokenizer knows the letters a to z only."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())


def token_accuracy(predictions: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> float:
    """Share of target tokens that the generated ids have at the same place."""
    right = sum(
        a == b
        for prediction, target in zip(predictions, targets, strict=True)
        for a, b in zip(prediction, target, strict=False)
    )
    return right / max(1, sum(len(target) for target in targets))


def _rate(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> float:
    edits = sum(Levenshtein.distance(prediction, target) for prediction, target in pairs)
    return edits / max(1, sum(len(target) for _, target in pairs))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
