import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from reidkit.training.kept_memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**26, dtype=np.uint8)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / 2**26)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries give memory back otherwise")
def test_freed_memory_is_used_again_without_new_pages():
    def arrays_of_new_pages(how):
        done = subprocess.run([sys.executable, "-c", FAULTS, how], check=True, stdout=subprocess.PIPE)
        return float(done.stdout)

    # NumPy asks for huge pages, of which a fault brings 512 at a time: the count alone says little.
    assert arrays_of_new_pages("kept") < 0.3 * arrays_of_new_pages("given back")
