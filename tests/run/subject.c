/* SPDX-License-Identifier: MIT */
/* subject.c - a sparse file as a program would have it (subject.h). */
#include "run/subject.h"

#include "run/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void subject_post(void *arg, enum run_event_kind kind, uint64_t offset, uint64_t length)
{
	struct posts *posts = arg;

	if (kind == RUN_EVENT_SAY) {
		atomic_fetch_add(&posts->says, 1);
		return;
	}
	uint32_t at = atomic_fetch_add(&posts->count, 1);

	if (at < POSTS)
		posts->all[at] = (struct post){kind, offset, length};
}

static void subject_map(struct subject *s)
{
	s->map = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
	REQUIRE(s->map != MAP_FAILED);
}

void subject_open(struct subject *s, const char *name, uint64_t bytes, uint64_t piece)
{
	struct stat st;

	memset(s, 0, sizeof(*s));
	snprintf(s->path, sizeof(s->path), VOLUME_AT "/%s", name);
	s->fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	s->bytes = bytes;
	REQUIRE(s->fd >= 0);
	REQUIRE_EQ(ftruncate(s->fd, (off_t)bytes), 0);
	subject_map(s);
	s->posts = mmap(NULL, sizeof(*s->posts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	REQUIRE(s->posts != MAP_FAILED);
	s->control = calloc(1, sizeof(*s->control));
	s->ledger = ledger_create();
	REQUIRE(s->control && s->ledger);
	REQUIRE_EQ(reserve_init(&s->reserve, s->fd, piece, subject_post, s->posts), 0);
	REQUIRE_EQ(fstat(s->fd, &st), 0);
	s->control->files[0].dev = st.st_dev;
	s->control->files[0].ino = st.st_ino;
	strcpy(s->control->files[0].path, s->path);
	atomic_store(&s->control->files[0].state, RUN_FILE_THERE);
}

void pages_alone(struct subject *s)
{
	REQUIRE_EQ(madvise(s->map, s->bytes, MADV_RANDOM), 0);
}

void subject_unmap(struct subject *s)
{
	if (s->map)
		munmap(s->map, s->bytes);
	s->map = NULL;
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

void subject_close(struct subject *s)
{
	subject_unmap(s);
	munmap(s->posts, sizeof(*s->posts));
	ledger_destroy(s->ledger);
	free(s->control);
}

void subject_report(void *arg, const struct ledger_file *file)
{
	struct subject *s = arg;

	s->result = *file;
	s->reports++;
}

static void subject_drain(struct subject *s)
{
	uint32_t count = atomic_load(&s->posts->count);

	REQUIRE(count <= POSTS);
	for (; s->taken < count; s->taken++) {
		const struct post *post = &s->posts->all[s->taken];
		struct run_event event = {.kind = (uint16_t)post->kind,
					  .offset = post->offset,
					  .length = post->length};

		int error;

		FAIL_INSIDE(error = ledger_event(s->ledger, s->control, &event));
		s->forgotten |= error == -ENOMEM;
		REQUIRE(!error || error == -ENOMEM);
	}
}

int subject_give_back(struct subject *s)
{
	subject_drain(s);
	memset(&s->result, 0, sizeof(s->result));
	s->reports = 0;
	FAIL_INSIDE(ledger_give_back(s->ledger, subject_report, s));
	return s->reports ? s->result.error : 0;
}

/* ---- Writing ------------------------------------------------------------------------------ */

static _Thread_local sigjmp_buf refused;

static void on_bus(int signo)
{
	(void)signo;
	siglongjmp(refused, 1);
}

bool store_word(unsigned char *at, uint64_t value)
{
	struct sigaction action = {.sa_handler = on_bus}, before;
	bool stored = false;

	sigaction(SIGBUS, &action, &before);
	if (!sigsetjmp(refused, 1)) {
		*(volatile uint64_t *)(void *)at = value;
		stored = true;
	}
	sigaction(SIGBUS, &before, NULL);
	return stored;
}

uint64_t word_of(uint64_t page)
{
	return (page + 1) * 0x9e3779b97f4a7c15ull;
}

int page_write(struct subject *s, uint64_t page)
{
	bool broken = false;

	for (;; s->broken++) {
		int error;

		FAIL_INSIDE(error = reserve_run(&s->reserve, page * PAGE, PAGE, broken));

		if (error)
			return error;
		if (store_word(s->map + page * PAGE, word_of(page)))
			return 0;
		broken = true;
	}
}

uint64_t word_read(const char *path, uint64_t page)
{
	uint64_t word = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	REQUIRE(fd >= 0);
	REQUIRE_EQ(pread(fd, &word, sizeof(word), (off_t)(page * PAGE)), sizeof(word));
	close(fd);
	return word;
}

/* ---- Looking ------------------------------------------------------------------------------ */

uint64_t bytes_reserved(const char *path)
{
	struct stat st;

	REQUIRE_EQ(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

uint64_t bytes_used(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	REQUIRE(fd >= 0);
	REQUIRE_EQ(fsync(fd), 0);
	REQUIRE_EQ(fstat(fd, &st), 0);
	close(fd);
	return (uint64_t)st.st_blocks * 512;
}

/* Of extents with these flags. */
static uint64_t extents_sum(const char *path, uint64_t start, uint64_t end, uint32_t flags)
{
	union {
		struct fiemap map;
		char room[sizeof(struct fiemap) + sizeof(struct fiemap_extent)];
	} u;
	uint64_t bytes = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	REQUIRE(fd >= 0);
	while (start < end) {
		memset(&u, 0, sizeof(u));
		u.map.fm_start = start;
		u.map.fm_length = end - start;
		u.map.fm_flags = FIEMAP_FLAG_SYNC;
		u.map.fm_extent_count = 1;
		REQUIRE_EQ(ioctl(fd, FS_IOC_FIEMAP, &u.map), 0);
		if (!u.map.fm_mapped_extents)
			break;
		uint64_t from = u.map.fm_extents[0].fe_logical;
		uint64_t stop = from + u.map.fm_extents[0].fe_length;

		from = from > start ? from : start;
		stop = stop < end ? stop : end;
		if ((u.map.fm_extents[0].fe_flags & flags) == flags)
			bytes += stop - from;
		start = stop;
	}
	close(fd);
	return bytes;
}

uint64_t bytes_mapped(const char *path, uint64_t start, uint64_t end)
{
	return extents_sum(path, start, end, 0);
}

uint64_t bytes_unwritten(const char *path, uint64_t start, uint64_t end)
{
	return extents_sum(path, start, end, FIEMAP_EXTENT_UNWRITTEN);
}
