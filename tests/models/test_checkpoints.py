"""Checkpoints load exactly or fail with one line, and never run code."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.models import files
from r2d2_kapture.models.checkpoints import load_checkpoint, serialize_checkpoint
from r2d2_kapture.models.files import bundled_models, resolve_model
from r2d2_kapture.models.network import DenseNetwork
from r2d2_kapture.models.registry import Architecture, parse_published_name
from tests.scenes.networks import (
    NAMES,
    load_error,
    published_tensors,
    random_network,
    save_published,
)
from tests.scenes.pickles import Call

NET = "Quad_L2Net_ConfCFS(mchan=1, dim=16)"
TINY = Architecture(name="r2d2", width=1, descriptor_dim=16)


@pytest.fixture(scope="module")
def network() -> DenseNetwork:
    return random_network("r2d2")


@pytest.fixture
def tensors(network: DenseNetwork) -> dict[str, Tensor]:
    return published_tensors(network)


def assert_same_outputs(found: DenseNetwork, expected: DenseNetwork) -> None:
    image = torch.randn(1, 3, 24, 30, generator=torch.Generator().manual_seed(1))
    for a, b in zip(found(image), expected(image)):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.shared
@pytest.mark.parametrize(
    "name, architecture",
    [
        ("r2d2_WASF_N16", Architecture(name="r2d2")),
        ("r2d2_WAF_N16", Architecture(name="r2d2")),
        ("r2d2_WASF_N8_big", Architecture(name="r2d2", width=6)),
        ("faster2d2_WASF_N16", Architecture(name="fast_r2d2")),
    ],
)
def test_published_files_load(
    shared: Path, name: str, architecture: Architecture
) -> None:
    path = shared / "data" / "weights" / f"{name}.pt"
    found = load_checkpoint(path)
    assert found.name == name
    assert found.path == path
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.architecture == architecture
    assert not found.network.training
    parameters = list(found.network.state_dict().values())
    assert all(parameter.device.type == "cpu" for parameter in parameters)
    assert not any(p.requires_grad for p in found.network.parameters())


@pytest.mark.parametrize("zip_format", [True, False])
def test_published_layout_with_a_defaultdict_and_module_prefix(
    tmp_path: Path, network: DenseNetwork, tensors: dict[str, Tensor], zip_format: bool
) -> None:
    history = collections.defaultdict(list)
    history["loss"].append(0.5)
    state: dict[str, Any] = collections.defaultdict(list)
    state.update({f"module.{key}": value for key, value in tensors.items()})
    path = save_published(
        tmp_path / "a.pt", state, NET, zip_format=zip_format, train_history=history
    )
    found = load_checkpoint(path)
    assert found.architecture == TINY
    assert_same_outputs(found.network, network)


def test_batch_counters_may_be_absent(
    tmp_path: Path, network: DenseNetwork, tensors: dict[str, Tensor]
) -> None:
    state = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    assert len(state) < len(tensors)
    found = load_checkpoint(save_published(tmp_path / "a.pt", state, NET))
    assert_same_outputs(found.network, network)


@pytest.mark.parametrize("name", NAMES)
def test_own_format_round_trip(tmp_path: Path, name: str) -> None:
    network = random_network(name, width=2, descriptor_dim=8)
    architecture = Architecture(name=name, width=2, descriptor_dim=8)
    data = serialize_checkpoint(
        network, architecture, training={"steps": 3}, license_name="CC-BY-4.0"
    )
    path = tmp_path / "my.model.safetensors"
    path.write_bytes(data)
    found = load_checkpoint(str(path))
    assert found.name == "my.model"
    assert found.architecture == architecture
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert json.loads(found.metadata["training"]) == {"steps": 3}
    assert found.metadata["license"] == "CC-BY-4.0"
    assert_same_outputs(found.network, network)


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_training_that_json_cannot_hold_is_refused(number: float) -> None:
    architecture = Architecture(name="r2d2", width=1, descriptor_dim=8)
    network = random_network("r2d2", width=1, descriptor_dim=8)
    with pytest.raises(ValueError, match="JSON"):
        serialize_checkpoint(
            network, architecture, training={"steps": number}, license_name="CC0"
        )


def test_half_precision_files_give_float32_networks(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    halves = {
        key: value.half() if value.is_floating_point() else value
        for key, value in tensors.items()
    }
    found = load_checkpoint(save_published(tmp_path / "a.pt", halves, NET))
    for name, value in found.network.state_dict().items():
        assert torch.equal(value, halves[name].to(value.dtype))
        assert value.dtype in (torch.float32, torch.int64)


@pytest.mark.parametrize("layout", ["zip", "legacy", "bare pickle"])
@pytest.mark.parametrize("function", [os.system, eval, exec])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_malicious_pickle_does_not_run(
    tmp_path: Path,
    tensors: dict[str, Tensor],
    layout: str,
    function: object,
    suffix: str,
) -> None:
    target = tmp_path / "proof"
    code = f"open({str(target)!r}, 'w').close()"
    evil = Call(function, f"touch {target}" if function is os.system else code)
    path = tmp_path / f"evil{suffix}"
    if layout == "bare pickle":
        path.write_bytes(pickle.dumps({"net": NET, "state_dict": evil}, protocol=2))
    else:
        save_published(path, tensors, NET, zip_format=layout == "zip", history=evil)
    assert str(path) in load_error(path)
    assert not target.exists()


@pytest.mark.parametrize(
    "net",
    [
        "__import__('os').system('touch {}')",
        "Quad_L2Net_ConfCFS(mchan=__import__('os').system('touch {}'))",
        "Quad_L2Net_ConfCFS() or open('{}', 'w')",
        "Quad_L2Net_ConfCFS()\nopen('{}', 'w')",
    ],
)
def test_a_malicious_architecture_string_does_not_run(
    tmp_path: Path, tensors: dict[str, Tensor], net: str
) -> None:
    target = tmp_path / "proof"
    path = save_published(tmp_path / "evil.pt", tensors, net.format(target))
    assert "unknown architecture" in load_error(path)
    assert not target.exists()


@pytest.mark.parametrize("layout", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_refused_at_every_length(
    tmp_path: Path, network: DenseNetwork, tensors: dict[str, Tensor], layout: str
) -> None:
    path = tmp_path / ("a.safetensors" if layout == "safetensors" else "a.pt")
    if layout == "safetensors":
        path.write_bytes(
            serialize_checkpoint(network, TINY, training={}, license_name="x")
        )
    else:
        save_published(path, tensors, NET, zip_format=layout == "zip")
    data = path.read_bytes()
    load_checkpoint(path)
    for length in (0, 1, 2, 8, 100, 1000, 5000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert str(path) in load_error(path)


@pytest.mark.parametrize("zip_format", [True, False])
def test_damaged_bytes_never_escape_as_another_error(
    tmp_path: Path, tensors: dict[str, Tensor], zip_format: bool
) -> None:
    path = save_published(tmp_path / "a.pt", tensors, NET, zip_format=zip_format)
    data = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(150):
        start = int(torch.randint(2500, (1,), generator=generator))
        noise = torch.randint(256, (3,), generator=generator).tolist()
        path.write_bytes(data[:start] + bytes(noise) + data[start + 3 :])
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            assert len(str(error).splitlines()) == 1
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ""])
@pytest.mark.parametrize("content", [b"", b"hello, world\n", b"\x00" * 64])
def test_a_file_of_something_else_is_refused(
    tmp_path: Path, suffix: str, content: bytes
) -> None:
    path = tmp_path / f"notes{suffix}"
    path.write_bytes(content)
    assert str(path) in load_error(path)


def test_another_pickled_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    contents = ([1, 2], "text", {"net": NET}, {"state_dict": {}}, torch.zeros(3))
    for content in contents:
        torch.save(content, path)
        assert "'net' and 'state_dict'" in load_error(path)
    for state in ([1], {"a": 1}, {1: torch.zeros(1)}):
        save_published(path, state, NET)
        assert "not a dict of named tensors" in load_error(path)


def test_missing_path_and_folder_are_named(tmp_path: Path) -> None:
    assert "no such file" in load_error(tmp_path / "none.pt")
    assert "a folder" in load_error(tmp_path)
    assert "expected the path" in load_error("~no-such-user/a.pt")
    assert "expected the path" in load_error("x" * 5000)


def test_wrong_tensors_are_named(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = tmp_path / "a.pt"

    def message(changes: dict[str, Tensor | None]) -> str:
        state = {k: v for k, v in {**tensors, **changes}.items() if v is not None}
        return load_error(save_published(path, state, NET))

    assert "misses clf.bias" in message({"clf.bias": None})
    assert "unexpected other" in message({"other": torch.zeros(1)})
    assert "unexpected" in message({"two\nlines": torch.zeros(1)})
    shape = message({"ops.0.weight": torch.zeros(8, 3, 5, 5)})
    assert "ops.0.weight" in shape
    assert "(8, 3, 5, 5)" in shape and "(8, 3, 3, 3)" in shape
    for bad in (torch.nan, torch.inf):
        values = tensors["sal.bias"].clone().fill_(bad)
        assert "sal.bias" in message({"sal.bias": values})
    torch.save({"two\nlines": 1}, path)
    load_error(path)


@pytest.mark.parametrize(
    "net, words",
    [
        ("Quad_L2Net()", "unknown architecture"),
        ("Quad_L2Net_ConfCFS", "unknown architecture"),
        ("quad_l2net_confcfs()", "unknown architecture"),
        ("", "unknown architecture"),
        (3, "unknown architecture"),
        (None, "unknown architecture"),
        ("Quad_L2Net_ConfCFS(mchan=0)", "width"),
        ("Quad_L2Net_ConfCFS(mchan=1025)", "width"),
        ("Quad_L2Net_ConfCFS(mchan=9999)", "width"),
        # it would take 190 GB: shapes are compared before it is made
        ("Quad_L2Net_ConfCFS(mchan=1024)", "found shape"),
    ],
)
def test_published_architectures_that_cannot_be(
    tmp_path: Path, tensors: dict[str, Tensor], net: object, words: str
) -> None:
    assert words in load_error(save_published(tmp_path / "a.pt", tensors, net))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Quad_L2Net_ConfCFS()", Architecture(name="r2d2")),
        (" Quad_L2Net_ConfCFS( mchan = 6 ) ", Architecture(name="r2d2", width=6)),
        (
            "Fast_Quad_L2Net_ConfCFS(mchan=2, dim=32)",
            Architecture(name="fast_r2d2", width=2, descriptor_dim=32),
        ),
        ("Quad_L2Net_ConfCFS(dim=64)", Architecture(name="r2d2", descriptor_dim=64)),
    ],
)
def test_published_names_are_parsed(text: str, expected: Architecture) -> None:
    assert parse_published_name(text) == expected


@pytest.mark.parametrize(
    "architecture",
    [
        None,
        "not json",
        "[]",
        "[1]",
        '"r2d2"',
        "null",
        "{}",
        '{"width": 4}',
        '{"name": "r2d2", "width": "wide"}',
        '{"name": "r2d2", "width": null}',
        '{"name": "r2d2", "width": [1]}',
        '{"name": "r2d2", "width": 1e400}',
        '{"name": "r2d2", "width": NaN}',
        '{"name": "r2d2", "width": 0}',
        '{"name": "r2d2", "width": -1}',
        '{"name": "r2d2", "descriptor_dim": 100000}',
        '{"name": "r2d2", "colour": "red"}',
        '{"name": "vgg\\n16"}',
        '{"name": ["r2d2"]}',
        pytest.param("[" * 100_000, id="deeply nested"),
    ],
)
def test_safetensors_without_a_sound_architecture(
    tmp_path: Path, tensors: dict[str, Tensor], architecture: str | None
) -> None:
    metadata = None if architecture is None else {"architecture": architecture}
    path = tmp_path / "a.safetensors"
    save_file(tensors, path, metadata=metadata)
    assert "architecture" in load_error(path)


def test_safetensors_of_another_shape(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    metadata = {"architecture": '{"name": "fast_r2d2", "width": 2}'}
    path = tmp_path / "a.safetensors"
    save_file(tensors, path, metadata=metadata)
    assert "the state dict" in load_error(path)


def test_bundled_models_are_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_path: Path
) -> None:
    monkeypatch.setattr(files, "bundled_models", lambda: {"tiny": checkpoint_path})
    monkeypatch.chdir(tmp_path)
    assert resolve_model("tiny") == checkpoint_path
    assert load_checkpoint("tiny").path == checkpoint_path
    (tmp_path / "tiny").mkdir()  # the output of a former run, say
    assert resolve_model("tiny") == checkpoint_path
    assert "(tiny)" in load_error("tin")


def test_every_bundled_model_loads() -> None:
    for name, path in bundled_models().items():
        found = load_checkpoint(name)
        assert found.path == path
        assert found.metadata["license"]
