# SPDX-License-Identifier: MIT
"""Runs tests, each in mount and PID namespaces of its own, so that whatever it mounts or starts is
gone with it, also when it is killed. Speaks TAP.

A test is (name, what it shows, function). Its current directory is WORK, an empty tmpfs, as is all
of /mnt. It is skipped by raising Skip, and fails by any other exception, or by the watchdog.
"""
import ctypes
import os
import signal
import sys
import traceback

WORK = "/mnt/work"
LIMIT_S = int(os.environ.get("MKW_TEST_TIMEOUT_S", "60"))
HEAVY = os.environ.get("MKW_TEST_HEAVY", "0") not in ("", "0")
NONE_RAN = 2

CLONE_NEWNS, CLONE_NEWPID = 0x20000, 0x20000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


class Skip(Exception):
    pass


def mount_error(source, target, kind, options, flags=0):
    """0 or errno."""
    texts = [None if text is None else text.encode() for text in (source, target, kind, options)]
    return ctypes.get_errno() if libc.mount(*texts[:3], ctypes.c_ulong(flags), texts[3]) else 0


def mount(source, target, kind, options=None, flags=0):
    error = mount_error(source, target, kind, options, flags)
    if error:
        raise OSError(error, f"mount {kind} at {target}: {os.strerror(error)}")


def unshare():
    if os.geteuid():
        raise Skip("only root can mount file systems")
    if libc.unshare(CLONE_NEWNS | CLONE_NEWPID):
        raise Skip(f"no namespaces here: {os.strerror(ctypes.get_errno())}")
    if mount_error(None, "/", None, None, MS_REC | MS_PRIVATE) or \
       mount_error("tmpfs", "/mnt", "tmpfs", "size=2g"):
        raise Skip(f"mounting is not permitted here: {os.strerror(ctypes.get_errno())}")


def in_process(function):
    """Run function() in a child that dies with us. Returns its wait status."""
    parent = os.getpid()
    sys.stdout.flush()
    child = os.fork()
    if child:
        try:
            return os.waitpid(child, 0)[1]
        finally:
            signal.alarm(0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() not in (parent, 0): # 0: of another PID namespace
        os._exit(1)
    try:
        function()
        os._exit(0)
    except BaseException: # pylint: disable=broad-except
        traceback.print_exc()
    finally:
        os._exit(1)


def proc_text(*names):
    try:
        with open(os.path.join("/proc", *names), errors="replace") as file:
            return file.read().replace("\0", " ").strip()
    except OSError as failure:
        return failure.strerror


def processes():
    """Where each thread is that the test has started."""
    lines = []
    for pid in sorted((int(name) for name in os.listdir("/proc") if name.isdigit()))[1:]:
        lines.append(f"{pid}: {proc_text(str(pid), 'cmdline')[:200]}")
        for tid in os.listdir(f"/proc/{pid}/task"):
            where = [proc_text(str(pid), "task", tid, name) for name in ("comm", "wchan", "syscall")]
            lines.append(f"  {tid} {' '.join(where)}")
    return "\n".join(lines)


def too_long(_signal, _frame):
    raise TimeoutError(f"took longer than {LIMIT_S} s\n{processes()}")


def judge(function, report):
    """Run the test; say in a word and a text what came of it."""
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LIMIT_S)
    try:
        function()
        report("ok")
    except Skip as skip:
        report(f"skip {skip}")
    except Exception: # pylint: disable=broad-except
        report("failed " + traceback.format_exc())


def inside(function, report):
    """In the namespaces: process 1 of its own."""
    mount("proc", "/proc", "proc")
    os.mkdir(WORK)
    os.chdir(WORK)
    judge(function, report)


def contained(function, report):
    """The process between: makes the namespaces, and is what the runner may kill."""
    try:
        unshare()
    except Skip as skip:
        report(f"skip {skip}")
        return
    in_process(lambda: inside(function, report))


def run_one(number, name, what, function):
    reading, writing = os.pipe()

    def report(text):
        os.write(writing, text[-60000:].encode(errors="replace"))

    status = in_process(lambda: contained(function, report))
    os.close(writing)
    with os.fdopen(reading, errors="replace") as pipe:
        word, _, text = pipe.read().partition(" ")
    if word == "ok":
        print(f"ok {number} - {name}: {what}")
    elif word == "skip":
        print(f"ok {number} - {name}: {what} # SKIP {text}")
    else:
        print(f"not ok {number} - {name}: {what}")
        text = text or f"it ended without a word, wait status {status}"
        print("".join(f"#   {line}\n" for line in text.splitlines()), end="")
    sys.stdout.flush()
    return word in ("ok", "skip")


def main(tests, arguments):
    """tests, as [NAME-PART]... chooses; --list lists them."""
    parts = [a for a in arguments if a != "--list"]
    tests = [t for t in tests if not parts or any(part in t[0] for part in parts)]
    if "--list" in arguments:
        print("\n".join(f"{name}: {what}" for name, what, _ in tests))
        sys.exit(0 if tests else NONE_RAN)
    print(f"TAP version 13\n1..{len(tests)}")
    good = [run_one(number, *test) for number, test in enumerate(tests, 1)]
    sys.exit(NONE_RAN if not tests else not all(good))
