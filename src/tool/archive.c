/* SPDX-License-Identifier: MIT */
/*
 * archive.c - the format in which demo packs files. All numbers are little endian:
 *
 *   head     magic "MKWPACK1", size of the archive, offset of the index, number of files (u64 each)
 *   record   magic "FILE", length of the name (u32), size of the file (u64), name, bytes; the next
 *            one starts at a multiple of 8
 *   index    for each file: offset of its record, offset of its bytes, its size (u64 each)
 *
 * The head is written last: an archive that was not finished has none. The writer only copies into
 * memory; the reader only uses pread(2), so it tells what is in the file, not in any mapping.
 */
#include "tool.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_BYTES 262144u

struct archive_head {
	char magic[8];
	uint64_t size_bytes, index_offset, count;
};

struct archive_record {
	char magic[4];
	uint32_t name_length;
	uint64_t size_bytes;
};

struct archive_index {
	uint64_t record_offset, data_offset, size_bytes;
};

static const char head_magic[8] = {'M', 'K', 'W', 'P', 'A', 'C', 'K', '1'};
static const char record_magic[4] = {'F', 'I', 'L', 'E'};

static uint64_t align_up(uint64_t offset)
{
	return (offset + 7) & ~(uint64_t)7;
}

uint64_t archive_size(const struct file_list *list)
{
	uint64_t size = sizeof(struct archive_head);

	for (size_t i = 0; i < list->count; i++)
		size = align_up(size + sizeof(struct archive_record) +
				strlen(list->entries[i].path) + list->entries[i].size_bytes);
	return size + list->count * sizeof(struct archive_index);
}

/* ---- Writing ------------------------------------------------------------------------------- */

static int put(struct archive_writer *writer, const void *from, size_t length)
{
	int code = 0;

	if (length > 0)
		code = writer->copy(writer->arg, writer->bytes + writer->offset, from, length);
	if (code == 0)
		writer->offset += length;
	return code;
}

/* Exactly the bytes that were planned: the archive has room for no others. */
static int file_put(struct archive_writer *writer, const struct file_entry *file, int fd,
		    unsigned char *buffer, const struct tool_options *options)
{
	uint64_t left_bytes = file->size_bytes;
	int code = 0;

	while (left_bytes > 0 && code == 0) {
		size_t length = left_bytes < CHUNK_BYTES ? (size_t)left_bytes : CHUNK_BYTES;
		ssize_t got = read(fd, buffer, length);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return tool_errno(options, file->path);
		if (got == 0)
			break;
		code = put(writer, buffer, (size_t)got);
		left_bytes -= (uint64_t)got;
	}
	if (code == 0 && left_bytes > 0) {
		tool_error(options, "%s: it shrank while it was packed (pack files at rest)",
			   file->path);
		return TOOL_FAILED;
	}
	return code;
}

static int record_write(struct archive_writer *writer, const struct file_entry *file,
			struct archive_index *entry, unsigned char *buffer,
			const struct tool_options *options)
{
	size_t name_length = strlen(file->path);
	struct archive_record record = {
		.name_length = htole32((uint32_t)name_length),
		.size_bytes = htole64(file->size_bytes),
	};
	int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int code;

	if (fd < 0)
		return tool_errno(options, file->path);
	memcpy(record.magic, record_magic, sizeof(record.magic));
	entry->record_offset = htole64(writer->offset);
	entry->size_bytes = record.size_bytes;
	code = put(writer, &record, sizeof(record));
	if (code == 0)
		code = put(writer, file->path, name_length);
	entry->data_offset = htole64(writer->offset);
	if (code == 0)
		code = file_put(writer, file, fd, buffer, options);
	close(fd);
	writer->offset = align_up(writer->offset);
	return code;
}

static int tail_write(struct archive_writer *writer, const struct archive_index *index,
		      size_t count)
{
	struct archive_head head = {
		.size_bytes = htole64(writer->size_bytes),
		.index_offset = htole64(writer->offset),
		.count = htole64(count),
	};
	int code;

	memcpy(head.magic, head_magic, sizeof(head.magic));
	code = put(writer, index, count * sizeof(*index));
	if (code != 0)
		return code;
	writer->offset = 0;
	return put(writer, &head, sizeof(head));
}

int archive_write(struct archive_writer *writer, const struct file_list *list,
		  const struct tool_options *options)
{
	struct archive_index *index = calloc(list->count + 1, sizeof(*index));
	unsigned char *buffer = malloc(CHUNK_BYTES);
	int code = index && buffer ? 0 : tool_errno(options, "packing");

	writer->offset = sizeof(struct archive_head);
	for (size_t i = 0; i < list->count && code == 0; i++) {
		code = record_write(writer, &list->entries[i], &index[i], buffer, options);
		if (code == 0)
			code = writer->packed(writer->arg, i, writer->offset);
	}
	if (code == 0)
		code = tail_write(writer, index, list->count);
	free(buffer);
	free(index);
	return code;
}

/* ---- Reading ------------------------------------------------------------------------------- */

static int damaged(const struct archive_reader *reader, const char *what)
{
	tool_error(reader->options, "%s: %s is not what was packed", reader->path, what);
	return TOOL_FAILED;
}

/* length bytes at offset, or an error. */
static int get(const struct archive_reader *reader, void *to, size_t length, uint64_t offset)
{
	if (offset > reader->size_bytes || length > reader->size_bytes - offset)
		return damaged(reader, "an offset");
	while (length > 0) {
		ssize_t got = pread(reader->fd, to, length, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return tool_errno(reader->options, reader->path);
		if (got == 0)
			return damaged(reader, "the length");
		to = (char *)to + got;
		offset += (uint64_t)got;
		length -= (size_t)got;
	}
	return 0;
}

static int write_all(const struct archive_reader *reader, int fd, const unsigned char *from,
		     size_t length)
{
	while (length > 0) {
		ssize_t put_length = write(fd, from, length);

		if (put_length < 0 && errno == EINTR)
			continue;
		if (put_length < 0)
			return tool_errno(reader->options, "temporary file");
		from += put_length;
		length -= (size_t)put_length;
	}
	return 0;
}

/* The record that entry points to must be that of file. */
static int record_check(const struct archive_reader *reader, const struct archive_index *entry,
			const struct file_entry *file)
{
	uint64_t offset = le64toh(entry->record_offset);
	size_t name_length = strlen(file->path);
	struct archive_record record;
	char name[PATH_MAX];
	int code = get(reader, &record, sizeof(record), offset);

	if (code != 0)
		return code;
	if (memcmp(record.magic, record_magic, sizeof(record.magic)) != 0 ||
	    le32toh(record.name_length) != name_length || name_length >= sizeof(name) ||
	    le64toh(record.size_bytes) != file->size_bytes ||
	    le64toh(entry->size_bytes) != file->size_bytes ||
	    le64toh(entry->data_offset) != offset + sizeof(record) + name_length)
		return damaged(reader, file->path);
	code = get(reader, name, name_length, offset + sizeof(record));
	if (code == 0 && memcmp(name, file->path, name_length) != 0)
		return damaged(reader, file->path);
	return code;
}

int archive_extract(const struct archive_reader *reader, size_t index,
		    const struct file_entry *file, int fd)
{
	struct archive_index entry;
	uint64_t offset, left_bytes = file->size_bytes;
	int code = get(reader, &entry, sizeof(entry), reader->index_offset + index * sizeof(entry));

	if (code == 0)
		code = record_check(reader, &entry, file);
	offset = le64toh(entry.data_offset);
	while (left_bytes > 0 && code == 0) {
		size_t length = left_bytes < CHUNK_BYTES ? (size_t)left_bytes : CHUNK_BYTES;

		code = get(reader, reader->buffer, length, offset);
		if (code == 0)
			code = write_all(reader, fd, reader->buffer, length);
		offset += length;
		left_bytes -= length;
	}
	return code;
}

static int head_read(struct archive_reader *reader, size_t count)
{
	struct archive_head head;
	struct stat stat;
	int code;

	if (fstat(reader->fd, &stat) != 0)
		return tool_errno(reader->options, reader->path);
	reader->size_bytes = (uint64_t)stat.st_size;
	code = get(reader, &head, sizeof(head), 0);
	if (code != 0)
		return code;
	if (memcmp(head.magic, head_magic, sizeof(head.magic)) != 0 ||
	    le64toh(head.size_bytes) != reader->size_bytes || le64toh(head.count) != count)
		return damaged(reader, "the head");
	reader->index_offset = le64toh(head.index_offset);
	return 0;
}

int archive_open(struct archive_reader *reader, const char *path, size_t count,
		 const struct tool_options *options)
{
	int code;

	*reader = (struct archive_reader){.path = path, .options = options};
	reader->fd = open(path, O_RDONLY | O_CLOEXEC);
	reader->buffer = malloc(CHUNK_BYTES);
	code = reader->fd >= 0 && reader->buffer ? head_read(reader, count)
						 : tool_errno(options, path);
	if (code != 0)
		archive_close(reader);
	return code;
}

void archive_close(struct archive_reader *reader)
{
	free(reader->buffer);
	if (reader->fd >= 0)
		close(reader->fd);
}
