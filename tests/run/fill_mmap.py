# SPDX-License-Identifier: MIT
"""fill_mmap.py copy|read|fork FILE MIB: makes a sparse file, maps it, and fills it: by the
interpreter's own copying, by system calls that read into the mapping, or by children, each a part.
Then it verifies what it sees."""
import hashlib
import mmap
import os
import sys
import tempfile

CHILDREN = 4


def block(number):
    return b"".join(hashlib.sha256(b"%d %d" % (number, i)).digest() for i in range(32)) * 4


def copy(view, blocks, first=0):
    for number in range(first, blocks):
        view[number * 4096:(number + 1) * 4096] = block(number)


def read(view, blocks):
    with memoryview(view) as memory, tempfile.TemporaryFile() as source:
        for number in range(blocks):
            os.pwrite(source.fileno(), block(number), 0)
            with memory[number * 4096:(number + 1) * 4096] as page:
                assert os.preadv(source.fileno(), [page], 0) == 4096


def fork(view, blocks):
    part = blocks // CHILDREN
    for number in range(CHILDREN):
        if not os.fork():
            copy(view, (number + 1) * part, number * part)
            os._exit(0)
    statuses = [os.wait()[1] for _ in range(CHILDREN)]
    assert not any(statuses), statuses


def main():
    fill = {"copy": copy, "read": read, "fork": fork}[sys.argv[1]]
    path, size = sys.argv[2], int(sys.argv[3]) << 20
    with open(path, "w+b") as file:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size) as view:
            fill(view, size // 4096)
            view.flush()
            for number in range(size // 4096):
                assert view[number * 4096:(number + 1) * 4096] == block(number), number
    print("filled", size)


main()
