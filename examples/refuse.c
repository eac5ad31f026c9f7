/* SPDX-License-Identifier: MIT */
/*
 * refuse.c - map a sparse file that may not grow past 64 KiB, write until that is refused, and keep
 * what was written.
 *
 *   cc refuse.c $(pkg-config --cflags --libs mkwrite) -o refuse && ./refuse
 */
#include <mkwrite/mkwrite.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE_BYTES (1 << 20)

/* Runs under mkw_guard(): a refused write ends it by a jump, so it holds nothing while it writes.
 */
static void fill(void *map)
{
	memset(map, 'x', SIZE_BYTES);
}

static void check(int error, const char *what)
{
	if (error >= 0)
		return;
	fprintf(stderr, "refuse: %s: %s (%s)\n", what, mkw_error_message(), strerror(-error));
	exit(1);
}

int main(void)
{
	struct mkw_refusal refusal;
	struct mkw_space *space;
	struct mkw_handle *file;
	void *map;

	check(mkw_space_create(NULL, &space), "space");
	check(mkw_open(space, "file:demo.db?quota=64K", MKW_RDWR | MKW_CREATE | MKW_TRUNC, &file),
	      "open");
	check(mkw_truncate(file, SIZE_BYTES), "truncate");
	check(mkw_map(file, SIZE_BYTES, MKW_WRITE, 0, 0, &map), "map");

	if (mkw_guard(fill, map, &refusal) < 0)
		printf("refused at offset %llu: %s (%s)\n", (unsigned long long)refusal.offset,
		       refusal.message, strerror(-refusal.error));
	else
		printf("all of it was granted\n");

	check(mkw_sync(file, 0, 0), "sync"); /* what was granted is durable now */
	check(mkw_unmap(map, SIZE_BYTES), "unmap");
	check(mkw_close(file), "close");
	check(mkw_space_destroy(space, 0), "destroy");
	return 0;
}
