"""All metrics of a model on rows with known targets: likelihood by teacher forcing, and what it writes by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from fettle.data import blocks
from fettle.data.encode import Encoded, encode_rows
from fettle.data.store import Collector, EncodedSplit
from fettle.errors import DataError
from fettle.evaluation.likelihood import likelihood
from fettle.evaluation.metrics import text_metrics, token_accuracy
from fettle.generation.predict import Prediction
from fettle.prepare import CHUNK, Rows
from fettle.training.config import PretrainTrainer

PACK_TOKENS = 4096


def evaluate_likelihood(
    model: Any, rows: Rows, indices: Sequence[int], device: str, batch_size: int | None = None
) -> tuple[dict[str, float], list[int]]:
    """(loss, perplexity and next-token accuracy, the rows they are of).

    Rows longer than the limit are left out with `overlong_rows: drop`, else cut to it.

    Raises:
        DataError: no row has a target.
    """
    if rows.shape.format == "text":
        return _documents_likelihood(model, rows, indices, device)
    split = _encode(rows, indices)
    if not len(split):
        raise DataError("no row has a response to compare with; evaluation needs the output column")
    model.eval()
    with torch.no_grad():
        scores = likelihood(model, split, device, PACK_TOKENS, batch_size).metrics()
    return scores, split.rows_R.tolist()


def _documents_likelihood(
    model: Any, rows: Rows, indices: Sequence[int], device: str
) -> tuple[dict[str, float], list[int]]:
    """The same for documents, and bits per byte: what every token costs, whatever the vocabulary."""
    size = 0

    def chunks() -> Iterator[tuple[Sequence[int], Sequence[Encoded]]]:
        nonlocal size
        for start in range(0, len(indices), CHUNK):
            kept = [(index, text) for index, text in rows.rendered(indices[start : start + CHUNK]) if text is not None]
            size += sum(len(text.text.encode()) for _, text in kept)
            yield [index for index, _ in kept], encode_rows([text for _, text in kept], rows.tokenizer)

    trainer = rows.config.trainer
    across = isinstance(trainer, PretrainTrainer) and trainer.attend_across_documents
    found = blocks.in_memory(chunks(), rows.block_length, across, rows.tokenizer.shares_separator)
    if not len(found):
        raise DataError("no document has any text to score")
    model.eval()
    with torch.no_grad():
        outcome = likelihood(model, found, device, PACK_TOKENS)
    return {**outcome.metrics(), "bits_per_byte": outcome.loss / math.log(2) / size}, found.rows_D.tolist()


def _encode(rows: Rows, indices: Sequence[int]) -> EncodedSplit:
    collector = Collector()
    for start in range(0, len(indices), CHUNK):
        kept = [(index, text) for index, text in rows.rendered(indices[start : start + CHUNK]) if text is not None]
        encoded = encode_rows([text for _, text in kept], rows.tokenizer, rows.limits)
        pairs = [
            (index, one)
            for (index, _), one in zip(kept, encoded, strict=True)
            if rows.fits(one) or rows.overlong != "drop"
        ]
        labelled = [(index, one.cut(rows.limit or len(one.ids))) for index, one in pairs]
        labelled = [(index, one) for index, one in labelled if any(one.trained[1:])]
        collector.add([index for index, _ in labelled], [one for _, one in labelled])
    return collector.finish({})


def evaluate_answers(predictions: Sequence[Prediction], rows: Rows) -> dict[str, float]:
    """Exact match, BLEU, ROUGE, edit distances and token accuracy of written answers, and how many ended by themselves."""
    known = [(one.answer, one.target) for one in predictions if one.answer is not None and one.target is not None]
    if not known:
        return {}
    targets = [target for _, target in known]
    ids = rows.tokenizer.encode(targets, special=False)
    return {
        **text_metrics([answer.text for answer, _ in known], targets),
        "token_accuracy": token_accuracy([answer.ids for answer, _ in known], ids),
        "stopped": sum(answer.stopped for answer, _ in known) / len(known),
        "truncated_prompts": sum(answer.truncated for answer, _ in known) / len(known),
    }
