/* SPDX-License-Identifier: MIT */
/* From events of a run to a trace file and back: the recorder, its modules, the writer, the reader.
 * What lies about itself is in tests/tool/trace.py. */
#include "harness/test.h"
#include "tool/trace_file.h"
#include "tool/trace_modules.h"
#include "tool/trace_recorder.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[] = "/tmp/mkwrite-trace-XXXXXX";
static struct run_control *control;
static struct trace_recorder *recorder;
static struct trace_reader *reader;
static int fd = -1;

static void file_make(void)
{
	int made = mkstemp(path);

	REQUIRE(made >= 0);
	close(made);
}

static void begin(void)
{
	file_make();
	control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	REQUIRE(control != MAP_FAILED);
	REQUIRE_EQ(trace_recorder_create(path, &recorder), 0);
}

static void read_begin(void)
{
	fd = open(path, O_RDONLY);
	REQUIRE(fd >= 0);
	REQUIRE_EQ(trace_open(fd, path, &reader), 0);
}

static void end(void)
{
	trace_reader_free(reader);
	close(fd);
	unlink(path);
	if (control)
		munmap(control, sizeof(*control));
}

static struct trace_record next(enum trace_kind kind)
{
	struct trace_record record = {0};
	int result = trace_next(reader, &record);

	if (result < 0)
		test_note("%s", trace_error(reader));
	REQUIRE_EQ(result, 1);
	REQUIRE_EQ(record.kind, kind);
	return record;
}

static void file_set(unsigned number, const char *name)
{
	struct run_file *file = &control->files[number];
	struct stat st = {0};

	stat(name, &st);
	file->dev = st.st_dev;
	file->ino = st.st_ino;
	snprintf(file->path, sizeof(file->path), "%s", name);
	file->state = RUN_FILE_THERE;
}

static void take(uint16_t kind, uint16_t file, uint64_t offset, uint64_t length, const void *caller)
{
	const struct run_event event = {
		.kind = kind,
		.file = file,
		.time_ns = UINT64_C(1) << 50, /* years of uptime, so after the start */
		.pid = getpid(),
		.tid = 4711,
		.offset = offset,
		.length = length,
		.caller = (uintptr_t)caller,
	};

	trace_recorder_take(recorder, control, &event);
}

static void close_all(int status, uint64_t lost)
{
	REQUIRE_EQ(trace_recorder_close(recorder, status, lost), 0);
	read_begin();
}

/* ---- Events -------------------------------------------------------------------------------- */

TEST(trace_events, "each kind of event is recorded, after the file and the module that it needs")
{
	struct trace_record r;
	Dl_info info;
	struct stat st;

	begin();
	file_set(3, path);
	take(RUN_EVENT_PROCESS, RUN_FILE_NONE, 0, 0, NULL);
	take(RUN_EVENT_WRITE, 3, 4096, 8192, (const void *)(uintptr_t)begin);
	take(RUN_EVENT_CALL, 3, 0, 1, (const void *)(uintptr_t)begin);
	take(RUN_EVENT_SYNC, RUN_FILE_NONE, 0, 0, NULL);
	take(RUN_EVENT_SAY, 3, 0, RUN_SAY_MAPPINGS, NULL);
	take(RUN_EVENT_RESERVED, 3, 0, 4096, NULL);
	close_all(0x300, 7);

	r = next(TRACE_PROCESS);
	CHECK_EQ(r.pid, getpid());
	CHECK(strstr(r.text, program_invocation_short_name) != NULL);
	r = next(TRACE_FILE);
	CHECK_EQ(r.file, 3);
	CHECK_STR(r.text, path);
	CHECK_EQ(r.ino, control->files[3].ino);
	r = next(TRACE_MODULE);
	REQUIRE(dladdr((const void *)(uintptr_t)begin, &info) != 0 && stat(r.text, &st) == 0);
	CHECK_EQ(r.size_bytes, st.st_size);
	CHECK(r.start <= (uintptr_t)begin && (uintptr_t)begin < r.end);
	CHECK_EQ((uintptr_t)begin - r.start + r.offset,
		 (uintptr_t)begin - (uintptr_t)info.dli_fbase);
	r = next(TRACE_WRITE);
	CHECK(r.offset == 4096 && r.length == 8192 && r.file == 3 && r.tid == 4711);
	CHECK_EQ(r.caller, (uintptr_t)begin);
	r = next(TRACE_CALL); /* and nothing is told twice */
	CHECK(r.offset == 0 && r.length == 1);
	r = next(TRACE_SYNC);
	CHECK(r.file == TRACE_NO_FILE && r.length == 0);
	CHECK_EQ(next(TRACE_LOST).number, 7);
	CHECK_EQ(next(TRACE_END).number, 0x300);
	CHECK_EQ(trace_next(reader, &r), 0);
	CHECK(!trace_is_cut(reader));
	end();
}

TEST(trace_wild, "what a program may have written into the area cannot make the trace unreadable")
{
	struct trace_record r;

	begin();
	memset(control->files[5].path, 'x', sizeof(control->files[5].path)); /* no NUL */
	control->files[5].state = RUN_FILE_THERE;
	take(RUN_EVENT_WRITE, 5, 0, 0, NULL);
	take(RUN_EVENT_WRITE, 5, UINT64_MAX, 1, NULL);
	take(RUN_EVENT_WRITE, 5, INT64_MAX, 2, NULL);
	take(RUN_EVENT_WRITE, 60000, 0, 1, (const void *)1);
	take(77, 5, 0, 1, NULL);
	take(RUN_EVENT_FORKED, 5, UINT64_MAX, 1, NULL);
	trace_recorder_take(recorder, control, &(struct run_event){.kind = RUN_EVENT_WRITE});
	trace_recorder_take(recorder, control,
			    &(struct run_event){.kind = RUN_EVENT_WRITE,
						.pid = 1,
						.tid = 1,
						.length = 1,
						.time_ns = UINT64_MAX});
	take(RUN_EVENT_WRITE, 5, INT64_MAX - 1, 1, NULL);
	close_all(-1, 0);
	CHECK_EQ(next(TRACE_WRITE).file, TRACE_NO_FILE);
	CHECK_EQ(next(TRACE_FILE).text_length, 4095);
	CHECK_EQ(next(TRACE_WRITE).offset, INT64_MAX - 1);
	CHECK_EQ(next(TRACE_END).number, UINT32_MAX);
	CHECK_EQ(trace_next(reader, &r), 0);
	end();
}

/* ---- Modules ------------------------------------------------------------------------------- */

/* A process of its own that does nothing. */
static pid_t child_start(void)
{
	pid_t pid = fork();

	if (pid == 0)
		for (;;)
			pause();
	REQUIRE(pid > 0);
	return pid;
}

static void child_end(pid_t pid)
{
	kill(pid, SIGKILL);
	REQUIRE_EQ(waitpid(pid, NULL, 0), pid);
}

TEST(trace_modules, "modules are found while their process runs, and known when it is gone")
{
	struct trace_modules *modules = trace_modules_create();
	const uint64_t here = (uintptr_t)child_start;
	pid_t pid = child_start();
	struct trace_module *module = trace_modules_find(modules, pid, here);

	REQUIRE(module != NULL);
	CHECK(module->start <= here && here < module->end && module->path[0] == '/');
	CHECK(!module->told);
	module->told = true;
	CHECK(trace_modules_find(modules, pid, (uintptr_t)&modules) == NULL); /* no code is there */
	child_end(pid);
	module = trace_modules_find(modules, pid, here);
	CHECK(module && module->told);

	trace_modules_fork(modules, pid, pid + 1);
	trace_modules_forget(modules, pid);
	CHECK(trace_modules_find(modules, pid, here) == NULL);
	module = trace_modules_find(modules, pid + 1, here);
	CHECK(module && module->told); /* by its parent */
	trace_modules_destroy(modules);
}

TEST(trace_modules_late, "code that was mapped since is found, and what was told stays so")
{
	struct trace_modules *modules = trace_modules_create();
	const uint64_t here = (uintptr_t)child_start;
	struct trace_module *module = trace_modules_find(modules, getpid(), here);
	char *made;

	REQUIRE(module != NULL);
	module->told = true;
	made = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(made != MAP_FAILED);
	/* It is not looked for until some time has passed. */
	test_wait_until((module = trace_modules_find(modules, getpid(), (uintptr_t)made)) != NULL);
	CHECK_STR(module->path, "");
	CHECK(!module->told);
	CHECK(trace_modules_find(modules, getpid(), here)->told);
	munmap(made, 4096);
	trace_modules_destroy(modules);
}

TEST(trace_modules_many, "of more processes than there is room for the latest are known")
{
	struct trace_modules *modules = trace_modules_create();
	const uint64_t here = (uintptr_t)child_start;

	REQUIRE(trace_modules_find(modules, getpid(), here) != NULL);
	for (int i = 1; i < 400; i++) { /* as if they were children that end at once */
		trace_modules_fork(modules, getpid(), 1 << 29 | i);
		CHECK(trace_modules_find(modules, 1 << 29 | i, here) != NULL);
		CHECK(trace_modules_find(modules, getpid(), here) != NULL);
	}
	CHECK(trace_modules_find(modules, 1 << 29 | 1, here) == NULL);
	CHECK(trace_modules_find(modules, 1 << 29 | 399, here) != NULL);
	trace_modules_destroy(modules);
}

/* ---- The writer ---------------------------------------------------------------------------- */

static const struct trace_record a_file = {
	.kind = TRACE_FILE, .file = 1, .text = "name", .text_length = 4};

static struct trace_record a_write(uint64_t number)
{
	return (struct trace_record){
		.kind = TRACE_WRITE,
		.time_ns = 1000 + number,
		.pid = 1,
		.tid = 2,
		.file = 1,
		.offset = number * 4096,
		.length = 4096,
		.caller = number << 40,
	};
}

static void size_limit(rlim_t bytes)
{
	struct rlimit limit;

	REQUIRE_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = bytes;
	REQUIRE_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

TEST(trace_many, "a trace larger than any buffer is read as it was written, twice")
{
	const unsigned count = 100000;
	struct trace_writer *writer;
	struct trace_record record;

	file_make();
	REQUIRE_EQ(trace_create(path, 500, 77, &writer), 0);
	trace_add(writer, &a_file);
	for (unsigned i = 0; i < count; i++) {
		record = a_write(i);
		trace_add(writer, &record);
	}
	record.time_ns = 3; /* before the start: at it */
	trace_add(writer, &record);
	REQUIRE_EQ(trace_close(writer), 0);
	read_begin();
	CHECK_EQ(trace_wall_ns(reader), 77);
	for (unsigned round = 0; round < 2; round++, trace_rewind(reader)) {
		next(TRACE_FILE);
		for (unsigned i = 0; i < count; i++) {
			record = next(TRACE_WRITE);
			REQUIRE(record.time_ns == 500 + i && record.offset == i * UINT64_C(4096) &&
				record.caller == (uint64_t)i << 40);
		}
		CHECK_EQ(next(TRACE_WRITE).time_ns, 0);
		CHECK_EQ(trace_position(reader), trace_size(reader));
		CHECK_EQ(trace_next(reader, &record), 0);
	}
	end();
}

TEST(trace_full_disk, "while the disk is full events are kept, then counted; later it goes on")
{
	const unsigned count = 60000;
	struct trace_writer *writer;
	struct trace_record record;
	uint64_t missing = 0;
	unsigned seen = 0;
	int result;

	signal(SIGXFSZ, SIG_IGN);
	file_make();
	REQUIRE_EQ(trace_create(path, 500, 77, &writer), 0);
	trace_add(writer, &a_file);
	size_limit(100001); /* in the midst of a record */
	for (unsigned i = 0; i < count; i++) {
		record = a_write(i);
		trace_add(writer, &record);
	}
	CHECK_EQ(trace_flush(writer), -EFBIG);
	size_limit(RLIM_INFINITY);
	CHECK_EQ(trace_flush(writer), 0);
	record = a_write(count);
	trace_add(writer, &record);
	CHECK_EQ(trace_close(writer), -ENOBUFS);

	read_begin();
	next(TRACE_FILE);
	while ((result = trace_next(reader, &record)) == 1) {
		if (record.kind == TRACE_LOST) {
			CHECK_EQ(missing, 0);
			missing = record.number;
		} else {
			REQUIRE_EQ(record.offset, (seen + missing) * 4096);
			seen++;
		}
	}
	CHECK_EQ(result, 0);
	CHECK(!trace_is_cut(reader));
	CHECK(seen > 10000 && missing > 10000); /* a buffer full, and some more */
	CHECK_EQ(seen + missing, count + 1);
	end();
}

TEST(trace_killed, "what was flushed is there when the writer is killed")
{
	struct trace_record record;
	pid_t pid;
	int ends[2];
	char byte;

	file_make();
	REQUIRE_EQ(pipe(ends), 0);
	pid = fork();
	if (pid == 0) {
		struct trace_writer *writer;

		trace_create(path, 500, 77, &writer);
		trace_add(writer, &a_file);
		record = a_write(1);
		trace_add(writer, &record);
		trace_flush(writer);
		trace_add(writer, &record);
		if (write(ends[1], "", 1) == 1)
			pause();
		_exit(1);
	}
	REQUIRE_EQ(read(ends[0], &byte, 1), 1);
	child_end(pid);
	close(ends[0]);
	close(ends[1]);
	read_begin();
	next(TRACE_FILE);
	CHECK_EQ(next(TRACE_WRITE).offset, 4096);
	CHECK_EQ(trace_next(reader, &record), 0);
	end();
}

TEST(trace_no_file, "a trace that cannot be made is an error")
{
	struct trace_recorder *none = NULL;

	CHECK_EQ(trace_recorder_create("/no/such/directory", &none), -ENOENT);
	CHECK_EQ(trace_recorder_create("/", &none), -EISDIR);
	CHECK(none == NULL);
}
