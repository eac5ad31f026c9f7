#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`mkwrite run --trace` and `mkwrite trace`, with a program that is known (traced.c).

usage: traced.py MKWRITE PROGRAM [--list] [NAME-PART...]

Tests are as in tool.py.
"""
import os
import platform
import sys

sys.dont_write_bytecode = True # the source directory is left as it is
import tool # pylint: disable=wrong-import-position
from tool import Skip # pylint: disable=wrong-import-position

PAGE = 4096


def told():
    """(the trace as JSON, the lines that the program printed)."""
    result = tool.run("run", "--trace=t", "--", PROGRAM, "data")
    return tool.run("trace", "--json", "t").json(), [int(n) for n in result.out.split()]


def at_page(trace, page):
    return [e for e in trace["events"]
            if e["kind"] != "sync" and e["offset"] <= page * PAGE < e["offset"] + e["length"]]


def test_events():
    """All first writes and syncs are there, in order, by the right process and thread."""
    trace, (pid, tid, child) = told()
    assert len(trace["files"]) == 1 and not trace["cut"] and trace["events_missing"] == 0
    file = trace["files"][0]
    assert file["path"] == os.path.realpath("data") and file["size_bytes"] == 256 * PAGE
    assert file["ino"] == os.stat("data").st_ino
    assert trace["exit_status"] == 0
    for page, kind, who in ((40, "write", (pid, pid)), (41, "write", (pid, pid)),
                            (60, "call", (pid, pid)), (100, "write", (pid, tid)),
                            (120, "write", (child, child)), (200, "write", (pid, pid))):
        events = at_page(trace, page)
        assert [(e["kind"], e["pid"], e["tid"]) for e in events] == [(kind, *who)], (page, events)
    first, second = at_page(trace, 0) # it was clean in between
    syncs = [e for e in trace["events"] if e["kind"] == "sync"]
    assert [(e["offset"], e["length"]) for e in syncs] == [(0, PAGE), (0, 0)], syncs
    times = [first["time_ns"], at_page(trace, 60)[0]["time_ns"], syncs[0]["time_ns"],
             second["time_ns"], at_page(trace, 120)[0]["time_ns"], syncs[1]["time_ns"],
             at_page(trace, 200)[0]["time_ns"]]
    assert times == sorted(times) and times[-1] <= trace["duration_ns"], times


def test_processes():
    """The program, its child, and what it became by exec are three, with their commands."""
    trace, (pid, _, child) = told()
    doers = [(p["pid"], p["command"].split()[1:]) for p in trace["processes"] if p["first_writes"]]
    assert doers == [(pid, ["data"]), (child, ["data"]), (pid, ["data", "again"])], doers
    assert [p["parent"] for p in trace["processes"] if p["pid"] == child] == [pid]
    text = tool.run("trace", "t").out.decode()
    assert f"{pid} " in text and " data again" in text, text


def test_callers():
    """Callers are named by function; of memcpy the one that called it."""
    if platform.machine() != "x86_64":
        raise Skip("on this machine only the instruction is known")
    trace, _ = told()
    names = {page: [e["caller"] for e in at_page(trace, page)]
             for page in (0, 40, 60, 100, 120, 200)}
    if "store_one" not in str(names[0]):
        raise Skip("built without libelf")
    base = os.path.basename(PROGRAM)
    for page, function in ((0, "store_one"), (40, "copy_some"), (100, "thread_store"),
                           (120, "child_store"), (200, "store_again")):
        for caller in names[page]:
            assert caller.startswith(f"{function}+0x") and caller.endswith(f" ({base})"), names
    assert names[60] == [None], names
    picture = tool.run("trace", "--svg=-", "--by=callers", "t").out.decode()
    assert "copy_some" in picture and "child_store" in picture


PROGRAM = os.path.abspath(sys.argv[2])
if __name__ == "__main__":
    tool.main(globals(), sys.argv[3:])
