"""Clustering: from embeddings, or a gallery, to people, within what is known of who is who."""

from reidkit.clustering.agreement import Agreement, agreement
from reidkit.clustering.cluster import ClusterOptions, cluster
from reidkit.clustering.constraints import Constraints

__all__ = ["Agreement", "ClusterOptions", "Constraints", "agreement", "cluster"]
