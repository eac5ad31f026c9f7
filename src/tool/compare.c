/* SPDX-License-Identifier: MIT */
/*
 * compare.c - does the archive hold what the files hold? Neither the library nor this program
 * judges: sha256sum reads the originals, and it reads what read(2) finds in the archive.
 *
 * What the archive has goes to sha256sum in batches of files without names, in memory while they
 * are small: making thousands of files with names takes longer than everything else.
 */
#include "tool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BATCH_FILES	  128u /* descriptors at a time */
#define BATCH_BYTES	  (64u * 1024u * 1024u)
#define MEMORY_BYTES	  (16u * 1024u * 1024u) /* a file larger than this goes to a disk */
#define DIFFERENCES_SHOWN 10u

/* Without O_CLOEXEC: sha256sum inherits it. */
static int nameless_file(uint64_t size_bytes)
{
	const char *parent = getenv("TMPDIR");
	char *name;
	int fd;

	if (size_bytes <= MEMORY_BYTES)
		return memfd_create("mkwrite-demo", 0);
	if (asprintf(&name, "%s/mkwrite-demo.XXXXXX", parent && parent[0] ? parent : "/tmp") < 0)
		return -1;
	fd = mkstemp(name);
	if (fd >= 0)
		unlink(name);
	free(name);
	return fd;
}

struct batch {
	int fds[BATCH_FILES];
	char names[BATCH_FILES][TEXT_MAX];
	char *paths[BATCH_FILES];
	size_t count;
	uint64_t size_bytes;
};

static int batch_add(struct batch *batch, const struct archive_reader *reader, size_t index,
		     const struct file_entry *file)
{
	size_t i = batch->count;
	int fd = nameless_file(file->size_bytes);

	if (fd < 0)
		return tool_errno(reader->options, "temporary file");
	batch->fds[i] = fd;
	batch->paths[i] = batch->names[i];
	snprintf(batch->names[i], TEXT_MAX, "/proc/self/fd/%d", fd);
	batch->count++;
	batch->size_bytes += file->size_bytes;
	return archive_extract(reader, index, file, fd);
}

static void batch_clear(struct batch *batch)
{
	for (size_t i = 0; i < batch->count; i++)
		close(batch->fds[i]);
	batch->count = 0;
	batch->size_bytes = 0;
}

static int copies_digest(struct comparison *comparison, const struct archive_reader *reader,
			 const struct file_list *list)
{
	struct progress progress;
	struct batch batch = {.count = 0};
	uint64_t done_bytes = 0;
	int code = 0;

	progress_begin(&progress, "comparing", list->size_bytes, reader->options);
	for (size_t i = 0; i < list->count && code == 0; i++) {
		code = batch_add(&batch, reader, i, &list->entries[i]);
		if (code == 0 && (batch.count == BATCH_FILES || batch.size_bytes >= BATCH_BYTES ||
				  i + 1 == list->count)) {
			code = digest_files(batch.paths, batch.count,
					    comparison->copies + (i + 1 - batch.count),
					    reader->options);
			done_bytes += batch.size_bytes;
			batch_clear(&batch);
			progress_show(&progress, done_bytes);
		}
	}
	batch_clear(&batch);
	progress_end(&progress);
	return code;
}

static int originals_digest(struct comparison *comparison, const struct file_list *list,
			    const struct tool_options *options)
{
	char **paths = calloc(list->count + 1, sizeof(*paths));
	int code;

	if (!paths)
		return tool_errno(options, "comparing");
	for (size_t i = 0; i < list->count; i++)
		paths[i] = list->entries[i].path;
	code = digest_files(paths, list->count, comparison->originals, options);
	free(paths);
	return code;
}

static int digests_judge(struct comparison *comparison, const struct file_list *list,
			 const struct tool_options *options)
{
	for (size_t i = 0; i < list->count; i++) {
		if (strcmp(comparison->originals[i].hex, comparison->copies[i].hex) == 0)
			continue;
		if (comparison->differing++ < DIFFERENCES_SHOWN)
			tool_error(options, "%s: it differs: sha256 %s, in the archive %s",
				   list->entries[i].path, comparison->originals[i].hex,
				   comparison->copies[i].hex);
	}
	if (comparison->differing == 0)
		return 0;
	tool_error(options, "%zu of %zu files differ", comparison->differing, list->count);
	return TOOL_FAILED;
}

int comparison_run(struct comparison *comparison, const char *path, const struct file_list *list,
		   const struct tool_options *options)
{
	struct archive_reader reader;
	int code;

	comparison->originals = calloc(list->count + 1, sizeof(*comparison->originals));
	comparison->copies = calloc(list->count + 1, sizeof(*comparison->copies));
	if (!comparison->originals || !comparison->copies)
		return tool_errno(options, "comparing");
	code = originals_digest(comparison, list, options);
	if (code == 0)
		code = archive_open(&reader, path, list->count, options);
	if (code != 0)
		return code;
	code = copies_digest(comparison, &reader, list);
	archive_close(&reader);
	return code == 0 ? digests_judge(comparison, list, options) : code;
}

void comparison_free(struct comparison *comparison)
{
	free(comparison->originals);
	free(comparison->copies);
}
