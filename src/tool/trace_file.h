/* SPDX-License-Identifier: MIT */
/*
 * trace_file.h - the file of `mkwrite run --trace`: a head, then records, only ever added to.
 *
 * The head is 32 bytes: the 8 bytes MKWTRACE, u32 version, u32 size of the head, u64 the time of
 * the start by CLOCK_MONOTONIC, u64 the same by CLOCK_REALTIME, in ns, little endian. A record is a
 * byte for its kind, u16 for the size of what follows, then its numbers, in the order of the table
 * in trace_file.c, and its text, which is what is left. Numbers are LEB128: seven bits a byte, the
 * lowest first, the eighth bit says that there are more. Times are ns since the start.
 *
 * A file is read as what anybody may have made. One that ends inside of a record is what a killed
 * writer leaves: it is read up to there.
 */
#ifndef TRACE_FILE_H
#define TRACE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRACE_VERSION	 1u
#define TRACE_HEAD_BYTES 32u
#define TRACE_TEXT_MAX	 4096u
#define TRACE_FILES	 65536u
#define TRACE_NO_FILE	 65535u /* a file that the table of the run had no room for */

enum trace_kind {
	TRACE_PROCESS = 1, /* pid runs a program from here on; text: argv, each with its NUL */
	TRACE_FORK,	   /* pid was made by parent, and has its modules */
	TRACE_FILE,	   /* what file means; comes before its first event; text: path */
	TRACE_MODULE,	   /* pid has path mapped at [start, end), for names of callers */
	TRACE_WRITE,	   /* first write to the range, by an access at caller */
	TRACE_CALL,	   /* the same, by a system call */
	TRACE_SYNC,	   /* of the range; length 0: of all */
	TRACE_LOST,	   /* number events are missing here */
	TRACE_END,	   /* number: the program's wait status */
	TRACE_KINDS
};

struct trace_record {
	enum trace_kind kind;
	uint64_t time_ns, pid, tid, parent;
	uint64_t file, dev, ino, size_bytes;
	uint64_t offset, length, caller;  /* offset of a module: in path, of what is at start */
	uint64_t start, end, modified_ns; /* a module; size_bytes is that of path */
	uint64_t number;
	const char *text; /* read: ends with a NUL that is not counted, good until the next one */
	size_t text_length;
};

/* ---- Writing ------------------------------------------------------------------------------- */

struct trace_writer;

/* The file is made, or written over. 0 or -errno. */
int trace_create(const char *path, uint64_t start_ns, uint64_t wall_ns,
		 struct trace_writer **writer);
/* Add a record, with time_ns by CLOCK_MONOTONIC. What cannot be written, as on a full disk, is kept
 * as far as there is room, then counted, and told by TRACE_LOST where writing goes on. */
void trace_add(struct trace_writer *writer, const struct trace_record *record);
/* What was added is in the file. 0 or -errno. */
int trace_flush(struct trace_writer *writer);
/* 0 or -errno: something is missing in the file. */
int trace_close(struct trace_writer *writer);

/* ---- Reading ------------------------------------------------------------------------------- */

struct trace_reader;

/* Read the file that fd has open, as large as it is now; fd and path, for messages, stay the
 * caller's, and are needed. *reader is made
 * unless there is no memory; then trace_error says what a negative errno means. */
int trace_open(int fd, const char *path, struct trace_reader **reader);
/* 1: a record, checked; 0: the end; -EPROTO: the file is wrong, -errno: it cannot be read. */
int trace_next(struct trace_reader *reader, struct trace_record *record);
void trace_rewind(struct trace_reader *reader);
/* After the end: the file stops inside of a record. */
bool trace_is_cut(const struct trace_reader *reader);
uint64_t trace_wall_ns(const struct trace_reader *reader);
uint64_t trace_size(const struct trace_reader *reader);
/* How far it is read: offset of the next record. */
uint64_t trace_position(const struct trace_reader *reader);
const char *trace_error(const struct trace_reader *reader);
void trace_reader_free(struct trace_reader *reader);

#endif
