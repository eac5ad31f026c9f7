/* SPDX-License-Identifier: MIT */
/*
 * layers.c - the layers that ship for testing, through the library and by URI: error: and delay:
 * over mem: and file:. What goes wrong beneath reaches the program as the contract says (S1.1, 3.4,
 * 6.5), and everything else goes through them unchanged.
 */
#include "harness/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGES 16u

struct stack {
	struct mkw_space *space;
	struct mkw_handle *handle;
	unsigned char *view;
	char path[RIG_PATH_MAX]; /* of the file beneath; "" over memory */
};

static void stack_map(struct stack *stack)
{
	stack->view = rig_map(stack->handle, PAGES, 0);
	CHECK_EQ(mkw_advise(stack->view, PAGES * PAGE, MKW_RANDOM), 0);
}

static void stack_open(struct stack *stack, const char *layers, bool file)
{
	const struct mkw_space_options options = {RIG_QUIET};
	char uri[RIG_PATH_MAX + 256];

	stack->path[0] = '\0';
	if (file)
		rig_file_make(stack->path, PAGES * PAGE);
	snprintf(uri, sizeof(uri), file ? "%sfile:%s" : "%smem:64K%s", layers, stack->path);
	REQUIRE_EQ(mkw_space_create(&options, &stack->space), 0);
	if (!CHECK_EQ(mkw_open(stack->space, uri, MKW_RDWR, &stack->handle), 0)) {
		test_note("%s: %s", uri, mkw_error_message());
		test_stop();
	}
	stack_map(stack);
}

static void stack_close(struct stack *stack)
{
	CHECK_EQ(mkw_unmap(stack->view, PAGES * PAGE), 0);
	CHECK_EQ(mkw_close(stack->handle), 0);
	CHECK_EQ(mkw_space_destroy(stack->space, 0), 0);
	if (stack->path[0])
		rig_file_remove(stack->path);
}

static uint64_t stack_dirty_pages(struct stack *stack)
{
	struct mkw_stat stat;

	REQUIRE_EQ(mkw_object_stat(stack->handle, &stat, sizeof(stat)), 0);
	return stat.dirty_bytes / PAGE;
}

/* The file beneath has the bytes of the view. */
static void stack_check_file(struct stack *stack)
{
	static unsigned char bytes[PAGES * MKW_PAGE_SIZE];
	int fd = open(stack->path, O_RDONLY | O_CLOEXEC);

	REQUIRE(fd >= 0);
	CHECK_EQ(read(fd, bytes, sizeof(bytes)), sizeof(bytes));
	CHECK_MEM(stack->view, bytes, sizeof(bytes));
	close(fd);
}

/* Write everywhere, sync, drop the cache, and look whether it comes back. */
static void check_works(struct stack *stack)
{
	for (uint64_t page = 0; page < PAGES; page++)
		*rig_word(stack->view, page) = page + 100;
	CHECK_EQ(mkw_sync(stack->handle, 0, 0), 0);
	CHECK_EQ(stack_dirty_pages(stack), 0);
	CHECK_EQ(mkw_invalidate(stack->handle, 0, PAGES * PAGE), 0);
	for (uint64_t page = 0; page < PAGES; page++)
		CHECK_EQ(*rig_word(stack->view, page), page + 100);
	if (stack->path[0])
		stack_check_file(stack);
}

static void check_fault_fails(bool file)
{
	struct mkw_refusal refusal;
	unsigned char byte;
	struct stack stack;

	stack_open(&stack, "error?op=fault&errno=EIO&range=5&count=2:", file);
	CHECK_EQ(try_read(stack.view, &byte, NULL), 0);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(try_read(stack.view + 5 * PAGE + 3, &byte, &refusal), -EIO);
		CHECK(refusal.address == stack.view + 5 * PAGE + 3);
		CHECK(refusal.message[0] != '\0');
	}
	CHECK_EQ(try_read(stack.view + 5 * PAGE + 3, &byte, NULL), 0);
	CHECK_EQ(byte, file ? script_pattern(5 * PAGE + 3, 0) : 0);
	check_works(&stack);
	stack_close(&stack);
}

TEST(error_fault_mem, "3.3 error: over mem: a fill that fails twice")
{
	check_fault_fails(false);
}

TEST(error_fault_file, "3.3 error: over file: a fill that fails twice")
{
	check_fault_fails(true);
}

static void check_mkwrite_fails(bool file)
{
	struct stack stack;

	stack_open(&stack, "error?op=page_mkwrite&errno=EDQUOT&count=0:", file);
	CHECK_EQ(try_write(stack.view + 3 * PAGE, 1, NULL), -EDQUOT);
	CHECK_EQ(mkw_pwrite(stack.handle, "x", 1, 3 * PAGE), -EDQUOT);
	CHECK_EQ(stack_dirty_pages(&stack), 0);
	CHECK_EQ(mkw_control(stack.handle, "op=none"), 0);
	CHECK_EQ(try_write(stack.view + 3 * PAGE, 1, NULL), 0);
	check_works(&stack);
	stack_close(&stack);
}

TEST(error_mkwrite_mem, "S1.1 error: over mem: grants that are refused until told otherwise")
{
	check_mkwrite_fails(false);
}

TEST(error_mkwrite_file, "S1.1 error: over file: grants that are refused until told otherwise")
{
	check_mkwrite_fails(true);
}

TEST(error_codes, "3.4 error: answers of page_mkwrite: NOPAGE, RETRY, OOM and 0, once each, are no "
		  "refusal")
{
	static const char *const names[] = {"NOPAGE", "RETRY", "OOM", "0"};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		char layers[64];
		struct stack stack;

		test_note("%s", names[i]);
		snprintf(layers, sizeof(layers), "error?op=page_mkwrite&code=%s:", names[i]);
		stack_open(&stack, layers, true);
		CHECK_EQ(try_write(stack.view + 3 * PAGE, 1, NULL), 0);
		CHECK_EQ(stack_dirty_pages(&stack), 1);
		check_works(&stack);
		stack_close(&stack);
	}
}

TEST(error_writepages,
     "6.5 error: over file: one page that cannot be written: the rest is durable, the "
     "page is listed, and written later")
{
	struct mkw_range range;
	struct stack stack;

	stack_open(&stack, "error?op=writepages&errno=ENOSPC&range=7-7&count=0:", true);
	for (uint64_t page = 1; page < PAGES; page += 3)
		*rig_word(stack.view, page) = page;
	CHECK_EQ(mkw_sync(stack.handle, 0, 0), -ENOSPC);
	REQUIRE_EQ(mkw_dirty_ranges(stack.handle, 0, 0, &range, 1), 1);
	CHECK_EQ(range.offset, 7 * PAGE);
	CHECK_EQ(range.error, -ENOSPC);
	CHECK_EQ(mkw_control(stack.handle, "op=none"), 0);
	CHECK_EQ(mkw_sync(stack.handle, 0, 0), 0);
	stack_check_file(&stack);
	check_works(&stack);
	stack_close(&stack);
}

TEST(error_not_yet, "S2.5 error: EAGAIN from writepages is \"not yet\"")
{
	struct stack stack;

	stack_open(&stack, "error?op=writepages&errno=EAGAIN:", true);
	*rig_word(stack.view, 4) = 4;
	CHECK_EQ(mkw_sync(stack.handle, 0, 0), -EAGAIN);
	CHECK_EQ(stack_dirty_pages(&stack), 1);
	CHECK_EQ(mkw_sync(stack.handle, 0, 0), 0);
	check_works(&stack);
	stack_close(&stack);
}

TEST(error_size_and_sync,
     "5.1 6.5 error: failures of truncate, punch_hole and fsync reach the caller, and "
     "nothing has changed")
{
	struct stack stack;

	stack_open(&stack, "error?op=truncate&errno=EIO:", true);
	*rig_word(stack.view, 9) = 9;
	CHECK_EQ(mkw_truncate(stack.handle, PAGE), -EIO);
	CHECK_EQ(mkw_size(stack.handle), PAGES * PAGE);
	CHECK_EQ(*rig_word(stack.view, 9), 9);
	CHECK_EQ(mkw_control(stack.handle, "op=punch_hole"), 0);
	CHECK_EQ(mkw_punch(stack.handle, 2 * PAGE, 2 * PAGE), -EIO);
	CHECK_EQ(stack.view[3 * PAGE + 1], script_pattern(3 * PAGE + 1, 0));
	CHECK_EQ(mkw_control(stack.handle, "op=fsync"), 0);
	CHECK_EQ(mkw_sync(stack.handle, 0, 0), -EIO);
	CHECK_EQ(mkw_sync(stack.handle, 0, 0), 0);
	CHECK_EQ(mkw_control(stack.handle, "op=attach"), 0);
	check_works(&stack);
	stack_close(&stack);
}

TEST(error_at_open,
     "mkwrite.h, mkw_open: a failing attach fails the opening and leaves nothing behind")
{
	struct mkw_handle *handle = NULL;
	struct mkw_space *space;

	REQUIRE_EQ(mkw_space_create(NULL, &space), 0);
	CHECK_EQ(mkw_open(space, "error?op=attach&errno=EACCES:mem:64K", MKW_RDWR, &handle),
		 -EACCES);
	CHECK(mkw_error_message()[0] != '\0');
	CHECK(!handle);
	CHECK_EQ(mkw_space_destroy(space, 0), 0);
}

/* One call in eight fails, of whatever operation; the writer asks again until it gets through, and
 * in the end all of it is there. */
TEST(error_dice,
     "6.5 S1.1 error: with failures by dice in every operation, whoever asks again gets through "
     "and nothing is lost")
{
	static const char *const ops[] = {"fault", "page_mkwrite", "writepages", "fsync"};
	unsigned rounds = test_rounds(20);

	for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++) {
		char layers[64];
		struct stack stack;
		unsigned char value;

		test_note("%s", ops[i]);
		snprintf(layers, sizeof(layers), "error?op=%s&prob=1/4&seed=3:", ops[i]);
		stack_open(&stack, layers, true);
		for (unsigned round = 1; round <= rounds; round++) {
			for (uint64_t page = 0; page < PAGES; page++)
				while (try_write(stack.view + page * PAGE, (unsigned char)round,
						 NULL) != 0)
					;
			while (mkw_sync(stack.handle, 0, 0) != 0)
				;
			CHECK_EQ(stack_dirty_pages(&stack), 0);
			while (mkw_invalidate(stack.handle, 0, PAGES * PAGE) != 0)
				;
			for (uint64_t page = 0; page < PAGES; page++) {
				while (try_read(stack.view + page * PAGE, &value, NULL) != 0)
					;
				CHECK_EQ(value, round);
			}
		}
		CHECK_EQ(mkw_control(stack.handle, "op=none"), 0);
		stack_check_file(&stack);
		check_works(&stack);
		stack_close(&stack);
	}
}

TEST(delay_changes_nothing,
     "delay: over error: over file: slow, and otherwise as if it were not there")
{
	struct stack stack;

	stack_open(&stack, "delay?us=200:error:", true);
	check_works(&stack);
	CHECK_EQ(mkw_control(stack.handle, "us=0"), 0);
	CHECK_EQ(mkw_truncate(stack.handle, 4 * PAGE), 0);
	CHECK_EQ(mkw_truncate(stack.handle, PAGES * PAGE), 0);
	check_works(&stack);
	stack_close(&stack);
}

/* Everything beneath takes its time: what is slow may not make anything wrong. */
TEST(delay_under_writers, "6.3 delay: over mem: slow write-back under writers who never stop")
{
	struct rig_hammer hammers[3];
	struct stack stack;

	stack_open(&stack, "delay?us=2000&op=writepages:", false);
	for (uint64_t i = 0; i < 3; i++)
		rig_hammer_start(&hammers[i], rig_word(stack.view, 2 * i));
	for (unsigned round = 0; round < test_rounds(20); round++) {
		rig_hammer_beat(&hammers[round % 3]);
		CHECK_EQ(mkw_sync(stack.handle, 0, 0), 0);
	}
	for (int i = 0; i < 3; i++)
		rig_hammer_stop(&hammers[i]);
	CHECK_EQ(mkw_sync(stack.handle, 0, 0), 0);
	CHECK_EQ(mkw_invalidate(stack.handle, 0, PAGES * PAGE), 0);
	for (uint64_t i = 0; i < 3; i++)
		CHECK_EQ(*rig_word(stack.view, 2 * i), atomic_load(&hammers[i].done));
	stack_close(&stack);
}

TEST(layers_share_nothing,
     "mkwrite.h: the same file under different layers is not silently two caches")
{
	struct mkw_handle *other = NULL;
	char uri[RIG_PATH_MAX + 32];
	struct stack stack;
	int result;

	stack_open(&stack, "error?op=none:", true);
	snprintf(uri, sizeof(uri), "file:%s", stack.path);
	*rig_word(stack.view, 0) = 5;
	result = mkw_open(stack.space, uri, MKW_RDWR, &other);
	if (result == 0) {
		uint64_t word = 0;

		CHECK_EQ(mkw_pread(other, &word, sizeof(word), 0), sizeof(word));
		CHECK_EQ(word, 5);
		CHECK_EQ(mkw_close(other), 0);
	} else {
		CHECK_EQ(result, -EBUSY);
	}
	stack_close(&stack);
}
