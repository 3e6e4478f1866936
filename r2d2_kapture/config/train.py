"""Settings of training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from r2d2_kapture.config.checks import GPU_INDEX, Checked, bounded, require
from r2d2_kapture.config.d2net_training import D2NetTrainingConfig
from r2d2_kapture.config.distillation import DistillationConfig
from r2d2_kapture.config.losses import LossConfig
from r2d2_kapture.config.megadepth import MegadepthPairs
from r2d2_kapture.config.training_pairs import PairConfig

Schedule = Literal["constant", "cosine"]
TrainingPrecision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The trained network.

    Attributes:
        architecture: ``r2d2``, ``fast_r2d2``, which pools once, or ``d2net``.
        width: width multiplier of its layers; 4 as published, 6 for the big one; 64
            for D2-Net.
        descriptor_dim: length of a descriptor; 512 for D2-Net.
    """

    architecture: str = "r2d2"
    width: int = 4
    descriptor_dim: int = 128


@dataclass(frozen=True, kw_only=True)
class OptimizationConfig(Checked):
    """Settings of optimisation, which a run keeps from start to end.

    Revaud et al., NeurIPS 2019, section 4: Adam, learning rate 1e-4, weight decay 5e-4,
    batches of 8 pairs. Extensions of the paper are off by default.

    Attributes:
        seed: random seed of the initial weights, the pairs and the losses' samples.
        batch_size: pairs in a step of each process.
        learning_rate: highest learning rate of Adam.
        weight_decay: L2 penalty on the weights, as published.
        warmup_steps: steps in which the learning rate rises from 0.
        schedule: ``constant``, or ``cosine``: down to final_learning_rate at the end.
        final_learning_rate: share of the learning rate that a cosine ends with.
        gradient_clip: largest L2 norm of a gradient; 0 disables clipping.
        average_decay: decay of the moving average of the weights, which is then
            validated and exported; 0 disables it.
        plain_ap_weight: weight of the AP loss without reliability, which replaces the
            reliability loss early in training, to keep the reliability from collapsing;
            0 disables it.
        plain_ap_until: AP at which this loss has faded out; it fades from ap-base on.
        precision: arithmetic of the backbone; ``auto`` is bfloat16 if it is faster on
            the device (AVX-512 with BF16, AMX, GPUs since Ampere), else float32; bf16
            is refused on processors without support. Weights, heads and losses are
            float32.
    """

    seed: int = bounded(0, at_least=0)
    batch_size: int = bounded(8, at_least=1)
    learning_rate: float = bounded(1e-4, above=0)
    weight_decay: float = bounded(5e-4, at_least=0)
    warmup_steps: int = bounded(0, at_least=0)
    schedule: Schedule = "constant"
    final_learning_rate: float = bounded(0.0, at_least=0, at_most=1)
    gradient_clip: float = bounded(0.0, at_least=0)
    average_decay: float = bounded(0.0, at_least=0, below=1)
    plain_ap_weight: float = bounded(0.0, at_least=0)
    plain_ap_until: float = bounded(0.7, at_least=0, at_most=1)
    precision: TrainingPrecision = "auto"


@dataclass(frozen=True, kw_only=True)
class PaceConfig(Checked):
    """Length of a run and intervals; all may change when a run is resumed.

    Attributes:
        epochs: how often each photograph is the first of a pair, unless steps is given.
        pairs_per_source: pairs of each source in an epoch, such as of each scene of
            MegaDepth; 0 takes all.
        steps: batches to train on, instead of epochs.
        log_every: steps that one row of log.csv averages.
        validate_every: steps between validations; 0 disables validation.
        save_every: steps between saved states.
        save_minutes: minutes after which a state is saved in any case.
        gpu: index of the CUDA device, -1 for the CPU; by default the first CUDA device
            if there is one, else the CPU. torchrun gives each process its own.
    """

    epochs: int = bounded(25, at_least=1)
    pairs_per_source: int = bounded(0, at_least=0)
    steps: int | None = bounded(None, at_least=1)
    log_every: int = bounded(10, at_least=1)
    validate_every: int = bounded(500, at_least=0)
    save_every: int = bounded(500, at_least=1)
    save_minutes: float = bounded(10.0, above=0)
    gpu: int | None = bounded(None, at_least=-1, note=GPU_INDEX)

    def total_steps(self, sources: Sequence[int], pairs_per_step: int) -> int:
        """Steps of a whole run; an epoch's last pairs may begin the next epoch.

        Args:
            sources: photographs or pairs of each.
            pairs_per_step: of all processes together.
        """
        if self.steps is not None:
            return self.steps
        epoch = sum(self.pairs_per_source or items for items in sources)
        return max(-(-self.epochs * epoch // pairs_per_step), 1)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of training."""

    network: NetworkConfig = NetworkConfig()
    optimization: OptimizationConfig = OptimizationConfig()
    pairs: PairConfig = PairConfig()
    megadepth: MegadepthPairs = MegadepthPairs()
    loss: LossConfig = LossConfig()
    distillation: DistillationConfig = DistillationConfig()
    d2net: D2NetTrainingConfig = D2NetTrainingConfig()
    pace: PaceConfig = PaceConfig()

    def __post_init__(self) -> None:
        for name, value in self.to_flat().items():
            require(
                not isinstance(value, float) or math.isfinite(value),
                f"--{name.replace('_', '-')}: found {value}, expected a finite number",
            )

    def to_flat(self) -> dict[str, Any]:
        """All settings by name, as plain values; the names differ between the parts."""
        parts = (getattr(self, field.name) for field in dataclasses.fields(self))
        return {k: v for part in parts for k, v in dataclasses.asdict(part).items()}

    def deciding(self, unused: Collection[str]) -> dict[str, Any]:
        """The settings that must not change when a run is resumed.

        Args:
            unused: names of settings without effect on the trained network.
        """
        free = {field.name for field in dataclasses.fields(PaceConfig)}.union(unused)
        return {k: v for k, v in self.to_flat().items() if k not in free}
