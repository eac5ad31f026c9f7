/* SPDX-License-Identifier: MIT */
/*
 * cgroup.c - run something in a child process under a memory limit.
 *
 * A guardian process makes the control group, starts the child in it, and removes the group when
 * the child is gone. It outlives every way in which the benchmark can end: it takes signals
 * one at a time, and the death of its parent is one of them; whatever comes, it kills the child,
 * reaps it and removes the group.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROOT_V1 "/sys/fs/cgroup/memory"
#define ROOT_V2 "/sys/fs/cgroup"

struct shared { /* what child and guardian have to tell */
	int error;
	char reason[256];
	struct bench_sample sample;
};

struct group {
	char path[512];
	bool v1;
};

static int text_write(const char *directory, const char *file, const char *text)
{
	char path[600];
	int fd, error = 0;

	snprintf(path, sizeof(path), "%s/%s", directory, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		error = -errno;
	close(fd);
	return error;
}

/* The path of our own group, from /proc/self/cgroup: "4:memory:/a/b" or "0::/a/b". */
static bool own_path(bool v1, char *path, size_t size)
{
	FILE *file = fopen("/proc/self/cgroup", "re");
	char line[512];
	bool found = false;

	while (file && !found && fgets(line, sizeof(line), file)) {
		char *controllers = strchr(line, ':');
		char *where = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!where)
			continue;
		*where++ = '\0';
		where[strcspn(where, "\n")] = '\0';
		found = v1 ? strcmp(controllers + 1, "memory") == 0 : controllers[1] == '\0';
		if (found)
			snprintf(path, size, "%s", strcmp(where, "/") ? where : "");
	}
	if (file)
		fclose(file);
	return found;
}

/* Beneath our own group, or else at the top: in a container /proc may name a path that is not
 * there. */
static int group_make(struct group *group, uint64_t limit_bytes)
{
	char own[256] = "", limit[32];
	const char *root;
	int error;

	group->v1 = access(ROOT_V1 "/memory.limit_in_bytes", F_OK) == 0;
	root = group->v1 ? ROOT_V1 : ROOT_V2;
	own_path(group->v1, own, sizeof(own));
	snprintf(limit, sizeof(limit), "%lu", (unsigned long)limit_bytes);
	for (int tries = 0; tries < 2; tries++) {
		snprintf(group->path, sizeof(group->path), "%s%s/mkwrite-bench-%d", root,
			 tries ? "" : own, (int)getpid());
		if (mkdir(group->path, 0700)) {
			error = -errno;
			continue;
		}
		error = text_write(group->path, group->v1 ? "memory.limit_in_bytes" : "memory.max",
				   limit);
		if (!error)
			return 0;
		rmdir(group->path);
	}
	return error;
}

static void group_remove(const struct group *group)
{
	/* The kernel lets go of a group a moment after its last process was reaped. */
	for (int tries = 0; tries < 1000 && rmdir(group->path) && errno == EBUSY; tries++)
		usleep(1000);
}

static void child_run(struct bench *bench, const struct group *group, pid_t guardian,
		      bench_child_fn fn, void *arg, struct shared *shared)
{
	sigset_t none;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != guardian)
		_exit(1);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	bench->reason[0] = '\0';
	shared->error = text_write(group->path, "cgroup.procs", "0");
	if (shared->error)
		bench_say(bench, shared->error, "cannot enter the control group: %s",
			  strerror(-shared->error));
	else
		shared->error = fn(bench, arg, &shared->sample);
	snprintf(shared->reason, sizeof(shared->reason), "%s", bench->reason);
	_exit(0);
}

static void child_wait(pid_t child, const sigset_t *signals, struct shared *shared)
{
	int status = 0;

	while (waitpid(child, &status, WNOHANG) == 0) {
		siginfo_t info;

		if (sigwaitinfo(signals, &info) != SIGCHLD)
			kill(child, SIGKILL);
	}
	if (WIFSIGNALED(status)) {
		shared->error = -ECHILD;
		snprintf(shared->reason, sizeof(shared->reason),
			 "killed by signal %d under the limit", WTERMSIG(status));
	}
}

static void guardian_run(struct bench *bench, uint64_t limit_bytes, pid_t parent, bench_child_fn fn,
			 void *arg, struct shared *shared)
{
	struct group group;
	sigset_t signals;
	pid_t child, guardian = getpid();

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGQUIT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	shared->error = group_make(&group, limit_bytes);
	if (shared->error) {
		snprintf(shared->reason, sizeof(shared->reason),
			 "no control group with a memory limit: %s", strerror(-shared->error));
		_exit(0);
	}
	child = fork();
	if (child == 0)
		child_run(bench, &group, guardian, fn, arg, shared);
	if (child < 0)
		shared->error = -errno;
	else
		child_wait(child, &signals, shared);
	group_remove(&group);
	_exit(0);
}

int bench_cgroup_run(struct bench *bench, uint64_t limit_bytes, bench_child_fn fn, void *arg,
		     struct bench_sample *sample)
{
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t parent = getpid();
	pid_t guardian;
	int error;

	if (shared == MAP_FAILED)
		return bench_say(bench, -errno, "mmap: %s", strerror(errno));
	shared->error = -ECHILD;
	fflush(NULL);
	guardian = fork();
	if (guardian == 0)
		guardian_run(bench, limit_bytes, parent, fn, arg, shared);
	if (guardian < 0)
		shared->error = -errno;
	else
		while (waitpid(guardian, NULL, 0) < 0 && errno == EINTR)
			;
	error = shared->error;
	*sample = shared->sample;
	if (error)
		bench_say(bench, error, "%s",
			  shared->reason[0] ? shared->reason : "the child died");
	munmap(shared, sizeof(*shared));
	return error;
}
