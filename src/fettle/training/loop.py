"""The training loop: steps, evaluations, checkpoints, and a state from which every next step follows.

A step takes `effective_batch_size` rows, in as many forward passes as memory wants, and divides by the number of labelled
tokens of the whole step; what is learnt does not depend on how the rows were packed.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from fettle.data import pack
from fettle.errors import DivergedError, OutOfMemoryError
from fettle.files import recover
from fettle.hardware.plan import Plan
from fettle.training import checkpoint
from fettle.training.callbacks import Callback
from fettle.training.config import GradientClipping, TrainingSection
from fettle.training.plateau import Plateau
from fettle.training.profiling import profiler
from fettle.training.schedule import factor, warmup_steps
from fettle.training.sft import Supervised


@dataclass(frozen=True)
class Summary:
    """How a run ended."""

    step: int
    total_steps: int
    best_step: int
    best: float | None
    stopped: str
    """`finished`, `early` or `interrupted`."""
    seconds: float
    tokens: int


class Loop:
    """One training run over an objective."""

    def __init__(
        self, model: torch.nn.Module, objective: Supervised, optimizer: torch.optim.Optimizer, section: TrainingSection, plan: Plan,
        folder: Path, callbacks: Sequence[Callback], seed: int, autocast: bool, place: Any = None,
    ) -> None:  # fmt: skip
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.section, self.plan, self.folder, self.callbacks, self.seed = section, plan, folder, callbacks, seed
        self.place = place or (lambda row: f"row {row}")
        self.state = checkpoint.State()
        self.autocast = autocast
        self.pack_tokens = plan.pack_tokens
        self.interruption = threading.Event()
        rows = objective.rows("training")
        self.steps_per_epoch = math.ceil(rows / plan.effective_batch_size)
        self.total_steps = section.train_steps or section.epochs * self.steps_per_epoch
        self.every = self._steps_between_evaluations()
        self.warmup = warmup_steps(section.learning_rate_scheduler, self.total_steps, self.every)
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        self.weights = list(checkpoint.trained_weights(model).values())
        fp16 = plan.precision == "float16" and objective.device == "cuda"
        self.scaler = torch.amp.GradScaler("cuda") if fp16 else None
        self.plateau = Plateau(section, self.state)
        self._cached_epoch = -1
        self._cached_order = np.zeros(0, np.int64)

    def _steps_between_evaluations(self) -> int:
        if self.section.steps_per_checkpoint:
            return self.section.steps_per_checkpoint
        return max(1, self.steps_per_epoch // max(1, self.section.checkpoints_per_epoch))

    def resume(self) -> Path | None:
        """Go back to the newest whole checkpoint, where there is one."""
        recover(self.folder)
        path = checkpoint.newest(self.folder)
        if path is not None:
            self.state = checkpoint.load(path, self.model, self.optimizer, self.scaler)
            if self.state.pack_tokens:
                self._pack_less(self.state.pack_tokens)
            self.plateau = Plateau(self.section, self.state)
        return path

    def run(self, about: dict[str, Any]) -> Summary:
        """Train to the end, to an early stop, or to the first Ctrl-C.

        Raises:
            DivergedError: the loss is no longer a number.
            OutOfMemoryError: not even one row fits the device.
        """
        for callback in self.callbacks:
            callback.on_train_start({"total_steps": self.total_steps, "start_step": self.state.step, **about})
        stopped = "interrupted"
        previous = (
            {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
            if _main_thread()
            else {}
        )
        profiling = profiler(self.section.profiler, self.section.enable_profiling, self.folder.parent / "profile")
        try:
            if self.state.step == 0 and not self.section.skip_all_evaluation:
                self._evaluate()
            with profiling as profile:
                while not self._stale() and not self._through() and not self.interruption.is_set():
                    self._step()
                    profile.step()
                    if self.state.step % self.every == 0 or self._through():
                        self._checkpoint()
                    elif self.interruption.is_set():
                        self._save()
            if self._through() or self._stale():
                stopped = "finished" if self._through() else "early"
                _swap_weights(self.optimizer, "eval")
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            summary = Summary(
                self.state.step, self.total_steps, self.state.best_step, self.state.best, stopped, self.state.seconds, self.state.tokens
            )  # fmt: skip
            for callback in self.callbacks:
                callback.on_train_end(vars(summary))
        return summary

    def _through(self) -> bool:
        """Whether all steps are taken; a batch that grew on a plateau reads the epochs in fewer steps."""
        read = self.section.train_steps is None and self.state.epoch >= self.section.epochs
        return read or self.state.step >= self.total_steps

    def _stale(self) -> bool:
        """Whether too many evaluations brought nothing better; also after a resume, so that a killed run ends the same."""
        return 0 < self.section.early_stop <= self.state.stale

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        """The first Ctrl-C ends the run after its step, with a checkpoint; the second ends the process at once."""
        self.interruption.set()
        signal.signal(number, signal.SIG_DFL)
        for callback in self.callbacks:
            callback.on_message("stopping after this step and saving a checkpoint; press Ctrl-C again to quit at once")

    def _rows(self) -> list[int]:
        """The rows of the next step."""
        order = self._order(self.state.epoch)
        size = self.plateau.batch_size(self.plan.effective_batch_size)
        rows = order[self.state.cursor : self.state.cursor + size]
        self.state.cursor += len(rows)
        if self.state.cursor >= len(order):
            self.state.epoch, self.state.cursor = self.state.epoch + 1, 0
        return [int(row) for row in rows]

    def _order(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        if self._cached_epoch != epoch:
            self._cached_epoch = epoch
            self._cached_order = pack.order(
                self.objective.rows("training"), epoch, self.seed, self.section.should_shuffle
            )
        return self._cached_order

    def _step(self) -> None:
        started = time.perf_counter()
        rows = self._rows()
        self.model.train()
        _swap_weights(self.optimizer, "train")
        rate = self._set_rate()
        if isinstance(self.optimizer, torch.optim.LBFGS):
            loss = float(self.optimizer.step(lambda: self._gradients(rows)))  # type: ignore[no-untyped-call]
            norm = self._norm()
        else:
            loss = self._gradients(rows)
            self._refuse_divergence(loss, "loss", rows)
            norm = self._clip()
            if self.scaler is None:  # a scaler skips such steps by itself, and then scales less
                self._refuse_divergence(norm, "gradient", rows)
            self._apply()
        self._refuse_divergence(loss, "loss", rows)
        state = self.state
        state.step += 1
        tokens = self.objective.tokens(rows)
        seconds = time.perf_counter() - started
        state.tokens += tokens
        state.seconds += seconds
        record = {
            "step": state.step,
            "epoch": round(state.epoch + state.cursor / max(1, self.objective.rows("training")), 4),
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": norm,
            "rows": len(rows),
            "tokens": tokens,
            "tokens_per_second": round(tokens / seconds, 1),
        }
        self.plateau.step_seen(loss)
        for callback in self.callbacks:
            callback.on_step(record)

    def _set_rate(self) -> float:
        schedule = self.section.learning_rate_scheduler
        scale = (
            factor(schedule, self.state.step, self.total_steps, self.plan.learning_rate, self.warmup)
            * self.plateau.rate_factor
        )
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            if base is not None:
                group["lr"] = base * scale
        return self.plan.learning_rate * scale

    def _gradients(self, rows: list[int]) -> float:
        """Fill in the gradients of the mean loss over the step's labelled tokens; halve the packs when memory runs out."""
        while True:
            self.optimizer.zero_grad()
            try:
                return self._accumulate(rows)
            except torch.OutOfMemoryError:
                if self.pack_tokens <= max(int(self.objective.splits["training"].lengths_R.max()), 1):
                    raise OutOfMemoryError(
                        f"not even one row fits {self.objective.device} memory; use an adapter, enable_gradient_checkpointing, or a "
                        "smaller preprocessing.global_max_sequence_length"
                    ) from None
            self._pack_less(self.pack_tokens // 2)
            torch.cuda.empty_cache()
            for callback in self.callbacks:
                callback.on_message(
                    f"out of memory; from here on at most {self.pack_tokens} tokens share a forward pass"
                )

    def _pack_less(self, tokens: int) -> None:
        """From here on at most so many tokens share a forward pass."""
        self.pack_tokens = self.state.pack_tokens = tokens
        self.objective = replace(self.objective, pack_tokens=tokens)

    def _accumulate(self, rows: list[int]) -> float:
        labels = max(1, self.objective.labels(rows))
        total = torch.zeros((), device=self.objective.device)
        for batch in self.objective.batches(rows):
            with self._arithmetic():
                loss = self.objective.loss(self.model, batch) / labels
            (self.scaler.scale(loss) if self.scaler else loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        penalty = self._penalty()
        if penalty is not None:
            (self.scaler.scale(penalty) if self.scaler else penalty).backward()  # type: ignore[no-untyped-call]
        return float(total)

    def _arithmetic(self) -> AbstractContextManager[Any]:
        if not self.autocast:
            return nullcontext()
        return torch.autocast(self.objective.device, getattr(torch, self.plan.precision))

    def _penalty(self) -> torch.Tensor | None:
        """The regularisation term over the weights that train."""
        strength, kind = self.section.regularization_lambda, self.section.regularization_type
        if not strength or kind is None:
            return None
        terms = []
        if kind in ("l1", "l1_l2"):
            terms.append(sum(weight.abs().sum() for weight in self.weights))
        if kind in ("l2", "l1_l2"):
            terms.append(sum(weight.square().sum() for weight in self.weights))
        return strength * torch.stack([torch.as_tensor(term) for term in terms]).sum()

    def _norm(self) -> float:
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def _clip(self) -> float:
        """Clip as asked; returns the global norm before it is limited."""
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        clipping = self.section.gradient_clipping or GradientClipping(clipglobalnorm=None)
        if clipping.clipvalue is not None:
            torch.nn.utils.clip_grad_value_(self.weights, clipping.clipvalue)
        if clipping.clipnorm is not None:
            for weight in self.weights:
                torch.nn.utils.clip_grad_norm_([weight], clipping.clipnorm)
        return float(torch.nn.utils.clip_grad_norm_(self.weights, clipping.clipglobalnorm or math.inf))

    def _apply(self) -> None:
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()

    def _refuse_divergence(self, value: float, what: str, rows: list[int]) -> None:
        if not math.isfinite(value):
            named = ", ".join(self.place(row) for row in rows[:4])
            where = f"at step {self.state.step + 1}, on a batch of {len(rows)} rows ({named}, ...)"
            raise DivergedError(self._diverged(f"the {what} became {value} {where}"))

    def _diverged(self, said: str) -> str:
        kept = checkpoint.newest(self.folder)
        return (
            f"{said}. {f'The last good checkpoint is {kept}' if kept else 'There is no checkpoint yet'}. "
            "Try a smaller trainer.learning_rate, or precision: float32, or look at these rows"
        )

    def _checkpoint(self) -> None:
        """Evaluate, keep the best, save."""
        metrics = {} if self.section.skip_all_evaluation else self._evaluate()
        if "validation" in metrics:
            self._watch(metrics["validation"])
        self.plateau.evaluated(metrics)
        self._save()

    def _watch(self, metrics: dict[str, float]) -> None:
        """Keep the best weights, and count the evaluations since."""
        metric = self.section.validation_metric or "loss"
        value, higher = metrics[metric], metric.endswith("accuracy")
        state = self.state
        if state.best is None or (value > state.best if higher else value < state.best):
            state.best, state.best_step, state.stale = value, state.step, 0
            checkpoint.save_best(self.folder, self.model, {"step": state.step, **metrics})
        else:
            state.stale += 1

    def _evaluate(self) -> dict[str, dict[str, float]]:
        """Metrics of the validation set, and of the training set where asked."""
        found: dict[str, dict[str, float]] = {}
        batch = self.section.eval_batch_size
        self.model.eval()
        _swap_weights(self.optimizer, "eval")
        for split in ("validation", *(["training"] if self.section.evaluate_training_set else [])):
            if self.objective.rows(split) == 0:
                continue
            with torch.no_grad(), self._arithmetic():
                outcome = self.objective.evaluate(
                    self.model, split, self.section.eval_steps, batch if isinstance(batch, int) else None
                )
            found[split] = outcome.metrics()
            if not math.isfinite(found[split]["loss"]):
                raise DivergedError(
                    self._diverged(f"the {split} loss became {found[split]['loss']} after step {self.state.step}")
                )
            name = "training_set" if split == "training" else split
            for callback in self.callbacks:
                callback.on_evaluation(
                    {"step": self.state.step, "epoch": self.state.epoch, "split": name, **found[split]}
                )
        return found

    def _save(self) -> None:
        _swap_weights(self.optimizer, "train")
        checkpoint.save(self.folder, self.model, self.optimizer, self.scaler, self.state, self.section.keep_checkpoints)


def _swap_weights(optimizer: torch.optim.Optimizer, mode: str) -> None:
    """Schedule-free optimizers hold other weights for evaluation than for training."""
    swap = getattr(optimizer, mode, None)
    if swap is not None:
        swap()


def _main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
