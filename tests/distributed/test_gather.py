"""Two processes give the loss and the gradients of one process with the whole batch.

The tests call this file's ``main`` once in two processes and read what these wrote.
"""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.nn.parallel import DistributedDataParallel

from reidkit.errors import DataError
from reidkit.training import distributed
from tests.distributed.ranks import NUM_RANKS, run_well
from tests.reference_losses import CASES, build, case_name

NUM_IDENTITIES, DIM = 4, 5
LABELS = [0, 0, 1, 1, 2, 0, 1, 3, 3, 3]  # identities 0 and 1 have images on both processes


class ModelAndLoss(nn.Module):
    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(7, DIM), nn.Tanh())
        self.loss = loss

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        embeddings = distributed.gather_with_gradient(self.model(images))
        return self.loss(embeddings, distributed.gather_labels(labels))


# --- in the tests' process -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    run_well(main, folder, folder=folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(NUM_RANKS)]


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_two_processes_equal_one(reports, case):
    torch.manual_seed(0)
    alone = ModelAndLoss(build(case, num_identities=NUM_IDENTITIES, dim=DIM)).double()
    value = alone(whole_batch(), torch.tensor(LABELS))
    value.backward()
    for report in reports:
        found = report["cases"][case_name(case)]
        assert found["value"] == pytest.approx(value.item(), abs=1e-10)
        assert found["gradients"].keys() == dict(alone.named_parameters()).keys()
        for name, parameter in alone.named_parameters():
            assert parameter.grad.abs().max() > 1e-6, f"{name} has no gradient: nothing is tested"
            gradient = torch.tensor(found["gradients"][name], dtype=torch.float64)
            torch.testing.assert_close(gradient, parameter.grad, rtol=0, atol=1e-10)


def test_gathers_in_the_order_of_ranks(reports):
    for report in reports:
        assert report["labels"] == LABELS
        assert report["gathered half"] == [[0.0, 1.0], [1.0, 1.0]]


def test_sums_gradients_over_processes(reports):
    """Rank r weighs the gathered rows by r + 1, so each row's gradient is 1 + 2."""
    for report in reports:
        assert report["summed gradient"] == [[3.0, 3.0]]


def test_unequal_lengths_are_an_error_on_every_process(reports):
    for report in reports:
        assert "the processes hold 1, 2 rows (rank 0 first)" in report["unequal"]
        assert "the processes hold 2, 1 rows" in report["unequal labels"]


def test_knows_its_place(reports):
    assert [report["rank"] for report in reports] == [0, 1]
    assert [report["is main"] for report in reports] == [True, False]
    assert [report["world size"] for report in reports] == [2, 2]


def test_all_talk_waits_for_a_process_that_works_alone(reports):
    """Longer than the process group's own limit, which is two seconds here."""
    for report in reports:
        assert report["talk after a long wait"] == [
            "words",
            [0, 1],
            [0, 1] if report["is main"] else None,
        ]


def test_shutdown_leaves_nothing_behind(reports):
    """A thread of gloo's that outlives the group may abort the process at its exit."""
    for report in reports:
        assert report["after shutdown"] == [0, 1]
        assert "pt_gloo_runloop" not in report["threads after shutdown"]


def test_without_torchrun_everything_is_local(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    distributed.initialise()
    assert not torch.distributed.is_initialized()
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    tensor = torch.ones(2, requires_grad=True)
    assert distributed.gather_with_gradient(tensor) is tensor
    assert distributed.gather_labels(tensor) is tensor
    distributed.barrier()
    distributed.shutdown()


# --- in each of the two processes ----------------------------------------------------------------------


def whole_batch() -> Tensor:
    return torch.randn(len(LABELS), 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def my_rows(whole: Tensor) -> Tensor:
    return whole.chunk(NUM_RANKS)[distributed.rank()]


def run_case(case) -> dict:
    torch.manual_seed(0)
    wrapped = DistributedDataParallel(
        ModelAndLoss(build(case, num_identities=NUM_IDENTITIES, dim=DIM)).double()
    )
    value = wrapped(my_rows(whole_batch()), my_rows(torch.tensor(LABELS)))
    value.backward()
    gradients = {name: parameter.grad.tolist() for name, parameter in wrapped.module.named_parameters()}
    return {"value": value.item(), "gradients": gradients}


def message_of(call, *arguments) -> str:
    try:
        call(*arguments)
    except DataError as error:
        return str(error)
    return "no error"


def brought(item: object, *, late_by: int) -> object:
    """The item; the process of that rank takes long to bring it."""
    if distributed.rank() == late_by:
        time.sleep(2.5)
    return item


def main(folder: Path) -> None:
    distributed.initialise()
    distributed.initialise()  # a second call changes nothing
    rank = distributed.rank()
    report = {"rank": rank, "world size": distributed.world_size(), "is main": distributed.is_main()}
    report["cases"] = {case_name(case): run_case(case) for case in CASES}
    report["labels"] = distributed.gather_labels(my_rows(torch.tensor(LABELS))).tolist()

    row = torch.tensor([[float(rank), 1.0]]).half().requires_grad_()
    gathered = distributed.gather_with_gradient(row)
    ((rank + 1) * gathered).sum().backward()
    report["gathered half"], report["summed gradient"] = gathered.tolist(), row.grad.tolist()

    report["unequal"] = message_of(distributed.gather_with_gradient, torch.zeros(rank + 1, 3))
    report["unequal labels"] = message_of(distributed.gather_labels, torch.zeros(2 - rank))
    _set_pg_timeout(timedelta(seconds=2))
    report["talk after a long wait"] = [
        distributed.from_main(brought("words" if rank == 0 else None, late_by=0)),
        distributed.gather_objects(brought(rank, late_by=1)),
        distributed.gather_on_main(brought(rank, late_by=1)),
    ]
    distributed.shutdown()
    report["after shutdown"] = [distributed.rank(), distributed.world_size()]
    report["threads after shutdown"] = [
        path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")
    ]
    (folder / f"{rank}.json").write_text(json.dumps(report))
