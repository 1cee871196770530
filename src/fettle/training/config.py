"""The `trainer` section: one class per objective, its `type` chooses it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fettle.section import Section
from fettle.training.optimizer_config import Adamw, Optimizer

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Auto = Literal["auto"]
Split = Literal["training", "validation", "test"]


class LearningRateScheduler(Section):
    """How the learning rate moves over a run of S steps."""

    decay: Literal["linear", "exponential", "cosine", "one_cycle", "inverse_sqrt", "polynomial", "wsd"] | None = (
        "cosine"
    )
    """Shape after the warm-up; null keeps the rate constant."""
    decay_rate: Annotated[float, Field(gt=0, le=1)] = 0.96
    """exponential: factor per decay_steps."""
    decay_steps: Count = 10000
    """exponential: steps for one factor."""
    staircase: bool = False
    """exponential: in whole factors only."""
    reduce_on_plateau: Natural = 0
    """How many times the rate may be reduced when the watched metric stops improving; 0 is never."""
    reduce_on_plateau_patience: Count = 10
    """Evaluations (or steps, when training is watched) without improvement before a reduction."""
    reduce_on_plateau_rate: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Factor of a reduction."""
    warmup_evaluations: Natural = 0
    """Warm-up as a number of evaluations; instead of warmup_fraction."""
    warmup_fraction: Share = 0.03
    """Warm-up as a share of all steps."""
    reduce_eval_metric: str = "loss"
    """Metric watched for a plateau."""
    reduce_eval_split: Split = "training"
    """Split watched for a plateau."""
    t_0: Count | None = None
    """cosine: steps of the first cycle; null is one cycle to the end."""
    t_mult: Count = 1
    """cosine: each cycle is this many times as long as the one before."""
    eta_min: NonNegative = 0.0
    """cosine: rate at the end of a cycle."""
    max_lr: Positive | None = None
    """one_cycle: rate at the top; null means learning_rate."""
    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """one_cycle: share of the steps that climb."""
    div_factor: Annotated[float, Field(ge=1)] = 25.0
    """one_cycle: the start is the top over this."""
    final_div_factor: Annotated[float, Field(ge=1)] = 10000.0
    """one_cycle: the end is the start over this."""
    inverse_sqrt_warmup_steps: Natural = 4000
    """inverse_sqrt: steps of its warm-up, and its time scale."""
    polynomial_power: Positive = 1.0
    """polynomial: exponent."""
    polynomial_end_lr: NonNegative = 0.0
    """polynomial: rate at the end."""
    wsd_warmup_fraction: Share = 0.1
    """wsd: share of the steps that climb."""
    wsd_stable_fraction: Share = 0.8
    """wsd: share of the steps at full rate."""
    wsd_decay_fraction: Share = 0.1
    """wsd: share of the steps that fall."""


class GradientClipping(Section):
    """Limits on the gradient; null switches one off."""

    clipglobalnorm: Positive | None = 1.0
    """Largest norm of the whole gradient."""
    clipnorm: Positive | None = None
    """Largest norm of one weight's gradient."""
    clipvalue: Positive | None = None
    """Largest absolute value."""


class Profiler(Section):
    """What enable_profiling records (torch's profiler schedule, in steps)."""

    wait: Natural = 1
    """Steps skipped before each recording."""
    warmup: Natural = 1
    """Steps run before recording."""
    active: Count = 3
    """Steps recorded."""
    repeat: Natural = 5
    """Recordings."""
    skip_first: Natural = 0
    """Steps skipped at the start."""


class TrainerSection(Section):
    """Keys that every trainer has."""

    validation_field: str | None = None
    """Output whose metric is watched: the output feature's name or `combined`; null means the output."""
    validation_metric: str | None = None
    """Metric watched for early stopping and for the best checkpoint; null means loss."""
    skip_all_evaluation: bool = False
    """Never evaluate."""
    enable_profiling: bool = False
    """Write a profile of some training steps into the run folder."""
    profiler: Profiler = Profiler()
    """What enable_profiling records."""
    eval_steps: Natural | None = None
    """Evaluate on at most this many batches; null or 0 is all of them."""
    steps_per_checkpoint: Natural = 0
    """Evaluate and save a checkpoint every so many steps; 0 is once per epoch."""
    checkpoints_per_epoch: Natural = 0
    """Evaluate and save a checkpoint so often per epoch; instead of steps_per_checkpoint."""
    train_steps: Count | None = None
    """Steps of the run; instead of epochs."""
    evaluate_training_set: bool = False
    """Evaluate on the training set as well."""
    should_shuffle: bool = True
    """Read the rows in a new seeded order each epoch."""
    base_learning_rate: NonNegative = 0.0
    """Read for Ludwig's sake; has no effect."""
    callbacks: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(default_factory=list)
    """Trackers that receive the metrics besides metrics.jsonl; each needs the extra of its name."""


class NoTrainer(TrainerSection):
    """No training: the base model as it is (in-context learning)."""

    type: Literal["none"]
    """`none`: no training."""
    early_stop: int = -1
    """Not used without training."""
    learning_rate: Share | Auto = 0.0002
    """Not used without training."""
    batch_size: Count | Auto = 1
    """Not used without training."""
    epochs: Count = 3
    """Not used without training."""
    eval_batch_size: Count | Auto | None = "auto"
    """Rows per evaluation batch; null and `auto` choose by memory."""
    packing: bool = False
    """Ludwig's spelling; Fettle always packs."""
    packing_max_sequences_per_pack: Count = 8
    """Ludwig's spelling; Fettle packs by tokens."""


class TrainingSection(TrainerSection):
    """Keys of every trainer that trains."""

    early_stop: Annotated[int, Field(ge=-1)] = 5
    """Evaluations without improvement before stopping; -1 is never."""
    learning_rate: Share | Auto = "auto"
    """Learning rate; `auto` is 2e-4 with an adapter, 2e-5 for full fine-tuning."""
    learning_rate_scheduler: LearningRateScheduler = LearningRateScheduler()
    """How the learning rate moves."""
    epochs: Count = 3
    """Passes over the training set."""
    effective_batch_size: Count | Auto = "auto"
    """Rows per optimizer step; `auto` takes the largest power of two that fits in memory, within max_batch_size and 1/32 of the rows."""
    batch_size: Count | Auto = "auto"
    """Most rows in one forward pass; `auto` packs as many as memory allows."""
    max_batch_size: Count | None = 128
    """Upper bound of what `auto` chooses for effective_batch_size; null is no bound."""
    gradient_accumulation_steps: Count | Auto = "auto"
    """Forward passes per optimizer step; `auto` follows from the other two."""
    eval_batch_size: Count | Auto | None = "auto"
    """Rows per evaluation batch; null and `auto` choose by memory."""
    optimizer: Optimizer = Adamw(type="adamw")
    """The optimizer: a name or a section."""
    regularization_type: Literal["l1", "l2", "l1_l2"] | None = "l2"
    """Penalty on the trained weights, scaled by regularization_lambda."""
    regularization_lambda: NonNegative = 0.0
    """Strength of the penalty; 0 is none."""
    increase_batch_size_on_plateau: Natural = 0
    """How many times the effective batch size may grow when the watched metric stops improving; 0 is never."""
    increase_batch_size_on_plateau_patience: Count = 5
    """Evaluations without improvement before growing."""
    increase_batch_size_on_plateau_rate: Annotated[float, Field(gt=1)] = 2.0
    """Factor of growth."""
    increase_batch_size_eval_metric: str = "loss"
    """Metric watched for growing."""
    increase_batch_size_eval_split: Split = "training"
    """Split watched for growing."""
    gradient_clipping: GradientClipping | None = GradientClipping()
    """Limits on the gradient; null is none."""
    learning_rate_scaling: Literal["constant", "sqrt", "linear"] = "linear"
    """How the rate grows with the number of worker processes."""
    bucketing_field: str | None = None
    """Ludwig's padding aid; Fettle never pads."""
    use_mixed_precision: bool | None = None
    """Ludwig's spelling of precision: true is the device's 16-bit type, false is float32."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of training; `auto` is bfloat16 on GPUs that have it, else float32. Trained weights stay float32."""
    compile: bool = False
    """Compile the model with torch.compile."""
    enable_gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    layers_to_freeze_regex: str | None = None
    """Freeze layers whose name matches."""
    fast: Literal["auto", "off"] = "auto"
    """`auto` exchanges layers for exact faster ones where the model is known; `off` never does."""
    keep_checkpoints: Count = 2
    """Latest checkpoints kept for resuming, besides the best one."""
    loss_balancing: Literal["none", "log_transform", "uncertainty", "famo", "gradnorm", "nash_mtl", "pareto_mtl"] = (
        "none"
    )
    """Balance between several outputs."""
    loss_balancing_alpha: Positive = 1.5
    """gradnorm's exponent."""
    loss_balancing_lr: Positive = 0.01
    """Learning rate of the balance."""
    loss_balancing_preference_vector: list[float] | None = None
    """pareto_mtl's preference."""
    loss_balancing_tchebycheff_weight: Share = 0.5
    """pareto_mtl's weight."""
    contrastive_pretrain_epochs: Natural = 0
    """Contrastive epochs before training (tables only)."""
    contrastive_pretrain_temperature: Positive = 0.07
    """Temperature of the contrastive loss."""
    contrastive_pretrain_projection_dim: Count = 128
    """Width of the contrastive projection."""
    contrastive_pretrain_learnable_temperature: bool = True
    """Learn the temperature."""
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of inputs left out (several inputs only)."""
    model_soup: Literal["uniform", "greedy"] | None = None
    """Average the weights of the best checkpoints."""
    model_soup_top_k: Count = 5
    """Checkpoints averaged."""


class FinetuneTrainer(TrainingSection):
    """Supervised fine-tuning: loss on the response only."""

    type: Literal["finetune"]
    """`finetune`: supervised fine-tuning."""


class PretrainTrainer(TrainingSection):
    """Continued pretraining: plain text, loss on every token, documents packed with the end-of-text token between them."""

    type: Literal["pretrain"]
    """`pretrain`: continued pretraining on plain text."""
    attend_across_documents: bool = False
    """Let a token see the documents that stand before its own in a block; else each document is read by itself."""


class DpoTrainer(TrainingSection):
    """Direct preference optimisation (arXiv 2305.18290)."""

    type: Literal["dpo"]
    """`dpo`: direct preference optimisation."""
    dpo_beta: Positive = 0.1
    """Strength of the pull to the reference model."""
    beta: Positive | None = None
    """Another spelling of dpo_beta."""
    dpo_loss_type: Literal["sigmoid", "ipo"] = "sigmoid"
    """Loss."""
    dpo_label_smoothing: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of preferences taken to be wrong."""
    rejected_column: str = "rejected"
    """Column of the rejected answers."""


class KtoTrainer(TrainingSection):
    """Kahneman-Tversky optimisation (arXiv 2402.01306)."""

    type: Literal["kto"]
    """`kto`: Kahneman-Tversky optimisation."""
    kto_beta: Positive = 0.1
    """Strength of the pull to the reference model."""
    beta: Positive | None = None
    """Another spelling of kto_beta."""
    desirable_weight: Positive = 1.0
    """Weight of desirable rows."""
    undesirable_weight: Positive = 1.0
    """Weight of undesirable rows."""
    rejected_column: str = "rejected"
    """Column of the rejected answers."""


class OrpoTrainer(TrainingSection):
    """Odds-ratio preference optimisation (arXiv 2403.07691)."""

    type: Literal["orpo"]
    """`orpo`: odds-ratio preference optimisation."""
    orpo_beta: Positive = 0.1
    """Weight of the odds ratio."""
    beta: Positive | None = None
    """Another spelling of orpo_beta."""
    rejected_column: str = "rejected"
    """Column of the rejected answers."""


class GrpoTrainer(TrainingSection):
    """Group-relative policy optimisation (arXiv 2402.03300)."""

    type: Literal["grpo"]
    """`grpo`: group-relative policy optimisation."""
    grpo_beta: NonNegative = 0.04
    """Weight of the divergence from the reference model."""
    beta: NonNegative | None = None
    """Another spelling of grpo_beta."""
    grpo_epsilon: Positive = 0.2
    """Clipping of the ratio."""
    grpo_num_generations: Annotated[int, Field(ge=2)] = 4
    """Answers per prompt."""
    rewards: list[dict[str, Any]] | None = None
    """Reward functions."""


Trainer = Annotated[
    NoTrainer | FinetuneTrainer | PretrainTrainer | DpoTrainer | KtoTrainer | OrpoTrainer | GrpoTrainer,
    Field(discriminator="type"),
]
