"""Every engine computes what torch computes; auto takes the fastest that is there."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from r2d2_kapture.config.extract import EngineConfig
from r2d2_kapture.core.backbone import Backbone
from r2d2_kapture.core.backbones import open_backbone
from r2d2_kapture.core.runtime import EXTRAS, Runtime, resolve_runtime
from r2d2_kapture.errors import ConfigError
from tests.core.test_graph import network
from tests.engines import OTHER_ENGINES, library
from tests.processors import as_processor, needs_bf16
from tests.scenes.networks import NAMES, torch_threads

MARGIN = 2
NETWORKS = [*NAMES, "d2net"]


def make_backbone(
    ops: nn.Sequential,
    engine: str,
    *,
    precision: str = "fp32",
    tile_pixels: int = 1 << 20,
) -> Backbone:
    runtime = Runtime(
        device=torch.device("cpu"),
        precision=precision,
        tile_pixels=tile_pixels,
        batch_size=1,
        engine=engine,
    )
    return open_backbone(ops, runtime)


def noise(batch: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randn(batch, 3, height, width, generator=generator)


def least(name: str) -> int:
    """Shortest side that a network has an output for."""
    return {"r2d2": 1, "fast_r2d2": 2, "d2net": 8}[name]


SIZES = [(40, 48), (41, 47), (1, 1), (7, 10), (9, 70), (63, 33), (64, 2)]


@pytest.mark.parametrize("engine", OTHER_ENGINES)
@pytest.mark.parametrize("name", NETWORKS)
def test_engines_compute_what_torch_does(name: str, engine: str) -> None:
    """Sizes alternate: what was made for one of them must not serve another."""
    ops = network(name).ops
    reference, other = (make_backbone(ops, each) for each in ("torch", engine))
    assert (other.halo, other.pixel_stride) == (
        reference.halo,
        reference.pixel_stride,
    )
    for batch in (1, 2):
        for sides in SIZES:
            height, width = (max(side, least(name)) for side in sides)
            images = noise(batch, height, width)
            found, expected = other(images), reference(images)
            assert found.is_contiguous() and found.dtype == torch.float32
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("engine", OTHER_ENGINES)
@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_give_the_features_of_the_whole(name: str, engine: str) -> None:
    ops = network(name).ops
    tiled = make_backbone(ops, engine, tile_pixels=1)  # 128 x 128 is the least
    image = noise(1, 261, 131)
    whole = make_backbone(ops, "torch")(image)
    stride = tiled.pixel_stride // {"d2net": 1, "fast_r2d2": 2, "r2d2": 1}[name]
    tiles = list(tiled.tiles(261, 131, MARGIN))
    assert len(tiles) > 1
    for tile in tiles:
        window = image[:, :, tile.top : tile.bottom, tile.left : tile.right]
        cells = tile.in_cells(stride, *whole.shape[1:3])
        found = tiled(window)[:, *cells.inner]
        expected = whole[:, *cells.inner_of_whole]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("engine", OTHER_ENGINES)
def test_the_same_input_gives_the_same_bytes(engine: str) -> None:
    ops = network("fast_r2d2").ops
    image = noise(1, 90, 110)
    backbone = make_backbone(ops, engine)
    first = backbone(image)
    kept = first.clone()
    backbone(noise(1, 64, 200))
    assert torch.equal(first, kept), "a pass wrote into the features of another"
    assert torch.equal(backbone(image), first)
    assert torch.equal(make_backbone(ops, engine)(image), first)


@pytest.mark.parametrize("engine", OTHER_ENGINES)
def test_results_agree_whatever_the_number_of_threads(engine: str) -> None:
    ops = network("r2d2").ops
    image = noise(1, 90, 110)
    found = []
    for count in (1, 2):
        with torch_threads(count):
            found.append(make_backbone(ops, engine)(image))
    torch.testing.assert_close(*found, rtol=0, atol=1e-4)


@pytest.mark.parametrize("engine", ["torch", *OTHER_ENGINES])
def test_threads_share_a_backbone(engine: str) -> None:
    ops = network("fast_r2d2").ops
    backbone = make_backbone(ops, engine)
    every = [noise(1, 40, 48 + i) for i in range(4)] * 6
    expected = [backbone(images) for images in every]
    with ThreadPoolExecutor(4) as pool:
        for found, alone in zip(pool.map(backbone, every), expected):
            torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)


@needs_bf16
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "engine", [each for each in OTHER_ENGINES if each.values != ("onnxruntime",)]
)
def test_bfloat16_is_that_of_torch_but_for_rounding(name: str, engine: str) -> None:
    """Narrow images, on which the processor's library crashes, are float32."""
    ops = network(name).ops
    exact = make_backbone(ops, "torch")
    other = make_backbone(ops, engine, precision="bf16")
    images = noise(1, 64, 80)
    found, expected = other(images), exact(images)
    assert found.dtype == torch.bfloat16 and found.is_contiguous()
    assert (found - expected).abs().mean() < 0.02 * expected.abs().mean()
    for sides in ((1, 1), (10, 7), (20, 300)):
        narrow = noise(1, *(max(side, least(name)) for side in sides))
        torch.testing.assert_close(other(narrow), exact(narrow), rtol=0, atol=1e-4)


def test_onnxruntime_computes_without_its_telemetry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[bool] = []
    runtime = library("onnxruntime")
    off = "disable_telemetry_events"
    monkeypatch.setattr(runtime, off, lambda: calls.append(True), raising=False)
    make_backbone(network("r2d2").ops, "onnxruntime")
    assert calls
    monkeypatch.delattr(runtime, off)
    make_backbone(network("r2d2").ops, "onnxruntime")


def absent(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize("engine", EXTRAS)
@pytest.mark.parametrize("library", ["onnx", "the engine"])
def test_an_engine_that_is_not_installed_is_refused(
    monkeypatch: pytest.MonkeyPatch, engine: str, library: str
) -> None:
    module = engine if library == "the engine" else library
    monkeypatch.setitem(sys.modules, "onnx", sys)  # whether installed or not
    absent(monkeypatch, module)
    with pytest.raises(ConfigError) as refused:
        resolve_runtime(EngineConfig(gpu=-1, engine=engine))  # type: ignore[arg-type]
    assert str(refused.value) == (
        f"--engine {engine}: needs the package {module}, which is not installed; "
        f"pip install 'r2d2-kapture[{EXTRAS[engine]}]'"
    )


@pytest.mark.parametrize(
    "installed, expected",
    [
        (("onnx", "onnxruntime", "openvino"), "onnxruntime"),
        (("onnx", "openvino"), "openvino"),
        (("onnx",), "torch"),
        (("onnxruntime", "openvino"), "torch"),  # nothing to write their model with
    ],
)
def test_auto_takes_the_fastest_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], expected: str
) -> None:
    as_processor(monkeypatch, "AVX2")
    for module in ("onnx", "onnxruntime", "openvino"):
        there = sys if module in installed else None
        monkeypatch.setitem(sys.modules, module, there)
    runtime = resolve_runtime(EngineConfig(gpu=-1))
    assert (runtime.engine, runtime.precision) == (expected, "fp32")
    assert resolve_runtime(EngineConfig(gpu=-1, engine="torch")).engine == "torch"
    # in bfloat16 none is faster than torch
    as_processor(monkeypatch, "AVX512_BF16")
    runtime = resolve_runtime(EngineConfig(gpu=-1))
    assert (runtime.engine, runtime.precision) == ("torch", "bf16")
    exact = resolve_runtime(EngineConfig(gpu=-1, precision="fp32"))
    assert exact.engine == expected


def test_engines_name_their_versions() -> None:
    runtime = resolve_runtime(EngineConfig(gpu=-1, engine="torch"))
    assert runtime.engine_version == f"torch {torch.__version__}"


@pytest.mark.parametrize("engine", OTHER_ENGINES)
def test_a_gpu_has_torch_alone(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    config = EngineConfig(gpu=0, engine=engine)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"--engine {engine}: found --gpu 0, expect"):
        resolve_runtime(config)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    runtime = resolve_runtime(EngineConfig(engine=engine))  # type: ignore[arg-type]
    assert (runtime.device.type, runtime.engine) == ("cpu", engine)


def test_onnxruntime_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, module, sys)
    as_processor(monkeypatch, "AVX512_BF16")
    runtime = resolve_runtime(EngineConfig(gpu=-1, engine="onnxruntime"))
    assert runtime.precision == "fp32"
    with pytest.raises(ConfigError, match="--engine onnxruntime: found --precision"):
        resolve_runtime(EngineConfig(gpu=-1, engine="onnxruntime", precision="bf16"))


def test_openvino_sends_nothing_of_its_use() -> None:
    pytest.importorskip("onnx", reason="needs the extra openvino")
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("needs the extra openvino")
    script = (
        "import sys\n"
        "from r2d2_kapture.core.runtime import import_engine\n"
        "import_engine('openvino').Core()\n"
        "import openvino.tools.ovc\n"
        "sys.exit('openvino_telemetry' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
