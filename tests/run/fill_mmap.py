# SPDX-License-Identifier: MIT
"""fill_mmap.py copy|read FILE MIB: makes a sparse file, maps it, and fills it, by the interpreter's
own copying or by system calls that read into the mapping; then verifies what it sees."""
import hashlib
import mmap
import os
import sys
import tempfile


def block(number):
    return b"".join(hashlib.sha256(b"%d %d" % (number, i)).digest() for i in range(32)) * 4


def copy(view, blocks):
    for number in range(blocks):
        view[number * 4096:(number + 1) * 4096] = block(number)


def read(view, blocks):
    with memoryview(view) as memory, tempfile.TemporaryFile() as source:
        for number in range(blocks):
            os.pwrite(source.fileno(), block(number), 0)
            with memory[number * 4096:(number + 1) * 4096] as page:
                assert os.preadv(source.fileno(), [page], 0) == 4096


def main():
    fill, path, size = {"copy": copy, "read": read}[sys.argv[1]], sys.argv[2], int(sys.argv[3]) << 20
    with open(path, "w+b") as file:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size) as view:
            fill(view, size // 4096)
            view.flush()
            for number in range(size // 4096):
                assert view[number * 4096:(number + 1) * 4096] == block(number), number
    print("filled", size)


main()
