"""Batched generation: rows sorted by length, answers in the order of the rows.

Letters: B = rows of a batch, T = longest prompt of the batch, G = tokens generated.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.generation.streamers import BaseStreamer

from fettle.errors import DataError
from fettle.generation.config import Generation
from fettle.tokenizer import Tokenizer

WINDOW = 16  # batches sorted together: enough for even lengths, little enough to stream


@dataclass(frozen=True)
class Answer:
    """What the model wrote."""

    ids: list[int]
    """Without the stop token."""
    text: str
    stopped: bool
    """Ended by itself, not by the length limit."""
    truncated: bool
    """The prompt had to be cut."""
    probabilities: list[float]
    """Of each token of `ids`, given those before."""


@dataclass(frozen=True)
class Decoder:
    """A model ready to answer prompts."""

    model: Any
    tokenizer: Tokenizer
    settings: GenerationConfig
    context: int | None
    device: str

    @property
    def stops(self) -> list[int]:
        """Ids that end an answer."""
        ids = self.settings.eos_token_id
        return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)

    def answers(self, prompts: Sequence[list[int]], batch_size: int) -> Iterator[Answer]:
        """One answer per prompt, in their order; only a window of batches is in flight."""
        step = max(1, batch_size) * WINDOW
        for start in range(0, len(prompts), step):
            window = prompts[start : start + step]
            found: dict[int, Answer] = {}
            for positions in self._batches(window, batch_size):
                found |= dict(zip(positions, self._batch([window[at] for at in positions]), strict=True))
            yield from (found[at] for at in range(len(window)))

    def stream(self, prompt: list[int], show: Callable[[str], None]) -> Answer:
        """Answer one prompt, handing over each piece of text as it comes."""
        return self._batch([prompt], _Streamer(self, show))[0]

    def _batches(self, prompts: Sequence[list[int]], batch_size: int) -> list[list[int]]:
        """Positions of prompts answered together: neighbours by length; those near the end of the context alone, with less room."""
        order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
        roomy = [at for at in order if self._room(prompts[at]) == self._most]
        batches = [roomy[first : first + batch_size] for first in range(0, len(roomy), batch_size)]
        return batches + [[at] for at in order[len(roomy) :]]

    @property
    def _most(self) -> int:
        return int(self.settings.max_new_tokens or 1)

    def _room(self, prompt: list[int]) -> int:
        """Tokens that an answer may have."""
        left = self._most if self.context is None else self.context - len(prompt)
        return max(1, min(self._most, left))

    def _fit(self, prompt: list[int]) -> list[int]:
        """The prompt, or the end of one that leaves no room at all in the context."""
        if not prompt:
            raise DataError("an empty prompt: there is nothing to answer (the tokenizer adds no first token either)")
        if self.context is None or len(prompt) < self.context:
            return prompt
        return prompt[-(self.context - min(self._most, max(1, self.context // 2))) :]

    def _batch(self, prompts: Sequence[list[int]], streamer: BaseStreamer | None = None) -> list[Answer]:
        fitted = [self._fit(prompt) for prompt in prompts]
        longest = max(len(prompt) for prompt in fitted)
        padding = self.tokenizer.padding_id
        input_ids_BT = torch.tensor(
            [[padding] * (longest - len(prompt)) + prompt for prompt in fitted], device=self.device
        )
        mask_BT = torch.tensor(
            [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in fitted], device=self.device
        )
        recorder = _Recorder()
        settings_ = copy.copy(self.settings)
        settings_.max_new_tokens = min(self._room(prompt) for prompt in fitted)
        with torch.inference_mode(), _own_settings_only(self.model):
            output = self.model.generate(
                input_ids=input_ids_BT, attention_mask=mask_BT, generation_config=settings_, streamer=streamer,
                logits_processor=LogitsProcessorList([recorder]),
            )  # fmt: skip
        written = output[:, longest:]
        likelihoods = recorder.finish(written).tolist()
        return [
            self._answer(ids, chances, len(prompt) < len(original))
            for ids, chances, prompt, original in zip(written.tolist(), likelihoods, fitted, prompts, strict=True)
        ]

    def _answer(self, ids: list[int], likelihoods: list[float], truncated: bool) -> Answer:
        stops = set(self.stops)
        end = next((position for position, token in enumerate(ids) if token in stops), None)
        kept = ids if end is None else ids[:end]
        return Answer(kept, self.tokenizer.decode(kept).strip(), end is not None, truncated, likelihoods[: len(kept)])


@contextmanager
def _own_settings_only(model: Any) -> Iterator[None]:
    """Keep what a base model's generation_config.json asks for out of the answer: the config alone decides.

    transformers fills whatever the given settings leave open from the model's own.
    """
    models = [model, model.get_base_model()] if isinstance(model, PeftModel) else [model]
    before = [one.generation_config for one in models]
    try:
        for one in models:
            one.generation_config = GenerationConfig()
        yield
    finally:
        for one, own in zip(models, before, strict=True):
            one.generation_config = own


class _Recorder(LogitsProcessor):  # type: ignore[misc]
    """Notes the probability of each token that was chosen, holding one step's distribution at a time, not all of them."""

    def __init__(self) -> None:
        self.before_BV: torch.Tensor | None = None
        self.found_B: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._note(input_ids[:, -1])
        self.before_BV = scores.float().softmax(-1)
        return scores

    def finish(self, written_BG: torch.Tensor) -> torch.Tensor:
        """Probabilities of the generated tokens, (B, G)."""
        if written_BG.shape[1] == 0:
            return written_BG.float()
        self._note(written_BG[:, -1])
        return torch.stack(self.found_B, dim=1)

    def _note(self, chosen_B: torch.Tensor) -> None:
        if self.before_BV is not None:
            self.found_B.append(self.before_BV.gather(1, chosen_B[:, None])[:, 0])


class _Streamer(BaseStreamer):  # type: ignore[misc]
    """Hands over text when it can no longer change (a character may take several tokens)."""

    def __init__(self, decoder: Decoder, show: Callable[[str], None]) -> None:
        self.decoder, self.show = decoder, show
        self.ids: list[int] = []
        self.shown = ""
        self.prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        if not self.prompt_seen:  # the first call hands over the prompt
            self.prompt_seen = True
            return
        self.ids += [int(token) for token in value.reshape(-1) if int(token) not in self.decoder.stops]
        text = self.decoder.tokenizer.decode(self.ids).lstrip()
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            self.show(text[len(self.shown) :])
            self.shown = text

    def end(self) -> None:
        text = self.decoder.tokenizer.decode(self.ids).strip()
        self.show(text[len(self.shown) :])


def settings(
    section: Generation, tokenizer: Tokenizer, stops: Sequence[int], context: int | None, most: int | None
) -> GenerationConfig:
    """transformers' settings of the section's keys.

    Args:
        stops: ids that end an answer where the section names none.
        context: the model's context.
        most: tokens of the answer where the section does not say.
    """
    eos: Any = section.eos_token_id if section.eos_token_id is not None else list(stops) or None
    own: dict[str, Any] = {
        "max_new_tokens": section.max_new_tokens or most or max(1, (context or 64) // 2),
        "min_new_tokens": section.min_new_tokens,
        "do_sample": section.do_sample,
        "use_cache": section.use_cache,
        "repetition_penalty": section.repetition_penalty,
        "pad_token_id": section.pad_token_id if section.pad_token_id is not None else tokenizer.padding_id,
        "eos_token_id": eos,
    }
    if section.do_sample:
        own |= {
            name: getattr(section, name)
            for name in ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
        }
    return GenerationConfig(**{name: value for name, value in own.items() if value is not None})
