/* SPDX-License-Identifier: MIT */
/*
 * file.c - a store over an ordinary file or a block device: mkwrite-file(7). This part opens it,
 * changes its size, makes it durable; extent.c, io.c and lease.c do the rest (file.h).
 */
#include "store/file/file.h"
#include "store/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define EXTENT_DEFAULT_BYTES ((uint64_t)1 << 20)

/* ---- Reservations ------------------------------------------------------------------------- */

/* Idempotent: what has blocks stays as it is (contract 2.5). Where only a part of the run can be
 * had it is cut to that part, and nothing is to be undone (3.3). The library locks the pages (3.4:
 * 0), and calls unreserve for a grant that came to nothing. */
static mkw_fault_t file_page_mkwrite(void *store, struct mkw_object *object, struct mkw_run *run)
{
	struct file *file = store;
	uint64_t first = run->page;
	int error;
	uint64_t end =
		extents_grant(file, object, run->page, run->first + run->count, true, &error);

	if (end == run->page)
		return mkw_fault_from_errno(error);
	while (first > run->first &&
	       extents_grant(file, object, first - 1, first, true, &error) == first)
		first--;
	mkw_run_cut(run, first, (size_t)(end - first));
	return 0;
}

static void file_unreserve(void *store, struct mkw_object *object, uint64_t first, uint64_t count)
{
	extents_unreserve(store, object, first, first + count);
}

/* ---- Size --------------------------------------------------------------------------------- */

static int file_truncate(void *store, struct mkw_object *object, uint64_t size_bytes)
{
	struct file *file = store;
	struct stat st;
	uint64_t before;
	int error = 0, result;

	if (size_bytes > INT64_MAX)
		return mkw_set_error(-EFBIG, "%s: the largest size is %lld bytes", file->name,
				     (long long)INT64_MAX);
	store_lock(&file->alloc_lock);
	before = atomic_load(&file->size_bytes);
	if (size_bytes < before)
		atomic_store(&file->size_bytes, size_bytes);
	result = fstat(file->fd, &st);
	if (!result)
		do
			result = ftruncate(file->fd, (off_t)size_bytes);
		while (result && errno == EINTR);
	atomic_store(&file->size_bytes, result ? before : size_bytes);
	if (result) {
		error = mkw_set_error(-errno, "%s: the size cannot be changed to %llu: %s",
				      file->name, (unsigned long long)size_bytes,
				      strerrordesc_np(errno));
	} else {
		atomic_store(&file->resized, true);
		/* The last page's blocks ended with the file; what comes behind is a hole. */
		extents_doubt(file, (uint64_t)st.st_size / MKW_PAGE_SIZE);
		extents_forget(file, object, (size_bytes + MKW_PAGE_SIZE - 1) / MKW_PAGE_SIZE,
			       UINT64_MAX);
	}
	store_unlock(&file->alloc_lock);
	return error;
}

static int file_punch_hole(void *store, struct mkw_object *object, uint64_t offset, uint64_t length)
{
	struct file *file = store;
	int error = 0, result;

	store_lock(&file->alloc_lock);
	do
		result = fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   (off_t)offset, (off_t)length);
	while (result && errno == EINTR);
	if (!result)
		extents_forget(file, object, offset / MKW_PAGE_SIZE,
			       (offset + length) / MKW_PAGE_SIZE);
	else if (errno == EOPNOTSUPP || errno == ENOSYS)
		error = -EOPNOTSUPP;
	else
		error = mkw_set_error(-errno, "%s: no hole can be made at %llu: %s", file->name,
				      (unsigned long long)offset, strerrordesc_np(errno));
	store_unlock(&file->alloc_lock);
	atomic_store(&file->resized, true);
	if (error != -EOPNOTSUPP)
		return error;
	uint64_t size = mkw_object_size(object);

	if (offset >= size)
		return 0;
	if (length > size - offset)
		length = size - offset;
	error = file_zero(file, offset, length);
	/* They have their blocks now, promised or not. */
	if (!error)
		extents_written(file, offset / MKW_PAGE_SIZE,
				(offset + length + MKW_PAGE_SIZE - 1) / MKW_PAGE_SIZE);
	return error;
}

/* ---- Durability --------------------------------------------------------------------------- */

/* The name leads elsewhere: what is written here nobody will find. Told once. */
static void replacement_look(struct file *file, struct mkw_object *object)
{
	struct stat here, there;

	if (file->device || !file->was_linked || atomic_load(&file->replaced))
		return;
	bool gone = fstat(file->fd, &here) || !here.st_nlink;
	bool found = !stat(file->path, &there);

	if (!gone && found && there.st_dev == here.st_dev && there.st_ino == here.st_ino)
		return;
	if (!gone && !found && errno != ENOENT && errno != ENOTDIR)
		return; /* not to be known */
	if (atomic_exchange(&file->replaced, true))
		return;
	mkw_object_error(object,
			 mkw_set_error(-ESTALE,
				       "%s: the file was %s under us; what is written goes to the "
				       "old one",
				       file->name,
				       found  ? "replaced"
				       : gone ? "deleted"
					      : "moved"));
}

/* The file is shorter than we made it. A look without the lock may have met us cutting it and
 * growing it again. */
static int check_length(struct file *file)
{
	uint64_t expected;
	struct stat st;
	int result;

	store_lock(&file->alloc_lock);
	expected = atomic_load(&file->size_bytes);
	result = fstat(file->fd, &st);
	store_unlock(&file->alloc_lock);
	if (result)
		return mkw_set_error(-errno, "%s: cannot be examined", file->name);
	if ((uint64_t)st.st_size >= expected)
		return 0;
	return mkw_set_error(-EIO, "%s: the file shrank under us: %llu bytes long, %llu expected",
			     file->name, (unsigned long long)st.st_size,
			     (unsigned long long)expected);
}

static int file_fsync(void *store, struct mkw_object *object, uint64_t offset, uint64_t length)
{
	struct file *file = store;
	struct stat st;
	bool all = atomic_exchange(&file->resized, false);
	int result, earlier = atomic_exchange(&file->write_error, 0);

	(void)offset;
	(void)length;
	replacement_look(file, object);
	do
		result = all ? fsync(file->fd) : fdatasync(file->fd);
	while (result && errno == EINTR);
	if (!result)
		result = fstat(file->fd, &st);
	if (!result && earlier) {
		errno = -earlier;
		result = -1;
	}
	if (result) {
		if (all)
			atomic_store(&file->resized, true);
		return mkw_set_error(-errno, "%s: cannot be made durable: %s", file->name,
				     strerrordesc_np(errno));
	}
	/* Not the object's size: it is told after the file was cut. */
	if (!file->device && (uint64_t)st.st_size < atomic_load(&file->size_bytes))
		return check_length(file);
	return 0;
}

/* ---- Control ------------------------------------------------------------------------------ */

static int file_control(void *store, struct mkw_object *object, const char *key, const char *value)
{
	struct file *file = store;
	uint64_t bytes;

	if (strcmp(key, "quota"))
		return mkw_set_error(-EINVAL, "file: %.40s cannot be changed; quota can", key);
	int error = mkw_parse_size(key, value, &bytes);

	if (error)
		return error;
	store_lock(&file->alloc_lock);
	int64_t used = extents_used_bytes(file);

	if (used < 0)
		error = (int)used;
	else if ((uint64_t)used > bytes)
		error = mkw_set_error(-EBUSY, "file: quota=%llu is less than the %lld bytes in use",
				      (unsigned long long)bytes, (long long)used);
	else
		atomic_store(&file->quota_bytes, bytes);
	store_unlock(&file->alloc_lock);
	if (!error)
		mkw_object_wake(object);
	return error;
}

static int file_capacity(void *store, uint64_t *free_bytes, uint64_t *total_bytes)
{
	struct file *file = store;
	struct statvfs fs;
	uint64_t quota = atomic_load(&file->quota_bytes);

	if (fstatvfs(file->fd, &fs))
		return mkw_set_error(-errno, "%s: free space cannot be read", file->name);
	uint64_t promised = atomic_load(&file->promised_pages) * MKW_PAGE_SIZE;

	*total_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
	*free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	*free_bytes -= promised < *free_bytes ? promised : *free_bytes;
	if (quota == UINT64_MAX)
		return 0;
	int64_t used = extents_used_bytes(file);

	if (used < 0)
		return (int)used;
	uint64_t left = (uint64_t)used < quota ? quota - (uint64_t)used : 0;

	if (left < *free_bytes)
		*free_bytes = left;
	if (quota < *total_bytes)
		*total_bytes = quota;
	return 0;
}

/* ---- Opening and closing ------------------------------------------------------------------ */

/* A device in use by a file system, or by anybody who says so, is not written to. */
static int device_claim(struct file *file)
{
	char path[64];

	if (!file->device || !file->writable)
		return 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
	file->claim_fd = open(path, O_RDWR | O_EXCL | O_CLOEXEC);
	if (file->claim_fd < 0)
		return mkw_set_error(-errno, "%s: the device cannot be had alone: %s", file->name,
				     strerrordesc_np(errno));
	return 0;
}

/* Here and not in opening: an opening that finds the file open in this process comes without. */
static int file_attach(void *store, struct mkw_object *object)
{
	struct file *file = store;
	struct stat st;
	int error = lease_take(file);

	(void)object;
	if (!error)
		error = device_claim(file);
	if (error || file->device)
		return error;
	atomic_store(&file->size_bytes, file->truncate ? 0 : file->opened_size_bytes);
	if (file->truncate) {
		atomic_store(&file->resized, true);
		if (!ftruncate(file->fd, 0))
			return 0;
		return mkw_set_error(-errno, "%s: cannot be emptied: %s", file->name,
				     strerrordesc_np(errno));
	}
	if (fstat(file->fd, &st))
		return mkw_set_error(-errno, "%s: cannot be examined", file->name);
	if ((uint64_t)st.st_size != file->opened_size_bytes)
		return mkw_set_error(-EBUSY, "%s: changed its size while it was being opened",
				     file->name);
	return 0;
}

static void file_free(struct file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	if (file->direct_fd >= 0)
		close(file->direct_fd);
	if (file->claim_fd >= 0)
		close(file->claim_fd);
	store_lock_destroy(&file->alloc_lock);
	chunkmap_destroy(&file->chunks);
	free(file->path);
	free(file);
}

static void file_release(void *store)
{
	extents_give_back(store);
	file_free(store);
}

static const struct mkw_lock_class alloc_class = {.name = "file alloc", .rank = ALLOC_RANK};

static struct file *file_alloc(void)
{
	struct file *file = calloc(1, sizeof(*file));

	if (!file || chunkmap_init(&file->chunks)) {
		free(file);
		mkw_set_error(-ENOMEM, "file: no memory for a store");
		return NULL;
	}
	store_lock_init(&file->alloc_lock, &alloc_class);
	file->fd = file->direct_fd = file->claim_fd = -1;
	atomic_store(&file->quota_bytes, UINT64_MAX);
	file->extent_pages = (unsigned)(EXTENT_DEFAULT_BYTES / MKW_PAGE_SIZE);
	return file;
}

static int extent_parse(struct file *file, const char *value)
{
	uint64_t bytes;
	int error = mkw_parse_size("extent", value, &bytes);

	if (error)
		return error;
	if (bytes < MKW_PAGE_SIZE || bytes > CHUNK_BYTES || bytes & (bytes - 1))
		return mkw_set_error(-EINVAL,
				     "extent=%.40s: write a power of two from %u bytes to %llu",
				     value, MKW_PAGE_SIZE, (unsigned long long)CHUNK_BYTES);
	file->extent_pages = (unsigned)(bytes / MKW_PAGE_SIZE);
	return 0;
}

static int options_parse(struct file *file, const struct mkw_open_args *args, bool *direct)
{
	int error = 0;

	for (size_t i = 0; i < args->option_count && !error; i++) {
		const struct mkw_option *option = &args->options[i];
		uint64_t quota;

		if (!strcmp(option->key, "direct")) {
			error = mkw_parse_bool("direct", option->value, direct);
		} else if (!strcmp(option->key, "quota")) {
			error = mkw_parse_size("quota", option->value, &quota);
			if (!error)
				atomic_store(&file->quota_bytes, quota);
		} else {
			error = extent_parse(file, option->value);
		}
	}
	return error;
}

static int type_check(struct file *file, const struct stat *st)
{
	const char *what = NULL;

	if (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode)) {
		file->device = S_ISBLK(st->st_mode);
		return 0;
	}
	if (S_ISDIR(st->st_mode))
		return mkw_set_error(-EISDIR, "%s: is a directory", file->name);
	if (S_ISFIFO(st->st_mode))
		what = "a pipe";
	else if (S_ISCHR(st->st_mode))
		what = "a character device";
	else
		what = "neither a file nor a block device";
	return mkw_set_error(-EINVAL, "%s: is %s: it has no bytes at offsets", file->name, what);
}

/* Sentences have little room: of a long path they show the end. */
static void name_set(struct file *file, const char *path)
{
	size_t length = strlen(path), room = sizeof(file->name) - 1;

	snprintf(file->name, sizeof(file->name), "%s%s", length > room ? "..." : "",
		 length > room ? path + length - (room - 3) : path);
}

static int descriptor_open(struct file *file, const char *path, unsigned flags)
{
	/* O_NONBLOCK: a pipe without a peer does not hold us up; on files it means nothing. */
	int how = O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (flags & MKW_RDWR ? O_RDWR : O_RDONLY) |
		  (flags & MKW_CREATE ? O_CREAT : 0) | (flags & MKW_EXCL ? O_EXCL : 0);

	name_set(file, path);
	file->fd = open(path, how, 0666);
	if (file->fd < 0 && errno == ENOENT && !(flags & MKW_CREATE))
		return mkw_set_error(-ENOENT, "%s: does not exist; MKW_CREATE makes it",
				     file->name);
	if (file->fd < 0)
		return mkw_set_error(-errno, "%s: cannot be opened: %s", file->name,
				     strerrordesc_np(errno));
	file->path = realpath(path, NULL);
	if (!file->path)
		file->path = strdup(path);
	if (!file->path)
		return mkw_set_error(-ENOMEM, "file: no memory for a path");
	name_set(file, file->path);
	return 0;
}

/* Pages are the unit of direct I/O here; a device that wants larger ones cannot be served. */
static int direct_open(struct file *file)
{
	char path[64];
	struct statx sx;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
	file->direct_fd = open(path, O_DIRECT | O_CLOEXEC | (file->writable ? O_RDWR : O_RDONLY));
	if (file->direct_fd < 0)
		return mkw_set_error(-errno, "%s: direct=1: the file system does no direct I/O: %s",
				     file->name, strerrordesc_np(errno));
	if (statx(file->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) ||
	    !(sx.stx_mask & STATX_DIOALIGN))
		return 0;
	if (!sx.stx_dio_offset_align || !sx.stx_dio_mem_align)
		return mkw_set_error(-EINVAL, "%s: direct=1: this file does no direct I/O",
				     file->name);
	if (MKW_PAGE_SIZE % sx.stx_dio_offset_align || MKW_PAGE_SIZE % sx.stx_dio_mem_align)
		return mkw_set_error(-EINVAL,
				     "%s: direct=1: direct I/O in units of %u bytes at addresses "
				     "of %u; pages are %u",
				     file->name, sx.stx_dio_offset_align, sx.stx_dio_mem_align,
				     MKW_PAGE_SIZE);
	return 0;
}

static int file_examine(struct file *file, struct mkw_open_args *args)
{
	struct stat st;

	if (fstat(file->fd, &st))
		return mkw_set_error(-errno, "%s: cannot be examined", file->name);
	int error = type_check(file, &st);

	if (error)
		return error;
	uint64_t size = (uint64_t)st.st_size;

	if (file->device && ioctl(file->fd, BLKGETSIZE64, &size))
		return mkw_set_error(-errno, "%s: the device does not tell its size", file->name);
	if (file->device && args->flags & MKW_TRUNC)
		return mkw_set_error(-EINVAL, "%s: a device cannot be emptied by MKW_TRUNC",
				     file->name);
	file->writable = args->flags & MKW_RDWR;
	file->truncate = args->flags & MKW_TRUNC;
	file->was_linked = st.st_nlink != 0;
	file->opened_size_bytes = size;
	file->dev = st.st_dev;
	file->ino = st.st_ino;
	args->size_bytes = file->truncate ? 0 : size;
	args->dev = file->dev;
	args->ino = file->ino;
	uint64_t identity[2] = {file->device ? 0 : st.st_dev,
				file->device ? st.st_rdev : st.st_ino};

	memcpy(args->identity, file->device ? "device:" : "inode :", 7);
	memcpy(args->identity + 7, identity, sizeof(identity));
	args->identity_length = 7 + sizeof(identity);
	return 0;
}

static const struct mkw_store_ops file_ops = {
	.struct_size = sizeof(struct mkw_store_ops),
	.name = "file",
	.fault = file_fault,
	.page_mkwrite = file_page_mkwrite,
	.unreserve = file_unreserve,
	.writepages = file_writepages,
	.truncate = file_truncate,
	.punch_hole = file_punch_hole,
	.fsync = file_fsync,
	.attach = file_attach,
	.release = file_release,
	.control = file_control,
	.capacity = file_capacity,
};

static const struct mkw_store_ops file_read_ops = {
	.struct_size = sizeof(struct mkw_store_ops),
	.name = "file",
	.fault = file_fault,
	.fsync = file_fsync,
	.attach = file_attach,
	.release = file_release,
	.capacity = file_capacity,
};

/* A device has all its blocks: there is nothing to reserve. */
static const struct mkw_store_ops device_ops = {
	.struct_size = sizeof(struct mkw_store_ops),
	.name = "file",
	.flags = MKW_STORE_FIXED_SIZE,
	.fault = file_fault,
	.writepages = file_writepages,
	.fsync = file_fsync,
	.attach = file_attach,
	.release = file_release,
};

static const struct mkw_store_ops device_read_ops = {
	.struct_size = sizeof(struct mkw_store_ops),
	.name = "file",
	.flags = MKW_STORE_FIXED_SIZE,
	.fault = file_fault,
	.attach = file_attach,
	.release = file_release,
};

static int file_open(struct mkw_open_args *args)
{
	struct file *file = file_alloc();
	bool direct = false;

	if (!file)
		return -ENOMEM;
	int error = options_parse(file, args, &direct);

	if (!error)
		error = descriptor_open(file, args->path, args->flags);
	if (!error)
		error = file_examine(file, args);
	if (!error && direct)
		error = direct_open(file);
	if (error) {
		file_free(file);
		return error;
	}
	if (file->device)
		args->ops = file->writable ? &device_ops : &device_read_ops;
	else
		args->ops = file->writable ? &file_ops : &file_read_ops;
	args->store = file;
	return 0;
}

const struct mkw_store_driver file_driver = {
	.struct_size = sizeof(struct mkw_store_driver),
	.scheme = "file",
	.summary = "a file, sparse or not, or a block device",
	.options = "quota=SIZE\tmost bytes of blocks that the file may have\n"
		   "extent=SIZE\thow much is reserved around a first write; default 1M\n"
		   "direct=BOOL\tread and write past the kernel's page cache\n",
	.open = file_open,
};
