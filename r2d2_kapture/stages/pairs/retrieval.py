"""Global features from local features: a vocabulary, then one VLAD row per image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from safetensors import SafetensorError
from threadpoolctl import threadpool_limits

from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.stores import Store
from r2d2_kapture.errors import ConfigError, FeatureFormatError
from r2d2_kapture.io.kapture.feature_provenance import (
    OLDER,
    feature_provenance,
    feature_states,
)
from r2d2_kapture.io.kapture.followed_features import following
from r2d2_kapture.io.kapture.global_features import open_global_feature_writer
from r2d2_kapture.io.kapture.local_features import LocalFeatureTables
from r2d2_kapture.io.outputs.atomic import write_bytes_atomic
from r2d2_kapture.io.outputs.manifest import Manifest, package_versions
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.matching.vlad import (
    Vocabulary,
    Whitening,
    learn_centres,
    learn_whitening,
    vlad,
)
from r2d2_kapture.stages.background_io import read_ahead
from r2d2_kapture.types import Failure, FloatArray, IndexArray

VOCABULARY_NAME = "vocabulary.safetensors"
WHOLE = "whole"
VOCABULARY_IMAGES = 2000
VOCABULARY_DESCRIPTORS = 200_000
"""Greatest number of mapping images and descriptors that a vocabulary is learned
from."""
IMAGES_PER_DIMENSION = 4
"""Images required for each dimension of whitening."""


@dataclass(kw_only=True)
class Described:
    """The outcome of aggregation.

    Attributes:
        type_name: of the features.
        done, skipped: number of images aggregated by this run and before.
        failed: images that could not be aggregated.
    """

    type_name: str
    done: int = 0
    skipped: int = 0
    failed: list[Failure] = field(default_factory=list)


def describe_images(
    config: PairsConfig,
    *,
    features: LocalFeatureTables,
    mapping: Sequence[str],
    query: Sequence[str],
    output: Path,
    options: RunOptions,
    store: Store = "files",
) -> Described:
    """Write a VLAD descriptor of every image, resuming an earlier run.

    Descriptors are computed again if the local features of their image have changed;
    all of them if that changes the vocabulary, which is learned again where it was
    learned on such an image.

    Args:
        config: the vocabulary's size, whitening and seed.
        features: local features of all images.
        mapping: names of the images of which a sample teaches the vocabulary, if there
            is none yet or some of these had failed.
        query: names of further images.
        output: kapture folder for the features, the vocabulary and a manifest.
        options: how to run.
        store: layout of the descriptors.

    Raises:
        ConfigError: fewer local features than visual words.
        OutputError: the folder has features of other settings.
        FeatureFormatError: the existing vocabulary cannot be read.
    """
    keypoints_type = features.keypoints.type_name
    described = Described(type_name=f"{keypoints_type}_vlad{config.vlad_clusters}")
    every = sorted(mapping)
    learned_on = [every[i] for i in draw(len(every), VOCABULARY_IMAGES, config.seed)]
    dim = whitened_dim(config, len(every), features.descriptors.dsize)
    dsize = dim or config.vlad_clusters * features.descriptors.dsize
    manifest = make_manifest(config, features, every)
    # workers use all cores, and the order of sums is fixed
    with (
        threadpool_limits(1),
        open_global_feature_writer(
            output, described.type_name, dsize, manifest, options, store
        ) as writer,
    ):
        path = writer.folder / VOCABULARY_NAME
        names = sorted({*mapping, *query})
        states = feature_states(features, names)
        with following(writer.folder, states, older=OLDER) as changed:
            on_others = not changed.isdisjoint(learned_on)
            anew = options.force or writer.emptied or on_others
            if anew or not path.is_file() or not is_whole(path):
                learned, failed = learn_vocabulary(
                    config, features, learned_on, dim, options
                )
                data = vocabulary_to_bytes(learned, whole=not failed)
                if not path.is_file() or path.read_bytes() != data:
                    # existing descriptors belong to another vocabulary
                    writer.remove_all()
                    write_bytes_atomic(path, data)
            writer.remove(changed)
        vocabulary = read_vocabulary(path)
        todo = [n for n in names if options.force or not writer.is_complete(n)]
        described.skipped = len(names) - len(todo)
        rows = each_image(
            todo,
            lambda name: vocabulary.describe(features.read_descriptors(name)),
            options,
            described.failed,
            "describe",
        )
        for name, row in rows:
            writer.write(name, row)
            described.done += 1
    return described


def whitened_dim(config: PairsConfig, images: int, descriptor_dim: int) -> int:
    """Dimensions of whitening; 0 if there are too few images to learn it."""
    dim = min(config.vlad_dim, config.vlad_clusters * descriptor_dim)
    return dim if images >= IMAGES_PER_DIMENSION * dim else 0


def make_manifest(
    config: PairsConfig, features: LocalFeatureTables, learned_on: Sequence[str]
) -> Manifest:
    """The manifest of descriptors, with the images of the vocabulary."""
    names = "\n".join(learned_on).encode("utf-8", "surrogateescape")
    return Manifest(
        model={"name": "VLAD"},
        settings={
            "vlad_clusters": config.vlad_clusters,
            "vlad_dim": config.vlad_dim,
            "seed": config.seed,
            "keypoints_type": features.keypoints.type_name,
            "descriptors_type": features.descriptors.type_name,
            "descriptors SHA-256": feature_provenance(features.descriptors),
            "vocabulary images SHA-256": hashlib.sha256(names).hexdigest(),
        },
        versions=package_versions(),
    )


def learn_vocabulary(
    config: PairsConfig,
    features: LocalFeatureTables,
    names: Sequence[str],
    dim: int,
    options: RunOptions,
) -> tuple[Vocabulary, list[Failure]]:
    """Learn visual words, and whitening, from images.

    Returns:
        The vocabulary, and failures of images.

    Args:
        config: clusters and seed.
        features: local features of the images.
        names: of images to learn on, a sample of all.
        dim: of the whitening, for which there are images enough; 0 for none.
        options: how to run.

    Raises:
        ConfigError: fewer local features than visual words.
    """
    quota = max(VOCABULARY_DESCRIPTORS // max(len(names), 1), 1)

    def sample(name: str) -> FloatArray:
        rows = features.read_descriptors(name)
        return rows[draw(len(rows), quota, config.seed)]

    failed: list[Failure] = []
    samples = each_image(names, sample, options, failed, "sample")
    descriptors = np.concatenate(
        [np.zeros((0, features.descriptors.dsize), np.float32)]
        + [rows for _, rows in samples]
    )
    if len(descriptors) < config.vlad_clusters:
        raise ConfigError(
            f"--vlad-clusters {config.vlad_clusters}: found {len(descriptors)} local "
            f"features in {len(names)} mapping images, expected at least as many; "
            "choose fewer clusters, or extract more features"
        )
    centres = learn_centres(descriptors, config.vlad_clusters, config.seed)
    if not dim:
        return Vocabulary(centres=centres), failed
    vectors = each_image(
        names,
        lambda name: vlad(features.read_descriptors(name), centres),
        options,
        failed,
        "whiten",
    )
    stacked = np.stack([vector for _, vector in vectors if vector.any()])
    if len(stacked) < dim:
        raise ConfigError(
            f"--vlad-dim {dim}: found {len(stacked)} mapping images with keypoints, "
            "expected at least as many; choose a lower one, or 0"
        )
    whitening = learn_whitening(stacked, dim, config.seed)
    return Vocabulary(centres=centres, whitening=whitening), failed


def draw(count: int, wanted: int, seed: int) -> IndexArray:
    """Ascending indices below ``count``: all, or a random sample."""
    if count <= wanted:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, wanted, replace=False))


def each_image(
    names: Sequence[str],
    function: Callable[[str], FloatArray],
    options: RunOptions,
    failed: list[Failure],
    description: str,
) -> Iterator[tuple[str, FloatArray]]:
    """Compute a function of every image in threads, in order; collect failures."""
    results = read_ahead(names, function, options.workers)
    bar = Progress(description, "photograph", len(names), shown=options.progress)
    with bar, closing(results):
        for name, future in results:
            bar.update()
            try:
                result = future.result()
            except FeatureFormatError as error:
                failed.append(Failure(name=name, reason=str(error)))
                if options.strict:
                    return
                continue
            yield name, result


def vocabulary_to_bytes(vocabulary: Vocabulary, *, whole: bool = True) -> bytes:
    """A safetensors file of a vocabulary's arrays, float32.

    Args:
        vocabulary: to store.
        whole: whether all images of the sample could be read.
    """
    arrays = {"centres": vocabulary.centres}
    if vocabulary.whitening is not None:
        arrays["mean"] = vocabulary.whitening.mean
        arrays["components"] = vocabulary.whitening.components
    # safetensors writes raw memory, and would transpose other layouts
    rows = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return safetensors.numpy.save(rows, {WHOLE: str(whole)})


def is_whole(path: Path) -> bool:
    """Whether all images of the sample of a vocabulary could be read.

    Raises:
        FeatureFormatError: the file is not a vocabulary.
    """
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return bool((file.metadata() or {}).get(WHOLE) == str(True))
    except (SafetensorError, OSError) as error:
        raise not_a_vocabulary(path, error) from error


def read_vocabulary(path: Path) -> Vocabulary:
    """Read a file written by vocabulary_to_bytes.

    Raises:
        FeatureFormatError: it has another format.
    """
    try:
        arrays = safetensors.numpy.load_file(path)
        whitening = None
        if "components" in arrays:
            whitening = Whitening(mean=arrays["mean"], components=arrays["components"])
        return Vocabulary(centres=arrays["centres"], whitening=whitening)
    except (SafetensorError, OSError, KeyError) as error:
        raise not_a_vocabulary(path, error) from error


def not_a_vocabulary(path: Path, error: Exception) -> FeatureFormatError:
    """The error of a file with another format."""
    return FeatureFormatError(
        f"{path}: not a vocabulary of r2d2_kapture: {error}; redo with --force"
    )
