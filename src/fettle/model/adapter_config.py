"""The `adapter` and `adapters` sections: one class per adapter type, its `type` chooses it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fettle.section import Section

Rank = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Modules = list[str] | str | None


class Postprocessor(Section):
    """What happens to the adapter after training."""

    merge_adapter_into_base_model: bool = False
    """Save full weights with the adapter merged in, instead of the adapter."""
    progressbar: bool = False
    """Show the merge's progress."""


class AdapterSection(Section):
    """Keys that every adapter has."""

    pretrained_adapter_weights: str | None = None
    """Adapter folder to continue from."""
    postprocessor: Postprocessor = Postprocessor()
    """What happens after training."""


class Targeted(AdapterSection):
    """Adapters that are put on chosen layers."""

    target_modules: Modules = None
    """Names of the layers to adapt, a regular expression, or `all-linear`; null means the usual ones of the model's family,
    all linear layers for unknown families."""


class EvaConfig(Section):
    """Data-driven initialisation (EVA)."""

    rho: Annotated[float, Field(ge=1)] = 2.0
    """Rank may grow to rho * r."""
    tau: Share = 0.99
    """Cosine similarity at which a layer has converged."""
    use_label_mask: bool = True
    """Look at labelled tokens only."""
    label_mask_value: int = -100
    """Value that masks a label."""
    whiten: bool = False
    """Whiten the singular vectors."""
    adjust_scaling_factors: bool = True
    """Adapt the scaling after ranks are redistributed."""


class LoftqConfig(Section):
    """Initialisation aware of quantisation (LoftQ)."""

    loftq_bits: Literal[2, 4, 8] = 4
    """Bits of the quantised weight."""
    loftq_iter: Rank = 1
    """Alternating iterations."""


class LoraFamily(Targeted):
    """Keys that LoRA and AdaLoRA share."""

    r: Rank = 8
    """Rank of the update."""
    alpha: Rank | None = None
    """Scaling: the update is multiplied by alpha / r; null means 2 * r."""
    dropout: Dropout = 0.05
    """Dropout on the adapter's input."""
    bias_type: Literal["none", "all", "lora_only"] = "none"
    """Which biases train."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(r) (rank-stabilised LoRA)."""
    use_dora: bool = False
    """Split weights into magnitude and direction (DoRA)."""
    loraplus_lr_ratio: Annotated[float, Field(ge=1)] | None = None
    """Learning rate of the B matrices over that of A (LoRA+)."""
    init_lora_weights: Literal["default", "gaussian", "eva", "olora", "pissa", "corda", "loftq", "orthogonal"] = (
        "default"
    )
    """How the adapter starts."""
    eva_config: EvaConfig | None = None
    """Settings of `init_lora_weights: eva`."""
    loftq_config: LoftqConfig | None = None
    """Settings of `init_lora_weights: loftq`."""
    rank_pattern: dict[str, Rank] | None = None
    """Rank of layers whose name matches."""
    alpha_pattern: dict[str, Positive] | None = None
    """Alpha of layers whose name matches."""
    layer_replication: list[Annotated[list[Natural], Field(min_length=2, max_length=2)]] | None = None
    """Ranges of layers to stack anew; copies share weights and differ in their adapters."""


class Lora(LoraFamily):
    """Low-rank adaptation (arXiv 2106.09685)."""

    type: Literal["lora"]
    """`lora`: low-rank adaptation."""


class Adalora(LoraFamily):
    """LoRA whose rank is reallocated in training (arXiv 2303.10512)."""

    type: Literal["adalora"]
    """`adalora`: LoRA whose rank is reallocated in training."""
    target_r: Rank = 8
    """Mean rank at the end."""
    init_r: Rank = 12
    """Rank at the start."""
    tinit: Natural = 0
    """Steps before pruning begins."""
    tfinal: Natural = 0
    """Steps of training after pruning ends."""
    delta_t: Rank = 1
    """Steps between two reallocations."""
    beta1: Share = 0.85
    """Smoothing of the importance."""
    beta2: Share = 0.85
    """Smoothing of its uncertainty."""
    orth_reg_weight: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the orthogonality penalty."""
    total_step: Rank | None = None
    """Steps of the whole run; null means the run's own number."""


class Ia3(Targeted):
    """Learned scaling of activations (arXiv 2205.05638)."""

    type: Literal["ia3"]
    """`ia3`: learned scaling of activations."""
    feedforward_modules: list[str] | None = None
    """Layers scaled at their input."""
    fan_in_fan_out: bool = False
    """Weights are stored transposed."""
    modules_to_save: list[str] | None = None
    """Further modules that train in full."""
    init_ia3_weights: bool = True
    """Start as the identity."""


class Vera(Targeted):
    """Shared random matrices, trained scalings (arXiv 2310.11454)."""

    type: Literal["vera"]
    """`vera`: shared random matrices, trained scalings."""
    r: Rank = 256
    """Rank of the shared matrices."""
    projection_prng_key: Natural = 0
    """Seed of the shared matrices."""


class Loha(Targeted):
    """Hadamard product of low-rank matrices."""

    type: Literal["loha"]
    """`loha`: Hadamard product of low-rank matrices."""
    r: Rank = 8
    """Rank."""
    alpha: Positive = 8
    """Scaling."""


class Lokr(Targeted):
    """Kronecker product of low-rank matrices."""

    type: Literal["lokr"]
    """`lokr`: Kronecker product of low-rank matrices."""
    r: Rank = 8
    """Rank."""
    alpha: Positive = 8
    """Scaling."""


class Fourierft(Targeted):
    """Sparse Fourier coefficients of the update (arXiv 2405.03003)."""

    type: Literal["fourierft"]
    """`fourierft`: sparse Fourier coefficients."""
    n_frequency: Rank = 1000
    """Coefficients per layer."""
    scaling: Positive = 150.0
    """Scaling."""


class Boft(Targeted):
    """Butterfly orthogonal update (arXiv 2311.06243)."""

    type: Literal["boft"]
    """`boft`: butterfly orthogonal update."""
    boft_block_size: Rank = 4
    """Block size."""
    boft_n_butterfly_factor: Rank = 1
    """Butterfly factors."""
    boft_dropout: Dropout = 0.05
    """Share of blocks left out."""


class Tinylora(Targeted):
    """A handful of trained scalars per layer."""

    type: Literal["tinylora"]
    """`tinylora`: a handful of trained scalars per layer."""
    r: Rank = 2
    """Rank of the frozen factors."""
    u: Rank = 64
    """Trained scalars."""
    weight_tying: Share = 0.0
    """Share of layers that use the same scalars."""
    projection_seed: Natural = 42
    """Seed of the projections."""
    save_projection: bool = True
    """Save the projections with the adapter."""
    tinylora_dropout: Dropout = 0.0
    """Dropout on the adapter's input."""


class C3a(Targeted):
    """Circular convolution."""

    type: Literal["c3a"]
    """`c3a`: circular convolution."""
    block_size: Rank = 256
    """Block size."""
    bias_type: Literal["none", "all", "c3a_only"] = "none"
    """Which biases train."""


class Oft(Targeted):
    """Orthogonal fine-tuning (arXiv 2306.07280)."""

    type: Literal["oft"]
    """`oft`: orthogonal fine-tuning."""
    r: Natural = 0
    """Number of blocks; 0 means by oft_block_size."""
    oft_block_size: Natural = 32
    """Block size; 0 means by r."""
    module_dropout: Dropout = 0.0
    """Share of modules left out."""
    coft: bool = False
    """Constrain the rotation."""
    eps: Positive = 6e-05
    """Strength of the constraint."""


class Hra(Targeted):
    """Householder reflections (arXiv 2405.17484)."""

    type: Literal["hra"]
    """`hra`: Householder reflections."""
    r: Rank = 8
    """Reflections."""
    apply_GS: bool = False
    """Orthogonalise them (Gram-Schmidt)."""


class Waveft(Targeted):
    """Sparse wavelet coefficients."""

    type: Literal["waveft"]
    """`waveft`: sparse wavelet coefficients."""
    n_frequency: Rank = 2592
    """Coefficients per layer."""
    scaling: Positive = 25.0
    """Scaling."""
    wavelet_family: Literal["db1", "db2", "db3", "haar", "sym2", "coif1"] = "db1"
    """Wavelet."""


class LnTuning(Targeted):
    """Train the norm layers (arXiv 2312.11420)."""

    type: Literal["ln_tuning"]
    """`ln_tuning`: train the norm layers."""


class Vblora(Targeted):
    """Vectors drawn from a shared bank (arXiv 2405.15179)."""

    type: Literal["vblora"]
    """`vblora`: vectors drawn from a shared bank."""
    r: Rank = 4
    """Rank."""
    num_vectors: Rank = 256
    """Vectors in the bank."""
    vector_length: Rank = 256
    """Length of a vector."""
    topk: Rank = 2
    """Vectors mixed per part."""
    vblora_dropout: Dropout = 0.0
    """Dropout on the adapter's input."""
    save_only_topk_weights: bool = False
    """Save the chosen vectors' weights only."""


class AdaptionPrompt(AdapterSection):
    """LLaMA-Adapter (arXiv 2303.16199)."""

    type: Literal["adaption_prompt"]
    """`adaption_prompt`: LLaMA-Adapter."""
    adapter_len: Rank = 4
    """Trained prompt tokens per layer."""
    adapter_layers: Rank = 1
    """Topmost layers that get them."""


Adapter = Annotated[
    Lora
    | Adalora
    | Ia3
    | Vera
    | Loha
    | Lokr
    | Fourierft
    | Boft
    | Tinylora
    | C3a
    | Oft
    | Hra
    | Waveft
    | LnTuning
    | Vblora
    | AdaptionPrompt,
    Field(discriminator="type"),
]


class AdapterMerge(Section):
    """A weighted merge of several adapters."""

    name: str = "merged"
    """Name of the result."""
    sources: list[str] | None = None
    """Adapters to merge; null means all."""
    weights: list[float] | None = None
    """Weight of each; null means 1.0."""
    combination_type: Literal["linear", "svd", "ties", "dare_linear", "dare_ties", "magnitude_prune"] = "linear"
    """How they are combined."""
    density: Share = 0.5
    """Share of values kept."""


class Adapters(Section):
    """Several named adapters on one base."""

    adapters: Annotated[dict[str, Adapter], Field(min_length=1)]
    """The adapters by name."""
    active: str | None = None
    """The one in use; null means the first."""
    merge: AdapterMerge | None = None
    """A weighted merge of them."""
