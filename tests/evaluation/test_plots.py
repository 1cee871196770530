"""Plots appear whole, with what was measured on them."""

from fettle.evaluation.plots import _smoothed, learning_curves

STEPS = [{"step": step, "loss": 4 / step, "learning_rate": 1e-3, "split": "training"} for step in range(1, 50)]
EVALUATIONS = [
    {"step": step, "loss": 3 / (step + 1), "next_token_accuracy": 0.5, "split": "validation"} for step in (0, 25, 49)
]


def test_pictures_are_written(tmp_path):
    drawn = learning_curves([*STEPS, *EVALUATIONS], tmp_path / "plots")
    assert [path.name for path in drawn] == ["loss.png", "learning_rate.png", "accuracy.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    assert len(list((tmp_path / "plots").iterdir())) == 3


def test_nothing_measured_nothing_drawn(tmp_path):
    assert learning_curves([], tmp_path / "plots") == []


def test_smoothing_starts_at_the_first_value():
    assert _smoothed([2.0, 2.0, 2.0]) == [2.0, 2.0, 2.0]
