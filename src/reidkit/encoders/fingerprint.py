"""Names of embedding spaces: equal where all that decides an embedding is equal, different otherwise."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from reidkit.encoders.network import FINGERPRINT_LENGTH
from reidkit.models import Embedder
from reidkit.models._embedder import IMAGENET


def fingerprints(model: Embedder, *, height: int, width: int, feature: str | None) -> tuple[str, ...]:
    """The fingerprint of a model, and behind it the one that version 0.1.0 gave it, where that differs.

    Weights, size of images and feature decide an embedding, and so do options that no weight shows (the
    stride of the last stage, a pooling), and another normalisation than ImageNet's. Version 0.1.0 left those
    options out; an encoder without unusual ones has the fingerprint that it had.
    """
    settings = [height, width, *([] if feature in (None, model.usual_feature) else [feature])]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    plain = digest.hexdigest()[:FINGERPRINT_LENGTH]
    unusual = _unusual(model)
    if not unusual:
        return (plain,)
    digest.update(json.dumps(unusual, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:FINGERPRINT_LENGTH], plain


def _unusual(model: Embedder) -> dict[str, Any]:
    """What decides an embedding besides weights, as far as it is not as usual."""
    unusual = dict(model.beyond_weights or {})
    for name, own, usual in (("mean", model.mean, IMAGENET.mean), ("std", model.std, IMAGENET.std)):
        if tuple(own) != usual:
            unusual[name] = [f"{value:.9g}" for value in own]
    return unusual
