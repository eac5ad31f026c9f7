/* SPDX-License-Identifier: MIT */
/* place.c - see place.h. */
#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static mkw_fault_t store_mkwrite(void *arg, struct mkw_object *object, struct mkw_run *run)
{
	struct place_store *s = arg;
	int refuse = atomic_load(&s->refuse_from);

	(void)object;
	atomic_fetch_add(&s->asked, 1);
	if ((run->flags & MKW_RUN_BROKEN) != 0)
		atomic_fetch_add(&s->broken, 1);
	if (s->answer != NULL)
		return s->answer(s, run);
	if (refuse >= 0 && run->page >= (uint64_t)refuse)
		return mkw_fault_from_errno(mkw_set_error(atomic_load(&s->error), "no room"));
	if (refuse >= 0 && run->first + run->count > (uint64_t)refuse)
		mkw_run_cut(run, run->first, (size_t)((uint64_t)refuse - run->first));
	atomic_fetch_add(&s->pages_asked, (unsigned)run->count);
	return 0;
}

static int store_writepages(void *arg, struct mkw_object *object, struct mkw_writeback *wb)
{
	struct place_store *s = arg;
	int error = atomic_load(&s->write_error);

	(void)object;
	atomic_fetch_add(&s->writes, 1);
	for (size_t i = 0; i < wb->count && error == 0; i++) {
		CHECK(wb->runs[i].data == NULL);
		if (sync_file_range(s->fd, (off_t)(wb->runs[i].first * PAGE),
				    (off_t)(wb->runs[i].count * PAGE),
				    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
					    SYNC_FILE_RANGE_WAIT_AFTER) != 0)
			return -errno;
		atomic_fetch_add(&s->written, (unsigned)wb->runs[i].count);
	}
	return error;
}

static int store_fsync(void *arg, struct mkw_object *object, uint64_t offset, uint64_t length)
{
	struct place_store *s = arg;

	(void)object;
	(void)offset;
	(void)length;
	atomic_fetch_add(&s->synced, 1);
	return fdatasync(s->fd) != 0 ? -errno : 0;
}

const struct mkw_store_ops place_ops = {
	.struct_size = sizeof(place_ops),
	.page_mkwrite = store_mkwrite,
	.writepages = store_writepages,
	.fsync = store_fsync,
};

int place_file(size_t length)
{
	char memory[] = "/dev/shm/mkwrite-in-place-XXXXXX", disk[] = "/tmp/mkwrite-in-place-XXXXXX";
	char *name = memory;
	int fd = mkstemp(memory);

	if (fd < 0)
		fd = mkstemp(name = disk);
	REQUIRE(fd >= 0);
	unlink(name);
	REQUIRE_EQ(ftruncate(fd, (off_t)length), 0);
	return fd;
}

unsigned char *place_map(int fd, size_t length)
{
	void *map = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	REQUIRE(map != MAP_FAILED);
	return map;
}

void place_open_file(struct place *p, const struct mkw_space_options *given, int fd, size_t length)
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;

	if (given != NULL)
		options = *given;
	options.flags |= MKW_SPACE_IN_PLACE;
	memset(p, 0, sizeof(*p));
	atomic_store(&p->store.refuse_from, -1);
	p->store.fd = fd;
	p->length = length;
	p->map = place_map(fd, length);
	REQUIRE_EQ(mkw_space_create(&options, &p->space), 0);
	REQUIRE_EQ(mkw_create_in_place(p->space, &place_ops, &p->store, MKW_RDWR, &p->handle), 0);
	REQUIRE_EQ(mkw_adopt(p->handle, p->map, p->length, MKW_READ | MKW_WRITE, 0), 0);
}

void place_open(struct place *p, const struct mkw_space_options *options, size_t pages)
{
	place_open_file(p, options, place_file(pages * PAGE), pages * PAGE);
}

void place_open_limit(struct place *p, size_t dirty_limit_pages, size_t pages)
{
	struct mkw_space_options options = MKW_SPACE_OPTIONS_INIT;

	options.dirty_limit_bytes = dirty_limit_pages * PAGE;
	place_open(p, &options, pages);
}

void place_close(struct place *p)
{
	CHECK_EQ(mkw_unmap(p->map, p->length), 0);
	CHECK_EQ(munmap(p->map, p->length), 0);
	CHECK_EQ(mkw_close(p->handle), 0);
	CHECK_EQ(mkw_space_destroy(p->space, 0), 0);
	close(p->store.fd);
}

struct mkw_stat place_stat(const struct place *p)
{
	struct mkw_stat stat;

	CHECK_EQ(mkw_object_stat(p->handle, &stat, sizeof(stat)), 0);
	return stat;
}

void place_not_under_asan(void)
{
#ifdef __SANITIZE_ADDRESS__
	SKIP("what ASan does is not what is looked at here");
#endif
}

void place_write_one(void *at)
{
	place_write(at, 1);
}

unsigned place_mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned lines = 0;
	int c;

	REQUIRE(f != NULL);
	while ((c = getc_unlocked(f)) != EOF)
		lines += c == '\n';
	fclose(f);
	return lines;
}

int place_child(int (*fn)(void *arg), void *arg)
{
	int status = 0;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (pid == 0)
		_exit(fn(arg));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}
