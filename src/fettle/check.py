"""Everything that is wrong with config, data and hardware fit together, found before a weight is loaded or torch imported."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fettle import base
from fettle.config import Config, Loaded
from fettle.data.cache import is_kept, rows_folder
from fettle.data.encode import encode_rows
from fettle.errors import DataError, Fault, FettleError, nearest
from fettle.hardware import facts, plan
from fettle.model.adapter_config import LoraFamily
from fettle.prepare import CHUNK, SHOWN, Rows, Sources
from fettle.rows import Rendered
from fettle.tokenizer import Tokenizer
from fettle.training.config import TrainingSection
from fettle.training.optimizer_config import EightBit, Lars

ROW_FAULTS = 10  # kinds of faults in rows that are told


@dataclass
class Report:
    """What check found."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    base: base.Base | None = None
    rows: Rows | None = None
    """The rows that were looked at, for who goes on with them."""


def run(loaded: Loaded, sources: Sources, seed: int, trust_cache: bool = False) -> Report:
    """Check a config that is valid in itself against its base model, its data and this machine.

    Args:
        trust_cache: do not walk rows again that were encoded before under the same fingerprint.
    """
    report = Report(warnings=list(loaded.warnings))
    config = loaded.config
    try:
        found = base.find(config, loaded.folder)
    except FettleError as error:
        report.faults.append(str(error))
        _data_alone(config, sources, loaded, report)
        return report
    report.notes.append(_described(found))
    report.warnings += list(_base_warnings(config, found))
    rows = Rows(
        config,
        sources,
        loaded.folder,
        found.tokenizer,
        found.facts.context,
        seed,
        training=config.trainer.type != "none",
    )
    report.base, report.rows = found, rows
    report.faults += list(_missing_extras(config))
    report.warnings += list(_missing_targets(config, found))
    longest = 0
    try:
        if not (trust_cache and is_kept(rows_folder(config.backend, rows.fingerprint()))):
            longest = _look_at_rows(rows, report)
    except FettleError as error:
        report.faults.append(str(error))
    _look_at_hardware(config, found, longest, report)
    return report


# Sections without which it is open how rows are to be read.
_DECISIVE = ("model_type", "base_model", "input_features", "output_features", "dataset", "prompt", "preprocessing")


def run_beside(faults: Sequence[Fault], loaded: Loaded | None, given: Sequence[Any], seed: int) -> Report:
    """Check what can be checked beside the faults that the config itself has.

    Args:
        loaded: the config without its faulty keys, if anything is left.
        given: dataset, training_set, validation_set and test_set of the command line.
    """
    report = Report()
    open_questions = any(fault.path.partition(".")[0].partition("[")[0] in _DECISIVE for fault in faults)
    if loaded is not None and not open_questions:
        try:
            report = run(loaded, Sources.of(loaded.config, *given), seed)
        except FettleError as error:
            report.faults.append(str(error))
    report.faults[:0] = [str(fault) for fault in faults]
    return report


def _data_alone(config: Config, sources: Sources, loaded: Loaded, report: Report) -> None:
    """Without a tokenizer the files and columns can still be looked at."""
    rows = Rows(config, sources, loaded.folder, None, None, 0)  # type: ignore[arg-type]
    try:
        report.notes.append(f"data: {len(rows.table):,} rows, columns {', '.join(rows.table.columns)}")
        shape = rows.shape
        report.notes.append(f"rows are read as {shape.format}")
    except FettleError as error:
        report.faults.append(str(error))


def _missing_extras(config: Config) -> Iterator[str]:
    """Optional packages that the config needs and that are not installed."""
    trainer = config.trainer
    if not isinstance(trainer, TrainingSection):
        return
    needed: list[tuple[str, str, str]] = [(f"trainer.callbacks: {name}", name, name) for name in trainer.callbacks]
    if isinstance(trainer.optimizer, (EightBit, Lars)):
        needed.append((f"trainer.optimizer: {trainer.optimizer.type}", "bitsandbytes", "optimizers"))
    if trainer.optimizer.type == "schedule_free_adamw":
        needed.append((f"trainer.optimizer: {trainer.optimizer.type}", "schedulefree", "optimizers"))
    for key, package, extra in needed:
        if importlib.util.find_spec(package) is None:
            yield f"{key} needs the package {package}: pip install 'fettle[{extra}]'"


def _missing_targets(config: Config, found: base.Base) -> Iterator[str]:
    """Layers that an adapter names and the weight files do not; no fault, because libraries rename the weights of some families."""
    targets = config.adapter.target_modules if isinstance(config.adapter, LoraFamily) else None
    names = {name.removesuffix(".weight") for name in found.facts.weights if name.endswith(".weight")}
    if not names or targets is None or targets == "all-linear":
        return
    if isinstance(targets, str):
        if not any(re.fullmatch(targets, name) for name in names):
            yield f"adapter.target_modules: {targets!r} matches no weight of the base, such as {min(names)}"
        return
    known = sorted({name.rpartition(".")[2] for name in names})
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            yield f"adapter.target_modules: the base's weights name no {target!r}{nearest(target, known)} (it has {', '.join(known)})"


def _described(found: base.Base) -> str:
    facts_ = found.facts
    size = f"{facts_.parameters / 1e6:,.1f} M weights" if facts_.parameters else "weights not downloaded yet"
    return f"base model: {facts_.name} ({facts_.family}, {size}, context {facts_.context or 'unknown'}, {facts_.vocab_size:,} ids)"


def _base_warnings(config: Config, found: base.Base) -> Iterator[str]:
    tokenizer = found.tokenizer
    if tokenizer.eos_id is None:
        yield "the tokenizer has no end-of-text token: the model cannot learn to stop, answers end at max_new_tokens"
    if tokenizer.size > found.facts.vocab_size:
        yield f"the tokenizer has {tokenizer.size} ids, the model {found.facts.vocab_size}: they may not belong together"
    columns = config.dataset.format not in ("messages", "alpaca") and bool(config.input_features)
    if (
        tokenizer.chat_template is not None
        and columns
        and config.prompt.use_chat_template == "auto"
        and config.prompt.chat_template is None
    ):
        yield "the base model has a chat template, but rows are shown to it as plain text; set prompt.use_chat_template: true to use it"
    if isinstance(config.adapter, LoraFamily) and tokenizer.eos_id is not None and config.trainer.type == "finetune":
        untaught = (
            tokenizer.bos_id is not None and tokenizer.bos_id != tokenizer.eos_id and tokenizer.chat_template is None
        )
        if untaught:
            yield (
                f"a base model without a chat template may never have seen {tokenizer.eos!r}; an adapter trains no embeddings, so look "
                "at the samples to see whether it learns to stop"
            )


def _look_at_rows(rows: Rows, report: Report) -> int:
    """Walk every row as training would; returns the most tokens of a row, as far as it had to be counted."""
    config = rows.config
    table, splits = rows.table, rows.splits
    counts = ", ".join(f"{len(part):,} {name}" for name, part in splits.items())
    used = sum(len(part) for part in splits.values())
    sampled = f"{used:,} of {len(table):,}" if used < len(table) else f"{used:,}"
    report.notes.append(f"data: {sampled} rows ({counts}), read as {rows.shape.format}")
    if rows.shape.format == "text":
        return _look_at_documents(rows, report)
    if rows.renderer.glues:
        report.warnings.append(
            "prompt and response follow each other with nothing between them; set prompt.template, ending in a line break or a word"
        )
    if config.trainer.type == "none":
        return 0
    _look_at_splits(rows, report)
    longest, overlong = 0, []
    faults: list[str] = []
    for name in splits:
        for start in range(0, len(splits[name]), CHUNK):
            for index, length in _lengths(rows, splits[name][start : start + CHUNK], faults):
                longest = max(longest, length)
                if rows.limit is not None and length > rows.limit:
                    overlong.append((index, length))
    report.faults += _gathered(faults)
    if overlong:
        _tell_overlong(rows, overlong, report)
    return min(longest, rows.limit) if rows.limit is not None else longest


def _look_at_splits(rows: Rows, report: Report) -> None:
    config, splits = rows.config, rows.splits
    if rows.divided_already and "split" in config.preprocessing.model_fields_set:
        report.warnings.append("preprocessing.split: has no effect, because the data come divided")
    if not splits["training"]:
        report.faults.append("no row is left to train on; preprocessing.split gives none to training")
    if not splits["validation"] and not config.trainer.skip_all_evaluation:
        report.warnings.append(
            "there are no validation rows: no early stopping, and the last weights are kept, not the best"
        )


def _look_at_documents(rows: Rows, report: Report) -> int:
    """Read every document; returns the tokens of a block."""
    if rows.config.trainer.type != "none":
        _look_at_splits(rows, report)
    faults: list[str] = []
    size, empty = 0, 0
    for indices in rows.splits.values():
        for start in range(0, len(indices), CHUNK):
            found = dict(_rendered_one_by_one(rows, indices[start : start + CHUNK], faults))
            size += sum(len(text.text.encode()) for text in found.values() if text is not None)
            empty += sum(text is None for text in found.values())
    report.faults += _gathered(faults)
    report.notes.append(f"text: {size / 1e6:,.2f} MB, in blocks of {rows.block_length:,} tokens")
    if empty:
        report.warnings.append(f"{empty:,} documents are empty and left out")
    return rows.block_length


def _gathered(faults: list[str]) -> list[str]:
    """Faults of rows, those that say the same told once with the first places and a count."""
    places: dict[str, list[str]] = {}
    for fault in faults:
        place, _, said = fault.partition(": ")
        places.setdefault(said, []).append(place)
    told = []
    for said, where in list(places.items())[:ROW_FAULTS]:
        more = f" and {len(where) - SHOWN:,} more rows" if len(where) > SHOWN else ""
        told.append(f"{', '.join(where[:SHOWN])}{more}: {said}")
    return told + (
        [f"and {len(places) - ROW_FAULTS:,} other kinds of faults in rows"] if len(places) > ROW_FAULTS else []
    )


def _rendered_one_by_one(rows: Rows, indices: list[int], faults: list[str]) -> Iterator[tuple[int, Rendered | None]]:
    """The rows that can be rendered; where one cannot, its neighbours are looked at one by one, so that all are told."""
    try:
        found = list(rows.rendered(indices))
    except DataError as error:
        if len(indices) == 1:
            faults.append(str(error))
            return
        for index in indices:
            yield from _rendered_one_by_one(rows, [index], faults)
        return
    yield from found


def _texts(rows: Rows, indices: list[int], faults: list[str]) -> Iterator[tuple[int, Rendered]]:
    """The rows that can be rendered and learnt from."""
    for index, text in _rendered_one_by_one(rows, indices, faults):
        if text is not None and _learnable(text, rows.tokenizer):
            yield index, text
        elif text is not None:
            faults.append(f"{rows.table.place(index)}: nothing in this row carries loss (its response is empty)")


def _lengths(rows: Rows, indices: list[int], faults: list[str]) -> Iterator[tuple[int, int]]:
    """(index, tokens) of rows; rows that cannot be too long are bounded by their bytes instead of being encoded."""
    unsure: list[tuple[int, Rendered]] = []
    for index, text in _texts(rows, indices, faults):
        whole = text.text
        if rows.limit is not None and whole.isascii() and len(whole) + 4 <= rows.limit:
            yield index, len(whole) // 3
        else:
            unsure.append((index, text))
    encoded = encode_rows([text for _, text in unsure], rows.tokenizer, rows.limits)
    yield from ((index, len(one.ids)) for (index, _), one in zip(unsure, encoded, strict=True))


def _learnable(text: Rendered, tokenizer: Tokenizer) -> bool:
    """Whether anything carries loss; an empty response still teaches to stop, where there is a stop token."""
    return any(piece for piece, trained in text.pieces if trained) or (not text.whole and tokenizer.eos_id is not None)


def _tell_overlong(rows: Rows, overlong: list[tuple[int, int]], report: Report) -> None:
    named = ", ".join(f"{rows.table.place(index)} ({length} tokens)" for index, length in overlong[:SHOWN])
    more = f" and {len(overlong) - SHOWN:,} more" if len(overlong) > SHOWN else ""
    said = f"{len(overlong):,} rows are longer than {rows.limit} tokens: {named}{more}"
    if rows.overlong == "error":
        report.faults.append(
            f"{said}. Set preprocessing.overlong_rows to truncate (cuts the end, so those rows do not teach the model to stop) or to drop"
        )
    else:
        what = "left out"
        if rows.overlong == "truncate":
            what = "cut at the end and do not teach the model to stop; those of whose response nothing is left are left out"
        report.warnings.append(f"{said}; they are {what}")


def _look_at_hardware(config: Config, found: base.Base, longest: int, report: Report) -> None:
    device = facts.device()
    report.notes.append(f"device: {device.shown}")
    trainer = config.trainer
    if not isinstance(trainer, TrainingSection) or not found.facts.parameters:
        return
    if plan.precision(trainer, device) == "float16" and (device.kind == "cpu" or trainer.optimizer.type == "lbfgs"):
        report.faults.append(
            "trainer.precision: float16 needs a GPU and an optimizer other than lbfgs; use bfloat16 or float32"
        )
    trained = found.facts.parameters
    if isinstance(config.adapter, LoraFamily):  # two thin matrices on about seven layers of each block
        trained = found.facts.layers * 7 * 2 * config.adapter.r * found.facts.hidden
    sizes = plan.Sizes(found.facts.parameters, trained, found.facts.hidden, found.facts.layers, found.facts.vocab_size)
    short = plan.shortage(device, sizes, plan.precision(trainer, device), max(longest, 1))
    if short:
        report.faults.append(f"this run {short}")
