/* SPDX-License-Identifier: MIT */
/*
 * lease.c - one process at a time has a file open for writing, or several for reading. The lease is
 * an advisory lock of the open file description: it ends with the descriptor, however that ends,
 * and closing some other descriptor of the file does not lose it.
 */
#include "store/file/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Does the descriptor hold a lock of the kind that we take? */
static bool descriptor_locks(const char *pid, const char *fd)
{
	char path[300], line[256];
	bool found = false;

	snprintf(path, sizeof(path), "/proc/%.20s/fdinfo/%.20s", pid, fd);
	FILE *info = fopen(path, "re");

	while (info && !found && fgets(line, sizeof(line), info))
		found = !strncmp(line, "lock:", 5);
	if (info)
		fclose(info);
	return found;
}

static bool process_holds(const char *pid, const struct stat *wanted)
{
	char path[300];
	struct dirent *entry;
	bool found = false;

	snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
	DIR *dir = opendir(path);

	while (dir && !found && (entry = readdir(dir))) {
		struct stat st;

		if (fstatat(dirfd(dir), entry->d_name, &st, 0) || st.st_dev != wanted->st_dev ||
		    st.st_ino != wanted->st_ino)
			continue;
		found = descriptor_locks(pid, entry->d_name);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* The process that holds the lease, as far as we may look; 0: not found. The kernel does not tell:
 * such a lock belongs to no process. */
static pid_t lease_holder(const struct file *file)
{
	struct stat wanted;
	struct dirent *entry;
	pid_t holder = 0;
	DIR *dir = fstat(file->fd, &wanted) ? NULL : opendir("/proc");

	while (dir && !holder && (entry = readdir(dir)))
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
		    process_holds(entry->d_name, &wanted))
			holder = (pid_t)atoi(entry->d_name);
	if (dir)
		closedir(dir);
	return holder;
}

static int lease_refused(const struct file *file, pid_t pid)
{
	char who[64] = "another process";

	if (pid <= 0)
		pid = lease_holder(file);
	if (pid == getpid())
		snprintf(who, sizeof(who), "this process, by another opening,");
	else if (pid > 0)
		snprintf(who, sizeof(who), "process %d", pid);
	return mkw_set_error(-EBUSY, "%s: %s has it open%s", file->name, who,
			     file->writable ? "" : " for writing");
}

int lease_take(struct file *file)
{
	struct flock lock = {.l_type = file->writable ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};

	if (!fcntl(file->fd, F_OFD_SETLK, &lock))
		return 0;
	if (errno != EAGAIN && errno != EACCES)
		return mkw_set_error(-errno, "%s: cannot be locked: %s", file->name,
				     strerrordesc_np(errno));
	/* A lock of the older kind has a process. */
	pid_t pid = fcntl(file->fd, F_OFD_GETLK, &lock) ? 0 : lock.l_pid;

	return lease_refused(file, pid);
}
