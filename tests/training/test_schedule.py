"""The learning rate at every step, against closed forms and torch's own schedulers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fettle.training.config import LearningRateScheduler
from fettle.training.schedule import factor, warmup_steps

RATE, TOTAL = 1e-3, 100


def rates(section, total=TOTAL, warmup=0):
    return [factor(section, step, total, RATE, warmup) for step in range(total)]


def torch_rates(make, total=TOTAL):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler = make(optimizer)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"] / RATE)
        optimizer.step()
        scheduler.step()
    return found


def test_no_decay_is_constant():
    assert rates(LearningRateScheduler(decay=None)) == [1.0] * TOTAL


def test_warmup_climbs_in_equal_steps_to_the_full_rate():
    found = rates(LearningRateScheduler(decay=None), warmup=4)
    assert found[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_cosine_is_torchs():
    section = LearningRateScheduler(decay="cosine", eta_min=1e-4)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=1e-4))
    assert rates(section) == pytest.approx(expected)


def test_cosine_with_restarts_is_torchs():
    section = LearningRateScheduler(decay="cosine", t_0=10, t_mult=2)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 10, 2))
    assert rates(section) == pytest.approx(expected)


def test_one_cycle_is_torchs():
    section = LearningRateScheduler(decay="one_cycle", max_lr=RATE)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, RATE, total_steps=TOTAL + 1), TOTAL)
    found = [factor(section, step, TOTAL + 1, RATE, 0) for step in range(TOTAL)]
    assert found == pytest.approx(expected, rel=1e-5)


def test_linear_and_polynomial_end_where_they_should():
    assert rates(LearningRateScheduler(decay="linear"))[-1] == pytest.approx(0.01)
    section = LearningRateScheduler(decay="polynomial", polynomial_power=2.0, polynomial_end_lr=1e-4)
    assert factor(section, TOTAL, TOTAL, RATE, 0) == pytest.approx(0.1)
    assert factor(section, 50, TOTAL, RATE, 0) == pytest.approx(0.1 + 0.9 * 0.25)


def test_exponential_in_whole_steps_with_staircase():
    section = LearningRateScheduler(decay="exponential", decay_rate=0.5, decay_steps=10, staircase=True)
    assert [factor(section, step, TOTAL, RATE, 0) for step in (9, 10, 25)] == [1.0, 0.5, 0.25]
    smooth = section.model_copy(update={"staircase": False})
    assert factor(smooth, 5, TOTAL, RATE, 0) == pytest.approx(math.sqrt(0.5))


def test_inverse_sqrt():
    section = LearningRateScheduler(decay="inverse_sqrt", inverse_sqrt_warmup_steps=10)
    assert factor(section, 4, TOTAL, RATE, 0) == pytest.approx(0.5)
    assert factor(section, 39, TOTAL, RATE, 0) == pytest.approx(0.5)


def test_wsd_climbs_stays_and_falls():
    found = rates(LearningRateScheduler(decay="wsd"))
    assert found[0] == pytest.approx(0.1)
    assert set(found[10:90]) == {1.0}
    assert found[95] == pytest.approx(0.5)


def test_warmup_steps_by_share_or_by_evaluations():
    assert warmup_steps(LearningRateScheduler(), 1000, 50) == 30
    assert warmup_steps(LearningRateScheduler(warmup_evaluations=2), 1000, 50) == 100


@given(
    st.sampled_from(["linear", "exponential", "cosine", "one_cycle", "inverse_sqrt", "polynomial", "wsd", None]),
    st.integers(1, 500),
    st.integers(0, 600),
)
def test_never_negative_and_never_above_the_top(decay, total, step):
    assert 0.0 <= factor(LearningRateScheduler(decay=decay), step, total, RATE, min(5, total)) <= 1.0 + 1e-9


@pytest.mark.parametrize("total", [7, 25, 33])
def test_wsd_never_overshoots(total):
    assert max(rates(LearningRateScheduler(decay="wsd"), total)) == 1.0
