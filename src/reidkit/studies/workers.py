"""A study at work: its runs carried out, in this process or by several that share them, and its tables."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reidkit import logs
from reidkit.errors import ConfigError
from reidkit.files import write_atomically
from reidkit.studies.data_check import check_data
from reidkit.studies.execution import MOST_ATTEMPTS, carry_out, forget_failures, state_of
from reidkit.studies.study import Cell, Study, cells_of, load_study, study_text
from reidkit.studies.tables import StudyTable, tables_of, write_tables
from reidkit.studies.tasks import Folders, Task, tasks_of

logger = logs.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WantedStudy:
    """A study as a person asks for it.

    Attributes:
        name: of a shipped study, or a TOML file.
        overrides: ``key=value`` texts for every cell.
        out: the study's folder; ``runs/study-NAME`` where left out.
        runs: the run folders; ``runs`` in the study's folder where left out.
        only: cells to run, by a pattern on their names.
    """

    name: str
    overrides: Sequence[str] = ()
    out: Path | None = None
    runs: Path | None = None
    only: str | None = None

    @property
    def folders(self) -> Folders:
        out = self.out or Path("runs") / f"study-{Path(self.name).stem}"
        return Folders(out, self.runs or out / "runs")

    @property
    def words(self) -> list[str]:
        """The command line of a process that takes a share of the runs."""
        folders = self.folders
        words = ["study", self.name, *self.overrides, "--out", str(folders.out), "--runs", str(folders.runs)]
        return [*words, "--worker", *(["--only", self.only] if self.only else [])]


class StudyAtWork:
    """A study's cells and the runs that they take.

    Raises:
        ConfigError: a study, a cell or a configuration that cannot be used; ``only`` fits no cell.
        WriteError: a folder of the study's own is a link.
    """

    def __init__(self, wanted: WantedStudy) -> None:
        self.wanted, self.folders = wanted, wanted.folders
        self.study: Study = load_study(wanted.name)
        self.cells: list[Cell] = cells_of(self.study, wanted.overrides)
        self.folders.check()
        self.tasks: list[Task] = tasks_of(self.study, self.cells, only=wanted.only)

    def begin(self, *, again: bool) -> None:
        """Check the data and write the study's file down; ``again`` lets runs that failed be tried again.

        Raises as :func:`reidkit.studies.data_check.check_data` does.
        """
        check_data(self.tasks, self.folders)
        write_atomically(self.folders.out / "study.toml", study_text(self.wanted.name))
        if again:
            forget_failures(self.tasks, self.folders)

    @property
    def num_open(self) -> int:
        """Runs that are to be done."""
        return sum(state_of(task, self.folders) == "open" for task in self.tasks)

    @property
    def num_unfinished(self) -> int:
        """Runs that failed or are to be done."""
        return sum(state_of(task, self.folders) != "finished" for task in self.tasks)

    def carry_out(self, *, processes: int = 1) -> None:
        """Train and measure what is open, by several processes if that is asked for and worth it."""
        num_open = self.num_open
        if processes > 1 and num_open:
            most = MOST_ATTEMPTS * num_open
            run_workers(self.wanted.words, min(processes, num_open), most_restarts=most)
        elif num_open:
            self.take_part()

    def take_part(self) -> None:
        """Take runs that no other process has taken, until none is open."""
        carry_out(self.tasks, self.folders)

    def write_tables(self) -> tuple[list[StudyTable], list[Path]]:
        """The tables of what is finished, and the files that they were written to."""
        tables = tables_of(self.study, self.cells, self.folders)
        return tables, write_tables(self.study, tables, self.folders.out)


def run_workers(words: Sequence[str], num_workers: int, *, most_restarts: int = 0) -> None:
    """Processes that each take the next run. One that is killed leaves its run to others, and is replaced."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "reidkit", *words]
    asked: list[
        int
    ] = []  # to end; only noted at once, since a worker may be starting, which no list holds yet
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(num_workers):
            workers.append(subprocess.Popen(command, env=environment))
        while any(worker.poll() is None for worker in workers):
            time.sleep(0.2)
            if asked:
                raise SystemExit(128 + asked[0])  # as a shell reports it
            for place, worker in enumerate(workers):
                if (worker.poll() or 0) < 0 and most_restarts:  # by a signal: perhaps its memory ran out
                    workers[place] = subprocess.Popen(command, env=environment)
                    most_restarts -= 1
    except (KeyboardInterrupt, SystemExit) as stop:
        for worker in workers:
            if isinstance(stop, SystemExit):  # ctrl-C reached them too
                worker.terminate()
        for worker in workers:
            worker.wait()  # they save first
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    codes = [worker.returncode for worker in workers]
    if any(codes):
        logger.warning(
            f"{sum(map(bool, codes))} of {num_workers} worker processes ended early (exit codes {codes})"
        )
    if all(code == 2 for code in codes):
        raise ConfigError("no worker process could start; what they said stands above")
