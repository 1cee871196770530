"""The `trainer.optimizer` section: one class per optimizer, its `type` chooses it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fettle.section import Section

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Betas = Annotated[list[Decay], Field(min_length=2, max_length=2)]


def _betas() -> list[float]:
    return [0.9, 0.999]


class OptimizerSection(Section):
    """Keys that nearly every optimizer has."""

    weight_decay: NonNegative = 0.01
    """Weight decay, on matrices only (norms and biases are left out)."""


class AdamSection(OptimizerSection):
    """Adaptive moments."""

    betas: Betas = Field(default_factory=_betas)
    """Decay of the first and second moment."""
    eps: Positive = 1e-08
    """Added to the denominator."""


class EightBit(Section):
    """Keys of optimizers whose state has few bits (bitsandbytes)."""

    block_wise: bool = True
    """Quantise the state block by block."""
    percentile_clipping: Annotated[int, Field(ge=1, le=100)] = 100
    """Clip gradients at this percentile of the last 100 norms; 100 is off."""


class SgdSection(OptimizerSection):
    """Keys of stochastic gradient descent."""

    momentum: Decay = 0.0
    """Momentum."""
    dampening: NonNegative = 0.0
    """Dampening of the momentum."""
    nesterov: bool = False
    """Nesterov's momentum."""


class Sgd(SgdSection):
    """Stochastic gradient descent."""

    type: Literal["sgd"]
    """`sgd`: stochastic gradient descent."""


class Sgd8bit(SgdSection, EightBit):
    """SGD with 8-bit state; bitsandbytes wants a momentum."""

    type: Literal["sgd_8bit"]
    """`sgd_8bit`: SGD with 8-bit state."""
    block_wise: bool = False
    """Quantise the state block by block."""


class Lbfgs(Section):
    """Limited-memory BFGS: every step re-reads its batch up to max_iter times."""

    type: Literal["lbfgs"]
    """`lbfgs`: limited-memory BFGS."""
    max_iter: Count = 20
    """Iterations per step."""
    max_eval: Count | None = None
    """Evaluations per step; null means 1.25 * max_iter."""
    tolerance_grad: NonNegative = 1e-07
    """Stop when gradients are smaller."""
    tolerance_change: NonNegative = 1e-09
    """Stop when changes are smaller."""
    history_size: Count = 100
    """Updates remembered."""
    line_search_fn: Literal["strong_wolfe"] | None = None
    """Line search."""


class Adam(AdamSection):
    """Adam (arXiv 1412.6980)."""

    type: Literal["adam"]
    """`adam`: weight decay is added to the gradient."""
    amsgrad: bool = False
    """Keep the largest second moment."""


class Adamw(AdamSection):
    """AdamW (arXiv 1711.05101)."""

    type: Literal["adamw"]
    """`adamw`: weight decay apart from the gradient."""
    amsgrad: bool = False
    """Keep the largest second moment."""


class AdamFew(AdamSection, EightBit):
    """Adam and AdamW with 8-bit or paged state (bitsandbytes)."""

    type: Literal["adam_8bit", "paged_adam", "paged_adam_8bit", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"]
    """`adam_8bit`, `paged_adam`, `paged_adam_8bit`, `adamw_8bit`, `paged_adamw` or `paged_adamw_8bit`."""
    amsgrad: Literal[False] = False
    """Not offered by bitsandbytes."""


class Adadelta(OptimizerSection):
    """Adadelta (arXiv 1212.5701)."""

    type: Literal["adadelta"]
    """`adadelta`."""
    rho: Decay = 0.9
    """Decay of the squared gradients."""
    eps: Positive = 1e-06
    """Added to the denominator."""


class AdagradSection(OptimizerSection):
    """Keys of Adagrad (Duchi et al., JMLR 12, 2011)."""

    initial_accumulator_value: NonNegative = 0.0
    """Start of the sum of squares."""
    lr_decay: NonNegative = 0.0
    """Learning rate decay."""
    eps: Positive = 1e-10
    """Added to the denominator."""


class Adagrad(AdagradSection):
    """Adagrad."""

    type: Literal["adagrad"]
    """`adagrad`."""


class Adagrad8bit(AdagradSection, EightBit):
    """Adagrad with 8-bit state."""

    type: Literal["adagrad_8bit"]
    """`adagrad_8bit`: Adagrad with 8-bit state."""


class Adamax(AdamSection):
    """Adamax (arXiv 1412.6980, section 7)."""

    type: Literal["adamax"]
    """`adamax`."""


class Nadam(AdamSection):
    """Adam with Nesterov's momentum."""

    type: Literal["nadam"]
    """`nadam`."""
    momentum_decay: NonNegative = 0.004
    """Decay of the momentum."""


class RmspropSection(OptimizerSection):
    """Keys of RMSprop."""

    momentum: Decay = 0.0
    """Momentum."""
    alpha: Decay = 0.99
    """Decay of the squared gradients."""
    eps: Positive = 1e-08
    """Added to the denominator."""
    centered: bool = False
    """Normalise by the variance."""


class Rmsprop(RmspropSection):
    """RMSprop."""

    type: Literal["rmsprop"]
    """`rmsprop`."""


class Rmsprop8bit(RmspropSection, EightBit):
    """RMSprop with 8-bit state."""

    type: Literal["rmsprop_8bit"]
    """`rmsprop_8bit`: RMSprop with 8-bit state."""


class Lamb(AdamSection, EightBit):
    """LAMB (arXiv 1904.00962)."""

    type: Literal["lamb", "lamb_8bit"]
    """`lamb` or `lamb_8bit`."""
    bias_correction: bool = True
    """Correct the moments' bias."""
    amsgrad: Literal[False] = False
    """Not offered by bitsandbytes."""
    adam_w_mode: bool = True
    """Weight decay apart from the gradient."""
    block_wise: bool = False
    """Quantise the state block by block."""
    max_unorm: NonNegative = 1.0
    """Largest update norm relative to the weight's."""


class Lars(OptimizerSection):
    """LARS (arXiv 1708.03888)."""

    type: Literal["lars", "lars_8bit"]
    """`lars` or `lars_8bit`."""
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Momentum."""
    dampening: NonNegative = 0.0
    """Dampening of the momentum."""
    nesterov: bool = False
    """Nesterov's momentum."""
    percentile_clipping: Annotated[int, Field(ge=1, le=100)] = 100
    """Clip gradients at this percentile of the last 100 norms; 100 is off."""
    max_unorm: NonNegative = 1.0
    """Largest update norm relative to the weight's."""


class Lion(OptimizerSection, EightBit):
    """Lion (arXiv 2302.06675)."""

    type: Literal["lion", "lion_8bit", "paged_lion", "paged_lion_8bit"]
    """`lion`, `lion_8bit`, `paged_lion` or `paged_lion_8bit`."""
    betas: Betas = Field(default_factory=_betas)
    """Decay of the update and of the momentum."""


class Radam(AdamSection):
    """Rectified Adam (arXiv 1908.03265)."""

    type: Literal["radam"]
    """`radam`."""


class Adafactor(Section):
    """Adafactor (arXiv 1804.04235)."""

    type: Literal["adafactor"]
    """`adafactor`."""
    lr: Positive | None = None
    """Learning rate; null means trainer.learning_rate unless relative_step."""
    scale_parameter: bool = True
    """Scale the learning rate by the weight's size."""
    relative_step: bool = True
    """Choose the step by time instead of by learning rate."""
    warmup_init: bool = False
    """Start the relative step small."""


class ScheduleFreeAdamw(AdamSection):
    """Schedule-free AdamW (arXiv 2405.15682)."""

    type: Literal["schedule_free_adamw"]
    """`schedule_free_adamw`: use it with `learning_rate_scheduler.decay: null`."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Warm-up of its own."""


class Muon(OptimizerSection):
    """Muon on matrices, AdamW on the rest (Jordan et al., 2024)."""

    type: Literal["muon"]
    """`muon`: orthogonalised momentum on matrices, AdamW on everything else."""
    momentum: Decay = 0.95
    """Momentum."""
    nesterov: bool = True
    """Nesterov's momentum."""


Optimizer = Annotated[
    Sgd
    | Sgd8bit
    | Lbfgs
    | Adam
    | Adamw
    | AdamFew
    | Adadelta
    | Adagrad
    | Adagrad8bit
    | Adamax
    | Nadam
    | Rmsprop
    | Rmsprop8bit
    | Lamb
    | Lars
    | Lion
    | Radam
    | Adafactor
    | ScheduleFreeAdamw
    | Muon,
    Field(discriminator="type"),
]
