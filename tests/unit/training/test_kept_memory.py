import platform
import subprocess
import sys

import pytest

HELD = """
import sys
from pathlib import Path
import numpy as np
from reidkit.training.kept_memory import keep_freed_memory

def resident_pages():
    return int(Path("/proc/self/statm").read_text().split()[1])

if sys.argv[1] == "kept":
    assert keep_freed_memory()
before = resident_pages()
array = np.ones(2**26, dtype=np.uint8)
filled = resident_pages()
del array
print((resident_pages() - before) / (filled - before))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries give memory back otherwise")
def test_freed_memory_stays_with_the_process():
    # What is resident, not how many faults brought it: those of huge pages are few whoever keeps them.
    def share_held_after_freeing(how):
        done = subprocess.run([sys.executable, "-c", HELD, how], check=True, stdout=subprocess.PIPE)
        return float(done.stdout)

    assert share_held_after_freeing("kept") > 0.9
    assert share_held_after_freeing("given back") < 0.1
