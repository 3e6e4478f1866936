"""The engine computes what the network computes, whole or in tiles."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r2d2_kapture.config.extract import EngineConfig, Precision
from r2d2_kapture.core import processor
from r2d2_kapture.core.engine import Engine, FeatureMaps
from r2d2_kapture.core.processor import GAINS, this_processor
from r2d2_kapture.core.runtime import Runtime, resolve_runtime
from r2d2_kapture.core.torch_backbone import TorchBackbone
from r2d2_kapture.errors import ConfigError
from tests.processors import PROCESSORS, as_processor, needs_bf16
from tests.scenes.networks import NAMES, random_network

MARGIN = 2
ON_THE_CPU = EngineConfig(gpu=-1, precision="fp32")
needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device"
)


def make_engine(
    name: str,
    *,
    precision: str = "fp32",
    tile_pixels: int = 1 << 30,
    device: str = "cpu",
) -> Engine:
    runtime = Runtime(
        device=torch.device(device),
        precision=precision,
        tile_pixels=tile_pixels,
        batch_size=1,
    )
    return Engine(random_network(name), runtime)


def noise(batch: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, height, width, generator=generator)


def of_pixels(maps: FeatureMaps) -> list[Tensor]:
    """Features, (B, H, W, D), reliability and repeatability of every pixel."""
    features = maps.features
    if maps.doubled:
        planes = features.float().permute(0, 3, 1, 2)
        doubled = F.interpolate(planes, scale_factor=2, mode="bilinear")
        features = doubled.permute(0, 2, 3, 1)
    return [features, maps.reliability, maps.repeatability]


def worst_cosine(found: Tensor, expected: Tensor) -> float:
    return float(F.cosine_similarity(found.float(), expected.float(), dim=-1).min())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(40, 48), (41, 47), (2, 3), (64, 2)])
def test_folded_network_equals_the_plain_one(name: str, size: tuple[int, int]) -> None:
    image = noise(2, *size)
    expected = random_network(name)(image)
    maps = make_engine(name)(image)
    torch.testing.assert_close(
        maps.reliability, expected.reliability[:, 0], rtol=0, atol=1e-4
    )
    torch.testing.assert_close(
        maps.repeatability, expected.repeatability[:, 0], rtol=0, atol=1e-4
    )
    descriptors = F.normalize(of_pixels(maps)[0], dim=-1).permute(0, 3, 1, 2)
    torch.testing.assert_close(descriptors, expected.descriptors, rtol=0, atol=1e-4)


def test_batch_norms_with_weights_of_their_own_are_folded() -> None:
    norm = nn.BatchNorm2d(5)
    generator = torch.Generator().manual_seed(0)
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        assert values is not None
        values.data = torch.rand(5, generator=generator) + 0.5
    ops = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), norm, nn.ReLU(), nn.MaxPool2d(2))
    ops.eval().requires_grad_(False)
    image = noise(1, 8, 10)
    found = TorchBackbone(ops, resolve_runtime(ON_THE_CPU))(image)
    torch.testing.assert_close(found.permute(0, 3, 1, 2), ops(image), rtol=0, atol=1e-5)


def test_the_network_is_not_modified() -> None:
    network = random_network("fast_r2d2")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    image = noise(1, 32, 32)
    copy = image.clone()
    Engine(network, resolve_runtime(EngineConfig(gpu=-1)))(image)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(image, copy)


@needs_bf16
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_close_to_float32(name: str) -> None:
    image = noise(1, 64, 80)
    exact = make_engine(name)(image)
    maps = make_engine(name, precision="bf16")(image)
    assert maps.features.dtype == torch.bfloat16
    assert maps.reliability.dtype == maps.repeatability.dtype == torch.float32
    assert worst_cosine(maps.features, exact.features) > 0.995
    for found, expected in (
        (maps.reliability, exact.reliability),
        (maps.repeatability, exact.repeatability),
    ):
        assert float((found - expected).abs().mean()) < 0.01


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "size",
    [(200, 210), (201, 211), (100, 260), (261, 99), (129, 129), (90, 183)],
)
def test_tiles_give_the_maps_of_the_whole_level(
    name: str, size: tuple[int, int]
) -> None:
    image = noise(1, *size)
    whole = of_pixels(make_engine(name)(image))
    covered = torch.zeros_like(whole[1], dtype=torch.bool)
    engine = make_engine(name, tile_pixels=128 * 128)
    for tile in engine.tiles(*size, MARGIN):
        part = engine(image[:, :, tile.top : tile.bottom, tile.left : tile.right])
        # everything within the margin must be right, not the inner part alone
        top, left = max(tile.inner_top - MARGIN, 0), max(tile.inner_left - MARGIN, 0)
        bottom, right = tile.inner_bottom + MARGIN, tile.inner_right + MARGIN
        for expected, found in zip(whole, of_pixels(part)):
            rows = slice(top, min(bottom, expected.shape[1]))
            columns = slice(left, min(right, expected.shape[2]))
            window = found[
                :,
                rows.start - tile.top : rows.stop - tile.top,
                columns.start - tile.left : columns.stop - tile.left,
            ]
            torch.testing.assert_close(
                window, expected[:, rows, columns], rtol=0, atol=1e-4
            )
        covered[:, rows, columns] = True
    assert covered.all()


SIZES = [1, 2, 33, 100, 127, 128, 129, 200, 333, 1001, 1500, 4000, 20001]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tile_pixels", [128 * 128, 20_000, 65_536, 100_003, 1 << 20])
def test_tiles_cover_each_pixel_once_within_the_limit(
    name: str, tile_pixels: int
) -> None:
    engine = make_engine(name, tile_pixels=tile_pixels)
    for height in SIZES:
        for width in SIZES:
            tiles = list(engine.backbone.tiles(height, width, MARGIN))
            if height * width <= tile_pixels:
                assert len(tiles) == 1
            tops = sorted({(tile.inner_top, tile.inner_bottom) for tile in tiles})
            lefts = sorted({(tile.inner_left, tile.inner_right) for tile in tiles})
            assert len(tiles) == len(tops) * len(lefts)
            for spans, length in ((tops, height), (lefts, width)):
                assert spans[0][0] == 0 and spans[-1][1] == length
                for (_, end), (start, _) in zip(spans, spans[1:]):
                    assert end == start
            for tile in tiles:
                rows, columns = tile.bottom - tile.top, tile.right - tile.left
                assert rows * columns <= tile_pixels
                assert tile.top % engine.backbone.pixel_stride == 0
                assert tile.left % engine.backbone.pixel_stride == 0
                for reach, border in (
                    (tile.inner_top - tile.top, tile.top == 0),
                    (tile.inner_left - tile.left, tile.left == 0),
                    (tile.bottom - tile.inner_bottom, tile.bottom == height),
                    (tile.right - tile.inner_right, tile.right == width),
                ):
                    assert border or reach >= engine.backbone.halo + MARGIN


def test_tiles_smaller_than_their_overlap_still_advance() -> None:
    engine = make_engine("fast_r2d2", tile_pixels=16)
    tiles = list(engine.backbone.tiles(9, 11, MARGIN))
    areas = [
        (tile.inner_bottom - tile.inner_top) * (tile.inner_right - tile.inner_left)
        for tile in tiles
    ]
    assert sum(areas) == 9 * 11
    assert min(areas) > 0


def test_runtime_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    as_processor(monkeypatch, "AVX512_BF16")
    runtime = resolve_runtime(
        EngineConfig(gpu=-1, precision="bf16", tile_pixels=20_000, batch_size=8)
    )
    assert runtime.device == torch.device("cpu")
    assert runtime.dtype == torch.bfloat16
    assert runtime.tile_pixels == 20_000
    assert runtime.batch_size == 1  # images go one by one on a CPU


@pytest.mark.parametrize(
    "name, precision, tile_pixels",
    [
        ("AVX512_BF16", "bf16", 1 << 20),
        ("AVX512", "fp32", 1 << 19),  # converts to and fro: runs, and is slower
        ("AVX2", "fp32", 1 << 19),
    ],
)
def test_automatic_precision_follows_the_processor(
    monkeypatch: pytest.MonkeyPatch, name: str, precision: str, tile_pixels: int
) -> None:
    as_processor(monkeypatch, name)
    runtime = resolve_runtime(EngineConfig(gpu=-1))
    assert (runtime.precision, runtime.tile_pixels) == (precision, tile_pixels)


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_precision_asked_for_is_taken_or_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, precision: Precision
) -> None:
    as_processor(monkeypatch, name)
    config = EngineConfig(gpu=-1, precision=precision)
    if precision == "fp32" or PROCESSORS[name].runs_bf16:
        assert resolve_runtime(config).precision == precision
    else:
        with pytest.raises(
            ConfigError, match=f"--precision bf16: .* found {name}.*fp32"
        ):
            resolve_runtime(config)


@pytest.mark.parametrize(
    "name", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"]
)
def test_instructions_for_bfloat16_are_what_decides(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for other in GAINS:
        monkeypatch.setattr(torch.cpu, other, lambda: False, raising=False)
    assert not this_processor().has_bf16
    monkeypatch.setattr(torch.cpu, name, lambda: True, raising=False)
    for runs in (True, False):  # as under ONEDNN_MAX_CPU_ISA=AVX2
        monkeypatch.setattr(processor, "_bf16_convolution_runs", lambda: runs)
        assert this_processor().has_bf16 == this_processor().runs_bf16 == runs


def test_what_is_reported_of_this_processor_holds() -> None:
    """A processor that is said to run bfloat16 does; one that prefers it runs it."""
    cpu = this_processor()
    assert cpu.runs_bf16 or not cpu.has_bf16
    engine = make_engine("fast_r2d2", precision="bf16")
    if cpu.runs_bf16:
        assert engine(noise(1, 40, 48)).features.dtype == torch.bfloat16
    else:
        with pytest.raises(RuntimeError, match="bf16"):
            engine(noise(1, 40, 48))


def test_without_a_gpu_the_cpu_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--gpu 99: found"):
        resolve_runtime(EngineConfig(gpu=99))
    with pytest.raises(ConfigError, match="--precision fp16"):
        resolve_runtime(EngineConfig(gpu=-1, precision="fp16"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_runtime(EngineConfig()).device.type == "cpu"
    with pytest.raises(ConfigError, match="--gpu 0: found 0 CUDA devices"):
        resolve_runtime(EngineConfig(gpu=0))


@needs_cuda
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_cuda_is_close_to_the_cpu(name: str, precision: str) -> None:
    image = noise(1, 96, 129)
    expected = make_engine(name)(image)
    maps = make_engine(name, precision=precision, device="cuda")(image.cuda())
    assert maps.features.is_cuda
    assert worst_cosine(maps.features.cpu(), expected.features) > 0.995
    tolerance = 0.005 if precision == "fp32" else 0.1  # TF32 counts as fp32
    torch.testing.assert_close(
        maps.reliability.cpu(), expected.reliability, rtol=0, atol=tolerance
    )
    torch.testing.assert_close(
        maps.repeatability.cpu(), expected.repeatability, rtol=0, atol=tolerance
    )


@needs_cuda
def test_runtime_on_cuda() -> None:
    runtime = resolve_runtime(EngineConfig(batch_size=3))
    assert runtime.device.type == "cuda"
    assert runtime.batch_size == 3
    assert runtime.tile_pixels >= 1 << 20


@needs_bf16
@pytest.mark.parametrize(
    "shape", [(7, 10), (9, 9), (20, 300), (5, 200), (1, 1), (2, 3)]
)
@pytest.mark.parametrize("name", NAMES)
def test_bf16_survives_sizes_below_the_dilation(
    name: str, shape: tuple[int, int]
) -> None:
    network = random_network(name, width=4, descriptor_dim=128)
    images = torch.randn(1, 3, *(max(side, network.pixel_stride) for side in shape))
    maps = {
        precision: Engine(
            network, resolve_runtime(EngineConfig(gpu=-1, precision=precision))
        )(images)
        for precision in ("bf16", "fp32")
    }
    torch.testing.assert_close(maps["bf16"].reliability, maps["fp32"].reliability)
