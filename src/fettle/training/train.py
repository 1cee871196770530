"""The story of a training run: base model, adapter, ids, plan, loop, and the folder that remains."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fettle.base import Base
from fettle.config import Config, Loaded
from fettle.data.read import absolute
from fettle.data.store import Split
from fettle.errors import ModelError
from fettle.evaluation.plots import learning_curves
from fettle.files import write_json, write_text
from fettle.hardware import plan
from fettle.hardware.allocator import keep_memory
from fettle.hardware.device import usable
from fettle.model import load
from fettle.model.adapter_config import Lora
from fettle.model.fast import accelerate, restore
from fettle.prepare import LOST_ROWS, Rows, Sources, with_template
from fettle.run import RunFolder, filled_text
from fettle.tokenizer import Tokenizer
from fettle.training import checkpoint, optimizers
from fettle.training.callbacks import Callback, MetricsFile, read_metrics, trackers
from fettle.training.config import TrainingSection
from fettle.training.encoded import EncodedRows, encoded_rows
from fettle.training.loop import Loop, Summary
from fettle.training.sft import Supervised


@dataclass
class Trained:
    """A finished run: the model in memory with its best weights, and what happened."""

    model: Any
    summary: Summary
    encoded: EncodedRows
    statistics: dict[str, Any]
    filled: str
    """The config with everything filled in."""


def train(
    loaded: Loaded, base: Base, rows: Rows, run: RunFolder, callbacks: Sequence[Callback], seed: int, resume: bool,
    before: Callable[[Any], None] | None = None,
) -> Trained:  # fmt: skip
    """Fine-tune, and write the run folder.

    Args:
        before: called with the model as it is before its first step; not when a run goes on.

    Raises:
        FettleError: the run cannot start or go on; what was written before stays whole.
    """
    config = loaded.config
    section = config.trainer
    assert isinstance(section, TrainingSection)
    listeners = [MetricsFile(run.metrics), *callbacks, *trackers(section.callbacks, run.path)]
    tell = _teller(listeners)
    encoded = encoded_rows(rows)
    splits = encoded.splits
    _tell_rows(tell, encoded)
    seed_everything(seed)
    device = usable()
    keep_memory()
    model = build_model(config, base, device.kind, plan.precision(section, device))
    everything, trained = load.counts(model)
    lengths = splits["training"].lengths_R
    sizes = plan.Sizes(everything, trained, base.facts.hidden, base.facts.layers, base.facts.vocab_size)
    rows_shape = (len(lengths), int(lengths.max()), float(lengths.mean()))
    chosen = _plan(run, resume, lambda: plan.fill(section, device, sizes, *rows_shape, config.adapter is not None))
    filled = filled_text(
        config, {**in_place(config, loaded.folder, base, encoded.format, rows.sources), **_filled(chosen)}
    )
    write_text(run.path / "filled.yaml", filled)
    tell(
        f"{trained:,} of {everything:,} weights train · {chosen.precision} · "
        f"{chosen.effective_batch_size} rows per step · learning rate {chosen.learning_rate:g}"
    )
    if before is not None and not resume:
        before(model)
    faster = accelerate(model) if section.fast == "auto" else []
    if faster:
        tell(f"fast: {', '.join(faster)}")
    loop = _loop(model, splits, rows, config, chosen, device.kind, run, listeners, seed)
    if resume:
        _resume(loop, tell)
    summary = loop.run({"run_folder": str(run.path), "config": config.model_dump(mode="json")})
    if summary.best_step not in (0, summary.step) and summary.stopped != "interrupted":
        checkpoint.load_weights(run.checkpoints / "best", model)
        tell(f"kept the weights of step {summary.best_step}, the best on validation")
    restore(model)
    model.eval()
    statistics = _statistics(run, loop, summary)
    if summary.stopped != "interrupted":
        write_json(run.path / "training_statistics.json", statistics)
        learning_curves(read_metrics(run.metrics), run.plots)
        tokenizer = with_template(config, base.tokenizer, loaded.folder)
        load.save(model, tokenizer, run.model, {"fettle.yaml": filled, "fettle.json": json.dumps({"seed": seed})})
        _compare_tokenizers(run, tokenizer, splits["training"], tell)
    return Trained(model, summary, encoded, statistics, filled)


def _compare_tokenizers(run: RunFolder, tokenizer: Tokenizer, split: Split, tell: Callable[[str], None]) -> None:
    """Say so when plain transformers would encode prompts otherwise than they were trained on."""
    texts = [tokenizer.decode(split.examples(row)[0][0].tolist()) for row in range(min(20, len(split)))]
    differ = load.differing(run.model, tokenizer, texts)
    if differ:
        tell(
            f"warning: transformers' AutoTokenizer encodes {len(differ)} of {len(texts)} training texts otherwise than "
            f"tokenizer.json, which was trained on; serve with tokenizer.json. The first: {differ[0][:60]!r}"
        )


def _plan(run: RunFolder, resume: bool, fill: Callable[[], plan.Plan]) -> plan.Plan:
    """What every `auto` became: decided once per run, or a resume with other free memory would take other steps."""
    path = run.path / "plan.json"
    if resume and path.is_file():
        return plan.Plan(**json.loads(path.read_text(encoding="utf-8")))
    chosen = fill()
    write_json(path, asdict(chosen))
    return chosen


def build_model(config: Config, base: Base, device: str, precision: str) -> Any:
    """The base model, wrapped in its adapter; whatever trains is float32.

    Raises:
        ModelError: the base cannot be loaded, or the adapter fits no layer.
    """
    dtype = precision if frozen_in_16_bits(config, precision) else "float32"
    model = load.load_base(base.folder, dtype, device, config.trust_remote_code)
    load.check_fit(model, base.tokenizer)
    model.config.use_cache = True
    if isinstance(config.adapter, Lora):
        model = load.add_lora(model, config.adapter, base.facts.family, base.loadable)
        if load.counts(model)[1] == 0:
            raise ModelError("adapter: nothing would train")
    section = config.trainer
    if isinstance(section, TrainingSection) and section.enable_gradient_checkpointing:
        # transformers is renaming the method; older versions have the second name only
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return model


def frozen_in_16_bits(config: Config, precision: str) -> bool:
    """Whether the base's weights are held in 16 bits: when nothing of the base itself trains."""
    return precision != "float32" and isinstance(config.adapter, Lora) and config.adapter.bias_type == "none"


def seed_everything(seed: int) -> None:
    """Seed every source of chance; after the imports, because some of them draw numbers."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _teller(listeners: Sequence[Callback]) -> Callable[[str], None]:
    def tell(text: str) -> None:
        for listener in listeners:
            listener.on_message(text)

    return tell


def _tell_rows(tell: Callable[[str], None], encoded: EncodedRows) -> None:
    counts = ", ".join(f"{len(split):,} {name}" for name, split in encoded.splits.items())
    tell(
        f"{'blocks of text' if encoded.format == 'text' else 'rows'}: {counts}{' (from the cache)' if encoded.cached else ''}"
    )
    for name, split in encoded.splits.items():
        odd = [f"{split.counts[key]:,} {said}" for key, said in LOST_ROWS.items() if split.counts.get(key)]
        if odd:
            tell(f"{name}: {', '.join(odd)}")


def _loop(
    model: Any, splits: Mapping[str, Split], rows: Rows, config: Config, chosen: plan.Plan, device: str, run: RunFolder,
    listeners: Sequence[Callback], seed: int,
) -> Loop:  # fmt: skip
    section = config.trainer
    assert isinstance(section, TrainingSection)
    plus = config.adapter.loraplus_lr_ratio if isinstance(config.adapter, Lora) else None
    optimizer = optimizers.build(
        section.optimizer, checkpoint.trained_weights(model).items(), chosen.learning_rate, plus
    )
    objective = Supervised(splits, device, chosen.pack_tokens, chosen.batch_size)
    autocast = chosen.precision != "float32" and not frozen_in_16_bits(config, chosen.precision)

    def place(row: int) -> str:
        return rows.table.place(splits["training"].origin(row))

    return Loop(
        model,
        objective,
        optimizer,
        section,
        chosen,
        run.checkpoints,
        listeners,
        seed,
        autocast or chosen.precision == "float16",
        place,
    )


def _resume(loop: Loop, tell: Callable[[str], None]) -> None:
    found = loop.resume()
    tell(
        f"resumed from {found} (step {loop.state.step} of {loop.total_steps})"
        if found
        else "there was no checkpoint yet; starting anew"
    )


def in_place(
    config: Config, folder: Path, base: Base, row_format: str, sources: Sources | None = None
) -> dict[str, Any]:
    """What makes a config stand by itself beside the weights: no relative path, no open question about the rows."""
    used = sources or Sources.of_section(config)
    given = {
        "path": used.whole,
        "training_set": used.training,
        "validation_set": used.validation,
        "test_set": used.test,
    }
    own_template = config.prompt.chat_template is not None
    return {
        "base_model": base.reference,
        "dataset.format": row_format,
        **{
            f"dataset.{key}": absolute(str(one), folder) if isinstance(one, (str, Path)) else None
            for key, one in given.items()
        },
        "prompt.chat_template": None,  # the template in use is saved beside the tokenizer
        "prompt.use_chat_template": True if own_template else config.prompt.use_chat_template,
    }


def _filled(chosen: plan.Plan) -> dict[str, Any]:
    return {
        "trainer.precision": chosen.precision,
        "trainer.use_mixed_precision": None,
        "trainer.learning_rate": chosen.learning_rate,
        "trainer.effective_batch_size": chosen.effective_batch_size,
        "trainer.max_batch_size": None,
    }


def _statistics(run: RunFolder, loop: Loop, summary: Summary) -> dict[str, Any]:
    """Ludwig's training_statistics.json: split -> output -> metric -> a value per evaluation."""
    records = [record for record in read_metrics(run.metrics) if "learning_rate" not in record]
    found: dict[str, Any] = {"training": {}, "validation": {}, "test": {}}
    for record in records:
        split = "training" if record["split"] == "training_set" else record["split"]
        metrics = found[split].setdefault("combined", {})
        for key in ("loss", "perplexity", "next_token_accuracy"):
            metrics.setdefault(key, []).append(record[key])
    if not found["training"]:
        losses = [record["loss"] for record in read_metrics(run.metrics) if "learning_rate" in record]
        found["training"] = {"combined": {"loss": losses}}
    found["evaluation_frequency"] = {"frequency": loop.every, "period": "step"}
    found["summary"] = vars(summary)
    return found
