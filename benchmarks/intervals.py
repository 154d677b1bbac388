"""How often intervals hold the true value, and tests reject a true null; into docs/results.md.

    python benchmarks/intervals.py [--repeats 1000]

Values are made up: each query's is a function of a normal number, a part of whose variance is its person's
(the person effect) and the rest its own. People ask one to seven times. Every repetition draws other people,
so that the share of intervals that hold the mean over all people, and of p-values below 0.05 where two runs
do not differ, can be counted. Some minutes on one core; the same table on every machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reidkit.analysis.bootstrap import bootstrap_interval, paired_difference
from results import write_section

Values = NDArray[np.float64]

MOST_QUERIES = 7
NUM_RESAMPLES = 400
PERSON_EFFECTS = (0.0, 0.5)
"""Shares of a query's variance that are its person's."""


@dataclass(frozen=True)
class Score:
    """A value a query from a standard normal number, and its mean over all people."""

    name: str
    of: Callable[[Values], Values]

    def mean(self) -> float:
        points, weights = np.polynomial.hermite_e.hermegauss(200)
        return float((self.of(points) * weights).sum() / weights.sum())


SCORES = (
    Score("average precision, mean 0.46", lambda z: 1 / (1 + np.exp(0.2 - 1.5 * z))),
    Score("average precision, mean 0.90", lambda z: 1 / (1 + np.exp(-3 - 1.5 * z))),
    Score("rank-1, 50 %", lambda z: (z > 0).astype(np.float64)),
    Score("rank-1, 90 %", lambda z: (z > -1.2816).astype(np.float64)),
)
TRUE_MEANS = {"rank-1, 50 %": 0.5, "rank-1, 90 %": 0.9}
"""Where a step function is too rough for the sum of :meth:`Score.mean`."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=1000)
    repeats = parser.parse_args().repeats
    lines = [
        f"{repeats:,} repetitions: a share near 95 % is known to {2 * 100 * np.sqrt(0.0475 / repeats):.1f} "
        "points, one near 5 % as well. Bold: outside of 93 to 97 % (coverage), 4 to 6 % (rejection).",
        "",
        "Share of 95 % intervals of one run's score that hold the mean over all people, by what is drawn:",
        "",
        "| score | identities | person effect | queries drawn | identities drawn |",
        "|---|---|---|---|---|",
    ]
    for score in SCORES:
        for num in (20, 50, 200):
            for effect in PERSON_EFFECTS:
                found = [coverage(score, num, effect, repeats, clustered=way) for way in (False, True)]
                cells = " | ".join(percent(value, 93, 97) for value in found)
                lines.append(f"| {score.name} | {num} | {effect:g} | {cells} |")
                print(lines[-1], flush=True)
    lines += [
        "",
        "Share of p-values below 0.05 of two runs (or of several seeds of each) that do not differ. Seeds' "
        "effect: the standard deviation of a seed's difference over all people, in standard errors over "
        "identities.",
        "",
        "| seeds | identities | person effect | seeds' effect | queries compared | identities compared |",
        "|---|---|---|---|---|---|",
    ]
    for seeds, num, seed_effect in CASES:
        for effect in PERSON_EFFECTS:
            found = [
                rejection(seeds, num, effect, seed_effect, repeats, clustered=way) for way in (False, True)
            ]
            cells = " | ".join(percent(value, 4, 6) for value in found)
            lines.append(f"| {seeds} | {num} | {effect:g} | {seed_effect:g} | {cells} |")
            print(lines[-1], flush=True)
    write_section("intervals", "\n".join(lines))


CASES = (
    *((1, num, 0.0) for num in (20, 50, 200)),
    *((seeds, 200, effect) for seeds in (2, 3, 5) for effect in (0.0, 1.0, 3.0)),
)
"""Seeds, identities, and how much seeds vary."""


def people(num: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Whom each query shows (Q,): each of ``num`` people one to seven times."""
    return np.repeat(np.arange(num), rng.integers(1, MOST_QUERIES + 1, num))


def normal(identities: NDArray[np.int64], effect: float, rng: np.random.Generator) -> Values:
    """Standard normal numbers (Q,), ``effect`` of whose variance is the person's."""
    of_person = rng.standard_normal(identities.max() + 1)[identities]
    return np.sqrt(effect) * of_person + np.sqrt(1 - effect) * rng.standard_normal(len(identities))


def coverage(score: Score, num: int, effect: float, repeats: int, *, clustered: bool, seed: int = 0) -> float:
    """Share of the intervals that hold the true mean."""
    rng = np.random.default_rng([seed, num, int(100 * effect)])
    truth = TRUE_MEANS.get(score.name, score.mean())
    held = 0
    for repeat in range(repeats):
        identities = people(num, rng)
        low, high = bootstrap_interval(
            score.of(normal(identities, effect, rng)),
            identities=identities if clustered else None,
            num_resamples=NUM_RESAMPLES,
            seed=repeat,
        )
        held += low <= truth <= high
    return held / repeats


def rejection(
    seeds: int,
    num: int,
    effect: float,
    seed_effect: float,
    repeats: int,
    *,
    clustered: bool,
    seed: int = 0,
) -> float:
    """Share of p-values below 0.05 where no difference is.

    A query's difference is that of most real ones: small where it changes at all. It has a part that all
    seeds share and one of its seed's own.
    """
    rng = np.random.default_rng([seed, num, seeds, int(100 * effect)])
    rejected = 0
    for _ in range(repeats):
        identities = people(num, rng)
        shared = normal(identities, effect, rng)
        numbers = np.stack([0.7 * shared + 0.7 * normal(identities, effect, rng) for _ in range(seeds)])
        differences = 0.1 * np.sign(numbers) * np.maximum(np.abs(numbers) - 0.6, 0)
        per_identity = np.bincount(identities, differences.mean(axis=0))
        error = np.sqrt((per_identity**2).sum()) / len(identities)
        differences = differences + seed_effect * error * np.sqrt(seeds) * rng.standard_normal((seeds, 1))
        first = rng.uniform(0.3, 0.7, differences.shape)
        found = paired_difference(first, first + differences, identities=identities if clustered else None)
        rejected += found.p_value < 0.05
    return rejected / repeats


def percent(share: float, low: float, high: float) -> str:
    text = f"{100 * share:.1f}"
    return text if low <= 100 * share <= high else f"**{text}**"


if __name__ == "__main__":
    main()
