/* SPDX-License-Identifier: MIT */
/*
 * mount.h - file systems for a test, each in a mount namespace of its own: an image on a tmpfs,
 * gone with the test's process however that ends.
 */
#ifndef STORE_MOUNT_H
#define STORE_MOUNT_H

#include "harness/test.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

__attribute__((unused, format(printf, 1, 2))) static bool run_command(const char *format, ...)
{
	char command[512];
	va_list list;

	va_start(list, format);
	vsnprintf(command, sizeof(command), format, list);
	va_end(list);
	strcat(command, " >/dev/null 2>&1");
	return system(command) == 0;
}

__attribute__((unused)) static void namespace_make(void)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", "/mnt", "tmpfs", 0, "size=2g"))
		SKIP("mounting is not permitted here: %s", strerror(errno));
	REQUIRE_EQ(mkdir("/mnt/fs", 0755), 0);
}

/* A file system of the type, current directory; skips where it cannot be had. */
__attribute__((unused)) static void fs_make(const char *type, const char *mkfs, const char *size)
{
	namespace_make();
	if (!strcmp(type, "tmpfs")) {
		char options[32];

		snprintf(options, sizeof(options), "size=%s", size);
		REQUIRE_EQ(mount("tmpfs", "/mnt/fs", "tmpfs", 0, options), 0);
	} else {
		REQUIRE(run_command("truncate -s %s /mnt/image", size));
		if (!run_command("%s /mnt/image", mkfs))
			SKIP("%s: not here", mkfs);
		if (!run_command("mount -t %s -o loop /mnt/image /mnt/fs", type))
			SKIP("%s cannot be mounted on a loop device here", type);
	}
	REQUIRE_EQ(chdir("/mnt/fs"), 0);
}

static const struct {
	const char *type, *mkfs, *size;
} kinds[] = {
	{"ext4", "mkfs.ext4 -q -b 4096", "64M"},
	{"xfs", "mkfs.xfs -q", "320M"},
	{"tmpfs", "", "64M"},
	{"btrfs", "mkfs.btrfs -q", "128M"},
};
enum { EXT4, XFS, TMPFS, BTRFS };

__attribute__((unused)) static void kind_make(int kind)
{
	fs_make(kinds[kind].type, kinds[kind].mkfs, kinds[kind].size);
}

#endif
