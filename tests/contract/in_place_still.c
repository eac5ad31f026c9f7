/* SPDX-License-Identifier: MIT */
/* in_place_still.c - quiescing an object in place: no page of it can be written until it resumes.
 */
#include "place.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- A cut ------------------------------------------------------------------------------- */

struct cut {
	struct place a;
	struct mkw_handle *second; /* another object of the same space */
	struct place_store store;
	unsigned char *map;
	_Atomic bool stop;
	_Atomic unsigned rounds;
};

#define PAIRS 64u

/* Each thread has words of its own: that in the first file is never behind the other. */
struct writer {
	struct test_thread thread;
	struct cut *cut;
	unsigned first;
};

static void *write_pairs(void *arg)
{
	struct writer *w = arg;
	struct cut *c = w->cut;

	for (unsigned n = 1; !atomic_load(&c->stop); n++)
		for (unsigned i = w->first; i < PAIRS; i += 4) {
			*(volatile unsigned *)(c->a.map + i * PAGE) = n;
			*(volatile unsigned *)(c->map + i * PAGE) = n;
			atomic_fetch_add(&c->rounds, 1);
		}
	return NULL;
}

static void cut_check(struct cut *c)
{
	unsigned a[PAIRS], b[PAIRS];

	CHECK_EQ(mkw_quiesce(c->second), 0);
	CHECK_EQ(mkw_quiesce(c->a.handle), 0);
	for (unsigned i = 0; i < PAIRS; i++) {
		CHECK_EQ(pread(c->a.store.fd, &a[i], sizeof(a[i]), i * PAGE), sizeof(a[i]));
		CHECK_EQ(pread(c->store.fd, &b[i], sizeof(b[i]), i * PAGE), sizeof(b[i]));
		CHECK(a[i] == b[i] || a[i] == b[i] + 1);
	}
	for (unsigned n = 0; n < 20; n++)
		sched_yield();
	for (unsigned i = 0; i < PAIRS; i++) {
		unsigned again[2];

		CHECK_EQ(pread(c->a.store.fd, &again[0], sizeof(again[0]), i * PAGE), 4);
		CHECK_EQ(pread(c->store.fd, &again[1], sizeof(again[1]), i * PAGE), 4);
		CHECK(again[0] == a[i] && again[1] == b[i]);
	}
	CHECK_EQ(mkw_resume(c->a.handle), 0);
	CHECK_EQ(mkw_resume(c->second), 0);
}

static void cut_open(struct cut *c, size_t limit)
{
	memset(c, 0, sizeof(*c));
	place_open_limit(&c->a, limit, PAIRS);
	atomic_store(&c->store.refuse_from, -1);
	c->store.fd = place_file(PAIRS * PAGE);
	c->map = place_map(c->store.fd, PAIRS * PAGE);
	REQUIRE_EQ(mkw_create_in_place(c->a.space, &place_ops, &c->store, MKW_RDWR, &c->second), 0);
	REQUIRE_EQ(mkw_adopt(c->second, c->map, PAIRS * PAGE, MKW_READ | MKW_WRITE, 0), 0);
}

static void cut_close(struct cut *c)
{
	CHECK_EQ(mkw_unmap(c->map, PAIRS * PAGE), 0);
	munmap(c->map, PAIRS * PAGE);
	CHECK_EQ(mkw_close(c->second), 0);
	close(c->store.fd);
	place_close(&c->a);
}

static void cut_run(size_t limit)
{
	struct writer writers[4];
	struct cut c;

	cut_open(&c, limit);
	for (unsigned i = 0; i < 4; i++) {
		writers[i] = (struct writer){.cut = &c, .first = i};
		test_thread_start(&writers[i].thread, write_pairs, &writers[i]);
	}
	for (unsigned i = 0; i < test_rounds(50); i++) {
		unsigned before = atomic_load(&c.rounds);

		cut_check(&c);
		test_wait_until(atomic_load(&c.rounds) > before + PAIRS);
	}
	atomic_store(&c.stop, true);
	for (unsigned i = 0; i < 4; i++)
		test_thread_join(&writers[i].thread);
	cut_close(&c);
}

TEST(in_place_cut, "4.5 two objects quiesced show one instant, whoever writes")
{
	test_not_under_tsan();
	cut_run(0);
}

TEST(in_place_cut_limited, "4.5 two objects quiesced show one instant, under a dirty limit")
{
	test_not_under_tsan();
	cut_run(16);
}

/* ---- What a quiesced object keeps out ---------------------------------------------------- */

struct late {
	unsigned char *at;
	unsigned char byte;
	_Atomic bool done;
};

static void *write_late(void *arg)
{
	struct late *late = arg;

	place_write(late->at, late->byte);
	atomic_store(&late->done, true);
	return NULL;
}

TEST(in_place_still_adopt, "4.5 a view that is adopted while its object is quiesced waits, too")
{
	struct test_thread thread;
	unsigned char *other;
	struct late late;
	struct place p;

	place_open(&p, NULL, 64);
	place_write(p.map, 1);
	CHECK_EQ(mkw_quiesce(p.handle), 0);
	other = place_map(p.store.fd, p.length);
	CHECK_EQ(mkw_adopt(p.handle, other, p.length, MKW_READ | MKW_WRITE, 0), 0);
	late = (struct late){.at = other, .byte = 2};
	test_thread_start(&thread, write_late, &late);
	test_wait_until(place_stat(&p).waits > 0);
	CHECK_EQ(p.map[0], 1);
	CHECK(!atomic_load(&late.done));
	CHECK_EQ(p.store.asked, 1);
	CHECK_EQ(mkw_resume(p.handle), 0);
	test_thread_join(&thread);
	CHECK_EQ(p.map[0], 2);
	CHECK_EQ(p.store.asked, 2);
	CHECK_EQ(mkw_unmap(other, p.length), 0);
	munmap(other, p.length);
	place_close(&p);
}

TEST(in_place_still_protect, "4.5 2.9 a view made writable while its object is quiesced waits")
{
	struct test_thread thread;
	struct late late;
	struct place p;

	place_open(&p, NULL, 64);
	place_write(p.map, 1);
	CHECK_EQ(mkw_protect(p.map, p.length, MKW_READ), 0);
	CHECK_EQ(mkw_quiesce(p.handle), 0);
	CHECK_EQ(mkw_protect(p.map, p.length, MKW_READ | MKW_WRITE), 0);
	late = (struct late){.at = p.map, .byte = 2};
	test_thread_start(&thread, write_late, &late);
	test_wait_until(place_stat(&p).waits > 0);
	CHECK_EQ(p.map[0], 1);
	CHECK_EQ(mkw_resume(p.handle), 0);
	test_thread_join(&thread);
	CHECK_EQ(p.map[0], 2);
	place_close(&p);
}

TEST(in_place_still_pin, "4.5 what is unpinned while its object is quiesced is closed then")
{
	struct test_thread thread;
	struct mkw_pin *pin;
	struct late late;
	struct place p;
	int fds[2];

	place_open(&p, NULL, 64);
	REQUIRE_EQ(pipe(fds), 0);
	CHECK_EQ(mkw_pin(p.map + 3 * PAGE, PAGE, MKW_WRITE, &pin), 0);
	place_write(p.map + 4 * PAGE, 1);
	CHECK_EQ(mkw_quiesce(p.handle), 0);
	/* The call that it was pinned for goes on. */
	CHECK_EQ(write(fds[1], "x", 1), 1);
	CHECK_EQ(read(fds[0], p.map + 3 * PAGE, 1), 1);
	CHECK_EQ(mkw_unpin(pin), 0);
	late = (struct late){.at = p.map + 3 * PAGE, .byte = 'y'};
	test_thread_start(&thread, write_late, &late);
	test_wait_until(place_stat(&p).waits > 0 || atomic_load(&late.done));
	CHECK_EQ(p.map[3 * PAGE], 'x');
	CHECK_EQ(mkw_resume(p.handle), 0);
	test_thread_join(&thread);
	CHECK_EQ(p.map[3 * PAGE], 'y');
	CHECK(p.store.asked >= 3);
	close(fds[0]);
	close(fds[1]);
	place_close(&p);
}

TEST(in_place_still_sync, "4.5 6.3 a quiesced object can be synced, and stays quiesced")
{
	struct test_thread thread;
	struct late late;
	struct place p;

	place_open(&p, NULL, 64);
	place_write(p.map, 1);
	CHECK_EQ(mkw_quiesce(p.handle), 0);
	CHECK_EQ(mkw_sync(p.handle, 0, 0), 0);
	CHECK_EQ(place_stat(&p).dirty_bytes, 0);
	CHECK_EQ(p.store.written, 1);
	late = (struct late){.at = p.map, .byte = 2};
	test_thread_start(&thread, write_late, &late);
	test_wait_until(place_stat(&p).waits > 0);
	CHECK_EQ(p.map[0], 1);
	CHECK_EQ(mkw_quiesce(p.handle), 0); /* once more */
	CHECK_EQ(mkw_resume(p.handle), 0);
	CHECK_EQ(p.map[0], 1);
	CHECK(!atomic_load(&late.done));
	CHECK_EQ(mkw_resume(p.handle), 0);
	test_thread_join(&thread);
	CHECK_EQ(p.map[0], 2);
	CHECK_EQ(mkw_resume(p.handle), -EINVAL);
	place_close(&p);
}

static int write_in_child(void *arg)
{
	struct place *p = arg;

	place_write(p->map + PAGE, 5);
	return p->map[PAGE] == 5 ? 0 : 1;
}

TEST(in_place_still_fork, "4.5 7.1 in a child the object is not quiesced: nobody would resume it")
{
	struct place p;

	place_open(&p, NULL, 64);
	CHECK_EQ(mkw_quiesce(p.handle), 0);
	CHECK_EQ(place_child(write_in_child, &p), 0);
	CHECK_EQ(p.store.asked, 0);
	CHECK_EQ(mkw_resume(p.handle), 0);
	place_close(&p);
}
