"""The Python face: return values, saving, loading, and the same results through every door."""

import inspect
import json
import shutil
from pathlib import Path

import pandas
import pytest
import torch
import yaml
from datasets import Dataset
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

import fettle
from fettle import Model
from fettle.api import LudwigModel
from fettle.errors import ConfigError, DataError, FettleError, MissingFileError, OutputExistsError
from tests.training.conftest import config, rows

LORA = {"type": "lora", "r": 4, "dropout": 0.0}


@pytest.fixture(scope="module", params=[None, LORA], ids=["full", "lora"])
def trained(request, tmp_path_factory):
    """(model, results) of a run with its test answers."""
    folder = tmp_path_factory.mktemp("run")
    model = Model(config(adapter=request.param, epochs=3))
    return model, model.train(rows(64), output_directory=folder, callbacks=[])


def test_public_names():
    assert sorted(fettle.__all__) == ["Callback", "FettleError", "Model", "__version__", "load_config"]
    assert LudwigModel is Model
    public = [name for name in vars(Model) if not name.startswith("_")]
    assert sorted(public) == sorted(
        [
            "config",
            "output_name",
            "train",
            "experiment",
            "preprocess",
            "predict",
            "evaluate",
            "generate",
            "load",
            "save",
            "save_config",
        ]
    )


def test_train_gives_a_triple(trained):
    _, results = trained
    statistics, data, folder = results
    assert statistics is results.train_stats
    assert [len(part) for part in data[:3]] == [48, 8, 8]
    assert len(statistics["validation"]["combined"]["loss"]) == 4
    assert statistics["test"]["combined"].keys() >= {
        "loss",
        "perplexity",
        "exact_match",
        "bleu",
        "rougeL",
        "token_accuracy",
        "edit_distance",
    }
    assert Path(folder).is_dir()


def test_the_run_folder_is_whole(trained):
    model, results = trained
    folder = Path(results.output_directory)
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "filled.yaml", "description.json", "metrics.jsonl", "training_statistics.json", "test_statistics.json",
        "test_predictions.jsonl", "test_base_predictions.jsonl", "plots", "checkpoints", "model", "plan.json",
    }  # fmt: skip
    described = json.loads((folder / "description.json").read_text())
    assert described["seed"] == 42
    assert described["versions"]["torch"] == torch.__version__
    filled = yaml.safe_load((folder / "filled.yaml").read_text())
    assert filled["trainer"]["precision"] == "float32"
    assert filled["dataset"]["format"] == "columns"
    card = (folder / "model/README.md").read_text()
    assert card.startswith("---\nlibrary_name: ")
    assert "## Scores" in card
    assert "## Samples" in card
    assert len((folder / "test_predictions.jsonl").read_text().strip().split("\n")) == 8
    assert model.config["trainer"]["epochs"] == 3


def test_loaded_answers_as_trained(trained, tmp_path):
    model, results = trained
    texts = [row["text"] for row in rows(3, offset=100)]
    expected = model.generate(texts)
    assert Model.load(results.output_directory).generate(texts) == expected
    moved = tmp_path / "elsewhere"
    model.save(moved)
    assert Model.load(moved).generate(texts) == expected
    with pytest.raises(OutputExistsError):
        model.save(moved)


def test_plain_libraries_give_the_same_answer(trained):
    model, results = trained
    if model.config["adapter"] is None:
        pytest.skip("full weights are compared in tests/model")
    folder = Path(results.output_directory) / "model"
    plain, tokenizer = AutoPeftModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("red cat ->", return_tensors="pt")
    written = plain.generate(
        **ids, max_new_tokens=4, do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=0
    )
    text = tokenizer.decode(written[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert model.generate("red cat", return_full_text=False) == text


def test_predict_gives_ludwigs_columns_in_order(trained):
    model, _ = trained
    table = pandas.DataFrame(rows(5, offset=200))
    frame, _ = model.predict(table)
    assert list(frame.columns) == ["loud_predictions", "loud_response", "loud_probabilities", "loud_probability"]
    assert len(frame) == 5
    for number, text in enumerate(table["text"]):
        assert frame["loud_response"][number] == model.generate(text, return_full_text=False)
    assert ((frame["loud_probability"] > 0) & (frame["loud_probability"] <= 1)).all()


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_predict_streams_to_files(trained, tmp_path, ending):
    model, _ = trained
    path = tmp_path / f"answers{ending}"
    model.predict(rows(5), output=path)
    read = {
        ".jsonl": lambda p: pandas.read_json(p, lines=True),
        ".csv": pandas.read_csv,
        ".parquet": pandas.read_parquet,
    }[ending]
    frame = read(path)
    assert list(frame["text"]) == [row["text"] for row in rows(5)]
    assert list(frame.columns[-4:]) == ["loud_response", "loud_probability", "loud_stopped", "loud_truncated"]
    with pytest.raises(OutputExistsError, match="overwrite"):
        model.predict(rows(5), output=path)
    model.predict(rows(2), output=path, overwrite=True)
    assert len(read(path)) == 2
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_predict_needs_no_response_column(trained):
    model, _ = trained
    assert len(model.predict([{"text": "red cat"}])[0]) == 1


def test_a_failed_prediction_leaves_no_file(trained, tmp_path):
    model, _ = trained
    with pytest.raises(DataError, match="row 2"):
        model.predict([{"text": "red"}, {"text": None}], output=tmp_path / "answers.csv")
    assert list(tmp_path.iterdir()) == []


def test_evaluate(trained, tmp_path):
    model, results = trained
    statistics, predictions, folder = model.evaluate(
        rows(64), split="test", output_directory=tmp_path, collect_predictions=True
    )
    expected = json.loads((Path(results.output_directory) / "test_statistics.json").read_text())
    assert statistics["loud"]["loss"] == pytest.approx(expected["loss"], abs=1e-5)
    assert statistics["combined"]["loss"] == statistics["loud"]["loss"]
    assert len(predictions) == 8
    assert json.loads((tmp_path / "statistics.json").read_text()) == statistics
    assert folder == str(tmp_path)


def test_generation_keys_can_be_given_per_call(trained):
    model, _ = trained
    long = model.generate("red cat", {"max_new_tokens": 9, "min_new_tokens": 9}, return_full_text=False)
    short = model.generate("red cat", {"max_new_tokens": 1}, return_full_text=False)
    assert long.startswith(short)
    assert len(long) > len(short)
    with pytest.raises(ConfigError, match=r"generation.max_new_tokens: expected a number >= 1"):
        model.generate("red cat", {"max_new_tokens": 0})
    with pytest.raises(ConfigError, match="not available yet"):
        model.generate("red cat", {"num_beams": 2})


def test_experiment(tmp_path):
    model = Model(config())
    statistics, training, data, folder = model.experiment(rows(64), output_directory=tmp_path)
    assert statistics["loud"].keys() >= {"loss", "bleu", "exact_match"}
    assert training["validation"]["combined"]["loss"]
    assert len(data.test_set) == 8
    assert Path(folder).name == "experiment_run"
    assert (Path(folder) / "test_predictions.jsonl").read_text().count("\n") == 8


def test_trainer_none_just_evaluates_the_base(tmp_path):
    section = config()
    section["trainer"] = {"type": "none"}
    model = Model(section)
    results = model.train(rows(64), output_directory=tmp_path)
    assert 3 < results.train_stats["test"]["combined"]["loss"][0] < 6
    assert not (Path(results.output_directory) / "model").exists()
    again = Model.load(results.output_directory)
    assert again.generate("red", {"max_new_tokens": 3}) == model.generate("red", {"max_new_tokens": 3})


def test_run_folders_count_up(tmp_path):
    section = config(train_steps=1, skip_all_evaluation=True)
    names = [Path(Model(section).train(rows(64), output_directory=tmp_path).output_directory).name for _ in range(3)]
    assert names == ["api_experiment_run", "api_experiment_run_1", "api_experiment_run_2"]


def test_sources_of_every_kind_train_alike(tmp_path):
    table = rows(40)
    (tmp_path / "rows.json").write_text(json.dumps(table))
    pandas.DataFrame(table).to_csv(tmp_path / "rows.csv", index=False)
    columns = {key: [row[key] for row in table] for key in table[0]}
    sources = [
        table,
        columns,
        pandas.DataFrame(table),
        Dataset.from_list(table),
        tmp_path / "rows.json",
        str(tmp_path / "rows.csv"),
    ]
    losses = []
    for source in sources:
        results = Model(config()).train(source, output_directory=tmp_path / "results", test_answers=0)
        losses.append(results.train_stats["validation"]["combined"]["loss"])
    assert all(one == losses[0] for one in losses)


def test_given_splits(tmp_path):
    results = Model(config()).train(
        training_set=rows(16),
        validation_set=rows(4, 50),
        test_set=rows(3, 90),
        output_directory=tmp_path,
        test_answers=0,
    )
    assert [len(part) for part in results.preprocessed_data[:3]] == [16, 4, 3]


def test_a_standalone_yaml(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(40)))
    section = {**config(), "dataset": "rows.jsonl"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(section))
    results = Model(tmp_path / "run.yaml").train(output_directory=tmp_path / "results", test_answers=0)
    assert (Path(results.output_directory) / "config.yaml").read_text() == (tmp_path / "run.yaml").read_text()


def test_faults_are_told_before_anything_is_written(tmp_path):
    section = config()
    section["base_model"] = str(tmp_path / "nowhere")
    with pytest.raises(FettleError):
        Model(section).train([{"text": "a"}], output_directory=tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_all_rows_faulty_together(tmp_path):
    section = config()
    with pytest.raises(ConfigError, match="row 2: column 'text' is empty"):
        Model(section).train([{"text": "a", "loud": "A"}, {"text": "", "loud": "B"}], output_directory=tmp_path)


def test_untrained_and_missing_models_say_so(tmp_path):
    with pytest.raises(MissingFileError, match="not been trained"):
        Model(config()).predict(rows(1))
    with pytest.raises(MissingFileError, match="no Fettle model here"):
        Model.load(tmp_path)


def test_resume_refuses_other_data(tmp_path):
    section = config(train_steps=2)
    folder = Model(section).train(rows(40), output_directory=tmp_path, test_answers=0).output_directory
    shutil.rmtree(Path(folder) / "model")
    with pytest.raises(DataError, match="have changed"):
        Model(section).train(rows(41), model_resume_path=folder, test_answers=0)


def test_preprocess_and_save_config(tmp_path):
    model = Model(config())
    assert len(model.preprocess(rows(64)).training_set) == 48
    model.save_config(tmp_path / "all.yaml")
    assert Model(tmp_path / "all.yaml").config == model.config


def test_callbacks_are_called(tmp_path):
    class Listener(fettle.Callback):
        def __init__(self):
            self.seen = []

        def on_train_start(self, about):
            self.seen.append(("start", about["total_steps"]))

        def on_step(self, record):
            self.seen.append(("step", record["step"]))

        def on_evaluation(self, record):
            self.seen.append((record["split"], record["step"]))

        def on_train_end(self, summary):
            self.seen.append(("end", summary["step"]))

    listener = Listener()
    Model(config(train_steps=2)).train(rows(64), output_directory=tmp_path, callbacks=[listener], test_answers=0)
    assert listener.seen == [("start", 2), ("validation", 0), ("step", 1), ("step", 2), ("validation", 2), ("end", 2)]


def test_train_has_ludwigs_argument_names():
    taken = set(inspect.signature(Model.train).parameters)
    ludwigs = {
        "dataset",
        "training_set",
        "validation_set",
        "test_set",
        "experiment_name",
        "model_name",
        "model_resume_path",
        "output_directory",
    }
    assert ludwigs | {"random_seed", "callbacks"} <= taken


def test_a_second_run_that_scores_nothing_parses_nothing(tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(40)))
    section = config(train_steps=1, skip_all_evaluation=True)
    Model(section).train(tmp_path / "rows.jsonl", output_directory=tmp_path / "results", test_answers=0)
    monkeypatch.setattr("fettle.check._look_at_rows", None)
    started = []

    class Listener(fettle.Callback):
        def on_train_start(self, about):
            started.append(about["total_steps"])

    monkeypatch.setattr("fettle.data.read._from_file", None)
    Model(section).train(tmp_path / "rows.jsonl", output_directory=tmp_path / "results", callbacks=[Listener()])
    assert started == [1]


def test_a_finished_run_is_not_resumed(tmp_path):
    section = config(train_steps=1, skip_all_evaluation=True)
    folder = Model(section).train(rows(40), output_directory=tmp_path, test_answers=0).output_directory
    with pytest.raises(OutputExistsError, match="finished"):
        Model(section).train(rows(40), model_resume_path=folder)


def test_split_means_the_runs_own_split(tmp_path):
    results = Model(config()).train(rows(64), output_directory=tmp_path, random_seed=7)
    expected = json.loads((Path(results.output_directory) / "test_statistics.json").read_text())["loss"]
    loaded = Model.load(results.output_directory)
    assert loaded.evaluate(rows(64), split="test")[0]["combined"]["loss"] == pytest.approx(expected, abs=1e-5)
    assert loaded.evaluate(rows(64), split="test", random_seed=8)[0]["combined"]["loss"] != pytest.approx(
        expected, abs=1e-5
    )


def test_a_yaml_in_another_folder_works_from_everywhere(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    (tmp_path / "project/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(40)))
    (tmp_path / "project/run.yaml").write_text(yaml.safe_dump({**config(epochs=2), "dataset": "rows.jsonl"}))
    monkeypatch.chdir(tmp_path)
    results = Model("project/run.yaml").train(output_directory="results", test_answers=0)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    frame, _ = Model.load(tmp_path / results.output_directory).predict(split="test")
    assert len(frame) == len(results.preprocessed_data.test_set)


def test_splits_beside_a_whole_dataset_are_refused():
    with pytest.raises(ConfigError, match="need training_set"):
        Model(config()).train(rows(40), test_set=rows(4))


def test_dropped_rows_keep_their_place(tmp_path):
    section = config()
    section["input_features"][0]["preprocessing"] = {"missing_value_strategy": "drop_row"}
    model = Model(section)
    model.train(rows(64), output_directory=tmp_path, test_answers=0)
    frame, _ = model.predict([{"text": "red"}, {"text": None}, {"text": "blue"}])
    assert list(frame["loud_response"].isna()) == [False, True, False]
