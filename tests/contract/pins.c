/* SPDX-License-Identifier: MIT */
/*
 * pins.c - contract 2.7, 2.10, S0.5, S1.4: pages that are pinned for somebody who reads or writes
 * them in place. A pin asks the store like any write; a pinned page keeps its frame; its write-back
 * loses nothing of what a device writes at any time.
 *
 * A "device" is a thread that writes into the object's frame past the view's protections, as far as
 * a test can: the view's own page, which must not fault. That it does not is seen by the counts of
 * faults; and by io_uring and O_DIRECT, which hold the frame themselves.
 */
#include "harness/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define SEED 3u

static struct mkw_pin *pin_pages(unsigned char *view, uint64_t first, uint64_t count,
				 unsigned access)
{
	struct mkw_pin *pin = NULL;

	REQUIRE_EQ(mkw_pin(view + first * PAGE, count * PAGE, access, &pin), 0);
	REQUIRE(pin != NULL);
	return pin;
}

static void check_no_pins(struct rig *rig)
{
	CHECK_EQ(rig_stat(rig).pins, 0);
	CHECK_EQ(rig_stat(rig).pinned_bytes, 0);
	CHECK_EQ(rig_space_stat(rig).pins, 0);
	CHECK_EQ(rig_space_stat(rig).pinned_bytes, 0);
}

/* What the process's page tables have of an address: 0 is nothing. Without privilege the frame's
 * number is missing, not that there is one. */
static uint64_t frame_of(const void *address)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	REQUIRE(fd >= 0);
	REQUIRE_EQ(pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)address / PAGE * 8)), 8);
	close(fd);
	/* Present, and of a file: no page of the process's own. The rest is soft-dirty and such. */
	return (entry >> 63) != 0 ? entry & (((UINT64_C(1) << 55) - 1) | UINT64_C(5) << 61) : 0;
}

static void rig_open_random(struct rig *rig, const struct mkw_space_options *options,
			    uint64_t pages, unsigned flags)
{
	rig_open(rig, options, pages, flags);
	CHECK_EQ(mkw_advise(rig->view, pages * PAGE, MKW_RANDOM), 0);
}

/* ---- Taking ------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(pin_for_writing,
		  "2.10 a pin for writing asks the store for each of its pages; what "
		  "it has is dirty, and written to without a fault")
{
	struct mkw_stat before, after;
	struct mkw_pin *pin;
	struct rig rig;

	rig_open(&rig, NULL, 1024, MKW_RDWR);
	/* Not aligned, and over the end of a region: 4 pages. */
	REQUIRE_EQ(mkw_pin(rig.view + 510 * PAGE + 100, 3 * PAGE, MKW_WRITE, &pin), 0);
	before = rig_stat(&rig);
	for (uint64_t page = 510; page < 514; page++) {
		CHECK_EQ(script_calls_on(rig.store, SCRIPT_MKWRITE, page), 1);
		*rig_word(rig.view, page) = page;
		CHECK(frame_of(rig.view + page * PAGE) != 0);
	}
	after = rig_stat(&rig);
	CHECK_EQ(after.write_faults, before.write_faults);
	CHECK_EQ(after.pins, 1);
	CHECK_EQ(after.pinned_bytes, 4 * PAGE);
	CHECK_EQ(after.dirty_bytes, 4 * PAGE);
	CHECK_EQ(script_reserved(rig.store), 4);
	CHECK_EQ(mkw_unpin(pin), 0);
	check_no_pins(&rig);
	CHECK_EQ(rig_dirty_pages(&rig), 4);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(pin_for_reading,
		  "2.10 a pin for reading has its pages filled and mapped, and asks "
		  "for nothing")
{
	struct mkw_pin *pin;
	struct rig rig;

	rig_open(&rig, NULL, 64, MKW_RDWR);
	script_put_pattern(rig.store, 0, 64, SEED);
	pin = pin_pages(rig.view, 3, 40, MKW_READ);
	CHECK_EQ(script_calls(rig.store, SCRIPT_MKWRITE), 0);
	for (uint64_t page = 3; page < 43; page++)
		CHECK_EQ(rig.view[page * PAGE + 5], script_pattern(page * PAGE + 5, SEED));
	CHECK_EQ(script_calls_on(rig.store, SCRIPT_FAULT, 20), 1);
	CHECK_EQ(rig_stat(&rig).read_faults, 0);
	CHECK_EQ(rig_stat(&rig).pinned_bytes, 40 * PAGE);
	/* It may be written to as any other page. */
	*rig_word(rig.view, 10) = 1;
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK(frame_of(rig.view + 10 * PAGE) != 0);
	rig_check_stored(&rig);
	CHECK_EQ(mkw_unpin(pin), 0);
	check_no_pins(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(s0_5_nopage,
		  "S0.5 the store answers NOPAGE and RETRY k times: the pin succeeds on "
		  "try k+1")
{
	const uint64_t k = 7;
	struct mkw_pin *pin;
	struct rig rig;

	rig_open_random(&rig, NULL, 8, MKW_RDWR);
	script_answer(rig.store, SCRIPT_MKWRITE, 1, k, MKW_FAULT_NOPAGE);
	pin = pin_pages(rig.view, 2, 1, MKW_WRITE);
	CHECK_EQ(script_calls(rig.store, SCRIPT_MKWRITE), k + 1);
	CHECK_EQ(mkw_unpin(pin), 0);
	script_log_clear(rig.store);
	script_answer(rig.store, SCRIPT_MKWRITE, 1, k, MKW_FAULT_RETRY);
	pin = pin_pages(rig.view, 3, 1, MKW_WRITE);
	CHECK_EQ(script_calls(rig.store, SCRIPT_MKWRITE), k + 1);
	CHECK_EQ(mkw_unpin(pin), 0);
	script_answer(rig.store, SCRIPT_FAULT, 1, k, MKW_FAULT_NOPAGE);
	pin = pin_pages(rig.view, 4, 1, MKW_READ);
	CHECK_EQ(script_calls(rig.store, SCRIPT_FAULT), 1 + k + 1);
	CHECK_EQ(mkw_unpin(pin), 0);
	check_no_pins(&rig);
	rig_close(&rig);
}

/* The page is detached while the store is asked for it: what it granted is for another page. */
static void *pin_one_run(void *arg)
{
	struct rig *rig = arg;

	return pin_pages(rig->view, 1, 1, MKW_WRITE);
}

TEST_EACH_BACKEND(s0_5_detached,
		  "S0.5 S4.2 a page that is punched while the store is asked for it is "
		  "looked up again, and the pin holds the new one")
{
	struct test_thread thread;
	struct mkw_pin *pin;
	struct rig rig;

	rig_open_random(&rig, NULL, 8, MKW_RDWR);
	script_put_pattern(rig.store, 0, 8, SEED);
	test_gate_arm(rig.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1);
	test_thread_start(&thread, pin_one_run, &rig);
	REQUIRE(test_gate_wait_arrived(rig.store, SCRIPT_MKWRITE, SCRIPT_ENTRY, 1));
	CHECK_EQ(mkw_punch(rig.handle, PAGE, PAGE), 0);
	test_gate_release(rig.store, SCRIPT_MKWRITE, SCRIPT_ENTRY);
	pin = test_thread_join(&thread);
	CHECK_EQ(script_calls(rig.store, SCRIPT_MKWRITE), 2);
	CHECK_EQ(*rig_word(rig.view, 1), 0);
	CHECK_EQ(rig_stat(&rig).pinned_bytes, PAGE);
	*rig_word(rig.view, 1) = 5;
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, 1), 5);
	check_no_pins(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(pins_nest, "2.10 pins nest: the page is free with the last of them")
{
	struct mkw_pin *first, *second, *third;
	struct rig rig;

	rig_open(&rig, NULL, 128, MKW_RDWR);
	first = pin_pages(rig.view, 0, 64, MKW_WRITE);
	second = pin_pages(rig.view, 32, 64, MKW_READ);
	third = pin_pages(rig.view, 40, 1, MKW_WRITE);
	CHECK_EQ(rig_stat(&rig).pins, 3);
	CHECK_EQ(rig_stat(&rig).pinned_bytes, 96 * PAGE);
	CHECK_EQ(mkw_unpin(first), 0);
	CHECK_EQ(rig_stat(&rig).pinned_bytes, 64 * PAGE);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 1);
	CHECK_EQ(mkw_unpin(third), 0);
	CHECK_EQ(rig_stat(&rig).pinned_bytes, 64 * PAGE);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(mkw_unpin(second), 0);
	check_no_pins(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(pin_counted,
		  "2.10 a page is pinned as often as can be counted, and not once more")
{
	enum { TIMES = UINT16_MAX };
	struct mkw_pin **pins = calloc(TIMES, sizeof(*pins)), *more = NULL;
	struct rig rig;

	REQUIRE(pins != NULL);
	rig_open(&rig, NULL, 4, MKW_RDWR);
	for (unsigned i = 0; i < TIMES; i++)
		pins[i] = pin_pages(rig.view, 1, 1, MKW_READ);
	CHECK_EQ(mkw_pin(rig.view, 2 * PAGE, MKW_READ, &more), -EOVERFLOW);
	CHECK_EQ(mkw_pin(rig.view, 2 * PAGE, MKW_WRITE, &more), -EOVERFLOW);
	CHECK(more == NULL);
	CHECK_EQ(rig_stat(&rig).pinned_bytes, PAGE);
	CHECK_EQ(mkw_unpin(pins[0]), 0);
	pins[0] = pin_pages(rig.view, 1, 1, MKW_WRITE);
	for (unsigned i = 0; i < TIMES; i++)
		CHECK_EQ(mkw_unpin(pins[i]), 0);
	check_no_pins(&rig);
	free(pins);
	rig_close(&rig);
}

/* ---- Refused ------------------------------------------------------------------------------ */

TEST_EACH_BACKEND(refused_pin,
		  "2.10 a refused pin has the store's error and its sentence, and holds "
		  "nothing")
{
	struct mkw_pin *pin = NULL;
	struct rig rig;

	rig_open_random(&rig, NULL, 1024, MKW_RDWR);
	script_set_capacity(rig.store, 3);
	CHECK_EQ(mkw_pin(rig.view + 510 * PAGE, 6 * PAGE, MKW_WRITE, &pin), -ENOSPC);
	CHECK(pin == NULL);
	CHECK(mkw_error_message()[0] != '\0');
	check_no_pins(&rig);
	/* What it had been granted is dirty, as after a write. */
	CHECK_EQ(rig_dirty_pages(&rig), 3);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(mkw_invalidate(rig.handle, 0, 0), 0);
	script_set_capacity(rig.store, 6);
	pin = pin_pages(rig.view, 510, 6, MKW_WRITE);
	CHECK_EQ(mkw_unpin(pin), 0);
	/* A page that cannot be read. */
	script_set_cut(rig.store, SCRIPT_FAULT, 1);
	script_fail_page(rig.store, SCRIPT_FAULT, 20, -EIO);
	pin = NULL;
	CHECK_EQ(mkw_pin(rig.view + 18 * PAGE, 3 * PAGE, MKW_READ, &pin), -EIO);
	CHECK(pin == NULL);
	check_no_pins(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(pin_arguments, "2.10 what is no view cannot be pinned, nor what is past the end")
{
	unsigned char *bytes = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct mkw_pin *pin = NULL;
	struct rig rig, other;
	struct world alone;

	rig_open(&rig, NULL, 8, MKW_RDWR);
	CHECK_EQ(mkw_pin(rig.view, 0, MKW_READ, &pin), -EINVAL);
	CHECK_EQ(mkw_pin(rig.view, PAGE, 0, &pin), -EINVAL);
	CHECK_EQ(mkw_pin(rig.view, PAGE, 8, &pin), -EINVAL);
	CHECK_EQ(mkw_pin(rig.view, PAGE, MKW_READ, NULL), -EINVAL);
	CHECK_EQ(mkw_pin(rig.view, SIZE_MAX, MKW_READ, &pin), -EINVAL);
	CHECK_EQ(mkw_pin(bytes, PAGE, MKW_READ, &pin), -ENOMEM);
	CHECK_EQ(mkw_unpin(NULL), -EINVAL);
	CHECK_EQ(mkw_truncate(rig.handle, 6 * PAGE), 0);
	CHECK_EQ(mkw_pin(rig.view, 7 * PAGE, MKW_WRITE, &pin), -ENXIO);
	CHECK(pin == NULL);
	check_no_pins(&rig);
	/* Two objects of a space are no matter, wherever they lie. */
	rig_add(&other, &rig, 8, MKW_RDWR);
	if (other.view == rig.view + 8 * PAGE || rig.view == other.view + 8 * PAGE) {
		unsigned char *low = other.view < rig.view ? other.view : rig.view;

		CHECK_EQ(mkw_truncate(rig.handle, 8 * PAGE), 0);
		pin = pin_pages(low, 6, 4, MKW_WRITE);
		CHECK_EQ(rig_stat(&rig).pins, 1);
		CHECK_EQ(rig_stat(&other).pins, 1);
		CHECK_EQ(rig_space_stat(&rig).pins, 1);
		CHECK_EQ(rig_space_stat(&rig).pinned_bytes, 4 * PAGE);
		CHECK_EQ(mkw_unpin(pin), 0);
	} else {
		test_note("the views do not adjoin");
	}
	check_no_pins(&rig);
	rig_leave(&other);
	CHECK(script_destroy(other.store));
	rig_close(&rig);
	world_make(&alone, PAGE);
	world_open(&alone, 0);
	world_end(&alone);
	munmap(bytes, PAGE);
}

TEST_EACH_BACKEND(s1_4_forced, "S1.4 a forced write, and a pin for writing, of a view that is read "
			       "only: an error, nobody is asked, no page of the process's own")
{
	int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	struct mkw_pin *pin = NULL;
	uint64_t frame;
	struct rig rig;
	void *address;

	REQUIRE(mem >= 0);
	rig_open(&rig, NULL, 8, MKW_RDWR);
	script_put_pattern(rig.store, 0, 8, SEED);
	REQUIRE_EQ(mkw_map(rig.handle, 8 * PAGE, MKW_READ, test_map_flags(), 0, &address), 0);
	CHECK_EQ(mkw_pin(address, PAGE, MKW_WRITE, &pin), -EACCES);
	CHECK_EQ(pwrite(mem, "x", 1, (off_t)(uintptr_t)address), -1);
	pin = pin_pages(address, 0, 1, MKW_READ);
	CHECK_EQ(*(unsigned char *)address, script_pattern(0, SEED));
	frame = frame_of(address);
	CHECK(frame >> 61 == 5);
	CHECK_EQ(pwrite(mem, "x", 1, (off_t)(uintptr_t)address), -1);
	CHECK_EQ(frame_of(address), frame);
	CHECK_EQ(*(unsigned char *)address, script_pattern(0, SEED));
	CHECK_EQ(script_calls(rig.store, SCRIPT_MKWRITE), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	/* A range that only begins in a writable view is not asked for either. */
	CHECK_EQ(mkw_unpin(pin), 0);
	if ((unsigned char *)address + 8 * PAGE == rig.view)
		CHECK_EQ(mkw_pin(address, 16 * PAGE, MKW_WRITE, &pin), -EACCES);
	else if ((unsigned char *)address == rig.view + 8 * PAGE)
		CHECK_EQ(mkw_pin(rig.view, 16 * PAGE, MKW_WRITE, &pin), -EACCES);
	CHECK_EQ(script_calls(rig.store, SCRIPT_MKWRITE), 0);
	CHECK_EQ(mkw_unmap(address, 8 * PAGE), 0);
	close(mem);
	rig_close(&rig);
}

/* ---- Limits ------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(pin_dirty_limit,
		  "S1.3 pins count against the dirty limit; who waits for room that "
		  "only an unpin can make is told so")
{
	const struct mkw_space_options options = {RIG_QUIET, .dirty_limit_bytes = 8 * PAGE};
	struct mkw_pin *pin, *none = NULL;
	struct rig rig;

	rig_open_random(&rig, &options, 64, MKW_RDWR);
	CHECK_EQ(mkw_pin(rig.view, 9 * PAGE, MKW_WRITE, &none), -ENOBUFS);
	CHECK(none == NULL);
	check_no_pins(&rig);
	pin = pin_pages(rig.view, 0, 8, MKW_WRITE);
	CHECK_EQ(try_write(rig.view + 20 * PAGE, 1, NULL), -ENOBUFS);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(try_write(rig.view + 20 * PAGE, 1, NULL), -ENOBUFS);
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_EQ(try_write(rig.view + 20 * PAGE, 1, NULL), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(pin_resident_limit, "2.10 reclaim leaves pinned pages, their frames and their "
				      "translations; without room for others these are told so")
{
	const struct mkw_space_options options = {RIG_QUIET, .resident_limit_bytes = 8 * PAGE};
	struct mkw_pin *pin, *second, *none = NULL;
	uint64_t frames[3];
	struct rig rig;

	rig_open_random(&rig, &options, 64, MKW_RDWR);
	script_put_pattern(rig.store, 0, 64, SEED);
	pin = pin_pages(rig.view, 2, 3, MKW_READ);
	for (uint64_t i = 0; i < 3; i++)
		frames[i] = frame_of(rig.view + (2 + i) * PAGE);
	for (unsigned round = 0; round < 3; round++)
		for (uint64_t page = 8; page < 64; page++)
			CHECK_EQ(get(rig.view + page * PAGE), script_pattern(page * PAGE, SEED));
	for (uint64_t i = 0; i < 3; i++) {
		CHECK_EQ(frame_of(rig.view + (2 + i) * PAGE), frames[i]);
		CHECK_EQ(script_calls_on(rig.store, SCRIPT_FAULT, 2 + i), 1);
	}
	CHECK(rig_stat(&rig).pages_evicted > 0);
	CHECK_EQ(mkw_pin(rig.view + 8 * PAGE, 6 * PAGE, MKW_READ, &none), -ENOMEM);
	second = pin_pages(rig.view, 20, 5, MKW_WRITE);
	CHECK_EQ(try_read(rig.view + 40 * PAGE, &(unsigned char){0}, NULL), -ENOMEM);
	CHECK_EQ(mkw_unpin(second), 0);
	CHECK_EQ(get(rig.view + 40 * PAGE), script_pattern(40 * PAGE, SEED));
	CHECK_EQ(mkw_unpin(pin), 0);
	for (uint64_t page = 8; page < 64; page++)
		CHECK_EQ(get(rig.view + page * PAGE), script_pattern(page * PAGE, SEED));
	check_no_pins(&rig);
	rig_close(&rig);
}

/* ---- Write-back --------------------------------------------------------------------------- */

TEST_EACH_BACKEND(sync_of_pinned,
		  "6.1 6.3 a sync stores what a pinned page has; it stays dirty and "
		  "writable, and what is written later is stored later")
{
	struct mkw_stat before;
	struct mkw_pin *pin;
	uint64_t frame;
	struct rig rig;

	rig_open_random(&rig, NULL, 512, MKW_RDWR);
	pin = pin_pages(rig.view, 100, 200, MKW_WRITE);
	for (uint64_t page = 99; page <= 300; page++)
		*rig_word(rig.view, page) = 1;
	frame = frame_of(rig.view + 150 * PAGE);
	before = rig_stat(&rig);
	for (uint64_t round = 1; round <= 3; round++) {
		for (uint64_t page = 100; page < 300; page++)
			*rig_word(rig.view, page) = round * 1000 + page;
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		rig_check_stored(&rig);
		CHECK_EQ(script_unsynced(rig.store), 0);
		CHECK_EQ(rig_dirty_pages(&rig), 200);
		CHECK_EQ(frame_of(rig.view + 150 * PAGE), frame);
	}
	CHECK_EQ(rig_stat(&rig).write_faults, before.write_faults);
	*rig_word(rig.view, 150) = 77;
	CHECK_EQ(mkw_unpin(pin), 0);
	*rig_word(rig.view, 151) = 78;
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	rig_check_stored(&rig);
	/* Clean now: a write is asked for. */
	script_log_clear(rig.store);
	*rig_word(rig.view, 150) = 79;
	CHECK_EQ(script_calls(rig.store, SCRIPT_MKWRITE), 1);
	rig_close(&rig);
}

TEST_EACH_BACKEND(copy_is_stable,
		  "I4 6.4 the bytes of a pinned page do not change while they are "
		  "written, and nobody waits for that: not the device, no other view")
{
	struct rig_sync sync, later;
	struct mkw_pin *pin;
	unsigned char *view;
	struct rig rig;

	rig_open_random(&rig, NULL, 8, MKW_RDWR);
	view = rig_map(rig.handle, 8, 0);
	pin = pin_pages(rig.view, 1, 2, MKW_WRITE);
	*rig_word(rig.view, 1) = 1;
	test_gate_arm(rig.store, SCRIPT_WRITE, SCRIPT_EXIT, SCRIPT_ANY);
	rig_sync_start(&sync, rig.handle);
	REQUIRE(test_gate_wait_arrived(rig.store, SCRIPT_WRITE, SCRIPT_EXIT, 1));
	*rig_word(rig.view, 1) = 2;
	*(rig_word(view, 1) + 1) = 3;
	CHECK_EQ(*rig_word(view, 2), 0);
	*rig_word(view, 2) = 4;
	CHECK_EQ(mkw_pwrite(rig.handle, "x", 1, PAGE + 100), 1);
	/* A sync that begins now is about that, too. */
	rig_sync_start(&later, rig.handle);
	CHECK_STUCK(&later.thread);
	CHECK_EQ(rig_stored_word(&rig, 1), 1);
	test_gate_release(rig.store, SCRIPT_WRITE, SCRIPT_EXIT);
	CHECK_EQ(rig_sync_join(&sync), 0);
	CHECK_EQ(rig_sync_join(&later), 0);
	CHECK_EQ(rig_stored_word(&rig, 1), 2);
	CHECK_EQ(rig_stored_word(&rig, 2), 4);
	rig_check_stored(&rig);
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_EQ(mkw_unmap(view, 8 * PAGE), 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(sync_waits_for_copy, "6.3 a sync does not end before the copy that another has "
				       "taken is in the store")
{
	struct rig_sync first, second;
	struct mkw_pin *pin;
	struct rig rig;

	rig_open_random(&rig, NULL, 8, MKW_RDWR);
	pin = pin_pages(rig.view, 1, 1, MKW_WRITE);
	*rig_word(rig.view, 1) = 1;
	test_gate_arm(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, SCRIPT_ANY);
	rig_sync_start(&first, rig.handle);
	REQUIRE(test_gate_wait_arrived(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY, 1));
	rig_sync_start(&second, rig.handle);
	CHECK_STUCK(&second.thread);
	/* The page is let go meanwhile: it is written again, and not at the same time. */
	CHECK_EQ(mkw_unpin(pin), 0);
	*rig_word(rig.view, 1) = 2;
	script_fail(rig.store, SCRIPT_WRITE, 1, 1, -EIO);
	test_gate_release(rig.store, SCRIPT_WRITE, SCRIPT_ENTRY);
	rig_sync_join(&first);
	rig_sync_join(&second);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(rig_stored_word(&rig, 1), 2);
	rig_close(&rig);
}

TEST_EACH_BACKEND(failed_copy,
		  "contract 11: a copy that cannot be written leaves its page dirty, the "
		  "sync says so, and a later one stores it")
{
	struct mkw_pin *pin;
	struct rig rig;

	rig_open_random(&rig, NULL, 8, MKW_RDWR);
	pin = pin_pages(rig.view, 1, 2, MKW_WRITE);
	*rig_word(rig.view, 1) = 1;
	*rig_word(rig.view, 2) = 2;
	script_fail_page(rig.store, SCRIPT_WRITE, 2, -EIO);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -EIO);
	CHECK_EQ(rig_dirty_pages(&rig), 2);
	script_fail_page(rig.store, SCRIPT_WRITE, 2, -EAGAIN);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -EAGAIN);
	script_fail_page(rig.store, SCRIPT_WRITE, 2, 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, 1), 1);
	CHECK_EQ(rig_stored_word(&rig, 2), 2);
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(pinned_asked_again,
		  "I1 2.5 a page that was stored while it is pinned is asked for "
		  "again; refused, it is not lost")
{
	struct mkw_pin *pin;
	struct rig rig;

	rig_open_random(&rig, NULL, 8, MKW_RDWR);
	pin = pin_pages(rig.view, 1, 1, MKW_WRITE);
	*rig_word(rig.view, 1) = 1;
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(script_calls_on(rig.store, SCRIPT_MKWRITE, 1), 2);
	script_fail_page(rig.store, SCRIPT_MKWRITE, 1, -ENOSPC);
	*rig_word(rig.view, 1) = 2;
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, 1), 2);
	*rig_word(rig.view, 1) = 3;
	CHECK_EQ(mkw_unpin(pin), 0);
	/* Asked, and refused: the store may take it all the same, or say that it does not. */
	script_allow_ungranted(rig.store);
	script_fail_page(rig.store, SCRIPT_WRITE, 1, -ENOSPC);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -ENOSPC);
	CHECK_EQ(rig_dirty_pages(&rig), 1);
	script_fail_page(rig.store, SCRIPT_MKWRITE, 1, 0);
	script_fail_page(rig.store, SCRIPT_WRITE, 1, 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, 1), 3);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	rig_close(&rig);
}

/* What the flusher does in a round is seen by another page. */
static void await_round(struct rig *rig, uint64_t page)
{
	uint64_t calls = script_calls_on(rig->store, SCRIPT_WRITE, page);

	*rig_word(rig->view, page) += 1;
	test_wait_until(script_calls_on(rig->store, SCRIPT_WRITE, page) > calls);
	test_wait_until(script_running(rig->store, SCRIPT_WRITE) == 0);
}

TEST_EACH_BACKEND(background_and_pins,
		  "contract 11: background write-back leaves what is pinned for "
		  "writing alone, and takes it after the last pin")
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	struct mkw_pin *pin;
	struct rig rig;

	options.writeback_interval_ms = 1;
	rig_open_random(&rig, &options, 8, MKW_RDWR);
	pin = pin_pages(rig.view, 5, 1, MKW_WRITE);
	*rig_word(rig.view, 5) = 1;
	for (unsigned i = 0; i < 4; i++)
		await_round(&rig, 3);
	CHECK_EQ(script_calls_on(rig.store, SCRIPT_WRITE, 5), 0);
	CHECK_EQ(mkw_unpin(pin), 0);
	test_wait_until(script_calls_on(rig.store, SCRIPT_WRITE, 5) > 0);
	test_wait_until(rig_dirty_pages(&rig) == 0);
	rig_check_stored(&rig);
	rig_close(&rig);
}

TEST_EACH_BACKEND(nothing_lost,
		  "6.1 6.3 a device writes while syncs run: each sync has stored what was "
		  "there before it, and in the end the store has all")
{
	const unsigned rounds = test_rounds(50);
	struct rig_hammer hammers[2];
	struct mkw_pin *pin;
	unsigned char *view;
	struct rig rig;

	rig_open_random(&rig, NULL, 16, MKW_RDWR);
	view = rig_map(rig.handle, 16, 0);
	pin = pin_pages(rig.view, 4, 4, MKW_WRITE);
	rig_hammer_start(&hammers[0], rig_word(rig.view, 5));
	rig_hammer_start(&hammers[1], rig_word(view, 6));
	for (unsigned round = 0; round < rounds; round++) {
		uint64_t before[2] = {*rig_word(rig.view, 5), *rig_word(rig.view, 6)};

		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		CHECK(rig_stored_word(&rig, 5) >= before[0]);
		CHECK(rig_stored_word(&rig, 6) >= before[1]);
		rig_hammer_beat(&hammers[round % 2]);
		/* Taken and ended anew under way. */
		if (round % 16 == 15) {
			CHECK_EQ(mkw_unpin(pin), 0);
			pin = pin_pages(round % 32 == 15 ? view : rig.view, 4, 4, MKW_WRITE);
		}
	}
	rig_hammer_stop(&hammers[0]);
	rig_hammer_stop(&hammers[1]);
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	rig_check_stored(&rig);
	CHECK_EQ(mkw_unmap(view, 16 * PAGE), 0);
	rig_close(&rig);
}

/* ---- Frozen ------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(freeze_and_pins,
		  "4.5 while an object is frozen the store is one state, whatever is "
		  "pinned and written to meanwhile; it is written after the thaw")
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;
	struct rig rig, other;
	struct mkw_pin *pin;

	options.writeback_interval_ms = 1;
	rig_open_random(&rig, &options, 16, MKW_RDWR);
	rig_add(&other, &rig, 4, MKW_RDWR);
	pin = pin_pages(rig.view, 1, 2, MKW_WRITE);
	*rig_word(rig.view, 1) = 1;
	CHECK_EQ(mkw_freeze(rig.handle), 0);
	CHECK_EQ(rig_stored_word(&rig, 1), 1);
	*rig_word(rig.view, 1) = 2;
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -EBUSY);
	CHECK_EQ(mkw_msync(rig.view, 16 * PAGE), -EBUSY);
	/* A freeze within has nothing to do. */
	CHECK_EQ(mkw_freeze(rig.handle), 0);
	CHECK_EQ(mkw_thaw(rig.handle), 0);
	CHECK_EQ(mkw_unpin(pin), 0);
	*rig_word(rig.view, 2) = 3;
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), -EBUSY);
	await_round(&other, 1);
	await_round(&other, 2);
	CHECK_EQ(rig_stored_word(&rig, 1), 1);
	CHECK_EQ(rig_stored_word(&rig, 2), 0);
	CHECK_EQ(mkw_thaw(rig.handle), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, 1), 2);
	CHECK_EQ(rig_stored_word(&rig, 2), 3);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	rig_leave(&other);
	CHECK(script_destroy(other.store));
	rig_close(&rig);
}

static void *pin_page_2(void *arg)
{
	return pin_pages(arg, 2, 1, MKW_WRITE);
}

TEST_EACH_BACKEND(pin_waits_for_thaw,
		  "4.5 a pin for writing waits for the thaw, one for reading does "
		  "not")
{
	struct test_thread thread;
	struct mkw_pin *pin;
	struct rig rig;

	rig_open_random(&rig, NULL, 8, MKW_RDWR);
	CHECK_EQ(mkw_freeze(rig.handle), 0);
	pin = pin_pages(rig.view, 2, 1, MKW_READ);
	test_thread_start(&thread, pin_page_2, rig.view);
	CHECK_STUCK(&thread);
	CHECK_EQ(script_calls(rig.store, SCRIPT_MKWRITE), 0);
	CHECK_EQ(mkw_thaw(rig.handle), 0);
	CHECK_EQ(mkw_unpin(test_thread_join(&thread)), 0);
	CHECK_EQ(mkw_unpin(pin), 0);
	rig_close(&rig);
}

/* ---- Changes beneath ---------------------------------------------------------------------- */

TEST_EACH_BACKEND(pinned_stays, "5.3 invalidate and discard leave a pinned page, and say EBUSY")
{
	struct mkw_pin *pin;
	uint64_t frame;
	struct rig rig;

	rig_open_random(&rig, NULL, 16, MKW_RDWR);
	script_put_pattern(rig.store, 0, 16, SEED);
	pin = pin_pages(rig.view, 3, 2, MKW_READ);
	CHECK_EQ(get(rig.view + 3 * PAGE), script_pattern(3 * PAGE, SEED));
	frame = frame_of(rig.view + 3 * PAGE);
	CHECK_EQ(get(rig.view + 5 * PAGE), script_pattern(5 * PAGE, SEED));
	CHECK_EQ(mkw_invalidate(rig.handle, 0, 0), -EBUSY);
	CHECK_EQ(rig_stat(&rig).resident_bytes, 2 * PAGE);
	CHECK_EQ(frame_of(rig.view + 3 * PAGE), frame);
	*rig_word(rig.view, 7) = 7;
	CHECK_EQ(mkw_discard(rig.handle, 0, 0), -EBUSY);
	CHECK_EQ(*rig_word(rig.view, 7), 7);
	CHECK_EQ(rig_dirty_pages(&rig), 1);
	CHECK_EQ(mkw_unpin(pin), 0);
	pin = pin_pages(rig.view, 3, 2, MKW_WRITE);
	*rig_word(rig.view, 3) = 3;
	CHECK_EQ(mkw_invalidate(rig.handle, 3 * PAGE, PAGE), -EBUSY);
	CHECK_EQ(rig_stored_word(&rig, 3), 3);
	CHECK_EQ(mkw_discard(rig.handle, 4 * PAGE, PAGE), -EBUSY);
	CHECK_EQ(frame_of(rig.view + 3 * PAGE), frame);
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_EQ(mkw_invalidate(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stat(&rig).resident_bytes, 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(pinned_cut_off,
		  "5.1 5.2 a pinned page that is truncated or punched is no more the "
		  "object's: the page in its place is not pinned")
{
	struct mkw_pin *first, *second, *third;
	struct rig rig;

	rig_open_random(&rig, NULL, 16, MKW_RDWR);
	script_put_pattern(rig.store, 0, 16, SEED);
	first = pin_pages(rig.view, 4, 8, MKW_WRITE);
	second = pin_pages(rig.view, 9, 1, MKW_READ);
	CHECK_EQ(mkw_punch(rig.handle, 5 * PAGE, PAGE), 0);
	CHECK_EQ(rig_stat(&rig).pinned_bytes, 7 * PAGE);
	CHECK_EQ(*rig_word(rig.view, 5), 0);
	CHECK_EQ(mkw_truncate(rig.handle, 8 * PAGE), 0);
	CHECK_EQ(rig_stat(&rig).pinned_bytes, 3 * PAGE);
	CHECK_EQ(mkw_truncate(rig.handle, 16 * PAGE), 0);
	third = pin_pages(rig.view, 8, 3, MKW_WRITE);
	CHECK_EQ(rig_stat(&rig).pinned_bytes, 6 * PAGE);
	*rig_word(rig.view, 9) = 9;
	CHECK_EQ(mkw_unpin(first), 0);
	CHECK_EQ(mkw_unpin(second), 0);
	CHECK_EQ(rig_stat(&rig).pinned_bytes, 3 * PAGE);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 3);
	rig_check_stored(&rig);
	CHECK_EQ(mkw_unpin(third), 0);
	check_no_pins(&rig);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(script_reserved(rig.store), 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(pinned_tail,
		  "5.1 5.4 the last page is cut within while it is pinned: zeros, and what "
		  "the device has is kept")
{
	struct mkw_pin *pin;
	struct rig rig;

	rig_open_random(&rig, NULL, 4, MKW_RDWR);
	pin = pin_pages(rig.view, 1, 1, MKW_WRITE);
	memset(rig.view + PAGE, 7, PAGE);
	CHECK_EQ(mkw_truncate(rig.handle, PAGE + 100), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig.view[PAGE + 99], 7);
	CHECK_EQ(mkw_truncate(rig.handle, 4 * PAGE), 0);
	CHECK_EQ(rig.view[PAGE + 100], 0);
	rig.view[PAGE + 200] = 8;
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	CHECK_EQ(mkw_unpin(pin), 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(advice_and_pins,
		  "2.10 advice leaves pinned pages: calls go on without a fault, also "
		  "inline")
{
	int fd = memfd_create("advice", MFD_CLOEXEC);
	struct mkw_pin *pin;
	uint64_t frame;
	struct rig rig;

	REQUIRE(fd >= 0 && write(fd, "0123456789", 10) == 10);
	rig_open_random(&rig, NULL, 1600, MKW_RDWR);
	*rig_word(rig.view, 3) = *rig_word(rig.view, 700) = 3;
	pin = pin_pages(rig.view, 510, 4, MKW_WRITE);
	*rig_word(rig.view, 512) = 1;
	frame = frame_of(rig.view + 512 * PAGE);
	CHECK_EQ(mkw_advise(rig.view, rig.pages * PAGE, MKW_DONTNEED), 0);
	CHECK_EQ(mkw_advise(rig.view, rig.pages * PAGE, MKW_COLD), 0);
	CHECK_EQ(mkw_advise(rig.view, rig.pages * PAGE, MKW_PAGEOUT), 0);
	CHECK_EQ(frame_of(rig.view + 512 * PAGE), frame);
	CHECK_EQ(frame_of(rig.view + 3 * PAGE), 0);
	CHECK_EQ(frame_of(rig.view + 700 * PAGE), 0);
	/* Inline, a page that is to be reported is EFAULT. */
	CHECK_EQ(pread(fd, rig.view + 512 * PAGE, 10, 0), 10);
	CHECK_EQ(*rig_word(rig.view, 3) + *rig_word(rig.view, 700), 6);
	CHECK_EQ(mkw_unpin(pin), 0);
	close(fd);
	rig_close(&rig);
}

/* Syncs, evicts and invalidates as it can, until told to stop. */
struct worrier {
	struct rig *rig;
	_Atomic bool stop;
	struct test_thread thread;
};

/* ---- Private views ------------------------------------------------------------------------ */

static unsigned char *private_map(struct rig *rig, unsigned protection)
{
	void *view;

	REQUIRE_EQ(mkw_map(rig->handle, rig->pages * PAGE, protection,
			   MKW_PRIVATE | test_map_flags(), 0, &view),
		   0);
	return view;
}

static bool is_own(uint64_t frame)
{
	return frame >> 61 == 4; /* present, of no file */
}

TEST_EACH_BACKEND(r2_7_read_pin_unshares,
		  "2.7 a pin of a private page, of either kind, makes it the "
		  "view's own: what is written to the object later does not show")
{
	const unsigned kinds[] = {MKW_READ, MKW_WRITE};

	for (int kind = 0; kind < 2; kind++) {
		struct mkw_pin *pin;
		unsigned char *view;
		struct rig rig;

		rig_open(&rig, NULL, 1024, MKW_RDWR);
		script_put_pattern(rig.store, 0, 1024, SEED);
		view = private_map(&rig, MKW_WRITE);
		/* Absent, shown, let go and copied, let go and not copied. */
		CHECK_EQ(view[510 * PAGE], script_pattern(510 * PAGE, SEED));
		for (uint64_t page = 511; page < 515; page += 2)
			view[page * PAGE + 1] = 'p';
		pin = pin_pages(view, 508, 10, kinds[kind]);
		CHECK_EQ(script_calls(rig.store, SCRIPT_MKWRITE), 0);
		CHECK_EQ(rig_stat(&rig).pinned_bytes, 10 * PAGE);
		CHECK_EQ(rig_stat(&rig).pins, 1);
		for (uint64_t page = 508; page < 518; page++) {
			CHECK(is_own(frame_of(view + page * PAGE)));
			rig.view[page * PAGE] = 's';
			CHECK_EQ(view[page * PAGE], script_pattern(page * PAGE, SEED));
			CHECK_EQ(view[page * PAGE + 1],
				 page == 511 || page == 513
					 ? 'p'
					 : script_pattern(page * PAGE + 1, SEED));
		}
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		CHECK_EQ(mkw_unpin(pin), 0);
		check_no_pins(&rig);
		CHECK_EQ(mkw_unmap(view, rig.pages * PAGE), 0);
		rig_check_stored(&rig);
		rig_close(&rig);
	}
}

/* Has the object's pages locked, and everything at them, for as long as it is let. */
static void *hold_locks(void *arg)
{
	struct worrier *w = arg;
	struct rig *rig = w->rig;

	while (!atomic_load(&w->stop)) {
		CHECK_EQ(mkw_pwrite(rig->handle, "w", 1, 3 * PAGE), 1);
		CHECK_EQ(mkw_sync(rig->handle, 0, 0), 0);
		CHECK_EQ(mkw_invalidate(rig->handle, 0, 0), 0);
		CHECK_EQ(mkw_punch(rig->handle, 3 * PAGE, PAGE), 0);
	}
	return NULL;
}

TEST_EACH_BACKEND(s3_1_frame_kept,
		  "S3.1 I6 a pinned private page keeps its frame over every write, "
		  "whoever has the object's page locked, written, evicted or punched")
{
	const struct mkw_space_options options = {RIG_QUIET, .resident_limit_bytes = 16 * PAGE};
	const unsigned rounds = test_rounds(500);
	struct worrier worrier = {.stop = false};
	struct test_thread thread;
	struct mkw_pin *pin;
	unsigned char *view;
	uint64_t frame;
	struct rig rig;

	rig_open_random(&rig, &options, 64, MKW_RDWR);
	view = private_map(&rig, MKW_WRITE);
	CHECK_EQ(mkw_advise(view, rig.pages * PAGE, MKW_RANDOM), 0);
	worrier.rig = &rig;
	test_thread_start(&thread, hold_locks, &worrier);
	for (unsigned pins = 0; pins < 10; pins++) {
		pin = pin_pages(view, 3, 1, pins % 2 == 0 ? MKW_READ : MKW_WRITE);
		frame = frame_of(view + 3 * PAGE);
		CHECK(is_own(frame));
		for (unsigned round = 1; round <= rounds / 10; round++) {
			*rig_word(view, 3) = round;
			CHECK_EQ(frame_of(view + 3 * PAGE), frame);
			CHECK_EQ(*rig_word(view, 3), round);
			/* Room is wanted. */
			CHECK_EQ(get(view + (8 + round % 50) * PAGE), 0);
			CHECK_EQ(mkw_advise(view, rig.pages * PAGE, MKW_DONTNEED), 0);
		}
		CHECK_EQ(*rig_word(view, 3), rounds / 10);
		CHECK_EQ(mkw_unpin(pin), 0);
		CHECK_EQ(mkw_advise(view, rig.pages * PAGE, MKW_DONTNEED), 0);
	}
	atomic_store(&worrier.stop, true);
	test_thread_join(&thread);
	check_no_pins(&rig);
	CHECK_EQ(mkw_unmap(view, rig.pages * PAGE), 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(s3_2_copied_before_pin,
		  "S3.2 what is not pinned may always be copied: pinned and let "
		  "go over and over, under writes, the bytes are right")
{
	const unsigned rounds = test_rounds(50);
	struct rig_hammer hammer;
	unsigned char *view;
	struct rig rig;

	rig_open(&rig, NULL, 64, MKW_RDWR);
	view = private_map(&rig, MKW_WRITE);
	rig_hammer_start(&hammer, rig_word(view, 5));
	for (unsigned round = 0; round < rounds; round++) {
		struct mkw_pin *pin;
		uint64_t before;

		rig_hammer_beat(&hammer);
		before = *rig_word(view, 5);
		pin = pin_pages(view, 4, 3, round % 2 == 0 ? MKW_READ : MKW_WRITE);
		CHECK(*rig_word(view, 5) >= before);
		CHECK_EQ(*rig_word(rig.view, 5), 0);
		CHECK_EQ(mkw_advise(view, rig.pages * PAGE, MKW_PAGEOUT), 0);
		CHECK_EQ(mkw_unpin(pin), 0);
	}
	rig_hammer_stop(&hammer);
	CHECK_EQ(*rig_word(view, 5), atomic_load(&hammer.done));
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	CHECK_EQ(mkw_unmap(view, rig.pages * PAGE), 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(private_pin_read_only,
		  "2.7 S1.4 a private view that is read only: pinned for reading "
		  "it has copies, for writing it is EACCES")
{
	struct mkw_pin *pin = NULL;
	unsigned char *view;
	struct rig rig;

	rig_open(&rig, NULL, 8, MKW_RDWR);
	script_put_pattern(rig.store, 0, 8, SEED);
	view = private_map(&rig, MKW_READ);
	CHECK_EQ(mkw_pin(view, PAGE, MKW_WRITE, &pin), -EACCES);
	pin = pin_pages(view, 2, 2, MKW_READ);
	rig.view[2 * PAGE] = 's';
	CHECK_EQ(view[2 * PAGE], script_pattern(2 * PAGE, SEED));
	CHECK(is_own(frame_of(view + 2 * PAGE)));
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_EQ(mkw_unmap(view, rig.pages * PAGE), 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(private_pin_limit,
		  "2.7 copies for pins count against the resident limit; refused, "
		  "nothing is held")
{
	const struct mkw_space_options options = {RIG_QUIET, .resident_limit_bytes = 16 * PAGE};
	struct mkw_pin *pin, *none = NULL;
	unsigned char *view;
	struct rig rig;

	rig_open_random(&rig, &options, 64, MKW_RDWR);
	view = private_map(&rig, MKW_WRITE);
	CHECK_EQ(mkw_pin(view, 20 * PAGE, MKW_READ, &none), -ENOMEM);
	CHECK(none == NULL);
	check_no_pins(&rig);
	CHECK_EQ(mkw_advise(view, rig.pages * PAGE, MKW_DONTNEED), 0);
	pin = pin_pages(view, 4, 12, MKW_WRITE);
	memset(view + 4 * PAGE, 7, 12 * PAGE);
	for (uint64_t page = 20; page < 64; page++)
		CHECK_EQ(get(rig.view + page * PAGE), 0);
	for (uint64_t page = 4; page < 16; page++)
		CHECK_EQ(view[page * PAGE + 9], 7);
	CHECK_EQ(rig_stat(&rig).private_bytes, 12 * PAGE);
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_EQ(mkw_unmap(view, rig.pages * PAGE), 0);
	CHECK_EQ(rig_stat(&rig).private_bytes, 0);
	rig_close(&rig);
}

/* Use other pages until this one has gone to the swap file. */
static void swap_out_page(unsigned char *view, uint64_t page)
{
	for (uint64_t other = 0; frame_of(view + page * PAGE) != 0; other++)
		*rig_word(view, 8 + other % 32) += 0;
}

TEST_EACH_BACKEND(private_pin_swap,
		  "2.8 a page in the swap file is brought back for a pin, and does "
		  "not go there while it is pinned")
{
	struct mkw_space_options options = {RIG_QUIET, .resident_limit_bytes = 16 * PAGE};
	struct mkw_pin *pin;
	unsigned char *view;
	uint64_t frame;
	struct rig rig;

	options.swap_path = "/tmp";
	rig_open_random(&rig, &options, 64, MKW_RDWR);
	view = private_map(&rig, MKW_WRITE);
	CHECK_EQ(mkw_advise(view, rig.pages * PAGE, MKW_RANDOM), 0);
	for (uint64_t page = 0; page < 40; page++)
		*rig_word(view, page) = page + 1;
	swap_out_page(view, 3);
	pin = pin_pages(view, 2, 3, MKW_READ);
	frame = frame_of(view + 3 * PAGE);
	CHECK(is_own(frame));
	*rig_word(view, 3) = 99;
	/* One that is not pinned goes many times meanwhile. */
	for (unsigned round = 0; round < 10; round++) {
		*rig_word(view, 5) += 1;
		swap_out_page(view, 5);
	}
	CHECK_EQ(frame_of(view + 3 * PAGE), frame);
	CHECK_EQ(*rig_word(view, 5), 6 + 10);
	CHECK_EQ(*rig_word(view, 3) + *rig_word(view, 2) + *rig_word(view, 4), 99 + 3 + 5);
	CHECK_EQ(mkw_unpin(pin), 0);
	swap_out_page(view, 3);
	CHECK_EQ(*rig_word(view, 3), 99);
	for (uint64_t page = 6; page < 40; page++)
		CHECK_EQ(*rig_word(view, page), page + 1);
	CHECK_EQ(mkw_unmap(view, rig.pages * PAGE), 0);
	rig_close(&rig);
}

TEST_EACH_BACKEND(private_pin_dropped,
		  "5.1 truncation takes pinned private pages, unmapping as well; "
		  "their counts are even")
{
	struct mkw_pin *pin, *second;
	unsigned char *view;
	struct rig rig;

	rig_open_random(&rig, NULL, 16, MKW_RDWR);
	view = private_map(&rig, MKW_WRITE);
	pin = pin_pages(view, 4, 8, MKW_WRITE);
	memset(view + 4 * PAGE, 7, 8 * PAGE);
	CHECK_EQ(mkw_truncate(rig.handle, 8 * PAGE), 0);
	CHECK_EQ(rig_stat(&rig).pinned_bytes, 4 * PAGE);
	CHECK_EQ(mkw_truncate(rig.handle, 16 * PAGE), 0);
	CHECK_EQ(view[9 * PAGE], 0);
	CHECK_EQ(view[7 * PAGE], 7);
	second = pin_pages(view, 9, 1, MKW_READ);
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_EQ(rig_stat(&rig).pinned_bytes, PAGE);
	CHECK_EQ(mkw_unmap(view, rig.pages * PAGE), 0);
	CHECK_EQ(rig_stat(&rig).pinned_bytes, 0);
	CHECK_EQ(rig_stat(&rig).pins, 1);
	CHECK_EQ(mkw_unpin(second), 0);
	check_no_pins(&rig);
	CHECK_EQ(rig_stat(&rig).private_bytes, 0);
	rig_close(&rig);
}

/* ---- Ends --------------------------------------------------------------------------------- */

TEST_EACH_BACKEND(pin_outlives, "2.10 a pin keeps its object when the view and the last handle are "
				"gone; the end of it writes what is left")
{
	struct mkw_pin *pin;
	unsigned char *view;
	struct rig rig;

	rig_open_random(&rig, NULL, 8, MKW_RDWR | MKW_MANUAL);
	view = rig_map(rig.handle, 8, 0);
	pin = pin_pages(view, 1, 2, MKW_WRITE);
	*rig_word(rig.view, 1) = 1;
	CHECK_EQ(mkw_unmap(view, 8 * PAGE), 0);
	/* The frame is the object's, whoever pinned it. */
	*rig_word(rig.view, 2) = 2;
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK_EQ(rig_stored_word(&rig, 2), 2);
	*rig_word(rig.view, 2) = 3;
	rig_leave(&rig);
	CHECK_EQ(script_calls(rig.store, SCRIPT_RELEASE), 0);
	CHECK_EQ(rig_space_stat(&rig).pinned_bytes, 2 * PAGE);
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_EQ(script_calls(rig.store, SCRIPT_RELEASE), 1);
	CHECK_EQ(rig_stored_word(&rig, 2), 3);
	rig_close(&rig);
}

TEST_EACH_BACKEND(read_pin_outlives,
		  "2.10 a pin for reading keeps its object, which has nothing to "
		  "write")
{
	struct mkw_pin *pin;
	struct rig rig;

	rig_open(&rig, NULL, 8, MKW_RDWR);
	pin = pin_pages(rig.view, 1, 2, MKW_READ);
	rig_leave(&rig);
	CHECK_EQ(script_calls(rig.store, SCRIPT_RELEASE), 0);
	CHECK_EQ(rig_space_stat(&rig).resident_bytes, 2 * PAGE);
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_EQ(script_calls(rig.store, SCRIPT_RELEASE), 1);
	CHECK_EQ(rig_space_stat(&rig).resident_bytes, 0);
	rig_close(&rig);
}

struct log {
	unsigned lines;
	char last[256];
};

static void log_note(void *arg, enum mkw_log_level level, const char *message)
{
	struct log *log = arg;

	(void)level;
	test_note("library says: %s", message);
	if (strstr(message, "a pin is left") == NULL)
		return;
	log->lines++;
	snprintf(log->last, sizeof(log->last), "%s", message);
}

TEST_EACH_BACKEND(leaked_pins,
		  "2.10 pins that are left keep the space from ending, and its log is told "
		  "of each; MKW_DISCARD ends them, and loses nothing dirty")
{
	struct mkw_space_options options = {RIG_QUIET, .log = log_note};
	struct log log = {.lines = 0};
	struct mkw_pin *first, *second;
	char expected[64];
	struct world w;

	options.log_arg = &log;
	world_make_with(&w, 8 * PAGE, &options);
	world_open(&w, 8 * PAGE);
	first = pin_pages(w.view, 1, 1, MKW_READ);
	second = pin_pages(w.view, 2, 3, MKW_WRITE);
	*rig_word(w.view, 3) = 3;
	CHECK_EQ(mkw_close(w.handle), 0);
	CHECK_EQ(mkw_space_destroy(w.space, 0), -EBUSY);
	CHECK(strstr(mkw_error_message(), "2 pins") != NULL);
	CHECK_EQ(log.lines, 2);
	snprintf(expected, sizeof(expected), "%zu bytes at %p for writing", 3 * PAGE,
		 (void *)(w.view + 2 * PAGE));
	CHECK(strstr(log.last, expected) != NULL);
#ifdef MKW_DEBUG
	CHECK(strstr(log.last, "taken at") != NULL);
#endif
	CHECK_EQ(*rig_word(w.view, 3), 3);
	CHECK_EQ(mkw_unpin(first), 0);
	CHECK_EQ(mkw_space_destroy(w.space, 0), -EBUSY);
	CHECK_EQ(log.lines, 3);
	(void)second;
	CHECK_EQ(mkw_space_destroy(w.space, MKW_DISCARD), 0);
	CHECK_EQ(log.lines, 4);
	check_store(&w, 3 * PAGE, &(uint64_t){3}, sizeof(uint64_t));
	CHECK(script_destroy(w.store));
}

/* ---- Devices ------------------------------------------------------------------------------ */

#define DEVICE_PAGES 32u

/* Two files of so many pages, full of 1 and of 2. */
struct device {
	char paths[2][RIG_PATH_MAX];
	int fds[2];
};

static void device_open(struct device *d)
{
	static unsigned char bytes[DEVICE_PAGES * MKW_PAGE_SIZE]
		__attribute__((aligned(MKW_PAGE_SIZE)));

	for (int i = 0; i < 2; i++) {
		rig_file_make(d->paths[i], 0);
		d->fds[i] = open(d->paths[i], O_RDWR | O_DIRECT | O_CLOEXEC);
		memset(bytes, i + 1, sizeof(bytes));
		if (d->fds[i] < 0 || write(d->fds[i], bytes, sizeof(bytes)) != sizeof(bytes))
			SKIP("/tmp has no O_DIRECT: %s", strerror(errno));
	}
}

static void device_close(struct device *d)
{
	for (int i = 0; i < 2; i++) {
		close(d->fds[i]);
		rig_file_remove(d->paths[i]);
	}
}

static bool all_bytes_are(const unsigned char *bytes, unsigned char value)
{
	for (size_t i = 0; i < DEVICE_PAGES * PAGE; i += 64)
		if (bytes[i] != value)
			return false;
	return true;
}

static bool stored_bytes_are(struct rig *rig, unsigned char value)
{
	static unsigned char stored[DEVICE_PAGES * MKW_PAGE_SIZE];

	script_get(rig->store, 0, stored, sizeof(stored));
	return all_bytes_are(stored, value);
}

static void *worry(void *arg)
{
	struct worrier *w = arg;

	while (!atomic_load(&w->stop)) {
		CHECK_EQ(mkw_sync(w->rig->handle, 0, 0), 0);
		CHECK_EQ(mkw_invalidate(w->rig->handle, 0, 0), -EBUSY);
	}
	return NULL;
}

TEST_EACH_BACKEND(direct_read_into_pinned,
		  "2.10 O_DIRECT reads into a pinned view while others sync and "
		  "invalidate: the device, the process and the store agree")
{
	struct worrier worrier = {.stop = false};
	const unsigned rounds = test_rounds(20);
	struct device device;
	struct mkw_pin *pin;
	struct rig rig;

	device_open(&device);
	rig_open(&rig, NULL, DEVICE_PAGES, MKW_RDWR);
	pin = pin_pages(rig.view, 0, DEVICE_PAGES, MKW_WRITE);
	worrier.rig = &rig;
	test_thread_start(&worrier.thread, worry, &worrier);
	for (unsigned round = 0; round < rounds; round++) {
		unsigned char value = (unsigned char)(round % 2 + 1);

		REQUIRE_EQ(pread(device.fds[round % 2], rig.view, DEVICE_PAGES * PAGE, 0),
			   DEVICE_PAGES * PAGE);
		CHECK(all_bytes_are(rig.view, value));
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		CHECK(stored_bytes_are(&rig, value));
	}
	atomic_store(&worrier.stop, true);
	test_thread_join(&worrier.thread);
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	device_close(&device);
	rig_close(&rig);
}

/* The least of io_uring: one entry at a time, submitted and waited for. */
struct ring {
	int fd;
	unsigned char *sq, *cq;
	struct io_uring_sqe *sqes;
	struct io_uring_params params;
};

static void ring_open(struct ring *ring)
{
	struct io_uring_params *p = &ring->params;

	memset(ring, 0, sizeof(*ring));
	ring->fd = (int)syscall(SYS_io_uring_setup, 4, p);
	if (ring->fd < 0)
		SKIP("no io_uring here: %s", strerror(errno));
	ring->sq = mmap(NULL, p->sq_off.array + p->sq_entries * sizeof(unsigned),
			PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
	ring->cq = mmap(NULL, p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe),
			PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_CQ_RING);
	ring->sqes = mmap(NULL, p->sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
			  MAP_SHARED, ring->fd, IORING_OFF_SQES);
	REQUIRE(ring->sq != MAP_FAILED && ring->cq != MAP_FAILED && ring->sqes != MAP_FAILED);
}

static void ring_close(struct ring *ring)
{
	const struct io_uring_params *p = &ring->params;

	munmap(ring->sq, p->sq_off.array + p->sq_entries * sizeof(unsigned));
	munmap(ring->cq, p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe));
	munmap(ring->sqes, p->sq_entries * sizeof(struct io_uring_sqe));
	close(ring->fd);
}

static _Atomic unsigned *ring_word(unsigned char *ring, unsigned offset)
{
	return (_Atomic unsigned *)(void *)(ring + offset);
}

/* A read into the registered buffer, or out of it. The bytes moved, or a negative errno. */
static int ring_move(struct ring *ring, int fd, bool in, void *buffer, size_t length)
{
	const struct io_uring_params *p = &ring->params;
	unsigned tail = *ring_word(ring->sq, p->sq_off.tail);
	unsigned slot = tail & *ring_word(ring->sq, p->sq_off.ring_mask), head;
	const struct io_uring_cqe *cqe;
	int result;

	ring->sqes[slot] = (struct io_uring_sqe){
		.opcode = in ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED,
		.fd = fd,
		.addr = (uintptr_t)buffer,
		.len = (unsigned)length,
	};
	*ring_word(ring->sq, p->sq_off.array + slot * (unsigned)sizeof(unsigned)) = slot;
	*ring_word(ring->sq, p->sq_off.tail) = tail + 1;
	REQUIRE_EQ(syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0), 1);
	head = *ring_word(ring->cq, p->cq_off.head);
	cqe = (const void *)(ring->cq + p->cq_off.cqes);
	result = cqe[head & *ring_word(ring->cq, p->cq_off.ring_mask)].res;
	*ring_word(ring->cq, p->cq_off.head) = head + 1;
	return result;
}

TEST_EACH_BACKEND(uring_into_pinned,
		  "2.10 io_uring keeps hold of a pinned view's frames and reads into "
		  "them after they were synced, with no fault: nothing is lost")
{
	struct worrier worrier = {.stop = false};
	const unsigned rounds = test_rounds(20);
	struct mkw_stat before;
	struct device device;
	struct mkw_pin *pin;
	struct iovec buffer;
	struct ring ring;
	struct rig rig;

	ring_open(&ring);
	device_open(&device);
	rig_open(&rig, NULL, DEVICE_PAGES, MKW_RDWR);
	pin = pin_pages(rig.view, 0, DEVICE_PAGES, MKW_WRITE);
	buffer = (struct iovec){rig.view, DEVICE_PAGES * PAGE};
	if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &buffer, 1) != 0)
		SKIP("io_uring registers no buffer: %s", strerror(errno));
	worrier.rig = &rig;
	test_thread_start(&worrier.thread, worry, &worrier);
	before = rig_stat(&rig);
	for (unsigned round = 0; round < rounds; round++) {
		unsigned char value = (unsigned char)(round % 2 + 1);

		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		REQUIRE_EQ(ring_move(&ring, device.fds[round % 2], true, rig.view,
				     DEVICE_PAGES * PAGE),
			   DEVICE_PAGES * PAGE);
		CHECK(all_bytes_are(rig.view, value));
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		CHECK(stored_bytes_are(&rig, value));
	}
	atomic_store(&worrier.stop, true);
	test_thread_join(&worrier.thread);
	/* The last of it comes after every sync. */
	REQUIRE_EQ(ring_move(&ring, device.fds[0], true, rig.view, DEVICE_PAGES * PAGE),
		   DEVICE_PAGES * PAGE);
	CHECK_EQ(rig_stat(&rig).write_faults, before.write_faults);
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	CHECK(stored_bytes_are(&rig, 1));
	CHECK_EQ(rig_dirty_pages(&rig), 0);
	ring_close(&ring);
	device_close(&device);
	rig_close(&rig);
}

TEST_EACH_BACKEND(uring_out_of_pinned,
		  "2.10 io_uring writes out what a view that is pinned for reading "
		  "shows, also what was written to it since")
{
	static unsigned char bytes[DEVICE_PAGES * MKW_PAGE_SIZE]
		__attribute__((aligned(MKW_PAGE_SIZE)));
	struct device device;
	struct mkw_pin *pin;
	struct iovec buffer;
	struct ring ring;
	struct rig rig;

	ring_open(&ring);
	device_open(&device);
	rig_open(&rig, NULL, DEVICE_PAGES, MKW_RDWR);
	pin = pin_pages(rig.view, 0, DEVICE_PAGES, MKW_WRITE);
	buffer = (struct iovec){rig.view, DEVICE_PAGES * PAGE};
	if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &buffer, 1) != 0)
		SKIP("io_uring registers no buffer: %s", strerror(errno));
	for (unsigned char value = 5; value < 8; value++) {
		memset(rig.view, value, DEVICE_PAGES * PAGE);
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
		REQUIRE_EQ(ring_move(&ring, device.fds[0], false, rig.view, DEVICE_PAGES * PAGE),
			   DEVICE_PAGES * PAGE);
		REQUIRE_EQ(pread(device.fds[0], bytes, sizeof(bytes), 0), sizeof(bytes));
		CHECK(all_bytes_are(bytes, value));
		CHECK(stored_bytes_are(&rig, value));
	}
	CHECK_EQ(mkw_unpin(pin), 0);
	ring_close(&ring);
	device_close(&device);
	rig_close(&rig);
}

struct receiver {
	int fd;
	void *buffer;
	size_t length;
	struct test_thread thread;
};

static void *receive(void *arg)
{
	struct receiver *r = arg;

	CHECK_EQ(recv(r->fd, r->buffer, r->length, MSG_WAITALL), r->length);
	return NULL;
}

TEST_EACH_BACKEND(recv_into_pinned,
		  "2.10 a recv into a pinned view goes on over syncs of what it has so "
		  "far, also inline")
{
	static unsigned char bytes[4 * MKW_PAGE_SIZE];
	struct receiver receiver = {.length = sizeof(bytes)};
	struct mkw_stat before;
	struct mkw_pin *pin;
	struct rig rig;
	int ends[2];

	rig_open_random(&rig, NULL, 8, MKW_RDWR);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = script_pattern(i, SEED);
	REQUIRE_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	pin = pin_pages(rig.view, 1, 5, MKW_WRITE);
	before = rig_stat(&rig);
	receiver.fd = ends[0];
	receiver.buffer = rig.view + PAGE + 77;
	test_thread_start(&receiver.thread, receive, &receiver);
	for (size_t at = 0; at < sizeof(bytes); at += 1000) {
		size_t n = sizeof(bytes) - at < 1000 ? sizeof(bytes) - at : 1000;

		REQUIRE_EQ(send(ends[1], bytes + at, n, 0), n);
		CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	}
	test_thread_join(&receiver.thread);
	CHECK_EQ(rig_stat(&rig).write_faults, before.write_faults);
	CHECK_MEM(rig.view + PAGE + 77, bytes, sizeof(bytes));
	CHECK_EQ(mkw_sync(rig.handle, 0, 0), 0);
	rig_check_stored(&rig);
	CHECK_EQ(mkw_unpin(pin), 0);
	close(ends[0]);
	close(ends[1]);
	rig_close(&rig);
}

/* What is registered with the ring is the frame; what the process sees is its view. */
static void check_same_bytes(struct ring *ring, struct device *device, unsigned char *view,
			     unsigned char value)
{
	static unsigned char bytes[DEVICE_PAGES * MKW_PAGE_SIZE]
		__attribute__((aligned(MKW_PAGE_SIZE)));

	memset(view, value, DEVICE_PAGES * PAGE);
	REQUIRE_EQ(ring_move(ring, device->fds[1], false, view, DEVICE_PAGES * PAGE),
		   DEVICE_PAGES * PAGE);
	REQUIRE_EQ(pread(device->fds[1], bytes, sizeof(bytes), 0), sizeof(bytes));
	CHECK(all_bytes_are(bytes, value));
	REQUIRE_EQ(ring_move(ring, device->fds[0], true, view, DEVICE_PAGES * PAGE),
		   DEVICE_PAGES * PAGE);
	CHECK(all_bytes_are(view, 1));
}

TEST_EACH_BACKEND(s3_3_protection,
		  "S3.3 2.9 a pinned private view that is made read only, and writable "
		  "again: the device's view is the process's, every time")
{
	const unsigned rounds = test_rounds(20);
	struct device device;
	struct mkw_pin *pin;
	unsigned char *view;
	struct iovec buffer;
	struct ring ring;
	struct rig rig;

	ring_open(&ring);
	device_open(&device);
	rig_open(&rig, NULL, DEVICE_PAGES, MKW_RDWR);
	view = private_map(&rig, MKW_WRITE);
	pin = pin_pages(view, 0, DEVICE_PAGES, MKW_READ);
	buffer = (struct iovec){view, DEVICE_PAGES * PAGE};
	if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &buffer, 1) != 0)
		SKIP("io_uring registers no buffer: %s", strerror(errno));
	for (unsigned round = 0; round < rounds; round++) {
		check_same_bytes(&ring, &device, view, (unsigned char)(10 + round % 100));
		REQUIRE_EQ(mkw_protect(view, DEVICE_PAGES * PAGE, MKW_READ), 0);
		CHECK(all_bytes_are(view, 1));
		REQUIRE_EQ(mkw_protect(view, DEVICE_PAGES * PAGE, MKW_READ | MKW_WRITE), 0);
		/* And whatever the library does in between. */
		CHECK_EQ(mkw_advise(view, DEVICE_PAGES * PAGE, MKW_PAGEOUT), 0);
		CHECK_EQ(mkw_advise(view, DEVICE_PAGES * PAGE, MKW_DONTNEED), 0);
		CHECK_EQ(mkw_invalidate(rig.handle, 0, 0), 0);
	}
	CHECK_EQ(script_calls(rig.store, SCRIPT_MKWRITE), 0);
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_EQ(mkw_unmap(view, DEVICE_PAGES * PAGE), 0);
	ring_close(&ring);
	device_close(&device);
	rig_close(&rig);
}
