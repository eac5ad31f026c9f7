#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The command mkwrite, used as people and scripts use it.

usage: tool.py MKWRITE [--list] [NAME-PART...]

Each test is a function test_*; the command runs in a directory of the test's own, which is its
TMPDIR too and must hold nothing afterwards that the test did not leave there. Speaks TAP.
"""
import ctypes
import errno
import hashlib
import json
import os
import platform
import pty
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import traceback

OK, FAILED, USAGE, NOT_POSSIBLE, REFUSED = range(5)
VERBS = ("demo", "doctor", "info", "cp", "trace") # bench has tests of its own
LIMIT_S = 120
NONE_RAN = 2


class Skip(Exception):
    pass


class Result:
    def __init__(self, process):
        self.status = process.returncode
        self.out = process.stdout
        self.err = process.stderr

    def json(self):
        """The output as JSON, also in the opinion of `python3 -m json.tool`."""
        subprocess.run([sys.executable, "-m", "json.tool"], input=self.out, check=True,
                       stdout=subprocess.DEVNULL)
        return json.loads(self.out)


def run(*arguments, expect=OK, env=None, **keywords):
    keywords.setdefault("stdout", subprocess.PIPE)
    keywords.setdefault("stderr", subprocess.PIPE)
    process = subprocess.run([TOOL, *arguments], stdin=subprocess.DEVNULL, timeout=LIMIT_S,
                             env={**os.environ, "TMPDIR": os.getcwd(), **(env or {})},
                             check=False, **keywords)
    result = Result(process)
    assert expect is None or result.status == expect, \
        f"{arguments}: exit status {result.status}, not {expect}\n{result.out}\n{result.err}"
    return result


def check_error(result, verb, *parts):
    """One complaint in the usual form, nothing on stdout."""
    text = result.err.decode(errors="replace")
    assert text.startswith(f"mkwrite {verb}: " if verb else "mkwrite: "), text
    assert result.out == b"", result.out
    for part in parts:
        assert part in text, f"{part!r} is not in {text!r}"


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def pattern(size, seed=0):
    """Bytes of which no page is like another, none is zeros."""
    out = bytearray()
    while len(out) < size:
        out += hashlib.sha512(b"%d %d" % (seed, len(out))).digest()
    return bytes(out[:size])


def make_sources():
    """A few files with bytes, sizes and names worth packing."""
    os.makedirs("tree/deep")
    names = {"tree/plain": 5000, "tree/empty": 0, "tree/page": 4096, "tree/deep/big": 3000000,
             "tree/deep/two words": 1, "tree/new\nline": 70000, "tree/back\\slash": 123,
             "tree/-dash": 999, 'tree/quote"': 4097}
    for number, (name, size) in enumerate(names.items()):
        write(name, pattern(size, number))
    os.symlink("plain", "tree/link")
    return names


def backends():
    process = subprocess.run([TOOL, "doctor", "--json"], stdout=subprocess.PIPE, check=False)
    return {b["name"]: b for b in json.loads(process.stdout)["backends"]}


def need_backend(name):
    backend = backends().get(name)
    if not backend or not backend["usable"]:
        raise Skip(f"{name}: {backend['reason'] if backend else 'unknown here'}")


def no_userfaultfd():
    """In the child: no way to a userfaultfd, neither by the system call nor by the device."""
    number = {"x86_64": 323, "aarch64": 282}[platform.machine()]
    program = struct.pack("HBBIHBBIHBBIHBBI",
                          0x20, 0, 0, 0,                       # load the number
                          0x15, 0, 1, number,                  # userfaultfd?
                          0x06, 0, 0, 0x50000 | errno.EPERM,   # then EPERM
                          0x06, 0, 0, 0x7fff0000)              # else go on
    buffer = ctypes.create_string_buffer(program)
    filters = struct.pack("HxxxxxxQ", 4, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        os.setresuid(65534, 65534, 65534)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.c_char_p(filters), 0, 0):
        os._exit(99)


def need_filter():
    if platform.machine() not in ("x86_64", "aarch64"):
        raise Skip("the number of the system call userfaultfd is not known for this machine")
    if os.geteuid() != 0 and os.access("/dev/userfaultfd", os.R_OK | os.W_OK):
        raise Skip("/dev/userfaultfd is open to everyone")


# ---- The front ----------------------------------------------------------------------------------

def test_help():
    """--help names every verb, and every verb explains itself in 80 columns."""
    lines = run("--help").out.decode().split("\n\n")[2].splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    assert set(VERBS) <= set(listed), listed
    for verb in listed:
        result = run(verb, "--help")
        text = result.out.decode()
        assert text.startswith(f"Usage: mkwrite {verb}"), text
        assert result.err == b""
    for verb in VERBS:
        text = run(verb, "-h").out.decode()
        assert "Examples:" in text and "Exit status:" in text
        assert max(map(len, text.splitlines())) <= 80, verb


def test_version():
    """--version is one line."""
    words = run("--version").out.decode().split()
    assert words[0] == "mkwrite" and words[1][0].isdigit() and len(words) == 2, words


def test_usage_errors():
    """A wrong command line is exit status 2, with a reason and nothing done."""
    result = run(expect=USAGE)
    assert result.out == b"" and result.err.startswith(b"Usage:")
    check_error(run("frobnicate", expect=USAGE), "", "frobnicate: no such verb")
    check_error(run("--frob", expect=USAGE), "", "--frob: no such option")
    for verb in VERBS:
        check_error(run(verb, "--frob", expect=USAGE), verb, "--frob: no such option",
                    f"Try: mkwrite {verb} --help")
        check_error(run(verb, "-z", expect=USAGE), verb, "-z: no such option")
    check_error(run("demo", "--quota", expect=USAGE), "demo", "--quota needs a value")
    check_error(run("demo", "--backend=magic", expect=USAGE), "demo", "magic")
    check_error(run("demo", "--dirty-limit=4K", expect=USAGE), "demo", "two pages")
    for bad in ("", "x", "-1", "4X", "99999999999999999999", "16777216T"):
        check_error(run("demo", f"--quota={bad}", expect=USAGE), "demo", "--quota")
    check_error(run("doctor", "--json=yes", expect=USAGE), "doctor", "--json=yes")
    check_error(run("doctor", "operand", expect=USAGE), "doctor", "operand")
    for operands in ((), ("one",), ("one", "two", "three")):
        check_error(run("cp", *operands, expect=USAGE), "cp", "SOURCE")
    check_error(run("cp", "--verify=yes", "a", "b", expect=USAGE), "cp", "takes no value")


def test_full_stdout():
    """Output that cannot be written is a failure, and so is a reader that went away."""
    if not os.path.exists("/dev/full"):
        raise Skip("no /dev/full here")
    with open("/dev/full", "wb") as full:
        result = run("info", expect=FAILED, stdout=full)
    assert b"standard output: No space left" in result.err, result.err
    ends = os.pipe()
    os.close(ends[0])
    result = run("info", expect=FAILED, stdout=ends[1])
    os.close(ends[1])
    assert b"standard output: Broken pipe" in result.err, result.err


# ---- demo ---------------------------------------------------------------------------------------

def archive_files(path):
    """Read an archive by its description alone: {name: bytes}."""
    data = read(path)
    magic, size, index, count = struct.unpack_from("<8sQQQ", data)
    assert magic == b"MKWPACK1" and size == len(data)
    files = {}
    for i in range(count):
        record, start, length = struct.unpack_from("<QQQ", data, index + i * 24)
        mark, name_length, file_length = struct.unpack_from("<4sIQ", data, record)
        assert mark == b"FILE" and file_length == length and record % 8 == 0
        assert start == record + 16 + name_length
        files[data[record + 16:start]] = data[start:start + length]
    return files


def demo(*options):
    """Pack the sources, and judge the result without any help of the command."""
    names = make_sources()
    result = run("demo", "--json", "--keep=kept", *options, "tree")
    told = result.json()
    assert result.err == b"", result.err
    assert told["equal"] and told["files"] == len(names) and told["differing"] == []
    files = archive_files("kept/demo.mkwpack")
    assert {os.fsdecode(n) for n in files} == set(names)
    for name, data in files.items():
        assert data == read(name), name
    assert os.path.getsize("kept/demo.mkwpack") == told["archive_bytes"]
    return told


def check_refused(told):
    refusal = told["first_refusal"]
    assert refusal["errno"] in ("ENOSPC", "EDQUOT"), refusal
    assert 0 <= refusal["offset"] < told["archive_bytes"]
    assert int(refusal["address"], 16) % 4096 == refusal["offset"] % 4096
    assert refusal["message"] and refusal["quota_bytes"] < refusal["raised_to_bytes"]
    assert told["refusals"] >= 1


def test_demo_uffd():
    """The refusal is met, the quota raised, and every byte is in the file (S1.1)."""
    need_backend("uffd")
    told = demo("--dirty-limit=256K")
    check_refused(told)
    pages = -(-told["archive_bytes"] // 4096)
    assert told["notifications"] > 0 and told["pages_granted"] >= pages
    assert told["pages_written"] >= pages
    assert 0 < told["dirty_peak_bytes"] <= told["dirty_limit_bytes"] == 256 * 1024


def test_demo_inline():
    """The same with faults served in the faulting thread."""
    need_backend("inline")
    check_refused(demo("--backend=inline", "--dirty-limit", "256K"))


def test_demo_small_quota():
    """A quota of one page is no less a beginning than any."""
    need_backend("uffd")
    check_refused(demo("--quota=4K"))


def test_demo_small_limit():
    """Two dirty pages at a time are enough."""
    need_backend("uffd")
    assert demo("--dirty-limit=8K")["dirty_peak_bytes"] <= 8192


def test_demo_large_quota():
    """Nothing is refused where there is room."""
    need_backend("uffd")
    told = demo("--quota=1G")
    assert told["first_refusal"] is None and told["refusals"] == 0


def test_demo_story():
    """For people: the refusal with its address and reason, the table, the check."""
    need_backend("uffd")
    make_sources()
    text = run("demo", "tree", "tree/plain").out.decode()
    for part in ("refused       write to 0x", "why           ENOSPC: ", "by mkw_control",
                 "all equal", "store asked (page_mkwrite)", "pages granted",
                 "most pages dirty at once", "MB/s"):
        assert part in text, f"{part!r} is not in\n{text}"
    assert len(text.splitlines()) < 30 and os.listdir() == ["tree"]


def test_demo_bad_files():
    """Files that cannot be packed are named; nothing is left behind."""
    os.mkfifo("fifo")
    check_error(run("demo", "nothing-here", expect=FAILED), "demo", "nothing-here: No such file")
    check_error(run("demo", "fifo", expect=FAILED), "demo", "fifo: not a regular file")
    os.mkdir("empty")
    check_error(run("demo", "empty", expect=FAILED), "demo", "empty: no files there")
    assert sorted(os.listdir()) == ["empty", "fifo"]


def test_demo_keeps_what_is_there():
    """--keep does not write over anything."""
    need_backend("uffd")
    make_sources()
    os.mkdir("kept")
    write("kept/demo.mkwpack", b"mine")
    result = run("demo", "--json", "--keep", "kept", "tree", expect=FAILED)
    check_error(result, "demo", "kept/demo.mkwpack")
    assert read("kept/demo.mkwpack") == b"mine"


def fake_sha256sum(script):
    os.mkdir("bin")
    with open("bin/sha256sum", "w", encoding="ascii") as file:
        file.write("#!/bin/sh\n" + script)
    os.chmod("bin/sha256sum", 0o755)
    real = shutil.which("sha256sum")
    return {"PATH": os.getcwd() + "/bin:" + os.environ["PATH"], "REAL": real}


def test_demo_difference_seen():
    """A file that differs is named, and the exit status is 1."""
    need_backend("uffd")
    make_sources()
    env = fake_sha256sum('"$REAL" "$@" | sed "/ tree.plain$/s/^......../01234567/"\n')
    result = run("demo", "--json", "tree", expect=FAILED, env=env)
    told = result.json()
    assert told["equal"] is False and told["differing"] == ["tree/plain"], told
    assert b"mkwrite demo: tree/plain: it differs" in result.err, result.err
    assert b"1 of 9 files differ" in result.err, result.err


def test_demo_damage_seen():
    """An archive that is damaged behind its back, before it is read, is never called equal."""
    need_backend("uffd")
    make_sources()
    big = read("tree/deep/big")
    damages = {
        "tree/deep/big: it differs": lambda data: data.replace(big[5000:5100], b"!" * 100),
        "the head is not what was packed": lambda data: data[:-24],
        "tree/-dash is not what was packed": lambda data: data.replace(b"FILE", b"FIL3"),
        "an offset is not what was packed": lambda data: data[:16] + b"\xff" * 8 + data[24:],
    }
    env = fake_sha256sum('[ -e wait ] && { echo >ready; read go <go; rm wait; }\n'
                         'exec "$REAL" "$@"\n')
    os.mkfifo("ready")
    os.mkfifo("go")
    for complaint, damage in damages.items():
        write("wait", b"")
        shutil.rmtree("kept", ignore_errors=True)
        process = subprocess.Popen([TOOL, "demo", "--keep=kept", "tree"], env={**os.environ, **env},
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        read("ready")
        write("kept/demo.mkwpack", damage(read("kept/demo.mkwpack")))
        write("go", b"\n")
        err = process.communicate(timeout=LIMIT_S)[1].decode()
        assert process.returncode == FAILED and complaint in err, (complaint, err)


def test_demo_no_sha256sum():
    """Without an independent opinion there is no success."""
    need_backend("uffd")
    make_sources()
    result = run("demo", "tree", expect=FAILED, env={"PATH": "/nonexistent"})
    assert b"sha256sum: No such file or directory (install coreutils)" in result.err
    shutil.rmtree("tree")
    env = fake_sha256sum("exit 1\n")
    make_sources()
    result = run("demo", "tree", expect=FAILED, env=env)
    assert b"sha256sum: it could not read all" in result.err, result.err
    assert sorted(os.listdir()) == ["bin", "tree"]


def test_demo_interrupted():
    """An interrupt ends it by that signal, and nothing is left behind."""
    need_backend("uffd")
    make_sources()
    env = fake_sha256sum('kill -INT $PPID\nexec "$REAL" "$@"\n')
    result = run("demo", "tree", expect=-signal.SIGINT, env=env)
    assert result.err == b"" and sorted(os.listdir()) == ["bin", "tree"]


def test_demo_not_possible():
    """Exit status 3 where the host does not allow it, with a way to find out why."""
    need_filter()
    os.chmod(".", 0o777)
    make_sources()
    result = run("demo", "tree", expect=NOT_POSSIBLE, preexec_fn=no_userfaultfd)
    assert b"mkwrite doctor" in result.err, result.err


# ---- cp -----------------------------------------------------------------------------------------

def make_sparse(path):
    """3 MiB with holes, and an odd end."""
    with open(path, "wb") as file:
        file.write(pattern(10000))
        file.seek(1 << 20)
        file.write(pattern(4096, 1))
        file.seek((3 << 20) - 1)
        file.write(pattern(78, 2))


def test_cp_files():
    """Bytes, size and holes are copied; an existing target is cut or grown."""
    need_backend("uffd")
    make_sparse("source")
    run("cp", "source", "fresh")
    write("longer", pattern(5 << 20, 3))
    told = run("--json", "cp", "source", "longer", "--verify").json()
    write("shorter", b"short")
    run("cp", "file:source", "file:shorter")
    for target in ("fresh", "longer", "shorter"):
        assert read(target) == read("source"), target
        assert os.stat(target).st_blocks * 512 < 1 << 20, target
    assert told["size_bytes"] == os.path.getsize("source") and told["verified"] is True
    assert 0 < told["written_bytes"] < 100000


def test_cp_edges():
    """Sizes around nothing and around a page."""
    need_backend("uffd")
    for size in (0, 1, 4095, 4096, 4097, (1 << 20) + 1):
        write("source", pattern(size, size))
        run("cp", "--verify", "source", "target")
        assert read("target") == read("source"), size


def test_cp_names():
    """Paths are paths: what a URI would take for its own is escaped."""
    need_backend("uffd")
    for name in ("what?", "50%", "a%41", "a&b=c", "./x:y", "mem", "-dash", "new\nline"):
        write(name, pattern(9000))
        run("cp", "--", name, "target")
        assert read("target") == read(name), name
        run("cp", "--", "target", name + "2")
        assert read(name + "2") == read("target"), name
    check_error(run("cp", "fiel:target", "other", expect=FAILED), "cp", "fiel")
    assert not os.path.exists("other")


def test_cp_memory():
    """Between stores of different kinds."""
    need_backend("uffd")
    make_sparse("source")
    run("cp", "--verify", "source", "mem:64M")
    run("cp", "mem:100000", "zeros")
    assert read("zeros") == bytes(100000)


def test_cp_refused():
    """A refusal by the target's store is exit status 4, and no success is claimed (S1.1)."""
    need_backend("uffd")
    write("source", pattern(1 << 20))
    result = run("cp", "source", "file:target?quota=256K", expect=REFUSED)
    check_error(result, "cp", "target", "incomplete", "(make room, or raise the quota)")
    assert len(read("target")) <= 1 << 20


def test_cp_write_error():
    """A write-back that fails is told, wherever it shows."""
    need_backend("uffd")
    write("source", pattern(1 << 20))
    result = run("cp", "source", "error?op=writepages&errno=EIO&count=0:file:target",
                 expect=REFUSED)
    check_error(result, "cp", "incomplete")
    result = run("cp", "source", "error?op=fsync&errno=EIO:file:target2", expect=REFUSED)
    check_error(result, "cp", "incomplete", "sync")


def test_cp_read_error():
    """A source that cannot be read is exit status 1."""
    need_backend("uffd")
    write("source", pattern(1 << 20))
    result = run("cp", "error?op=fault&errno=EIO&count=0:file:source", "target", expect=FAILED)
    check_error(result, "cp", "source")


def test_cp_same():
    """Storage is not copied onto itself, whatever it is called."""
    need_backend("uffd")
    write("source", pattern(5000))
    os.link("source", "linked")
    os.symlink("source", "symbolic")
    for target in ("source", "./source", "linked", "symbolic", "file:source?quota=1M"):
        check_error(run("cp", "source", target, expect=FAILED), "cp", "same storage")
    assert read("source") == pattern(5000)


def test_cp_bad_operands():
    """What cannot be opened is named, and nothing is made."""
    check_error(run("cp", "missing", "target", expect=FAILED), "cp", "missing")
    assert os.listdir() == []
    write("source", b"x")
    os.mkdir("directory")
    check_error(run("cp", "source", "directory", expect=FAILED), "cp", "directory")
    check_error(run("cp", "source", "nowhere/target", expect=FAILED), "cp", "nowhere/target")
    check_error(run("cp", "source", "file:x?nonsense=1", expect=FAILED), "cp", "nonsense")


def test_cp_progress():
    """On a terminal long work shows how far it is; the line is gone at the end."""
    need_backend("uffd")
    write("source", pattern(1 << 20) * 32)
    main, terminal = pty.openpty()
    # Runs are 512 pages at most: 16 waits of a tenth of a second last longer than the half second
    # before the first line.
    process = subprocess.Popen([TOOL, "cp", "delay?op=fault&us=100000:file:source", "target"],
                               stdout=subprocess.DEVNULL, stderr=terminal)
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(main, 4096):
            shown += chunk
    except OSError:
        pass # the other end is closed
    os.close(main)
    assert process.wait(LIMIT_S) == OK, shown
    assert b"mkwrite cp: copying" in shown and b"%, " in shown, shown
    assert shown.endswith(b"\r\x1b[K"), shown


# ---- info ---------------------------------------------------------------------------------------

def test_info_stores():
    """Without URI: all stores and their options."""
    text = run("info").out.decode()
    stores = {s["scheme"]: s for s in run("info", "--json").json()["stores"]}
    for scheme in ("mem", "file", "error", "delay"):
        assert f"{scheme}:" in text and stores[scheme]["summary"] in text
        assert all(o["option"] and o["meaning"] for o in stores[scheme]["options"]), scheme
    assert stores["error"]["layer"] and not stores["file"]["layer"]


def test_info_object():
    """Size, storage and identity of an object; the file is not touched."""
    need_backend("uffd")
    make_sparse("source")
    before = os.stat("source")
    text = run("info", "source").out.decode()
    assert f" {before.st_size} " in text and "file:source" in text
    told = run("info", "--json", "source", "file:./source", "mem:12345").json()["objects"]
    assert told[0]["size_bytes"] == before.st_size and told[2]["size_bytes"] == 12345
    assert told[0]["allocated_bytes"] == before.st_blocks * 512
    assert told[0]["identity"] == told[1]["identity"] != ""
    assert told[0]["ino"] == before.st_ino and told[0]["dev"] == before.st_dev
    assert os.stat("source").st_mtime_ns == before.st_mtime_ns


def test_info_layers():
    """Layers are shown from the top to the store."""
    need_backend("uffd")
    write("source", b"x" * 100)
    uri = "delay?us=1000&op=fault:error?op=fsync:file:source?quota=1M"
    parts = run("info", "--json", uri).json()["objects"][0]["parts"]
    assert [p["scheme"] for p in parts] == ["delay", "error", "file"]
    assert [p["options"] for p in parts] == ["us=1000&op=fault", "op=fsync", "quota=1M"]
    assert parts[2]["path"] == "source"


def test_info_names():
    """Whatever the name, the JSON is good."""
    need_backend("uffd")
    for name in (b'quo"te', b"back\\slash", b"new\nline", b"tab\t", b"\xff\xfe", b"\xc3\xa9",
                 b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\x01\x7f", b"\xc0\xaf", b"cut\xe2\x82"):
        write(name, b"x")
        told = run("info", "--json", name).json()["objects"][0]
        try:
            assert told["uri"] == "file:" + name.decode(), name
        except UnicodeDecodeError:
            assert "\ufffd" in told["uri"], name


def test_info_errors():
    """What cannot be opened is named; the rest is told."""
    need_backend("uffd")
    write("source", b"x")
    result = run("info", "--json", "missing", "source", expect=FAILED)
    assert result.err.startswith(b"mkwrite info: file:missing: "), result.err
    assert len(result.json()["objects"]) == 1
    check_error(run("info", "nonsense:x", expect=FAILED), "info", "nonsense")
    check_error(run("info", "error:error:", expect=FAILED), "info", "error:error:")


# ---- doctor -------------------------------------------------------------------------------------

def test_doctor():
    """Its verdict, its exit status and its trial agree."""
    result = run("doctor", "--json", expect=None)
    told = result.json()
    uffd = [b for b in told["backends"] if b["name"] == "uffd"][0]
    assert result.status == (OK if uffd["usable"] else NOT_POSSIBLE), told
    assert told["usable"] == uffd["usable"]
    for backend in told["backends"]:
        assert backend["usable"] or (backend["reason"] and backend["remedy"]), backend
        assert not backend["usable"] or backend["test_passed"], backend
    assert told["kernel"]["release"] == os.uname().release
    text = run("doctor", expect=result.status).out.decode()
    for part in ("backends", "uffd", "inline", "kernel", "vm.max_map_count", "memory"):
        assert part in text, part


def test_doctor_not_possible():
    """Where userfaultfd is forbidden: exit status 3, why, and what to change."""
    need_filter()
    result = run("doctor", "--json", expect=NOT_POSSIBLE, preexec_fn=no_userfaultfd)
    told = result.json()
    uffd = [b for b in told["backends"] if b["name"] == "uffd"][0]
    assert not uffd["usable"] and uffd["reason"] and uffd["remedy"], uffd
    assert told["seccomp"] == 2 and told["usable"] is False
    text = run("doctor", expect=NOT_POSSIBLE, preexec_fn=no_userfaultfd).out.decode()
    assert "NOT usable" in text and "to change:" in text


# ---- Running them -------------------------------------------------------------------------------

def run_one(number, function):
    base = os.path.dirname(TOOL)
    work = tempfile.mkdtemp(prefix="tool-test.", dir=base if os.access(base, os.W_OK) else None)
    what = f"{function.__name__[5:]}: {function.__doc__}"
    os.chdir(work)
    try:
        function()
        print(f"ok {number} - {what}")
        return True
    except Skip as skip:
        print(f"ok {number} - {what} # SKIP {skip}")
        return True
    except Exception: # pylint: disable=broad-except
        print(f"not ok {number} - {what}")
        print("".join("#   " + line for line in traceback.format_exc().splitlines(True)))
        return False
    finally:
        os.chdir("/")
        shutil.rmtree(work, ignore_errors=True)
        sys.stdout.flush()


def main(names, arguments):
    """Run the tests among names, a module's globals()."""
    parts = [a for a in arguments if a != "--list"]
    functions = [f for name, f in names.items() if name.startswith("test_")
                 and (not parts or any(part in name for part in parts))]
    if "--list" in arguments:
        print("\n".join(f"{f.__name__[5:]}: {f.__doc__}" for f in functions))
        sys.exit(0 if functions else NONE_RAN)
    print(f"TAP version 13\n1..{len(functions)}")
    good = [run_one(number, f) for number, f in enumerate(functions, 1)]
    sys.exit(NONE_RAN if not functions else not all(good))


TOOL = os.path.abspath(sys.argv[1])
if __name__ == "__main__":
    main(globals(), sys.argv[2:])
