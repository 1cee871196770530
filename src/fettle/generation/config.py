"""The `generation` section: how the model writes its answer. Bounds are checked here because transformers does not."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fettle.section import Section

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
TokenIds = list[Natural]


class Generation(Section):
    """How the model writes its answer."""

    max_new_tokens: Count | None = None
    """Most tokens of an answer; null means the output's max_sequence_length, else global_max_sequence_length, else half the
    model's context."""
    min_new_tokens: Natural | None = None
    """Fewest tokens of an answer; the stop token is forbidden before."""
    max_length: Count | None = None
    """Most tokens of prompt and answer together; max_new_tokens goes before it."""
    min_length: Natural = 0
    """Fewest tokens of prompt and answer together."""
    early_stopping: bool | Literal["never"] = False
    """When beam search stops."""
    max_time: Positive | None = None
    """Seconds after which an answer is cut."""
    do_sample: bool = False
    """Sample from the distribution instead of taking the likeliest token."""
    num_beams: Count = 1
    """Beams of beam search; 1 is none."""
    num_beam_groups: Count = 1
    """Groups of diverse beam search."""
    penalty_alpha: Share | None = None
    """Degeneration penalty of contrastive search."""
    use_cache: bool = True
    """Keep keys and values of earlier positions."""
    prompt_lookup_num_tokens: Count | None = None
    """Tokens proposed from the prompt in prompt-lookup decoding."""
    temperature: Positive = 0.1
    """Divides the logits before sampling; acts only with do_sample."""
    top_k: Natural = 50
    """Sample among this many likeliest tokens; 0 is no limit."""
    top_p: PositiveShare = 1.0
    """Sample among the likeliest tokens that reach this probability together."""
    min_p: Share | None = None
    """Sample among tokens at least this fraction as likely as the likeliest."""
    typical_p: PositiveShare = 1.0
    """Locally typical sampling's mass."""
    epsilon_cutoff: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Least probability of a sampled token."""
    eta_cutoff: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Eta sampling's cutoff."""
    diversity_penalty: Annotated[float, Field(ge=0)] = 0.0
    """Penalty for a token another beam group chose."""
    repetition_penalty: Positive = 1.0
    """Divides the score of tokens that have appeared; 1 is none."""
    encoder_repetition_penalty: Positive = 1.0
    """The inverse, for tokens of the prompt."""
    length_penalty: float = 1.0
    """Exponent of the length in a beam's score."""
    no_repeat_ngram_size: Natural = 0
    """N-grams of this size occur once only; 0 is off."""
    bad_words_ids: list[TokenIds] | None = None
    """Token sequences that must not appear."""
    force_words_ids: list[TokenIds] | None = None
    """Token sequences that must appear."""
    renormalize_logits: bool = False
    """Normalise after all processors."""
    forced_bos_token_id: Natural | None = None
    """Token forced first."""
    forced_eos_token_id: Natural | TokenIds | None = None
    """Token forced last."""
    remove_invalid_values: bool = False
    """Replace NaN and infinite scores."""
    exponential_decay_length_penalty: tuple[int, float] | list[float] | None = None
    """Start position and factor of a growing push towards the end."""
    suppress_tokens: TokenIds | None = None
    """Tokens that never appear."""
    begin_suppress_tokens: TokenIds | None = None
    """Tokens that do not appear first."""
    forced_decoder_ids: list[TokenIds] | None = None
    """Pairs of position and token."""
    sequence_bias: dict[str, float] | list[list[TokenIds | float]] | None = None
    """Bias added to token sequences."""
    guidance_scale: Positive | None = None
    """Classifier-free guidance."""
    stop_strings: list[str] | None = None
    """Texts at which an answer ends."""
    pad_token_id: Natural | None = None
    """Padding token; null means the tokenizer's."""
    bos_token_id: Natural | None = None
    """First token; null means the model's."""
    eos_token_id: Natural | TokenIds | None = None
    """Tokens at which an answer ends; null means the tokenizer's and the chat template's end of turn."""
