"""What differs between the networks that are trained: one class a family."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.d2net_training import D2NetTrainingConfig
from r2d2_kapture.config.distillation import DistillationConfig
from r2d2_kapture.config.extract import (
    D2NetConfig,
    EngineConfig,
    ExtractConfig,
    Preprocessing,
    SelectionConfig,
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
from r2d2_kapture.training.d2net_objective import D2NetObjective
from r2d2_kapture.training.data import Normalize
from r2d2_kapture.training.distillation import DistillationObjective
from r2d2_kapture.training.loop import PAIRS, Objective
from r2d2_kapture.training.objective import R2D2Objective
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


class Method(Protocol):
    """How the networks of one family are trained and validated.

    Attributes:
        unused: names of settings that mean nothing to it.
        confident: score of a keypoint that default settings let through; None where
            scores have no scale of their own.
    """

    unused: ClassVar[frozenset[str]]
    confident: ClassVar[float | None]

    @property
    def normalize(self) -> Normalize:
        """Turns pixels to what the network takes."""

    def prepare(self, network: FeatureNetwork, given: Checkpoint | None) -> None:
        """Choose the layers that are trained.

        Args:
            network: at step 0.
            given: where its weights come from; None for random ones.

        Raises:
            ConfigError, CheckpointError: the weights do not suit the settings.
        """

    def objective(self, *, mixed: bool) -> Objective:
        """What the network is trained for; ``mixed`` computes in bfloat16."""

    def held_out_objective(self, *, mixed: bool) -> Objective:
        """The same as a figure that steps of a run can be compared by."""

    def counts(self, terms: Mapping[str, float]) -> bool:
        """Whether a pair contributed to these terms."""

    def extraction(self, top_k: int, engine: EngineConfig) -> ExtractConfig:
        """Settings of the extractor that finds so many keypoints at any stage."""

    def history(self) -> dict[str, Any]:
        """What a checkpoint has to say for its weights to be used well."""

    def maps(self, network: FeatureNetwork, pixels: Tensor) -> dict[str, Tensor]:
        """The maps to display for (B, H, W, 3) uint8 pixels.

        Returns:
            (B, H, W) by name, 0 to 1.
        """


@dataclass(frozen=True, kw_only=True)
class R2D2Method:
    """R2D2 and Fast-R2D2: all layers, the losses of Revaud et al.

    Attributes:
        config: of the run.
    """

    unused: ClassVar[frozenset[str]] = _names_of(D2NetTrainingConfig) | _names_of(
        DistillationConfig
    )
    confident: ClassVar[float | None] = CONFIDENT

    config: TrainConfig

    @property
    def normalize(self) -> Normalize:
        """By the mean and deviation of ImageNet."""
        return normalize_rgb

    def prepare(self, network: FeatureNetwork, given: Checkpoint | None) -> None:
        """All layers are trained."""

    def objective(self, *, mixed: bool) -> Objective:
        """The losses, and the plain AP loss while it helps."""
        return R2D2Objective(self.config.loss, self.config.optimization, mixed=mixed)

    def held_out_objective(self, *, mixed: bool) -> Objective:
        """The losses alone: the plain AP loss fades during a run."""
        plain = dataclasses.replace(self.config.optimization, plain_ap_weight=0.0)
        return R2D2Objective(self.config.loss, plain, mixed=mixed)

    def counts(self, terms: Mapping[str, float]) -> bool:
        """Whether there was a query."""
        return terms["queries"] > 0

    def extraction(self, top_k: int, engine: EngineConfig) -> ExtractConfig:
        """Without thresholds, above which an untrained network has no keypoint."""
        selection = SelectionConfig(reliability_thr=0, repeatability_thr=0, top_k=top_k)
        return ExtractConfig(selection=selection, engine=engine)

    def history(self) -> dict[str, Any]:
        """Nothing: all of them take the same pixels."""
        return {}

    def maps(self, network: FeatureNetwork, pixels: Tensor) -> dict[str, Tensor]:
        """Both confidences."""
        features: DenseFeatures = network(self.normalize(pixels))
        return {
            "reliability": features.reliability[:, 0],
            "repeatability": features.repeatability[:, 0],
        }


@dataclass(frozen=True, kw_only=True)
class TaughtMethod(R2D2Method):
    """R2D2 and Fast-R2D2 that learn from the features of a teacher.

    Attributes:
        teacher: what is learned from.
    """

    unused: ClassVar[frozenset[str]] = _names_of(D2NetTrainingConfig) | AP_SETTINGS

    teacher: Teacher

    def objective(self, *, mixed: bool) -> Objective:
        """The losses of the teacher's points, and those of repeatability."""
        return DistillationObjective(
            self.config.loss, self.config.distillation, self.teacher, mixed=mixed
        )


@dataclass(frozen=True, kw_only=True)
class D2NetMethod:
    """D2-Net: the last layers of given weights, the margin loss of Dusmanu et al.

    Attributes:
        config: of the run.
    """

    unused: ClassVar[frozenset[str]] = (
        _names_of(LossConfig) | _names_of(DistillationConfig) | PLAIN_AP_SETTINGS
    )
    confident: ClassVar[float | None] = None

    config: TrainConfig

    def __post_init__(self) -> None:
        settings, crop = self.config.d2net, self.config.pairs.crop_size
        cells = crop // CELL - 1
        require(
            settings.least_correspondences <= cells**2,
            f"--least-correspondences {settings.least_correspondences}: found crops of "
            f"{cells} x {cells} = {cells**2} cells, expected at least as many; lower "
            f"it, or raise --crop-size {crop}",
        )
        require(
            settings.safe_radius < cells - 1,
            f"--safe-radius {settings.safe_radius}: found crops of {cells} x {cells} "
            "cells, all of them too near to be a wrong match; lower it, or raise "
            f"--crop-size {crop}",
        )

    @property
    def normalize(self) -> Normalize:
        """As the weights that the run begins with expect it."""
        return PREPROCESSING[self.config.d2net.preprocessing]

    def prepare(self, network: FeatureNetwork, given: Checkpoint | None) -> None:
        """Train the last convolutions only, where the weights of the others are given.

        Frozen ones take no gradient, so that none is computed for them.

        Raises:
            ConfigError: layers would stay random, there are not so many, or the weights
                were trained with another preprocessing.
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
                f"{len(frozen)} convolutions of D2-Net would stay random; name weights "
                "of D2-Net or of VGG16, or train all with --trained-layers 0"
            )
        resolve_preprocessing(network, self.config.d2net.preprocessing)
        for layer in frozen:
            layer.requires_grad_(False)

    def objective(self, *, mixed: bool) -> Objective:
        """The margin loss."""
        return D2NetObjective(self.config.d2net, mixed=mixed)

    def held_out_objective(self, *, mixed: bool) -> Objective:
        """The margin loss."""
        return self.objective(mixed=mixed)

    def counts(self, terms: Mapping[str, float]) -> bool:
        """Whether the pair was not skipped."""
        return terms[PAIRS] > 0

    def extraction(self, top_k: int, engine: EngineConfig) -> ExtractConfig:
        """At one scale, with the preprocessing of the training."""
        settings = D2NetConfig(
            preprocessing=self.config.d2net.preprocessing, max_keypoints=top_k
        )
        return ExtractConfig(d2net=settings, engine=engine)

    def history(self) -> dict[str, Any]:
        """Which preprocessing the weights expect."""
        return {"preprocessing": self.config.d2net.preprocessing}

    def maps(self, network: FeatureNetwork, pixels: Tensor) -> dict[str, Tensor]:
        """Soft detections, relative to the strongest one of each image."""
        scores = soft_detection_scores(network(self.normalize(pixels)))
        largest = scores.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
        height, width = pixels.shape[1:3]
        return {"soft detection": enlarged(scores / largest, (height, width))}


TRAINING_METHODS: dict[str, type[R2D2Method] | type[D2NetMethod]] = {
    "r2d2": R2D2Method,
    "fast_r2d2": R2D2Method,
    "d2net": D2NetMethod,
}
"""By architecture."""


def method_of(config: TrainConfig, teacher: Teacher | None = None) -> Method:
    """How the network of a run is trained.

    Args:
        config: of the run.
        teacher: to learn from, if any.

    Raises:
        ConfigError: it is not one that can be trained, or not with these settings.
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
        f"{'' if teacher is None else ' with --teacher'}, which makes no use of it; "
        "leave it out",
    )
    if teacher is not None:
        return TaughtMethod(config=config, teacher=teacher)
    return method(config=config)


def method_of_checkpoint(
    checkpoint: Checkpoint, preprocessing: Preprocessing | None = None
) -> Method:
    """How the network of a checkpoint is trained, by default.

    Args:
        checkpoint: with the network.
        preprocessing: of D2-Net, where the weights do not state it.

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
