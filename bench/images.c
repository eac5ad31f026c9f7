/* SPDX-License-Identifier: MIT */
/*
 * images.c - ext4 and xfs file systems of the benchmark's own, on loop devices.
 *
 * Nothing has to be cleaned up, on any way out, SIGKILL included: the image file is unlinked as
 * soon as it is open, the loop device has LO_FLAGS_AUTOCLEAR, and the file system is mounted
 * nowhere: fsmount(2) gives a descriptor, and with its last user the mount, the device and the
 * blocks go. Files on it have the path /proc/self/fd/MOUNT/NAME.
 *
 * The images lie on tmpfs if it has the room. A device as fast as memory hides no cost of the
 * paths that are compared; a disk would.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

/* Sparse: what counts is what is written. mkfs.xfs wants 300 MiB at least. */
#define IMAGE_SIZE_BYTES (4096 * MIB)

static const char *const fs_names[BENCH_FS_COUNT] = {"ext4", "xfs"};

/* Four laid-down objects on each image, and as much again for journals and luck. */
static uint64_t room_needed(const struct bench *bench)
{
	return 16 * (uint64_t)bench->size + 256 * MIB;
}

static void directory_choose(struct bench *bench)
{
	const char *chosen = bench->options.directory;
	struct statvfs st;

	if (!chosen) {
		chosen = getenv("TMPDIR");
		if (!statvfs("/dev/shm", &st) &&
		    (uint64_t)st.f_bavail * st.f_bsize >= room_needed(bench))
			chosen = "/dev/shm";
		else if (!chosen || !chosen[0])
			chosen = "/var/tmp";
	}
	snprintf(bench->directory, sizeof(bench->directory), "%s", chosen);
}

static int image_file(struct bench *bench, struct bench_image *image)
{
	char path[160];
	int fd;

	if (!bench->directory[0])
		directory_choose(bench);
	snprintf(path, sizeof(path), "%s/mkwrite-bench-XXXXXX", bench->directory);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0) {
		image->error = -errno;
		snprintf(image->reason, sizeof(image->reason), "cannot make a file in %s: %s",
			 bench->directory, strerror(errno));
		return image->error;
	}
	unlink(path);
	if (ftruncate(fd, IMAGE_SIZE_BYTES)) {
		image->error = -errno;
		snprintf(image->reason, sizeof(image->reason), "image of 4 GiB in %s: %s",
			 bench->directory, strerror(errno));
		close(fd);
		return image->error;
	}
	return fd;
}

/* Another process may take the free device between the two calls: then there is another one. */
static int loop_attach(struct bench_image *image, int file, char *device, size_t device_size)
{
	struct loop_config config = {.fd = (uint32_t)file, .info.lo_flags = LO_FLAGS_AUTOCLEAR};
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int error = control < 0 ? -errno : -EBUSY;

	for (int tries = 0; control >= 0 && tries < 16; tries++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);
		int fd;

		if (number < 0) {
			error = -errno;
			break;
		}
		snprintf(device, device_size, "/dev/loop%d", number);
		fd = open(device, O_RDWR | O_CLOEXEC);
		if (fd >= 0 && !ioctl(fd, LOOP_CONFIGURE, &config)) {
			close(control);
			return fd;
		}
		error = -errno;
		if (fd >= 0)
			close(fd);
		if (error != -EBUSY)
			break;
	}
	if (control >= 0)
		close(control);
	image->error = error;
	snprintf(image->reason, sizeof(image->reason), "no loop device: %s (root is needed)",
		 strerror(-error));
	return error;
}

static int make_fs(struct bench_image *image, enum bench_fs fs, const char *device)
{
	char *ext4[] = {"mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", (char *)device, NULL};
	char *xfs[] = {"mkfs.xfs", "-q", "-f", (char *)device, NULL};
	char **argv = fs == BENCH_EXT4 ? ext4 : xfs;
	pid_t child = fork();
	int status = -1;

	if (child == 0) {
		/* An ordinary user's PATH has no sbin. */
		setenv("PATH", "/usr/sbin:/sbin:/usr/bin:/bin", 1);
		execvp(argv[0], argv);
		_exit(127);
	}
	if (child > 0)
		waitpid(child, &status, 0);
	if (child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	image->error = -ENOENT;
	snprintf(image->reason, sizeof(image->reason),
		 child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 127
			 ? "%s is not installed"
			 : "%s failed",
		 argv[0]);
	return image->error;
}

static int mount_device(struct bench_image *image, enum bench_fs fs, const char *device)
{
	int context = fsopen(fs_names[fs], FSOPEN_CLOEXEC);
	int mount = -1;

	if (context >= 0 && !fsconfig(context, FSCONFIG_SET_STRING, "source", device, 0) &&
	    !fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		mount = fsmount(context, FSMOUNT_CLOEXEC, 0);
	if (mount < 0) {
		image->error = -errno;
		snprintf(image->reason, sizeof(image->reason), "cannot mount %s: %s", fs_names[fs],
			 strerror(errno));
	}
	if (context >= 0)
		close(context);
	return mount < 0 ? image->error : mount;
}

static int image_make(struct bench *bench, enum bench_fs fs, struct bench_image *image)
{
	char device[32];
	int file = image_file(bench, image);
	int loop, rc;

	if (file < 0)
		return file;
	loop = loop_attach(image, file, device, sizeof(device));
	close(file);
	if (loop < 0)
		return loop;
	rc = make_fs(image, fs, device);
	if (!rc)
		rc = mount_device(image, fs, device);
	if (rc < 0) {
		close(loop);
		return rc;
	}
	image->loop_fd = loop;
	image->mount_fd = rc;
	return 0;
}

int bench_image_open(struct bench *bench, enum bench_fs fs, int *mount_fd)
{
	struct bench_image *image = &bench->images[fs];

	if (!image->tried) {
		image->tried = true;
		image->mount_fd = image->loop_fd = -1;
		image->error = 0;
		image_make(bench, fs, image);
	}
	if (image->error)
		return bench_say(bench, image->error, "%s", image->reason);
	*mount_fd = image->mount_fd;
	return 0;
}

void bench_images_close(struct bench *bench)
{
	for (size_t i = 0; i < BENCH_FS_COUNT; i++) {
		struct bench_image *image = &bench->images[i];

		if (!image->tried || image->error)
			continue;
		close(image->mount_fd);
		close(image->loop_fd);
		image->tried = false;
	}
}

int bench_file_create(struct bench *bench, enum bench_fs fs, const char *name, size_t size,
		      size_t write_size, int *fd)
{
	unsigned char *buffer;
	int mount_fd = -1, file, rc;

	rc = bench_image_open(bench, fs, &mount_fd);
	if (rc)
		return rc;
	buffer = malloc(write_size);
	file = openat(mount_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (!buffer || file < 0) {
		rc = bench_say(bench, file < 0 ? -errno : -ENOMEM, "cannot make %s on %s", name,
			       fs_names[fs]);
		goto out;
	}
	memset(buffer, 0x5a, write_size);
	for (size_t done = 0; done < size; done += write_size) {
		if (pwrite(file, buffer, write_size, (off_t)done) != (ssize_t)write_size) {
			rc = bench_say(bench, -ENOSPC, "cannot fill %s on %s: %s", name,
				       fs_names[fs], strerror(errno));
			goto out;
		}
	}
	if (fsync(file))
		rc = bench_say(bench, -errno, "fsync of %s on %s failed", name, fs_names[fs]);
out:
	free(buffer);
	if (rc && file >= 0)
		close(file);
	if (!rc)
		*fd = file;
	return rc;
}
