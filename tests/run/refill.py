# SPDX-License-Identifier: MIT
"""A program that empties a file it has mapped, and fills it again, until its stdin ends; each time
with another byte, from the front, with holes in between.

usage: refill.py FILE HOW-TO-EMPTY HOW-TO-FILL [apart]

apart: one process has it mapped, and another, that has not, does it.
"""
import mmap
import os
import select
import sys

PIECE, PIECES = 64 << 10, 256
SIZE = PIECE * PIECES
PATH, EMPTY, FILL = sys.argv[1:4]
APART = len(sys.argv) > 4


def empty(fd):
    if EMPTY == "ftruncate":
        os.ftruncate(fd, 0)
    elif EMPTY == "truncate":
        os.truncate(PATH, 0)
    elif EMPTY == "open":
        os.close(os.open(PATH, os.O_RDWR | os.O_TRUNC))
    os.ftruncate(fd, SIZE)


def fill(fd, at, piece, source):
    if FILL == "map":
        view[at:at + len(piece)] = piece
    elif FILL == "pwrite":
        os.pwrite(fd, piece, at)
    elif FILL == "write":
        os.lseek(fd, at, os.SEEK_SET)
        os.write(fd, piece)
    elif FILL == "writev":
        os.pwritev(fd, [piece[:5000], piece[5000:]], at)
    else:
        os.pwrite(source, piece, 0)
        if FILL == "sendfile":
            os.lseek(fd, at, os.SEEK_SET)
            os.sendfile(fd, source, 0, len(piece))
        elif FILL == "copy_file_range":
            os.copy_file_range(source, fd, len(piece), 0, at)
        else:
            os.write(pipe[1], piece[:4096])
            os.splice(pipe[0], fd, 4096, offset_dst=at)


fd = os.open(PATH, os.O_RDWR | os.O_CREAT, 0o600)
source = os.open(PATH + ".source", os.O_RDWR | os.O_CREAT, 0o600)
pipe = os.pipe()
os.ftruncate(fd, SIZE)
mapped = os.pipe()
child = os.fork() if APART else -1
if child:
    view = mmap.mmap(fd, SIZE)
if child > 0:
    view[SIZE - 1] = 0
    os.write(mapped[1], b"!")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
if APART:
    os.read(mapped[0], 1)
rounds = 0
while not select.select([0], [], [], 0)[0]:
    rounds += 1
    if EMPTY != "never":
        empty(fd)
    for number in range(PIECES):
        fill(fd, number * PIECE, bytes([rounds % 255 + 1]) * (PIECE // 2), source)
    if rounds == 3:
        print("ready", flush=True)
