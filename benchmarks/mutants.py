"""Faults that a person could write, each alone in a copy of the source tree: the unit tests must see them.

    python benchmarks/mutants.py                  all of them
    python benchmarks/mutants.py --only msml      those whose name holds this
    python benchmarks/mutants.py --check          only whether each text is still found, once
    python benchmarks/mutants.py --write          the table of docs/results.md

A mutant is killed where a test fails. It ends in an error where it survives, where its text is no longer
found, where its tests cannot run, and where they fail without it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from results import processor, write_section

if TYPE_CHECKING:
    import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SURVIVED = "survived"


class Mutant(NamedTuple):
    """A fault: in ``file``, ``old`` stands once and becomes ``new``; ``tests`` are words for pytest."""

    name: str
    file: str
    old: str
    new: str
    tests: str


def of_losses(names: str) -> str:
    """Contract tests of the losses of an expression of names, but for compiling them, which takes long."""
    return f"tests/contract/test_losses.py -k 'not compiles and ({names})'"


MUTANTS = [
    # --- losses
    Mutant(
        "msml: the sign of the difference",
        "src/reidkit/losses/msml.py",
        "torch.where(has_pairs, F.relu(furthest - nearest + margin), 0.0)",
        "torch.where(has_pairs, F.relu(nearest - furthest + margin), 0.0)",
        of_losses("msml"),
    ),
    Mutant(
        "msml: the easiest negative pair",
        "src/reidkit/losses/msml.py",
        "hardest.negative.amin()",
        "hardest.negative.amax()",
        of_losses("msml"),
    ),
    Mutant(
        "msml: images without a positive count",
        "src/reidkit/losses/msml.py",
        "hardest.positive.masked_fill(~hardest.has_positive, 0.0)",
        "hardest.positive",
        of_losses("msml"),
    ),
    Mutant(
        "arcface: the margin makes the angle narrower",
        "src/reidkit/losses/arcface.py",
        "wider = cosines * math.cos(margin) - sines * math.sin(margin)",
        "wider = cosines * math.cos(margin) + sines * math.sin(margin)",
        of_losses("arcface"),
    ),
    Mutant(
        "circle: the weights have a gradient",
        "src/reidkit/losses/circle.py",
        "seen = similarities.detach()",
        "seen = similarities",
        of_losses("circle"),
    ),
    Mutant(
        "multi-similarity: negatives are mined by the nearest positive",
        "src/reidkit/losses/multi_similarity.py",
        "similarities.masked_fill(~positive, math.inf).amin(dim=1, keepdim=True)",
        "similarities.masked_fill(~positive, -math.inf).amax(dim=1, keepdim=True)",
        of_losses("multi_similarity"),
    ),
    Mutant(
        "centroid triplet: an anchor is in the mean of its own identity",
        "src/reidkit/losses/centroid_triplet.py",
        "(sums - embeddings) / (num_same - 1).clamp_min(1)",
        "sums / num_same",
        of_losses("centroid_triplet"),
    ),
    Mutant(
        "smooth-AP: a positive is half before itself",
        "src/reidkit/losses/smooth_ap.py",
        "0.5 + (before * among[:, None]).sum(dim=2)",
        "1 + (before * among[:, None]).sum(dim=2)",
        of_losses("smooth_ap"),
    ),
    Mutant(
        "trihard: the sign under the soft margin",
        "src/reidkit/losses/trihard.py",
        "F.softplus(excess)",
        "F.softplus(-excess)",
        of_losses("trihard"),
    ),
    Mutant(
        "trihard: anchors without a negative count",
        "src/reidkit/losses/trihard.py",
        "hardest.has_positive & hardest.has_negative",
        "hardest.has_positive",
        of_losses("trihard"),
    ),
    Mutant(
        "sn: neighbours not nearer than the bound",
        "src/reidkit/losses/sn.py",
        "near = to_neighbors < to_neighbors.amax(",
        "near = to_neighbors <= to_neighbors.amax(",
        of_losses("sn"),
    ),
    Mutant(
        "sn: a neighbour too few",
        "src/reidkit/losses/sn.py",
        "min(num_neighbors + 1, len(labels) - 1)",
        "min(num_neighbors, len(labels) - 1)",
        of_losses("sn"),
    ),
    Mutant(
        "sn: no squeeze for a single positive",
        "src/reidkit/losses/sn.py",
        "spread = torch.where(several, furthest - nearest, furthest)",
        "spread = torch.where(several, furthest - nearest, 0.0)",
        of_losses("sn"),
    ),
    Mutant(
        "sn: the pair's far end is its near end",
        "src/reidkit/losses/sn.py",
        "furthest_of(nearness, own) if furthest",
        "nearest if furthest",
        of_losses("sn"),
    ),
    Mutant(
        "sn: the gradient by hand pushes a single positive at both ends",
        "src/reidkit/losses/sn.py",
        ".sub_(at_nearest * several)",
        ".sub_(at_nearest)",
        "tests/unit/losses/test_sn.py",
    ),
    Mutant(
        "hap2s: negatives weighed as positives are",
        "src/reidkit/losses/hap2s.py",
        "nearness = -2 * hardness",
        "nearness = -hardness",
        of_losses("hap2s"),
    ),
    Mutant(
        "hap2s: the gradient through the weights is lost",
        "src/reidkit/losses/hap2s.py",
        "distances.detach() if detach_weights else distances",
        "distances.detach()",
        of_losses("hap2s"),
    ),
    Mutant(
        "hap2s: the gradient by hand is that of another sigma",
        "src/reidkit/losses/hap2s.py",
        "gradient.mul_(weights).mul_(sharpness)",
        "gradient.mul_(weights)",
        "tests/unit/losses/test_rowwise.py",
    ),
    Mutant(
        "SCS: pairs under one camera count",
        "src/reidkit/evaluation/spatial_similarity.py",
        "met = self.cameras[rows, None] != self.cameras",
        "met = np.ones(same.shape, np.bool_)",
        "tests/unit/evaluation/test_spatial_similarity.py",
    ),
    Mutant(
        "SCS: an item's own products count the other way in a search",
        "src/reidkit/evaluation/spatial_similarity.py",
        "rest -= np.square(gallery_values[-1])",
        "rest += np.square(gallery_values[-1])",
        "tests/unit/evaluation/test_spatial_similarity.py",
    ),
    Mutant(
        "contrastive: pairs of an image with itself in the mean",
        "src/reidkit/losses/contrastive.py",
        "max(len(labels) * (len(labels) - 1), 1)",
        "max(len(labels) * len(labels), 1)",
        of_losses("contrastive"),
    ),
    Mutant(
        "verification: positives and negatives change places",
        "src/reidkit/losses/verification.py",
        "F.softplus(torch.where(positive, -logits, logits))",
        "F.softplus(torch.where(positive, logits, -logits))",
        of_losses("verification"),
    ),
    Mutant(
        "identity: label smoothing is forgotten",
        "src/reidkit/losses/identity.py",
        "labels.long(), label_smoothing=self.label_smoothing)",
        "labels.long())",
        of_losses("identity"),
    ),
    Mutant(
        "triplets: equal distances are active",
        "src/reidkit/losses/_tuple_sums.py",
        "torch.searchsorted(thresholds, distances.where(negative, math.inf), right=True)",
        "torch.searchsorted(thresholds, distances.where(negative, math.inf), right=False)",
        "tests/unit/losses/test_tuple_sums.py",
    ),
    Mutant(
        "quadruplets: pairs of the anchor's identity taken off once",
        "src/reidkit/losses/_tuple_sums.py",
        "before_all - 2 * before_own",
        "before_all - before_own",
        "tests/unit/losses/test_tuple_sums.py",
    ),
    Mutant(
        "quadruplets: negative pairs counted in both directions",
        "src/reidkit/losses/_tuple_sums.py",
        "(len(labels) - num_same).sum() / 2",
        "(len(labels) - num_same).sum()",
        "tests/unit/losses/test_tuple_sums.py",
    ),
    Mutant(
        "l21: sums over the wrong axis",
        "src/reidkit/ops/weights.py",
        "weight.square().sum(dim=0)",
        "weight.square().sum(dim=1)",
        of_losses("sparsity"),
    ),
    Mutant(
        "l12: stripes in the wrong order",
        "src/reidkit/ops/weights.py",
        "weight.view(num_outputs, groups, -1)",
        "weight.view(num_outputs, -1, groups).transpose(1, 2)",
        of_losses("sparsity"),
    ),
    # --- what losses are made of
    Mutant(
        "an image is its own positive",
        "src/reidkit/ops/mining.py",
        "same.diagonal().fill_(False)",
        "same.diagonal()",
        of_losses("msml or sn"),
    ),
    Mutant(
        "the easiest negative of each anchor",
        "src/reidkit/ops/mining.py",
        "torch.where(negative, distances, math.inf).argmin(dim=1)",
        "torch.where(negative, distances, -math.inf).argmax(dim=1)",
        of_losses("trihard"),
    ),
    Mutant(
        "images of the next identity fill up the row of a smaller one",
        "src/reidkit/ops/mining.py",
        "torch.where(places < self.num_images[rows, None], listed, itself[rows, None])",
        "listed",
        of_losses("trihard"),
    ),
    Mutant(
        "the gradient at the ends of pairs takes their places for their starts",
        "src/reidkit/ops/distances.py",
        'order.div(partners.shape[1], rounding_mode="floor")',
        "order % len(partners)",
        "tests/unit/test_ops.py",
    ),
    Mutant(
        "half of the gradient of a hard pair is lost",
        "src/reidkit/ops/distances.py",
        "            gradient.index_add_(0, ends[rows], pulls)\n",
        "",
        of_losses("trihard"),
    ),
    Mutant(
        "the mean counts anchors that were left out",
        "src/reidkit/ops/mining.py",
        "mask.sum().clamp_min(1)",
        "max(len(mask), 1)",
        of_losses("trihard"),
    ),
    Mutant(
        "an anchor without a negative has both partners",
        "src/reidkit/ops/mining.py",
        "(num_same > 1) & (num_same < len(labels))",
        "(num_same > 1) & (num_same <= len(labels))",
        of_losses("p2s or hap2s"),
    ),
    Mutant(
        "a row of zeros is divided by its length",
        "src/reidkit/ops/distances.py",
        "torch.where(norms == 0, 1.0, norms)",
        "norms",
        of_losses("msml"),
    ),
    Mutant(
        "losses are computed under autocast",
        "src/reidkit/ops/batch.py",
        "enabled=False):\n            embeddings = at_least_float32(embeddings)\n            if len",
        "enabled=True):\n            embeddings = at_least_float32(embeddings)\n            if len",
        of_losses("p2s"),
    ),
    Mutant(
        "self pairs are taken off the first block only",
        "src/reidkit/losses/_rowwise.py",
        "same.diagonal(rows.start).fill_(False)",
        "same.diagonal(0).fill_(False)",
        "tests/unit/losses/test_rowwise.py",
    ),
    Mutant(
        "the gradient from above is ignored",
        "src/reidkit/losses/_rowwise.py",
        "factors.view(-1, *[1] * (rows.ndim - 1)) * rows",
        "rows",
        of_losses("p2s"),
    ),
    # --- ranks
    Mutant(
        "ranks begin at 0",
        "src/reidkit/evaluation/ranks.py",
        "1 + better_matches + before",
        "better_matches + before",
        "tests/unit/evaluation/test_ranks.py",
    ),
    Mutant(
        "ties in reverse order of the gallery",
        "src/reidkit/evaluation/ranks.py",
        "ties & (items < matches.items[chosen])",
        "ties & (items > matches.items[chosen])",
        "tests/unit/evaluation/test_ranks.py",
    ),
    Mutant(
        "the error of float32 scores is forgotten",
        "src/reidkit/evaluation/ranks.py",
        "(scores + look.error).astype(np.float32)",
        "(scores - look.error).astype(np.float32)",
        "tests/unit/evaluation/test_ranks.py",
    ),
    Mutant(
        "crowded queries are counted twice",
        "src/reidkit/evaluation/ranks.py",
        "    before[crowded[matches.queries]] = 0\n",
        "",
        "tests/unit/evaluation/test_ranks.py",
    ),
    Mutant(
        "a match at the last rank of the curve is lost",
        "src/reidkit/evaluation/metrics.py",
        "first_match_ranks[first_match_ranks <= max_rank]",
        "first_match_ranks[first_match_ranks < max_rank]",
        "tests/unit/evaluation/test_evaluation.py",
    ),
    Mutant(
        "precision before a match counts the match",
        "src/reidkit/evaluation/metrics.py",
        "(num_found - 1) / np.maximum(ranks - 1, 1)",
        "num_found / np.maximum(ranks - 1, 1)",
        "tests/unit/evaluation/test_evaluation.py",
    ),
    Mutant(
        "the last match is not nearer than itself",
        "src/reidkit/evaluation/distance_ranks.py",
        "distances <= distances[is_match].max()",
        "distances < distances[is_match].max()",
        "tests/unit/evaluation/test_distances.py",
    ),
    # --- samplers
    Mutant(
        "all processes take the first slice",
        "src/reidkit/training/samplers.py",
        "slice(rank * slice_size, (rank + 1) * slice_size)",
        "slice(0, slice_size)",
        "tests/unit/training/test_samplers.py",
    ),
    Mutant(
        "all epochs are alike",
        "src/reidkit/training/samplers.py",
        "np.random.default_rng([self.seed, self.epoch])",
        "np.random.default_rng([self.seed])",
        "tests/unit/training/test_samplers.py",
    ),
    Mutant(
        "a resumed epoch begins anew",
        "src/reidkit/training/samplers.py",
        "range(self.first_batch, self.num_batches)",
        "range(self.num_batches - self.first_batch)",
        "tests/unit/training/test_samplers.py",
    ),
    Mutant(
        "an identity twice in a batch",
        "src/reidkit/training/samplers.py",
        "waiting[turn].extend(sorted(order, key=lambda i: i in batch))",
        "waiting[turn].extend(order)",
        "tests/unit/training/test_samplers.py",
    ),
    Mutant(
        "frames from the start of their parts",
        "src/reidkit/training/samplers.py",
        "(2 * parts + 1) * len(frames)",
        "2 * parts * len(frames)",
        "tests/unit/training/test_samplers.py",
    ),
    # --- checkpoints
    Mutant(
        "a checkpoint's checksum is not compared",
        "src/reidkit/training/checkpoint.py",
        "if content[length:] != _seal(content[:length]):",
        "if len(content) < length:",
        "tests/unit/training/test_checkpoint.py",
    ),
    Mutant(
        "no checkpoint stays behind the last",
        "src/reidkit/training/checkpoint.py",
        "        _keep(path, _previous(path))\n",
        "        path.unlink()\n",
        "tests/unit/training/test_checkpoint.py",
    ),
    Mutant(
        "a damaged checkpoint stays in its place",
        "src/reidkit/training/checkpoint.py",
        'path.replace(path.with_name("damaged.ckpt"))',
        "pass",
        "tests/unit/training/test_checkpoint.py",
    ),
    Mutant(
        "reading a checkpoint can run code",
        "src/reidkit/training/checkpoint.py",
        "weights_only=True)",
        "weights_only=False)",
        "tests/unit/training/test_checkpoint.py",
    ),
    # --- galleries
    Mutant(
        "a vector's checksum is not compared",
        "src/reidkit/galleries/_vector_file.py",
        "~(fits & is_whole(rows, name, dimension))",
        "~is_whole(rows, name, dimension)",
        "tests/unit/galleries/test_embedded.py",
    ),
    Mutant(
        "a vector may stand in another's place",
        "src/reidkit/galleries/_vector_file.py",
        " + numbers.astype(np.uint64) * key[-1]",
        "",
        "tests/unit/galleries/test_embedded.py",
    ),
    Mutant(
        "an item's checksum is not compared",
        "src/reidkit/galleries/_records.py",
        "        and checksum_of(tuple(values)) == checksum\n",
        "",
        "tests/unit/galleries/test_embedded.py",
    ),
    Mutant(
        "equal scores in reverse order",
        "src/reidkit/galleries/_nearest.py",
        "np.lexsort([best_rows, -best_scores])",
        "np.lexsort([-best_rows, -best_scores])",
        "tests/contract/test_galleries.py",
    ),
    Mutant(
        "float32 decides who is among the nearest",
        "src/reidkit/galleries/_storage.py",
        "rounding = queries.shape[1] * float(np.finfo(np.float32).eps)",
        "rounding = 0.0",
        "tests/unit/galleries/test_embedded.py",
    ),
    Mutant(
        "what is unknown is not found by asking for it",
        "src/reidkit/galleries/_columns.py",
        "place = UNKNOWN if value is None else",
        "place = None if value is None else",
        "tests/contract/test_galleries.py",
    ),
    Mutant(
        "replaced items are counted as new",
        "src/reidkit/galleries/_adding.py",
        "num_items=state.num_items + len(known) - num_known",
        "num_items=state.num_items + len(fresh)",
        "tests/contract/test_galleries.py",
    ),
    Mutant(
        "two items may take one source",
        "src/reidkit/galleries/embedded.py",
        "if taken or len(set(named)) < len(named):",
        "if taken and len(set(named)) < len(named):",
        "tests/contract/test_galleries.py",
    ),
    Mutant(
        "clustering: who was told apart is united",
        "src/reidkit/clustering/agglomerate.py",
        "return other not in self._apart[one] and (",
        "return (",
        "tests/unit/clustering/test_cluster.py -k 'constraint or loop'",
    ),
    Mutant(
        "clustering: who was told apart is not inherited",
        "src/reidkit/clustering/agglomerate.py",
        "        self._apart[one] |= self._apart[other]\n",
        "",
        "tests/unit/clustering/test_cluster.py -k 'constraint or loop'",
    ),
    Mutant(
        "clustering: the mean of the largest sums",
        "src/reidkit/clustering/agglomerate.py",
        "num_pairs: int = self._sizes[one] * self._sizes[other]",
        "num_pairs: int = self._sizes[one] + self._sizes[other]",
        "tests/unit/clustering/test_cluster.py -k loop",
    ),
    Mutant(
        "people: a mean ends the search too early",
        "src/reidkit/search/people.py",
        "ranked[options.top - 1].score >= groups[-1].score",
        "True",
        "tests/unit/search/test_people.py -k reference",
    ),
    Mutant(
        "decisions: an undo that was undone counts",
        "src/reidkit/galleries/_decisions.py",
        "        if decision.id in taken_back:\n            continue\n",
        "",
        "tests/contract/test_galleries.py -k 'undone and embedded'",
    ),
]


class Outcome(NamedTuple):
    """What became of a mutant: ``problem`` is empty where it was killed, by ``test``."""

    problem: str
    test: str = ""

    def __str__(self) -> str:
        return self.problem or f"`{self.test.split('::')[-1]}`"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", help="mutants whose name holds this; may be repeated")
    parser.add_argument("--check", action="store_true", help="run nothing: is each text still found?")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time, a copy of the tree each")
    parser.add_argument("--write", action="store_true", help="write the table into docs/results.md")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if not options.only or any(part in m.name for part in options.only)]
    if not chosen:
        parser.error(f"no mutant's name holds {' or '.join(options.only)}")
    if lost := [problem for mutant in chosen if (problem := misplaced(mutant, REPOSITORY))]:
        sys.exit("\n".join(lost))
    if options.check:
        print(f"{len(chosen)} mutants, each text found once")
        return
    started = time.perf_counter()
    outcomes = try_all(chosen, jobs=options.jobs)
    minutes = (time.perf_counter() - started) / 60
    text = table(chosen, outcomes)
    print(text)
    if options.write:
        command = "`python benchmarks/mutants.py --write`"
        write_section("mutants", f"{text}\n\n{command}, {minutes:.0f} minutes on {processor()}.")
    sys.exit(any(outcome.problem for outcome in outcomes))


def misplaced(mutant: Mutant, tree: Path) -> str:
    """A sentence where the mutant's text does not stand in its file, or not once."""
    path = tree / mutant.file
    found = path.read_text("utf-8").count(mutant.old) if path.is_file() else 0
    if found == 1:
        return ""
    return f"{mutant.name}: {mutant.file} holds {found} times, and not once: {mutant.old!r}"


def try_all(mutants: Sequence[Mutant], *, jobs: int) -> list[Outcome]:
    """The outcomes, in order."""
    context = multiprocessing.get_context("forkserver")  # each try is a new process that has torch already
    context.set_forkserver_preload(["torch", "scipy.sparse", "PIL.Image", "hypothesis", "pytest"])
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        outcomes = list(pool.map(try_one, mutants))
        killers = sorted({outcome.test for outcome in outcomes if outcome.test})
        without = pool.submit(run_tests, killers, REPOSITORY).result() if killers else Outcome(SURVIVED)
    if without.problem != SURVIVED:
        sys.exit(f"without any mutant: {without}")
    return outcomes


def try_one(mutant: Mutant) -> Outcome:
    """Run its tests against a copy of the source with the fault in it."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        shutil.copytree(REPOSITORY / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__"))
        path = tree / mutant.file
        path.write_text(path.read_text("utf-8").replace(mutant.old, mutant.new), "utf-8")
        outcome = run_tests(shlex.split(mutant.tests), tree)
    print(f"{outcome.problem or 'killed'}: {mutant.name}", file=sys.stderr, flush=True)
    return outcome


class FirstFailure:
    """A plugin of pytest that keeps the name of the first test that fails."""

    name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.name = self.name or report.nodeid


def run_tests(tests: Sequence[str], tree: Path) -> Outcome:
    """Which of the tests, words for pytest, is the first to fail with the package of this tree.

    Called in a process of its own, into which nobody has imported the package yet.
    """
    import pytest

    os.chdir(REPOSITORY)
    sys.path.insert(0, str(tree / "src"))
    os.environ.update(
        {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    )  # of processes that tests start
    sys.dont_write_bytecode = True
    first, output = FirstFailure(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--tb=short"]
        code = pytest.main([*options, *tests], plugins=[first])
    package = sys.modules.get("reidkit")
    if package is None or not Path(package.__file__ or "").is_relative_to(tree):
        return Outcome(f"its tests do not import the copy: {output.getvalue().strip()[-300:]}")
    if code == pytest.ExitCode.OK:
        return Outcome(SURVIVED)
    if code != pytest.ExitCode.TESTS_FAILED or not first.name:
        return Outcome(f"its tests cannot run: {output.getvalue().strip()[-300:]}")
    return Outcome("", first.name)


def table(mutants: Sequence[Mutant], outcomes: Sequence[Outcome]) -> str:
    """One row a mutant, and how many were killed."""
    rows = [
        f"| {mutant.name} | `{Path(mutant.file).name}` | {outcome} |"
        for mutant, outcome in zip(mutants, outcomes, strict=True)
    ]
    killed = sum(not outcome.problem for outcome in outcomes)
    lines = ["| fault | file | first test that fails |", "|---|---|---|", *rows, ""]
    return "\n".join([*lines, f"{killed} of {len(mutants)} killed."])


if __name__ == "__main__":
    main()
