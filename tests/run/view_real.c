/* SPDX-License-Identifier: MIT */
/* view_real.c - see view.h. A page that was granted is made a clean one by mapping the file anew.
 */
#include "view.h"

#include <harness/test.h>

#include <stdlib.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u

static char *memory;
static int fd;

char *view_begin(void)
{
	char path[] = "/var/tmp/mkwrite-calls-XXXXXX";

	if (!getenv("MKWRITE_RUN"))
		SKIP("runs under mkwrite run only");
	test_allow_leaks(); /* the file, and what `mkwrite run` has */
	memory = mmap(NULL, (VIEW_PAGES + 2 * VIEW_MARGIN) * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(memory != MAP_FAILED);
	memory += VIEW_MARGIN * PAGE;
	fd = mkstemp(path);
	REQUIRE(fd >= 0);
	unlink(path);
	REQUIRE_EQ(ftruncate(fd, VIEW_PAGES * PAGE), 0);
	view_arm();
	return memory;
}

void view_arm(void)
{
	REQUIRE(mmap(memory, VIEW_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		     0) == memory);
}

bool view_is_real(void)
{
	return true;
}

int view_file(void)
{
	return fd;
}

void view_limit(size_t pages)
{
	(void)pages;
}

void view_blind(bool blind)
{
	(void)blind;
}

unsigned view_faults(void)
{
	return 0;
}

unsigned view_lets(void)
{
	return 0;
}

unsigned view_lets_ever(void)
{
	return 0;
}

unsigned view_opened(void)
{
	return 0;
}
