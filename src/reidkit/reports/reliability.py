"""The section of a report that says whether the probabilities of a search's hits can be believed."""

from __future__ import annotations

from reidkit.analysis.reliability import TOP, held_out_reliability
from reidkit.errors import DataError
from reidkit.evaluation.comparison import Comparison
from reidkit.reports.breakdown_charts import reliability_figure
from reidkit.reports.parts import Figure


def hits_figures(comparison: Comparison) -> list[Figure]:
    """The reliability diagram of hits in held-out searches; none where identities are too few to halve."""
    try:
        found = held_out_reliability(comparison)
    except DataError:
        return []
    return [
        Figure(
            "Can the probabilities of hits be believed?",
            reliability_figure(found.predicted, found.observed, name="reliability_of_hits"),
            f"The {TOP} first hits of every search, by the probability of showing the person searched for, "
            "and the share that really do. The calibration was fitted on one half of the people and used to "
            "search for the other, with the gallery's own prior: on the dashed line the probabilities are "
            "right, below it they promise too much.",
            f"On average they are {100 * found.expected_error:.1f} points off (expected calibration error of "
            f"{found.counts.sum():,} hits); if all were right, chance alone would show "
            f"{100 * found.chance_error:.1f}.",
        )
    ]
