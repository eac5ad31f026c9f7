#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`mkwrite run --snapshot`: what is in the copies, and that the program does not notice.

usage: snapshot.py MKWRITE [--list] [NAME-PART...]
"""
import glob
import os
import re
import signal
import subprocess
import sys

sys.dont_write_bytecode = True # next to the sources

# pylint: disable=wrong-import-position
from disk import MIB, MOUNT, Disk
from programs import compiled, output
from sandbox import HEAVY, WORK, Skip, main

HERE = os.path.dirname(os.path.abspath(__file__))
TIMES = 20 if HEAVY else 5
REFILL_PIECE, REFILL_PIECES = 64 << 10, 256


class Process:
    """A program below `mkwrite run --snapshot`."""

    def __init__(self, options, *command):
        self.process = subprocess.Popen([TOOL, "run", *options, "--", *command], cwd=WORK,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)

    def line(self, part=""):
        text = self.process.stdout.readline().decode()
        assert text and part in text, (part, text, self.process.stderr.read())
        return text

    def says(self, part):
        text = self.process.stderr.readline().decode()
        assert part in text, f"{part!r} is not in {text!r}"
        return text

    def snapshot(self, files=None):
        """Ask for one. Returns its stamp, and how many files were cloned."""
        self.process.send_signal(signal.SIGUSR1)
        return self.made(files)

    def made(self, files=None):
        text = self.says("")
        while "cannot reserve space" in text: # nor is it asked to
            text = self.says("")
        match = re.search(r"snapshot (\S+): (\d+) files?, .*, (\d+) of them cloned", text)
        assert match, text
        assert files in (None, int(match.group(2))), text
        return match.group(1), int(match.group(3))

    def end(self):
        """Its stdin ends, and it does. Returns the rest of its stdout, and what was said."""
        out, err = self.process.communicate()
        assert self.process.returncode == 0, (self.process.returncode, out, err)
        return out.decode(), err.decode()


def copies(path, stamp):
    """The copy of the file in the snapshot that was made last."""
    found = [name for name in glob.glob(f"{path}.snapshot-{stamp}*") if "-lock" not in name]
    assert found, (path, stamp, os.listdir(os.path.dirname(path)))
    return max(found, key=lambda name: (len(name), name))


def check_records(program, *paths):
    done = subprocess.run([program, "check", *paths], stdout=subprocess.PIPE, check=False)
    assert done.returncode == 0, (paths, done.stdout.decode())
    return int(done.stdout)


# ---- One instant ---------------------------------------------------------------------------------

def records(kind):
    program = compiled("records.c", "-pthread")
    Disk(kind, 320 * MIB)
    files = [os.path.join(MOUNT, name) for name in "ab"]
    process = Process(["--snapshot=USR1"], program, "write", *files, "2")
    process.line("ready")
    last = 0
    for _ in range(TIMES):
        stamp, cloned = process.snapshot(2)
        assert cloned == (2 if kind in ("xfs", "btrfs") else 0), cloned
        now = check_records(program, *(copies(path, stamp) for path in files))
        assert now > last, (now, last)
        last = now
    out, err = process.end()
    assert err == "" and check_records(program, *files) == int(out), (out, err)


def from_time_to_time():
    program = compiled("records.c", "-pthread")
    os.mkdir("copies")
    process = Process(["--snapshot=0.05", "--snapshot-dir=copies"], program, "write", "a", "b", "2")
    process.line("ready")
    for _ in range(TIMES):
        process.made()
    out, _ = process.end()
    assert check_records(program, "a", "b") == int(out)
    stamps = {name.split("-", 1)[1] for name in os.listdir("copies")}
    assert len(stamps) >= TIMES, stamps
    checked = 0
    for stamp in stamps:
        names = [f"copies/{name}.snapshot-{stamp}" for name in "ab"]
        if all(map(os.path.exists, names)): # one may not have been mapped yet
            check_records(program, *names)
            checked += 1
    assert checked >= TIMES - 1, (checked, stamps)


def refill(empty, how, *apart):
    """Up to some piece all have one byte, and the rest is empty, or has the one before."""
    process = Process(["--snapshot=USR1"], sys.executable, os.path.join(HERE, "refill.py"), "data",
                      empty, how, *apart)
    process.line("ready")
    for _ in range(4 * TIMES):
        stamp, _ = process.snapshot(1)
        with open(copies(os.path.join(WORK, "data"), stamp), "rb") as file:
            data = file.read()
        check_refill(data, empty, how)
    process.end()


def check_refill(data, empty, how):
    length = 4096 if how == "splice" else REFILL_PIECE // 2
    if empty != "never" and not data:
        return
    assert len(data) == REFILL_PIECE * REFILL_PIECES, len(data)
    for at in range(length, len(data), REFILL_PIECE):
        assert not any(data[at:at - length + REFILL_PIECE]), at
    pieces = [set(data[at:at + length]) for at in range(0, len(data), REFILL_PIECE)]
    new, old = pieces[0], pieces[-1]
    if new < old: # the last is the one that is being written
        old = old - new
    else:
        new = new - old or old
    assert len(old | new) <= 2, (old, new)
    if new != old and empty == "never":
        assert max(new) == max(old) % 255 + 1, (old, new)
    if empty != "never":
        assert old in ({0}, new), (old, new)
    # One may have been written just then.
    full = next((i for i, piece in enumerate(pieces) if piece != new), len(pieces))
    assert full == len(pieces) or (new != old and pieces[full] <= old | new), (old, new, full, pieces)
    assert all(piece == old for piece in pieces[full + 1:]), (old, new, full, pieces)


# ---- Programs ------------------------------------------------------------------------------------

def lmdb():
    if not os.path.exists("/usr/include/lmdb.h"):
        raise Skip("lmdb.h is not here (scripts/setup test)")
    process = Process(["--snapshot=USR1"], compiled("fill_lmdb.c", "-llmdb"), "data.mdb", "60",
                      "paced")
    for _ in range(5):
        process.process.stdin.write(bytes(10))
        process.process.stdin.flush()
        for _ in range(3):
            committed = int(process.line("committed").split()[1])
        stamp, _ = process.snapshot() # while the others are made
        for _ in range(7):
            process.line("committed")
        check_lmdb(copies(os.path.join(WORK, "data.mdb"), stamp), committed)
    process.end()
    check_lmdb("data.mdb", 60 * 500)


def check_lmdb(path, least):
    """All transactions up to some are there, and nothing else."""
    entries = int(re.search(r"Entries: (\d+)", output("mdb_stat", "-n", path).decode()).group(1))
    assert entries >= least and entries % 500 == 0, (entries, least)
    dump = output("mdb_dump", "-n", "-p", path).decode().split("HEADER=END\n")[1].splitlines()
    values = [line.split() for line in dump[1:-1:2]]
    assert sorted(int(number) for number, _ in values) == list(range(entries)), len(values)
    for number, value in values:
        assert value == number.zfill(100 + int(number) % 400), number


# ---- What goes wrong -----------------------------------------------------------------------------

def full():
    """No room for the copies: no copies, and nothing else."""
    program = compiled("records.c", "-pthread")
    Disk("tmpfs", MIB // 16) # less than has been written to by now
    process = Process(["--snapshot=USR1", f"--snapshot-dir={MOUNT}"], program, "write", "a", "b",
                      "2")
    process.line("ready")
    for _ in range(2):
        process.process.send_signal(signal.SIGUSR1)
        for name in "ab":
            process.says(f"no snapshot of {WORK}/{name}: No space left on device")
        assert os.listdir(MOUNT) == [], os.listdir(MOUNT)
    out, _ = process.end()
    assert check_records(program, "a", "b") == int(out)


def killed():
    """The program is killed while copies are made: what was mapped is in them all the same."""
    program = compiled("records.c", "-pthread")
    process = Process(["--snapshot=USR1"], program, "write", "a", "b", "2")
    process.line("ready")
    with open(f"/proc/{process.process.pid}/task/{process.process.pid}/children",
              encoding="ascii") as file:
        first = int(file.read().split()[0])
    process.process.send_signal(signal.SIGUSR1)
    os.kill(first, signal.SIGKILL)
    process.process.stdin.close()
    text = process.process.stderr.read().decode()
    process.process.wait()
    for stamp in re.findall(r"snapshot (\d+T\d+): 2 files", text):
        check_records(program, *(copies(os.path.join(WORK, name), stamp) for name in "ab"))


def no_directory():
    done = subprocess.run([TOOL, "run", "--snapshot=1", "--snapshot-dir=nowhere", "--", "true"],
                          stderr=subprocess.PIPE, check=False)
    assert done.returncode == 125 and b"nowhere: No such file" in done.stderr, done


def leave():
    """A program whose main thread has ended ends with the last of the others."""
    process = Process(["--snapshot=USR1"], compiled("records.c", "-pthread"), "leave", "a")
    process.end()


TOOL = os.path.abspath(sys.argv[1])
TESTS = [(f"records_{kind}", "copies are of one instant of threads, processes, views and pwrite",
          lambda kind=kind: records(kind)) for kind in ("tmpfs", "ext4", "xfs", "btrfs", "ext2")]
TESTS += [("seconds", "from time to time, into a directory", from_time_to_time)]
TESTS += [(f"refill_{empty}_{how}", "what is emptied and filled again is copied before",
           lambda empty=empty, how=how: refill(empty, how))
          for empty, how in (("ftruncate", "map"), ("truncate", "pwrite"), ("open", "write"),
                             ("never", "map"), ("never", "pwrite"), ("never", "write"),
                             ("never", "writev"), ("never", "sendfile"),
                             ("never", "copy_file_range"), ("never", "splice"))]
TESTS += [("refill_apart", "the same by a process that has nothing mapped",
           lambda: refill("truncate", "pwrite", "apart")),
          ("lmdb", "a copy of a database is one after some transaction", lmdb),
          ("full", "no room for copies costs nothing but them", full),
          ("killed", "a program that is killed meanwhile leaves a good copy", killed),
          ("no_directory", "that copies have nowhere to go is said at once", no_directory),
          ("leave", "a program ends with its last thread", leave)]
main(TESTS, sys.argv[2:])
