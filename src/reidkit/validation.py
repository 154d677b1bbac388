"""Held-out identities: every process embeds its share, the main one evaluates."""

from __future__ import annotations

import numpy as np

from reidkit import distributed
from reidkit.encoder import Encoder
from reidkit.evaluation import validation_features
from reidkit.features import label_features
from reidkit.types import Features, Split


def embed_validation(encoder: Encoder, part: Split) -> tuple[Features, Features] | None:
    """Query and gallery made from a part's samples; None on all processes but the main one.

    Every process must come here, with the same part. Batch norm's statistics, which differ between processes
    in training, are made those of the main one.
    """
    distributed.copy_from_main(encoder.model.buffers())
    num_processes, rank = distributed.world_size(), distributed.rank()
    shares = distributed.gather_objects(encoder.features(part[rank::num_processes]).embeddings)
    if not distributed.is_main():
        return None
    embeddings = np.empty((len(part), encoder.dim), dtype=np.float32)
    for rank, share in enumerate(shares):
        embeddings[rank::num_processes] = share
    return validation_features(label_features(embeddings, part))
