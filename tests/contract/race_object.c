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
