"""Damaged, crafted and nonsensical input by the thousand; see tests/fuzz.

python benchmarks/fuzzing.py --cases 2000                     all kinds
python benchmarks/fuzzing.py --kind patterns --cases 100      one
python benchmarks/fuzzing.py --kind patterns --number 17      one case, with all that came of it
python benchmarks/fuzzing.py --cases 20000 --write            the table of docs/results.md
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

import tests.fuzz.kinds  # noqa: F401  # registers them
from tests.fuzz.cases import KINDS, shares
from tests.fuzz.harness import Harness, Tally

from results import processor, write_section


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--kind", action="append", choices=sorted(KINDS))
    parser.add_argument("--number", type=int, help="only this case of the kind")
    parser.add_argument("--first", type=int, default=0, help="number of each kind's first case")
    parser.add_argument("--process", action="store_true", help="each command as a process of its own")
    parser.add_argument("--write", action="store_true", help="write the table into docs/results.md")
    parser.add_argument("--failures", type=Path, help="file to add failures to, as JSON lines")
    options = parser.parse_args()
    if options.number is not None:
        with Harness() as harness:
            for kind in options.kind:
                print(json.dumps(harness.report(kind, options.number, process=options.process), indent=2))
        return
    counts = shares(options.cases)
    if options.kind:
        counts = {kind: options.cases // len(options.kind) for kind in options.kind}
    started = time.perf_counter()
    tally = Tally()
    with Harness() as harness:
        for kind, count in counts.items():
            numbers = range(options.first, options.first + count)
            found = harness.run(((kind, number) for number in numbers), process=options.process)
            tally.add(found)
            if options.failures:
                _append(options.failures, found)
            print(
                f"{kind}: {count:,} cases, {len(found.failures)} failures, "
                f"{time.perf_counter() - started:.0f} s so far",
                file=sys.stderr,
                flush=True,
            )
    minutes = (time.perf_counter() - started) / 60
    print(tally.table())
    for cause, failures in tally.causes():
        print(f"\n{len(failures):5}  {cause}\n       {failures[0]}")
    print(f"\n{minutes:.1f} minutes")
    if options.write:
        command = f"`python benchmarks/fuzzing.py --cases {options.cases} --write`"
        write_section("fuzzing", f"{tally.table()}\n\n{command}, {minutes:.0f} minutes on {processor()}.")
    sys.exit(bool(tally.failures))


def _append(path: Path, tally: Tally) -> None:
    with path.open("a", encoding="utf-8") as file:
        for failure in tally.failures:
            report = {"kind": failure.kind, "number": failure.number, **failure.report}
            file.write(f"{json.dumps(report)}\n")


if __name__ == "__main__":
    main()
