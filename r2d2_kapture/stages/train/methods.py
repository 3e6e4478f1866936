"""The training methods, one class for each family of networks."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.d2net_training import D2NetTrainingConfig
from r2d2_kapture.config.distillation import DistillationConfig
from r2d2_kapture.config.extract import (
    D2NetConfig,
    EngineConfig,
    ExtractConfig,
    Preprocessing,
    R2D2Config,
)
from r2d2_kapture.config.losses import LossConfig
from r2d2_kapture.config.train import NetworkConfig, TrainConfig
from r2d2_kapture.core.pyramid import normalize_rgb
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.extractors.d2net import (
    CELL,
    PREPROCESSING,
    resolve_preprocessing,
)
from r2d2_kapture.models.checkpoints import Checkpoint
from r2d2_kapture.models.d2net import D2Net
from r2d2_kapture.models.network import DenseFeatures, FeatureNetwork
from r2d2_kapture.training.d2net_loss import enlarged, soft_detection_scores
from r2d2_kapture.training.data import Normalize
from r2d2_kapture.training.distillation import DistillationObjective
from r2d2_kapture.training.loop import PAIRS, Objective
from r2d2_kapture.training.objective import D2NetObjective, R2D2Objective
from r2d2_kapture.training.teacher import Teacher

CONFIDENT = 0.49
"""Score of a keypoint of R2D2 at both default thresholds, 0.7 and 0.7."""
PLAIN_AP_SETTINGS = frozenset({"plain_ap_weight", "plain_ap_until"})
AP_SETTINGS = PLAIN_AP_SETTINGS | {
    "ap_bins",
    "query_step",
    "query_grid",
    "neighbourhood",
    "distractor_step",
}


def _names_of(settings: type) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(settings))


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Training and validation of a family of networks.

    Attributes:
        unused: names of settings without effect.
        confident: least score of a keypoint at default thresholds; None if scores have
            no fixed scale.
        config: of the run.
    """

    unused: ClassVar[frozenset[str]]
    confident: ClassVar[float | None] = None

    config: TrainConfig

    @property
    @abstractmethod
    def normalize(self) -> Normalize:
        """Normalises pixels for the network."""

    def prepare(self, network: FeatureNetwork, given: Checkpoint | None) -> None:
        """Select the trained layers, by default all.

        Args:
            network: at step 0.
            given: source of its weights; None for random ones.

        Raises:
            ConfigError, CheckpointError: the weights do not match the settings.
        """

    @abstractmethod
    def objective(self, *, mixed: bool) -> Objective:
        """The training objective; ``mixed`` computes in bfloat16."""

    def held_out_objective(self, *, mixed: bool) -> Objective:
        """The objective in a form that is comparable between steps of a run."""
        return self.objective(mixed=mixed)

    @abstractmethod
    def counts(self, terms: Mapping[str, float]) -> bool:
        """Whether a pair contributed to these terms."""

    @abstractmethod
    def extraction(self, top_k: int, engine: EngineConfig) -> ExtractConfig:
        """Settings of an extractor that finds this number of keypoints at any step."""

    def history(self) -> dict[str, Any]:
        """Metadata that extraction needs from a checkpoint."""
        return {}

    @abstractmethod
    def maps(self, network: FeatureNetwork, pixels: Tensor) -> dict[str, Tensor]:
        """The maps of (B, H, W, 3) uint8 pixels, for display.

        Returns:
            (B, H, W) by name, 0 to 1.
        """


class R2D2Method(Method):
    """R2D2 and Fast-R2D2: all layers, the losses of Revaud et al."""

    unused = _names_of(D2NetTrainingConfig) | _names_of(DistillationConfig)
    confident = CONFIDENT

    @property
    def normalize(self) -> Normalize:
        """Normalise by ImageNet's mean and standard deviation."""
        return normalize_rgb

    def objective(self, *, mixed: bool) -> Objective:
        """The losses, with the plain AP loss at the start."""
        return R2D2Objective(self.config.loss, self.config.optimization, mixed=mixed)

    def held_out_objective(self, *, mixed: bool) -> Objective:
        """The losses without the plain AP loss, which fades during a run."""
        plain = dataclasses.replace(self.config.optimization, plain_ap_weight=0.0)
        return R2D2Objective(self.config.loss, plain, mixed=mixed)

    def counts(self, terms: Mapping[str, float]) -> bool:
        """Whether there was a query."""
        return terms["queries"] > 0

    def extraction(self, top_k: int, engine: EngineConfig) -> ExtractConfig:
        """Without thresholds, which no keypoint of an untrained network passes."""
        settings = R2D2Config(reliability_thr=0, repeatability_thr=0, top_k=top_k)
        return ExtractConfig(**vars(engine), extractor=settings)

    def maps(self, network: FeatureNetwork, pixels: Tensor) -> dict[str, Tensor]:
        """Repeatability and reliability maps."""
        features: DenseFeatures = network(self.normalize(pixels))
        return {
            "reliability": features.reliability[:, 0],
            "repeatability": features.repeatability[:, 0],
        }


@dataclass(frozen=True, kw_only=True)
class TaughtMethod(R2D2Method):
    """R2D2 and Fast-R2D2 distilled from the features of a teacher.

    Attributes:
        teacher: the teacher network.
    """

    unused = _names_of(D2NetTrainingConfig) | AP_SETTINGS

    teacher: Teacher

    def objective(self, *, mixed: bool) -> Objective:
        """The losses at the teacher's keypoints, and those of repeatability."""
        return DistillationObjective(
            self.config.loss, self.config.distillation, self.teacher, mixed=mixed
        )


@dataclass(frozen=True, kw_only=True)
class D2NetMethod(Method):
    """D2-Net: the last layers of given weights, the margin loss of Dusmanu et al."""

    unused = _names_of(LossConfig) | _names_of(DistillationConfig) | PLAIN_AP_SETTINGS

    def __post_init__(self) -> None:
        settings, crop = self.config.d2net, self.config.pairs.crop_size
        cells = crop // CELL - 1
        require(
            settings.least_correspondences <= cells**2,
            f"--least-correspondences {settings.least_correspondences}: found crops of "
            f"{cells} x {cells} = {cells**2} cells, expected at least as many; reduce "
            f"it, or increase --crop-size {crop}",
        )
        require(
            settings.safe_radius < cells - 1,
            f"--safe-radius {settings.safe_radius}: found crops of {cells} x {cells} "
            "cells, all within this radius; reduce it, or increase --crop-size "
            f"{crop}",
        )

    @property
    def normalize(self) -> Normalize:
        """The preprocessing that the initial weights expect."""
        return PREPROCESSING[self.config.d2net.preprocessing]

    def prepare(self, network: FeatureNetwork, given: Checkpoint | None) -> None:
        """Train the last convolutions only, if the weights of the others are given.

        No gradient is computed for frozen layers.

        Raises:
            ConfigError: frozen layers would be random, there are fewer layers, or the
                weights were trained with another preprocessing.
        """
        trained = self.config.d2net.trained_layers
        convolutions = [op for op in network.ops if isinstance(op, nn.Conv2d)]
        require(
            trained <= len(convolutions),
            f"--trained-layers: found {trained}, expected 0 to {len(convolutions)}",
        )
        frozen = convolutions[:-trained] if trained else []
        if given is None and frozen:
            raise ConfigError(
                f"--start-from: missing; with --trained-layers {trained} the other "
                f"{len(frozen)} convolutions of D2-Net would stay random; give weights "
                "of D2-Net or of VGG16, or train all with --trained-layers 0"
            )
        resolve_preprocessing(network, self.config.d2net.preprocessing)
        for layer in frozen:
            layer.requires_grad_(False)

    def objective(self, *, mixed: bool) -> Objective:
        """The margin loss."""
        return D2NetObjective(self.config.d2net, mixed=mixed)

    def counts(self, terms: Mapping[str, float]) -> bool:
        """Whether the pair was not skipped."""
        return terms[PAIRS] > 0

    def extraction(self, top_k: int, engine: EngineConfig) -> ExtractConfig:
        """At one scale, with the preprocessing of training."""
        settings = D2NetConfig(
            preprocessing=self.config.d2net.preprocessing, max_keypoints=top_k
        )
        return ExtractConfig(**vars(engine), extractor=settings)

    def history(self) -> dict[str, Any]:
        """The preprocessing that the weights expect."""
        return {"preprocessing": self.config.d2net.preprocessing}

    def maps(self, network: FeatureNetwork, pixels: Tensor) -> dict[str, Tensor]:
        """Soft detection scores, relative to the maximum of each image."""
        scores = soft_detection_scores(network(self.normalize(pixels)))
        largest = scores.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
        height, width = pixels.shape[1:3]
        return {"soft detection": enlarged(scores / largest, (height, width))}


TRAINING_METHODS: dict[str, type[Method]] = {
    "r2d2": R2D2Method,
    "fast_r2d2": R2D2Method,
    "d2net": D2NetMethod,
}
"""By architecture."""


def method_of(config: TrainConfig, teacher: Teacher | None = None) -> Method:
    """The training method of a run.

    Args:
        config: of the run.
        teacher: the teacher network, if any.

    Raises:
        ConfigError: it cannot be trained, or not with these settings.
    """
    name = config.network.architecture
    if name not in TRAINING_METHODS:
        raise ConfigError(
            f"--architecture {name}: unknown architecture '{name}', expected one of "
            f"{', '.join(sorted(TRAINING_METHODS))}"
        )
    method = TRAINING_METHODS[name]
    require(
        teacher is None or method is R2D2Method,
        f"--teacher: found for --architecture {name}, expected r2d2 or fast_r2d2",
    )
    if teacher is not None:
        method = TaughtMethod
    default = TrainConfig().to_flat()
    changed = [
        f"--{key.replace('_', '-')}"
        for key, value in config.to_flat().items()
        if key in method.unused and value != default[key]
    ]
    require(
        not changed,
        f"{', '.join(changed)}: found for --architecture {name}"
        f"{'' if teacher is None else ' with --teacher'}, which does not use it; "
        "remove it",
    )
    if teacher is not None:
        return TaughtMethod(config=config, teacher=teacher)
    return method(config=config)


def method_of_checkpoint(
    checkpoint: Checkpoint, preprocessing: Preprocessing | None = None
) -> Method:
    """The training method of a checkpoint, with default settings.

    Args:
        checkpoint: with the network.
        preprocessing: of D2-Net, if the weights do not state it.

    Raises:
        ConfigError: the weights were trained with another preprocessing.
    """
    architecture = checkpoint.architecture
    network = NetworkConfig(
        architecture=architecture.name,
        width=architecture.width,
        descriptor_dim=architecture.descriptor_dim,
    )
    if checkpoint.network.family != D2Net.family:
        return method_of(TrainConfig(network=network))
    resolved = resolve_preprocessing(checkpoint.network, preprocessing)
    settings = D2NetTrainingConfig(preprocessing=resolved)
    return method_of(TrainConfig(network=network, d2net=settings))
