/* SPDX-License-Identifier: MIT */
/*
 * swap.c - 2.8, S0.6, S3.2, S3.4: private copies past the resident limit go to the swap file and
 * come back whole.
 */
#include "harness/rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- The option --------------------------------------------------------------------------- */

static char directory[] = "/tmp/mkwrite-swap-XXXXXX";

static int space_try(const char *path, uint64_t limit_bytes)
{
	struct mkw_space_options options = {
		RIG_QUIET,
		.swap_path = path,
		.swap_limit_bytes = limit_bytes,
	};
	struct mkw_space *space;
	int error = mkw_space_create(&options, &space);

	if (error == 0)
		CHECK_EQ(mkw_space_destroy(space, 0), 0);
	return error;
}

TEST(swap_option,
     "2.8 a swap file in a directory, or under a name of its own, leaves nothing behind")
{
	char path[64];
	struct stat st;

	REQUIRE(mkdtemp(directory) != NULL);
	snprintf(path, sizeof(path), "%s/swap", directory);
	CHECK_EQ(space_try(directory, 0), 0);
	CHECK_EQ(space_try(directory, 2 * PAGE), 0);
	CHECK_EQ(space_try(path, 0), 0);
	CHECK(stat(path, &st) != 0);
	CHECK_EQ(rmdir(directory), 0);
}

TEST(swap_option_refused, "2.8 a swap file is made over no other file; what cannot be is said")
{
	char path[64], bytes[5] = "";
	int fd;

	REQUIRE(mkdtemp(directory) != NULL);
	snprintf(path, sizeof(path), "%s/mine", directory);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	REQUIRE(fd >= 0 && write(fd, "mine", 4) == 4);
	CHECK_EQ(space_try(path, 0), -EEXIST);
	CHECK(strstr(mkw_error_message(), path) != NULL);
	CHECK_EQ(pread(fd, bytes, 4, 0), 4);
	CHECK_STR(bytes, "mine");
	close(fd);
	CHECK_EQ(unlink(path), 0);
	CHECK_EQ(symlink("nowhere", path), 0);
	CHECK_EQ(space_try(path, 0), -EEXIST);
	CHECK_EQ(unlink(path), 0);
	CHECK_EQ(rmdir(directory), 0);
	CHECK_EQ(space_try(path, 0), -ENOENT);
	CHECK(strstr(mkw_error_message(), "swap_path") != NULL);
	CHECK_EQ(space_try("", 0), -ENOENT);
	CHECK(space_try("/proc", 0) < 0);
	CHECK_EQ(space_try(NULL, PAGE), -EINVAL);
	CHECK_EQ(space_try("/tmp", 2 * PAGE - 1), -EINVAL);
}
