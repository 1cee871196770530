"""The `quantization` and `model_parameters` sections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fettle.section import Section


class Quantization(Section):
    """Weights of the base model in few bits."""

    backend: Literal["bitsandbytes", "torchao"] = "bitsandbytes"
    """The library that holds the weights."""
    mode: Literal["int4_weight_only", "int8_weight_only", "int8_dynamic", "float8"] | None = None
    """Kind of torchao quantisation."""
    qat: bool = False
    """Quantisation-aware training (torchao)."""
    bits: Literal[4, 8] = 4
    """Bits of a weight (bitsandbytes)."""
    llm_int8_threshold: Annotated[float, Field(ge=0)] = 6.0
    """Outlier threshold of 8-bit products."""
    llm_int8_has_fp16_weight: bool = False
    """Keep 16-bit main weights beside the 8-bit ones."""
    bnb_4bit_compute_dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    """Precision of 4-bit products."""
    bnb_4bit_use_double_quant: bool = True
    """Quantise the quantisation constants as well."""
    bnb_4bit_quant_type: Literal["fp4", "nf4"] = "nf4"
    """4-bit number format."""


class RopeScaling(Section):
    """Longer context by stretching rotary positions."""

    rope_type: Literal["linear", "dynamic", "yarn", "llama3"] | None = None
    """Kind of stretching; `type` is read as well."""
    factor: Annotated[float, Field(gt=1)] | None = None
    """Context grows by this factor."""


class ModelParameters(Section):
    """Changes to the base model's own configuration."""

    rope_scaling: RopeScaling = RopeScaling()
    """Longer context by stretching rotary positions."""
    neftune_noise_alpha: Annotated[int, Field(ge=0)] | None = 0
    """Strength of the noise added to embeddings in training; 0 is none."""
