/* SPDX-License-Identifier: MIT */
/*
 * cp.c - `mkwrite cp`: copy one object to another, by mkw_pread and mkw_pwrite, leaving out pages
 * of zeros. It says "copied" only when the target has been synced (and, with --verify, compared).
 */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <mkwrite/store.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES (1024u * 1024u)
/* A copy reads and writes everything once: more cache would only push out other people's. */
#define RESIDENT_LIMIT_BYTES (64u * 1024u * 1024u)
#define DIRTY_LIMIT_BYTES    (32u * 1024u * 1024u)

const char cp_help[] =
	"Usage: mkwrite cp [--verify] SOURCE TARGET\n"
	"\n"
	"Copy an object. SOURCE and TARGET are URIs (mkwrite info lists the schemes) or\n"
	"paths of files; ./ in front makes a path of what looks like a URI. The target\n"
	"is made if it is not there, and cut or grown to the source's size if it is.\n"
	"Pages of zeros are not written. The copy is durable when the command is done.\n"
	"\n"
	"  --verify  drop the target's pages from memory, read it back, and compare\n"
	"  --json    tell the result as JSON\n"
	"\n"
	"Examples:\n"
	"  mkwrite cp disk.img copy.img\n"
	"  mkwrite cp --verify disk.img 'file:copy.img?quota=1G'\n"
	"  mkwrite cp disk.img 'error?op=writepages&nth=3:file:copy.img'\n"
	"\n"
	"Exit status: 0 copied; 1 failed, or the copy differs; 2 wrong command line; 3\n"
	"not possible on this host; 4 the target's store refused. After 1 or 4 the target\n"
	"is incomplete.\n";

struct copy {
	const struct tool_options *options;
	char *source_uri, *target_uri;
	struct mkw_space *space;
	struct mkw_handle *source, *target;
	unsigned char *buffer, *compare; /* CHUNK_BYTES each */
	uint64_t size_bytes, written_bytes, time_ns;
	bool fresh; /* what is not written to the target reads as zeros */
	bool verify;
};

/* Equal identities mean equal storage (store.h). The target need not exist. */
static bool same_storage(const struct copy *copy)
{
	struct mkw_open_args source = {0}, target = {0};
	bool same;

	if (mkw_store_open(copy->source_uri, MKW_RDONLY, &source) != 0)
		return false;
	if (mkw_store_open(copy->target_uri, MKW_RDONLY, &target) != 0) {
		if (source.ops->release)
			source.ops->release(source.store);
		return false;
	}
	same = source.identity_length > 0 && source.identity_length == target.identity_length &&
	       memcmp(source.identity, target.identity, source.identity_length) == 0;
	if (source.ops->release)
		source.ops->release(source.store);
	if (target.ops->release)
		target.ops->release(target.store);
	return same;
}

/* Empty the target, then give it the source's size: all of it reads as zeros then. Storage of a
 * fixed size stays as it is, if that is the size. */
static int target_resize(struct copy *copy)
{
	int error = mkw_truncate(copy->target, 0);

	copy->fresh = error == 0;
	if (error == 0)
		error = mkw_truncate(copy->target, copy->size_bytes);
	else if (error == -EINVAL && mkw_size(copy->target) == copy->size_bytes)
		error = 0;
	if (error == 0)
		return 0;
	tool_library_error(copy->options, copy->target_uri, error);
	return error_is_refusal(error) ? TOOL_REFUSED : TOOL_FAILED;
}

static int copy_open(struct copy *copy)
{
	struct mkw_space_options space_options = MKW_SPACE_OPTIONS_INIT;
	int error;

	space_options.resident_limit_bytes = RESIDENT_LIMIT_BYTES;
	space_options.dirty_limit_bytes = DIRTY_LIMIT_BYTES;
	space_options.log = tool_log;
	space_options.log_arg = (void *)(uintptr_t)copy->options;
	error = mkw_space_create(&space_options, &copy->space);
	if (error != 0)
		return tool_library_error(copy->options, "no space", error);
	if (same_storage(copy)) {
		tool_error(copy->options, "%s: it is the same storage as %s", copy->target_uri,
			   copy->source_uri);
		return TOOL_FAILED;
	}
	error = mkw_open(copy->space, copy->source_uri, MKW_RDONLY, &copy->source);
	if (error != 0)
		return tool_library_error(copy->options, copy->source_uri, error);
	copy->size_bytes = mkw_size(copy->source);
	error = mkw_open(copy->space, copy->target_uri, MKW_RDWR | MKW_CREATE, &copy->target);
	if (error != 0)
		return tool_library_error(copy->options, copy->target_uri, error);
	return target_resize(copy);
}

/* Fill to with length bytes of the object, all of them. */
static int object_read(struct copy *copy, struct mkw_handle *handle, const char *uri, void *to,
		       size_t length, uint64_t offset)
{
	while (length > 0) {
		ssize_t got = mkw_pread(handle, to, length, offset);

		if (got == -EINTR)
			continue;
		if (got < 0)
			return tool_library_error(copy->options, uri, (int)got);
		if (got == 0) {
			tool_error(copy->options, "%s: it shrank to %" PRIu64 " bytes meanwhile",
				   uri, offset);
			return TOOL_FAILED;
		}
		to = (char *)to + got;
		offset += (uint64_t)got;
		length -= (size_t)got;
	}
	return 0;
}

static int write_failed(struct copy *copy, int error, const char *what, uint64_t offset)
{
	char *where;

	if (asprintf(&where, "%s: %s at byte %" PRIu64 " of %" PRIu64, copy->target_uri, what,
		     offset, copy->size_bytes) < 0)
		where = NULL;
	tool_library_error(copy->options, where ? where : what, error);
	free(where);
	tool_error(copy->options, "%s: the copy is incomplete: do not use it", copy->target_uri);
	return error_is_refusal(error) ? TOOL_REFUSED : TOOL_FAILED;
}

static int target_write(struct copy *copy, const unsigned char *from, size_t length,
			uint64_t offset)
{
	while (length > 0) {
		ssize_t put = mkw_pwrite(copy->target, from, length, offset);

		if (put == -EINTR)
			continue;
		if (put <= 0)
			return write_failed(copy, put ? (int)put : -EIO, "write", offset);
		from += put;
		offset += (uint64_t)put;
		length -= (size_t)put;
		copy->written_bytes += (uint64_t)put;
	}
	return 0;
}

static bool page_is_zero(const unsigned char *page, size_t length)
{
	return page[0] == 0 && memcmp(page, page + 1, length - 1) == 0;
}

/* Of the first pages of the buffer, how many bytes are alike: all zeros, or none. */
static size_t stretch_length(const unsigned char *from, size_t length, bool *zero)
{
	size_t end = 0;

	while (end < length) {
		size_t page = length - end < MKW_PAGE_SIZE ? length - end : MKW_PAGE_SIZE;
		bool page_zero = page_is_zero(from + end, page);

		if (end == 0)
			*zero = page_zero;
		else if (page_zero != *zero)
			break;
		end += page;
	}
	return end;
}

static int chunk_write(struct copy *copy, size_t length, uint64_t offset)
{
	const unsigned char *from = copy->buffer;

	while (length > 0) {
		bool zero = false;
		size_t stretch = stretch_length(from, length, &zero);
		int code = 0;

		if (!zero) {
			code = target_write(copy, from, stretch, offset);
		} else if (!copy->fresh) {
			int error = mkw_punch(copy->target, offset, stretch);

			if (error != 0)
				code = write_failed(copy, error, "punch", offset);
		}
		if (code != 0)
			return code;
		from += stretch;
		offset += stretch;
		length -= stretch;
	}
	return 0;
}

static int copy_run(struct copy *copy)
{
	struct progress progress;
	uint64_t offset = 0;
	int code = 0, error;

	progress_begin(&progress, "copying", copy->size_bytes, copy->options);
	while (offset < copy->size_bytes && code == 0) {
		uint64_t left_bytes = copy->size_bytes - offset;
		size_t length = left_bytes < CHUNK_BYTES ? (size_t)left_bytes : CHUNK_BYTES;

		progress_show(&progress, offset);
		code = object_read(copy, copy->source, copy->source_uri, copy->buffer, length,
				   offset);
		if (code == 0)
			code = chunk_write(copy, length, offset);
		offset += length;
	}
	progress_end(&progress);
	if (code != 0)
		return code;
	error = mkw_sync(copy->target, 0, 0);
	return error == 0 ? 0 : write_failed(copy, error, "sync", copy->size_bytes);
}

/* Not from memory: the target's pages are dropped, so that its store is asked for them. */
static int copy_verify(struct copy *copy)
{
	struct progress progress;
	uint64_t offset = 0;
	int error = mkw_invalidate(copy->target, 0, copy->size_bytes);
	int code = 0;

	if (error != 0)
		return tool_library_error(copy->options, copy->target_uri, error);
	progress_begin(&progress, "comparing", copy->size_bytes, copy->options);
	while (offset < copy->size_bytes && code == 0) {
		uint64_t left_bytes = copy->size_bytes - offset;
		size_t length = left_bytes < CHUNK_BYTES ? (size_t)left_bytes : CHUNK_BYTES;

		progress_show(&progress, offset);
		code = object_read(copy, copy->source, copy->source_uri, copy->buffer, length,
				   offset);
		if (code == 0)
			code = object_read(copy, copy->target, copy->target_uri, copy->compare,
					   length, offset);
		if (code == 0 && memcmp(copy->buffer, copy->compare, length) != 0) {
			tool_error(copy->options,
				   "%s: it differs from %s between %" PRIu64 " and %" PRIu64,
				   copy->target_uri, copy->source_uri, offset, offset + length);
			code = TOOL_FAILED;
		}
		offset += length;
	}
	progress_end(&progress);
	return code;
}

/* An error that only closing tells is an error of the copy. */
static int copy_close(struct copy *copy, int code)
{
	int error;

	if (copy->source)
		mkw_close(copy->source);
	error = copy->target ? mkw_close(copy->target) : 0;
	if (error != 0 && code == 0)
		code = write_failed(copy, error, "close", copy->size_bytes);
	/* After a failure there may be pages that no store takes; the message has been given. */
	error = copy->space ? mkw_space_destroy(copy->space, code ? MKW_DISCARD : 0) : 0;
	if (error != 0 && code == 0)
		code = write_failed(copy, error, "close", copy->size_bytes);
	return code;
}

static void copy_report(const struct copy *copy)
{
	if (copy->options->json) {
		struct json json;

		json_begin(&json, stdout);
		json_object(&json, NULL);
		json_text(&json, "source", copy->source_uri);
		json_text(&json, "target", copy->target_uri);
		json_number(&json, "size_bytes", copy->size_bytes);
		json_number(&json, "written_bytes", copy->written_bytes);
		json_flag(&json, "verified", copy->verify);
		json_real(&json, "seconds", (double)copy->time_ns / 1e9);
		json_end(&json);
		return;
	}
	printf("copied %s, %s of them written, in %s (%s)%s\n", text_size(copy->size_bytes).s,
	       text_size(copy->written_bytes).s, text_seconds(copy->time_ns).s,
	       text_rate(copy->size_bytes, copy->time_ns).s,
	       copy->verify ? ", compared equal" : "");
}

static int copy_do(struct copy *copy)
{
	uint64_t start_ns = tool_now_ns();
	int code;

	if (!copy->source_uri || !copy->target_uri || !copy->buffer || !copy->compare) {
		errno = ENOMEM;
		return tool_errno(copy->options, "buffers");
	}
	code = copy_open(copy);
	if (code == 0)
		code = copy_run(copy);
	if (code == 0 && copy->verify)
		code = copy_verify(copy);
	copy->time_ns = tool_now_ns() - start_ns;
	return copy_close(copy, code);
}

int cp_main(int argc, char **argv, const struct tool_options *options)
{
	struct copy copy = {.options = options};
	const struct option_spec specs[] = {
		{"verify", OPTION_FLAG, &copy.verify},
		{NULL, OPTION_FLAG, NULL},
	};
	int code = options_take(&argc, argv, specs, options);

	if (code != 0)
		return code;
	if (argc != 3)
		return tool_usage(options, "a SOURCE and a TARGET are needed, %d given", argc - 1);
	copy.source_uri = uri_from_argument(argv[1]);
	copy.target_uri = uri_from_argument(argv[2]);
	copy.buffer = malloc(CHUNK_BYTES);
	copy.compare = malloc(CHUNK_BYTES);
	code = copy_do(&copy);
	if (code == 0)
		copy_report(&copy);
	free(copy.source_uri);
	free(copy.target_uri);
	free(copy.buffer);
	free(copy.compare);
	return code;
}
