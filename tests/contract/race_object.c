/* SPDX-License-Identifier: MIT */
/*
 * race_object.c - interleavings of opening, closing and unmapping with the end of an object.
 */
#include "harness/rig.h"

#include <errno.h>
#include <string.h>

struct leaver {
	struct mkw_handle *handle; /* closed; or NULL: */
	unsigned char *view;	   /* unmapped */
	struct test_event *go;
	struct test_thread thread;
};

static void *leaver_run(void *arg)
{
	struct leaver *leaver = arg;

	test_event_wait(leaver->go);
	CHECK_EQ(leaver->handle != NULL ? mkw_close(leaver->handle) : mkw_unmap(leaver->view, PAGE),
		 0);
	return NULL;
}

/* For the sanitizers: whoever goes last ends the object, and nobody else looks at it after. */
TEST(leave_at_once, "the last handles and views of an object may go at the same time")
{
	for (unsigned round = 0; round < test_rounds(50); round++) {
		struct test_event go = TEST_EVENT_INIT;
		struct leaver leaver[4];
		struct mkw_space *space;
		struct mkw_handle *first;

		REQUIRE_EQ(mkw_space_create(NULL, &space), 0);
		REQUIRE_EQ(mkw_open(space, "mem:64K", MKW_RDWR, &first), 0);
		for (size_t i = 0; i < 4; i++) {
			void *view = NULL;
			leaver[i] = (struct leaver){.handle = i == 0 ? first : NULL, .go = &go};
			if (i > 0)
				REQUIRE_EQ(mkw_map(first, PAGE, MKW_WRITE, 0, 0, &view), 0);
			leaver[i].view = view;
		}
		for (size_t i = 0; i < 4; i++)
			test_thread_start(&leaver[i].thread, leaver_run, &leaver[i]);
		test_event_set(&go);
		for (size_t i = 0; i < 4; i++)
			test_thread_join(&leaver[i].thread);
		CHECK_EQ(mkw_space_destroy(space, 0), 0);
	}
}

/* ---- Opening what is being ended ---------------------------------------------------------- */

static struct script_store *stores[3];
static unsigned opened;
static _Atomic uint64_t stored_bytes;

static int twice_open(struct mkw_open_args *args)
{
	args->ops = script_ops(stores[opened]);
	args->store = stores[opened++];
	args->size_bytes = stored_bytes;
	memcpy(args->identity, "twice", 5);
	args->identity_length = 5;
	return 0;
}

static const struct mkw_store_driver twice_driver = {
	.struct_size = sizeof(struct mkw_store_driver),
	.scheme = "twice",
	.summary = "a store for each opening",
	.options = "",
	.open = twice_open,
};

struct opener {
	struct mkw_space *space;
	struct mkw_handle *handle;
	struct test_thread thread;
};

static void *opener_run(void *arg)
{
	struct opener *opener = arg;

	CHECK_EQ(mkw_open(opener->space, "twice:x", MKW_RDWR, &opener->handle), 0);
	return NULL;
}

static void *closer_run(void *arg)
{
	CHECK_EQ(mkw_close(arg), 0);
	return NULL;
}

/* What the storage was like when the opening began is not what the one before leaves. */
TEST(attach_after_release,
     "storage opened while its last handle is being closed is looked at and attached after it was "
     "released")
{
	struct opener opener = {0};
	struct test_thread closer;
	struct mkw_handle *handle;

	stored_bytes = PAGE;
	for (size_t i = 0; i < 3; i++)
		stores[i] = script_create(2 * PAGE);
	REQUIRE_EQ(mkw_store_register(&twice_driver), 0);
	REQUIRE_EQ(mkw_space_create(NULL, &opener.space), 0);
	REQUIRE_EQ(mkw_open(opener.space, "twice:x", MKW_RDWR, &handle), 0);
	test_gate_arm(stores[0], SCRIPT_RELEASE, SCRIPT_ENTRY, SCRIPT_ANY);
	test_thread_start(&closer, closer_run, handle);
	REQUIRE(test_gate_wait_arrived(stores[0], SCRIPT_RELEASE, SCRIPT_ENTRY, 1));
	test_thread_start(&opener.thread, opener_run, &opener);
	CHECK_STUCK(&opener.thread);
	CHECK_EQ(script_calls(stores[1], SCRIPT_ATTACH), 0);
	stored_bytes = 2 * PAGE;
	test_gate_release(stores[0], SCRIPT_RELEASE, SCRIPT_ENTRY);
	test_thread_join(&closer);
	test_thread_join(&opener.thread);
	CHECK_EQ(script_calls(stores[1], SCRIPT_ATTACH), 0);
	CHECK_EQ(script_calls(stores[1], SCRIPT_RELEASE), 1);
	CHECK_EQ(script_calls(stores[2], SCRIPT_ATTACH), 1);
	CHECK_EQ(mkw_size(opener.handle), 2 * PAGE);
	CHECK_EQ(mkw_close(opener.handle), 0);
	CHECK_EQ(mkw_space_destroy(opener.space, 0), 0);
	for (size_t i = 0; i < 3; i++)
		CHECK(script_destroy(stores[i]));
}
