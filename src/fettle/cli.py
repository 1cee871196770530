"""The command line: one import and one call per verb, so that each verb pays only for what it uses."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from fettle import __version__
from fettle.errors import FettleError

EPILOG = """examples:
  fettle init rows.csv > config.yaml
  fettle check --config config.yaml --dataset rows.csv
  fettle preview --config config.yaml --dataset rows.csv
  fettle train --config config.yaml --dataset rows.csv trainer.epochs=5
  fettle predict --model_path results/experiment_run --dataset new.csv --output answers.csv
"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a verb. Exit status: 0 done, 1 check found faults, 2 a user's fault, 130 interrupted."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    changes = [one for one in rest if "=" in one and not one.startswith("-")]
    if len(changes) < len(rest) or (changes and not hasattr(arguments, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if changes:  # argparse gathers changes of the config in one place only; they may stand between options
        arguments.overrides = [*arguments.overrides, *changes]
    if arguments.verb is None:
        parser.print_help()
        sys.exit(2)
    if arguments.verb in HEAVY:
        from fettle.hardware.threads import wait_briefly

        wait_briefly()
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it greets at import, which peft does
    try:
        status = VERBS[arguments.verb](arguments)
    except FettleError as error:
        sys.stderr.write(
            "".join(
                f"error: {line}\n" if number == 0 else f"       {line}\n"
                for number, line in enumerate(str(error).split("\n"))
            )
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone; nothing is left to say
        sys.exit(0)
    sys.exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fettle", description="From a model, a table of examples and one YAML to a fine-tuned language model.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"fettle {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="verb")

    def verb(name: str, help: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")

    for name, help in (
        ("train", "fine-tune a model and write a run folder"),
        ("experiment", "train, then evaluate and predict the whole test split"),
    ):
        one = verb(name, help)
        _add_config(one)
        _add_data(one)
        one.add_argument(
            "--output_directory",
            "--output-directory",
            "-od",
            default="results",
            help="where run folders are made (results)",
        )
        one.add_argument(
            "--experiment_name", "--experiment-name", default="experiment", help="first part of the run folder's name"
        )
        one.add_argument("--model_name", "--model-name", default="run", help="second part of the run folder's name")
        one.add_argument(
            "--model_resume_path", "--resume", "-mrp", metavar="RUN", help="run folder of a stopped run to go on with"
        )
        if name == "experiment":
            one.add_argument("--eval_split", "-es", default="test", choices=("training", "validation", "test", "full"))
    one = verb("predict", "answer every row of a table")
    _add_model(one)
    one.add_argument(
        "--output",
        "-o",
        default="predictions.jsonl",
        help="file to write: .jsonl, .csv or .parquet (predictions.jsonl)",
    )
    one.add_argument("--overwrite", action="store_true", help="replace the output file if it is there")
    one.add_argument(
        "--generation_config", "-gc", help="keys of the generation section as YAML, such as '{max_new_tokens: 20}'"
    )
    one = verb("evaluate", "score a model on a table with known answers")
    _add_model(one)
    one.add_argument("--output_directory", "-od", help="folder to write statistics.json into")
    one = verb("generate", "answer one prompt, streamed word by word")
    one.add_argument("--model_path", "--model-path", "-m", help="run folder or model folder")
    one.add_argument("--config", "-c", help="YAML, to ask its base model")
    one.add_argument("--prompt", "-p", help="text to answer; standard input when absent")
    one.add_argument(
        "--raw", action="store_true", help="feed the text as it is, without the prompt of the training rows"
    )
    one.add_argument("--generation_config", "-gc", help="keys of the generation section as YAML")
    one.add_argument("--seed", type=_seed, help="makes sampling repeatable")
    one.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    one = verb("check", "find everything that is wrong with config, data and hardware fit")
    _add_config(one)
    _add_data(one)
    one = verb("preview", "show examples exactly as the model will see them, and their lengths")
    _add_config(one)
    _add_data(one)
    one.add_argument("--examples", "-n", type=_natural, default=3, help="examples to show (3)")
    one = verb("init", "write a commented starter YAML for a dataset")
    one.add_argument("dataset", help="file of rows")
    one.add_argument(
        "--base_model", "--base-model", default="fettle:pocket", help="base model to name in it (fettle:pocket)"
    )
    one.add_argument("--output", "-o", help="file to write; standard output when absent")
    one = verb("schema", "print the config's JSON Schema, for editors")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number >= 1, got {text}")
    return number


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"expected a number >= 0, got {text}")
    return number


def _seed(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to {2**32 - 1}, got {text}")
    return number


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", "-c", help="YAML of the run")
    parser.add_argument("--config_str", "-cs", help="the YAML itself, instead of a file")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="changes to the config, such as trainer.epochs=5"
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", help="file, glob, folder or hub name of the rows; divided by preprocessing.split")
    for name in ("training_set", "validation_set", "test_set"):
        parser.add_argument(f"--{name}", help=f"file of the {name.replace('_', ' ')}")
    parser.add_argument("--random_seed", "--seed", "-rs", type=_seed, default=42, help="seed of the run (42)")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model_path", "--model-path", "-m", help="run folder or model folder")
    parser.add_argument("--config", "-c", help="YAML with trainer.type: none, to use its base model")
    parser.add_argument("--dataset", help="rows; where absent, those the config names")
    parser.add_argument(
        "--split", "-s", default="full", choices=("training", "validation", "test", "full"), help="rows to take (full)"
    )
    parser.add_argument("--batch_size", "-bs", type=_count, default=32, help="prompts answered together (32)")
    parser.add_argument("--random_seed", "-rs", type=_seed, help="seed of the split (the run's own)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")


def _source(arguments: argparse.Namespace) -> str:
    """The YAML's path or text."""
    from fettle.errors import ConfigError, Fault

    if arguments.config and arguments.config_str:
        raise ConfigError([Fault("command line", "--config", "give either --config or --config_str")])
    if arguments.config_str:
        return str(arguments.config_str) + "\n"
    resumed = getattr(arguments, "model_resume_path", None)
    if not arguments.config and resumed:
        return str(Path(resumed) / "config.yaml")
    if not arguments.config:
        raise ConfigError(
            [
                Fault(
                    "command line",
                    "--config",
                    "missing; name the YAML (`fettle init rows.csv > config.yaml` writes one)",
                )
            ]
        )
    return str(arguments.config)


def _loaded(arguments: argparse.Namespace) -> Any:
    """Config and sources of a light verb."""
    from fettle.config import load
    from fettle.prepare import Sources

    loaded = load(_source(arguments), arguments.overrides)
    given = (arguments.dataset, arguments.training_set, arguments.validation_set, arguments.test_set)
    return loaded, Sources.of(loaded.config, *given)


def _train(arguments: argparse.Namespace) -> int:
    from fettle.console import train

    return train(_source(arguments), arguments)


def _predict(arguments: argparse.Namespace) -> int:
    from fettle.console import predict

    return predict(arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    from fettle.console import evaluate

    return evaluate(arguments)


def _generate(arguments: argparse.Namespace) -> int:
    from fettle.console import generate

    return generate(arguments)


def _check(arguments: argparse.Namespace) -> int:
    from fettle import check
    from fettle.config import examine

    loaded, faults = examine(_source(arguments), arguments.overrides)
    given = (arguments.dataset, arguments.training_set, arguments.validation_set, arguments.test_set)
    report = check.run_beside(faults, loaded, given, arguments.random_seed)
    for note in report.notes:
        print(note)
    for warning in report.warnings:
        print(f"warning: {warning}")
    for fault in report.faults:
        print(f"fault: {fault}")
    print(f"{len(report.faults)} fault{'s' if len(report.faults) != 1 else ''}" if report.faults else "ready to train")
    return 1 if report.faults else 0


def _preview(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from fettle import base
    from fettle.prepare import Rows
    from fettle.preview import show

    loaded, sources = _loaded(arguments)
    found = base.find(loaded.config, loaded.folder, weights=False)
    rows = Rows(loaded.config, sources, loaded.folder, found.tokenizer, found.facts.context, arguments.random_seed)
    show(rows, Console(), arguments.examples)
    return 0


def _init(arguments: argparse.Namespace) -> int:
    from fettle.starter import write

    text = write(arguments.dataset, arguments.base_model)
    if arguments.output is None:
        sys.stdout.write(text)
        return 0
    from fettle.errors import OutputExistsError
    from fettle.files import write_text

    path = Path(arguments.output)
    if path.exists():
        raise OutputExistsError(f"{path}: is there already; choose another name")
    write_text(path, text)
    print(path)
    return 0


def _schema(_: argparse.Namespace) -> int:
    import json

    from fettle.schema import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0


HEAVY = ("train", "experiment", "predict", "evaluate", "generate")
VERBS = {
    "train": _train, "experiment": _train, "predict": _predict, "evaluate": _evaluate, "generate": _generate,
    "check": _check, "preview": _preview, "init": _init, "schema": _schema,
}  # fmt: skip
