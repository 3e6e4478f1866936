"""The door for extractors: all of them by one contract, and those of other packages."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import torch

import r2d2_kapture as rk
from r2d2_kapture.cli.colmap import main as colmap
from r2d2_kapture.cli.extract_images import main as extract_images
from r2d2_kapture.cli.hpatches import main as hpatches
from r2d2_kapture.cli.view import main as view
from r2d2_kapture.config import plugins
from r2d2_kapture.config.extract import EXTRACTORS, ExtractConfig, SiftConfig
from r2d2_kapture.config.settings import make_settings
from r2d2_kapture.core.extraction import Extractor, Image, Mask
from r2d2_kapture.core.streaming import Loaded, stream
from r2d2_kapture.errors import CheckpointError, ConfigError, FeatureFormatError
from r2d2_kapture.extractors.registry import build_extractor, load_weights
from r2d2_kapture.types import LocalFeatures
from tests.commands import one_error_line
from tests.scenes.images import textured_image
from tests.scenes.networks import random_d2net, save_d2net

FEW = {"r2d2": "top_k"}
"""Names of the limit of keypoints, where it is not max_keypoints."""
ANY_MAXIMUM = {"r2d2": {"reliability_thr": 0, "repeatability_thr": 0, "min_size": 32}}


@pytest.fixture(scope="session")
def weights_of(
    tmp_path_factory: pytest.TempPathFactory, checkpoint_path: Path
) -> dict[str, Path | None]:
    """Random weights of every extractor, by its name."""
    folder = tmp_path_factory.mktemp("extractors")
    d2net = save_d2net(folder / "d2.pth", random_d2net())
    paths: dict[str, Path | None] = {"r2d2": checkpoint_path, "d2net": d2net}
    paths["sift"] = None
    try:
        import kornia.feature
    except ImportError:
        return paths
    for name, network in (
        ("aliked", kornia.feature.ALIKED("aliked-t16")),
        ("disk", kornia.feature.DISK()),
    ):
        torch.manual_seed(0)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        paths[name] = folder / f"{name}.pth"
        torch.save(network.state_dict(), paths[name])
    return paths


@pytest.fixture(params=EXTRACTORS.places)
def name(request: pytest.FixtureRequest, weights_of: dict[str, Path | None]) -> str:
    if request.param not in weights_of:
        pytest.skip("needs kornia")
    return str(request.param)


@pytest.fixture
def make(name: str, weights_of: dict[str, Path | None]) -> Any:
    def extractor(**settings: Any) -> Extractor:
        values = ANY_MAXIMUM.get(name, {}) | settings
        config = make_settings(
            ExtractConfig, {"extractor": name, "gpu": -1, "precision": "fp32"} | values
        )
        return build_extractor(config, load_weights(name, weights_of[name])[1])

    return extractor


def test_features_are_the_best_first_and_as_described(make: Any, name: str) -> None:
    extractor = make()
    features = extractor(textured_image(90, 130))
    assert extractor.name == name
    assert len(features) > 20
    assert features.image_size == (130, 90)
    assert (np.diff(features.scores) <= 0).all()
    assert (features.keypoints >= -0.5).all()
    assert (features.keypoints <= (129.5, 89.5)).all()
    assert features.descriptors.shape[1] == extractor.descriptor_dim
    assert features.descriptors.dtype.name == extractor.descriptor_type
    norms = np.linalg.norm(features.unit_descriptors, axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-3)
    fewer = make(**{FEW.get(name, "max_keypoints"): 7})(textured_image(90, 130))
    for field in ("keypoints", "scores", "descriptors"):
        np.testing.assert_array_equal(
            getattr(fewer, field), getattr(features, field)[:7]
        )


def test_masks_apply_before_the_best_are_chosen(make: Any, name: str) -> None:
    image = textured_image(90, 130)
    mask = np.ones((90, 130), bool)
    mask[:, :70] = False
    every = make()(image, mask)
    assert len(every) > 7 and (every.keypoints[:, 0] >= 69.5).all()
    few = make(**{FEW.get(name, "max_keypoints"): 5})(image, mask)
    np.testing.assert_array_equal(few.keypoints, every.keypoints[:5])


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (17, 3)])
def test_tiny_images_have_few_or_no_features(make: Any, size: tuple[int, int]) -> None:
    features = make()(textured_image(*size))
    assert features.image_size == size[::-1]


def test_the_same_features_in_a_stream_and_alone(make: Any) -> None:
    sizes = [(60, 70), (60, 70), (50, 70), (60, 70)]
    images = [textured_image(*size, seed=i) for i, size in enumerate(sizes)]
    loaded = [Loaded(name=str(i), image=im, mask=None) for i, im in enumerate(images)]
    extractor = make()
    found = list(stream(extractor, loaded))
    assert [name for name, _ in found] == ["0", "1", "2", "3"]
    for (_, features), image in zip(found, images):
        assert isinstance(features, LocalFeatures)
        np.testing.assert_array_equal(
            features.descriptors, extractor(image).descriptors
        )


class Greedy(Extractor):
    """Needs memory for 100 pixels an image; a batch shares 250."""

    settings_class = SiftConfig
    needs = "none"
    descriptor_dim = 1

    def __call__(self, image: Image, mask: Mask | None = None) -> LocalFeatures:
        if image[..., 0].size > 100:
            raise MemoryError("no room")
        xy = np.array([[0.0, image[0, 0, 0]]], np.float32)
        one = np.ones(1, np.float32)
        return LocalFeatures(
            keypoints=xy,
            scales=one,
            scores=one,
            descriptors=one[:, None],
            image_size=(image.shape[1], image.shape[0]),
        )

    def extract_uploaded(self, upload: Any) -> list[LocalFeatures]:
        if sum(image[..., 0].size for image, _ in upload) > 250:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return super().extract_uploaded(upload)


def test_a_batch_too_large_for_memory_is_extracted_one_by_one(make: Any) -> None:
    runtime = dataclasses.replace(make().runtime, batch_size=4)

    def images() -> Iterator[Loaded]:
        for number, side in enumerate([10, 10, 10, 10, 11, 9]):
            pixels = np.full((side, side, 3), number, np.uint8)
            yield Loaded(name=str(number), image=pixels, mask=None)

    found = dict(stream(Greedy(SiftConfig(), None, runtime), images()))
    assert isinstance(found["4"], MemoryError)
    assert str(found.pop("4")) == "too large for memory: no room"
    assert [int(features.keypoints[0, 1]) for features in found.values()] == [
        *(0, 1, 2, 3, 5)
    ]


def test_an_error_that_is_none_of_memory_is_raised(make: Any) -> None:
    extractor = Greedy(SiftConfig(), None, make().runtime)
    extractor.extract_uploaded = lambda upload: 1 / 0  # type: ignore[assignment]
    image = Loaded(name="a", image=np.zeros((4, 4, 3), np.uint8), mask=None)
    with pytest.raises(ZeroDivisionError):
        list(stream(extractor, [image]))


@pytest.mark.parametrize(
    "changed, message",
    [
        (
            {"descriptors": np.ones((1, 2), np.float32)},
            "found descriptors of 2 float32, expected 1 f",
        ),
        (
            {"descriptors": np.ones((1, 1), np.uint8)},
            "descriptors of 1 uint8, expected 1 float32",
        ),
        ({"descriptors": np.full((1, 1), np.nan, np.float32)}, "descriptors that are"),
        ({"scores": np.full(1, np.inf, np.float32)}, "found scores that are not fini"),
        ({"scales": np.ones(2, np.float32)}, "scales: found float32 (2,), expected"),
        (None, "found NoneType, expected LocalFeatures"),
    ],
)
def test_features_that_an_extractor_does_not_state_are_refused(
    make: Any, changed: dict[str, Any] | None, message: str
) -> None:
    class Careless(Greedy):
        def __call__(self, image: Image, mask: Mask | None = None) -> Any:
            made = super().__call__(image, mask)
            return None if changed is None else dataclasses.replace(made, **changed)

    images = [Loaded(name="a b.jpg", image=np.zeros((4, 4, 3), np.uint8), mask=None)]
    runtime = make().runtime
    assert len(list(stream(Greedy(SiftConfig(), None, runtime), images))) == 1
    with pytest.raises(FeatureFormatError, match=re.escape(message)) as caught:
        list(stream(Careless(SiftConfig(), None, runtime), images))
    assert str(caught.value).startswith("a b.jpg: --extractor sift: ")


@pytest.mark.parametrize(
    "values, message",
    [
        ({"top_k": 5}, "top_k: found for sift, expected only for r2d2"),
        ({"relu": True}, "relu: found for sift, expected only for d2net"),
        ({"rootsift": True}, "rootsift: no such setting"),
        ({"max_keypoints": -1}, "--max-keypoints: found -1, expected 0"),
        ({"max_keypoints": "many"}, "expected a whole number"),
        ({"root": "no"}, "root='no': expected true or false"),
    ],
)
def test_settings_of_another_extractor_are_refused_from_python(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make_settings(ExtractConfig, {"extractor": "sift", **values})
    assert "\n" not in str(caught.value)


def test_weights_where_there_are_none_and_none_where_there_must_be(
    checkpoint_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="which has no weights; remove it"):
        load_weights("sift", checkpoint_path)
    assert load_weights("sift") == ("sift", None)
    pytest.importorskip("kornia")
    with pytest.raises(ConfigError, match="--extractor aliked: found no --model"):
        load_weights("aliked")
    with pytest.raises(CheckpointError, match="gone.pth: found no such file"):
        load_weights("aliked", tmp_path / "gone.pth")


def test_a_precision_that_an_extractor_does_not_have_is_refused() -> None:
    config = ExtractConfig(extractor=SiftConfig(), precision="bf16", gpu=-1)
    with pytest.raises(ConfigError, match="--precision bf16: .* sift, expected fp32"):
        build_extractor(config)
    automatic = build_extractor(dataclasses.replace(config, precision="auto"))
    assert automatic.runtime.precision == "fp32"  # on every processor


@dataclasses.dataclass(frozen=True, kw_only=True)
class CornersConfig:
    extractor: ClassVar[str] = "corners"
    count: int = 4


class Corners(Extractor):
    """The corners of an image, whatever it shows."""

    settings_class = CornersConfig
    needs = "none"
    descriptor_dim = 3
    descriptor_type = "float16"

    def __call__(self, image: Image, mask: Mask | None = None) -> LocalFeatures:
        height, width = image.shape[:2]
        xy = [(x, y) for y in (0, height - 1) for x in (0, width - 1)]
        xy = xy[: self.settings.count]
        pixels: npt.NDArray[Any] = np.array([image[y, x] for x, y in xy], np.float16)
        pixels /= np.linalg.norm(pixels.astype(np.float32), axis=1)[:, None]
        return LocalFeatures(
            keypoints=np.array(xy, np.float32),
            scales=np.full(len(xy), 8, np.float32),
            scores=np.ones(len(xy), np.float32),
            descriptors=pixels,
            image_size=(width, height),
        )


@pytest.fixture
def corners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package that registers an extractor, and one that cannot be used."""
    found = [
        EntryPoint("corners", f"{__name__}:Corners", EXTRACTORS.group),
        EntryPoint("broken", "no_such_package:Extractor", EXTRACTORS.group),
    ]
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: EntryPoints(found).select(group=group)
    )


@pytest.mark.usefixtures("corners")
def test_an_extractor_of_another_package() -> None:
    assert list(EXTRACTORS.settings())[-1] == "corners"  # the broken one does no harm
    values = {"extractor": "corners", "count": 3, "gpu": -1}
    name, weights = load_weights("corners")
    extractor = build_extractor(make_settings(ExtractConfig, values), weights)
    assert (extractor.name, extractor.label, extractor.provenance) == (
        *("corners", "corners"),
        {"count": 3},
    )
    features = extractor(textured_image(20, 30))
    assert features.keypoints.tolist() == [[0, 0], [29, 0], [0, 19]]
    with pytest.raises(ConfigError, match="--extractor broken: no_such_package:Ext"):
        load_weights("broken")
    with pytest.raises(ConfigError, match="top_k: found for corners"):
        make_settings(ExtractConfig, values | {"top_k": 3})


DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "extraction.md"


@pytest.fixture
def documented(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The package that the documentation writes, installed as it says; its folder."""
    section = DOCUMENT.read_text("utf-8").partition("## Write your own extractor")[2]
    code = section.partition("    # blobs.py\n")[2].partition("\nRegister it")[0]
    entry = re.search(r'entry-points."(.*)"\]\n    (blobs = .*)', section)
    assert entry is not None
    site = tmp_path / "site"
    (site / "blobs-1.dist-info").mkdir(parents=True)
    (site / "blobs.py").write_text(textwrap.dedent(code))
    metadata = {"METADATA": "Metadata-Version: 2.1\nName: blobs\nVersion: 1\n"}
    metadata["entry_points.txt"] = f"[{entry[1]}]\n{entry[2].replace(chr(34), '')}\n"
    for file, text in metadata.items():
        (site / "blobs-1.dist-info" / file).write_text(text)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "blobs", raising=False)
    return site


@pytest.mark.usefixtures("documented")
def test_the_documented_extractor_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    texture = textured_image(90, 150)
    for name, left in (("a.png", 0), ("b.png", 20)):
        PIL.Image.fromarray(texture[:, left : left + 130]).save(folder / name)
    pair = [str(folder / name) for name in ("a.png", "b.png")]
    command = [*pair, "--output-dir", str(tmp_path), "--extractor", "blobs"]
    assert view([*command, "--blobs-count", "100"]) == 0
    (found,) = tmp_path.glob("*.matches.json")
    assert json.loads(found.read_text())["inliers"] > 20
    with pytest.raises(SystemExit):
        view(["--help", "blobs"])
    help_text = capsys.readouterr().out
    assert "--blobs-count N" in help_text and "keypoints per image" in help_text
    extractor = rk.load_extractor(extractor="blobs", count=7, device="cpu")
    assert len(extractor(pair[0])) == 7


def test_features_of_changed_code_of_others_are_not_reused(
    documented: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "photos", tmp_path / "features"
    folder.mkdir()
    PIL.Image.fromarray(textured_image(60, 60)).save(folder / "a.png")
    command = ["--images", str(folder), "--output-dir", str(output)]
    command += ["--extractor", "blobs"]
    assert extract_images(command) == extract_images(command) == 0
    module, metadata = documented / "blobs.py", documented / "blobs-1.dist-info"
    old = hashlib.sha256(module.read_bytes()).hexdigest()[:12]
    module.write_text(module.read_text().replace("(grey, 2)", "(grey, 3)"))
    new = hashlib.sha256(module.read_bytes()).hexdigest()[:12]
    capsys.readouterr()
    assert extract_images(command) == 2
    changed = f"with extractor code: blobs 1 ({old}), not blobs 1 ({new});"
    assert changed in one_error_line(capsys)
    assert extract_images([*command, "--force"]) == extract_images(command) == 0
    text = (metadata / "METADATA").read_text()
    (metadata / "METADATA").write_text(text.replace("Version: 1\n", "Version: 2\n"))
    capsys.readouterr()
    assert extract_images(command) == 2
    assert f"blobs 1 ({new}), not blobs 2 ({new});" in one_error_line(capsys)


@pytest.mark.parametrize(
    "command, flags",
    [
        (colmap, ["--images", "--database", "colmap.db"]),
        (hpatches, ["--root", "--output", "results"]),
    ],
)
def test_work_and_results_of_changed_code_of_others_are_not_reused(
    documented: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: Callable[[list[str]], int],
    flags: list[str],
) -> None:
    sequence, texture = tmp_path / "root" / "i_one", textured_image(90, 150)
    sequence.mkdir(parents=True)
    for number, left in (("1", 0), ("2", 20)):
        picture = PIL.Image.fromarray(texture[:, left : left + 130])
        picture.save(sequence / f"{number}.png")
    (sequence / "H_1_2").write_text("1 0 -20\n0 1 0\n0 0 1\n")
    source, output, place = flags
    typed = [source, str(tmp_path / "root"), output, str(tmp_path / place)]
    typed += ["--extractor", "blobs", "--quiet"]
    assert command(typed) == command(typed) == 0
    with (documented / "blobs.py").open("a") as module:
        module.write("CHANGED = True\n")
    capsys.readouterr()
    assert command(typed) == 2
    assert "made with extractor code: blobs 1 (" in one_error_line(capsys)


@pytest.mark.parametrize(
    "defect, whose",
    [
        ('{}["grey"]', "blobs, not of r2d2_kapture or your input: KeyError: 'grey'"),
        ("np.stack([])", "blobs, not of r2d2_kapture or your input: ValueError: need"),
        (
            "__import__('r2d2_kapture').types.counted('many', 1)",
            "r2d2_kapture, not of your input: AttributeError: ",
        ),
    ],
)
def test_a_defect_names_the_package_whose_code_raised(
    documented: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    defect: str,
    whose: str,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    module = documented / "blobs.py"
    module.write_text(module.read_text().replace("image.mean(axis=2)", defect))
    (tmp_path / "photos").mkdir()
    PIL.Image.fromarray(textured_image(60, 60)).save(tmp_path / "photos" / "a.png")
    command = ["--images", str(tmp_path / "photos"), "--extractor", "blobs"]
    assert extract_images([*command, "--output-dir", str(tmp_path / "features")]) == 70
    assert f"error: this is a defect of {whose}" in one_error_line(capsys)
