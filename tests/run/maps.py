#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`mkwrite run` and programs that map files in all ways there are: maps_cases and maps_model.

usage: maps.py MKWRITE MAPS_CASES MAPS_MODEL [--list] [NAME-PART...]

Each case is run natively and under mkwrite run, in several modes: it must say the same, and end the
same. The model knows by itself what must be. MKW_TEST_SEED=N runs another random sequence; a
failure says which. The cases named full_ run on a disk that is full until they make room, and need
root.
"""
import os
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True # next to the sources

# pylint: disable=wrong-import-position
from sandbox import HEAVY, main as main_contained

LIMIT_S = 120
SEED = int(os.environ.get("MKW_TEST_SEED", "1"))
MODES = {
    "plain": (),
    "reserve": ("--reserve=16K",),
    "limit": ("--dirty-limit=64K",),
    "trace": ("--trace=trace",),
}
CASES = {
    "wrong": "wrong arguments are refused as natively",
    "layout": "what is mapped where, and what may be done with it, is as the calls have made it",
    "locks": "locks of fcntl stay when files are mapped and unmapped",
    "end_of_file": "past the end of the file is SIGBUS, and is not when it has grown",
    "handlers": "the program's handlers are called, on a small stack, and write to views",
    "in_handlers": "calls in a signal handler, whatever it has interrupted",
    "cancel": "cancelled threads leave nothing locked",
    "fork_under_fire": "forks while other threads map, write and unmap",
    "crash": "the program's own bad accesses end it, while other threads map",
    "spawn": "vfork, posix_spawn, system, popen",
    "descriptors": "the program may close and overwrite all descriptors, and have none left",
    "names": "files renamed, unlinked, opened for appending, sealed",
    "dropped": "a process that has given up its privileges",
    "exit": "writes at the very end, and in threads that outlive main",
}
FULL = {
    "full_jump": "a handler leaves the wait for space by longjmp",
    "full_others": "while one thread waits others map and fork",
}


def run(command, directory):
    """What it says on stdout and how it ends; stderr to be shown if that is wrong."""
    shutil.rmtree(directory, ignore_errors=True)
    os.mkdir(directory, 0o777)
    os.chmod(directory, 0o777) # for whom root becomes
    with tempfile.TemporaryFile() as err:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=err, cwd=directory, start_new_session=True) as process:
            try:
                out = process.communicate(timeout=LIMIT_S)[0].decode(errors="replace")
                status = process.returncode
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                out, status = process.communicate()[0].decode(errors="replace"), "takes too long"
        err.seek(0)
        return out, 128 - status if isinstance(status, int) and status < 0 else status, \
            err.read().decode(errors="replace")


def under(mode, *command):
    return [TOOL, "run", *MODES[mode], "--", *command]


class Bad(Exception):
    pass


def case_test(directory, case, mode):
    native = run([PROGRAM, case], directory)
    ours = run(under(mode, PROGRAM, case), directory)
    if native[:2] != ours[:2]:
        raise Bad(f"natively {native[1]}:\n{native[0]}\nunder mkwrite run {ours[1]}:\n{ours[0]}\n"
                  f"{ours[2]}")


def model_test(directory, mode):
    count, steps, threads = (40, 5000, 4) if HEAVY else (2, 800, 3)
    for seed in range(SEED, SEED + count):
        command = [MODEL, "file", str(seed), str(steps), str(threads)]
        out, status, err = run(under(mode, *command) if mode else command, directory)
        if status != 0:
            raise Bad(f"{' '.join(command)}: {status}\n{out}{err}")


def full_test(case):
    """In a sandbox."""
    from disk import MOUNT, Disk # pylint: disable=import-outside-toplevel
    disk = Disk("tmpfs", 1 << 20)
    disk.fill(64 << 10)
    done = subprocess.run([TOOL, "run", "--", PROGRAM, case], cwd=MOUNT, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=50, check=False)
    text = f"{done.returncode} {done.stdout} {done.stderr.decode()}"
    assert done.returncode == 0 and done.stdout == {"full_jump": b"1 1\n"}.get(case, b"1\n"), text
    assert done.stderr.count(b"no space left on the device") == 1, text


def tests():
    for case, what in CASES.items():
        for mode in MODES:
            yield f"{case}/{mode}", what, lambda d, c=case, m=mode: case_test(d, c, m)
    what = "random calls of several threads and their children, against a model"
    yield "model/native", what, lambda d: model_test(d, None)
    for mode in MODES:
        yield f"model/{mode}", what, lambda d, m=mode: model_test(d, m)


def main_plain(chosen):
    print(f"TAP version 13\n1..{len(chosen)}")
    good = True
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o755)
        for number, (name, what, function) in enumerate(chosen, 1):
            try:
                function(os.path.join(top, "work"))
                print(f"ok {number} - {name}: {what}")
            except Bad as bad:
                good = False
                print(f"not ok {number} - {name}: {what}")
                print("".join(f"#   {line}\n" for line in str(bad).splitlines()), end="")
            sys.stdout.flush()
    return 0 if good else 1


def main(arguments):
    parts = [a for a in arguments if a != "--list"]
    chosen = [t for t in tests() if not parts or any(part in t[0] for part in parts)]
    if "--list" in arguments:
        print("\n".join(f"{name}: {what}" for name, what, _ in chosen))
        return 0
    return main_plain(chosen)


if __name__ == "__main__":
    TOOL, PROGRAM, MODEL = (os.path.abspath(path) for path in sys.argv[1:4])
    if sys.argv[4:5] == ["full"]:
        main_contained([(name, what, lambda c=name: full_test(c)) for name, what in FULL.items()],
                       sys.argv[5:])
    else:
        sys.exit(main(sys.argv[4:]))
