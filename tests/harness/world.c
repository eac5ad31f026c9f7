/* SPDX-License-Identifier: MIT */
/*
 * world.c - what most tests of the contract start from (world.h).
 */
#include "world.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void world_log(void *arg, enum mkw_log_level level, const char *message)
{
	(void)arg;
	test_note("library says (%d): %s", (int)level, message);
	CHECK(strstr(message, " lock (rank ") == NULL);
}

void world_make_with(struct world *w, uint64_t size_bytes, const struct mkw_space_options *options)
{
	struct mkw_space_options own = *options;

	memset(w, 0, sizeof(*w));
	if (own.log == NULL)
		own.log = world_log;
	REQUIRE_EQ(mkw_space_create(&own, &w->space), 0);
	w->store = script_create(size_bytes);
	w->open_flags = MKW_RDWR | MKW_MANUAL;
}

void world_make(struct world *w, uint64_t size_bytes)
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;

	world_make_with(w, size_bytes, &options);
}

void world_open(struct world *w, size_t view_bytes)
{
	REQUIRE_EQ(script_open(w->store, w->space, w->open_flags, &w->handle), 0);
	if (view_bytes > 0)
		w->view = world_map(w, 0, (view_bytes + PAGE - 1) / PAGE, MKW_READ | MKW_WRITE);
	w->view_bytes = view_bytes;
}

unsigned char *world_map(struct world *w, uint64_t first, size_t pages, unsigned protection)
{
	void *address = NULL;

	REQUIRE_EQ(mkw_map(w->handle, pages * PAGE, protection, test_map_flags(), first * PAGE,
			   &address),
		   0);
	REQUIRE_EQ(mkw_advise(address, pages * PAGE, MKW_RANDOM), 0);
	return address;
}

void world_end(struct world *w)
{
	if (w->view)
		CHECK_EQ(mkw_unmap(w->view, (w->view_bytes + PAGE - 1) / PAGE * PAGE), 0);
	if (w->handle)
		CHECK_EQ(mkw_close(w->handle), 0);
	CHECK_EQ(mkw_space_destroy(w->space, 0), 0);
	CHECK(script_destroy(w->store));
}

void check_store(struct world *w, uint64_t offset, const void *model, size_t length)
{
	check_store_of(w->store, offset, model, length);
}

void check_store_of(struct script_store *s, uint64_t offset, const void *model, size_t length)
{
	unsigned char *bytes = malloc(length);

	REQUIRE(bytes);
	script_get(s, offset, bytes, length);
	CHECK_MEM(bytes, model, length);
	free(bytes);
}

void check_view(const unsigned char *view, const void *model, size_t length)
{
	CHECK_MEM(view, model, length);
}

struct mkw_stat world_stat(struct world *w)
{
	struct mkw_stat stat = {0};

	CHECK_EQ(mkw_object_stat(w->handle, &stat, sizeof(stat)), 0);
	return stat;
}

void world_settle(struct world *w)
{
	do
		CHECK_EQ(mkw_sync(w->handle, 0, 0), 0);
	while (script_reserved(w->store) > 0 || world_stat(w).dirty_bytes > 0);
}

uint64_t world_dirty_bytes(struct world *w)
{
	static struct mkw_range ranges[4096];
	ssize_t n = mkw_dirty_ranges(w->handle, 0, 0, ranges, 4096);
	uint64_t bytes = 0;

	REQUIRE(n >= 0 && n <= 4096);
	for (ssize_t i = 0; i < n; i++)
		bytes += ranges[i].length;
	return bytes;
}

/* ---- Single accesses ---------------------------------------------------------------------- */

struct touch {
	unsigned char *address;
	unsigned char value;
};

/* Atomic, because tests let threads meet at a byte on purpose. */
static void touch_write(void *arg)
{
	struct touch *t = arg;

	__atomic_store_n(t->address, t->value, __ATOMIC_RELAXED);
}

static void touch_read(void *arg)
{
	struct touch *t = arg;

	t->value = __atomic_load_n(t->address, __ATOMIC_RELAXED);
}

int try_write(unsigned char *address, unsigned char value, struct mkw_refusal *refusal)
{
	struct touch t = {address, value};
	struct mkw_refusal unused;

	return mkw_guard(touch_write, &t, refusal ? refusal : &unused);
}

int try_read(const unsigned char *address, unsigned char *value, struct mkw_refusal *refusal)
{
	struct touch t = {(unsigned char *)(uintptr_t)address, 0};
	struct mkw_refusal unused;
	int error = mkw_guard(touch_read, &t, refusal ? refusal : &unused);

	*value = t.value;
	return error;
}

void put(unsigned char *address, unsigned char value)
{
	struct mkw_refusal refusal;

	if (!CHECK_EQ(try_write(address, value, &refusal), 0))
		test_note("refused: %s", refusal.message);
}

unsigned char get(const unsigned char *address)
{
	struct mkw_refusal refusal;
	unsigned char value = 0;

	if (!CHECK_EQ(try_read(address, &value, &refusal), 0))
		test_note("refused: %s", refusal.message);
	return value;
}

static void *access_main(void *arg)
{
	struct access *a = arg;

	if (a->write)
		a->error = try_write(a->address, a->value, &a->refusal);
	else
		a->error = try_read(a->address, &a->value, &a->refusal);
	return NULL;
}

void access_write(struct access *a, unsigned char *address, unsigned char value)
{
	a->address = address;
	a->write = true;
	a->value = value;
	test_thread_start(&a->thread, access_main, a);
}

void access_read(struct access *a, const unsigned char *address)
{
	a->address = (unsigned char *)(uintptr_t)address;
	a->write = false;
	test_thread_start(&a->thread, access_main, a);
}

int access_join(struct access *a)
{
	test_thread_join(&a->thread);
	return a->error;
}

void access_wait_blocked(struct access *a)
{
	if (test_backend() == TEST_INLINE)
		test_wait_thread_blocked(a->thread.tid);
	else
		test_wait_thread_faulting(a->thread.tid);
}

/* ---- Calls in a thread of their own --------------------------------------------------------- */

int api_truncate(struct mkw_handle *handle, uint64_t size_bytes, uint64_t unused)
{
	(void)unused;
	return mkw_truncate(handle, size_bytes);
}

static void *api_main(void *arg)
{
	struct api_call *call = arg;

	call->result = call->fn(call->handle, call->offset, call->length);
	return NULL;
}

void api_start(struct api_call *call, struct world *w, api_fn fn, uint64_t offset, uint64_t length)
{
	call->handle = w->handle;
	call->fn = fn;
	call->offset = offset;
	call->length = length;
	test_thread_start(&call->thread, api_main, call);
}

int api_join(struct api_call *call)
{
	test_thread_join(&call->thread);
	return call->result;
}

void api_wait_blocked(struct api_call *call)
{
	test_wait_thread_blocked(call->thread.tid);
}

static bool thread_sleeps(pid_t tid)
{
	char path[64], stat[512] = "";
	const char *name_end;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	file = fopen(path, "re");
	if (!file)
		return false;
	name_end = fgets(stat, sizeof(stat), file) ? strrchr(stat, ')') : NULL;
	fclose(file);
	return name_end && (name_end[2] == 'S' || name_end[2] == 'D');
}

void api_wait_settled(struct api_call *call)
{
	test_wait_until(call->thread.ended || thread_sleeps(call->thread.tid));
}

/* ---- Plain signal handlers ------------------------------------------------------------------ */

static _Thread_local sigjmp_buf plain_jump;
static _Thread_local volatile bool plain_armed;
static _Thread_local siginfo_t plain_info;

static void plain_handler(int signo, siginfo_t *info, void *context)
{
	(void)context;
	if (!plain_armed) {
		signal(signo, SIG_DFL);
		raise(signo);
		return;
	}
	plain_armed = false;
	plain_info = *info;
	siglongjmp(plain_jump, signo);
}

void plain_install(void)
{
	struct sigaction action = {.sa_sigaction = plain_handler, .sa_flags = SA_SIGINFO};

	REQUIRE_EQ(sigaction(SIGBUS, &action, NULL), 0);
	REQUIRE_EQ(sigaction(SIGSEGV, &action, NULL), 0);
}

static int plain_run(void (*fn)(void *arg), struct touch *t, siginfo_t *info)
{
	int signo = sigsetjmp(plain_jump, 1);

	if (signo == 0) {
		plain_armed = true;
		fn(t);
		plain_armed = false;
	} else if (info) {
		*info = plain_info;
	}
	return signo;
}

int plain_write(unsigned char *address, unsigned char value, siginfo_t *info)
{
	struct touch t = {address, value};

	return plain_run(touch_write, &t, info);
}

int plain_read(const unsigned char *address, unsigned char *value, siginfo_t *info)
{
	struct touch t = {(unsigned char *)(uintptr_t)address, 0};
	int signo = plain_run(touch_read, &t, info);

	*value = t.value;
	return signo;
}
