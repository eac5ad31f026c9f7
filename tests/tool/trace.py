#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`mkwrite trace`, given traces that are written here, by the description of the format alone.

usage: trace.py MKWRITE [--list] [NAME-PART...]

What it tells is compared with what a second, plain reckoning finds (class Trace). The picture is
read as XML, and looked at in Chromium where there is one. Tests are as in tool.py.
"""
import csv
import ctypes
import io
import os
import pty
import random
import select
import shutil
import statistics
import struct
import subprocess
import sys
import xml.etree.ElementTree
import zlib

sys.dont_write_bytecode = True # the source directory is left as it is
import tool # pylint: disable=wrong-import-position
# pylint: disable-next=wrong-import-position
from tool import FAILED, OK, USAGE, Skip, check_error, read, write

PROCESS, FORK, FILE, MODULE, WRITE, CALL, SYNC, LOST, END = range(1, 10)
KINDS = {WRITE: "write", CALL: "call", SYNC: "sync"}
UNNAMED = 65535
SECOND = 10**9
START = 1_600_000_000 * SECOND
SVG = "{http://www.w3.org/2000/svg}"
PICTURE_MAX_BYTES = 4 << 20


def number(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7f | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def record(kind, *numbers, text=b""):
    payload = b"".join(map(number, numbers)) + text
    return struct.pack("<BH", kind, len(payload)) + payload


def head(magic=b"MKWTRACE", version=1, size=32):
    return magic + struct.pack("<IIQQ", version, size, 12345, START)


class Trace:
    """A trace in the making, and its events."""

    def __init__(self):
        self.records = [head()]
        self.events = [] # (time, kind, pid, tid, file, offset, length, caller)
        self.files = {}

    def add(self, *fields, text=b""):
        self.records.append(record(*fields, text=text))
        return self

    def process(self, time, pid, *words):
        return self.add(PROCESS, time, pid, text=b"".join(w.encode() + b"\0" for w in words))

    def file(self, place, path, size=1 << 20):
        self.files[place] = os.fsencode(path)
        return self.add(FILE, place, 2049, 77 + place, size, text=os.fsencode(path))

    def event(self, kind, time, pid, tid, place, offset, length, caller=0):
        self.events.append((time, kind, pid, tid, place, offset, length, caller))
        return self.add(kind, time, pid, tid, place, offset, length, caller)

    def write(self, time, place, offset, length=4096, tid=100, caller=0):
        return self.event(WRITE, time, 100, tid, place, offset, length, caller)

    def sync(self, time, place, offset=0, length=0, tid=100):
        return self.event(SYNC, time, 100, tid, place, offset, length)

    def end(self, time, status=0):
        return self.add(END, time, status)

    def save(self, path="t"):
        write(path, b"".join(self.records))
        return path


def trace(*arguments, **keywords):
    return tool.run("trace", *arguments, **keywords)


def small():
    return (Trace().process(0, 100, "/usr/bin/filler", "--fast").file(0, "/srv/data.db")
            .write(1 * SECOND, 0, 0).write(2 * SECOND, 0, 4096).write(3 * SECOND, 0, 65536, 8192)
            .sync(4 * SECOND, 0).write(9 * SECOND, 0, 40960).event(
                CALL, 9 * SECOND + 1000, 100, 101, 0, 45056, 4096).end(10 * SECOND, 3 << 8))


# ---- The command line ---------------------------------------------------------------------------

def test_usage():
    """What cannot be asked for is exit status 2; a file that is not there 1."""
    small().save()
    check_error(trace(expect=USAGE), "trace", "FILE")
    check_error(trace("t", "t", expect=USAGE), "trace", "FILE")
    check_error(trace("--csv", "--json", "t", expect=USAGE), "trace", "exclude")
    check_error(trace("--csv", "--svg=x", "t", expect=USAGE), "trace", "exclude")
    check_error(trace("--by=callers", "t", expect=USAGE), "trace", "--by")
    check_error(trace("--svg=x", "--by=moon", "t", expect=USAGE), "trace", "moon")
    check_error(trace("--svg=./t", "t", expect=USAGE), "trace", "that is the trace")
    check_error(trace("none", expect=FAILED), "trace", "none: No such file")
    check_error(trace("--svg=no/x", "t", expect=FAILED), "trace", "no/x: No such file")
    check_error(trace(".", expect=FAILED), "trace", ".: not a regular file")
    check_error(trace("--file=x", "t", expect=FAILED), "trace", "is called x")
    assert sorted(os.listdir()) == ["t"]
    os.mkfifo("pipe") # nobody writes there
    check_error(trace("pipe", expect=FAILED), "trace", "pipe: not a regular file")


# ---- What it tells ------------------------------------------------------------------------------

def test_summary():
    """The summary has the counts, what was sequential, the pause, who it was, and the end."""
    text = trace(small().save()).out.decode()
    for part in ("exit status 3", "5 first writes of 24 KiB, 1 sync, 1 file",
                 "/srv/data.db (1 MiB)",
                 "5, 24 KiB; 40% sequential; 1 by system calls", "0 to 73728",
                 "longest pause 6.00 s, at 3.00 s", "median 3, at most 3",
                 "100 /usr/bin/filler --fast", "thread 101"):
        assert part in text, (part, text)


def test_summary_signal():
    """A program ended by a signal, one that did not end, and missing events are told."""
    made = Trace().file(0, "f").write(1, 0, 0).add(LOST, 12).add(LOST, 30)
    text = trace(made.save()).out.decode()
    assert "the end is not in the trace" in text and "42 events are missing" in text, text
    assert "ended by signal 9" in trace(made.end(5, 9).save()).out.decode()
    told = trace("--json", "t").json()
    assert told["signal"] == 9 and told["exit_status"] is None and told["events_missing"] == 42


def reckon(made, chosen):
    """Of the events of each chosen file: what the summary is to have."""
    told, last_of_thread = {}, {}
    for place, path in made.files.items():
        if place not in chosen:
            continue
        mine = [e for e in made.events if e[4] == place]
        writes = [e for e in mine if e[1] != SYNC]
        sequential, last, counts, since = 0, None, [], 0
        for _, kind, _, tid, _, offset, length, _ in mine:
            if kind == SYNC:
                counts.append(since)
                since = 0
                continue
            since += 1
            sequential += offset in (last, last_of_thread.get((place, tid)))
            last = last_of_thread[place, tid] = offset + length
        times = sorted(e[0] for e in writes)
        told[path] = {
            "first_writes": len(writes), "bytes": sum(e[6] for e in writes), "syncs": len(counts),
            "by_call": sum(e[1] == CALL for e in writes), "sequential": sequential,
            "first_offset": min((e[5] for e in writes), default=0),
            "end_offset": max((e[5] + e[6] for e in writes), default=0),
            "longest_pause_ns": max((b - a for a, b in zip(times, times[1:])), default=0),
            "first_writes_between_syncs":
                {"median": statistics.median_low(counts), "max": max(counts)} if counts else None,
        }
    return told


def some(seed, count=3000, files=4):
    """Threads of one process, each in its own file, here and there or in sequence."""
    chance = random.Random(seed)
    made = Trace().process(0, 100, "prog")
    for place in range(files):
        made.file(place, f"/srv/file-{place}")
    time, at = 0, 0
    for _ in range(count):
        time += chance.choice([0, 1, 1000, 1000000])
        place = chance.randrange(files)
        tid = 100 + place # so that what is sequential by threads is so by files
        if chance.random() < 0.05:
            made.sync(time, place, *chance.choice([(0, 0), (4096, 8192)]), tid=tid)
            continue
        at = at + 4096 if chance.random() < 0.5 else chance.randrange(1 << 20) * 4096
        made.event(chance.choice([WRITE, CALL]), time, 100, tid, place, at,
                   4096 * chance.choice([1, 1, 2, 16]), chance.choice([0, 0x1000, 0x2000]))
    return made


def test_json():
    """--json has what a second reckoning finds, of random traces, and every event."""
    for seed in range(5):
        made = some(seed)
        told = trace("--json", made.save()).json()
        expected = reckon(made, range(4))
        assert len(told["files"]) == 4
        for entry in told["files"]:
            wanted = expected[entry["path"].encode()]
            assert wanted == {key: entry[key] for key in wanted}, (seed, entry, wanted)
        assert told["first_writes"] == sum(f["first_writes"] for f in told["files"])
        assert told["start_unix_ns"] == START and told["cut"] is False
        events = [(e["time_ns"], e["kind"], e["pid"], e["tid"], e["file"], e["offset"], e["length"],
                   e["caller"]) for e in told["events"]]
        assert events == [(t, KINDS[k], *rest, hex(c) if c else None)
                          for t, k, *rest, c in made.events]
        for thread in told["threads"]:
            mine = [e for e in made.events if e[3] == thread["tid"]]
            assert thread["syncs"] == sum(e[1] == SYNC for e in mine)
            assert thread["bytes"] == sum(e[6] for e in mine if e[1] != SYNC)
        for caller in told["callers"]:
            mine = [e for e in made.events if hex(e[7]) == caller["caller"]]
            assert caller["first_writes"] == sum(e[1] != SYNC for e in mine)


def test_csv():
    """--csv has every event in a line, as a parser of CSV reads it."""
    made = some(7)
    made.file(9, '/srv/a "b",\nc').write(10**12 + 5, 9, 8192)
    rows = list(csv.reader(io.StringIO(trace("--csv", made.save()).out.decode(), newline="")))
    assert rows[0] == ["time_s", "kind", "pid", "tid", "file", "offset", "length", "caller"]
    assert len(rows) == len(made.events) + 1
    for row, (time, kind, pid, tid, place, offset, length, caller) in zip(rows[1:], made.events):
        assert row == [f"{time // SECOND}.{time % SECOND:09}", KINDS[kind], str(pid), str(tid),
                       made.files[place].decode(), str(offset), str(length),
                       hex(caller) if caller else ""], row


def test_file():
    """--file chooses by the path or the end of it: nothing else is counted, listed or drawn."""
    made = some(3)
    made.save()
    for name in ("/srv/file-2", "file-2", "srv/file-2"):
        told = trace("--json", f"--file={name}", "t").json()
        assert [f["path"] for f in told["files"]] == ["/srv/file-2"]
        assert {e["file"] for e in told["events"]} == {2}
        wanted = reckon(made, [2])[b"/srv/file-2"]
        assert wanted == {key: told["files"][0][key] for key in wanted}
        assert told["bytes"] == wanted["bytes"]
    for name in ("ile-2", "2", "", "/file-2"):
        check_error(trace(f"--file={name}", "t", expect=FAILED), "trace", "no file of the trace")
    assert b"file-1" not in trace("--file=file-2", "--svg=-", "t").out
    assert b"file-1" not in trace("--file=file-2", "t").out


def test_unnamed():
    """Events of files that were one too many are told under a name for all of them."""
    made = Trace().file(0, "f").write(1, 0, 0).write(2, UNNAMED, 4096).write(3, UNNAMED, 8192)
    told = trace("--json", made.save()).json()
    assert [f["first_writes"] for f in told["files"]] == [1, 2]
    assert b"files past the first" in trace("t").out


# ---- Names --------------------------------------------------------------------------------------

def test_hostile_names():
    """No name reaches the terminal as it is, and none breaks JSON, CSV or XML."""
    names = [b"/a\x1b[31mred", b"/b\xff\xc3(\xed\xa0\x80", b'/c"<&>\'', b"/d\n\r\t",
             b"/e]]>", b"/f\xef\xbf\xbf", b"/g\xc2\x9b31m", b"/" + b"h" * 4000,
             "/i-\u00fc-\U0001f600".encode()]
    made = Trace().process(0, 100, "\x1b]0;title\x07", "<script>alert(1)</script>", "")
    for place, name in enumerate(names):
        made.file(place, name)
        made.write(place, place, 0)
    made.add(MODULE, 100, 0x1000, 0x2000, 0, 1, 1, text=b"/lib/\x1b[2J<evil>&.so")
    made.write(50, 0, 4096, caller=0x1800).end(100).save()
    for arguments in (("t",), ("--svg=-", "t"), ("--svg=-", "--by=callers", "t"), ("--json", "t")):
        out = trace(*arguments).out
        out.decode()
        assert not [c for c in out if c < 0x20 and c != 0x0a], arguments
        assert b"\xc2\x9b" not in out or "--json" in arguments
    assert len(trace("--json", "t").json()["files"]) == len(names)
    picture = xml.etree.ElementTree.fromstring(trace("--svg=-", "t").out)
    assert not picture.findall(f".//{SVG}script")
    assert any("<script>" in (text.text or "") for text in picture.iter(f"{SVG}text"))
    shown = [t.text for t in picture.iter(f"{SVG}title")]
    assert "/b" + "\ufffd" * 2 + "(" + "\ufffd" * 3 in shown, shown
    paths = [row[4] for row in csv.reader(io.StringIO(
        trace("--csv", "t").out.decode(errors="surrogateescape"), newline=""))][1:]
    assert [os.fsencode(path) for path in paths] == names + [names[0]]


def libc_function(name):
    """(address, range, offset, path) of a function of the libc of this process."""
    address = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            words = line.split()
            start, end = (int(x, 16) for x in words[0].split("-"))
            if start <= address < end and len(words) == 6:
                return address, (start, end), int(words[2], 16), words[5]
    raise Skip("libc has no file here")


def symbol_trace(change_size=0, change_time=0):
    address, (start, end), offset, path = libc_function("qsort")
    stat = os.stat(path)
    made = Trace().process(0, 100, "prog").file(0, "f")
    made.add(MODULE, 100, start, end, offset, stat.st_size + change_size,
             stat.st_mtime_ns + change_time, text=path.encode())
    made.write(1, 0, 0, caller=address).write(2, 0, 4096, caller=address + 5)
    made.write(3, 0, 8192, caller=end + 64)
    return made, address - start + offset, os.path.basename(path)


def test_symbols():
    """Callers are functions of the module's file, unless it has changed: then they are offsets."""
    made, offset, base = symbol_trace()
    told = trace("--json", made.save()).json()
    if told["callers"][0]["function"] is None:
        raise Skip("built without libelf")
    assert told["callers"][0]["function"] == "qsort", told["callers"]
    assert told["callers"][0]["first_writes"] == 2 and told["callers"][1]["module"] is None
    assert [e["caller"] for e in told["events"][:2]] == [f"qsort+0x0 ({base})",
                                                         f"qsort+0x5 ({base})"]
    assert f"qsort ({base})" in trace("t").out.decode()
    for change in ((1, 0), (0, 1)):
        made, offset, base = symbol_trace(*change)
        told = trace("--json", made.save()).json()
        assert [e["caller"] for e in told["events"]][:2] == [f"{base}+{offset:#x}",
                                                             f"{base}+{offset + 5:#x}"]


def test_symbols_hostile():
    """A module whose file is a pipe, a directory, no ELF file or a broken one has no names."""
    _, _, offset, path = libc_function("qsort")
    elf = read(path)
    os.mkfifo("pipe")
    write("text", b"no program")
    write("short", elf[:1000])
    for place in range(20):
        broken = bytearray(elf[:200000])
        for at in random.Random(place).sample(range(16, 64), 8):
            broken[at] ^= 0xff
        write(f"broken{place}", bytes(broken))
    made = Trace().process(0, 100, "prog").file(0, "f")
    for place, name in enumerate(sorted(os.listdir()) + ["none", "."]):
        try:
            stat = os.stat(name)
        except FileNotFoundError:
            stat = os.stat(".")
        start = 0x100000000 * (place + 1)
        made.add(MODULE, 100, start, start + 0x10000000, 0, stat.st_size, stat.st_mtime_ns,
                 text=os.fsencode(os.path.abspath(name)))
        made.write(place, 0, 0, caller=start + offset + 16)
    trace(made.save())


def test_processes():
    """A fork's child has its parent's modules, its own later; an exec has none of them."""
    made = Trace().process(0, 100, "prog").file(0, "f")
    made.add(MODULE, 100, 0x1000, 0x2000, 0, 1, 1, text=b"/lib/a.so")
    made.add(FORK, 5, 200, 100)
    made.add(MODULE, 200, 0x3000, 0x4000, 0x1000, 1, 1, text=b"/lib/b.so")
    made.add(MODULE, 100, 0x1000, 0x2000, 0, 1, 1, text=b"/lib/new.so")
    made.event(WRITE, 6, 200, 200, 0, 0, 4096, 0x1010)
    made.event(WRITE, 7, 200, 200, 0, 0, 4096, 0x3010)
    made.event(WRITE, 8, 100, 100, 0, 0, 4096, 0x3010)
    made.event(WRITE, 8, 100, 100, 0, 0, 4096, 0x1010)
    made.process(9, 200, "other")
    made.event(WRITE, 10, 200, 200, 0, 0, 4096, 0x1010)
    made.event(WRITE, 11, 300, 301, 0, 0, 4096, 0x1010) # nobody told of it
    told = trace("--json", made.save()).json()
    assert [e["caller"] for e in told["events"]] == ["a.so+0x10", "b.so+0x1010", "0x3010",
                                                     "new.so+0x10", "0x1010", "0x1010"]
    assert [(p["pid"], p["parent"], p["command"], p["first_writes"])
            for p in told["processes"]] == [(100, None, "prog", 2), (200, 100, "prog", 2),
                                            (200, 100, "other", 1), (300, None, "", 1)]
    assert [e["process"] for e in told["events"]] == [1, 1, 0, 0, 2, 3]


# ---- Files that are wrong -----------------------------------------------------------------------

def test_cut():
    """A trace that ends anywhere, as a kill leaves it, is read up to there; and it is said."""
    made = small()
    data = b"".join(made.records)
    ends, at = {}, 0
    for count, part in enumerate(made.records):
        at += len(part)
        ends[at] = count # records but for the head
    events = 0
    for size in range(32, len(data)):
        write("t", data[:size])
        result = trace("--json", "t")
        told = result.json()
        events = sum(r[0] in KINDS for r in made.records[1:ends.get(size, 0) + 1]) \
            if size in ends else events
        assert told["cut"] == (size not in ends), size
        assert len(told["events"]) == events, (size, len(told["events"]), events)
        assert (b"t: it ends inside of the record at offset" in result.err) == told["cut"]
        assert told["exit_status"] is None
    for size in range(32):
        write("t", data[:size])
        check_error(trace("t", expect=FAILED), "trace", "t: at offset 0: not a trace")


def test_lies():
    """Every lie about a length, a number or a kind is an error that says where and what."""
    name = record(FILE, 0, 1, 1, 1, text=b"f")
    good = record(WRITE, 1, 5, 5, 0, 0, 4096, 0)
    at = len(head() + name)
    lies = [
        (head(magic=b"MKWTRACK"), 0, "not a trace"),
        (head(version=2), 0, "version 2"),
        (head(size=40), 0, "head of 40 bytes"),
        (head() + name + record(0), at, "kind 0"),
        (head() + name + record(10), at, "kind 10"),
        (head() + name + record(255), at, "kind 255"),
        (head() + name + struct.pack("<BH", WRITE, 65535), at, "no record has 65535 bytes"),
        (head() + name + record(WRITE, 1, 5, 5, 0, 0, 4096), at, "no number for caller"),
        (head() + name + record(WRITE, 1, 5, 5, 0, 0, 4096, 0, 0), at, "1 bytes too many"),
        (head() + name + record(WRITE, 1, 0, 5, 0, 0, 4096, 0), at, "pid cannot be 0"),
        (head() + name + record(WRITE, 1, 1 << 31, 5, 0, 0, 4096, 0), at, "pid cannot be"),
        (head() + name + record(WRITE, 1, 5, 0, 0, 0, 4096, 0), at, "tid cannot be 0"),
        (head() + name + record(WRITE, 1 << 63, 5, 5, 0, 0, 4096, 0), at, "time_ns cannot be"),
        (head() + name + record(WRITE, 1, 5, 5, 1, 0, 4096, 0), at, "file 1 was not told of"),
        (head() + name + record(WRITE, 1, 5, 5, 65536, 0, 4096, 0), at, "file cannot be 65536"),
        (head() + name + record(WRITE, 1, 5, 5, 0, 0, 0, 0), at, "length cannot be 0"),
        (head() + name + record(WRITE, 1, 5, 5, 0, (1 << 63) - 1, 1, 0), at, "past the end"),
        (head() + name + record(SYNC, 1, 5, 5, 0, 1 << 63, 0, 0), at, "offset cannot be"),
        (head() + name + name, at, "file 0 is told of twice"),
        (head() + record(FILE, 0, 1, 1, 1, text=b"f\0g"), 32, "a path with a NUL"),
        (head() + record(FILE, 0, 1, 1, 1, text=b"x" * 4097), 32, "a text of 4097 bytes"),
        (head() + record(MODULE, 5, 8, 8, 0, 1, 1), 32, "a module of a range"),
        (head() + record(MODULE, 5, 0, 16, (1 << 63) - 8, 1, 1), 32, "a module of a range"),
        (head() + record(LOST, 0), 32, "number cannot be 0"),
        (head() + record(END, 1, 0) + record(LOST, 1), 32 + len(record(END, 1, 0)),
         "follows the end"),
        (head() + struct.pack("<BH", LOST, 11) + b"\xff" * 10 + b"\1", 32, "no number for number"),
        (head() + struct.pack("<BH", LOST, 10) + b"\xff" * 9 + b"\2", 32, "no number for number"),
        (head() + struct.pack("<BH", LOST, 1) + b"\x80", 32, "no number for number"),
    ]
    for data, offset, what in lies:
        write("t", data)
        for how in ((), ("--csv",), ("--svg=s",)):
            result = trace(*how, "t", expect=FAILED)
            if not how:
                check_error(result, "trace", f"t: at offset {offset}: ", what)
    write("t", head() + name + good) # it was not the rest
    trace("t")
    write("t", head() + struct.pack("<BH", LOST, 10) + b"\xff" * 9 + b"\1")
    assert "18,446,744,073,709,551,615 events" in trace("t").out.decode()


def test_noise():
    """Any damage to a byte gives a result or an error, nothing else, however it is asked for."""
    data = bytearray(b"".join(small().records))
    chance = random.Random(1)
    for _ in range(5000 if os.environ.get("MKW_TEST_HEAVY", "0") != "0" else 150):
        broken = bytearray(data)
        for _ in range(chance.choice([1, 1, 3])):
            broken[chance.randrange(24, len(data))] = chance.choice(
                [0, 0xff, chance.randrange(256)])
        write("t", bytes(broken))
        how = chance.choice([("--json",), ("--svg=-",), ()])
        result = trace(*how, "t", expect=None)
        assert result.status in (OK, FAILED), (result.status, result.err)
        if result.status == OK and how == ("--svg=-",):
            xml.etree.ElementTree.fromstring(result.out)
        elif result.status == OK and how:
            result.json()


# ---- The picture --------------------------------------------------------------------------------

def paths(picture, name):
    """(left, top, right, bottom) of the marks of that class, from what they are drawn by."""
    found = []
    for path in picture.iter(f"{SVG}path"):
        if (path.get("class") or "").split()[:1] != [name] or path.find(f"{SVG}title") is None:
            continue
        words = path.get("d").replace("M", "").replace("h", " ").replace("v", " ") \
            .replace("V", " V").replace("z", "").split()
        x, y = float(words[0]), float(words[1])
        if words[2].startswith("V"):
            found.append((x, y, x, float(words[2][1:])))
        else:
            found.append((x, y, x + float(words[2]), y + float(words[3])))
    return found


def drawn():
    """Three writes and two syncs, in 10 s and 1 MiB: what is where can be said by heart."""
    return (Trace().process(0, 100, "prog").file(0, "/srv/data.db")
            .write(2 * SECOND, 0, 0, 262144).write(5 * SECOND, 0, 786432, 262144)
            .write(8 * SECOND, 0, 524288, 131072, tid=101)
            .sync(3 * SECOND, 0).sync(10 * SECOND, 0, 262144, 262144).end(10 * SECOND))


# The plot as in trace_svg.h: 1080 wide from 96 on; here 420 high from 102 on; its time ends 1%
# later than the last event.
def at_time(seconds):
    return 96 + seconds * 1080 / 10.1


def at_offset(offset):
    return 102 + 420 - offset * 420 / (1 << 20)


def near(a, b):
    return all(abs(x - y) < 0.2 for x, y in zip(a, b))


def test_svg_places():
    """Marks and syncs are where their time and offset is, and say what they are."""
    drawn().save()
    result = trace("--svg=s.svg", "t")
    assert result.out == b"" and result.err == b""
    picture = xml.etree.ElementTree.fromstring(read("s.svg"))
    assert picture.tag == f"{SVG}svg"
    blue, orange = paths(picture, "c0"), paths(picture, "c1")
    whole, part = paths(picture, "ws"), paths(picture, "rs")
    for box, seconds, low, high in ((blue[0], 2, 0, 262144), (blue[1], 5, 786432, 1 << 20),
                                    (orange[0], 8, 524288, 655360)):
        assert near(box, (at_time(seconds) - 1.5, at_offset(high), at_time(seconds) + 1.5,
                          at_offset(low))), (box, seconds)
    assert len(blue) == 2 and len(orange) == 1
    assert near(whole[0], (at_time(3), 102, at_time(3), 522)), whole
    assert near(part[0], (at_time(10), at_offset(524288), at_time(10), at_offset(262144))), part
    titles = [t.text for t in picture.iter(f"{SVG}title")]
    assert ("8.000 s: first write, 128 KiB at offset 524,288 (512 KiB), prog, 100, thread 101"
            in titles), titles
    assert "3.000 s: sync of all, prog, 100" in titles
    texts = ["".join(t.itertext()) for t in picture.iter(f"{SVG}text")]
    for text in ("2 s", "10 s", "512 KiB", "1,024 KiB", "3 first writes, 640 KiB; 2 syncs",
                 "thread"):
        assert text in texts, (text, texts)
    assert any("/srv/data.db" in text for text in texts)
    assert read("s.svg") == trace("--svg=-", "t").out


def test_svg_callers():
    """--by=callers gives colours to functions, the busiest first; the ninth has none of its own."""
    made = Trace().process(0, 100, "prog").file(0, "f")
    for caller in range(12):
        for i in range(20 - caller):
            made.write(i, 0, i * 4096, caller=0x1000 + caller)
    made.write(5, 0, 0).end(100).save()
    picture = xml.etree.ElementTree.fromstring(trace("--svg=-", "--by=callers", "t").out)
    assert [len(paths(picture, f"c{i}")) for i in range(9)] == [20, 19, 18, 17, 16, 15, 14, 13, 43]
    texts = ["".join(t.itertext()) for t in picture.iter(f"{SVG}text")]
    assert any("0x1007" in t for t in texts) and "othersothers" in texts and "caller" in texts
    assert not any("0x1008" in t for t in texts)


def test_svg_edges():
    """A trace with nothing in it, one event, syncs alone, huge offsets, long times are drawn."""
    cases = [Trace(), Trace().file(0, "f"), Trace().file(0, "f").write(0, 0, 0),
             Trace().file(0, "f").sync(5, 0), Trace().file(0, "f").sync(5, 0, 4096, 4096),
             Trace().file(0, "f", 0).write(1 << 61, 0, (1 << 63) - 4097, 4096),
             Trace().file(0, "f").write(1, 0, 0, (1 << 63) - 1).write(2, 0, 1 << 62, 1),
             Trace().file(0, "f").write(1, 0, 1 << 62, 1).sync(1, 0, 0, (1 << 63) - 1)]
    for place, made in enumerate(cases):
        out = trace("--svg=-", made.save()).out
        picture = xml.etree.ElementTree.fromstring(out)
        marks = sum(e[1] != SYNC for e in made.events)
        assert len(paths(picture, "c0")) == marks, place
        assert len(out) < 20000, (place, len(out))
        assert b"nan" not in out and b"inf" not in out and b"M-" not in out, place


def test_svg_cells():
    """A cell is where its time and its offsets are, and the paler the fewer writes it has."""
    made = Trace().process(0, 100, "prog").file(0, "/f")
    for i in range(8100): # 420 KiB in 105 rows, 10 s in 270 columns
        made.write(i * 1000000, 0, 0)
    for offset in (4096, 208 * 1024, 416 * 1024):
        made.write(10 * SECOND, 0, offset)
    picture = xml.etree.ElementTree.fromstring(trace("--svg=-", made.save()).out)
    boxes = paths(picture, "c0")
    bottom = [b for b in boxes if b[3] == 522]
    assert all(b[2] - b[0] == 4 and b[3] - b[1] == 4 for b in boxes)
    assert min(b[0] for b in bottom) == 96 and len(bottom) == 217, len(bottom) # to 8.1 s
    assert sorted(b[1:] for b in boxes if b[3] < 522) == [
        (102, 1164 + 4, 106), (310, 1168, 314), (514, 1168, 518)], [b for b in boxes if b[3] < 522]
    shades = {p.find(f"{SVG}title").text.rsplit(" ", 1)[1]: p.get("class")
              for p in picture.iter(f"{SVG}path") if (p.get("class") or "").startswith("c0 ")}
    assert shades["1"] == "c0 o0" and shades["38"] == "c0 o4", shades


def test_svg_majority():
    """A cell has the colour of the thread with more writes in it than all others together."""
    made = Trace().process(0, 100, "prog").file(0, "/f")
    for i in range(9000): # of five writes two are by 101, which writes more bytes
        made.write(1, 0, 0 if i % 5 < 3 else 4096, tid=100)
        made.write(1, 0, 0 if i % 5 < 2 else 4096, 8192, tid=101)
    made.write(1, 0, 0, 8192, tid=101).write(1, 0, 4096, tid=100) # not that of the last one
    picture = xml.etree.ElementTree.fromstring(trace("--svg=-", made.save()).out)
    lowest = {b[3]: name for name in ("c0", "c1") for b in paths(picture, name)}
    assert lowest[522] == "c1" and lowest[102 + 4] == "c0", lowest


def large(count, files=1):
    chance = random.Random(count)
    made = [head(), record(PROCESS, 0, 100, text=b"prog\0")]
    made += [record(FILE, i, 1, i, 1 << 30, text=b"/srv/file-%d" % i) for i in range(files)]
    for i in range(count):
        made.append(record(WRITE, i * 1000, 100, 100 + i % 3, i % files,
                           chance.randrange(1 << 18) * 4096, 4096, 0))
        if i % 50 == 0:
            made.append(record(SYNC, i * 1000, 100, 100, i % files, 0, 0, 0))
    write("t", b"".join(made))
    return count


def test_svg_large():
    """However many events, and in how many files: some MiB at most, and every write is counted."""
    for count, files in ((200000, 1), (100000, 2), (60000, 20)):
        large(count, files)
        out = trace("--svg=-", "t").out
        picture = xml.etree.ElementTree.fromstring(out)
        assert len(out) < PICTURE_MAX_BYTES, (files, len(out))
        titles = [t.text for name in range(9) for p in picture.iter(f"{SVG}path")
                  if (p.get("class") or "").startswith(f"c{name} o") for t in p]
        counted = sum(int(t.rsplit(": ", 1)[1].replace(",", "")) for t in titles)
        shown = min(files, 8)
        # What lies across the border of two cells is in both.
        assert 1 <= counted / (count // files * shown) < 1.01, (files, counted)
        assert (f"the busiest 8 of {files} files" in out.decode()) == (files > 8)
        strip = [p for p in picture.iter(f"{SVG}path")
                 if (p.get("class") or "").startswith("st ") and p.find(f"{SVG}title") is not None]
        assert strip, files
        if files == 1:
            syncs = [int(p.find(f"{SVG}title").text.split()[2].replace(",", "")) for p in strip]
            assert sum(syncs) == count // 50, sum(syncs)


def chromium():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if shutil.which(name):
            return name
    raise Skip("no Chromium here: scripts/setup browser installs it")


def pixels(path):
    """Rows of (red, green, blue) of a PNG with eight bits a channel, as browsers write it."""
    data, at, packed = read(path), 8, b""
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IHDR":
            width, height, depth, colours = struct.unpack_from(">IIBB", data, at + 8)
        elif kind == b"IDAT":
            packed += data[at + 8:at + 8 + length]
        at += 12 + length
    assert depth == 8 and colours in (2, 6), (depth, colours)
    step = 3 if colours == 2 else 4
    raw, above, rows = zlib.decompress(packed), bytearray(width * step), []
    for y in range(height):
        kind, line = raw[y * (width * step + 1)], bytearray(
            raw[y * (width * step + 1) + 1:(y + 1) * (width * step + 1)])
        for i in range(width * step if kind else 0):
            left = line[i - step] if i >= step else 0
            corner = above[i - step] if i >= step else 0
            if kind == 1:
                guess = left
            elif kind == 2:
                guess = above[i]
            elif kind == 3:
                guess = (left + above[i]) // 2
            else:
                guess = min((left, above[i], corner), # as RFC 2083 breaks ties
                            key=lambda v, middle=left + above[i] - corner: abs(middle - v))
            line[i] = line[i] + guess & 0xff
        rows.append([tuple(line[x * step:x * step + 3]) for x in range(width)])
        above = line
    return rows


def photograph(svg):
    """The picture as Chromium shows it."""
    process = subprocess.run(
        [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1",
         f"--user-data-dir={os.getcwd()}/profile", "--window-size=1200,800",
         "--screenshot=shot.png", f"file://{os.getcwd()}/{svg}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
        check=False, env={**os.environ, "HOME": os.getcwd()})
    shutil.rmtree("profile", ignore_errors=True)
    assert os.path.exists("shot.png"), process.stdout.decode(errors="replace")
    return pixels("shot.png")


def is_close(pixel, colour):
    return all(abs(a - b) <= 40 for a, b in zip(pixel, colour))


BLUE, ORANGE, RED = (0x2f, 0x6f, 0xd0), (0xe3, 0x8b, 0x06), (0xd1, 0x24, 0x2f)
WHITE = (255, 255, 255)


def test_browser():
    """In Chromium marks, syncs and nothing else are where they should be, in their colours."""
    drawn().save()
    chromium()
    trace("--svg=s.svg", "t")
    shot = photograph("s.svg")

    def look(seconds, offset):
        return shot[round(at_offset(offset))][round(at_time(seconds) - 0.5)]
    for seconds, offset, colour in ((2, 131072, BLUE), (5, 900000, BLUE), (8, 600000, ORANGE),
                                    (10, 400000, RED), (2, 400000, WHITE), (5, 200000, WHITE),
                                    (8, 200000, WHITE), (10, 900000, WHITE), (6.5, 600000, WHITE)):
        assert is_close(look(seconds, offset), colour), (seconds, offset, look(seconds, offset))
    reds = [row[round(at_time(3) - 0.5)][1] < 200 for row in shot[110:515]]
    assert all(reds), "the sync of all is not drawn from top to bottom"
    assert any(sum(p) < 300 for row in shot[15:40] for p in row[20:100]), "there is no title"


def test_browser_large():
    """In Chromium the cells of many writes are where the writes were."""
    chromium()
    made = [head(), record(PROCESS, 0, 100, text=b"prog\0"), record(FILE, 0, 1, 1, 1, text=b"f")]
    for i in range(20000): # from the lower left corner to the upper right one
        made.append(record(WRITE, i * 500000, 100, 100, 0, i * 4096, 4096, 0))
    write("t", b"".join(made))
    trace("--svg=s.svg", "t")
    shot = photograph("s.svg")
    for part in (0.1, 0.35, 0.5, 0.9):
        x, y = 96 + int(part * 1080 / 1.01), 102 + 420 - int(part * 420)
        around = [shot[y + dy][x + dx] for dy in range(-3, 4) for dx in range(-3, 4)]
        assert any(is_close(p, BLUE) for p in around), (part, around)
    assert is_close(shot[470][900], WHITE) and is_close(shot[150][200], WHITE)


# ---- Long work ----------------------------------------------------------------------------------

def test_progress():
    """On a terminal long work shows how far it is; the line is gone at the end."""
    large(100000)
    main, terminal = pty.openpty()
    process = subprocess.Popen([tool.TOOL, "trace", "--csv", "t"], stdout=subprocess.PIPE,
                               stderr=terminal)
    os.close(terminal)
    shown = b""
    # It is held up, by a full pipe, until it has shown something.
    while b"%" not in shown and os.read(process.stdout.fileno(), 65536):
        if select.select([main], [], [], 0.1)[0]:
            shown += os.read(main, 4096)
    process.stdout.read()
    process.stdout.close()
    try:
        while chunk := os.read(main, 4096):
            shown += chunk
    except OSError:
        pass # the other end is closed
    os.close(main)
    assert process.wait(tool.LIMIT_S) == OK, shown
    assert b"mkwrite trace: reading" in shown and b"%, " in shown, shown
    assert shown.endswith(b"\r\x1b[K"), shown


if __name__ == "__main__":
    tool.main(globals(), sys.argv[2:])
