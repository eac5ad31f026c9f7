/* SPDX-License-Identifier: MIT */
/*
 * program.c - the benchmark's programs: their loops, and running them, timed or traced.
 *
 * A program makes a call that fails before and after what it times: between these the tracer
 * counts.
 */
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MARK	    0x6d6b7762 /* of getpgid: no such process */
#define READ_BYTES  (64u << 10)
#define AGAIN_TIMES 16u
#define CALLS	    200000u

/* ---- In the program ----------------------------------------------------------------------- */

struct program {
	int fd;
	char *map;
	size_t pages;
	uint32_t *order; /* a quarter of them, shuffled, always in the same way */
	struct program_result result;
};

static void mark(void)
{
	(void)!syscall(SYS_getpgid, MARK);
}

static uint64_t begin(void)
{
	mark();
	return bench_now_ns();
}

static void end(struct program *p, uint64_t start, uint64_t units)
{
	p->result.elapsed_ns = bench_now_ns() - start;
	p->result.units = units;
	mark();
}

static int loop_sequential(struct program *p)
{
	uint64_t start = begin();

	bench_write_pages(p->map, p->pages, NULL);
	end(p, start, p->pages);
	return 0;
}

static int loop_random(struct program *p)
{
	uint64_t start = begin();

	bench_write_pages(p->map, p->pages / 4, p->order);
	end(p, start, p->pages / 4);
	return 0;
}

static int loop_allocated(struct program *p)
{
	int error = posix_fallocate(p->fd, 0, (off_t)(p->pages * BENCH_PAGE));

	return error ? -error : loop_random(p);
}

static int loop_again(struct program *p)
{
	uint64_t start;

	bench_write_pages(p->map, p->pages, NULL);
	start = begin();
	for (unsigned i = 0; i < AGAIN_TIMES; i++)
		bench_write_pages(p->map, p->pages, NULL);
	end(p, start, AGAIN_TIMES * p->pages);
	return 0;
}

static int loop_read(struct program *p)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	size_t bytes = p->pages * BENCH_PAGE;
	uint64_t start;
	int error = 0;

	if (zero < 0)
		return -errno;
	bench_write_pages(p->map, p->pages, NULL);
	start = begin();
	for (size_t at = 0; at < bytes && !error; at += READ_BYTES)
		if (read(zero, p->map + at, READ_BYTES) != READ_BYTES)
			error = -EIO;
	end(p, start, p->pages);
	close(zero);
	return error;
}

/* Of a byte that is in no view, in a program that has one. */
static int loop_calls(struct program *p)
{
	uint64_t start;
	int error = 0;
	char byte;

	p->map[0] = 1;
	start = begin();
	for (unsigned i = 0; i < CALLS && !error; i++)
		if (pread(p->fd, &byte, 1, 0) != 1)
			error = -EIO;
	end(p, start, CALLS);
	return error;
}

static const struct {
	const char *name;
	int (*run)(struct program *p);
} loops[] = {
	{"sequential", loop_sequential}, {"random", loop_random}, {"allocated", loop_allocated},
	{"again", loop_again},		 {"read", loop_read},	  {"calls", loop_calls},
};

static void order_make(struct program *p)
{
	uint32_t random = 1;

	for (size_t i = 0; i < p->pages; i++)
		p->order[i] = (uint32_t)i;
	for (size_t i = 0; i < p->pages / 4; i++) {
		size_t other;

		random = random * 1664525 + 1013904223;
		other = i + (random >> 8) % (p->pages - i);
		uint32_t page = p->order[i];
		p->order[i] = p->order[other];
		p->order[other] = page;
	}
}

static int program_do(struct program *p, const char *loop, size_t bytes, const char *file)
{
	int error = -EINVAL;

	p->pages = bytes / BENCH_PAGE;
	p->order = calloc(p->pages + 1, sizeof(*p->order));
	p->fd = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (!p->order || p->fd < 0 || ftruncate(p->fd, (off_t)bytes))
		return -errno;
	p->map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, 0);
	if (p->map == MAP_FAILED)
		return -errno;
	order_make(p);
	for (size_t i = 0; i < sizeof(loops) / sizeof(loops[0]); i++)
		if (strcmp(loops[i].name, loop) == 0)
			error = loops[i].run(p);
	unlink(file);
	return error;
}

int program_main(const char *spec)
{
	struct program p = {.fd = -1};
	char loop[32], file[256];
	size_t bytes;
	int error = -EINVAL;

	if (sscanf(spec, "%31[^:]:%zu:%255s", loop, &bytes, file) == 3 && bytes >= BENCH_PAGE)
		error = program_do(&p, loop, bytes, file);
	if (error) {
		fprintf(stderr, "mkwrite bench: --program=%s: %s\n", spec, strerror(-error));
		return 1;
	}
	printf("%llu %llu\n", (unsigned long long)p.result.elapsed_ns,
	       (unsigned long long)p.result.units);
	return 0;
}

/* ---- Running one -------------------------------------------------------------------------- */

/* In the child. */
static void program_exec(char *const *argv, int out, bool traced)
{
	if (dup2(out, STDOUT_FILENO) < 0)
		_exit(1);
	if (traced && (ptrace(PTRACE_TRACEME, 0, NULL, NULL) || raise(SIGSTOP)))
		_exit(1);
	execv(argv[0], argv);
	_exit(127);
}

static pid_t program_start(char *const *argv, bool traced, int *out)
{
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid == 0)
		program_exec(argv, ends[1], traced);
	close(ends[1]);
	if (pid < 0)
		close(ends[0]);
	*out = ends[0];
	return pid < 0 ? -errno : pid;
}

static int result_read(int out, struct program_result *result)
{
	unsigned long long elapsed, units;
	char text[64] = "";
	size_t length = 0;
	ssize_t n;

	while (length < sizeof(text) - 1 &&
	       (n = read(out, text + length, sizeof(text) - 1 - length)) > 0)
		length += (size_t)n;
	close(out);
	if (sscanf(text, "%llu %llu", &elapsed, &units) != 2 || units == 0)
		return -EIO;
	*result = (struct program_result){elapsed, units};
	return 0;
}

int program_run(struct bench *bench, char *const *argv, struct program_result *result)
{
	int out, status, error;
	pid_t pid = program_start(argv, false, &out);

	if (pid < 0)
		return bench_say(bench, pid, "cannot start a program: %s", strerror(-pid));
	error = result_read(out, result);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	if (!error && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
		error = -EIO;
	return error ? bench_say(bench, error, "%s failed (status %#x)", argv[0], (unsigned)status)
		     : 0;
}

/* ---- Counting ----------------------------------------------------------------------------- */

struct trace {
	pid_t counted; /* the thread between its marks; 0: none */
	uint64_t faults, calls;
};

static void trace_call(struct trace *t, pid_t tid)
{
	struct __ptrace_syscall_info info;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info) <= 0 ||
	    info.op != PTRACE_SYSCALL_INFO_ENTRY)
		return;
	if (info.entry.nr == SYS_getpgid && info.entry.args[0] == MARK)
		t->counted = t->counted == tid ? 0 : tid;
	else if (t->counted == tid)
		t->calls++;
}

/* The signal that the thread is to be given. */
static int trace_stop(struct trace *t, pid_t tid, int status)
{
	int sig = WSTOPSIG(status);

	if (sig == (SIGTRAP | 0x80)) {
		trace_call(t, tid);
		return 0;
	}
	if (status >> 16 != 0 || sig == SIGSTOP || sig == SIGTRAP)
		return 0;
	t->faults += t->counted == tid && (sig == SIGSEGV || sig == SIGBUS);
	return sig;
}

int program_trace(struct bench *bench, char *const *argv, uint64_t *faults, uint64_t *calls)
{
	const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
			     PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
	struct program_result result;
	struct trace t = {0};
	int out, status, error = 0;
	pid_t pid = program_start(argv, true, &out), tid;

	if (pid < 0)
		return bench_say(bench, pid, "cannot start a program: %s", strerror(-pid));
	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status) ||
	    ptrace(PTRACE_SETOPTIONS, pid, NULL, options))
		error = -EPERM;
	else
		ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
	while (!error && (tid = waitpid(-1, &status, __WALL)) > 0) {
		if (WIFSTOPPED(status))
			ptrace(PTRACE_SYSCALL, tid, NULL, (long)trace_stop(&t, tid, status));
		else if (tid == pid)
			break;
	}
	if (error)
		kill(pid, SIGKILL);
	else
		error = result_read(out, &result);
	*faults = t.faults;
	*calls = t.calls;
	return error ? bench_say(bench, error, "a program cannot be traced") : 0;
}
