"""Processes that need no seconds for imports: forked from one that has imported torch already.

What a new Python does by itself, as which modules it imports, is tested with one.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["reidkit.training.trainer", "timm", "torch._dynamo"])


def start(
    target: Callable[..., Any],
    *arguments: Any,
    says: Path,
    environment: Mapping[str, str] | None = None,
) -> BaseProcess:
    """Call ``target`` in a process with a session of its own, on one thread.

    Args:
        target: of a module that can be imported.
        arguments: of it.
        says: where its standard output and error are kept, with .stdout and .stderr at the end.
        environment: what is otherwise in there than here.
    """
    process = _CONTEXT.Process(target=_run, args=(says, dict(environment or {}), target, arguments))
    process.start()
    return process


def said(says: Path, stream: str) -> str:
    """What a process that was started with ``says`` has said on "stdout" or "stderr"."""
    path = says.with_name(f"{says.name}.{stream}")
    return path.read_text() if path.exists() else ""


def command(*words: object, path: Path | None = None) -> None:
    """The ``reid`` command, as a target; with a folder whose modules can be imported."""
    from reidkit.cli import main

    if path is not None:
        sys.path.insert(0, str(path))
    sys.argv = ["reid", *map(str, words)]
    main()


def _run(
    says: Path, environment: dict[str, str], target: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    import torch

    os.setsid()
    for descriptor, stream in ((1, "stdout"), (2, "stderr")):
        with says.with_name(f"{says.name}.{stream}").open("w") as file:
            os.dup2(file.fileno(), descriptor)
    os.environ |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment}
    torch.set_num_threads(1)
    target(*arguments)
