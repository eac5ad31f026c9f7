#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`mkwrite run`, the supervisor: all of it that does not depend on what the library in a program does.

usage: run.py MKWRITE LIBRARY CLIENT [--list] [NAME-PART...]

LIBRARY stands in for the one that is loaded into programs, CLIENT is a program that does what its
arguments say (run_client.c); what is to be seen depends on messages and on pipes, never on time.
Tests are as in tool.py.
"""
import contextlib
import errno
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True # the source directory is left as it is
import tool # pylint: disable=wrong-import-position
from tool import Skip, check_error, read, write # pylint: disable=wrong-import-position

FULL, SELF, CANNOT, NOT_FOUND = 75, 125, 126, 127
MIB = 1 << 20
PATIENCE_S = 60
SAY, RESERVED = 6, 4 # kinds of events


def run(*arguments, expect=0, **keywords):
    return tool.run("run", *arguments, expect=expect, **keywords)


def client(*words, options=(), **keywords):
    return run(*options, "--", CLIENT, *map(str, words), **keywords)


class Running:
    """A client that runs. What it prints and what the command says is read line by line."""

    def __init__(self, *words, options=(), program=None, **keywords):
        program = program or [CLIENT, *map(str, words)]
        signal.alarm(PATIENCE_S)
        self.process = subprocess.Popen([tool.TOOL, "run", *options, "--", *program], bufsize=0,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, **keywords)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        signal.alarm(0)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()

    def line(self):
        return self.process.stdout.readline().decode().rstrip("\n")

    def says(self, *parts):
        """The next line on stderr, with these parts."""
        text = self.process.stderr.readline().decode().rstrip("\n")
        assert text.startswith("mkwrite run: "), text
        for part in parts:
            assert part in text, f"{part!r} is not in {text!r}"
        return text

    def prints(self, text):
        """The next line on stderr, which is not the command's."""
        line = self.process.stderr.readline().decode()
        assert line == text + "\n", line

    def go(self):
        self.process.stdin.write(b"\n")

    def ends(self, status=0):
        """It ends so, and has nothing more to say."""
        out, err = self.process.communicate(timeout=tool.LIMIT_S)
        assert self.process.returncode == status, (self.process.returncode, out, err)
        assert err == b"", err
        return out.decode()


def patience(*unused):
    raise TimeoutError("nothing came")


# ---- Command lines ------------------------------------------------------------------------------

def test_help():
    """--help has every option, examples, and the exit statuses, in 80 columns."""
    text = run("--help").out.decode()
    for option in ("on-full=wait", "on-full=exit", "on-full=signal", "on-full-exec", "reserve",
                   "dirty-limit", "trace", "snapshot", "snapshot-dir", "no-children", "check"):
        assert f"--{option}" in text, option
    assert text.startswith("Usage: mkwrite run") and "Examples:" in text and "Exit status:" in text
    assert max(map(len, text.splitlines())) <= 80
    # Behind -- it is the program's.
    assert run("--", "echo", "--help", "--json", "-h").out == b"--help --json -h\n"


def test_usage_errors():
    """A wrong command line is exit status 125, and nothing is run."""
    def wrong(*arguments, part):
        result = run(*arguments, expect=SELF)
        check_error(result, "run", part, "Try: mkwrite run --help")
    program = ("--", CLIENT, "output", "it-ran")
    wrong(part="behind --")
    wrong("--", part="behind --")
    wrong("true", part="behind --")
    wrong("true", *program, part="true: the program stands behind --")
    wrong("--frob", *program, part="--frob: no such option")
    wrong("--on-full=never", *program, part="never")
    wrong("--on-full", *program, part="needs a value")
    wrong("--on-full=exit", "--on-full-exec=true", *program, part="--on-full=wait only")
    wrong("--on-full=signal", "--on-full-exec=true", *program, part="--on-full=wait only")
    wrong("--reserve=much", *program, part="not a size")
    wrong("--dirty-limit=4K", *program, part="two pages")
    wrong("--no-children=yes", *program, part="takes no value")
    wrong("--snapshot=never", *program, part="--snapshot")
    wrong("--snapshot-dir=.", *program, part="goes with --snapshot only")
    wrong("--json", *program, part="--check only")
    assert os.listdir() == []


def test_trace_not_made():
    """A trace that cannot be written is said before the program is run."""
    check_error(client("output", "it-ran", options=["--trace=none/here"], expect=SELF), "run",
                "--trace: none/here: No such file or directory")
    assert os.listdir() == []


def test_trace_full():
    """A trace whose disk is full is said, and the program runs on."""
    if not os.path.exists("/dev/full"):
        raise Skip("no /dev/full here")
    result = client("open", "data", "writes", 50000, "exit", 3, options=["--trace=/dev/full"],
                    expect=3)
    lines = result.err.decode().splitlines()
    assert all("--trace: /dev/full: No space left on device" in line for line in lines), lines
    assert lines[-1].endswith("it is not complete") and len(lines) <= 2, lines


# ---- The program is as it would be --------------------------------------------------------------

def test_status():
    """The exit status is the program's."""
    for status in (0, 1, 7, 75, 125, 255):
        result = client("exit", status, expect=status)
        assert result.out == b"" and result.err == b"", result.err


def test_signalled():
    """Ended by a signal, the command ends by it too, and leaves no core of its own."""
    import resource # pylint: disable=import-outside-toplevel
    def cores():
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGPIPE,
                   signal.SIGHUP, signal.SIGINT, signal.SIGALRM, signal.SIGRTMIN):
        result = client("raise", int(number), expect=-number, preexec_fn=cores)
        assert result.out == b"" and result.err == b"", result.err
    kept = [name for name in os.listdir() if name.startswith("core")]
    pattern = read("/proc/sys/kernel/core_pattern")
    assert len(kept) <= 4 or not pattern.startswith(b"core"), kept


def test_pipes():
    """stdin and stdout are the program's alone: bytes pass, and ends are seen."""
    data = tool.pattern(3 * MIB)
    result = subprocess.run([tool.TOOL, "run", "--", "cat"], input=data, stdout=subprocess.PIPE,
                            check=True)
    assert result.stdout == data
    with Running("close", 1, "read") as running:
        assert running.process.stdout.read() == b""
        running.go()
        running.ends()
    with Running("close", 0, "retried") as running:
        poll = select.poll()
        poll.register(running.process.stdin, 0)
        assert poll.poll()[0][1] == select.POLLERR # nobody has its other end
        running.process.terminate()
        assert running.line() == "" # its stdout is closed: it has ended
        running.ends(-signal.SIGTERM)


def test_descriptors():
    """No descriptor of ours reaches the program; one that is closed stays closed."""
    options = ["--trace=trace", "--snapshot=1000"]
    assert client("fds", options=options).out == b"0 1 2 \n"
    closed = {"<&-": "0", ">&-": "1", "2>&-": "2"}
    for closing in ("<&-", ">&-", "2>&-", "<&- 2>&-", "<&- >&- 2>&-"):
        script = f'"$0" run --trace=trace -- "$1" output seen fds {closing}'
        subprocess.run(["sh", "-c", script, tool.TOOL, CLIENT], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        # The client's own output is its descriptor 1.
        expected = {"0", "2"} - {closed[c] for c in closing.split()} | {"1"}
        assert set(read("seen").decode().split()) == expected, (closing, read("seen"))


def status_lines(*command, prepare):
    text = subprocess.run([*command, "cat", "/proc/self/status"], stdout=subprocess.PIPE,
                          check=True, restore_signals=False, preexec_fn=prepare).stdout.decode()
    return re.findall(r"^(?:SigBlk|SigIgn|SigCgt|NoNewPrivs|Groups|Umask):.*$", text, re.M)


def test_signals_inherited():
    """What the command was started with, ignored and blocked signals, the program has too."""
    def default():
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
    def ignored():
        default()
        for number in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGHUP, signal.SIGINT,
                       signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
    def blocked():
        default()
        signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGCHLD, signal.SIGTERM, signal.SIGCONT,
                                                    signal.SIGRTMIN, signal.SIGPIPE])
    for prepare in (default, ignored, blocked):
        seen = status_lines(tool.TOOL, "run", "--", prepare=prepare)
        assert seen == status_lines(prepare=prepare), (prepare.__name__, seen)
        assert len(seen) == 6, seen


def test_place():
    """The program is in the command's process group and session, and is its child."""
    program = [sys.executable, "-c", "import os; print(os.getpgrp(), os.getsid(0), os.getppid())"]
    with Running(program=program, start_new_session=True) as running:
        pid = str(running.process.pid)
        assert running.ends().split() == [pid, pid, pid]


def test_environment():
    """The library is behind what LD_PRELOAD has; all else is as it was."""
    def environment(**changes):
        # The command itself may be sanitized.
        env = {"ASAN_OPTIONS": "verify_asan_link_order=0", **os.environ, **changes}
        text = subprocess.run([tool.TOOL, "run", "--", "env", "-0"], stdout=subprocess.PIPE,
                              check=True, env=env).stdout.decode()
        seen = dict(entry.split("=", 1) for entry in text.split("\0") if entry)
        name = seen.pop("MKWRITE_RUN")
        assert re.fullmatch(r"/proc/\d+/fd/\d+", name), name
        preload = seen.pop("LD_PRELOAD")
        sanitizer = env.pop("ASAN_OPTIONS", "").split(":")
        assert seen.pop("ASAN_OPTIONS").split(":") == \
            [option for option in sanitizer if option] + ["verify_asan_link_order=0"]
        env.pop("LD_PRELOAD", None)
        env.pop("MKWRITE_RUN", None)
        assert {k: v for k, v in seen.items() if k != "_"} == \
            {k: v for k, v in env.items() if k != "_"}
        return preload
    library = os.path.join(os.path.dirname(tool.TOOL), "libmkwrite-run.so")
    copy = os.path.abspath("other.so")
    shutil.copy(library, copy)
    assert environment() == library
    assert environment(LD_PRELOAD="", ASAN_OPTIONS="exitcode=1:verify_asan_link_order=0") == library
    assert environment(LD_PRELOAD=copy, MKWRITE_RUN="/proc/1/fd/0") == f"{copy}:{library}"
    assert environment(LD_PRELOAD=f"{copy} {library}") == f"{copy} {library}"


def test_not_reached():
    """If the library could not report itself, this is said."""
    os.mkdir("bin")
    shutil.copy(tool.TOOL, "bin/mkwrite")
    shutil.copy("/dev/null", "bin/libmkwrite-run.so")
    process = subprocess.run(["bin/mkwrite", "run", "--", "true"], stderr=subprocess.PIPE,
                             check=True)
    assert b"mkwrite run: true: the library was not loaded" in process.stderr, process.stderr


# ---- Signals ------------------------------------------------------------------------------------

COUNTER = """
import os, signal, sys
seen = []
def handle(number, frame):
    seen.append(number)
    os.write(1, b"got %d\\n" % number)
for number in map(int, sys.argv[1:]):
    signal.signal(number, handle)
os.write(1, b"ready %d %d.\\n" % (os.getpid(), os.getppid()))
while os.read(0, 1) not in (b"q", b""):
    pass
os.write(1, b"seen %d\\n" % len(seen))
"""


def counter(*numbers):
    return [sys.executable, "-c", COUNTER, *(str(int(n)) for n in numbers)]


def test_forwarded():
    """Signals sent to the command alone are passed on, once."""
    numbers = [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT,
               signal.SIGQUIT, signal.SIGTSTP]
    with Running(program=counter(*numbers)) as running:
        assert running.line().startswith("ready")
        for number in numbers:
            running.process.send_signal(number)
            assert running.line() == f"got {int(number)}"
        running.process.stdin.write(b"q")
        assert running.ends() == f"seen {len(numbers)}\n"
    with Running("print", "ready", "read") as running:
        assert running.line() == "ready"
        running.process.send_signal(signal.SIGTERM)
        assert running.line() == "" # its stdout is closed: it has ended
        running.ends(-signal.SIGTERM)


class Terminal:
    """A terminal, and a shell of a few lines that runs the command in its foreground, as a job."""

    SHELL = """
import fcntl, os, signal, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    status = os.waitpid(job, os.WUNTRACED)[1]
    if not os.WIFSTOPPED(status):
        break
    os.tcsetpgrp(0, os.getpgrp())
    os.write(1, b"stopped\\n")
    while os.read(0, 1) != b"f":
        pass
    os.tcsetpgrp(0, job)
    os.killpg(job, signal.SIGCONT)
    os.write(1, b"resumed\\n")
os.write(1, b"status %d\\n" % (os.waitstatus_to_exitcode(status),))
os.read(0, 1)
"""

    def __init__(self, *program):
        signal.alarm(PATIENCE_S)
        self.main, end = pty.openpty()
        self.process = subprocess.Popen([sys.executable, "-c", self.SHELL, tool.TOOL, "run", "--",
                                         *program], stdin=end, stdout=end, stderr=end)
        os.close(end)
        self.text = b""

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        signal.alarm(0)
        os.close(self.main)
        self.process.kill()
        self.process.wait()

    def wait(self, text):
        """Until this is on the screen, after what was waited for before. What is before it."""
        while text.encode() not in self.text:
            self.text += os.read(self.main, 4096)
        before, self.text = self.text.split(text.encode(), 1)
        return before.decode()

    def type(self, text):
        os.write(self.main, text)


def test_terminal_interrupt():
    """Ctrl-C and Ctrl-\\ are between the terminal and the program: the command passes none on."""
    with Terminal(*counter(signal.SIGINT, signal.SIGQUIT)) as terminal:
        terminal.wait("ready")
        terminal.type(b"\x03")
        terminal.wait("got 2\r\n")
        terminal.type(b"\x1c")
        terminal.wait("got 3\r\n")
        terminal.type(b"q\n")
        terminal.wait("seen 2")
        terminal.wait("status 0")
    # A program that has left the foreground is not sent any. What it reads is a fifo.
    os.mkfifo("go")
    program = counter(signal.SIGINT, signal.SIGQUIT, signal.SIGUSR2)
    program[2] = "import os; os.setpgid(0, 0); os.dup2(os.open('go', os.O_RDONLY), 0)" + program[2]
    with Terminal(*program) as terminal:
        with open("go", "wb") as go:
            terminal.wait("ready")
            supervisor = int(terminal.wait(".").split()[1])
            for key, echo in ((b"\x03", "^C"), (b"\x1c", "^\\")):
                terminal.type(key)
                terminal.wait(echo) # it has been sent
            os.kill(supervisor, signal.SIGUSR2) # taken after the others, whose numbers are lower
            terminal.wait("got 12\r\n")
            go.write(b"q")
        terminal.wait("seen 1\r\n")
        terminal.wait("status 0")


def test_terminal_stop():
    """Ctrl-Z stops the job, and fg has it go on; also where the program alone stops itself."""
    with Terminal(*counter()) as terminal:
        terminal.wait("ready")
        for _ in range(2):
            terminal.type(b"\x1a")
            terminal.wait("stopped")
            terminal.type(b"f\n")
            terminal.wait("resumed")
        terminal.type(b"q\n")
        terminal.wait("seen 0")
        terminal.wait("status 0")
    with Terminal("sh", "-c", "kill -STOP $$; echo again; exit 3") as terminal:
        terminal.wait("stopped")
        terminal.type(b"f\n")
        terminal.wait("again")
        terminal.wait("status 3")


def status_of(pid, name):
    return re.search(rf"^{name}:\s*(\S+)", read(f"/proc/{pid}/status").decode(), re.M).group(1)


def test_stopped_without_terminal():
    """Without a terminal a stopped program does not stop the command: nobody would wake it."""
    with Running(program=counter(signal.SIGTTOU), start_new_session=True) as running:
        pid = int(running.line().split()[1])
        os.kill(pid, signal.SIGSTOP)
        while status_of(pid, "State") != "T":
            pass
        # Taken after the SIGCHLD that tells of the stop, whose number is lower.
        running.process.send_signal(signal.SIGTTOU)
        while not int(status_of(pid, "ShdPnd"), 16) >> (signal.SIGTTOU - 1) & 1:
            pass
        os.kill(pid, signal.SIGCONT) # that one is gone now
        running.process.send_signal(signal.SIGTTOU)
        assert running.line() == f"got {int(signal.SIGTTOU)}"
        running.process.stdin.write(b"q")
        assert running.ends() == "seen 1\n"


# ---- A full disk --------------------------------------------------------------------------------

def test_stop():
    """A thread that waits is told of in one line with all there is to know, and so is its going on."""
    words = ("pid", "open", "data.mdb", "stop", errno.ENOSPC, 8 * MIB, MIB, "read", "end", "read",
             "stop", errno.EDQUOT, 4096, 4096, "read", "end", "exit", 3)
    with Running(*words) as running:
        pid = running.line()
        mount = mount_of(".")
        assert running.says() == \
            f"mkwrite run: {os.path.basename(CLIENT)}[{pid}]: data.mdb: no space left on the " \
            f"device at offset 8388608 (needs 1 MiB); waiting: free space on {mount}, " \
            f"or end it with kill {pid}"
        running.go()
        running.says(f"[{pid}]: data.mdb: it goes on")
        running.go()
        running.says("data.mdb: the disk quota is used up at offset 4096 (needs 4 KiB); waiting: "
                     f"raise the quota, or remove files, on {mount}, or end it with kill {pid}")
        running.go()
        running.says("it goes on")
        running.ends(3)


def mount_of(path):
    path = os.path.abspath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def test_stop_names():
    """Files elsewhere are told by their paths; no name gets at the terminal."""
    folder = tempfile.mkdtemp(prefix="else\x1b[31m\nwhere")
    try:
        with Running("open", f"{folder}/a", "stop", errno.ENOSPC, 0, 1, "read", "end") as running:
            running.says(folder.replace("\x1b", "?").replace("\n", "?") + "/a: no space")
            running.go()
            running.says("goes on")
            running.ends()
        # Without a name, and an error that has no name either.
        with Running("open", f"{folder}/a", "stop", 4000, 0, 1, "read", "end") as running:
            running.says("/a: Unknown error 4000 at")
            running.go()
            running.says("goes on")
            running.ends()
        with Running("stop", errno.EIO, 0, 1, "read", "end") as running:
            running.says("a file without a name: Input/output error at", "mend its file system")
            running.go()
            running.says("goes on")
            running.ends()
    finally:
        shutil.rmtree(folder)


def test_stop_threads():
    """Threads that wait at one file are one stop; more of them than can be told wait all the same."""
    for count in (8, 300):
        with Running("open", "data", "many", count, errno.ENOSPC, 4096, 4096, "exit", 0) as running:
            running.says("data: no space left on the device at offset 4096")
            assert running.line() == "many"
            running.go()
            running.says("data: it goes on")
            running.ends()


def test_stop_killed():
    """A process that is killed while it waits is told of, and others are not."""
    with Running("child", "pid", "open", "data", "stop", errno.ENOSPC, 0, 4096, "read") as running:
        pid = int(running.line())
        running.says(f"[{pid}]: data: no space")
        os.kill(pid, signal.SIGKILL)
        running.says(f"[{pid}]: data: it has ended while it waited")
        assert running.ends() == "child -9\n"
    with Running("pid", "open", "data", "stop", errno.ENOSPC, 0, 4096, "read") as running:
        pid = int(running.line())
        running.says("no space")
        os.kill(pid, signal.SIGTERM)
        running.says("it has ended while it waited")
        running.ends(-signal.SIGTERM)


def test_stop_namespace():
    """A process in a PID namespace of its own is told of by the number that it has here."""
    need_root()
    program = ["unshare", "-pf", CLIENT, "open", "data", "pid", "stop", str(errno.ENOSPC), "0",
               "4096", "read"]
    with Running(program=program) as running:
        if running.line() != "1":
            raise Skip("no namespace of our own")
        pid = re.search(r"end it with kill (\d+)$", running.says("no space")).group(1)
        assert os.readlink(f"/proc/{pid}/exe") == CLIENT, pid
        os.kill(int(pid), signal.SIGKILL)
        err = running.process.stderr.read().decode() # unshare has something to say, too
        assert f"[{pid}]: data: it has ended while it waited\n" in err, err


def test_command():
    """--on-full-exec is run once for a stop, with what it needs; then all try again."""
    os.mkfifo("go")
    command = "env >seen; echo visible; echo run >>runs; read x <go"
    words = ("pid", "open", "data", "many", 3, errno.ENOSPC, 4096, 12288, "retried",
             "read", "stop", errno.EDQUOT, 0, 1, "retried", "end")
    with Running(*words, options=[f"--on-full-exec={command}"],
                 env={**os.environ, "LD_PRELOAD": "", "MINE": "kept"}) as running:
        pid = running.line()
        running.says("no space")
        assert running.line() == "many"
        running.prints("visible")
        write("go", b"\n")
        running.go()
        running.says("it goes on")
        assert running.line() == "retried"
        seen = dict(line.split("=", 1) for line in read("seen").decode().splitlines()
                    if "=" in line)
        assert seen["MKWRITE_FILE"] == os.path.abspath("data") and seen["MINE"] == "kept"
        assert (seen["MKWRITE_OFFSET"], seen["MKWRITE_NEEDED"]) == ("4096", "12288")
        assert seen["MKWRITE_ERROR"] == "ENOSPC" and seen["MKWRITE_PID"] == pid
        assert "MKWRITE_RUN" not in seen and seen["LD_PRELOAD"] == ""
        assert read("runs") == b"run\n"
        running.go()
        running.says("quota")
        running.prints("visible")
        write("go", b"\n")
        assert running.line() == "retried"
        running.says("it goes on")
        running.ends()
        assert read("runs") == b"run\nrun\n"


def children_of(pid):
    return [child for task in os.listdir(f"/proc/{pid}/task")
            for child in read(f"/proc/{pid}/task/{task}/children").split()]


def test_command_overtaken():
    """There are never two commands for one file; a stop that meets one gets its own afterwards."""
    os.mkfifo("go")
    command = "echo run $MKWRITE_OFFSET; read x <go"
    words = ("open", "data", "stop", errno.ENOSPC, 4096, 1, "read", "end", "read", "stop",
             errno.ENOSPC, 8192, 1, "read", "post", SAY, 0, 0, "retried", "read", "end")
    with Running(*words, options=[f"--on-full-exec={command}"]) as running:
        running.says("offset 4096")
        running.prints("run 4096")
        running.go()
        running.says("it goes on")
        running.go()
        running.says("offset 8192")
        running.go()
        running.says("past the C library") # whatever there was to do about the stop is done
        assert len(children_of(running.process.pid)) == 2 # the program, and the command
        write("go", b"\n")
        assert running.line() == "retried"
        running.prints("run 8192")
        write("go", b"\n")
        running.go()
        running.says("it goes on")
        running.ends()


def test_command_fails():
    """A command that fails is told of, and tried again all the same."""
    for command, part in (("exit 3", "the command ended with status 3"),
                          ("kill -KILL $$", "the command was ended by signal 9")):
        with Running("open", "data", "stop", errno.ENOSPC, 0, 1, "retried", "end",
                     options=[f"--on-full-exec={command}"]) as running:
            running.says("no space")
            running.says("--on-full-exec: ", part)
            assert running.line() == "retried"
            running.says("it goes on")
            running.ends()


def test_fatal():
    """--on-full=exit and =signal: the process ends when it has been told of, in one line."""
    fatal = ("open", "data", "fatal", errno.ENOSPC, 8192, 4096)
    result = client(*fatal, "exit", FULL, options=["--on-full=exit"], expect=FULL)
    assert result.out == b"told\n"
    text = result.err.decode()
    assert re.fullmatch(r"mkwrite run: \S+\[\d+\]: data: no space left on the device at offset "
                        r"8192 \(needs 4 KiB\); it ends with status 75: free space on \S+, and "
                        r"run it again\n", text), text
    result = client(*fatal, "raise", 7, options=["--on-full=signal"], expect=-signal.SIGBUS)
    assert b"it gets SIGBUS, as it would by itself" in result.err, result.err
    assert result.err.count(b"\n") == 1, result.err


def test_supervisor_killed():
    """Without the command the program goes on: who waits, who posts, who is about to end."""
    words = ("open", "data", "stop", errno.ENOSPC, 0, 4096, "read", "end", "writes", 40000, "stop",
             errno.ENOSPC, 0, 4096, "fatal", errno.ENOSPC, 0, 4096, "print", "done")
    with Running(*words) as running:
        running.says("no space")
        running.process.kill()
        running.process.wait()
        running.go()
        assert [running.line() for _ in range(3)] == ["no stop", "alone", "done"]


def test_orphan():
    """Processes that live longer than the program go on without the command."""
    words = ("orphan", "read", "open", "data", "writes", 40000, "stop", errno.ENOSPC, 0, 4096,
             "print", "done")
    with Running(*words) as running:
        assert running.process.wait(PATIENCE_S) == 0
        running.go()
        assert running.line() == "no stop"
        assert running.ends() == "done\n"


# ---- What else is reported ----------------------------------------------------------------------

def test_says():
    """What the library has to say is said once, and for a file once for each."""
    post = lambda code, offset=0: ("post", SAY, offset, code)
    words = (*post(0), *post(0), *post(1), *post(2, 16), "open", "one", *post(3), *post(3),
             "open", "two", *post(3), *post(5, errno.EACCES), *post(99), "child", *post(3), "open",
             "one", *post(3))
    lines = client(*words).err.decode().splitlines()
    expected = ["past the C library", "io_uring", "16 pages", "one: its file system cannot reserve", "two: its file system cannot reserve",
                "two: this mapping is not watched: Permission denied"]
    assert len(lines) == len(expected), lines
    for line, part in zip(lines, expected):
        assert part in line and line.startswith("mkwrite run: "), line


def test_many_events():
    """More events than the ring has room for: none is lost, and the program waits for none."""
    result = client("open", "data", "writes", 100000, "child", "writes", 50000,
                    options=["--trace=trace"])
    assert result.err == b"" and result.out == b"child 0\n", result.err
    told = tool.run("trace", "--json", "trace", expect=None)
    if told.status == tool.USAGE:
        raise Skip("this build has no mkwrite trace")
    text = json.dumps(told.json())
    assert "150000" in text, text[:2000]


def test_reserved_given_back():
    """Space that was reserved and not used is given back at the end."""
    out = client("open", "data", "reserve", 8 * MIB).out.decode()
    assert out == f"{8 * MIB // 512} blocks\n", out
    st = os.stat("data")
    assert st.st_size == 8 * MIB and st.st_blocks == 0, st


# ---- What can be run ----------------------------------------------------------------------------

def header(bits=64, machine=62, kind=3, interpreter=b"/lib64/ld-linux-x86-64.so.2\0", order=1):
    """The beginning of an ELF file, of a program that nobody would want to run."""
    end = "<" if order == 1 else ">"
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, order, 1]) + bytes(9)
    if bits == 32:
        return ident + struct.pack(end + "HHIIIIIHHHHHH", kind, machine, 1, 0, 52, 0, 0, 52, 32, 1,
                                   0, 0, 0) + struct.pack(end + "8I", 1, 0, 0, 0, 52, 52, 5, 4096)
    headers = [(1, 5, 0)] + ([(3, 4, 64 + 2 * 56)] if interpreter is not None else [])
    size = len(interpreter or b"")
    text = ident + struct.pack(end + "HHIQQQIHHHHHH", kind, machine, 1, 0, 64, 0, 0, 64, 56,
                               len(headers), 0, 0, 0)
    for what, flags, offset in headers:
        text += struct.pack(end + "IIQQQQQQ", what, flags, offset, 0, 0, size, size, 4096)
    return text.ljust(64 + 2 * 56, b"\0") + (interpreter or b"")


def program(name, data, mode=0o755):
    write(name, data)
    os.chmod(name, mode)
    return os.path.abspath(name)


def problems(path, expect=CANNOT, **keywords):
    """The problems that --check finds; a run refuses with the first of them."""
    told = run("--check", "--json", "--", path, expect=None, **keywords)
    listed = told.json()
    assert told.status == (expect if listed["problems"] else 0), (told.status, listed)
    assert listed["can_run"] == (told.status == 0)
    text = run("--check", "--", path, expect=told.status, **keywords).out.decode()
    assert text.splitlines()[-1].split(None, 1)[1] == \
        ("it can be run" if listed["can_run"] else "it cannot be run"), text
    if listed["problems"]:
        refused = run("--", path, expect=told.status, **keywords)
        check_error(refused, "run", listed["problems"][0]["message"])
    return [problem["code"] for problem in listed["problems"]]


def need_x86():
    if os.uname().machine != "x86_64":
        raise Skip("the headers made here are for x86-64")


def test_check():
    """A program that can be run: what it is, and what would be loaded."""
    told = run("--check", "--json", "--", "sh").json()
    assert told["can_run"] and told["problems"] == [] and told["path"] == shutil.which("sh"), told
    assert told["linked"] == "linked dynamically" and os.path.exists(told["loader"])
    assert told["library"].endswith("/libmkwrite-run.so") and told["bits"] in (32, 64)
    assert b"it can be run" in run("--check", "--", CLIENT, "fatal").out


def test_check_elf():
    """Static, of another machine or another size: said at once, with what to do."""
    need_x86()
    loader = b"/lib64/ld-linux-x86-64.so.2\0"
    assert problems(program("good", header(interpreter=loader)), 0) == []
    assert problems(program("static", header(kind=2, interpreter=None))) == ["static"]
    assert problems(program("static-pie", header(interpreter=None))) == ["static"]
    assert problems(program("i386", header(bits=32, machine=3))) == ["machine"]
    assert problems(program("x32", header(bits=32, machine=62))) == ["machine"]
    assert problems(program("arm", header(machine=183))) == ["machine"]
    assert problems(program("big", header(machine=21, order=2))) == ["machine"]
    assert problems(program("strange", header(machine=12345))) == ["machine"]
    text = run("--check", "--", "./i386", expect=CANNOT).out.decode()
    assert "32-bit i386" in text and "64-bit x86-64" in text, text
    musl = header(interpreter=b"/lib/ld-musl-x86_64.so.1\0")
    assert problems(program("musl", musl))[-1] == "c-library"
    assert "loader" in problems(program("lost", header(interpreter=b"/none/ld-linux-x86-64.so.2\0")))


def test_check_damaged():
    """ELF files that are cut off or damaged anywhere are refused or taken, and never believed."""
    need_x86()
    whole = header()
    for length in (4, 20, 64, 100, len(whole) - 1):
        assert problems(program("cut", whole[:length])) == ["damaged"]
    for interpreter in (b"\0", b"", b"/lib64/ld-linux-x86-64.so.2", b"/" * 4095 + b"\0\0"):
        assert problems(program("bad", header(interpreter=interpreter))) == ["damaged"]
    assert problems(program("core", header(kind=4))) == ["damaged"]


def test_check_files():
    """What is not there, no file, not executable, or not readable."""
    assert problems("no-such-program-anywhere", NOT_FOUND) == ["not-found"]
    assert problems("", NOT_FOUND) == ["not-found"]
    assert problems("./nothing", NOT_FOUND) == ["not-found"]
    assert problems("x" * 5000, NOT_FOUND) == ["not-found"]
    assert problems("/") == ["not-a-program"]
    assert problems("/dev/null") == ["not-a-program"]
    assert problems(program("plain", b"#!/bin/sh\n", 0o644)) == ["not-executable"]
    path = f"{os.getcwd()}/a:{os.getcwd()}/b:{os.environ['PATH']}"
    os.mkdir("a")
    os.mkdir("b")
    program("a/tool", b"#!/bin/sh\n", 0o644)
    assert problems("tool", env={"PATH": path}) == ["not-executable"]
    good = program("b/tool", b"#!/bin/sh\n")
    assert run("--check", "--json", "--", "tool", env={"PATH": path}).json()["path"] == good
    os.chdir("b")
    assert run("--check", "--json", "--", "tool", env={"PATH": ":/bin"}).json()["path"] == "tool"


def nobody():
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)


def need_root():
    if os.geteuid() != 0:
        raise Skip("not root")


@contextlib.contextmanager
def open_folder():
    """A directory to which everybody has a way, with what the command needs there."""
    folder = tempfile.mkdtemp(prefix="run-test.", dir="/tmp")
    was = tool.TOOL
    try:
        os.chmod(folder, 0o755)
        for path in (tool.TOOL, os.path.join(os.path.dirname(tool.TOOL), "libmkwrite-run.so")):
            shutil.copy(path, folder)
        tool.TOOL = os.path.join(folder, "mkwrite")
        yield folder
    finally:
        tool.TOOL = was
        shutil.rmtree(folder)


def test_check_privileges():
    """Programs that gain rights are refused, where they would; and where they cannot be read."""
    need_root()
    with open_folder() as folder:
        path = os.path.join(folder, "true")
        shutil.copy(shutil.which("true"), path)
        as_nobody = {"preexec_fn": nobody}
        def mode(bits, owner=0, group=0):
            os.chown(path, owner, group)
            os.chmod(path, bits)
        mode(0o4755)
        assert problems(path, 0) == [] and problems(path, **as_nobody) == ["setuid"]
        mode(0o4755, owner=1)
        assert problems(path) == ["setuid"]
        mode(0o2755)
        assert problems(path, 0) == [] and problems(path, **as_nobody) == ["setgid"]
        mode(0o2745)
        assert problems(path, 0, **as_nobody) == [] or os.access(path, os.X_OK)
        mode(0o711)
        assert problems(path, **as_nobody) == ["unreadable"]
        mode(0o755)
        capability = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
        try:
            os.setxattr(path, "security.capability", capability)
        except OSError as error:
            raise Skip(f"no file capabilities here: {error}") from error
        assert problems(path, 0) == [] and problems(path, **as_nobody) == ["capabilities"]


def test_check_noexec():
    """A file system mounted noexec is named as the reason."""
    script = ('mount -t tmpfs -o noexec none "$1" && cp "$2" "$1" && '
              '"$0" run --check --json -- "$1/true"')
    os.mkdir("mnt")
    process = subprocess.run(["unshare", "-m", "sh", "-c", script, tool.TOOL,
                              os.path.abspath("mnt"), shutil.which("true")], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, check=False)
    if process.stdout == b"":
        raise Skip(f"no mount of our own: {process.stderr.decode().strip()}")
    codes = [p["code"] for p in json.loads(process.stdout)["problems"]]
    assert process.returncode == CANNOT and codes == ["noexec"], codes


def test_check_scripts():
    """Scripts are followed to what interprets them, as the system does."""
    need_x86()
    one = program("one", b"#! /bin/sh -e\nexit 4\n")
    told = run("--check", "--json", "--", one).json()
    assert told["scripts"] == [one] and told["program"] == "/bin/sh" and told["can_run"], told
    run("--", one, expect=4)
    two = program("two", b"#!" + one.encode() + b"\n")
    told = run("--check", "--json", "--", two).json()
    assert told["scripts"] == [two, one], told
    plain = program("plain", b"exit $#\n")
    assert run("--check", "--json", "--", plain).json()["program"] == "/bin/sh"
    run("--", plain, "a", "b", expect=2)
    run("--", program("empty", b""))
    assert problems(program("lost", b"#!/none/sh\n"), NOT_FOUND) == ["not-found"]
    assert problems(program("nothing", b"#!\n"), NOT_FOUND) == ["not-found"]
    program("static", header(kind=2, interpreter=None))
    assert problems(program("of-static", b"#!" + os.path.abspath("static").encode())) == ["static"]
    assert problems(program("loop", b"#!./loop\n")) == ["scripts"]
    write("long", b"#!" + b"/" * 300 + b"\n")
    os.chmod("long", 0o755)
    run("--check", "--", "./long", expect=CANNOT)


def test_check_library():
    """A library that is not there, or whose path LD_PRELOAD cannot hold, is said."""
    for folder, with_library in (("bin", False), ("bin two", True), ("bin:two", True)):
        os.mkdir(folder)
        shutil.copy(tool.TOOL, folder + "/mkwrite")
        if with_library:
            shutil.copy(os.path.join(os.path.dirname(tool.TOOL), "libmkwrite-run.so"), folder)
        process = subprocess.run([folder + "/mkwrite", "run", "--check", "--json", "--", "true"],
                                 stdout=subprocess.PIPE, check=False)
        told = json.loads(process.stdout)
        if not with_library and told["can_run"]:
            continue # it is installed
        assert process.returncode == CANNOT, told
        assert [p["code"] for p in told["problems"]] == ["library"], told


def test_cannot_start():
    """What the kernel refuses though all looked well is said with its reason."""
    path = os.path.abspath("busy")
    shutil.copy(shutil.which("true"), path)
    with open(path, "ab"):
        check_error(run("--", path, expect=CANNOT), "run", f"{path}: Text file busy")
    run("--", path)


def main():
    global CLIENT # pylint: disable=global-statement
    command, library, CLIENT = map(os.path.abspath, sys.argv[1:4])
    place = tempfile.mkdtemp(prefix="run-test.", dir=os.path.dirname(CLIENT))
    signal.signal(signal.SIGALRM, patience)
    try:
        # The library is looked for beside the command.
        shutil.copy(command, place)
        shutil.copy(library, os.path.join(place, "libmkwrite-run.so"))
        tool.TOOL = os.path.join(place, os.path.basename(command))
        tool.main(globals(), sys.argv[4:])
    finally:
        shutil.rmtree(place, ignore_errors=True)


main()
