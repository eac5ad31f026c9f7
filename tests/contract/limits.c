/* SPDX-License-Identifier: MIT */
/*
 * limits.c - S1.3, and contract 11: the dirty limit is hard, whoever waits at it goes on as soon as
 * there is room, and is told where there never will be; the resident limit holds and costs no data.
 */
#include "harness/rig.h"

#include <errno.h>
#include <string.h>

/* A store may be asked about its pages while it is called, the library may not: so the bound is
 * looked at from the store's side too. */
struct watch {
	struct rig *rig;
	_Atomic uint64_t most; /* pages reserved at a time */
};

static void watch_reserved(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	struct watch *watch = arg;
	uint64_t now = script_reserved(watch->rig->store), most = atomic_load(&watch->most);

	(void)object;
	(void)run;
	while (now > most && !atomic_compare_exchange_weak(&watch->most, &most, now))
		;
}

/* A thread that stores count ascending values, scattered over pages of its own: those that are
 * which, modulo of. */
struct scribe {
	struct rig *rig;
	uint64_t which, of, count;
	struct test_thread thread;
};

static uint64_t scribe_page(const struct scribe *scribe, uint64_t value)
{
	uint64_t own = scribe->rig->pages / scribe->of;

	return scribe->which + scribe->of * (value * RIG_SCATTER % own);
}

static void *scribe_run(void *arg)
{
	struct scribe *scribe = arg;

	for (uint64_t i = 1; i <= scribe->count; i++)
		*rig_word(scribe->rig->view, scribe_page(scribe, i)) = i;
	return NULL;
}

static void scribes_run(struct rig *rig, uint64_t threads, uint64_t count)
{
	struct scribe scribes[16];

	REQUIRE(threads <= 16);
	for (uint64_t i = 0; i < threads; i++) {
		scribes[i] = (struct scribe){.rig = rig, .which = i, .of = threads, .count = count};
		test_thread_start(&scribes[i].thread, scribe_run, &scribes[i]);
	}
	for (uint64_t i = 0; i < threads; i++)
		test_thread_join(&scribes[i].thread);
	for (uint64_t i = 0; i < threads; i++)
		for (uint64_t v = count; v > 0 && v + rig->pages / threads > count; v--)
			if (!CHECK_EQ(*rig_word(rig->view, scribe_page(&scribes[i], v)), v))
				return;
}

/* ---- The dirty limit ---------------------------------------------------------------------- */

TEST_EACH_BACKEND(dirty_limit_hard,
		  "S1.3 contract 11: many writers, and never a page more dirty than "
		  "the limit allows")
{
	const struct mkw_space_options options = {
		RIG_QUIET,
		.dirty_limit_bytes = 16 * PAGE,
	};
	struct rig rig;

	rig_open(&rig, &options, 256, MKW_RDWR);
	scribes_run(&rig, 8, test_rounds(400));
	CHECK(rig_space_stat(&rig).dirty_peak_bytes <= 16 * PAGE);
	CHECK(rig_space_stat(&rig).dirty_peak_bytes >= PAGE);
	CHECK_EQ(rig_space_stat(&rig).dirty_limit_bytes, 16 * PAGE);
	CHECK_EQ(rig_space_stat(&rig).refusals, 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(
	dirty_limit_seen_by_store,
	"S1.3 contract 11: the store never has more granted than the limit, at any instant")
{
	const uint64_t limit = 8, pages = 512;
	const struct mkw_space_options options = {
		RIG_QUIET,
		.dirty_limit_bytes = limit * PAGE,
	};
	struct watch watch = {0};
	struct rig rig;

	rig_open(&rig, &options, pages, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, pages * PAGE, MKW_RANDOM), 0);
	watch.rig = &rig;
	script_hook(rig.store, SCRIPT_MKWRITE, SCRIPT_EXIT, watch_reserved, &watch);
	script_hook(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, watch_reserved, &watch);
	/* Each page once: what was stored before would not count as reserved. */
	scribes_run(&rig, 4, pages / 4);
	script_hook(rig.store, SCRIPT_MKWRITE, SCRIPT_EXIT, NULL, NULL);
	script_hook(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, NULL, NULL);
	CHECK(atomic_load(&watch.most) >= 1);
	CHECK(atomic_load(&watch.most) <= limit);
	CHECK(rig_stat(&rig).dirty_peak_bytes <= limit * PAGE);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(dirty_limit_least,
		  "S1.3 the least limit, two pages, works, and suffices for a store across a "
		  "boundary")
{
	const struct mkw_space_options options = {RIG_QUIET, .dirty_limit_bytes = 2 * PAGE};
	struct word_anywhere {
		uint64_t word;
	} __attribute__((packed));
	struct rig rig;

	rig_open(&rig, &options, 64, MKW_RDWR);
	scribes_run(&rig, 1, 100);
	scribes_run(&rig, 2, 100);
	for (uint64_t page = 0; page < 63; page++)
		((volatile struct word_anywhere *)(rig.view + (page + 1) * PAGE - 4))->word = page;
	CHECK(rig_space_stat(&rig).dirty_peak_bytes <= 2 * PAGE);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST(limits_too_low, "mkwrite.h: limits that one instruction may exceed are refused")
{
	struct mkw_space_options options = {RIG_QUIET, .dirty_limit_bytes = 2 * PAGE - 1};
	struct mkw_space *space = NULL;
	struct rig rig;

	CHECK_EQ(mkw_space_create(&options, &space), -EINVAL);
	options.dirty_limit_bytes = 0;
	options.resident_limit_bytes = 4 * PAGE - 1;
	CHECK_EQ(mkw_space_create(&options, &space), -EINVAL);
	CHECK(mkw_error_message()[0] != '\0');
	CHECK(!space);
	rig_open(&rig, NULL, 4, MKW_RDWR);
	CHECK_EQ(mkw_set_limits(rig.handle, 0, PAGE), -EINVAL);
	CHECK_EQ(mkw_set_limits(rig.handle, PAGE, 0), -EINVAL);
	CHECK_EQ(rig_stat(&rig).dirty_limit_bytes + rig_stat(&rig).resident_limit_bytes, 0);
	CHECK_EQ(mkw_set_limits(rig.handle, 4 * PAGE, 2 * PAGE), 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(stream_cut_to_room,
		  "contract 11: a stream's runs are cut to the room that the limit "
		  "leaves")
{
	const struct mkw_space_options options = {RIG_QUIET, .dirty_limit_bytes = 10 * PAGE};
	struct rig rig;

	rig_open(&rig, &options, 1024, MKW_RDWR);
	script_set_holes(rig.store, true);
	for (uint64_t page = 0; page < 1024; page++)
		*rig_word(rig.view, page) = page + 1;
	CHECK(rig_space_stat(&rig).dirty_peak_bytes <= 10 * PAGE);
	CHECK(script_reserved(rig.store) <= 10);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(script_reserved(rig.store), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST(pwrite_within_limit, "contract 11: mkw_pwrite and mkw_reserve keep to the dirty limit")
{
	const struct mkw_space_options options = {RIG_QUIET, .dirty_limit_bytes = 4 * PAGE};
	static unsigned char bytes[64 * MKW_PAGE_SIZE], back[sizeof(bytes)];
	struct rig rig;

	rig_open(&rig, &options, 64, MKW_RDWR);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = script_pattern(i, 5);
	CHECK_EQ(mkw_pwrite(rig.handle, bytes, sizeof(bytes), 0), sizeof(bytes));
	CHECK_EQ(mkw_pread(rig.handle, back, sizeof(back), 0), sizeof(back));
	CHECK_MEM(back, bytes, sizeof(bytes));
	CHECK_EQ(mkw_reserve(rig.view, 64 * PAGE), 0);
	CHECK_EQ(mkw_unreserve(rig.view, 64 * PAGE), 0);
	CHECK(rig_space_stat(&rig).dirty_peak_bytes <= 4 * PAGE);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

/* ---- Waiting at the limit ----------------------------------------------------------------- */

#define CROWD 32

TEST_EACH_BACKEND(crowd_at_limit,
		  "S1.3 more writers wait at the limit than there are handlers: other "
		  "faults are served, and write-back lets all of them go")
{
	const struct mkw_space_options options = {
		RIG_QUIET,
		.dirty_limit_bytes = 4 * PAGE,
		.workers = 1,
		.workers_max = 2,
	};
	struct rig_writer writers[CROWD];
	unsigned ended = 0;
	struct rig rig;

	rig_open(&rig, &options, 512, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 512 * PAGE, MKW_RANDOM), 0);
	script_put_pattern(rig.store, 256, 64, 1);
	test_gate_arm(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	for (uint64_t i = 0; i < CROWD; i++)
		rig_writer_start(&writers[i], rig_word(rig.view, 5 * i), i + 1);
	/* Nobody asked for write-back: the limit does. */
	REQUIRE(test_gate_wait_arrived(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, 1));
	for (unsigned i = 0; i < CROWD; i++)
		ended += rig_settle(&writers[i].thread);
	CHECK(ended <= 4);
	CHECK(rig_space_stat(&rig).dirty_bytes <= 4 * PAGE);
	CHECK(rig_space_stat(&rig).waits >= CROWD - 4);
	for (uint64_t page = 256; page < 320; page++)
		CHECK_EQ(rig.view[page * PAGE + 9], script_pattern(page * PAGE + 9, 1));
	CHECK(test_gate_arrived(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY) >= 1);
	test_gate_release(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY);
	for (unsigned i = 0; i < CROWD; i++)
		test_thread_join(&writers[i].thread);
	for (uint64_t i = 0; i < CROWD; i++)
		CHECK_EQ(*rig_word(rig.view, 5 * i), i + 1);
	CHECK(rig_space_stat(&rig).dirty_peak_bytes <= 4 * PAGE);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST(writeback_keeps_charge,
     "contract 11: a page under write-back keeps its charge, for it is dirty "
     "again if that fails")
{
	const struct mkw_space_options options = {RIG_QUIET, .dirty_limit_bytes = 4 * PAGE};
	struct rig_writer writers[5];
	unsigned ended = 0;
	struct rig rig;

	rig_open(&rig, &options, 64, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 64 * PAGE, MKW_RANDOM), 0);
	script_fail(rig.store, SCRIPT_WRITE, 1, 1, -EIO);
	test_gate_arm(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	/* More than half of the limit. The others come while it is being written, and fails: who
	 * waits before that is denied. */
	for (uint64_t i = 0; i < 3; i++)
		rig_writer_start(&writers[i], rig_word(rig.view, 3 * i), i + 1);
	REQUIRE(test_gate_wait_arrived(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, 1));
	for (uint64_t i = 3; i < 5; i++)
		rig_writer_start(&writers[i], rig_word(rig.view, 3 * i), i + 1);
	for (int i = 0; i < 5; i++)
		ended += rig_settle(&writers[i].thread);
	CHECK(ended <= 4);
	test_gate_release(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY);
	for (int i = 0; i < 5; i++)
		test_thread_join(&writers[i].thread);
	CHECK(rig_stat(&rig).write_errors > 0);
	CHECK(rig_space_stat(&rig).dirty_peak_bytes <= 4 * PAGE);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -EIO);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST(object_limit,
     "S1.3 an object's own limit holds beneath that of the space, and holds up nobody "
     "else")
{
	const struct mkw_space_options options = {RIG_QUIET, .dirty_limit_bytes = 16 * PAGE};
	struct rig_writer writers[3];
	struct rig tight, other;
	unsigned ended = 0;

	rig_open(&tight, &options, 64, MKW_RDWR);
	rig_add(&other, &tight, 64, MKW_RDWR);
	CHECK_EQ(mkw_set_limits(tight.handle, 0, 2 * PAGE), 0);
	CHECK_EQ(rig_stat(&tight).dirty_limit_bytes, 2 * PAGE);
	CHECK_EQ(mkw_advise(tight.view, 64 * PAGE, MKW_RANDOM), 0);
	CHECK_EQ(mkw_advise(other.view, 64 * PAGE, MKW_RANDOM), 0);
	test_gate_arm(tight.store, SCRIPT_WRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	for (uint64_t i = 0; i < 3; i++)
		rig_writer_start(&writers[i], rig_word(tight.view, 2 * i), 1);
	REQUIRE(test_gate_wait_arrived(tight.store, SCRIPT_WRITE, SCRIPT_ENTRY, 1));
	for (uint64_t page = 0; page < 8; page++)
		*rig_word(other.view, page) = 1;
	for (int i = 0; i < 3; i++)
		ended += rig_settle(&writers[i].thread);
	CHECK(ended <= 2);
	test_gate_release(tight.store, SCRIPT_WRITE, SCRIPT_ENTRY);
	for (int i = 0; i < 3; i++)
		test_thread_join(&writers[i].thread);
	scribes_run(&tight, 4, 100);
	scribes_run(&other, 4, 100);
	CHECK(rig_stat(&tight).dirty_peak_bytes <= 2 * PAGE);
	CHECK(rig_stat(&other).dirty_peak_bytes > 2 * PAGE);
	CHECK(rig_space_stat(&tight).dirty_peak_bytes <= 16 * PAGE);
	CHECK_EQ(mkw_sync(tight.handle, 0, 0), 0);
	CHECK_EQ(mkw_sync(other.handle, 0, 0), 0);
	rig_check_stored(&tight);
	rig_check_stored(&other);
	rig_leave(&other);
	rig_close(&tight);
	CHECK(script_destroy(other.store));
}

TEST(limit_lowered, "S1.3 a limit set below what is dirty already lets nothing in before that is "
		    "written")
{
	struct rig rig;

	rig_open(&rig, NULL, 64, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, 64 * PAGE, MKW_RANDOM), 0);
	for (uint64_t page = 0; page < 16; page += 2)
		*rig_word(rig.view, page) = 1;
	CHECK_EQ(rig_dirty_pages(&rig), 8);
	CHECK_EQ(mkw_set_limits(rig.handle, 0, 2 * PAGE), 0);
	*rig_word(rig.view, 40) = 1;
	CHECK(rig_dirty_pages(&rig) <= 2);
	CHECK_EQ(mkw_set_limits(rig.handle, 0, 0), 0);
	for (uint64_t page = 0; page < 16; page += 2)
		*rig_word(rig.view, page) = 2;
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

/* ---- Where nothing can help --------------------------------------------------------------- */

/* The limit of 4 is used up by pages that nobody can write: a write to another page is refused, by
 * view and by call, while those that are dirty already can be written to. */
static void check_no_progress(struct rig *rig)
{
	struct mkw_refusal refusal;

	for (uint64_t page = 0; page < 4; page++)
		*rig_word(rig->view, page) = 1;
	CHECK(try_write(rig->view + 40 * PAGE, 9, &refusal) < 0);
	CHECK(refusal.error < 0);
	CHECK(refusal.message[0] != '\0');
	CHECK_EQ(refusal.offset, 40 * PAGE);
	CHECK(mkw_pwrite(rig->handle, "x", 1, 50 * PAGE) < 0);
	CHECK(mkw_error_message()[0] != '\0');
	*rig_word(rig->view, 2) = 2;
	CHECK_EQ(rig->view[40 * PAGE], 0);
	CHECK_EQ(rig_dirty_pages(rig), 4);
	CHECK(rig_space_stat(rig).dirty_peak_bytes <= 4 * PAGE);
}

static void check_progress(struct rig *rig)
{
	CHECK_EQ(try_write(rig->view + 40 * PAGE, 9, NULL), 0);
	CHECK_EQ(mkw_sync(rig->handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(rig, 2), 2);
	rig_check_stored(rig);
}

static void no_progress_open(struct rig *rig, unsigned flags)
{
	const struct mkw_space_options options = {
		.struct_size = sizeof(struct mkw_space_options),
		.writeback_interval_ms = 10,
		.dirty_limit_bytes = 4 * PAGE,
	};

	rig_open(rig, &options, 64, flags);
	CHECK_EQ(mkw_advise(rig->view, 64 * PAGE, MKW_RANDOM), 0);
}

TEST_EACH_BACKEND(no_progress_manual,
		  "contract 11: at the limit with manual write-back a writer gets "
		  "an errno, not an endless sleep")
{
	struct rig rig;

	no_progress_open(&rig, MKW_RDWR | MKW_MANUAL);
	check_no_progress(&rig);
	CHECK_EQ(script_calls(rig.store, SCRIPT_WRITE), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	check_progress(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(no_progress_page_just_mapped,
		  "contract 11: nor where the page was mapped, for others, since the handler "
		  "began to wait for reports")
{
	static unsigned char bytes[4 * MKW_PAGE_SIZE];
	unsigned char *view;
	struct rig rig;

	no_progress_open(&rig, MKW_RDWR | MKW_MANUAL);
	/* By calls alone: the handler has nothing to read until the refused write. */
	CHECK_EQ(mkw_pread(rig.handle, bytes, PAGE, 8 * PAGE), PAGE);
	CHECK_EQ(mkw_pwrite(rig.handle, bytes, 4 * PAGE, 0), 4 * PAGE);
	view = rig_map(rig.handle, 64, 0);
	CHECK_EQ(try_write(view + 8 * PAGE, 1, NULL), -ENOBUFS);
	CHECK_EQ(mkw_unmap(view, 64 * PAGE), 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(no_progress_not_yet,
		  "contract 11, S2.5: at the limit with a store that says \"not "
		  "yet\" a writer gets an errno")
{
	struct rig rig;

	no_progress_open(&rig, MKW_RDWR);
	script_fail(rig.store, SCRIPT_WRITE, 1, SCRIPT_FOREVER, -EAGAIN);
	check_no_progress(&rig);
	script_fail(rig.store, SCRIPT_WRITE, 1, 0, 0);
	check_progress(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(no_progress_failing,
		  "contract 11: at the limit with a store that fails to write a "
		  "writer gets an errno")
{
	struct rig rig;

	no_progress_open(&rig, MKW_RDWR);
	script_fail(rig.store, SCRIPT_WRITE, 1, SCRIPT_FOREVER, -EIO);
	check_no_progress(&rig);
	script_fail(rig.store, SCRIPT_WRITE, 1, 0, 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -EIO);
	check_progress(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(no_progress_deferred,
		  "contract 11: at the limit with deferred refusals a writer gets "
		  "an errno")
{
	struct rig rig;

	no_progress_open(&rig, MKW_RDWR);
	script_allow_ungranted(rig.store);
	script_set_capacity(rig.store, 0);
	CHECK_EQ(mkw_set_policy(rig.handle, MKW_DEFER, NULL, NULL), 0);
	check_no_progress(&rig);
	test_wait_until(rig_stat(&rig).write_errors > 0);
	script_set_capacity(rig.store, 64);
	/* The error of the attempts so far comes first, once. */
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -ENOSPC);
	check_progress(&rig);
	rig_close(&rig);
}

TEST(other_object_gives_way,
     "contract 11: a manual object's pages are no reason to refuse while those "
     "of another object can be written")
{
	struct rig manual, other;

	no_progress_open(&manual, MKW_RDWR | MKW_MANUAL);
	rig_add(&other, &manual, 64, MKW_RDWR);
	CHECK_EQ(mkw_advise(other.view, 64 * PAGE, MKW_RANDOM), 0);
	for (uint64_t page = 0; page < 3; page++)
		*rig_word(manual.view, page) = 1;
	for (uint64_t page = 0; page < 20; page++)
		*rig_word(other.view, 2 * page) = page + 1;
	CHECK_EQ(script_calls(manual.store, SCRIPT_WRITE), 0);
	CHECK(rig_space_stat(&manual).dirty_peak_bytes <= 4 * PAGE);
	CHECK_EQ(mkw_sync(other.handle, 0, 0), 0);
	rig_check_stored(&other);
	rig_leave(&other);
	rig_close(&manual);
	CHECK(script_destroy(other.store));
}

TEST(dropping_frees_charge,
     "contract 11: truncation, punching and discarding give charge back, and the "
     "next write has room")
{
	struct rig rig;

	no_progress_open(&rig, MKW_RDWR | MKW_MANUAL);
	check_no_progress(&rig);
	CHECK_EQ(mkw_truncate(rig.handle, 2 * PAGE), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 2);
	CHECK_EQ(mkw_truncate(rig.handle, 64 * PAGE), 0);
	CHECK_EQ(try_write(rig.view + 10 * PAGE, 1, NULL), 0);
	CHECK_EQ(try_write(rig.view + 12 * PAGE, 1, NULL), 0);
	CHECK(try_write(rig.view + 14 * PAGE, 1, NULL) < 0);
	CHECK_EQ(mkw_punch(rig.handle, 10 * PAGE, PAGE), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 3);
	CHECK_EQ(try_write(rig.view + 14 * PAGE, 1, NULL), 0);
	CHECK_EQ(mkw_discard(rig.handle, 14 * PAGE, PAGE), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 3);
	CHECK_EQ(try_write(rig.view + 16 * PAGE, 1, NULL), 0);
	CHECK_EQ(rig_space_stat(&rig).dirty_bytes, 4 * PAGE);
	CHECK_EQ(script_calls(rig.store, SCRIPT_WRITE), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

/* ---- The resident limit ------------------------------------------------------------------- */

#define RESIDENT_LIMIT 8u
#define RESIDENT_PAGES (4u * RESIDENT_LIMIT)

static const struct mkw_space_options resident_options = {
	RIG_QUIET,
	.resident_limit_bytes = RESIDENT_LIMIT * MKW_PAGE_SIZE,
};

/* Random reads and writes on pages of its own, against a model. */
struct visitor {
	struct rig *rig;
	uint64_t which, of, count;
	uint64_t model[RESIDENT_PAGES];
	struct test_thread thread;
};

static void *visitor_run(void *arg)
{
	struct visitor *v = arg;
	uint64_t random = v->which;

	for (uint64_t i = 1; i <= v->count; i++) {
		uint64_t page = v->which + v->of * (rig_random(&random) % (RESIDENT_PAGES / v->of));

		if (!CHECK_EQ(*rig_word(v->rig->view, page), v->model[page]))
			return NULL;
		if (rig_random(&random) % 2 == 0)
			*rig_word(v->rig->view, page) = v->model[page] = i << 8 | v->which;
	}
	return NULL;
}

static void visitors_run(struct rig *rig, uint64_t threads, uint64_t count)
{
	static struct visitor visitors[4];

	for (uint64_t page = 0; page < RESIDENT_PAGES; page++) {
		uint64_t word = page + 1;

		script_put(rig->store, page * PAGE, &word, sizeof(word));
		for (uint64_t i = 0; i < threads; i++)
			visitors[i].model[page] = word;
	}
	for (uint64_t i = 0; i < threads; i++) {
		visitors[i].rig = rig;
		visitors[i].which = i;
		visitors[i].of = threads;
		visitors[i].count = count;
		test_thread_start(&visitors[i].thread, visitor_run, &visitors[i]);
	}
	for (uint64_t i = 0; i < threads; i++)
		test_thread_join(&visitors[i].thread);
	CHECK_EQ(mkw_sync(rig->handle, 0, 0), 0);
	for (uint64_t page = 0; page < RESIDENT_PAGES; page++)
		if (!CHECK_EQ(rig_stored_word(rig, page), visitors[page % threads].model[page]))
			return;
}

TEST_EACH_BACKEND(resident_limit_random,
		  "S1.3 random reads and writes over four times the resident "
		  "limit: the limit holds and the data is right")
{
	struct rig rig;

	rig_open(&rig, &resident_options, RESIDENT_PAGES, MKW_RDWR);
	visitors_run(&rig, 1, test_rounds(3000));
	CHECK(rig_space_stat(&rig).resident_peak_bytes <= RESIDENT_LIMIT * PAGE);
	CHECK(rig_space_stat(&rig).pages_evicted > RESIDENT_PAGES);
	CHECK_EQ(rig_space_stat(&rig).resident_limit_bytes, RESIDENT_LIMIT * PAGE);
	CHECK_EQ(rig_space_stat(&rig).refusals, 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(resident_limit_threads, "S1.3 the same with four threads")
{
	struct rig rig;

	rig_open(&rig, &resident_options, RESIDENT_PAGES, MKW_RDWR);
	visitors_run(&rig, 4, test_rounds(1000));
	CHECK(rig_space_stat(&rig).resident_peak_bytes <= RESIDENT_LIMIT * PAGE);
	CHECK_EQ(rig_space_stat(&rig).refusals, 0);
	rig_close(&rig);
}

TEST(resident_limit_streams,
     "S1.3 reading and writing in a stream keeps to the resident limit: runs "
     "ahead are cut, evicted pages come back")
{
	static unsigned char bytes[RESIDENT_PAGES * MKW_PAGE_SIZE], back[sizeof(bytes)];
	struct rig rig;

	rig_open(&rig, &resident_options, RESIDENT_PAGES, MKW_RDWR);
	script_put_pattern(rig.store, 0, RESIDENT_PAGES, 2);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = script_pattern(i, 2);
	CHECK_MEM(rig.view, bytes, sizeof(bytes));
	for (size_t i = 0; i < sizeof(bytes); i += 512)
		rig.view[i] = bytes[i] = 0xaa;
	CHECK_MEM(rig.view, bytes, sizeof(bytes));
	CHECK_EQ(mkw_pread(rig.handle, back, sizeof(back), 0), sizeof(back));
	CHECK_MEM(back, bytes, sizeof(bytes));
	memset(bytes, 0x55, sizeof(bytes));
	CHECK_EQ(mkw_pwrite(rig.handle, bytes, sizeof(bytes), 0), sizeof(bytes));
	CHECK_MEM(rig.view, bytes, sizeof(bytes));
	CHECK(rig_space_stat(&rig).resident_peak_bytes <= RESIDENT_LIMIT * PAGE);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST(resident_limit_object, "S1.3 an object's own resident limit holds beneath that of the space")
{
	struct rig tight, other;

	rig_open(&tight, NULL, 64, MKW_RDWR);
	rig_add(&other, &tight, 64, MKW_RDWR);
	CHECK_EQ(mkw_set_limits(tight.handle, 4 * PAGE, 0), 0);
	for (uint64_t round = 0; round < 3; round++)
		for (uint64_t page = 0; page < 64; page++) {
			*rig_word(tight.view, page) += page;
			*rig_word(other.view, page) += page;
		}
	CHECK(rig_stat(&tight).resident_peak_bytes <= 4 * PAGE);
	CHECK(rig_stat(&tight).pages_evicted > 0);
	CHECK_EQ(rig_stat(&other).pages_evicted, 0);
	CHECK_EQ(rig_stat(&other).resident_bytes, 64 * PAGE);
	for (uint64_t page = 0; page < 64; page++)
		CHECK_EQ(*rig_word(tight.view, page), 3 * page);
	rig_leave(&other);
	rig_close(&tight);
	CHECK(script_destroy(other.store));
}

TEST(evicted_page_asks_again,
     "I1 I5 a page that was evicted and comes back asks before it is written")
{
	struct rig rig;

	rig_open(&rig, &resident_options, RESIDENT_PAGES, MKW_RDWR);
	CHECK_EQ(mkw_advise(rig.view, RESIDENT_PAGES * PAGE, MKW_RANDOM), 0);
	for (uint64_t round = 1; round <= 3; round++) {
		for (uint64_t page = 0; page < RESIDENT_PAGES; page++)
			*rig_word(rig.view, page) = round;
		/* Only what was left in memory could be written without asking. */
		CHECK(script_calls(rig.store, SCRIPT_MKWRITE) >=
		      round * (RESIDENT_PAGES - RESIDENT_LIMIT));
	}
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}
