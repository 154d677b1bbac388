"""A network's features side by side: which of them finds a match first (JLML's Figure 5).

Li, Zhu, Gong, "Person Re-Identification by Deep Joint Learning of Multi-Loss Classification", IJCAI 2017.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError
from reidkit.types import Evaluation, Split


@dataclass(frozen=True, slots=True, eq=False)
class Branches:
    """Evaluations of several features of one network on the same queries.

    Attributes:
        evaluations: by the feature's name.
        ranks: (Q, B), rank of the first match by each feature; 0 where a query is not valid.
    """

    evaluations: Mapping[str, Evaluation]
    ranks: NDArray[np.int64]

    def rows(self) -> list[dict[str, Any]]:
        """Of each feature: its metrics, and numbers of queries.

        ``right`` have its first match at rank 1; ``alone_right`` have no other feature's there; ``soonest``
        have its first match before every other feature's.
        """
        valid = self.ranks[(self.ranks > 0).all(axis=1)]
        right = valid == 1
        rows = []
        for column, (name, evaluation) in enumerate(self.evaluations.items()):
            others = np.delete(valid, column, axis=1)
            rows.append(
                {
                    "feature": name,
                    "mAP": evaluation.mean_average_precision,
                    "rank-1": evaluation.rank(1),
                    "right": int(right[:, column].sum()),
                    "alone_right": int((right[:, column] & (right.sum(axis=1) == 1)).sum()),
                    "soonest": int((valid[:, column, None] < others).all(axis=1).sum()),
                }
            )
        return rows

    def table(self, query_split: Split) -> str:
        """CSV text: path, identity, camera and the rank by each feature of every query; empty if not valid.

        Raises :class:`DataError` where there are more or fewer samples than queries.
        """
        if len(query_split) != len(self.ranks):
            raise DataError(f"there are {len(query_split)} samples for {len(self.ranks)} queries")
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["query", "identity", "camera", *self.evaluations])
        for sample, ranks in zip(query_split, self.ranks.tolist(), strict=True):
            identity = sample.identity_name or sample.identity
            camera = sample.camera if sample.camera_name is None else sample.camera_name
            writer.writerow([sample.path, identity, camera, *(rank or "" for rank in ranks)])
        return text.getvalue()


def compare_branches(evaluations: Mapping[str, Evaluation]) -> Branches:
    """Set evaluations of the same queries beside each other.

    Raises :class:`DataError` for fewer than two, or evaluations of different queries.
    """
    if len(evaluations) < 2:
        raise DataError(
            f"there is nothing to compare: the network has {len(evaluations)} feature "
            f"({', '.join(evaluations)})"
        )
    lengths = {name: evaluation.num_queries for name, evaluation in evaluations.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the features were evaluated on different numbers of queries: {lengths}")
    ranks = np.stack([evaluation.first_match_ranks for evaluation in evaluations.values()], axis=1)
    return Branches(dict(evaluations), ranks)
