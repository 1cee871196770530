"""The base model's tokenizer: the one object that data, prompts and models share as a value.

It is read from the standard files (tokenizer.json, tokenizer_config.json, chat_template.jinja) by the `tokenizers` library
alone, so that check and preview show exactly what training will see, without importing transformers or torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from fettle.errors import ModelError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


@dataclass(frozen=True)
class Tokenizer:
    """Text to ids and back, with the special tokens and chat template that the folder declares."""

    backend: Backend
    folder: Path
    bos: str | None
    eos: str | None
    pad: str | None
    chat_template: str | None

    @property
    def eos_id(self) -> int | None:
        return None if self.eos is None else self.backend.token_to_id(self.eos)

    @property
    def bos_id(self) -> int | None:
        return None if self.bos is None else self.backend.token_to_id(self.bos)

    @property
    def document_start(self) -> list[int]:
        """What stands before a document: what the tokenizer puts there by itself, else the end of the one before it."""
        prefix = self.backend.encode("", add_special_tokens=True).ids
        if prefix and prefix[-1] == self.eos_id and self.eos_id != self.bos_id:
            prefix = prefix[:-1]
        return prefix or self.document_end

    @property
    def document_end(self) -> list[int]:
        """What closes a document; nothing where the tokenizer has no end-of-text token."""
        return [] if self.eos_id is None else [self.eos_id]

    @property
    def shares_separator(self) -> bool:
        """Whether the end of a document is all that stands before the next."""
        return bool(self.document_end) and self.document_start == self.document_end

    @property
    def padding_id(self) -> int:
        """An id to fill batches with; what it is does not matter, it is masked."""
        known = [self.backend.token_to_id(token) for token in (self.pad, self.eos) if token is not None]
        return next((found for found in known if found is not None), 0)

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the special tokens."""
        return frozenset(i for i, token in self.backend.get_added_tokens_decoder().items() if token.special)

    @property
    def fingerprint(self) -> str:
        """Hash of everything that shapes its output."""
        parts = (self.backend.to_str(), self.bos, self.eos, self.chat_template)
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    def encode(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        """Ids of each text; `special` adds what the tokenizer puts around a text by itself (such as a first `<s>`)."""
        return [encoding.ids for encoding in self.backend.encode_batch_fast(list(texts), add_special_tokens=special)]

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Ids of each text and the characters (from, to) that each id covers; nothing is added."""
        encodings = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [(encoding.ids, encoding.offsets) for encoding in encodings]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of the ids."""
        return str(self.backend.decode([int(i) for i in ids], skip_special_tokens=skip_special))

    def token(self, i: int) -> str:
        """The token of an id, as the vocabulary writes it."""
        return self.backend.id_to_token(i) or ""

    def with_chat_template(self, template: str | None) -> Tokenizer:
        """The same tokenizer with another chat template."""
        return replace(self, chat_template=template)


def read_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokenizer of a Hugging Face folder.

    Raises:
        ModelError: the folder has no tokenizer, a slow one only, or a broken one.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        if any((folder / name).is_file() for name in ("tokenizer.model", "vocab.json", "vocab.txt")):
            raise ModelError(
                f'{folder}: the tokenizer has no tokenizer.json. Write one with: python -c "from transformers import '
                f"AutoTokenizer as T; T.from_pretrained('{folder}').save_pretrained('{folder}')\""
            )
        raise ModelError(f"{folder}: no tokenizer here (tokenizer.json is missing)")
    settings = _settings(folder)
    try:
        backend = Backend.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # noqa: BLE001 -- the library raises bare Exception for a broken file
        raise ModelError(f"{path}: not a tokenizer that can be read: {error}") from None
    backend.no_padding()
    backend.no_truncation()
    names = {key: _content(settings.get(f"{key}_token")) for key in ("bos", "eos", "pad", "unk")}
    extra = [_content(token) for token in settings.get("additional_special_tokens") or []]
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    # transformers makes every declared special token atomic, also one that is an ordinary entry of the vocabulary
    missing = [token for token in (*names.values(), *extra) if token is not None and token not in known]
    for key in ("bos", "eos"):
        token = names[key]
        if token is not None and backend.token_to_id(token) is None:
            raise ModelError(f"{folder}: the {key}_token {token!r} of tokenizer_config.json is not in tokenizer.json")
    backend.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token in dict.fromkeys(missing)
            if backend.token_to_id(token) is not None
        ]
    )
    if names["pad"] is not None and backend.token_to_id(names["pad"]) is None:
        names["pad"] = None
    return Tokenizer(backend, folder, names["bos"], names["eos"], names["pad"], _template(folder, settings))


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json over special_tokens_map.json."""
    merged: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ModelError(f"{path}: not valid JSON: {error}") from None
            if not isinstance(found, dict):
                raise ModelError(f"{path}: expected an object of settings")
            merged |= {key: value for key, value in found.items() if value is not None}
    return merged


def _content(token: Any) -> str | None:
    """The text of a token that may be written as a text or as an object."""
    return token.get("content") if isinstance(token, dict) else token


def _template(folder: Path, settings: dict[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several named templates: the one called default
        named = {entry.get("name"): entry.get("template") for entry in template}
        return named.get("default")
    return template
