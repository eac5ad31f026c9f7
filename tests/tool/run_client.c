/* SPDX-License-Identifier: MIT */
/*
 * run_client.c - a program for `mkwrite run` that speaks to the supervisor as the library would,
 * when it is told to: its arguments are words that are done one after the other (the table at the
 * end). What it is waited for it prints, what it waits for it reads.
 */
#include "run/control.h"
#include "run/ring.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

static struct run_control *control;
static uint16_t file = RUN_FILE_NONE;
static int file_fd = -1;
static struct run_stop *stop;
static uint32_t seen;
static char **next; /* word */

static const char *word(void)
{
	if (!*next)
		_exit(99);
	return *next++;
}

static uint64_t number(void)
{
	return strtoull(word(), NULL, 0);
}

static void print(const char *text)
{
	printf("%s\n", text);
	fflush(stdout);
}

/* PATH: what comes is about that file. */
static void do_open(void)
{
	struct stat st;

	file_fd = open(word(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (file_fd < 0 || fstat(file_fd, &st) != 0)
		_exit(98);
	file = run_file_number(control, file_fd, st.st_dev, st.st_ino);
}

static struct run_stop *stop_begin(bool fatal)
{
	int error = -(int)number();
	uint64_t offset = number(), needed = number();

	seen = atomic_load(&control->retry);
	return run_stop_begin(control, file, error, offset, needed, fatal);
}

/* ERRNO OFFSET NEEDED: wait for space, until "end". */
static void do_stop(void)
{
	stop = stop_begin(false);
	if (!stop)
		print("no stop");
}

static void do_end(void)
{
	run_stop_end(control, stop);
}

/* ERRNO OFFSET NEEDED: the same, and it is fatal; goes on when it is told. */
static void do_fatal(void)
{
	print(stop_begin(true) ? "told" : "alone");
}

static void do_retried(void)
{
	while (atomic_load(&control->retry) == seen && run_supervisor_lives(control))
		run_wait_for_retry(control, seen, RUN_LOOK_MS);
	print("retried");
}

static struct {
	int error;
	uint64_t offset, needed;
	pthread_barrier_t begun, ended;
} many;

static void *thread_stops(void *unused)
{
	struct run_stop *mine =
		run_stop_begin(control, file, many.error, many.offset, many.needed, false);

	pthread_barrier_wait(&many.begun);
	pthread_barrier_wait(&many.ended);
	if (mine)
		run_stop_end(control, mine);
	return unused;
}

/* THREADS ERRNO OFFSET NEEDED: that many wait, until a line is read. */
static void do_many(void)
{
	unsigned count = (unsigned)number();
	pthread_t *threads = calloc(count, sizeof(*threads));

	many.error = -(int)number();
	many.offset = number();
	many.needed = number();
	seen = atomic_load(&control->retry);
	pthread_barrier_init(&many.begun, NULL, count + 1);
	pthread_barrier_init(&many.ended, NULL, count + 1);
	for (unsigned i = 0; i < count; i++)
		pthread_create(&threads[i], NULL, thread_stops, NULL);
	pthread_barrier_wait(&many.begun);
	print("many");
	getchar();
	pthread_barrier_wait(&many.ended);
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	free(threads);
}

/* KIND OFFSET LENGTH */
static void do_post(void)
{
	struct run_event event = {.kind = (uint16_t)number(), .file = file};

	event.offset = number();
	event.length = number();
	run_post(control, &event);
}

/* COUNT: first writes, page by page. */
static void do_writes(void)
{
	uint64_t count = number();

	for (uint64_t i = 0; i < count; i++)
		run_post(control, &(struct run_event){.kind = RUN_EVENT_WRITE,
						      .file = file,
						      .offset = i * 4096,
						      .length = 4096});
}

/* LENGTH: of the file, all of it a hole for which space is then reserved, and reported. */
static void do_reserve(void)
{
	uint64_t length = number();
	struct stat st;

	if (ftruncate(file_fd, (off_t)length) != 0 ||
	    fallocate(file_fd, 0, 0, (off_t)length) != 0 || fstat(file_fd, &st) != 0)
		_exit(97);
	printf("%jd blocks\n", (intmax_t)st.st_blocks);
	fflush(stdout);
	run_post(control,
		 &(struct run_event){.kind = RUN_EVENT_RESERVED, .file = file, .length = length});
}

/* The descriptors that are open. */
static void do_fds(void)
{
	DIR *folder = opendir("/proc/self/fd");
	struct dirent *entry;

	for (int i = 0; folder && (entry = readdir(folder)); i++)
		if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(folder))
			printf("%s ", entry->d_name);
	closedir(folder);
	print("");
}

/* PATH: what is printed goes there. */
static void do_output(void)
{
	if (!freopen(word(), "w", stdout))
		_exit(96);
}

static void do_read(void)
{
	int c;

	do
		c = getchar();
	while (c != '\n' && c != EOF);
}

static void do_print(void)
{
	print(word());
}

static void do_pid(void)
{
	printf("%d\n", (int)getpid());
	fflush(stdout);
}

/* The rest is done by a child; its wait status is ours. */
static void do_child(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		return;
	waitpid(pid, &status, 0);
	printf("child %d\n", WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
	fflush(stdout);
	_exit(0);
}

/* The rest is done by a child after we have ended. */
static void do_orphan(void)
{
	if (fork() > 0)
		_exit(0);
}

/* SIGNAL */
static void do_raise(void)
{
	raise((int)number());
}

static void do_close(void)
{
	close((int)number());
}

static void do_exit(void)
{
	exit((int)number());
}

static const struct {
	const char *name;
	void (*act)(void);
} acts[] = {
	{"open", do_open},	 {"stop", do_stop},   {"end", do_end},	     {"fatal", do_fatal},
	{"retried", do_retried}, {"many", do_many},   {"post", do_post},     {"writes", do_writes},
	{"reserve", do_reserve}, {"fds", do_fds},     {"output", do_output}, {"read", do_read},
	{"print", do_print},	 {"pid", do_pid},     {"child", do_child},   {"orphan", do_orphan},
	{"raise", do_raise},	 {"close", do_close}, {"exit", do_exit},
};

int main(int argc, char **argv)
{
	const char *path = getenv(RUN_ENV);

	(void)argc;
	control = path ? run_control_open(path) : NULL;
	for (next = argv + 1; *next;) {
		const char *name = *next++;
		size_t i = 0;

		while (i < sizeof(acts) / sizeof(acts[0]) && strcmp(acts[i].name, name) != 0)
			i++;
		if (i == sizeof(acts) / sizeof(acts[0]))
			return 99;
		acts[i].act();
	}
	return 0;
}
