"""Figures of features and matches, which notebooks display."""

from __future__ import annotations

from matplotlib.figure import Figure

from r2d2_kapture.errors import ConfigError, ImageError
from r2d2_kapture.front.images import ImageLike, read_image
from r2d2_kapture.io.images.decoding import RGBArray
from r2d2_kapture.pictures.features import keypoints_figure
from r2d2_kapture.pictures.matches import draw_matches
from r2d2_kapture.pictures.overlay import draw_overlay
from r2d2_kapture.stages.two_view import VerifiedMatches
from r2d2_kapture.types import LocalFeatures, PairMatches


def plot_matches(
    image1: ImageLike,
    image2: ImageLike,
    features1: LocalFeatures,
    features2: LocalFeatures,
    matches: PairMatches | VerifiedMatches,
    *,
    title: str = "",
) -> Figure:
    """Draw two images side by side with lines between their matches.

    Args:
        image1, image2: the images, see ImageExtractor.
        features1, features2: of these images.
        matches: of verified ones, inliers are green and outliers faint red; unverified
            ones are all green.
        title: text before the counts.

    Returns:
        A matplotlib figure; ``figure.savefig(path)`` writes it.

    Raises:
        ImageError: an image cannot be read, or is not that of its features.
        FeatureFormatError: matches of keypoints that do not exist.
    """
    verified = matches if isinstance(matches, VerifiedMatches) else None
    plain = matches.matches if isinstance(matches, VerifiedMatches) else matches
    plain.check_counts(("image 1", "image 2"), (len(features1), len(features2)))
    return draw_matches(
        _image_of(features1, image1, "image1"),
        _image_of(features2, image2, "image2"),
        features1.keypoints[plain.indices[:, 0]],
        features2.keypoints[plain.indices[:, 1]],
        None if verified is None else verified.inliers,
        title=title,
    )


def plot_overlay(
    image1: ImageLike, image2: ImageLike, verified: VerifiedMatches, *, title: str = ""
) -> Figure:
    """Draw image 1 warped onto image 2 by the homography of their matches.

    Args:
        image1, image2: the images, see ImageExtractor.
        verified: their matches.
        title: above the pictures.

    Raises:
        ConfigError: the geometry is not a homography.
        ImageError: an image cannot be read.
    """
    if verified.homography is None:
        raise ConfigError(
            f"plot_overlay: found {verified.kind} matches, expected those of a planar "
            "scene or of a camera that only rotated"
        )
    pixels1, pixels2 = read_image(image1), read_image(image2)
    return draw_overlay(pixels1, pixels2, verified.homography, title=title)


def plot_keypoints(
    image: ImageLike, features: LocalFeatures, *, max_keypoints: int = 1000
) -> Figure:
    """Draw the best keypoints over their image, coloured by score.

    Args:
        image: see ImageExtractor.
        features: of this image.
        max_keypoints: number of keypoints drawn, best scores first.

    Raises:
        ImageError: the image cannot be read, or is not that of the features.
    """
    pixels = _image_of(features, image, "image")
    return keypoints_figure(pixels, features, max_keypoints=max_keypoints)


def _image_of(features: LocalFeatures, image: ImageLike, name: str) -> RGBArray:
    """The pixels of an image, if features can be of it.

    Raises:
        ImageError: it cannot be read, or is of another size.
    """
    pixels = read_image(image)
    height, width = pixels.shape[:2]
    if (width, height) != features.image_size:
        raise ImageError(
            f"{name}: found {width} x {height} pixels, expected the "
            f"{features.image_size[0]} x {features.image_size[1]} that its features "
            "were extracted from"
        )
    return pixels
