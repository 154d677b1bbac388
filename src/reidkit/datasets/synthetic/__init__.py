"""A data set of drawn people, to try things with."""

from reidkit.datasets.synthetic.dataset import make_synthetic, synthetic

__all__ = ["make_synthetic", "synthetic"]
