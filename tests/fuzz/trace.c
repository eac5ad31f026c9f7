/* SPDX-License-Identifier: MIT */
/*
 * trace.c - fuzz target: the files that `mkwrite trace` reads.
 *
 * An input is such a file; if it does not begin like one, what follows the head of one. It is read,
 * and told in all ways there are. What is read is written once more, and has to read the same.
 */
#include "fuzz/fuzz.h"
#include "tool/trace_summary.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define OUTPUT_MAX ((size_t)16 << 20)

static const struct tool_options options = {.verb = "trace"};
static char complaint[1024];

/* In place of the tool's own, which print. */
void tool_error(const struct tool_options *unused, const char *format, ...)
{
	va_list list;

	(void)unused;
	va_start(list, format);
	vsnprintf(complaint, sizeof(complaint), format, list);
	va_end(list);
	fuzz_trace("%s", complaint);
}

/* ---- The input as a file ------------------------------------------------------------------- */

static void put(int fd, const void *bytes, size_t size)
{
	if (size > 0)
		EXPECT(write(fd, bytes, size) == (ssize_t)size, "no memory for the file");
}

static int file_make(const uint8_t *data, size_t size)
{
	static const unsigned char head[TRACE_HEAD_BYTES] = "MKWTRACE\1\0\0\0\x20\0\0\0\1";
	int fd = memfd_create("trace", MFD_CLOEXEC);

	EXPECT(fd >= 0, "no memfd");
	if (size < 8 || memcmp(data, head, 8) != 0)
		put(fd, head, sizeof(head));
	put(fd, data, size);
	return fd;
}

/* ---- What is told -------------------------------------------------------------------------- */

struct output {
	char *text;
	size_t size;
	FILE *stream;
};

static void output_begin(struct output *output)
{
	output->stream = open_memstream(&output->text, &output->size);
	EXPECT(output->stream, "no memory");
}

/* It is UTF-8, and has no character that a terminal or XML does not want. */
static void output_end(struct output *output, bool is_text)
{
	EXPECT(!fclose(output->stream), "no memory");
	EXPECT(output->size < OUTPUT_MAX, "%zu bytes", output->size);
	for (const char *s = output->text; is_text && *s;) {
		size_t length = text_utf8_length(s);

		EXPECT(length > 0 && ((unsigned char)*s >= 0x20 || *s == '\n') && *s != 0x7f,
		       "\"%.20s\" is no text", s);
		s += length;
	}
	if (is_text)
		EXPECT(strlen(output->text) == output->size, "a NUL");
	free(output->text);
}

/* Elements are closed in their order; in texts there is no '<', '>', nor an '&' by itself. */
static void xml_look(const char *text)
{
	const char *open[16];
	size_t depth = 0;

	for (const char *s = text; *s; s++) {
		if (*s == '&')
			EXPECT(!strncmp(s, "&lt;", 4) || !strncmp(s, "&gt;", 4) ||
				       !strncmp(s, "&amp;", 5),
			       "%.10s", s);
		EXPECT(*s != '>', "%.10s", s);
		if (*s != '<')
			continue;
		const char *end = strchr(s, '>');

		EXPECT(end && !memchr(s + 1, '<', (size_t)(end - s - 1)), "%.10s", s);
		if (s[1] == '/') {
			size_t length = (size_t)(end - s - 2);

			EXPECT(depth > 0 && !strncmp(open[depth - 1], s + 2, length), "%.10s", s);
			depth--;
		} else if (s[1] != '?' && end[-1] != '/') {
			EXPECT(depth < 16, "too deep");
			open[depth++] = s + 1;
		}
		s = end;
	}
	EXPECT(depth == 0, "%zu elements are open", depth);
}

static void tell(struct summary *summary, struct trace_reader *reader)
{
	struct progress progress;
	struct output output;

	progress_begin(&progress, "", 1, &options);
	output_begin(&output);
	summary_print(summary, output.stream);
	output_end(&output, true);
	output_begin(&output);
	EXPECT(!summary_json(summary, reader, output.stream, &progress, &options), "%s", complaint);
	output_end(&output, true);
	output_begin(&output);
	EXPECT(!summary_csv(summary, reader, output.stream, &progress, &options), "%s", complaint);
	output_end(&output, false);
	for (int by_caller = 0; by_caller < 2; by_caller++) {
		output_begin(&output);
		EXPECT(!summary_svg(summary, reader, by_caller, output.stream, &progress, &options),
		       "%s", complaint);
		fflush(output.stream);
		xml_look(output.text);
		output_end(&output, true);
	}
}

/* ---- The same again ------------------------------------------------------------------------ */

static void record_compare(const struct trace_record *a, const struct trace_record *b)
{
	EXPECT(a->kind == b->kind && a->time_ns == b->time_ns && a->pid == b->pid &&
		       a->tid == b->tid && a->parent == b->parent && a->file == b->file &&
		       a->dev == b->dev && a->ino == b->ino && a->size_bytes == b->size_bytes,
	       "a record of kind %d", a->kind);
	EXPECT(a->offset == b->offset && a->length == b->length && a->caller == b->caller &&
		       a->start == b->start && a->end == b->end &&
		       a->modified_ns == b->modified_ns && a->number == b->number &&
		       a->text_length == b->text_length &&
		       (a->text_length == 0 || !memcmp(a->text, b->text, a->text_length)),
	       "a record of kind %d", a->kind);
}

static void rewrite(struct trace_reader *reader)
{
	struct trace_reader *again_reader;
	struct trace_record record, again;
	struct trace_writer *writer;
	int fd;

	EXPECT(!trace_create("again", 0, trace_wall_ns(reader), &writer), "no file");
	trace_rewind(reader);
	while (trace_next(reader, &record) > 0)
		trace_add(writer, &record);
	EXPECT(!trace_close(writer), "it cannot be written");
	fd = open("again", O_RDONLY | O_CLOEXEC);
	EXPECT(!trace_open(fd, "again", &again_reader), "%s", trace_error(again_reader));
	EXPECT(trace_wall_ns(reader) == trace_wall_ns(again_reader), "another time");
	trace_rewind(reader);
	while (trace_next(reader, &record) > 0) {
		EXPECT(trace_next(again_reader, &again) == 1, "%s", trace_error(again_reader));
		record_compare(&record, &again);
	}
	EXPECT(trace_next(again_reader, &again) == 0 && !trace_is_cut(again_reader), "%s",
	       trace_error(again_reader));
	trace_reader_free(again_reader);
	close(fd);
}

static void count(void *arg, const struct trace_record *record, const struct summary_file *file,
		  const struct deed *deed)
{
	struct doings *doings = arg;

	(void)file;
	(void)deed;
	doings_add(doings, record);
}

void fuzz_one(const uint8_t *data, size_t size)
{
	struct summary *summary = calloc(1, sizeof(*summary));
	struct trace_reader *reader;
	struct progress progress;
	struct doings doings = {0};
	int fd = file_make(data, size);

	EXPECT(summary, "no memory");
	complaint[0] = '\0';
	progress_begin(&progress, "", 1, &options);
	if (trace_open(fd, "input", &reader) != 0) {
		EXPECT(reader && trace_error(reader)[0], "no sentence");
	} else if (summary_make(summary, reader, NULL, &progress, &options) != TOOL_OK) {
		EXPECT(complaint[0], "no sentence");
	} else {
		EXPECT(!summary_walk(summary, reader, count, &doings, &progress, &options),
		       "not a second time: %s", complaint);
		EXPECT(!memcmp(&doings, &summary->doings, sizeof(doings)),
		       "%llu first writes, then %llu", (unsigned long long)summary->doings.writes,
		       (unsigned long long)doings.writes);
		tell(summary, reader);
		rewrite(reader);
	}
	trace_reader_free(reader);
	summary_free(summary);
	free(summary);
	close(fd);
}
