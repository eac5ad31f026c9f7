/* SPDX-License-Identifier: MIT */
/* layers.c - error: and delay: over other stores. */
#include "store/double.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#define PAGE MKW_PAGE_SIZE

static int set(struct opened *o, const char *key, const char *value)
{
	return o->ops->control(o->store, &o->object, key, value);
}

static int sync_all(struct opened *o)
{
	return o->ops->fsync(o->store, &o->object, 0, 0);
}

TEST(error_nth, "the nth call of one operation fails, count times, with the errno asked for")
{
	struct opened o;

	store_open(&o, MKW_RDWR, "error?op=fsync&errno=EDQUOT&nth=3&count=2:mem:1M");
	CHECK_EQ(sync_all(&o), 0);
	CHECK_EQ(sync_all(&o), 0);
	CHECK(store_grant(&o, 0));
	CHECK_EQ(sync_all(&o), -EDQUOT);
	CHECK_SAYS("error: fsync was made to fail: Disk quota exceeded");
	CHECK_EQ(sync_all(&o), -EDQUOT);
	CHECK_EQ(sync_all(&o), 0);
	CHECK_EQ(sync_all(&o), 0);
	store_close(&o);
	store_open(&o, MKW_RDWR, "error?op=fsync&count=0:mem:1M");
	for (int i = 0; i < 100; i++)
		CHECK_EQ(sync_all(&o), -EIO);
	store_close(&o);
}

TEST(error_operations,
     "every operation can be made to fail, and the store beneath is not called then")
{
	struct opened o;
	uint64_t a, b;
	unsigned char *page = pages_make(1, 1);

	store_open(&o, MKW_RDWR, "error:mem:64K?quota=8K");
	CHECK_EQ(set(&o, "op", "fault"), 0);
	CHECK_EQ(store_fill(&o, 0, 1, 0, page, NULL), MKW_FAULT_SIGBUS);
	CHECK_SAYS("fault was made to fail");
	CHECK_EQ(store_fill(&o, 0, 1, 0, page, NULL), MKW_FAULT_LOCKED);
	CHECK_EQ(set(&o, "op", "page_mkwrite"), 0);
	CHECK_EQ(set(&o, "errno", "ENOMEM"), 0);
	CHECK_EQ(store_ask(&o, 0, 1, 0, NULL), MKW_FAULT_OOM);
	CHECK_EQ(set(&o, "errno", "ENOSPC"), 0);
	CHECK_EQ(store_ask(&o, 0, 1, 0, NULL), MKW_FAULT_SIGBUS);
	CHECK_EQ(o.ops->capacity(o.store, &a, &b), 0);
	CHECK_EQ(a, 8192);
	CHECK(store_grant(&o, 0));
	CHECK_EQ(set(&o, "op", "unreserve"), 0);
	o.ops->unreserve(o.store, &o.object, 0, 1);
	CHECK_EQ(o.ops->capacity(o.store, &a, &b), 0);
	CHECK_EQ(a, 4096);
	o.ops->unreserve(o.store, &o.object, 0, 1);
	CHECK_EQ(o.ops->capacity(o.store, &a, &b), 0);
	CHECK_EQ(a, 8192);
	CHECK_EQ(set(&o, "op", "writepages"), 0);
	CHECK_EQ(store_write(&o, 0, 1, page), -ENOSPC);
	CHECK_EQ(store_write(&o, 0, 1, page), 0);
	CHECK_EQ(set(&o, "op", "truncate"), 0);
	CHECK_EQ(store_truncate(&o, 4096), -ENOSPC);
	CHECK_EQ(store_truncate(&o, 4096), 0);
	CHECK_EQ(set(&o, "op", "punch_hole"), 0);
	CHECK_EQ(o.ops->punch_hole(o.store, &o.object, 0, PAGE), -ENOSPC);
	CHECK_EQ(o.ops->punch_hole(o.store, &o.object, 0, PAGE), 0);
	CHECK_EQ(set(&o, "op", "capacity"), 0);
	CHECK_EQ(o.ops->capacity(o.store, &a, &b), -ENOSPC);
	CHECK_EQ(set(&o, "op", "control"), 0);
	CHECK_EQ(set(&o, "quota", "16K"), -ENOSPC);
	CHECK_EQ(set(&o, "quota", "16K"), 0);
	CHECK_EQ(set(&o, "op", "none"), 0);
	CHECK_EQ(o.ops->capacity(o.store, &a, &b), 0);
	CHECK_EQ(b, 16384);
	store_close(&o);
	free(page);
	CHECK_EQ(store_try(&o, "error?op=attach&errno=EBUSY:mem:1M", MKW_RDWR), -EBUSY);
}

TEST(error_codes, "3.4 the kernel's codes are answered as they are; 0 is success without the lock")
{
	struct opened o;
	unsigned char *page = pages_make(1, 9);

	store_open(&o, MKW_RDWR, "error?op=page_mkwrite&code=NOPAGE:mem:64K?quota=4K");
	CHECK_EQ(store_ask(&o, 0, 1, 0, NULL), MKW_FAULT_NOPAGE);
	CHECK_EQ(set(&o, "code", "RETRY"), 0);
	CHECK_EQ(store_ask(&o, 0, 1, 0, NULL), MKW_FAULT_RETRY);
	CHECK_EQ(set(&o, "code", "OOM"), 0);
	CHECK_EQ(store_ask(&o, 0, 1, 0, NULL), MKW_FAULT_OOM);
	CHECK_EQ(set(&o, "code", "0"), 0);
	CHECK_EQ(set(&o, "count", "0"), 0);
	CHECK_EQ(store_ask(&o, 0, 1, 0, NULL), 0);
	/* It was the store beneath that granted: it may refuse, too. */
	CHECK_EQ(store_ask(&o, 1, 1, 1, NULL), MKW_FAULT_SIGBUS);
	CHECK_EQ(set(&o, "op", "fault"), 0);
	CHECK_EQ(store_fill(&o, 0, 1, 0, page, NULL), 0);
	CHECK_EQ(set(&o, "op", "fsync"), -EINVAL);
	CHECK_SAYS("others take errno");
	CHECK_EQ(set(&o, "errno", "EIO"), 0);
	CHECK_EQ(set(&o, "op", "fsync"), 0);
	CHECK_EQ(sync_all(&o), -EIO);
	store_close(&o);
	free(page);
}

TEST(error_range, "only calls that touch the range fail; of several runs only those that do")
{
	struct opened o;
	unsigned char *pages = pages_make(4, 9), *in = pages_make(4, 1);
	struct mkw_wb_run runs[4] = {
		{.first = 0, .count = 2, .data = pages, .length_bytes = 2 * PAGE},
		{.first = 4, .count = 2, .data = pages, .length_bytes = 2 * PAGE},
		{.first = 7, .count = 1, .data = pages, .length_bytes = PAGE},
		{.first = 9, .count = 1, .data = pages, .length_bytes = PAGE}};
	struct mkw_writeback writeback = {.count = 4, .runs = runs};

	store_open(&o, MKW_RDWR, "error?op=page_mkwrite&range=5-7&count=0:mem:1M");
	CHECK(store_grant(&o, 4) && !store_grant(&o, 5) && !store_grant(&o, 7));
	CHECK(store_grant(&o, 8));
	CHECK_EQ(store_ask(&o, 2, 3, 2, NULL), 0);
	CHECK_EQ(store_ask(&o, 2, 4, 2, NULL), MKW_FAULT_SIGBUS);
	CHECK_EQ(set(&o, "op", "writepages"), 0);
	CHECK_EQ(o.ops->writepages(o.store, &o.object, &writeback), 0);
	CHECK_EQ(runs[0].result, 0);
	CHECK_EQ(runs[1].result, -EIO);
	CHECK_EQ(runs[2].result, -EIO);
	CHECK_EQ(runs[3].result, 0);
	CHECK_EQ(set(&o, "op", "none"), 0);
	CHECK_EQ(store_fill(&o, 0, 2, 0, in, NULL), MKW_FAULT_LOCKED);
	CHECK_MEM(in, pages, 2 * PAGE);
	struct mkw_run run;

	store_fill(&o, 4, 4, 4, in, &run);
	CHECK_EQ(run.flags, MKW_RUN_HOLE);
	CHECK_EQ(set(&o, "range", "3"), 0);
	CHECK_EQ(set(&o, "op", "page_mkwrite"), 0);
	CHECK(store_grant(&o, 2) && !store_grant(&o, 3) && store_grant(&o, 4));
	store_close(&o);
	free(pages);
	free(in);
}

TEST(error_prob, "with prob one call in N fails, and the same ones for the same seed")
{
	bool failed[3][1000];
	const char *const seeds[] = {"7", "7", "8"};

	for (int round = 0; round < 3; round++) {
		struct opened o;
		int count = 0;

		store_open(&o, MKW_RDWR, "error?op=fsync&prob=1/10&seed=%s:mem:1M", seeds[round]);
		for (int i = 0; i < 1000; i++)
			count += failed[round][i] = sync_all(&o) != 0;
		CHECK(count > 50 && count < 200);
		store_close(&o);
	}
	CHECK_MEM(failed[0], failed[1], sizeof(failed[0]));
	CHECK(memcmp(failed[0], failed[2], sizeof(failed[0])));
}

TEST(layer_forwarding,
     "a layer has what the store beneath has: size, flags, file, operations, errors")
{
	struct opened o, plain;
	char path[] = "/tmp/mkwrite-layer-XXXXXX";
	int fd = mkstemp(path);

	REQUIRE(fd >= 0);
	REQUIRE_EQ(ftruncate(fd, 12345), 0);
	close(fd);
	store_open(&plain, MKW_RDWR, "mem:64K");
	store_open(&o, MKW_RDWR, "delay:error:mem:64K");
	CHECK_EQ(o.args.size_bytes, 65536);
	CHECK_STR(o.ops->name, "delay");
	CHECK(o.ops->fault && o.ops->writepages && o.ops->unreserve && !o.ops->map);
	CHECK_EQ(set(&o, "quota", "4K"), 0);
	CHECK_EQ(set(&o, "nonsense", "4K"), -EINVAL);
	CHECK_EQ(set(&o, "nth", "0"), -EINVAL);
	store_close(&o);
	store_close(&plain);
	store_open(&plain, MKW_RDONLY, "file:%s", path);
	store_open(&o, MKW_RDONLY, "error:delay:file:%s", path);
	CHECK_EQ(o.args.size_bytes, 12345);
	CHECK(o.args.dev == plain.args.dev && o.args.ino == plain.args.ino && o.args.ino);
	CHECK(!o.ops->writepages && !o.ops->truncate && !o.ops->unreserve);
	CHECK_EQ(set(&o, "quota", "4K"), -EINVAL);
	CHECK_SAYS("has an option quota to change");
	store_close(&o);
	store_close(&plain);
	unlink(path);
}

TEST(layer_identity, "the same words over the same storage are the same, others are not")
{
	struct opened o[6];
	const char *const uris[] = {"error:mem:1M?name=a",	    "error:mem:1M?name=a",
				    "error?op=fault:mem:1M?name=a", "mem:1M?name=a",
				    "error:mem:1M?name=b",	    "error:mem:1M"};
	char deep[512] = "";

	for (int i = 0; i < 6; i++)
		store_open(&o[i], MKW_RDWR, "%s", uris[i]);
	for (int i = 0; i < 6; i++)
		for (int j = i + 1; j < 6; j++) {
			bool same = o[i].args.identity_length &&
				    o[i].args.identity_length == o[j].args.identity_length &&
				    !memcmp(o[i].args.identity, o[j].args.identity,
					    o[i].args.identity_length);

			if (!CHECK_EQ(same, i == 0 && j == 1))
				test_note("%s and %s", uris[i], uris[j]);
		}
	CHECK_EQ(o[5].args.identity_length, 0);
	for (int i = 0; i < 6; i++)
		store_close(&o[i]);
	for (int i = 0; i < 10; i++)
		strcat(deep, "delay:");
	strcat(deep, "mem:1M?name=a");
	store_open(&o[0], MKW_RDWR, "%s", deep);
	CHECK(o[0].args.identity_length && o[0].args.identity_length <= MKW_IDENTITY_MAX);
	store_close(&o[0]);
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

TEST(delay_sleeps, "the operation asked for takes at least that long, and it can be changed")
{
	struct opened o;
	uint64_t start = now_us();

	store_open(&o, MKW_RDWR, "delay?op=fsync&us=3000:mem:1M");
	CHECK_EQ(sync_all(&o), 0);
	CHECK(now_us() - start >= 3000);
	CHECK_EQ(set(&o, "op", "page_mkwrite"), 0);
	CHECK_EQ(set(&o, "us", "5000"), 0);
	start = now_us();
	CHECK(store_grant(&o, 0));
	CHECK(now_us() - start >= 5000);
	CHECK_EQ(set(&o, "op", "all"), 0);
	start = now_us();
	CHECK_EQ(sync_all(&o), 0);
	CHECK(now_us() - start >= 5000);
	CHECK_EQ(set(&o, "us", "0"), 0);
	CHECK_EQ(set(&o, "us", "3600000001"), -EINVAL);
	CHECK_EQ(set(&o, "op", "sometimes"), -EINVAL);
	store_close(&o);
}
