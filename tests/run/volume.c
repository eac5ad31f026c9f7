/* SPDX-License-Identifier: MIT */
/* volume.c - file systems of their own for a test (volume.h). */
#include "run/volume.h"

#include "harness/test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define IMAGE  "/tmp/image"
#define BELOW  "/tmp/below"
#define FILLER VOLUME_AT "/filler"

static const struct {
	const char *type, *make;
} kinds[] = {
	[VOLUME_EXT4] = {"ext4", "mkfs.ext4 -q -b 4096 -m 0"},
	[VOLUME_XFS] = {"xfs", "mkfs.xfs -q"},
	[VOLUME_BTRFS] = {"btrfs", "mkfs.btrfs -q"},
	[VOLUME_EXT2] = {"ext2", "mkfs.ext2 -q -b 4096 -m 0"},
};

static int run_command(const char *format, va_list list)
{
	char command[400], whole[500];

	vsnprintf(command, sizeof(command), format, list);
	snprintf(whole, sizeof(whole), "PATH=$PATH:/usr/sbin:/sbin; { %s; } >/dev/null 2>&1",
		 command);
	return system(whole);
}

static int try_command(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	int status = run_command(format, list);

	va_end(list);
	return status;
}

void volume_command(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	int status = run_command(format, list);

	va_end(list);
	if (status)
		test_note("%s: %d", format, status);
	REQUIRE_EQ(status, 0);
}

static void mount_tmpfs(const char *at, uint64_t size_bytes)
{
	char options[40];

	snprintf(options, sizeof(options), "size=%llu", (unsigned long long)size_bytes);
	REQUIRE_EQ(mount("tmpfs", at, "tmpfs", 0, options), 0);
}

static bool fuse_is_there(void)
{
	struct statfs fs;

	return statfs(VOLUME_AT, &fs) == 0 && fs.f_type == FUSE_SUPER_MAGIC;
}

static void mount_fuse(uint64_t size_bytes)
{
	if (try_command("command -v bindfs") || access("/dev/fuse", R_OK | W_OK))
		SKIP("bindfs or /dev/fuse is not here");
	REQUIRE_EQ(mkdir(BELOW, 0755), 0);
	mount_tmpfs(BELOW, size_bytes);
	/* In the foreground it stays in the test's group of processes, and ends with it. */
	volume_command("(bindfs -f " BELOW " " VOLUME_AT " </dev/null &)");
	test_wait_until(fuse_is_there());
}

void volume_mount(enum volume_kind kind, uint64_t size_bytes)
{
	const char *type;

	if (geteuid())
		SKIP("only root may mount");
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", "/tmp", "tmpfs", 0, NULL))
		SKIP("no mount namespace: %s", strerror(errno));
	REQUIRE_EQ(mkdir(VOLUME_AT, 0755), 0);
	if (kind == VOLUME_TMPFS)
		mount_tmpfs(VOLUME_AT, size_bytes);
	if (kind == VOLUME_FUSE)
		mount_fuse(size_bytes);
	if (kind == VOLUME_TMPFS || kind == VOLUME_FUSE)
		return;
	type = kinds[kind].type;
	if (try_command("command -v %s", strtok(strdupa(kinds[kind].make), " ")))
		SKIP("%s is not here", kinds[kind].make);
	if (try_command("grep -qw %s /proc/filesystems", type))
		SKIP("this kernel has no %s", type);
	volume_command("truncate -s %llu " IMAGE, (unsigned long long)size_bytes);
	volume_command("%s " IMAGE, kinds[kind].make);
	if (try_command("mount -t %s -o loop " IMAGE " " VOLUME_AT, type))
		SKIP("%s on a loop device cannot be mounted", type);
}

void volume_overlay(void)
{
	volume_command("cd " VOLUME_AT " && mkdir lower upper work");
	if (mount("overlay", VOLUME_AT, "overlay", 0,
		  "lowerdir=" VOLUME_AT "/lower,upperdir=" VOLUME_AT "/upper,workdir=" VOLUME_AT
		  "/work"))
		SKIP("no overlayfs: %s", strerror(errno));
}

/* Does the file take so many further bytes? By writing, for not all file systems can reserve. */
static bool filler_takes(int fd, off_t at, size_t length)
{
	static char zeros[1 << 20];

	for (size_t done = 0; done < length;) {
		size_t part = length - done < sizeof(zeros) ? length - done : sizeof(zeros);
		ssize_t n = pwrite(fd, zeros, part, at + (off_t)done);

		if (n <= 0) {
			if (ftruncate(fd, at))
				test_note("ftruncate: %s", strerror(errno));
			return false;
		}
		done += (size_t)n;
	}
	return true;
}

/* How far the file could be made to grow. */
static off_t filler_grow(void)
{
	int fd = open(FILLER, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	off_t at = lseek(fd, 0, SEEK_END);

	REQUIRE(fd >= 0);
	for (size_t piece = 64u << 20; piece >= 4096;)
		if (filler_takes(fd, at, piece))
			at += (off_t)piece;
		else
			piece /= 2;
	REQUIRE_EQ(fsync(fd), 0);
	close(fd);
	return at;
}

void volume_fill(uint64_t leave_bytes)
{
	off_t before, size = 0;

	/* What the file system had taken ahead for the file is free when it is closed. */
	do {
		before = size;
		size = filler_grow();
	} while (size > before);
	if (leave_bytes)
		REQUIRE_EQ(
			truncate(FILLER, size > (off_t)leave_bytes ? size - (off_t)leave_bytes : 0),
			0);
	sync();
}

void volume_drain(void)
{
	REQUIRE_EQ(unlink(FILLER), 0);
	sync();
}
