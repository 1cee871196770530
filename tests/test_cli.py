"""The user's day on the command line, each verb in a process of its own."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fettle.cli import main
from tests.training.conftest import config, rows

ROOT = Path(__file__).parent.parent
QUICKSTART = ROOT / "examples" / "quickstart"


def fettle(*arguments, cwd=None, stdin=""):
    """Run a verb in this process, as the shell would: status and what it wrote."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        main([str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, ended.value.code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data, a config and a finished run."""
    path = tmp_path_factory.mktemp("day")
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(64)))
    (path / "config.yaml").write_text(yaml.safe_dump(config(epochs=2)))
    done = fettle("train", "--config", "config.yaml", "--dataset", "rows.jsonl", "trainer.epochs=1", cwd=path)
    assert done.returncode == 0, done.stderr
    (path / "train.out").write_text(done.stdout)
    (path / "train.err").write_text(done.stderr)
    return path


def test_train_tells_what_happened(folder):
    out, err = (folder / "train.out").read_text(), (folder / "train.err").read_text()
    assert "step 6/6" in err
    assert "validation loss" in out
    assert "exact match" in out
    assert "run folder: results/experiment_run" in out
    assert "Warning" not in err
    assert "Traceback" not in err
    assert (folder / "results/experiment_run/config.yaml").read_text() == (folder / "config.yaml").read_text()


def test_predict_evaluate_and_generate(folder):
    done = fettle(
        "predict",
        "--model_path",
        "results/experiment_run",
        "--dataset",
        "rows.jsonl",
        "-o",
        "a.csv",
        "--split",
        "test",
        cwd=folder,
    )
    assert (done.returncode, done.stdout) == (0, "a.csv\n")
    assert len((folder / "a.csv").read_text().strip().split("\n")) == 9
    again = fettle(
        "predict", "--model_path", "results/experiment_run", "--dataset", "rows.jsonl", "-o", "a.csv", cwd=folder
    )
    assert again.returncode == 2
    assert "is there already" in again.stderr
    done = fettle("evaluate", "-m", "results/experiment_run", "--dataset", "rows.jsonl", "-s", "test", cwd=folder)
    assert "exact match" in done.stdout
    done = fettle("generate", "-m", "results/experiment_run", "-p", "red cat", "-gc", "{max_new_tokens: 3}", cwd=folder)
    piped = fettle(
        "generate", "-m", "results/experiment_run", "-gc", "{max_new_tokens: 3}", cwd=folder, stdin="red cat"
    )
    assert done.returncode == piped.returncode == 0
    assert done.stdout == piped.stdout != ""


def test_generate_asks_a_base(folder):
    done = fettle("generate", "--config", "config.yaml", "-p", "red cat", "-gc", "{max_new_tokens: 3}", cwd=folder)
    assert done.returncode == 0, done.stderr


def test_check_says_ready_or_what_is_wrong(folder):
    done = fettle("check", "--config", "config.yaml", "--dataset", "rows.jsonl", cwd=folder)
    assert done.returncode == 0
    assert done.stdout.endswith("ready to train\n")
    done = fettle(
        "check", "--config", "config.yaml", "--dataset", "rows.jsonl", "output_features[0].name=lout", cwd=folder
    )
    assert done.returncode == 1
    assert "did you mean 'loud'?" in done.stdout
    done = fettle("check", "--config", "config.yaml", "trainer.epoch=3", "adapter=lorra", cwd=folder)
    assert done.returncode == 1
    assert "trainer.epoch: unknown key, did you mean 'epochs'?" in done.stdout
    assert "did you mean 'lora'?" in done.stdout
    assert "no data given" in done.stdout


def test_init_check_train(folder):
    done = fettle("init", "rows.jsonl", "-o", "new.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert fettle("check", "--config", "new.yaml", cwd=folder).returncode == 0
    again = fettle("init", "rows.jsonl", "-o", "new.yaml", cwd=folder)
    assert again.returncode == 2


def test_preview_shows_rows_and_lengths(folder):
    done = fettle("preview", "--config", "config.yaml", "--dataset", "rows.jsonl", "-n", "1", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "rows.jsonl:" in done.stdout
    assert "tokens per row" in done.stdout


def test_schema_is_json():
    assert json.loads(fettle("schema").stdout)["title"] == "Fettle config"


@pytest.mark.parametrize("verb", ["train", "check", "preview"])
def test_no_config_says_how_to_get_one(verb, tmp_path):
    done = fettle(verb, cwd=tmp_path)
    assert done.returncode == 2
    assert "fettle init" in done.stderr


def test_no_verb_prints_help():
    done = fettle()
    assert done.returncode == 2
    assert "examples:" in done.stdout


def test_a_missing_run_and_a_run_that_did_not_finish(folder):
    done = fettle("generate", "-m", "nowhere", "-p", "x", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nowhere: no such folder")


def test_an_output_directory_that_is_a_file(folder):
    done = fettle("train", "-c", "config.yaml", "--dataset", "rows.jsonl", "-od", "rows.jsonl", cwd=folder)
    assert done.returncode == 2
    assert "is a file, not a folder" in done.stderr


def test_a_closed_pipe_is_no_fault(folder):
    command = f"{sys.executable} -m fettle schema | head -n 1"  # a process of its own, which it ends
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""


FULL_DISK = """
import sys
from safetensors import SafetensorError
import fettle.training.checkpoint as checkpoint
real = checkpoint.save_file
calls = []
def full(*arguments, **options):
    calls.append(1)
    if len(calls) > 1:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    return real(*arguments, **options)
checkpoint.save_file = full
from fettle.cli import main
main(sys.argv[1:])
"""


def test_a_full_disk_is_told_and_leaves_nothing_half_written(folder):
    command = [
        sys.executable,
        "-c",
        FULL_DISK,
        "train",
        "-c",
        "config.yaml",
        "--dataset",
        "rows.jsonl",
        "--model_name",
        "full",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    checkpoints = folder / "results/experiment_full/checkpoints"
    assert not [path.name for path in checkpoints.iterdir() if path.name.startswith(".part")]


def test_examples_are_valid():
    found = sorted((ROOT / "examples").rglob("*.yaml"))
    assert QUICKSTART / "config.yaml" in found
    for path in found:
        done = fettle("check", "--config", path, "--dataset", QUICKSTART / "tickets.jsonl", "base_model=fettle:pocket")
        assert "unknown key" not in done.stderr, path
        assert done.returncode in (0, 1), done.stderr


def test_quickstart_trains(tmp_path):
    """A short run of the README's first command: all its keys, fewer rows."""
    done = fettle(
        "experiment", "--config", QUICKSTART / "config.yaml", "--dataset", QUICKSTART / "tickets.jsonl",
        "preprocessing.sample_size=300", "trainer.train_steps=26", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "results/experiment_run/test_statistics.json").read_text())
    assert scores["loss"] < 4.0
    assert len((tmp_path / "results/experiment_run/test_predictions.jsonl").read_text().strip().split("\n")) == 60


def test_quickstart_data_are_what_the_script_writes(tmp_path):
    copy = tmp_path / "make_tickets.py"
    copy.write_text((QUICKSTART / "make_tickets.py").read_text())
    subprocess.run([sys.executable, str(copy)], check=True, cwd=tmp_path, capture_output=True)
    assert (tmp_path / "tickets.jsonl").read_bytes() == (QUICKSTART / "tickets.jsonl").read_bytes()


def test_changes_may_stand_between_options(tmp_path):
    data = QUICKSTART / "tickets.jsonl"
    done = fettle(
        "check", "--config", QUICKSTART / "config.yaml", "trainer.epochs=2", "--dataset", data, "trainer.epoch=4"
    )
    assert "trainer.epoch: unknown key" in done.stderr + done.stdout
    assert "trainer.epochs" not in done.stderr
    for wrong in (("check", "--confg", "x"), ("schema", "a=b")):
        done = fettle(*wrong)
        assert done.returncode == 2
        assert "unrecognized arguments" in done.stderr
