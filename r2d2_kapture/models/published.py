"""Third-party pickled checkpoints, read without running code.

R2D2       ``{'net': str, 'state_dict': dict, ...}``
D2-Net     ``{'model': dict, ...}``, tensors ``dense_feature_extraction.model.<i>.*``
VGG16      a state dict with ``features.<i>.*``, as torchvision and the conversions of
           the Caffe weights have it; of it the layers up to conv4_3
"""

from __future__ import annotations

import collections
import re
import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from r2d2_kapture.errors import UNREADABLE, CheckpointError
from r2d2_kapture.models.registry import Architecture, parse_published_name

UNPICKLING_ERRORS = (*UNREADABLE, AssertionError, ImportError)
"""What torch's unpickler raises on damaged bytes, which may spell any operation."""

D2NET_PREFIX = "dense_feature_extraction.model."
VGG_PREFIX = "features."
FIRST_LAYER, LAST_LAYER = 0, 21
"""Places of conv1_1 and conv4_3 among the layers of VGG16."""

LICENSES = dict.fromkeys(
    (
        "27cebd6608317b35198a76f60f87492110dee3e88ca382586a729dadb1a16b90",
        "9ae90e02a9a133d100ca7aeaa32f4d4d7736a6dd222a530a25c8f7da5e508528",
        "597dc13998e211e827c550bdc8f76dbb4aca32747846f96962c9168586cec418",
        "217daa3a166bfe9bf2b68c05c1607a09dd4d552ae1bbeda885479d504eefc14b",
    ),
    "CC BY-NC-SA 3.0",
)
"""Of the weights of naver/r2d2, which do not state it, by the SHA-256 of the files:
r2d2_WAF_N16, r2d2_WASF_N16, r2d2_WASF_N8_big and faster2d2_WASF_N16."""

NUMPY_GLOBALS = (
    "numpy.dtype",
    "numpy.ndarray",
    *(
        f"numpy.{core}.multiarray.{name}"
        for core in ("core", "_core")  # before NumPy 2, and since
        for name in ("scalar", "_reconstruct")
    ),
)
"""What pickles of NumPy's numbers and arrays call."""


@dataclass(frozen=True, kw_only=True)
class PublishedTensors:
    """What a third-party file holds.

    Attributes:
        architecture: of the network that takes the tensors.
        tensors: by the names of our network.
        ignored: names in the file of what that network has no use for.
    """

    architecture: Architecture
    tensors: dict[str, Tensor]
    ignored: tuple[str, ...] = ()


def read_published(path: Path) -> PublishedTensors:
    """Read a pickled checkpoint of a known layout.

    Raises:
        CheckpointError: truncated, of no known layout, or in need of code to load.
    """
    content = _unpickle(path)
    if isinstance(content, dict):
        if {"net", "state_dict"} <= content.keys():
            state = _named_tensors(content["state_dict"], "'state_dict'")
            architecture = parse_published_name(str(content["net"]))
            return PublishedTensors(architecture=architecture, tensors=state)
        if isinstance(content.get("model"), dict):
            return _vgg_layers(_named_tensors(content["model"], "'model'"))
        if any(isinstance(name, str) and VGG_PREFIX in name for name in content):
            return _vgg_layers(_named_tensors(content, "the state dict"))
    raise CheckpointError(
        f"found {_describe(content)}, expected a dict with 'net' and 'state_dict' "
        "(R2D2), one with 'model' (D2-Net), or the state dict of a VGG16; weights of "
        "other networks need --extractor"
    )


def _unpickle(path: Path) -> Any:
    allowed = [
        (_plain_dict, "collections.defaultdict"),
        list,
        (types.SimpleNamespace, "argparse.Namespace"),  # options of a D2-Net training
        *((_Ignored, name) for name in NUMPY_GLOBALS),  # its losses
    ]
    try:
        with torch.serialization.safe_globals(allowed):  # type: ignore[arg-type]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.load(path, map_location="cpu", weights_only=True)
    except UNPICKLING_ERRORS as error:
        raise CheckpointError(
            f"found no complete checkpoint ({type(error).__name__} while unpickling it "
            "without running code); expected a published .pt of R2D2 or Fast-R2D2, a "
            ".pth of D2-Net or VGG16, or a .safetensors file"
        ) from error


def _plain_dict(*_: object) -> dict[str, Any]:
    """Stand in for the defaultdict that published Fast-R2D2 files hold."""
    return collections.OrderedDict()


class _Ignored:
    """Stand in for NumPy's types, arrays and numbers, of which nothing is used.

    NumPy's own would take the memory layout of a type from the file.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _named_tensors(state: object, title: str) -> dict[str, Tensor]:
    """The tensors of a state dict, without the prefix of data parallel training."""
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor)
        for name, value in state.items()
    ):
        raise CheckpointError(f"{title} is not a dict of named tensors")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _vgg_layers(state: dict[str, Tensor]) -> PublishedTensors:
    """The layers of VGG16 up to conv4_3, named as D2Net names them.

    Widths are read off the first and the last of them.
    """
    is_d2net = any(name.startswith(D2NET_PREFIX) for name in state)
    prefix = D2NET_PREFIX if is_d2net else VGG_PREFIX
    widths = []
    for layer in (FIRST_LAYER, LAST_LAYER):
        weight = state.get(f"{prefix}{layer}.weight")
        if weight is None or weight.ndim != 4:
            found = "none" if weight is None else f"shape {tuple(weight.shape)}"
            raise CheckpointError(
                f"tensor {prefix}{layer}.weight: found {found}, expected a 3x3 "
                "convolution of VGG16 (without batch norm)"
            )
        widths.append(len(weight))
    ignored = () if is_d2net else tuple(sorted(filter(_after_conv4_3, state)))
    return PublishedTensors(
        architecture=Architecture(
            name="d2net", width=widths[0], descriptor_dim=widths[1]
        ),
        tensors={
            re.sub(f"^{re.escape(prefix)}", "ops.", name): value
            for name, value in state.items()
            if name not in ignored
        },
        ignored=ignored,
    )


def _after_conv4_3(name: str) -> bool:
    match = re.fullmatch(r"features\.(\d{1,2})\.(weight|bias)", name)
    return name.startswith("classifier.") or (
        match is not None and int(match[1]) > LAST_LAYER
    )


def _describe(content: object) -> str:
    if isinstance(content, dict):
        return f"a dict with keys {', '.join(map(repr, list(content)[:5]))}"
    return f"a {type(content).__name__}"
