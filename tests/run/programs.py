# SPDX-License-Identifier: MIT
"""Programs of Debian's packages that map files and write to them: how each is run so that it makes
about 8 MiB of data in files at MOUNT, what it then has, in the words of its own tools, and what it
promises of its data when it was stopped in the middle.
"""
import glob
import hashlib
import os
import re
import struct
import subprocess

from disk import MIB, MOUNT, find
from sandbox import WORK, Skip

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3" # Debian's: the one that has its numpy
DATA = os.path.join(MOUNT, "data")
DATA_MIB = 8


def output(*command, status=0, data=None):
    """What a tool says on stdout and stderr; its exit status must be this."""
    done = subprocess.run([find(command[0]), *command[1:]], input=data or b"",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout[-2000:].decode()}"
    return done.stdout


def digest(data):
    return hashlib.sha256(data).hexdigest()


def file_digest(path):
    with open(path, "rb") as file:
        return digest(file.read())


def records(count, width):
    """Lines of keys and values, the same each time."""
    return b"".join(b"key%06d\tvalue %0*d\n" % (i, width, i * 7919) for i in range(count))


def compiled(source, *flags):
    """A program of this directory, built in WORK."""
    program = os.path.join(WORK, os.path.splitext(source)[0])
    output("cc", "-O1", "-o", program, os.path.join(HERE, source), *flags)
    return program


class Program:
    """One way to use a program. In all of them, prepare() is called once for a test, begin()
    before each run, on an empty disk."""

    mapped = DATA      # the file that is written by mapping
    fails = None       # how, natively, on a full disk: its status and what it says; None: of SIGBUS
    hurry = ()         # options without which it would then never end
    several = False    # threads or processes write at once
    goes_on = False    # it takes the signal thousands of times, which only tmpfs is quick at
    room_mib = 2       # of disk, when it is to run full
    ways = ("same", "bounded", "wait", "exec", "exit", "signal")
    everywhere = False # on all file systems each time

    def prepare(self):
        pass

    def begin(self):
        pass

    def command(self):
        raise NotImplementedError

    def told(self, text):
        """What of its stdout is the same each time. (On stderr, when it ends well, is nothing.)"""
        return text

    def result(self):
        """What it has made, by its own tools: the same each time."""
        raise NotImplementedError

    def promised(self, out, offset):
        """Check what it promises when it was stopped, having said out, at an offset of mapped."""
        raise NotImplementedError


class Lmdb(Program):
    """LMDB with MDB_WRITEMAP: a committed transaction is there, whatever happens."""
    transactions = 16
    everywhere = True

    def prepare(self):
        if not os.path.exists("/usr/include/lmdb.h"):
            raise Skip("lmdb.h is not here (scripts/setup test)")
        self.program = compiled("fill_lmdb.c", "-llmdb")

    def command(self):
        return [self.program, DATA, str(self.transactions)]

    def result(self):
        stat = output("mdb_stat", "-n", DATA)
        return stat, digest(output("mdb_dump", "-n", DATA))

    def promised(self, out, offset):
        committed = int(out.split()[-1]) if out else 0
        stat = output("mdb_stat", "-n", DATA).decode()
        assert int(re.search(r"Entries: (\d+)", stat).group(1)) == committed, (committed, stat)
        dump = output("mdb_dump", "-n", "-p", DATA).decode().split("HEADER=END\n")[1].splitlines()
        values = [line.split() for line in dump[1:-1:2]]
        numbers = sorted(int(number) for number, _ in values)
        assert numbers == list(range(committed)), f"{len(numbers)} of {committed}"
        for number, value in values:
            assert value == number.zfill(100 + int(number) % 400), number


class Cabinet(Program):
    """A database that is made and filled by its manager's import of tab-separated values. Stopped,
    it is repaired by the manager when told to; what is then there is what was put."""

    def __init__(self, manager, imports, repair, lines=(20000, 400), create=()):
        self.manager, self.imports, self.repair = manager, imports, repair
        self.lines, self.create = lines, create

    def prepare(self):
        find(self.manager)
        self.source = os.path.join(WORK, "records")
        with open(self.source, "wb") as file:
            file.write(self.records())

    def records(self):
        return records(*self.lines)

    def begin(self):
        output(self.manager, "create", DATA, *self.create)

    def command(self):
        return [self.manager, self.imports, DATA, self.source]

    def dump(self):
        lines = output(self.manager, "list", "-pv", DATA).splitlines()
        return sorted(line.rstrip(b"\t") for line in lines)

    def result(self):
        dump = self.dump()
        assert len(dump) == self.lines[0], len(dump)
        return digest(b"\n".join(dump))

    def promised(self, out, offset):
        output(self.manager, self.repair, DATA)
        there, put = self.dump(), set(self.records().splitlines())
        assert there, "nothing is left"
        wrong = [line for line in there if line not in put]
        assert not wrong, f"{len(wrong)} of {len(there)}: {wrong[0][:200]}"


class FixedCabinet(Cabinet):
    """Tokyo Cabinet's arrays: keys are numbers."""

    def records(self):
        count, width = self.lines
        return b"".join(b"%d\t%0*d\n" % (i, width, i * 7919) for i in range(1, count + 1))

    def promised(self, out, offset):
        # Its records are in order and a little wider, and can be asked for by number.
        last = offset // (self.lines[1] + 32)
        for number in (1, last // 2, last - 1):
            value = output(self.manager, "get", DATA, str(number)).strip()
            assert value == b"%0*d" % (self.lines[1], number * 7919), number


class Fio(Program):
    """fio's mmap engine; its blocks carry checksums, which it verifies in a second run."""
    block = 64 << 10
    size_mib = DATA_MIB

    def __init__(self, rw):
        self.rw = rw

    def begin(self):
        find("fio")
        with open(DATA, "wb") as file:
            file.truncate(self.size_mib * MIB)

    def job(self, rw, size, *options):
        return ["fio", "--name=mapped", f"--filename={DATA}", "--ioengine=mmap", f"--rw={rw}",
                f"--bs={self.block}", f"--size={size}", "--fallocate=none", "--randseed=7",
                "--allow_file_create=0", "--verify=crc32c", "--verify_fatal=1", "--thread",
                f"--aux-path={WORK}", *options]

    def command(self):
        return self.job(self.rw, self.size_mib * MIB, "--do_verify=1", "--output-format=terse")

    def told(self, text):
        # Errors, bytes written and read; the rest is times.
        return [[line.split(b";")[i] for i in (2, 4, 5, 46)] for line in text.splitlines()]

    def result(self):
        output(*self.job("read", self.size_mib * MIB, "--verify_only=0"))
        return "verified"

    def promised(self, out, offset):
        size = offset // self.block * self.block
        if self.rw == "write" and size:
            output(*self.job("read", size))


class StressNg(Program):
    """stress-ng's stressors verify what is in their mappings by themselves. They meet SIGBUS with a
    handler of their own and try again, and get nothing done."""
    mapped = "" # they remove it first
    fails = (0, b" 0 ")
    hurry = ("--timeout", "1s")

    def __init__(self, ways, *stressor):
        self.ways, self.stressor = ways, stressor

    def command(self):
        return ["stress-ng", "--seed", "1", "--temp-path", MOUNT, "--verify", "--metrics-brief",
                "--stdout", *self.stressor]

    def result(self):
        left = [name for name in os.listdir(MOUNT) if name != "filler" and name != "lost+found"]
        assert not left, left
        return "nothing left behind"

    def told(self, text):
        lines = re.findall(rb"metrc: \[\d+\] ([a-z-]+) +(\d+) ", text)
        assert lines, text
        return b"".join(b"%s %s " % line for line in lines)


class Python(Program):
    """The mmap module. Stopped, it has filled the file up to where it was."""
    script = "fill_mmap.py"
    everywhere = True

    def __init__(self, *arguments):
        self.arguments = arguments

    def prepare(self):
        if not os.path.exists(PYTHON):
            raise Skip(f"there is no {PYTHON}")

    def command(self):
        return [PYTHON, os.path.join(HERE, self.script), *self.arguments, DATA, str(DATA_MIB)]

    def result(self):
        return file_digest(DATA)

    def whole(self):
        """The bytes of the file when it is done."""
        kept = os.path.join(WORK, "whole")
        if not os.path.exists(kept):
            output(*[kept if word == DATA else word for word in self.command()])
        with open(kept, "rb") as file:
            return file.read()

    def promised(self, out, offset):
        with open(DATA, "rb") as file:
            there = file.read()
        whole = self.whole()
        assert len(there) == len(whole)
        assert there[:offset] == whole[:offset]
        assert not any(there[offset + 4096:])


class PythonFork(Python):
    """The same by children, which inherit the mapping: natively they die."""
    everywhere = False
    ways = ("same", "bounded", "wait", "exec")
    fails = (1, b"AssertionError: [7, 7, 7, 7]")
    several = True
    room_mib = 1 # none of them has enough


class PythonRead(Python):
    """The same by system calls that read into the mapping: natively they fail with EFAULT."""
    everywhere = False
    fails = (1, b"Bad address")


class Numpy(Python):
    """numpy.memmap."""
    everywhere = False
    script = "fill_numpy.py"

    def prepare(self):
        super().prepare()
        if not glob.glob("/usr/lib/python3/dist-packages/numpy"):
            raise Skip("Debian's numpy is not here (scripts/setup test)")

    def promised(self, out, offset):
        with open(DATA, "rb") as file:
            there = file.read()
        # Rows are filled 64 at a time, twice; where pages are copied the second time may fail.
        step = 64 * 4096
        sure = offset // step * step
        assert there[:sure] == self.whole()[:sure]
        assert not any(there[sure + step:])


class Java(Program):
    """FileChannel.map in a JVM, which has handlers for SIGSEGV and SIGBUS: natively an exception is
    thrown."""
    fails = (1, b"InternalError: a fault occurred in")
    goes_on = True
    several = True
    threads = 2

    def prepare(self):
        find("java")
        output("javac", "-d", WORK, os.path.join(HERE, "FillMap.java"))

    def command(self):
        # With another collector threads look only after long loops whether they are to throw.
        return ["java", "-Xmx64m", "-XX:+UseG1GC", "-cp", WORK, "FillMap", DATA, str(DATA_MIB),
                str(self.threads)]

    def result(self):
        return file_digest(DATA)

    def promised(self, out, offset):
        with open(DATA, "rb") as file:
            there = file.read()
        assert len(there) == DATA_MIB * MIB
        words = struct.unpack(f"{len(there) // 8}Q", there)
        # By big-endian words, as ByteBuffers have them.
        for number, word in enumerate(words):
            want = (number * 0x9E3779B97F4A7C15) & 0xffffffffffffffff
            assert word in (0, int.from_bytes(want.to_bytes(8, "big"), "little")), number


class Sqlite(Program):
    """The shell with its file mapped, and a write-ahead log, whose index is shared memory in a
    file. It writes its data by system calls, so it is itself that tells of a full disk."""
    ways = ("same", "bounded", "tells")
    fails = (1, b"Runtime error near line")

    def command(self):
        return ["sqlite3", "-bail", DATA, f".read {os.path.join(HERE, 'fill.sql')}"]

    def result(self):
        assert output("sqlite3", DATA, "PRAGMA integrity_check") == b"ok\n"
        return digest(output("sqlite3", DATA, ".dump"))

    def promised(self, out, offset):
        assert output("sqlite3", DATA, "PRAGMA integrity_check") == b"ok\n"
        count = int(output("sqlite3", DATA, "SELECT count(*) FROM kept"))
        assert count % 1000 == 0, count


PROGRAMS = {
    "lmdb": {"lmdb": Lmdb()},
    "cabinet": {
        "tokyo_hash": Cabinet("tchmgr", "importtsv", "optimize"),
        "tokyo_fixed": FixedCabinet("tcfmgr", "importtsv", "optimize", (8000, 1000), ("1024",)),
        "kyoto_hash": Cabinet("kchashmgr", "import", "check"),
        "kyoto_tree": Cabinet("kctreemgr", "import", "check"),
    },
    "sqlite": {"sqlite": Sqlite()},
    "fio": {"fio_write": Fio("write"), "fio_randwrite": Fio("randwrite")},
    "stress_ng": {
        "stress_mmap": StressNg(("same", "bounded", "wait", "exec"), "--mmap", "1", "--mmap-file",
                                "--mmap-bytes", "8m", "--mmap-ops", "5"),
        "stress_msync": StressNg(("same", "bounded"), "--msync", "1", "--msync-bytes", "8m",
                                 "--msync-ops", "40"),
        "stress_madvise": StressNg(("same", "bounded"), "--madvise", "1", "--madvise-ops", "3"),
        "stress_fault": StressNg(("same", "bounded"), "--fault", "1", "--fault-ops", "500"),
    },
    "python": {
        "python_mmap": Python("copy"),
        "python_read": PythonRead("read"),
        "python_fork": PythonFork("fork"),
        "numpy": Numpy(),
    },
    "java": {"java": Java()},
}
