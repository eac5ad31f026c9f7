/* SPDX-License-Identifier: MIT */
/* in_place_rules.c - the rules of the contract that objects in place have like any other. */
#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- Asking ------------------------------------------------------------------------------ */

static struct test_event asked = TEST_EVENT_INIT, go_on = TEST_EVENT_INIT;

/* The first question waits; the others are answered. */
static mkw_fault_t answer_late(struct place_store *s, struct mkw_run *run)
{
	(void)s;
	(void)run;
	if (test_event_count(&asked) == 0) {
		test_event_set(&asked);
		test_event_wait(&go_on);
	}
	return 0;
}

struct write {
	struct test_thread thread;
	unsigned char *at;
	unsigned char byte;
};

static void *write_it(void *arg)
{
	struct write *w = arg;

	place_write(w->at, w->byte);
	return NULL;
}

static void write_start(struct write *w, unsigned char *at, unsigned char byte)
{
	w->at = at;
	w->byte = byte;
	test_thread_start(&w->thread, write_it, w);
}

TEST(in_place_unlocked, "S0.2 no lock is held while a store in place is asked")
{
	unsigned char *other;
	struct write w;
	struct place p;
	int fd;

	test_not_under_tsan();
	place_open(&p, NULL, 64);
	p.store.answer = answer_late;
	write_start(&w, p.map, 1);
	test_event_wait(&asked);
	/* Meanwhile: another page, another view, another mapping. */
	place_write(p.map + 9 * PAGE, 2);
	fd = dup(p.store.fd);
	other = place_map(fd, p.length);
	CHECK_EQ(mkw_adopt(p.handle, other, p.length, MKW_READ | MKW_WRITE, 0), 0);
	place_write(other + 20 * PAGE, 3);
	CHECK_EQ(mkw_sync(p.handle, 0, 0), 0);
	CHECK_EQ(mkw_unmap(other, p.length), 0);
	munmap(other, p.length);
	close(fd);
	CHECK_EQ(p.map[0], 0);
	test_event_set(&go_on);
	test_thread_join(&w.thread);
	CHECK_EQ(p.map[0], 1);
	place_close(&p);
}

struct swap {
	struct test_thread thread;
	struct place *from, *to;
};

static void *swap_views(void *arg)
{
	struct swap *s = arg;

	CHECK_EQ(mkw_unmap(s->from->map, s->from->length), 0);
	REQUIRE(mmap(s->from->map, s->from->length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		     s->to->store.fd, 0) == s->from->map);
	CHECK_EQ(mkw_adopt(s->to->handle, s->from->map, s->from->length, MKW_READ | MKW_WRITE, 0),
		 0);
	return NULL;
}

TEST(in_place_replaced, "S0.3 what took a view's place during the question is asked for itself")
{
	struct place first, second;
	unsigned char byte;
	struct swap swap;
	struct write w;

	test_not_under_tsan();
	place_open(&first, NULL, 64);
	place_open(&second, NULL, 64);
	first.store.answer = answer_late;
	write_start(&w, first.map + 5 * PAGE, 9);
	test_event_wait(&asked);
	swap = (struct swap){.from = &first, .to = &second};
	test_thread_start(&swap.thread, swap_views, &swap);
	test_wait_thread_blocked(atomic_load(&swap.thread.tid));
	CHECK_EQ(second.store.asked, 0);
	test_event_set(&go_on);
	test_thread_join(&w.thread);
	test_thread_join(&swap.thread);
	/* Either the write was made before the view went, or it waited for the other one. */
	CHECK_EQ(pread(first.store.fd, &byte, 1, 5 * PAGE), 1);
	CHECK(byte == (second.store.asked > 0 ? 0 : 9));
	CHECK_EQ(pread(second.store.fd, &byte, 1, 5 * PAGE), 1);
	CHECK(byte == (second.store.asked > 0 ? 9 : 0));
	place_write(first.map + 6 * PAGE, 8);
	CHECK(second.store.asked > 0);
	CHECK_EQ(pread(second.store.fd, &byte, 1, 6 * PAGE), 1);
	CHECK_EQ(byte, 8);
	place_close(&first);
	place_close(&second);
}

/* What a second question is answered with while the first is under way; then all is well. */
static mkw_fault_t answer_again(struct place_store *s, struct mkw_run *run)
{
	(void)run;
	return atomic_load(&s->asked) < 5 ? MKW_FAULT_NOPAGE : MKW_FAULT_LOCKED;
}

static mkw_fault_t answer_locked(struct place_store *s, struct mkw_run *run)
{
	mkw_fault_t code = answer_again(s, run);

	return code == MKW_FAULT_LOCKED && mkw_run_lock(run) != 0 ? MKW_FAULT_NOPAGE : code;
}

TEST(in_place_answers, "S4.1 S4.2 S0.5 a store in place may answer NOPAGE, LOCKED and 0")
{
	struct mkw_refusal refusal;
	struct mkw_pin *pin;
	struct place p;

	place_open(&p, NULL, 64);
	p.store.answer = answer_locked;
	place_write(p.map, 1);
	CHECK_EQ(p.store.asked, 5);
	p.store.asked = 0;
	CHECK_EQ(mkw_pin(p.map + 9 * PAGE, 1, MKW_WRITE, &pin), 0);
	CHECK_EQ(p.store.asked, 5);
	CHECK_EQ(mkw_unpin(pin), 0);
	/* Said, and not done. */
	p.store.answer = answer_again;
	CHECK_EQ(mkw_guard(place_write_one, p.map + 20 * PAGE, &refusal), -EIO);
	p.store.answer = NULL;
	CHECK_EQ(mkw_guard(place_write_one, p.map + 20 * PAGE, &refusal), 0);
	place_close(&p);
}

TEST(in_place_cut_run, "S1.1 a run that is cut by its store is granted as far as that")
{
	struct place p;
	struct mkw_refusal refusal;

	place_open(&p, NULL, 512);
	CHECK_EQ(mkw_advise(p.map, p.length, MKW_SEQUENTIAL), 0);
	p.store.error = -EDQUOT;
	p.store.refuse_from = 100;
	for (unsigned i = 0; i < 100; i++)
		place_write(p.map + i * PAGE, 1);
	CHECK_EQ(p.store.asked, 1);
	CHECK_EQ(mkw_guard(place_write_one, p.map + 100 * PAGE, &refusal), -EDQUOT);
	CHECK_EQ(place_stat(&p).dirty_bytes, 100 * PAGE);
	place_close(&p);
}

/* ---- Views ------------------------------------------------------------------------------- */

TEST(in_place_read_only, "S1.4 a forced write to a read-only view in place changes nothing")
{
	struct mkw_refusal refusal;
	struct place p;
	int fd;

	place_open(&p, NULL, 64);
	CHECK_EQ(mkw_protect(p.map, p.length, MKW_READ), 0);
	fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	REQUIRE(fd >= 0);
	CHECK(pwrite(fd, "x", 1, (off_t)(uintptr_t)p.map) < 0);
	close(fd);
	CHECK_EQ(p.map[0], 0);
	CHECK_EQ(p.store.asked, 0);
	CHECK_EQ(mkw_grant(p.map, PAGE), -EACCES);
	CHECK_EQ(mkw_pin(p.map, PAGE, MKW_WRITE, &(struct mkw_pin *){NULL}), -EACCES);
	CHECK_EQ(mkw_protect(p.map, p.length, MKW_READ | MKW_WRITE), 0);
	CHECK_EQ(mkw_guard(place_write_one, p.map, &refusal), 0);
	place_close(&p);
}

TEST(in_place_two_views, "I1 I3 a grant is one view's, a protection all views'")
{
	unsigned char *other;
	struct place p;

	place_open(&p, NULL, 64);
	other = mmap(NULL, 32 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, p.store.fd, 16 * PAGE);
	REQUIRE(other != MAP_FAILED);
	CHECK_EQ(mkw_adopt(p.handle, other, 32 * PAGE, MKW_READ | MKW_WRITE, 16 * PAGE), 0);
	place_write(p.map + 20 * PAGE, 1);
	place_write(other + 4 * PAGE + 1, 2);
	CHECK_EQ(p.store.asked, 1);
	CHECK_EQ(other[4 * PAGE], 1);
	CHECK_EQ(place_stat(&p).dirty_bytes, PAGE);
	CHECK_EQ(mkw_sync(p.handle, 0, 0), 0);
	place_write(other + 4 * PAGE, 3);
	CHECK_EQ(p.store.asked, 2);
	CHECK_EQ(mkw_sync(p.handle, 0, 0), 0);
	place_write(p.map + 20 * PAGE, 4);
	CHECK_EQ(p.store.asked, 3);
	CHECK_EQ(mkw_unmap(other, 32 * PAGE), 0);
	munmap(other, 32 * PAGE);
	place_close(&p);
}

TEST(in_place_protect_under_fire, "2.9 7.4 parts are protected and forgotten while threads write")
{
	struct write writers[4];
	struct place p;

	test_not_under_tsan();
	place_open_limit(&p, 8, 256);
	for (unsigned round = 0; round < test_rounds(100); round++) {
		for (unsigned i = 0; i < 4; i++)
			write_start(&writers[i], p.map + (i * 60 + round % 60) * PAGE + i,
				    (unsigned char)(round + 1));
		/* Nothing of theirs is forbidden. */
		CHECK_EQ(mkw_protect(p.map + 240 * PAGE, 8 * PAGE, MKW_READ), 0);
		CHECK_EQ(mkw_protect(p.map, 256 * PAGE, MKW_READ | MKW_WRITE), 0);
		CHECK_EQ(mkw_advise(p.map, 128 * PAGE, round % 2 ? MKW_RANDOM : MKW_NORMAL), 0);
		for (unsigned i = 0; i < 4; i++)
			test_thread_join(&writers[i].thread);
		for (unsigned i = 0; i < 4; i++)
			CHECK_EQ(p.map[(i * 60 + round % 60) * PAGE + i],
				 (unsigned char)(round + 1));
	}
	CHECK(place_stat(&p).dirty_peak_bytes <= 8 * PAGE);
	place_close(&p);
}

/* ---- Write-back -------------------------------------------------------------------------- */

static void *write_on(void *arg)
{
	struct place *p = arg;

	for (unsigned n = 1; p->length != 0 && n < 20000; n++)
		*(volatile unsigned *)(p->map + n % 8 * PAGE) = n;
	return NULL;
}

TEST(in_place_sync, "6.1 6.3 a sync in place cleans what was dirty, and ends under writers")
{
	struct test_thread thread;
	struct place p;

	test_not_under_tsan();
	place_open(&p, NULL, 64);
	for (unsigned i = 0; i < 64; i += 2)
		place_write(p.map + i * PAGE, 1);
	CHECK_EQ(mkw_sync(p.handle, 4 * PAGE, 8 * PAGE), 0);
	CHECK_EQ(place_stat(&p).dirty_bytes, 28 * PAGE);
	CHECK_EQ(p.store.written, 4);
	CHECK_EQ(mkw_msync(p.map, 2 * PAGE), 0);
	CHECK_EQ(place_stat(&p).dirty_bytes, 27 * PAGE);
	CHECK_EQ(p.store.synced, 2);
	test_thread_start(&thread, write_on, &p);
	for (unsigned i = 0; i < 50; i++)
		CHECK_EQ(mkw_sync(p.handle, 0, 0), 0);
	test_thread_join(&thread);
	CHECK_EQ(mkw_sync(p.handle, 0, 0), 0);
	CHECK_EQ(place_stat(&p).dirty_bytes, 0);
	CHECK_EQ(*(volatile unsigned *)(p.map + 19999 % 8 * PAGE), 19999);
	place_close(&p);
}

TEST(in_place_errors,
     "6.5 an error of write-back in place is told each handle once; all stays dirty")
{
	struct mkw_range range;
	struct mkw_handle *second;
	struct place p;

	place_open(&p, NULL, 64);
	CHECK_EQ(mkw_create_in_place(p.space, &place_ops, &p.store, 0, &second), 0);
	CHECK_EQ(mkw_close(second), 0);
	place_write(p.map + 3 * PAGE, 1);
	p.store.write_error = -EIO;
	CHECK_EQ(mkw_sync(p.handle, 0, 0), -EIO);
	CHECK_EQ(place_stat(&p).dirty_bytes, PAGE);
	CHECK_EQ(mkw_dirty_ranges(p.handle, 0, 0, &range, 1), 1);
	CHECK_EQ(range.offset, 3 * PAGE);
	CHECK_EQ(range.length, PAGE);
	CHECK_EQ(range.error, -EIO);
	/* A store that failed may not have kept what it had reserved. */
	place_write(p.map + 3 * PAGE, 2);
	CHECK_EQ(p.store.asked, 2);
	p.store.write_error = 0;
	CHECK_EQ(mkw_sync(p.handle, 0, 0), 0);
	CHECK_EQ(mkw_sync(p.handle, 0, 0), 0);
	CHECK_EQ(place_stat(&p).dirty_bytes, 0);
	CHECK_EQ(p.map[3 * PAGE], 2);
	place_close(&p);
}

TEST(in_place_no_room, "S1.3 11 a writer is told when nothing can be written and no room comes")
{
	struct mkw_refusal refusal;
	struct place p;
	unsigned n = 0;

	place_open_limit(&p, 4, 64);
	CHECK_EQ(mkw_advise(p.map, p.length, MKW_RANDOM), 0);
	p.store.write_error = -EIO;
	while (n < 64 && mkw_guard(place_write_one, p.map + n * PAGE, &refusal) == 0)
		n++;
	CHECK_EQ(n, 4);
	CHECK_EQ(refusal.error, -ENOBUFS);
	p.store.write_error = 0;
	CHECK_EQ(mkw_sync(p.handle, 0, 0), -EIO); /* of the background, told once */
	CHECK_EQ(mkw_guard(place_write_one, p.map + n * PAGE, &refusal), 0);
	for (unsigned i = 0; i <= n; i++)
		CHECK_EQ(p.map[i * PAGE], 1);
	place_close(&p);
}

TEST(in_place_limit_streams, "S1.3 streams of many threads stay below the limit")
{
	struct write writers[4];
	struct place p;

	test_not_under_tsan();
	place_open_limit(&p, 16, 1024);
	for (unsigned page = 0; page < 256; page++) {
		for (unsigned i = 0; i < 4; i++)
			write_start(&writers[i], p.map + (i * 256 + page) * PAGE, 5);
		for (unsigned i = 0; i < 4; i++)
			test_thread_join(&writers[i].thread);
	}
	for (unsigned i = 0; i < 1024; i++)
		CHECK_EQ(p.map[i * PAGE], 5);
	CHECK(place_stat(&p).dirty_peak_bytes <= 16 * PAGE);
	place_close(&p);
}

/* ---- Calls ------------------------------------------------------------------------------- */

TEST(in_place_not_these, "calls that have no meaning for an object in place are EINVAL")
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	struct mkw_space *space;
	struct mkw_handle *h = NULL;
	void *address;
	char byte = 0;
	struct place p;

	place_open(&p, NULL, 64);
	CHECK_EQ(mkw_map(p.handle, PAGE, MKW_READ, 0, 0, &address), -EINVAL);
	CHECK_EQ(mkw_map(p.handle, PAGE, MKW_READ, MKW_INLINE, 0, &address), -EINVAL);
	CHECK_EQ(mkw_pread(p.handle, &byte, 1, 0), -EINVAL);
	CHECK_EQ(mkw_pwrite(p.handle, &byte, 1, 0), -EINVAL);
	CHECK_EQ(mkw_truncate(p.handle, 0), -EINVAL);
	CHECK_EQ(mkw_punch(p.handle, 0, PAGE), -EINVAL);
	CHECK_EQ(mkw_invalidate(p.handle, 0, PAGE), -EINVAL);
	CHECK_EQ(mkw_discard(p.handle, 0, PAGE), -EINVAL);
	CHECK_EQ(mkw_freeze(p.handle), -EINVAL);
	CHECK_EQ(mkw_thaw(p.handle), -EINVAL);
	CHECK_EQ(mkw_resume(p.handle), -EINVAL);
	CHECK_EQ(mkw_remap_pages(p.map, PAGE, 4 * PAGE), -EINVAL);
	CHECK_EQ(mkw_remap(p.map, p.length, 2 * p.length, MKW_MAYMOVE, &address), -EINVAL);
	CHECK_EQ(mkw_reserve(p.map, PAGE), -EINVAL);
	CHECK_EQ(mkw_advise(p.map, PAGE, MKW_WILLNEED), -EINVAL);
	CHECK_EQ(mkw_advise(p.map, PAGE, MKW_DONTNEED), -EINVAL);
	CHECK_EQ(mkw_advise(p.map, PAGE, MKW_DONTFORK), -EINVAL);
	CHECK_EQ(mkw_open(p.space, "mem:", MKW_RDWR, &h), -EINVAL);
	CHECK_EQ(mkw_create(p.space, &place_ops, &p.store, PAGE, MKW_RDWR, &h), -EINVAL);
	CHECK_EQ(mkw_create_in_place(p.space, &place_ops, &p.store, MKW_RDWR | MKW_CREATE, &h),
		 -EINVAL);
	CHECK_EQ(mkw_create_in_place(p.space, NULL, &p.store, MKW_RDWR, &h), -EINVAL);
	CHECK_EQ(mkw_adopt(p.handle, p.map + PAGE, PAGE, MKW_READ, 0), -EINVAL);
	CHECK_EQ(mkw_adopt(p.handle, p.map + 1, PAGE, MKW_READ, 0), -EINVAL);
	CHECK_EQ(mkw_adopt(NULL, p.map, PAGE, MKW_READ, 0), -EINVAL);
	CHECK_EQ(mkw_grant(p.map + p.length, PAGE), -ENOMEM);
	CHECK(!mkw_is_view(p.map + p.length, PAGE));
	CHECK(mkw_is_view(p.map + p.length - 1, 2));
	CHECK(mkw_is_view(p.map - 5, 6));
	CHECK(!mkw_is_view(p.map - 5, 5));
	CHECK_EQ(p.store.asked, 0);
	options.flags = MKW_SPACE_IN_PLACE;
	options.resident_limit_bytes = 64 * PAGE;
	CHECK_EQ(mkw_space_create(&options, &space), -EINVAL);
	options.flags = 0x80;
	options.resident_limit_bytes = 0;
	CHECK_EQ(mkw_space_create(&options, &space), -EINVAL);
	place_close(&p);
}

TEST(in_place_only_there, "calls for objects in place are EINVAL for others")
{
	struct mkw_space *space;
	struct mkw_handle *h;
	void *address;

	if (mkw_space_create(NULL, &space) != 0)
		SKIP("no userfaultfd: %s", mkw_error_message());
	REQUIRE_EQ(mkw_open(space, "mem:64K", MKW_RDWR, &h), 0);
	REQUIRE_EQ(mkw_map(h, 4 * PAGE, MKW_READ | MKW_WRITE, 0, 0, &address), 0);
	CHECK_EQ(mkw_adopt(h, address, PAGE, MKW_READ, 0), -EINVAL);
	CHECK_EQ(mkw_grant(address, PAGE), -EINVAL);
	CHECK_EQ(mkw_quiesce(h), -EINVAL);
	CHECK_EQ(mkw_resume(h), -EINVAL);
	CHECK_EQ(mkw_create_in_place(space, &place_ops, NULL, MKW_RDWR, &(struct mkw_handle *){0}),
		 -EINVAL);
	CHECK(mkw_is_view(address, 1));
	CHECK_EQ(mkw_unmap(address, 4 * PAGE), 0);
	CHECK(!mkw_is_view(address, 1));
	CHECK_EQ(mkw_close(h), 0);
	CHECK_EQ(mkw_space_destroy(space, 0), 0);
}

TEST(in_place_read_handle, "a handle that was opened for reading adopts no view to write to")
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	struct place_store store = {.fd = place_file(PAGE)};
	struct mkw_space *space;
	struct mkw_handle *h;
	unsigned char *map = place_map(store.fd, PAGE);

	options.flags = MKW_SPACE_IN_PLACE;
	REQUIRE_EQ(mkw_space_create(&options, &space), 0);
	REQUIRE_EQ(mkw_create_in_place(space, &place_ops, &store, 0, &h), 0);
	CHECK_EQ(mkw_adopt(h, map, PAGE, MKW_READ | MKW_WRITE, 0), -EACCES);
	CHECK_EQ(mkw_adopt(h, map, PAGE, MKW_READ, 0), 0);
	CHECK_EQ(mkw_protect(map, PAGE, MKW_READ | MKW_WRITE), -EACCES);
	CHECK_EQ(mkw_space_destroy(space, 0), -EBUSY);
	CHECK_EQ(mkw_close(h), 0);
	CHECK_EQ(mkw_space_destroy(space, 0), 0);
	/* Its mapping stays. */
	CHECK_EQ(map[0], 0);
	munmap(map, PAGE);
	close(store.fd);
}

TEST(in_place_pins, "2.10 a call stores to pinned pages while they are synced, and loses nothing")
{
	struct mkw_pin *pin;
	struct place p;
	char byte;
	int fds[2];

	place_open_limit(&p, 8, 64);
	REQUIRE_EQ(pipe(fds), 0);
	CHECK_EQ(mkw_pin(p.map + PAGE, 4 * PAGE, MKW_WRITE, &pin), 0);
	for (unsigned i = 0; i < 20; i++) {
		byte = (char)(i + 1);
		CHECK_EQ(write(fds[1], &byte, 1), 1);
		/* The pinned pages are between those that are cleaned. */
		place_write(p.map, 1);
		place_write(p.map + 5 * PAGE, 1);
		CHECK_EQ(mkw_sync(p.handle, 0, 0), 0);
		for (unsigned k = 8; k < 32; k++)
			place_write(p.map + k * PAGE, 1);
		CHECK_EQ(read(fds[0], p.map + PAGE + i * 500, 1), 1);
	}
	CHECK_EQ(place_stat(&p).pinned_bytes, 4 * PAGE);
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_EQ(mkw_sync(p.handle, 0, 0), 0);
	CHECK_EQ(place_stat(&p).dirty_bytes, 0);
	for (unsigned i = 0; i < 20; i++)
		CHECK_EQ(p.map[PAGE + i * 500], i + 1);
	close(fds[0]);
	close(fds[1]);
	place_close(&p);
}
