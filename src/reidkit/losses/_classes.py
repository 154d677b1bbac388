"""Losses with parameters for each training identity: their sizes, and checks of a batch."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from reidkit.errors import ConfigError, DataError
from reidkit.ops import can_look_at_values, check_count


class OfIdentities(nn.Module):
    """A loss whose sizes are those of the data and of the model.

    A loss calls :meth:`_build` at the end of its constructor. Sizes that are None wait for :meth:`fill`.
    """

    title: ClassVar[str]
    """What it is called in messages: "identity loss"."""

    part: ClassVar[str]
    """What its parameters are: "classifier"."""

    def __init__(self, num_identities: int | None, dim: int | None) -> None:
        super().__init__()
        for name, size in (("num_identities", num_identities), ("dim", dim)):
            if size is not None:
                check_count(name, size, also=", or None to take it from the data and the model")
        self.num_identities = num_identities
        self.dim = dim
        self.built = False

    def fill(self, *, num_identities: int, dim: int) -> None:
        """Give the sizes that were None and draw the parameters; do so before moving it to a device.

        Raises :class:`ConfigError` where a size given to the constructor differs.
        """
        for name, size in (("num_identities", num_identities), ("dim", dim)):
            if getattr(self, name) not in (None, size):
                raise ConfigError(
                    f"{self.title} has {name} {getattr(self, name)}, but the data and the model need "
                    f"{size}; leave {name} out to have it filled in"
                )
            setattr(self, name, size)
        self._build()

    def _build(self) -> None:
        """Draw the parameters, once, when both sizes are known."""
        if not self.built and self.num_identities is not None and self.dim is not None:
            self.built = True
            self.draw(self.num_identities, self.dim)

    def draw(self, num_identities: int, dim: int) -> None:
        """Make the parameters. A loss defines this."""
        raise NotImplementedError

    def check(self, embeddings: Tensor, labels: Tensor) -> None:
        """Raise where there are no sizes yet, and where a batch does not go with them."""
        if not self.built or self.num_identities is None:
            raise ConfigError(
                f"{self.title} has num_identities {self.num_identities} and dim {self.dim}; give both, "
                "or call fill(num_identities=..., dim=...) before the first batch"
            )
        if embeddings.shape[1] != self.dim:
            raise DataError(
                f"embeddings have {embeddings.shape[1]} values each, but the {self.part} reads "
                f"{self.dim}; give dim the width of the feature that the loss reads"
            )
        if can_look_at_values(labels):
            _check_range(labels, self.num_identities)


def _check_range(labels: Tensor, num_identities: int) -> None:
    outside = (labels < 0) | (labels >= num_identities)
    if outside.any():
        row = int(outside.nonzero()[0])
        raise DataError(
            f"label {int(labels[row])} in row {row} is outside 0..{num_identities - 1}; "
            "number the training identities from 0, without gaps"
        )
