/* SPDX-License-Identifier: MIT */
/* mem.c - the store in memory: bytes, holes, and a quota that is exact to the page. */
#include "store/double.h"

#include <sys/mman.h>
#include <unistd.h>

#define PAGE MKW_PAGE_SIZE

static uint64_t free_bytes(struct opened *o)
{
	uint64_t free_now, total;

	REQUIRE_EQ(o->ops->capacity(o->store, &free_now, &total), 0);
	return free_now;
}

static int set_quota(struct opened *o, const char *value)
{
	return o->ops->control(o->store, &o->object, "quota", value);
}

TEST(mem_bytes, "what was written is read, holes are told and cost no copying")
{
	struct opened o;
	struct mkw_run run;
	unsigned char *out = pages_make(1100, 1), *in = pages_make(1100, 99);

	store_open(&o, MKW_RDWR, "mem:1G");
	CHECK_EQ(o.args.size_bytes, 1 << 30);
	CHECK_EQ(store_fill(&o, 0, 8, 3, in, &run), MKW_FAULT_LOCKED);
	CHECK_EQ(run.flags, MKW_RUN_HOLE);
	CHECK_EQ(run.count, 8);
	CHECK_EQ(in[0], 99);
	/* Across three chunks. */
	CHECK_EQ(store_write(&o, 300, 1100, out), 0);
	CHECK_EQ(store_fill(&o, 300, 1100, 300, in, &run), MKW_FAULT_LOCKED);
	CHECK_EQ(run.flags, 0);
	CHECK_MEM(in, out, 1100 * PAGE);
	/* A run that is a hole in part: zeros there. */
	CHECK_EQ(store_fill(&o, 299, 3, 299, in, &run), MKW_FAULT_LOCKED);
	CHECK_EQ(run.flags, 0);
	CHECK_EQ(in[0] | in[PAGE - 1], 0);
	CHECK_MEM(in + PAGE, out, 2 * PAGE);
	store_close(&o);
	free(in);
	free(out);
}

TEST(mem_quota, "S1.1 the quota counts pages promised and stored, each once, and refuses the next")
{
	struct opened o;
	unsigned char *page = pages_make(1, 5);

	store_open(&o, MKW_RDWR, "mem:1M?quota=12289"); /* three pages and a byte */
	CHECK_EQ(free_bytes(&o), 3 * PAGE);
	CHECK(store_grant(&o, 10));
	CHECK(store_grant(&o, 10));
	CHECK_EQ(free_bytes(&o), 2 * PAGE);
	CHECK_EQ(store_write(&o, 10, 1, page), 0);
	CHECK_EQ(free_bytes(&o), 2 * PAGE);
	CHECK(store_grant(&o, 10));
	CHECK_EQ(free_bytes(&o), 2 * PAGE);
	CHECK(store_grant(&o, 11) && store_grant(&o, 200));
	CHECK_EQ(free_bytes(&o), 0);
	CHECK_EQ(store_ask(&o, 12, 1, 12, NULL), MKW_FAULT_SIGBUS);
	CHECK_SAYS("4096 bytes needed, 0 free of the quota of 12289");
	/* Pages that are stored already are granted all the same. */
	CHECK(store_grant(&o, 10));
	o.ops->unreserve(o.store, &o.object, 10, 2); /* 10 is stored: it stays */
	CHECK_EQ(free_bytes(&o), PAGE);
	CHECK(store_grant(&o, 12));
	CHECK_EQ(free_bytes(&o), 0);
	store_close(&o);
	free(page);
}

TEST(mem_quota_run, "a run is cut to what there is room for, around the page that faulted")
{
	struct opened o;
	struct mkw_run run;

	store_open(&o, MKW_RDWR, "mem:8M?quota=16K");
	CHECK_EQ(store_ask(&o, 508, 10, 511, &run), 0);
	CHECK_EQ(run.first, 511);
	CHECK_EQ(run.count, 4);
	CHECK_EQ(free_bytes(&o), 0);
	o.ops->unreserve(o.store, &o.object, 0, 2048);
	CHECK_EQ(free_bytes(&o), 4 * PAGE);
	CHECK_EQ(store_ask(&o, 508, 5, 511, &run), 0);
	CHECK_EQ(run.first, 509);
	CHECK_EQ(run.count, 4);
	store_close(&o);
}

TEST(mem_giving_back, "S2.6 truncating and punching give reservations and stored pages back")
{
	struct opened o;
	struct mkw_run run;
	unsigned char *pages = pages_make(4, 1), *in = pages_make(4, 1);

	store_open(&o, MKW_RDWR, "mem:8M?quota=64K");
	CHECK_EQ(store_write(&o, 0, 2, pages), 0);
	CHECK_EQ(store_write(&o, 600, 2, pages), 0);
	CHECK(store_grant(&o, 2) && store_grant(&o, 602));
	CHECK_EQ(free_bytes(&o), 10 * PAGE);
	CHECK_EQ(o.ops->punch_hole(o.store, &o.object, PAGE, 2 * PAGE), 0);
	CHECK_EQ(free_bytes(&o), 12 * PAGE);
	CHECK_EQ(store_fill(&o, 1, 2, 1, in, &run), MKW_FAULT_LOCKED);
	CHECK_EQ(run.flags, MKW_RUN_HOLE);
	/* The tail of the last page is gone for good. */
	CHECK_EQ(store_truncate(&o, 600 * PAGE + 100), 0);
	CHECK_EQ(free_bytes(&o), 14 * PAGE);
	CHECK_EQ(store_truncate(&o, 8 << 20), 0);
	CHECK_EQ(store_fill(&o, 600, 2, 600, in, &run), MKW_FAULT_LOCKED);
	memset(pages + 100, 0, 2 * PAGE - 100);
	CHECK_MEM(in, pages, 2 * PAGE);
	CHECK_EQ(store_truncate(&o, 0), 0);
	CHECK_EQ(free_bytes(&o), 16 * PAGE);
	CHECK_EQ(o.ops->truncate(o.store, &o.object, UINT64_MAX), -EFBIG);
	store_close(&o);
	free(pages);
	free(in);
}

TEST(mem_tail, "the part of the last page behind the end reads as zeros")
{
	struct opened o;
	unsigned char *page = pages_make(1, 77), *in = pages_make(1, 1);

	store_open(&o, MKW_RDWR, "mem:5000");
	CHECK_EQ(store_write(&o, 1, 1, page), 0);
	CHECK_EQ(store_truncate(&o, 8192), 0);
	CHECK_EQ(store_fill(&o, 1, 1, 1, in, NULL), MKW_FAULT_LOCKED);
	memset(page + 904, 0, PAGE - 904);
	CHECK_MEM(in, page, PAGE);
	store_close(&o);
	free(page);
	free(in);
}

TEST(mem_defer,
     "S2.1 a page written without a grant takes from the quota, or fails and may be tried again")
{
	struct opened o;
	struct mkw_run run;
	unsigned char *pages = pages_make(4, 1), *in = pages_make(4, 1);

	store_open(&o, MKW_RDWR, "mem:1M?quota=8K");
	CHECK(store_grant(&o, 3));
	/* Pages 0 to 3: room for 0, none for 1 and 2; 3 has been granted. */
	CHECK_EQ(store_write(&o, 0, 4, pages), -ENOSPC);
	CHECK_SAYS("0 free of the quota of 8192");
	CHECK_EQ(store_fill(&o, 3, 1, 3, in, &run), MKW_FAULT_LOCKED);
	CHECK_MEM(in, pages + 3 * PAGE, PAGE);
	CHECK_EQ(set_quota(&o, "16K"), 0);
	CHECK_EQ(store_write(&o, 0, 4, pages), 0);
	CHECK_EQ(free_bytes(&o), 0);
	CHECK_EQ(store_fill(&o, 0, 4, 0, in, &run), MKW_FAULT_LOCKED);
	CHECK_MEM(in, pages, 4 * PAGE);
	store_close(&o);
	free(pages);
	free(in);
}

TEST(mem_quota_change,
     "the quota is raised while writers wait, and not lowered below what is in use")
{
	struct opened o;

	store_open(&o, MKW_RDWR, "mem:1M?quota=4096");
	CHECK(store_grant(&o, 0));
	CHECK(!store_grant(&o, 1));
	CHECK_EQ(set_quota(&o, "4095"), -EBUSY);
	CHECK_SAYS("less than the 4096 bytes in use");
	CHECK_EQ(free_bytes(&o), 0);
	unsigned wakes = o.object.wakes;

	CHECK_EQ(set_quota(&o, "8K"), 0);
	CHECK(o.object.wakes > wakes);
	CHECK(store_grant(&o, 1));
	CHECK(!store_grant(&o, 2));
	CHECK_EQ(set_quota(&o, "8191"), -EBUSY);
	CHECK_EQ(set_quota(&o, "8K"), 0);
	CHECK_EQ(set_quota(&o, "much"), -EINVAL);
	CHECK_EQ(o.ops->control(o.store, &o.object, "name", "x"), -EINVAL);
	CHECK_SAYS("quota can");
	store_close(&o);
}

TEST(mem_wake, "space given back wakes those who were refused, and only then")
{
	struct opened o;

	store_open(&o, MKW_RDWR, "mem:1M?quota=8K");
	CHECK(store_grant(&o, 0) && store_grant(&o, 1));
	o.ops->unreserve(o.store, &o.object, 1, 1);
	CHECK_EQ(o.object.wakes, 0);
	CHECK(store_grant(&o, 1) && !store_grant(&o, 2));
	o.ops->unreserve(o.store, &o.object, 1, 1);
	CHECK_EQ(o.object.wakes, 1);
	CHECK(store_grant(&o, 2) && !store_grant(&o, 3));
	CHECK_EQ(o.ops->punch_hole(o.store, &o.object, 0, 1 << 20), 0);
	CHECK_EQ(o.object.wakes, 2);
	store_close(&o);
}

TEST(mem_capacity, "without a quota nothing says how much it can take")
{
	struct opened o;
	uint64_t free_now, total;

	store_open(&o, MKW_RDWR, "mem:0");
	CHECK_EQ(o.args.size_bytes, 0);
	CHECK_EQ(o.ops->capacity(o.store, &free_now, &total), -ENOTSUP);
	store_close(&o);
	store_open(&o, MKW_RDWR, "mem:1M?quota=0");
	CHECK_EQ(o.ops->capacity(o.store, &free_now, &total), 0);
	CHECK_EQ(free_now, 0);
	CHECK_EQ(total, 0);
	CHECK(!store_grant(&o, 0));
	store_close(&o);
	store_open(&o, MKW_RDWR | MKW_TRUNC, "mem:1M");
	CHECK_EQ(o.args.size_bytes, 0);
	store_close(&o);
}

TEST(mem_name, "openings of one name have one identity, others have none")
{
	struct opened a, b, c;

	store_open(&a, MKW_RDWR, "mem:1M?name=shared");
	store_open(&b, MKW_RDWR, "mem:2M?name=shared&quota=1M");
	store_open(&c, MKW_RDWR, "mem:1M");
	CHECK_EQ(a.args.identity_length, b.args.identity_length);
	CHECK(a.args.identity_length > 0);
	CHECK_MEM(a.args.identity, b.args.identity, a.args.identity_length);
	CHECK_EQ(c.args.identity_length, 0);
	store_close(&a);
	store_close(&b);
	store_close(&c);
}

/* A sanitizer's own memory grows with the program's. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define RESIDENT_IS_OURS false
#else
#define RESIDENT_IS_OURS true
#endif

static uint64_t resident_kb(void)
{
	uint64_t total, resident;
	FILE *file = fopen("/proc/self/statm", "r");

	REQUIRE(file != NULL);
	REQUIRE_EQ(fscanf(file, "%lu %lu", &total, &resident), 2);
	fclose(file);
	return resident * 4;
}

TEST(mem_sparse, "a huge object costs what is stored, wherever that is, and punching gives it back")
{
	struct opened o;
	struct mkw_run run;
	unsigned char *pages = pages_make(512, 1), *in = pages_make(1, 0);
	uint64_t far = ((uint64_t)INT64_MAX >> 12) - 512;

	store_open(&o, MKW_RDWR, "mem:9223372036854775807");
	uint64_t before = resident_kb();

	for (uint64_t i = 0; i < 32; i++)
		CHECK_EQ(store_write(&o, i << 28, 512, pages), 0);
	CHECK_EQ(store_write(&o, far, 1, pages), 0);
	uint64_t full = resident_kb();

	CHECK(full - before >= 64 * 1024);
	CHECK(full - before < 66 * 1024 || !RESIDENT_IS_OURS);
	CHECK_EQ(store_fill(&o, far, 1, far, in, &run), MKW_FAULT_LOCKED);
	CHECK_MEM(in, pages, PAGE);
	CHECK_EQ(store_fill(&o, 5, 1, 5, in, &run), MKW_FAULT_LOCKED);
	CHECK_MEM(in, pages + 5 * PAGE, PAGE);
	CHECK_EQ(o.ops->punch_hole(o.store, &o.object, 0, INT64_MAX & ~4095ll), 0);
	CHECK(resident_kb() - before < 3 * 1024 || !RESIDENT_IS_OURS);
	store_close(&o);
	free(pages);
	free(in);
}

/* ---- Several threads ---------------------------------------------------------------------- */

static struct opened racing;

static void *racer(void *arg)
{
	uint64_t state = (uint64_t)(uintptr_t)arg + 1;
	unsigned char *page = pages_make(1, 3);

	for (unsigned i = 0; i < test_rounds(20000); i++) {
		struct mkw_run run;

		state = state * 6364136223846793005u + 1442695040888963407u;
		uint64_t at = (uint64_t)(uintptr_t)arg * 600 + (state >> 40) % 600;

		switch ((state >> 33) % 4) {
		case 0:
			racing.ops->unreserve(racing.store, &racing.object, at, 1);
			break;
		case 1:
			racing.ops->punch_hole(racing.store, &racing.object, at * PAGE, PAGE);
			break;
		default:
			if (store_ask(&racing, at, 1, at, &run))
				break;
			if ((state >> 50) % 2)
				CHECK_EQ(store_write(&racing, at, 1, page), 0);
		}
		CHECK(free_bytes(&racing) <= 100 * PAGE);
	}
	free(page);
	return NULL;
}

TEST(mem_race, "under concurrent grants, writes and punches the quota stays exact")
{
	struct test_thread threads[3];

	store_open(&racing, MKW_RDWR, "mem:1G?quota=400K");
	for (uintptr_t i = 0; i < 3; i++)
		test_thread_start(&threads[i], racer, (void *)i);
	for (int i = 0; i < 3; i++)
		test_thread_join(&threads[i]);
	racing.ops->punch_hole(racing.store, &racing.object, 0, 1 << 30);
	CHECK_EQ(free_bytes(&racing), 100 * PAGE);
	store_close(&racing);
}
