# SPDX-License-Identifier: MIT
"""fill_numpy.py FILE MIB: fills a numpy.memmap by whole-array arithmetic, and says its sum."""
import sys

import numpy

path, size = sys.argv[1], int(sys.argv[2]) << 20
rows = numpy.memmap(path, dtype=numpy.uint32, mode="w+", shape=(size // 4096, 1024))
for start in range(0, len(rows), 64):
    rows[start:start + 64] = numpy.arange(start, start + 64, dtype=numpy.uint32)[:, None] + 1
    rows[start:start + 64] *= numpy.uint32(2654435761)
rows.flush()
print("sum", int(rows.sum(dtype=numpy.uint64)))
