"""Starting from the weights of another run."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from reidkit import logs
from reidkit.encoders.encoder_file import load_weights
from reidkit.encoders.loading import weights_file
from reidkit.errors import CheckpointError, shown

logger = logs.get_logger(__name__)


def start_from(model: nn.Module, source: str | Path) -> None:
    """Fill a network with the weights of another whose names and shapes agree.

    An encoder holds no identities, so classifiers start from scratch.

    Args:
        model: changed only if something fits.
        source: a run folder (its best weights, else its last) or a ``.safetensors`` file of reidkit's.

    Raises:
        CheckpointError: nothing there, or damaged, or nothing fits.
    """
    file = weights_file(Path(source))
    theirs, description = load_weights(file)
    ours = model.state_dict()
    fitting = {n: tensor for n, tensor in theirs.items() if n in ours and tensor.shape == ours[n].shape}
    learned = {name for name, _ in model.named_parameters()}
    if not learned & fitting.keys():
        raise CheckpointError(
            f"init = {str(source)!r}: none of the {len(theirs)} weights of {file}, of model "
            f"{shown(description.get('model'))}, fits this network by name and shape; start from one of "
            "the same family"
        )
    model.load_state_dict(fitting, strict=False)
    logger.info(f"weights from {file}: {len(fitting)} of {len(ours)} tensors, classifiers start anew")
    others = {
        "of another shape there": [n for n in ours if n in theirs and n not in fitting],
        "not there": [n for n in ours if n not in theirs],
        "of no use here": [n for n in theirs if n not in ours],
    }
    for what, names in others.items():
        if names:
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            logger.info(f"  {what}: {', '.join(names[:4])}{more}")
