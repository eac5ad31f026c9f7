/* SPDX-License-Identifier: MIT */
/*
 * tool.h - the command mkwrite: what its verbs share. A verb is one file with one function; it uses
 * the library through the public headers alone, as any program would.
 *
 * Results go to stdout, as text for people or, with --json, as one JSON value. Everything else goes
 * to stderr, as "mkwrite VERB: what: why (what to do)". The tool has one thread of its own; only
 * tool_log runs on threads of the library.
 */
#ifndef TOOL_H
#define TOOL_H

#include <mkwrite/mkwrite.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum tool_exit {
	TOOL_OK = 0,
	TOOL_FAILED = 1,       /* something failed, or what was compared differs */
	TOOL_USAGE = 2,	       /* the command line is wrong */
	TOOL_NOT_POSSIBLE = 3, /* not on this host: `mkwrite doctor` says why */
	TOOL_REFUSED = 4,      /* the store refused a write */
};

struct tool_options {
	const char *verb;     /* for messages; NULL outside any verb */
	bool json;	      /* --json was given (it is not in argv any more) */
	bool progress;	      /* stderr is a terminal */
	bool sigpipe_ignored; /* when the command was started; now it is in any case */
};

/* Verbs. argv[0] is the verb, argv[argc] is NULL; they return an exit code. */
int demo_main(int argc, char **argv, const struct tool_options *options);
int doctor_main(int argc, char **argv, const struct tool_options *options);
int info_main(int argc, char **argv, const struct tool_options *options);
int cp_main(int argc, char **argv, const struct tool_options *options);
/* Returns what is said in run/control.h, or ends by the program's signal. */
int run_main(int argc, char **argv, const struct tool_options *options);
int trace_main(int argc, char **argv, const struct tool_options *options);
/* In bench/. Answers --help itself. */
int bench_main(int argc, char **argv, const struct tool_options *options);

extern const char demo_help[], doctor_help[], info_help[], cp_help[], run_help[], trace_help[];

/* ---- options.c: command lines -------------------------------------------------------------- */

enum option_kind {
	OPTION_FLAG,	/* bool */
	OPTION_TEXT,	/* const char * */
	OPTION_SIZE,	/* uint64_t, bytes: "64M" */
	OPTION_BACKEND, /* unsigned, flags for mkw_map */
};

struct option_spec { /* an array of them ends with a NULL name */
	const char *name;
	enum option_kind kind;
	void *value;
};

/* Take the options out of argv, so that the operands are left from argv[1] on. 0, or TOOL_USAGE
 * with a message. "--" ends the options. */
int options_take(int *argc, char **argv, const struct option_spec *specs,
		 const struct tool_options *options);

/* ---- report.c: messages -------------------------------------------------------------------- */

/* "mkwrite VERB: " and the message, a line on stderr. */
void tool_error(const struct tool_options *options, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* A wrong command line: the message and where to look. Returns TOOL_USAGE. */
int tool_usage(const struct tool_options *options, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* A call of the library failed with error (negative errno): "what: the library's sentence (what to
 * do)". Returns the exit code that says so. */
int tool_library_error(const struct tool_options *options, const char *what, int error);
/* The same for a call of the C library; errno says why. Returns TOOL_FAILED. */
int tool_errno(const struct tool_options *options, const char *what);
/* For mkw_space_options.log; arg is the struct tool_options. */
void tool_log(void *arg, enum mkw_log_level level, const char *message);
/* Was the write refused for what the store has to give (space, quota, permission)? */
bool error_is_refusal(int error);

/* ---- text.c: numbers and names for people
 * ------------------------------------------------------------ */

#define TEXT_MAX 32
struct text {
	char s[TEXT_MAX];
};
struct text text_size(uint64_t bytes);			 /* "16 MiB", "61.3 MiB", "12 bytes" */
struct text text_count(uint64_t number);		 /* "12,345" */
struct text text_rate(uint64_t bytes, uint64_t time_ns); /* "151 MB/s" */
struct text text_seconds(uint64_t time_ns);		 /* "0.41 s" */
struct text text_duration(uint64_t time_ns);		 /* the same, or "12.34 ms", "1.23 us" */
const char *text_plural(uint64_t number);		 /* "s" but for 1 */
/* Length of the UTF-8 sequence at text; 0 if it is none (overlong, surrogate, cut, beyond
 * U+10FFFF).
 */
size_t text_utf8_length(const char *text);
/* What a terminal would obey, and what is not UTF-8, as \xNN: for names that others chose. */
void text_print(FILE *out, const char *text);
uint64_t tool_now_ns(void);

/* ---- json.c -------------------------------------------------------------------------------- */

#define JSON_DEPTH_MAX 8
struct json {
	FILE *out;
	unsigned depth;
	bool empty; /* nothing in the innermost value yet */
	char closers[JSON_DEPTH_MAX];
};

/* key is NULL at the top and in arrays. Strings that are not UTF-8 get U+FFFD for each bad byte. */
void json_begin(struct json *json, FILE *out);
void json_object(struct json *json, const char *key);
void json_array(struct json *json, const char *key);
void json_end(struct json *json);
void json_text(struct json *json, const char *key, const char *value);
void json_number(struct json *json, const char *key, uint64_t value);
void json_real(struct json *json, const char *key, double value);
void json_flag(struct json *json, const char *key, bool value);
void json_null(struct json *json, const char *key);

/* ---- progress.c ---------------------------------------------------------------------------- */

struct progress {
	const struct tool_options *options;
	const char *what; /* "copying" */
	uint64_t total_bytes, start_ns, shown_ns;
	bool shown;
};

void progress_begin(struct progress *progress, const char *what, uint64_t total_bytes,
		    const struct tool_options *options);
/* Cheap enough to call per file or per chunk. */
void progress_show(struct progress *progress, uint64_t done_bytes);
/* Take the line away; also before a message. */
void progress_end(struct progress *progress);

/* ---- uri.c: what the tool knows of URIs ---------------------------------------------------- */

/* "file:" and the path, escaped. NULL: no memory. To be freed. */
char *uri_from_path(const char *path);
/* The URI that an argument means: itself, or that of a path. NULL: no memory. To be freed. */
char *uri_from_argument(const char *argument);

struct uri_part { /* one layer or the store at the end; points into the URI, not decoded */
	const char *scheme, *options, *path;
	int scheme_length, options_length, path_length; /* a layer has no path */
	const struct mkw_store_driver *driver;		/* NULL: unknown */
};
/* Split off the first part; *uri goes to the next one, NULL after the store. */
void uri_next(const char **uri, struct uri_part *part);
/* The path of the file: store at the end, decoded, to be freed; NULL if there is none. */
char *uri_file_path(const char *uri);

/* ---- files.c: the files that demo packs ---------------------------------------------------- */

struct file_entry {
	char *path;
	uint64_t size_bytes;
};

struct file_list {
	struct file_entry *entries;
	size_t count, capacity;
	uint64_t size_bytes;
};

/* Add the regular file path, or the regular files beneath the directory path in the order of their
 * names; past limit_bytes in all (0: no limit) the rest is left out. 0 or TOOL_FAILED with a
 * message. */
int files_add(struct file_list *list, const char *path, uint64_t limit_bytes,
	      const struct tool_options *options);
void files_free(struct file_list *list);

/* ---- digest.c: SHA-256 by coreutils -------------------------------------------------------- */

#define DIGEST_MAX 65
struct digest {
	char hex[DIGEST_MAX];
};
/* Have sha256sum compute the digests of files. It inherits descriptors: /proc/self/fd/N is a path.
 * 0 or TOOL_FAILED with a message. */
int digest_files(char *const *paths, size_t count, struct digest *digests,
		 const struct tool_options *options);

/* ---- archive.c: demo's format -------------------------------------------------------------- */

/* The bytes that an archive of these files has. */
uint64_t archive_size(const struct file_list *list);

struct archive_writer {
	unsigned char *bytes; /* where the archive goes: memory */
	uint64_t size_bytes, offset;
	/* Copy into memory; returns 0 or an exit code, which ends the packing. */
	int (*copy)(void *arg, unsigned char *to, const void *from, size_t length);
	/* Called after each file. A nonzero answer ends the packing. */
	int (*packed)(void *arg, size_t index, uint64_t offset);
	void *arg;
};
int archive_write(struct archive_writer *writer, const struct file_list *list,
		  const struct tool_options *options);

struct archive_reader {
	int fd;
	const char *path;
	uint64_t size_bytes, index_offset;
	unsigned char *buffer;
	const struct tool_options *options;
};
/* By read(2) alone. The archive must hold count files. 0 or TOOL_FAILED with a message. */
int archive_open(struct archive_reader *reader, const char *path, size_t count,
		 const struct tool_options *options);
/* Write the bytes of the file to fd. Its name and size must be those of file. */
int archive_extract(const struct archive_reader *reader, size_t index,
		    const struct file_entry *file, int fd);
void archive_close(struct archive_reader *reader);

/* ---- compare.c: is the archive what it should be? ------------------------------------------ */

struct comparison {
	struct digest *originals, *copies; /* one for each file; to be freed */
	size_t differing;
};
/* Have sha256sum read the files and what the archive at path has of them. 0, or TOOL_FAILED with
 * the names of those that differ. */
int comparison_run(struct comparison *comparison, const char *path, const struct file_list *list,
		   const struct tool_options *options);
void comparison_free(struct comparison *comparison);

/* ---- host.c, selftest.c: for doctor -------------------------------------------------------- */

#define HOST_TEXT_MAX 128
struct host {
	char release[HOST_TEXT_MAX];
	unsigned major, minor;
	char container[HOST_TEXT_MAX]; /* "" or what points to one */
	int seccomp;		       /* as /proc/self/status has it; -1: unknown */
	bool ptrace_capability;	       /* CAP_SYS_PTRACE is effective */
	int64_t unprivileged;	       /* vm.unprivileged_userfaultfd; -1: no such file */
	int device_error;	       /* of access(/dev/userfaultfd), 0: usable */
	int64_t map_count_max;	       /* vm.max_map_count */
	uint64_t memory_bytes, available_bytes;
	uint64_t cgroup_bytes; /* memory limit of the own control group; 0: none found */
	uint64_t descriptors_max;
	unsigned cpus;
	bool pagemap_scan;
};
void host_read(struct host *host);

#define SELFTEST_TEXT_MAX 256
struct selftest {
	bool passed;
	char text[SELFTEST_TEXT_MAX]; /* what was seen, or what failed */
};
/* Map, write and sync an object in memory, in a child process so that nothing can hang or hurt the
 * caller. */
void selftest_run(unsigned map_flags, struct selftest *test);

#endif
