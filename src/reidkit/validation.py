"""Scores on held-out identities: every process embeds its share, the main one evaluates."""

from __future__ import annotations

import numpy as np

from reidkit import distributed
from reidkit.encoder import Encoder
from reidkit.evaluation import evaluate_features, validation_features
from reidkit.features import label_features
from reidkit.types import Evaluation, Split


def validate(encoder: Encoder, part: Split) -> Evaluation | None:
    """Scores of the samples of a part against each other; None on all processes but the main one.

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
    query, gallery = validation_features(label_features(embeddings, part))
    return evaluate_features(query, gallery)
