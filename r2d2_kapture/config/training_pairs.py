"""Settings of training pairs."""

from __future__ import annotations

from dataclasses import dataclass

from r2d2_kapture.config.checks import require


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """Settings of pairs of crops and their difficulty.

    The difficulty of a pair is 0 for the first ``hold_steps`` steps and rises to 1 over
    the next ``ramp_steps``; mild values apply at 0, strong values at 1, and linear
    interpolation in between.

    Attributes:
        crop_size: side in pixels of the crops.
        min_side: smallest shorter side, in pixels, that a picture is scaled to.
        max_side: largest shorter side, in pixels, that a picture is scaled to.
        max_upscale: largest factor by which a picture may be enlarged; overrides
            min-side.
        min_overlap: least share of the part seen by the closer of the two crops that
            the other one sees too.
        mild_scale: largest scale change between the two pictures at difficulty 0.
        strong_scale: largest scale change at difficulty 1.
        mild_rotation: standard deviation of the rotation in degrees at difficulty 0.
        strong_rotation: standard deviation of the rotation in degrees at difficulty 1.
        mild_tilt: largest slant of the picture plane in degrees at difficulty 0.
        strong_tilt: largest slant of the picture plane in degrees at difficulty 1.
        jitter: largest relative change of brightness, contrast and saturation.
        noise: largest standard deviation of the pixel noise, in grey levels of 255.
        night: probability that one picture of a pair is darkened as if at night.
        relight: probability that a picture is relit: another gamma, and soft or hard
            bands of light and shadow.
        degrade: probability that a picture is blurred and compressed.
        plain_first: leave the colours of the first pictures unchanged and without
            noise, for a teacher.
        hold_steps: training steps at difficulty 0.
        ramp_steps: training steps in which the difficulty rises to 1.
        folder_weights: how often photographs of sub-folders are drawn relative to
            others, as in ``drone=0.2,street=0.5``; 0 leaves a sub-folder out.
        cache_gib: memory in GiB for decoded photographs, of all workers together; half
            of it is for posed validation pairs, if there are any.
    """

    crop_size: int = 192
    min_side: int = 256
    max_side: int = 1024
    max_upscale: float = 1.25
    min_overlap: float = 0.5
    mild_scale: float = 1.5
    strong_scale: float = 2.2
    mild_rotation: float = 9.0
    strong_rotation: float = 25.0
    mild_tilt: float = 20.0
    strong_tilt: float = 55.0
    jitter: float = 0.3
    noise: float = 10.0
    night: float = 0.1
    relight: float = 0.0
    degrade: float = 0.0
    plain_first: bool = False
    hold_steps: int = 2000
    ramp_steps: int = 8000
    folder_weights: str = ""
    cache_gib: float = 2.0

    def __post_init__(self) -> None:
        require(
            self.crop_size >= 32,
            f"--crop-size: found {self.crop_size}, expected at least 32 pixels",
        )
        require(
            self.crop_size <= self.min_side <= self.max_side,
            f"--min-side {self.min_side} --max-side {self.max_side}: expected "
            f"crop-size ({self.crop_size}) <= min-side <= max-side",
        )
        for name in ("max_upscale", "mild_scale", "strong_scale"):
            value = getattr(self, name)
            require(value >= 1, f"--{_flag(name)}: found {value}, expected at least 1")
        for name in ("min_overlap", "jitter", "night", "relight", "degrade"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"--{_flag(name)}: found {value}, expected 0 to 1")
        for name in ("mild_tilt", "strong_tilt"):
            value = getattr(self, name)
            require(
                0 <= value <= 65, f"--{_flag(name)}: found {value}, expected 0 to 65"
            )
        for name in (
            "mild_rotation",
            "strong_rotation",
            "noise",
            "hold_steps",
            "ramp_steps",
            "cache_gib",
        ):
            value = getattr(self, name)
            require(value >= 0, f"--{_flag(name)}: found {value}, expected 0 or more")
        self.weight_of_folder()

    def difficulty(self, step: int) -> float:
        """The difficulty of the pairs of a training step, 0 to 1."""
        if self.ramp_steps == 0:
            return float(step >= self.hold_steps)
        return min(max((step - self.hold_steps) / self.ramp_steps, 0.0), 1.0)

    def weight_of_folder(self) -> dict[str, float]:
        """The ``folder_weights`` by sub-folder.

        Raises:
            ConfigError: not of the form name=weight, or a weight below 0.
        """
        weights: dict[str, float] = {}
        for item in filter(None, map(str.strip, self.folder_weights.split(","))):
            name, _, text = item.rpartition("=")
            try:
                weights[name] = float(text)
            except ValueError:
                weights[name] = -1.0
            require(
                name != "" and 0 <= weights[name] < float("inf"),
                f"--folder-weights: found {item!r}, expected sub-folder=weight with a "
                "weight of 0 or more",
            )
        return weights


def _flag(name: str) -> str:
    return name.replace("_", "-")
