"""Learning rate and help by step: shapes, ends, and no jumps."""

from __future__ import annotations

import math

import pytest

from r2d2_kapture.config.train import OptimizationConfig, PaceConfig
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.training.objective import help_share
from r2d2_kapture.training.optimization import learning_rate


def rates(config: OptimizationConfig, total: int) -> list[float]:
    return [learning_rate(step, total, config) for step in range(total)]


def test_a_warm_up_rises_to_a_rate_that_is_constant_as_published() -> None:
    assert set(rates(OptimizationConfig(), 50)) == {1e-4}
    config = OptimizationConfig(learning_rate=0.8, warmup_steps=4)
    assert rates(config, 6) == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_a_cosine_falls_from_the_full_rate_to_its_end() -> None:
    config = OptimizationConfig(
        learning_rate=1.0, warmup_steps=10, schedule="cosine", final_learning_rate=0.1
    )
    found = rates(config, 110)[10:]
    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.55)  # half way between 1 and 0.1
    assert all(a > b for a, b in zip(found, found[1:]))
    assert learning_rate(110, 110, config) == pytest.approx(0.1)
    assert learning_rate(500, 110, config) == pytest.approx(0.1)  # a run made shorter
    config = OptimizationConfig(
        learning_rate=1.0, warmup_steps=10, schedule="cosine", final_learning_rate=0.5
    )
    assert learning_rate(4, 5, config) == pytest.approx(0.5)
    assert math.isfinite(learning_rate(10, 10, config))


def test_help_is_full_below_kappa_and_gone_above_the_end() -> None:
    def share(ap: float) -> float:
        return help_share(ap, kappa=0.5, until=0.7)

    assert share(0.0) == share(0.5) == 1.0
    assert share(0.6) == pytest.approx(0.5)
    assert share(0.7) == share(0.9) == 0.0
    # no jump at either end
    assert share(0.5 + 1e-9) == pytest.approx(1.0)
    assert share(0.7 - 1e-9) == pytest.approx(0.0, abs=1e-7)
    assert help_share(0.4, kappa=0.5, until=0.5) == 1.0
    assert help_share(0.5, kappa=0.5, until=0.5) == 0.0


@pytest.mark.parametrize(
    ("pace", "photographs", "pairs", "steps"),
    [
        (PaceConfig(epochs=25), 731, 8, 2285),  # 25 * 731 / 8 = 2284.4
        (PaceConfig(epochs=1), 3, 8, 1),
        (PaceConfig(epochs=25, steps=7), 731, 8, 7),
    ],
)
def test_epochs_or_steps_decide_the_length(
    pace: PaceConfig, photographs: int, pairs: int, steps: int
) -> None:
    assert pace.total_steps([photographs], pairs) == steps


def test_an_epoch_draws_as_many_pairs_of_each_source() -> None:
    pace = PaceConfig(epochs=10, pairs_per_source=100)
    # three scenes, large and small
    assert pace.total_steps([5000, 200, 7], 1) == 10 * 300
    assert pace.total_steps([5000, 200, 7], 8) == 375
    with pytest.raises(ConfigError, match="--pairs-per-source"):
        PaceConfig(pairs_per_source=-1)


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("warmup_steps", -1),
        ("schedule", "stairs"),
        ("final_learning_rate", 1.5),
        ("average_decay", 1.0),
        ("precision", "fp16"),
        ("seed", -1),
    ],
)
def test_settings_out_of_range_name_their_flag(settings: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"--{settings.replace('_', '-')}: found"):
        OptimizationConfig(**{settings: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["epochs", "steps", "log_every", "save_every"])
def test_a_pace_of_zero_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}: found 0"):
        PaceConfig(**{name: 0})
