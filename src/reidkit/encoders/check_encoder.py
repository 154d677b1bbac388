"""A trial run of a network made elsewhere, before using its embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reidkit.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from reidkit.encoders.encoder import Encoder


def check_encoder(encoder: Encoder) -> None:
    """Embed two made-up images, a dark and a bright one, alone and together.

    Raises:
        CheckpointError: what comes out is not finite, or the same for both, or depends on the other image.
    """
    noise = np.random.default_rng(0).integers(0, 100, (2, encoder.height, encoder.width, 3), dtype=np.uint8)
    images = [noise[0], 255 - noise[1]]
    try:
        together = encoder.encode(images)
        alone = np.concatenate([encoder.encode(image) for image in images])
    except DataError as error:
        raise CheckpointError(f"{error} (tried with two made-up images)") from error
    if np.allclose(alone[0], alone[1], atol=1e-6):
        raise CheckpointError(
            "the network gives the same embedding for two made-up images that have nothing in common; its "
            "weights or its preprocessing are unusable"
        )
    if not np.allclose(together, alone, atol=1e-3):
        raise CheckpointError(
            "the network embeds an image differently when another is beside it; was it exported in training "
            "mode?"
        )
