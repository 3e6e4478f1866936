"""The matcher ``lightglue``, by kornia, with weights from a file.

Lindenberger, Sarlin and Pollefeys, "LightGlue: Local Feature Matching at Light Speed",
ICCV 2023. Its weights belong to one kind of features: published ones are for
SuperPoint, DISK, ALIKED and others, none for R2D2 or D2-Net. Those that read
orientations (SIFT, DoG-HardNet) are refused, since kapture keypoints may have none.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from r2d2_kapture.config.extras import import_extra
from r2d2_kapture.config.match import LightGlueConfig
from r2d2_kapture.errors import (
    CheckpointError,
    ConfigError,
    FeatureFormatError,
)
from r2d2_kapture.matching.matcher import Matcher, MatchInput
from r2d2_kapture.models.tensors import read_tensors
from r2d2_kapture.types import PairMatches

FIRST_LAYER = "input_proj.weight"
POSITIONS = "posenc.Wr.weight"
LAST_OF_LAYER = "self_attn.out_proj.weight"
LAST_OF_FIRST = f"transformers.0.{LAST_OF_LAYER}"


class LightGlueMatcher(Matcher):
    """A transformer over the keypoints and descriptors of both images.

    Raises:
        ConfigError: kornia is not installed, or no weights are given.
        CheckpointError: a file that is none of LightGlue's weights.
    """

    settings_class: ClassVar[type] = LightGlueConfig
    needs_keypoints: ClassVar[bool] = True

    def __init__(
        self,
        settings: LightGlueConfig = LightGlueConfig(),
        device: torch.device = torch.device("cpu"),
    ) -> None:
        if settings.weights is None:
            raise ConfigError(
                "--matcher lightglue: found no --weights, expected those that were "
                "trained for your features, such as aliked_lightglue.pth of "
                "github.com/cvg/LightGlue; there are none for R2D2 and D2-Net: match "
                "them with mutual_nearest, dual_softmax or adalam"
            )
        self.settings = settings
        self._network = load_lightglue(settings.weights, settings.min_confidence)
        self._network.to(device)
        self._width = self._network.conf.input_dim
        self._sha256 = hashlib.sha256(settings.weights.read_bytes()).hexdigest()

    @property
    def provenance(self) -> dict[str, Any]:
        """The settings, with the checksum of the weights in place of their path."""
        return super().provenance | {"weights": self._sha256}

    @torch.inference_mode()
    def __call__(self, features1: MatchInput, features2: MatchInput) -> PairMatches:
        """Match two images; scores are the network's confidences."""
        images = {
            "image0": self._image(features1),
            "image1": self._image(features2),
        }
        if not (len(features1.descriptors) and len(features2.descriptors)):
            return PairMatches(
                indices=np.zeros((0, 2), np.int64), scores=np.zeros(0, np.float32)
            )
        found = self._network(images)
        indices, scores = found["matches"][0], found["scores"][0]
        order = indices[:, 0].argsort()
        return PairMatches(
            indices=indices[order].cpu().numpy().astype(np.int64),
            scores=scores[order].cpu().numpy().astype(np.float32),
        )

    def _image(self, features: MatchInput) -> dict[str, Tensor]:
        width = features.descriptors.shape[1]
        if width != self._width:
            raise FeatureFormatError(
                f"--matcher lightglue: found descriptors of {width} values, expected "
                f"{self._width}, for which {self.settings.weights} was trained"
            )
        keypoints = features.keypoints
        if keypoints is None:
            raise FeatureFormatError("--matcher lightglue: found descriptors alone")
        size = (
            keypoints.amax(0) + 1
            if features.image_size is None and len(keypoints)
            else keypoints.new_tensor(features.image_size or (1, 1))
        )
        return {
            "keypoints": keypoints[None],
            "descriptors": features.descriptors[None],
            "image_size": size[None],
        }


def load_lightglue(path: Path, min_confidence: float) -> Any:
    """kornia's LightGlue with the weights of a file, for evaluation.

    Raises:
        ConfigError: kornia is not installed.
        CheckpointError: a file that is none of LightGlue's weights.
    """
    kornia = import_extra("kornia.feature", "kornia", "--matcher lightglue")
    layers = current_names(read_tensors(path, "LightGlue"))
    positions, last = layers.get(POSITIONS), layers.get(LAST_OF_FIRST)
    if positions is None or last is None or positions.shape[1] != 2:
        raise CheckpointError(
            f"{path}: found no weights of LightGlue for keypoints without orientation, "
            "expected those for ALIKED, DISK or SuperPoint, as in aliked_lightglue.pth"
        )
    width = len(last)
    first = layers.get(FIRST_LAYER)
    network = kornia.LightGlue(
        None,
        input_dim=width if first is None else first.shape[1],
        descriptor_dim=width,
        n_layers=sum(name.endswith(LAST_OF_LAYER) for name in layers),
        num_heads=width // (2 * len(positions)),
        filter_threshold=min_confidence,
        depth_confidence=-1,
        width_confidence=-1,
    )
    try:
        missing = network.load_state_dict(layers, strict=False).missing_keys
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: found layers of other sizes: {error}"
        ) from error
    lacking = set(missing) & {name for name, _ in network.named_parameters()}
    if lacking:
        raise CheckpointError(
            f"{path}: lacks {len(lacking)} layers of LightGlue, such as {min(lacking)}"
        )
    return network.eval()


def current_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Layers by the names of kornia; published files have those of an older version."""
    return {
        re.sub(
            r"^(self_attn|cross_attn)\.(\d+)",
            r"transformers.\2.\1",
            name.removeprefix("matcher."),
        ): value
        for name, value in state.items()
    }
