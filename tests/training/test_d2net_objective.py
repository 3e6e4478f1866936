"""D2-Net's objective with the trainer that all networks share."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r2d2_kapture.config.d2net_training import D2NetTrainingConfig
from r2d2_kapture.config.train import OptimizationConfig
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.training.loop import LOSS, PAIRS, Trainer
from r2d2_kapture.training.objective import D2NetObjective
from tests.training.d2net_maps import HEIGHT, PIXELS, SMALL, WIDTH, flow_of_shift


class Pooled(nn.Module):
    """A feature map of the size of D2-Net's, by one layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 8, kernel_size=8, stride=4)

    def forward(self, image: Tensor) -> Tensor:
        return F.relu(self.layer(image))


def test_the_objective_trains_the_network() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, *PIXELS, generator=generator)
    batch = [image, image, flow_of_shift(0, 0, batch=2).float()]
    network = Pooled()
    objective = D2NetObjective(SMALL, mixed=False)
    terms = objective(network, batch, generator)
    assert set(terms) == {
        LOSS,
        "positive_distance",
        "negative_distance",
        "correspondences",
        PAIRS,
        "skipped_pairs",
    }
    assert terms["correspondences"].item() == 2 * HEIGHT * WIDTH
    assert (terms[PAIRS].item(), terms["skipped_pairs"].item()) == (2, 0)
    assert terms["positive_distance"].item() == pytest.approx(0, abs=1e-3)
    terms[LOSS].backward()
    assert network.layer.weight.grad is not None and network.layer.weight.grad.any()
    objective.observe({name: value.item() for name, value in terms.items()})
    assert objective.state_dict() == {}
    objective.load_state_dict({})


def test_a_step_without_a_pair_that_counts_changes_nothing() -> None:
    """Momentum and weight decay would move weights by a gradient of 0."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 1, 3, *PIXELS, generator=generator)
    flow = flow_of_shift(4, 0).float()
    config = OptimizationConfig(learning_rate=0.01, weight_decay=0.1, average_decay=0.5)
    trainer = Trainer(Pooled(), D2NetObjective(SMALL, mixed=False), config, 9, {})

    def weights() -> list[Tensor]:
        networks = (trainer.network, trainer.result)
        return [item.layer.weight.detach().clone() for item in networks]

    states = [weights()]
    for known in (flow, flow * torch.nan, flow):
        result = trainer.step([*images, known])
        assert result.applied and math.isfinite(result.values[LOSS])
        states.append(weights())
    changed = [
        [not torch.equal(*pair) for pair in zip(*states[i : i + 2], strict=True)]
        for i in range(3)
    ]
    assert changed == [[True, True], [False, False], [True, True]]
    assert (trainer.progress.step, trainer.progress.skipped) == (3, 0)


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"margin": 0.0}, "--margin"),
        ({"margin": math.nan}, "--margin"),
        ({"safe_radius": -1}, "--safe-radius"),
        ({"least_correspondences": 0}, "--least-correspondences"),
        ({"trained_layers": -1}, "--trained-layers"),
        ({"preprocessing": "rgb"}, "--preprocessing"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        D2NetTrainingConfig(**settings)
