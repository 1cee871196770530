"""Reactions to a metric that no longer improves: a smaller learning rate, a larger batch."""

from __future__ import annotations

from fettle.training.checkpoint import State
from fettle.training.config import TrainingSection


class Plateau:
    """Watches metrics and says by what the rate and the batch are to be multiplied; all memory is in the run's State."""

    def __init__(self, section: TrainingSection, state: State) -> None:
        self.section, self.state = section, state

    @property
    def rate_factor(self) -> float:
        return float(self.section.learning_rate_scheduler.reduce_on_plateau_rate**self.state.reductions)

    def batch_size(self, size: int) -> int:
        grown = round(size * self.section.increase_batch_size_on_plateau_rate**self.state.batch_growths)
        most = self.section.max_batch_size
        return max(size, min(grown, most)) if most is not None else grown

    def step_seen(self, loss: float) -> None:
        """Training loss is watched step by step."""
        self._react("training", {"loss": loss})

    def evaluated(self, metrics: dict[str, dict[str, float]]) -> None:
        """Validation is watched evaluation by evaluation."""
        if "validation" in metrics:
            self._react("validation", metrics["validation"])

    def _react(self, split: str, metrics: dict[str, float]) -> None:
        schedule = self.section.learning_rate_scheduler
        if (
            schedule.reduce_on_plateau > self.state.reductions
            and schedule.reduce_eval_split == split
            and self._stale("rate", metrics, schedule.reduce_eval_metric, schedule.reduce_on_plateau_patience)
        ):
            self.state.reductions += 1
        section = self.section
        if (
            section.increase_batch_size_on_plateau > self.state.batch_growths
            and section.increase_batch_size_eval_split == split
            and self._stale(
                "batch",
                metrics,
                section.increase_batch_size_eval_metric,
                section.increase_batch_size_on_plateau_patience,
            )
        ):
            self.state.batch_growths += 1

    def _stale(self, key: str, metrics: dict[str, float], metric: str, patience: int) -> bool:
        """Whether the metric has not improved for `patience` looks; counts this one."""
        if metric not in metrics:
            return False
        value = -metrics[metric] if metric.endswith("accuracy") else metrics[metric]
        best, count = self.state.watched.get(key, [float("inf"), 0])
        count = 0 if value < best else count + 1
        stale = count >= patience
        self.state.watched[key] = [min(best, value), 0 if stale else count]
        return stale
