/* SPDX-License-Identifier: MIT */
/*
 * files.c - the list of files that demo packs.
 */
#include "tool.h"

#include <errno.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int list_append(struct file_list *list, const char *path, uint64_t size_bytes)
{
	struct file_entry *entry;

	if (list->count == list->capacity) {
		size_t capacity = list->capacity ? list->capacity * 2 : 256;
		struct file_entry *entries;

		entries = reallocarray(list->entries, capacity, sizeof(*entries));
		if (!entries)
			return -ENOMEM;
		list->entries = entries;
		list->capacity = capacity;
	}
	entry = &list->entries[list->count];
	entry->path = strdup(path);
	if (!entry->path)
		return -ENOMEM;
	entry->size_bytes = size_bytes;
	list->count++;
	list->size_bytes += size_bytes;
	return 0;
}

static int name_compare(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* One step of the walk. 0: go on. */
static int entry_take(struct file_list *list, const FTSENT *entry, uint64_t limit_bytes,
		      const struct tool_options *options)
{
	uint64_t size_bytes;

	switch (entry->fts_info) {
	case FTS_F:
		size_bytes = (uint64_t)entry->fts_statp->st_size;
		if (limit_bytes && list->size_bytes + size_bytes > limit_bytes)
			return 0;
		if (list_append(list, entry->fts_path, size_bytes) == 0)
			return 0;
		errno = ENOMEM;
		return tool_errno(options, entry->fts_path);
	case FTS_DNR:
	case FTS_ERR:
	case FTS_NS:
	case FTS_SLNONE:
		errno = entry->fts_errno ? entry->fts_errno : ENOENT;
		return tool_errno(options, entry->fts_path);
	case FTS_DEFAULT:
		if (entry->fts_level > 0)
			return 0;
		tool_error(options, "%s: not a regular file, and no directory", entry->fts_path);
		return TOOL_FAILED;
	default:
		return 0;
	}
}

int files_add(struct file_list *list, const char *path, uint64_t limit_bytes,
	      const struct tool_options *options)
{
	/* sha256sum takes "-" for its standard input, even behind "--". */
	size_t size = strlen(path) + sizeof("./");
	char *root = malloc(size);
	char *roots[] = {root, NULL};
	FTSENT *entry;
	FTS *walk;
	int code = 0;

	if (!root)
		return tool_errno(options, path);
	snprintf(root, size, "%s%s", path[0] == '-' ? "./" : "", path);
	errno = 0;
	walk = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, name_compare);
	if (!walk)
		code = tool_errno(options, path);
	while (code == 0 && (entry = fts_read(walk)) != NULL)
		code = entry_take(list, entry, limit_bytes, options);
	if (walk)
		fts_close(walk);
	free(root);
	return code;
}

void files_free(struct file_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->entries[i].path);
	free(list->entries);
	*list = (struct file_list){0};
}
