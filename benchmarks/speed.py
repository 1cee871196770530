"""Fettle's training speed against TRL's, on one job, one command: python benchmarks/speed.py [--steps 20] [--threads 1]

The same rows, mask, effective batch (16 rows), LoRA (r=8 on q, k, v, o), AdamW (2e-4) and clipping (1.0) for every
system, each in a process of its own, one after another. Prints real (non-padding) tokens per second as ratios; `--cpu`
counts processor seconds, the fairer figure on a machine that is not idle. TRL must be installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from speed_job import ROWS_PER_STEP, Row, read_rows, write_job

SYSTEMS = ("trl default", "trl best", "fettle off", "fettle auto")
DTYPES = ("fp32", "bf16")
RATE, CLIP, RANK, TARGETS = 2e-4, 1.0, 8, ["q_proj", "k_proj", "v_proj", "o_proj"]


class Clock:
    """Clock and processor seconds since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def result(self, rows: Sequence[Row], loss: float) -> dict[str, float]:
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        tokens = sum(row.tokens for row in rows)
        return {"tokens": tokens, "per_second": tokens / wall, "per_cpu_second": tokens / cpu, "loss": loss}


def run_trl(job: Path, dtype: str, steps: int, best: bool) -> dict[str, float]:
    """TRL's SFTTrainer at its defaults, or padding-free and without activation checkpointing: its best on this job."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    rows = read_rows(job, steps * ROWS_PER_STEP)
    found: dict[str, float] = {}

    class Timer(TrainerCallback):
        def on_train_begin(self, *_: object, **__: object) -> None:
            self.clock = Clock()

        def on_train_end(self, *arguments: object, **_: object) -> None:
            losses = [entry["loss"] for entry in arguments[1].log_history if "loss" in entry]
            found.update(self.clock.result(rows, losses[-1]))

    tuned = {"padding_free": True, "max_length": None, "gradient_checkpointing": False} if best else {"max_length": 512}
    with tempfile.TemporaryDirectory() as out:
        settings = SFTConfig(
            output_dir=out,
            per_device_train_batch_size=ROWS_PER_STEP,
            num_train_epochs=1,
            learning_rate=RATE,
            max_grad_norm=CLIP,
            completion_only_loss=True,
            bf16=dtype == "bf16",
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            logging_steps=steps,
            model_init_kwargs={"dtype": "float32"},
            lr_scheduler_type="constant",
            **tuned,
        )
        lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS, task_type="CAUSAL_LM")
        data = Dataset.from_list([vars(row) for row in rows])
        SFTTrainer(str(job / "model"), args=settings, train_dataset=data, peft_config=lora, callbacks=[Timer()]).train()
    return found


def run_fettle(job: Path, dtype: str, steps: int, fast: bool) -> dict[str, float]:
    """`fettle train`, as a user would have it, without evaluations; the clock runs as TRL's does, from the first step on."""
    from fettle import Callback, Model

    rows = read_rows(job, steps * ROWS_PER_STEP)
    found: dict[str, float] = {}

    class Timer(Callback):
        def on_train_start(self, _: object) -> None:
            self.clock = Clock()

        def on_step(self, record: Mapping[str, float]) -> None:
            if record["step"] == steps:
                found.update(self.clock.result(rows, record["loss"]))

    config = {
        "model_type": "llm",
        "base_model": str(job / "model"),
        "input_features": [{"name": "prompt", "type": "text"}],
        "output_features": [{"name": "completion", "type": "text"}],
        "prompt": {"use_chat_template": False},
        "adapter": {"type": "lora", "r": RANK, "dropout": 0.0, "target_modules": TARGETS},
        "trainer": {
            "type": "finetune",
            "train_steps": steps,
            "effective_batch_size": ROWS_PER_STEP,
            "learning_rate": RATE,
            "learning_rate_scheduler": {"decay": None, "warmup_fraction": 0.0},
            "optimizer": {"type": "adamw", "weight_decay": 0.0},
            "gradient_clipping": {"clipglobalnorm": CLIP},
            "precision": {"fp32": "float32", "bf16": "bfloat16"}[dtype],
            "should_shuffle": False,
            "skip_all_evaluation": True,
            "fast": "auto" if fast else "off",
        },
    }
    with tempfile.TemporaryDirectory() as out:
        os.environ["FETTLE_CACHE"] = f"{out}/cache"
        table = [{"prompt": row.prompt, "completion": row.completion} for row in rows]
        Model(config).train(training_set=table, output_directory=out, callbacks=[Timer()])
    return found


def run_system(name: str, job: Path, dtype: str, steps: int) -> dict[str, float]:
    """One system's figures, in this process."""
    tool, mode = name.split()
    if tool == "trl":
        return run_trl(job, dtype, steps, best=mode == "best")
    return run_fettle(job, dtype, steps, fast=mode == "auto")


def measure(name: str, job: Path, dtype: str, arguments: argparse.Namespace) -> dict[str, float]:
    """One system's figures, from a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "TOKENIZERS_PARALLELISM": "false"}
    if name == "ceiling":
        command = [str(arguments.ceiling), str(job), "--dtype", dtype, "--steps", str(arguments.steps), "--warm", "1"]
        environment |= {
            "MALLOC_MMAP_MAX_": "0",
            "MALLOC_TRIM_THRESHOLD_": "100000000000",
            "MALLOC_TOP_PAD_": "134217728",
        }
    else:
        command = [__file__, "--run", name, "--job", str(job), "--dtype", dtype, "--steps", str(arguments.steps)]
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} ({dtype}) failed:\n{done.stderr[-3000:]}")
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    if name == "ceiling":
        return {"per_second": figures["tok_s"], "per_cpu_second": figures["tok_cpu_s"], "loss": figures["loss"]}
    return figures


def print_table(results: dict[tuple[str, str], dict[str, float]], key: str) -> None:
    """Ratios to TRL's default and to its best, for each precision."""
    print(f"{'':14}" + "".join(f"{f'{dtype} / default':>16}{f'{dtype} / best':>14}" for dtype in DTYPES))
    for name in dict.fromkeys(name for name, _ in results):
        cells = ""
        for dtype in DTYPES:
            own = results[name, dtype][key]
            cells += f"{own / results['trl default', dtype][key]:15.2f}x{own / results['trl best', dtype][key]:13.2f}x"
        print(f"{name:14}{cells}")


def main() -> None:
    """Read the arguments; run one system (--run), or all of them and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=125, help="optimizer steps of 16 rows; 125 are one epoch")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    parser.add_argument("--cpu", action="store_true", help="compare by processor time")
    parser.add_argument("--ceiling", type=Path, help="a hand-written loop to run too")
    parser.add_argument("--verbose", action="store_true", help="also print each system's figures")
    parser.add_argument("--run", choices=SYSTEMS, help=argparse.SUPPRESS)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", choices=DTYPES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(run_system(arguments.run, arguments.job, arguments.dtype, arguments.steps)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        write_job(Path(folder))
        for dtype in DTYPES:
            for name in (*SYSTEMS, *(["ceiling"] if arguments.ceiling else [])):
                results[name, dtype] = figures = measure(name, Path(folder), dtype, arguments)
                if arguments.verbose:
                    print(dtype, name, {key: round(value, 3) for key, value in figures.items()}, flush=True)
    print_table(results, "per_cpu_second" if arguments.cpu else "per_second")


if __name__ == "__main__":
    main()
