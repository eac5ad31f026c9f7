#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`mkwrite run` and real programs (programs.py) on disks that are really full (disk.py).

usage: run.py MKWRITE GROUP [--list] [NAME-PART...]

Each program of the group in each of these ways, on several file systems (all of them on all of
them with MKW_TEST_HEAVY=1):

same    there is room: it does what it does without mkwrite, and makes the same data
bounded the same with a dirty limit of 1 MiB, a trace, and no space reserved ahead
wait    there is not: natively it fails; under mkwrite run it waits until there is, and ends as if
        nothing had been
exec    the same, and --on-full-exec makes the room
exit    there is none to be had: it ends with 75, and its data is what it promises after a crash
signal  the same, with SIGBUS
tells   (programs that do not write to their mappings) there is not: it says so, as it natively does
"""
import errno
import os
import re
import signal
import subprocess
import sys

sys.dont_write_bytecode = True # next to the sources

# pylint: disable=wrong-import-position
from disk import MIB, WITHOUT_FALLOCATE, Disk
from programs import PROGRAMS
from sandbox import HEAVY, WORK, main

FULL = 75
WORDS = {errno.ENOSPC: "no space left on the device", errno.EDQUOT: "the disk quota is used up"}
CANNOT_RESERVE = b"cannot reserve space"
COMM_MAX = 15
DISK_MIB = 32


class Process:
    """A program that runs, its stdout in a file, its stderr to be read line by line."""
    runs = 0

    def __init__(self, command):
        Process.runs += 1
        self.command = command
        self.path = os.path.join(WORK, f"stdout.{Process.runs}")
        with open(self.path, "wb") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=subprocess.PIPE, cwd=WORK)
        self.err, self.status = b"", None

    def wait_line(self, *parts):
        """Read its stderr up to a line with all these parts."""
        for line in self.lines():
            if all(part.encode() in line for part in parts):
                return line.decode()
        self.end()
        raise AssertionError(f"it never said {parts}\n{self}")

    def lines(self):
        try:
            for line in self.process.stderr:
                self.err += line
                yield line
        except TimeoutError as failure:
            raise TimeoutError(f"{failure}\n{self}") from None

    def end(self):
        """Wait until it is over. Returns its exit status as subprocess has it."""
        for _ in self.lines():
            pass
        self.status = self.process.wait()
        return self.status

    @property
    def out(self):
        with open(self.path, "rb") as file:
            return file.read()

    def died_of(self, number):
        return self.status in (-number, 128 + number)

    def __str__(self):
        return f"{' '.join(self.command)}\nstatus {self.status}\nstdout: " \
               f"{self.out[-2000:].decode(errors='replace')}\nstderr: " \
               f"{self.err[-4000:].decode(errors='replace')}"


class Story:
    """A test: a program on a disk of a kind."""

    def __init__(self, program, kind):
        self.program = program
        program.prepare()
        self.disk = Disk(kind, DISK_MIB * MIB)

    def start(self, *options, room=None, native=False):
        command = self.program.command()
        self.disk.clear()
        self.program.begin()
        if room is not None:
            self.disk.fill(room)
            command += self.program.hurry if native else ()
        if not native:
            command = [TOOL, "run", *options, "--", *command]
        return Process(command)

    def start_full(self, *options, native=False):
        return self.start(*options, room=self.program.room_mib * MIB, native=native)

    def native(self):
        """What it says and makes where there is room."""
        process = self.start(native=True)
        assert process.end() == 0, process
        return self.made(process)

    def made(self, process):
        assert process.status == 0, process
        os.sync()
        return self.program.told(process.out), self.program.result()

    def mapped_bytes(self):
        path = self.program.mapped
        return os.stat(path).st_blocks * 512 if os.path.isfile(path) else 0

    def full_line(self, process):
        """What mkwrite run says of the full disk; returns the offset."""
        who = os.path.basename(self.program.command()[0])[:COMM_MAX] # or a thread's
        line = process.wait_line("mkwrite run: ", who, self.program.mapped,
                                 WORDS[self.disk.error], " at offset ")
        return int(re.search(r" at offset (\d+)", line).group(1))

    def check_native_fails(self):
        if self.disk.kind != "tmpfs" and self.program.goes_on:
            return
        process = self.start_full(native=True)
        process.end()
        if self.disk.kind == "bindfs":
            # Its pages never fail to be had; that they are lost may be found later.
            assert process.status != 0 or self.program.fails, process
        else:
            self.check_fails(process)

    def check_fails(self, process):
        """It ended as it natively does on a full disk."""
        if not self.program.fails:
            assert process.died_of(signal.SIGBUS), process
            return
        status, words = self.program.fails
        assert process.status == status, process
        assert words in process.err or words in self.program.told(process.out), process

    def check_quiet(self, process):
        """It says no more than how it is with this file system."""
        assert not self.own_words(process), process

    def own_words(self, process):
        """What is on its stderr, but for what mkwrite run says of the file system."""
        lines = process.err.splitlines()
        if self.disk.kind in WITHOUT_FALLOCATE:
            lines = [line for line in lines if CANNOT_RESERVE not in line]
        return lines

    # ---- The ways ---------------------------------------------------------------------------

    def same(self):
        want = self.native()
        want_bytes = self.mapped_bytes()
        process = self.start()
        process.end()
        assert self.made(process) == want, process
        self.check_quiet(process)
        assert self.mapped_bytes() <= want_bytes + 64 * 1024, (self.mapped_bytes(), want_bytes)

    def bounded(self):
        want = self.native()
        process = self.start("--dirty-limit=1M", "--reserve=0", f"--trace={WORK}/trace")
        process.end()
        assert self.made(process) == want, process
        self.check_quiet(process)
        assert os.stat("trace").st_size, "an empty trace"

    def wait(self):
        self.check_native_fails()
        want = self.native()
        process = self.start_full("--on-full=wait")
        self.full_line(process)
        self.disk.free()
        process.end()
        assert self.made(process) == want, process

    def exec(self):
        want = self.native()
        process = self.start_full(f"--on-full-exec={self.disk.free_command()}")
        self.full_line(process)
        process.end()
        assert self.made(process) == want, process

    def check_ended(self, process, offset):
        """Its data, after it was stopped at offset."""
        self.disk.free()
        self.program.promised(process.out, offset)

    def exit(self):
        process = self.start_full("--on-full=exit")
        offset = self.full_line(process)
        assert process.end() == FULL, process
        self.check_ended(process, offset)

    def signal(self):
        process = self.start_full("--on-full=signal")
        offset = self.full_line(process)
        process.end()
        self.check_fails(process)
        self.check_ended(process, offset)

    def tells(self):
        natively = self.start_full(native=True)
        natively.end()
        self.check_fails(natively)
        process = self.start_full()
        process.end()
        assert process.status == natively.status, process
        assert self.own_words(process) == natively.err.splitlines(), process
        self.check_ended(process, 0)


WHAT = {
    "same": "with room it does and makes the same as without mkwrite",
    "bounded": "with a dirty limit and a trace it makes the same",
    "wait": "on a full disk it waits for room, and ends as if nothing had been",
    "exec": "the command of --on-full-exec makes the room that it waits for",
    "exit": "it ends with 75, and its data is what it promises after a crash",
    "signal": "it gets SIGBUS, with a message, and its data is what it promises after a crash",
    "tells": "it tells of a full disk as it natively does",
}
KINDS = ("tmpfs", "ext4", "xfs", "btrfs", "ext2", "bindfs", "quota")


def chosen(program, kind, way):
    """Is it tried, each time or in heavy runs?"""
    # Free blocks are counted there, and the last ones may be counted for two at once.
    if program.several and kind == "bindfs" and way in ("wait", "exec"):
        return False
    if program.goes_on and way == "signal" and kind != "tmpfs":
        return False
    if HEAVY or kind == "tmpfs":
        return True
    if kind == "ext4":
        return way in ("same", "bounded", "wait", "exit", "tells")
    return program.everywhere and way in ("wait", "exit")


def list_tests(programs):
    def test(program, kind, way):
        return lambda: getattr(Story(program, kind), way)()

    return [(f"{name}_{way}_{kind}", WHAT[way], test(program, kind, way))
            for kind in KINDS for name, program in programs.items() for way in program.ways
            if chosen(program, kind, way)]


TOOL = os.path.abspath(sys.argv[1])
main(list_tests(PROGRAMS[sys.argv[2]]), sys.argv[3:])
