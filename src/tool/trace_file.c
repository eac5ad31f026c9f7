/* SPDX-License-Identifier: MIT */
/*
 * trace_file.c - the format of trace files: one table says which numbers a record has and what they
 * may be; the writer and the reader go by it.
 */
#include "trace_file.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char trace_magic[8] = "MKWTRACE";

/* ---- The table ----------------------------------------------------------------------------- */

#define TIME_MAX     ((uint64_t)1 << 62)
#define FIELDS_MAX   8
#define NUMBER_BYTES 10 /* the most that a number takes */
#define FIXED_BYTES  3	/* kind, size */
#define PAYLOAD_MAX  (FIELDS_MAX * NUMBER_BYTES + TRACE_TEXT_MAX)

struct field {
	const char *name;
	size_t at; /* in struct trace_record */
	uint64_t min, max;
};

#define FIELD(member, min, max)                                          \
	{                                                                \
#member, offsetof(struct trace_record, member), min, max \
	}
#define TIME   FIELD(time_ns, 0, TIME_MAX)
#define PID    FIELD(pid, 1, INT32_MAX)
#define FILE_  FIELD(file, 0, TRACE_FILES - 1)
#define OFFSET FIELD(offset, 0, INT64_MAX)
/* clang-format off */
static const struct layout {
	struct field fields[FIELDS_MAX]; /* up to the first without a name */
	bool text;
} layouts[TRACE_KINDS] = {
	[TRACE_PROCESS] = {{TIME, PID}, true},
	[TRACE_FORK]	= {{TIME, PID, FIELD(parent, 0, INT32_MAX)}, false},
	[TRACE_FILE]	= {{FILE_, FIELD(dev, 0, UINT64_MAX), FIELD(ino, 0, UINT64_MAX),
			    FIELD(size_bytes, 0, INT64_MAX)}, true},
	[TRACE_MODULE]	= {{PID, FIELD(start, 0, UINT64_MAX), FIELD(end, 1, UINT64_MAX), OFFSET,
			    FIELD(size_bytes, 0, INT64_MAX), FIELD(modified_ns, 0, UINT64_MAX)},
			   true},
	[TRACE_WRITE]	= {{TIME, PID, FIELD(tid, 1, INT32_MAX), FILE_, OFFSET,
			    FIELD(length, 1, INT64_MAX), FIELD(caller, 0, UINT64_MAX)}, false},
	[TRACE_CALL]	= {{TIME, PID, FIELD(tid, 1, INT32_MAX), FILE_, OFFSET,
			    FIELD(length, 1, INT64_MAX), FIELD(caller, 0, UINT64_MAX)}, false},
	[TRACE_SYNC]	= {{TIME, PID, FIELD(tid, 1, INT32_MAX), FILE_, OFFSET,
			    FIELD(length, 0, INT64_MAX), FIELD(caller, 0, UINT64_MAX)}, false},
	[TRACE_LOST]	= {{FIELD(number, 1, UINT64_MAX)}, false},
	[TRACE_END]	= {{TIME, FIELD(number, 0, UINT32_MAX)}, false},
};
/* clang-format on */

static uint64_t field_get(const struct trace_record *record, const struct field *field)
{
	uint64_t value;

	memcpy(&value, (const char *)record + field->at, sizeof(value));
	return value;
}

static void field_set(struct trace_record *record, const struct field *field, uint64_t value)
{
	memcpy((char *)record + field->at, &value, sizeof(value));
}

/* ---- Writing ------------------------------------------------------------------------------- */

#define BUFFER_BYTES ((size_t)256 << 10)
#define WRITE_BYTES  ((size_t)64 << 10) /* buffered before it is written */

struct trace_writer {
	int fd;
	int error; /* of the last write that failed; 0 after one that did not */
	uint64_t start_ns;
	uint64_t lost;	/* not told of yet */
	bool ever_lost; /* something is missing */
	size_t filled;
	unsigned char buffer[BUFFER_BYTES];
};

static unsigned char *number_put(unsigned char *to, uint64_t value)
{
	while (value >= 0x80) {
		*to++ = (unsigned char)(value | 0x80);
		value >>= 7;
	}
	*to++ = (unsigned char)value;
	return to;
}

/* Returns where the record ends. to has room for the largest. */
static unsigned char *record_put(unsigned char *to, const struct trace_record *record)
{
	const struct layout *layout = &layouts[record->kind];
	unsigned char *payload = to + FIXED_BYTES, *end = payload;
	uint16_t size;

	for (const struct field *field = layout->fields; field->name; field++)
		end = number_put(end, field_get(record, field));
	if (layout->text && record->text_length > 0) {
		memcpy(end, record->text, record->text_length);
		end += record->text_length;
	}
	to[0] = (unsigned char)record->kind;
	size = htole16((uint16_t)(end - payload));
	memcpy(to + 1, &size, sizeof(size));
	return end;
}

/* What cannot be written stays in the buffer. */
static void buffer_write(struct trace_writer *writer)
{
	size_t done = 0;

	writer->error = 0;
	while (done < writer->filled) {
		ssize_t n = write(writer->fd, writer->buffer + done, writer->filled - done);

		if (n > 0)
			done += (size_t)n;
		else if (n == 0 || errno != EINTR) {
			writer->error = n == 0 ? -EIO : -errno;
			break;
		}
	}
	writer->filled -= done;
	memmove(writer->buffer, writer->buffer + done, writer->filled);
}

static bool record_buffer(struct trace_writer *writer, const struct trace_record *record)
{
	unsigned char *end;

	if (BUFFER_BYTES - writer->filled < FIXED_BYTES + PAYLOAD_MAX)
		return false;
	end = record_put(writer->buffer + writer->filled, record);
	writer->filled = (size_t)(end - writer->buffer);
	return true;
}

static void lost_tell(struct trace_writer *writer)
{
	const struct trace_record record = {.kind = TRACE_LOST, .number = writer->lost};

	if (writer->lost > 0 && record_buffer(writer, &record))
		writer->lost = 0;
}

void trace_add(struct trace_writer *writer, const struct trace_record *record)
{
	struct trace_record copy = *record;

	assert(record->kind > 0 && record->kind < TRACE_KINDS);
	/* An event may be older than the trace by what its thread was held up. */
	copy.time_ns = record->time_ns > writer->start_ns ? record->time_ns - writer->start_ns : 0;
	if (copy.text_length > TRACE_TEXT_MAX)
		copy.text_length = TRACE_TEXT_MAX;
	if (writer->filled >= WRITE_BYTES)
		buffer_write(writer);
	lost_tell(writer);
	if (writer->lost > 0 || !record_buffer(writer, &copy)) {
		writer->lost++;
		writer->ever_lost = true;
	}
}

int trace_flush(struct trace_writer *writer)
{
	lost_tell(writer);
	buffer_write(writer);
	return writer->error;
}

static void head_put(struct trace_writer *writer, uint64_t wall_ns)
{
	const uint32_t numbers[2] = {htole32(TRACE_VERSION), htole32(TRACE_HEAD_BYTES)};
	const uint64_t times[2] = {htole64(writer->start_ns), htole64(wall_ns)};

	memcpy(writer->buffer, trace_magic, sizeof(trace_magic));
	memcpy(writer->buffer + 8, numbers, sizeof(numbers));
	memcpy(writer->buffer + 16, times, sizeof(times));
	writer->filled = TRACE_HEAD_BYTES;
}

int trace_create(const char *path, uint64_t start_ns, uint64_t wall_ns,
		 struct trace_writer **writer_out)
{
	struct trace_writer *writer = malloc(sizeof(*writer));
	int error;

	if (!writer)
		return -ENOMEM;
	writer->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
	if (writer->fd < 0) {
		error = -errno;
		free(writer);
		return error;
	}
	writer->error = 0;
	writer->start_ns = start_ns;
	writer->lost = 0;
	writer->ever_lost = false;
	head_put(writer, wall_ns);
	*writer_out = writer;
	return 0;
}

int trace_close(struct trace_writer *writer)
{
	int error = trace_flush(writer);

	if (writer->lost > 0) /* there was no room for telling it before */
		error = trace_flush(writer);
	if (close(writer->fd) != 0 && error == 0)
		error = -errno;
	if (error == 0 && writer->ever_lost)
		error = -ENOBUFS;
	free(writer);
	return error;
}

/* ---- Reading ------------------------------------------------------------------------------- */

#define ERROR_MAX  512
#define PATH_SHOWN 256 /* bytes of it in an error */

struct trace_reader {
	int fd;
	const char *path;
	bool cut, ended;
	uint64_t size, wall_ns;
	uint64_t position; /* of the next record */
	uint64_t first;	   /* offset in the file of buffer[0] */
	size_t filled;
	bool known[TRACE_FILES]; /* files that had their record */
	char text[TRACE_TEXT_MAX + 1];
	char error[ERROR_MAX];
	unsigned char buffer[BUFFER_BYTES];
};

__attribute__((format(printf, 2, 3))) static int wrong(struct trace_reader *reader,
						       const char *format, ...)
{
	va_list args;
	int length = snprintf(reader->error, ERROR_MAX, "%.*s: at offset %" PRIu64 ": ", PATH_SHOWN,
			      reader->path, reader->position);

	va_start(args, format);
	vsnprintf(reader->error + length, (size_t)(ERROR_MAX - length), format, args);
	va_end(args);
	return -EPROTO;
}

/* As in errno. */
static int unreadable(struct trace_reader *reader)
{
	int error = -errno;

	snprintf(reader->error, ERROR_MAX, "%.*s: %s", PATH_SHOWN, reader->path, strerror(-error));
	return error;
}

/* Fill the buffer from the next record on, as far as the file goes. */
static int buffer_read(struct trace_reader *reader)
{
	uint64_t left = reader->size - reader->position;

	reader->first = reader->position;
	reader->filled = 0;
	while (reader->filled < BUFFER_BYTES && reader->filled < left) {
		ssize_t n = pread(reader->fd, reader->buffer + reader->filled,
				  BUFFER_BYTES - reader->filled,
				  (off_t)(reader->first + reader->filled));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return unreadable(reader);
		if (n == 0)
			break;
		reader->filled += (size_t)n;
	}
	return 0;
}

/* The next bytes, length of them or what is left, are at *at. */
static int bytes_get(struct trace_reader *reader, size_t length, const unsigned char **at,
		     size_t *got)
{
	uint64_t left = reader->size - reader->position;
	size_t skipped, there;

	if (length > left)
		length = (size_t)left;
	if (reader->position < reader->first ||
	    reader->position + length > reader->first + reader->filled) {
		int error = buffer_read(reader);

		if (error)
			return error;
	}
	skipped = (size_t)(reader->position - reader->first);
	there = reader->filled - skipped;
	*at = reader->buffer + skipped;
	*got = there < length ? there : length;
	return 0;
}

/* NULL: there is no whole number of 64 bits. */
static const unsigned char *number_get(const unsigned char *at, const unsigned char *end,
				       uint64_t *value)
{
	*value = 0;
	for (unsigned shift = 0; at < end; shift += 7) {
		uint64_t bits = *at & 0x7f;

		if (shift > 63 || (shift == 63 && bits > 1))
			return NULL;
		*value |= bits << shift;
		if (!(*at++ & 0x80))
			return at;
	}
	return NULL;
}

static int text_get(struct trace_reader *reader, struct trace_record *record,
		    const unsigned char *at, size_t length)
{
	if (length > TRACE_TEXT_MAX)
		return wrong(reader, "a text of %zu bytes", length);
	memcpy(reader->text, at, length);
	reader->text[length] = '\0';
	record->text = reader->text;
	record->text_length = length;
	if (record->kind != TRACE_PROCESS && strlen(reader->text) != length)
		return wrong(reader, "a path with a NUL");
	return 0;
}

/* What the table cannot say. */
static int record_judge(struct trace_reader *reader, const struct trace_record *record)
{
	switch (record->kind) {
	case TRACE_FILE:
		if (reader->known[record->file])
			return wrong(reader, "file %" PRIu64 " is told of twice", record->file);
		reader->known[record->file] = true;
		break;
	case TRACE_MODULE:
		if (record->end <= record->start ||
		    record->end - record->start > INT64_MAX - record->offset)
			return wrong(reader, "a module of a range that cannot be");
		break;
	case TRACE_WRITE:
	case TRACE_CALL:
	case TRACE_SYNC:
		if (record->file != TRACE_NO_FILE && !reader->known[record->file])
			return wrong(reader, "file %" PRIu64 " was not told of", record->file);
		if (record->length > INT64_MAX - record->offset)
			return wrong(reader, "a range past the end of all files");
		break;
	case TRACE_END:
		reader->ended = true;
		break;
	default:
		break;
	}
	return 0;
}

static int payload_get(struct trace_reader *reader, struct trace_record *record,
		       const unsigned char *at, const unsigned char *end)
{
	const struct layout *layout = &layouts[record->kind];

	for (const struct field *field = layout->fields; field->name; field++) {
		uint64_t value;

		at = number_get(at, end, &value);
		if (!at)
			return wrong(reader, "no number for %s", field->name);
		if (value < field->min || value > field->max)
			return wrong(reader, "%s cannot be %" PRIu64, field->name, value);
		field_set(record, field, value);
	}
	if (layout->text) {
		int error = text_get(reader, record, at, (size_t)(end - at));

		if (error)
			return error;
	} else if (at != end) {
		return wrong(reader, "%zu bytes too many", (size_t)(end - at));
	}
	return record_judge(reader, record);
}

int trace_next(struct trace_reader *reader, struct trace_record *record)
{
	const unsigned char *at;
	size_t got;
	uint16_t size;
	int error = bytes_get(reader, FIXED_BYTES, &at, &got);

	if (error)
		return error;
	if (got == 0)
		return 0;
	if (reader->ended)
		return wrong(reader, "something follows the end");
	if (at[0] == 0 || at[0] >= TRACE_KINDS)
		return wrong(reader, "no record is of kind %u", at[0]);
	reader->cut = got < FIXED_BYTES;
	if (reader->cut)
		return 0;
	memcpy(&size, at + 1, sizeof(size));
	size = le16toh(size);
	if (size > PAYLOAD_MAX)
		return wrong(reader, "no record has %u bytes", size);
	memset(record, 0, sizeof(*record));
	record->kind = at[0];
	error = bytes_get(reader, FIXED_BYTES + (size_t)size, &at, &got);
	if (error)
		return error;
	reader->cut = got < FIXED_BYTES + (size_t)size;
	if (reader->cut)
		return 0;
	error = payload_get(reader, record, at + FIXED_BYTES, at + FIXED_BYTES + size);
	if (error)
		return error;
	reader->position += FIXED_BYTES + (uint64_t)size;
	return 1;
}

static int head_get(struct trace_reader *reader)
{
	const unsigned char *at;
	uint32_t numbers[2];
	uint64_t times[2];
	size_t got;
	int error = bytes_get(reader, TRACE_HEAD_BYTES, &at, &got);

	if (error)
		return error;
	if (got < TRACE_HEAD_BYTES || memcmp(at, trace_magic, sizeof(trace_magic)) != 0)
		return wrong(reader, "not a trace of mkwrite run");
	memcpy(numbers, at + 8, sizeof(numbers));
	memcpy(times, at + 16, sizeof(times));
	if (le32toh(numbers[0]) != TRACE_VERSION)
		return wrong(reader, "a trace of version %" PRIu32 ", and only %u is known",
			     le32toh(numbers[0]), TRACE_VERSION);
	if (le32toh(numbers[1]) != TRACE_HEAD_BYTES)
		return wrong(reader, "a head of %" PRIu32 " bytes", le32toh(numbers[1]));
	reader->wall_ns = le64toh(times[1]);
	reader->position = TRACE_HEAD_BYTES;
	return 0;
}

int trace_open(int fd, const char *path, struct trace_reader **reader_out)
{
	struct trace_reader *reader = calloc(1, sizeof(*reader));
	struct stat st;

	*reader_out = reader;
	if (!reader)
		return -ENOMEM;
	reader->fd = fd;
	reader->path = path;
	if (fstat(fd, &st) != 0)
		return unreadable(reader);
	if (!S_ISREG(st.st_mode)) { /* it is read twice */
		snprintf(reader->error, ERROR_MAX, "%.*s: not a regular file", PATH_SHOWN, path);
		return -EINVAL;
	}
	reader->size = (uint64_t)st.st_size;
	return head_get(reader);
}

void trace_rewind(struct trace_reader *reader)
{
	reader->position = TRACE_HEAD_BYTES;
	reader->cut = reader->ended = false;
	memset(reader->known, 0, sizeof(reader->known));
}

bool trace_is_cut(const struct trace_reader *reader)
{
	return reader->cut;
}

uint64_t trace_wall_ns(const struct trace_reader *reader)
{
	return reader->wall_ns;
}

uint64_t trace_size(const struct trace_reader *reader)
{
	return reader->size;
}

uint64_t trace_position(const struct trace_reader *reader)
{
	return reader->position;
}

const char *trace_error(const struct trace_reader *reader)
{
	return reader->error;
}

void trace_reader_free(struct trace_reader *reader)
{
	free(reader);
}
