"""Settings of training pairs."""

from __future__ import annotations

from dataclasses import dataclass

from r2d2_kapture.config.checks import Checked, bounded, require


@dataclass(frozen=True, kw_only=True)
class PairConfig(Checked):
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

    crop_size: int = bounded(192, at_least=32, note="at least 32 pixels")
    min_side: int = 256
    max_side: int = 1024
    max_upscale: float = bounded(1.25, at_least=1)
    min_overlap: float = bounded(0.5, at_least=0, at_most=1)
    mild_scale: float = bounded(1.5, at_least=1)
    strong_scale: float = bounded(2.2, at_least=1)
    mild_rotation: float = bounded(9.0, at_least=0)
    strong_rotation: float = bounded(25.0, at_least=0)
    mild_tilt: float = bounded(20.0, at_least=0, at_most=65)
    strong_tilt: float = bounded(55.0, at_least=0, at_most=65)
    jitter: float = bounded(0.3, at_least=0, at_most=1)
    noise: float = bounded(10.0, at_least=0)
    night: float = bounded(0.1, at_least=0, at_most=1)
    relight: float = bounded(0.0, at_least=0, at_most=1)
    degrade: float = bounded(0.0, at_least=0, at_most=1)
    plain_first: bool = False
    hold_steps: int = bounded(2000, at_least=0)
    ramp_steps: int = bounded(8000, at_least=0)
    folder_weights: str = ""
    cache_gib: float = bounded(2.0, at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.crop_size <= self.min_side <= self.max_side,
            f"--min-side {self.min_side} --max-side {self.max_side}: expected "
            f"crop-size ({self.crop_size}) <= min-side <= max-side",
        )
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
