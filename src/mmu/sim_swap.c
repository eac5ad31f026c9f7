/* SPDX-License-Identifier: MIT */
/*
 * sim_swap.c - the simulated machine: a swap file. Each page is a step of its own; the host says
 * which writes fail. Bytes are taken from private views by their entries, as a system call would
 * take them: a page that is not there is -EFAULT.
 */
#include "sim_machine.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define SWAP_PAGES 64u

struct swap_file {
	bool used;
	char *bytes; /* kept from run to run */
	bool written[SWAP_PAGES];
};

static struct swap_file the_swap_file;

void sim_swap_reset(void)
{
	the_swap_file.used = false;
}

bool sim_swap_is_open(void)
{
	return the_swap_file.used;
}

const char *sim_swap_bytes(uint64_t page)
{
	const struct swap_file *f = &the_swap_file;

	return f->used && page < SWAP_PAGES && f->written[page] ? f->bytes + page * MKW_PAGE_SIZE
								: NULL;
}

int swap_file_open(const char *path, struct swap_file **file)
{
	struct swap_file *f = &the_swap_file;

	(void)path;
	if (f->used)
		return -EEXIST;
	if (f->bytes == NULL) {
		f->bytes = mmap(NULL, SWAP_PAGES * MKW_PAGE_SIZE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (f->bytes == MAP_FAILED) {
			f->bytes = NULL;
			return -ENOMEM;
		}
	}
	memset(f->written, 0, sizeof(f->written));
	f->used = true;
	*file = f;
	return 0;
}

/* What the VM did not drop it has lost; but for the spare page. */
void swap_file_close(struct swap_file *f)
{
	unsigned left = 0;

	for (size_t i = 0; i < SWAP_PAGES; i++)
		left += f->written[i];
	if (left > 1)
		sim_host_fail("%u pages of the swap file are left in it", left);
	f->used = false;
}

/* What a system call reads at src. */
static const void *bytes_at(const char *src)
{
	uintptr_t address = (uintptr_t)src;
	const struct sim_view *v = sim_view_at(address);
	size_t i;

	if (v == NULL)
		return src;
	i = sim_index(v, address, MKW_PAGE_SIZE);
	sim_entries_wait(v, i, 1);
	if (v->entries[i] <= SIM_MARKER)
		return NULL;
	return v->copied[i] ? v->copies + i * MKW_PAGE_SIZE
			    : v->at.frames->bytes + sim_frame_of(v, i) * MKW_PAGE_SIZE;
}

int swap_file_write(struct swap_file *f, uint64_t offset, const void *src, size_t length,
		    size_t *done)
{
	for (*done = 0; *done < length; *done += MKW_PAGE_SIZE) {
		uint64_t page = (offset + *done) / MKW_PAGE_SIZE;
		const void *bytes;
		int error;

		sim_host_point("writes to page of the swap file", page);
		error = page >= SWAP_PAGES ? -ENOSPC : sim_host_swap(page);
		if (error != 0)
			return error;
		bytes = bytes_at((const char *)src + *done);
		if (bytes == NULL)
			return -EFAULT;
		memcpy(f->bytes + page * MKW_PAGE_SIZE, bytes, MKW_PAGE_SIZE);
		f->written[page] = true;
	}
	return 0;
}

int swap_file_read(struct swap_file *f, uint64_t offset, void *dst, size_t length)
{
	for (size_t at = 0; at < length; at += MKW_PAGE_SIZE) {
		uint64_t page = (offset + at) / MKW_PAGE_SIZE;

		sim_host_point("reads page of the swap file", page);
		if (page >= SWAP_PAGES || !f->written[page])
			sim_host_fail("page %llu of the swap file is read, and was never written",
				      (unsigned long long)page);
		memcpy((char *)dst + at, f->bytes + page * MKW_PAGE_SIZE, MKW_PAGE_SIZE);
	}
	return 0;
}

void swap_file_drop(struct swap_file *f, uint64_t offset, uint64_t length)
{
	for (uint64_t at = offset; at < offset + length; at += MKW_PAGE_SIZE) {
		sim_host_point("drops page of the swap file", at / MKW_PAGE_SIZE);
		if (at / MKW_PAGE_SIZE < SWAP_PAGES)
			f->written[at / MKW_PAGE_SIZE] = false;
	}
}
