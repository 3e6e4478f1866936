"""Checkpoints, published ones or our own safetensors, loaded without running code.

A published file is a pickle that goes through torch's weights-only unpickler with an
allow-list (models.published). Our own files are safetensors whose metadata hold
``architecture`` (JSON), ``training`` (JSON) and ``license``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_safetensors
from torch import Tensor

from r2d2_kapture.config.extract import Preprocessing
from r2d2_kapture.errors import CheckpointError
from r2d2_kapture.models.files import SUFFIX, Weights, resolve_model, sha256_of
from r2d2_kapture.models.network import FeatureNetwork
from r2d2_kapture.models.published import LICENSES, read_published
from r2d2_kapture.models.registry import Architecture, build_network

NUMBER_TYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int64,
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Weights):
    """A network ready for inference and where it came from.

    Attributes:
        architecture: which network it is.
        network: in evaluation mode, on the CPU, float32.
        metadata: text found with the tensors (training settings, licence); of a
            published file the names of its tensors that were ``ignored``.
    """

    architecture: Architecture
    network: FeatureNetwork
    metadata: dict[str, str]

    @property
    def record(self) -> dict[str, Any]:
        return super().record | {"architecture": dataclasses.asdict(self.architecture)}

    @property
    def license(self) -> str | None:
        return self.metadata.get("license") or LICENSES.get(self.sha256)


def load_checkpoint(model: str | Path, flag: str = "--model") -> Checkpoint:
    """Load a checkpoint by path or bundled name, on the CPU.

    Args:
        model: what was asked for.
        flag: that asked for it, for the message where there is no such file.

    Raises:
        CheckpointError: the file is missing, truncated, not a checkpoint, of an unknown
            architecture, or its tensors are missing, superfluous or of wrong shape.
    """
    path = resolve_model(str(model), flag)
    checksum = sha256_of(path)
    try:
        if path.suffix == SUFFIX:
            architecture, tensors, metadata = _read_safetensors(path)
        else:
            published = read_published(path)
            architecture, tensors = published.architecture, published.tensors
            ignored = ", ".join(published.ignored)
            metadata = {"ignored": ignored} if ignored else {}
        with torch.device("meta"):  # shapes first: a width in the file costs no memory
            expected = build_network(architecture).state_dict()
        _check_tensors(expected, tensors)
        network = build_network(architecture)
    except CheckpointError as error:  # it may quote names of the file: one line still
        raise CheckpointError(f"{path}: {' '.join(str(error).split())}") from error
    network.load_state_dict(dict(tensors), strict=False)
    network.eval().requires_grad_(False)
    network.preprocessing = _preprocessing(metadata)
    return Checkpoint(
        name=path.stem,
        path=path,
        sha256=checksum,
        architecture=architecture,
        network=network,
        metadata=metadata,
    )


def serialize_checkpoint(
    network: FeatureNetwork,
    architecture: Architecture,
    *,
    training: Mapping[str, Any],
    license_name: str,
) -> bytes:
    """Encode a network as safetensors with its architecture, training and licence.

    Write the bytes atomically (io.outputs.atomic) under a name that ends in
    .safetensors.

    Raises:
        ValueError: ``training`` holds a number that JSON does not have.
    """
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }
    metadata = {
        "architecture": json.dumps(dataclasses.asdict(architecture), sort_keys=True),
        "training": json.dumps(dict(training), sort_keys=True, allow_nan=False),
        "license": license_name,
    }
    return stable_safetensors(tensors, metadata)


def stable_safetensors(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file whose bytes depend on its content only.

    The library writes metadata in another order in each process. The file begins with
    the length of the header, 8 bytes, and the header as JSON, padded with spaces.
    """
    data = bytes(save_safetensors(tensors, metadata=metadata))
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def _preprocessing(metadata: Mapping[str, str]) -> Preprocessing | None:
    """What weights of our own training say that they were trained with."""
    try:
        training = json.loads(metadata.get("training", ""))
    except (ValueError, RecursionError):
        return None
    found = training.get("preprocessing") if isinstance(training, dict) else None
    known: tuple[Preprocessing, ...] = get_args(Preprocessing)
    return next((mode for mode in known if mode == found), None)


def _read_safetensors(
    path: Path,
) -> tuple[Architecture, dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"not a complete safetensors file ({_first_line(error)}); fetch it again"
        ) from error
    if "architecture" not in metadata:
        raise CheckpointError(
            "found no 'architecture' in the metadata, expected a checkpoint written by "
            "r2d2_kapture"
        )
    try:
        architecture = Architecture(**json.loads(metadata["architecture"]))
        widths = (int(architecture.width), int(architecture.descriptor_dim))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"architecture metadata cannot be read: {_first_line(error)}"
        ) from error
    return (
        Architecture(
            name=str(architecture.name), width=widths[0], descriptor_dim=widths[1]
        ),
        tensors,
        metadata,
    )


def _check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Compare names and shapes; the batch counters of batch norm may be absent."""
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    missing = sorted(expected.keys() - found.keys() - counters)
    extra = sorted(found.keys() - expected.keys())
    if missing or extra:
        parts = [
            f"{title} {', '.join(names[:3])}{' ...' * (len(names) > 3)}"
            for title, names in (("misses", missing), ("has unexpected", extra))
            if names
        ]
        raise CheckpointError(f"the state dict {' and '.join(parts)}")
    for name, tensor in found.items():
        if not _is_plain(tensor):
            raise CheckpointError(
                f"tensor {name}: found {tensor.dtype} {tensor.layout}, expected dense "
                "numbers of 16, 32 or 64 bits, each of them stored"
            )
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"tensor {name}: found shape {tuple(tensor.shape)}, "
                f"expected {tuple(expected[name].shape)}"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"tensor {name} holds values that are not finite")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise CheckpointError(f"tensor {name} holds a variance below zero")


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor holds each of its numbers, in any order, on the CPU."""
    return (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and tensor.dtype in NUMBER_TYPES
        and tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.itemsize
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
