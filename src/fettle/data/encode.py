"""From rendered rows to ids and the mask of what carries loss; exact by construction.

Rows rendered piece by piece (a prompt, then its response) are encoded so: the ids of the prompt are the ids that prediction
will feed, and the response follows with the stop token. Rows rendered whole (chat templates) are encoded as one text and
divided by character offsets. Where a token would straddle the border, or the text up to the border alone would be encoded
otherwise, the text is cut there, so that a prompt at prediction is always a prefix of the training ids.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from fettle.rows import Rendered
from fettle.tokenizer import Tokenizer

LONGEST_PART = 1_000_000  # characters of a document that are encoded at once
Spelled = tuple[list[int], list[tuple[int, int]]]
"""Ids, and for each the characters (from, to) that it covers."""


@dataclass(frozen=True)
class Encoded:
    """Ids of one row and, for each, whether it carries loss."""

    ids: list[int]
    trained: list[bool]
    cut_off: int = 0
    """Tokens that were cut at the end."""

    def cut(self, limit: int) -> Encoded:
        return Encoded(self.ids[:limit], self.trained[:limit], max(0, len(self.ids) - limit))


@dataclass(frozen=True)
class Limits:
    """Most tokens of the parts of a row that features limit; None is no limit."""

    input: int | None = None
    output: int | None = None


def encode_rows(rows: Sequence[Rendered], tokenizer: Tokenizer, limits: Limits = Limits()) -> list[Encoded]:
    """Encode finished rows (prompt and response, or whole conversations)."""
    documents = iter(_encode_documents([row.text for row in rows if row.document], tokenizer))
    apart = iter(_encode_apart([row for row in rows if not row.whole and not row.document], tokenizer, limits))
    whole = iter(_encode_whole([row for row in rows if row.whole], tokenizer))
    return [next(documents) if row.document else next(whole) if row.whole else next(apart) for row in rows]


def encode_prompts(rows: Sequence[Rendered], tokenizer: Tokenizer, limits: Limits = Limits()) -> list[list[int]]:
    """Encode the part of rows that the model is given: exactly what stands before the response in training."""
    documents = iter(_document_ids([row.text for row in rows if row.document], tokenizer))
    apart = iter(_prompt_ids([r.pieces[0][0] for r in rows if not r.whole and not r.document], tokenizer, limits))
    whole = iter(_cut_where_straddled([(row.text, _borders(row)) for row in rows if row.whole], tokenizer))
    return [next(documents) if row.document else next(whole)[0] if row.whole else next(apart) for row in rows]


def _document_ids(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Ids of texts after what stands before a document."""
    parts = [_parts(text) for text in texts]
    encoded = iter(tokenizer.encode([part for group in parts for part in group], special=False))
    start = tokenizer.document_start
    return [start + [i for _ in group for i in next(encoded)] for group in parts]


def _encode_documents(texts: Sequence[str], tokenizer: Tokenizer) -> list[Encoded]:
    """Documents between their separators; all that is not given carries loss."""
    found = []
    given = len(tokenizer.document_start)
    for ids in _document_ids(texts, tokenizer):
        closed = ids + tokenizer.document_end
        found.append(Encoded(closed, [False] * given + [True] * (len(closed) - given)))
    return found


def _parts(text: str) -> list[str]:
    """A very long text in parts that end with a line, because encoding takes many times the memory of the text."""
    parts, start = [], 0
    while len(text) - start > LONGEST_PART:
        end = text.rfind("\n", start, start + LONGEST_PART) + 1 or start + LONGEST_PART
        parts.append(text[start:end])
        start = end
    return [*parts, text[start:]]


def _prompt_ids(prompts: Sequence[str], tokenizer: Tokenizer, limits: Limits) -> list[list[int]]:
    ends = {tokenizer.eos_id} - {tokenizer.bos_id, None}
    found = []
    for ids in tokenizer.encode(prompts, special=True):
        while ids and ids[-1] in ends:  # a tokenizer that closes every text would close the prompt
            ids = ids[:-1]
        found.append(ids[: limits.input])
    return found


def _encode_apart(rows: Sequence[Rendered], tokenizer: Tokenizer, limits: Limits) -> list[Encoded]:
    prompts = _prompt_ids([row.pieces[0][0] for row in rows], tokenizer, limits)
    responses = tokenizer.encode([row.pieces[1][0] for row in rows], special=False)
    stop = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    found = []
    for prompt, response in zip(prompts, responses, strict=True):
        closed = response if response[-1:] == stop else response + stop
        written = closed[: limits.output]
        found.append(Encoded(prompt + written, [False] * len(prompt) + [True] * len(written)))
    return found


def _encode_whole(rows: Sequence[Rendered], tokenizer: Tokenizer) -> list[Encoded]:
    texts = [row.text for row in rows]
    spans = [_borders(row) for row in rows]
    # what prediction would feed before the last response: must be a prefix of the row's ids
    prompts = [
        (text[: marks[-1][0]], marks[:-1]) if marks else ("", []) for text, marks in zip(texts, spans, strict=True)
    ]
    before = _cut_where_straddled(prompts, tokenizer)
    together = tokenizer.encode_with_offsets(texts)
    encoded = []
    for text, marks, prompt, (ids, offsets) in zip(texts, spans, before, together, strict=True):
        straddled = any(_straddled(offsets, mark) for span in marks for mark in span)
        if straddled or ids[: len(prompt[0])] != prompt[0]:
            start, end = marks[-1]
            rest = _encode_cut(text, [start, end], tokenizer)
            ids, offsets = prompt[0] + rest[0], prompt[1] + rest[1]
        encoded.append(Encoded(ids, _mask(offsets, marks)))
    return encoded


def _cut_where_straddled(texts: Sequence[tuple[str, list[tuple[int, int]]]], tokenizer: Tokenizer) -> list[Spelled]:
    """Ids and offsets of texts, encoded in parts where a token would lie across the border of a span."""
    found = []
    for (text, marks), (ids, offsets) in zip(
        texts, tokenizer.encode_with_offsets([text for text, _ in texts]), strict=True
    ):
        cuts = sorted({mark for span in marks for mark in span if _straddled(offsets, mark)})
        found.append(_encode_cut(text, [0, *cuts], tokenizer) if cuts else (ids, offsets))
    return found


def _borders(row: Rendered) -> list[tuple[int, int]]:
    """(from, to) characters of the pieces that carry loss."""
    spans, position = [], 0
    for piece, trained in row.pieces:
        if trained and piece:
            spans.append((position, position + len(piece)))
        position += len(piece)
    return spans


def _straddled(offsets: Sequence[tuple[int, int]], mark: int) -> bool:
    return any(start < mark < end for start, end in offsets)


def _encode_cut(text: str, cuts: Sequence[int], tokenizer: Tokenizer) -> Spelled:
    """Ids and offsets of a text from the first cut on, encoded in parts that end at the cuts."""
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    parts = [text[start:end] for start, end in itertools.pairwise([*cuts, len(text)])]
    for start, (part_ids, part_offsets) in zip(cuts, tokenizer.encode_with_offsets(parts), strict=True):
        ids += part_ids
        offsets += [(start + first, start + last) for first, last in part_offsets]
    return ids, offsets


def _mask(offsets: Sequence[tuple[int, int]], marks: Sequence[tuple[int, int]]) -> list[bool]:
    """True for the ids that lie within a span."""
    mask, position = [], 0
    for start, end in offsets:
        while position < len(marks) and start >= marks[position][1]:
            position += 1
        mask.append(position < len(marks) and start >= marks[position][0] and end <= marks[position][1])
    return mask
