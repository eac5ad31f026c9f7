/* SPDX-License-Identifier: MIT */
/*
 * demo.c - `mkwrite demo`: real files, a mapping, a store that refuses, and an independent check.
 *
 * The files are packed into an archive (archive.c) by memcpy into a shared writable view of a
 * sparse file whose store has too small a quota. The refused write arrives as an error with its
 * address; the quota is raised and packing goes on. After sync and close the file is read without
 * the library, and sha256sum has the last word.
 */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <mkwrite/store.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_TREE	     "/usr/include"
#define DEFAULT_FILES_BYTES  (64u * 1024u * 1024u)
#define DEFAULT_DIRTY_BYTES  (16u * 1024u * 1024u)
#define DEFAULT_ARCHIVE_NAME "demo.mkwpack"

const char demo_help[] =
	"Usage: mkwrite demo [OPTION...] [FILE...]\n"
	"\n"
	"Pack FILEs (directories with all beneath them; default: /usr/include, up to 64M)\n"
	"into one archive, by memory writes into a mapping of a sparse file whose store\n"
	"has too small a quota. Show the refused write as the error it is, raise the\n"
	"quota, go on, sync, close. Then read the archive with read(2) and compare the\n"
	"SHA-256 of every file with that of its original, both by sha256sum.\n"
	"\n"
	"  --backend=NAME      uffd (default), or inline: faults served in the own thread\n"
	"  --dirty-limit=SIZE  most dirty memory at a time (default 16M)\n"
	"  --quota=SIZE        the quota to begin with (default 5/8 of the archive)\n"
	"  --keep=DIR          leave the archive in DIR (made if need be)\n"
	"  --json              tell the result as JSON\n"
	"\n"
	"Examples:\n"
	"  mkwrite demo\n"
	"  mkwrite demo --keep=/tmp/packed --quota=1M /etc/services *.c\n"
	"  mkwrite demo --backend=inline --dirty-limit=1M\n"
	"\n"
	"Exit status: 0 all is equal; 1 something failed or differs; 2 wrong command\n"
	"line; 3 not possible on this host; 4 refused in spite of the quota raised.\n";

enum demo_phase { PHASE_PACK, PHASE_SYNC, PHASE_CHECK, PHASES };

struct demo {
	const struct tool_options *options;
	/* asked for */
	unsigned map_flags;
	uint64_t dirty_limit_bytes, quota_bytes;
	const char *keep;
	struct file_list files;
	/* the archive */
	char *path;
	uint64_t size_bytes;
	struct mkw_space *space;
	struct mkw_handle *handle;
	void *view;
	struct archive_writer writer;
	struct progress progress;
	/* what happened */
	size_t packed;
	unsigned refusals;
	uint64_t raised_bytes;
	struct mkw_refusal refusal; /* the first one */
	struct mkw_stat stat;
	struct comparison comparison;
	uint64_t time_ns[PHASES];
};

/* What an interrupt takes away: the archive and its directory, unless they are kept. */
static char *volatile temporary_path, *volatile temporary_directory;

static void temporaries_remove(void)
{
	if (temporary_path)
		unlink(temporary_path);
	if (temporary_directory)
		rmdir(temporary_directory);
}

/* By then the signal has its default action again. */
static void interrupt(int signal)
{
	temporaries_remove();
	raise(signal);
}

static void interrupts_catch(void)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction action = {.sa_handler = interrupt, .sa_flags = (int)SA_RESETHAND};

	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &action, NULL);
}

/* ---- Telling the story --------------------------------------------------------------------- */

/* A line of the story, as it happens. */
static void tell(struct demo *demo, const char *what, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static void tell(struct demo *demo, const char *what, const char *format, ...)
{
	va_list args;

	if (demo->options->json)
		return;
	progress_end(&demo->progress);
	printf("%-13s ", what);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

static void table_print(struct demo *demo)
{
	const struct mkw_stat *stat = &demo->stat;
	uint64_t pack_ns = demo->time_ns[PHASE_PACK];

	if (demo->options->json)
		return;
	printf("\n");
	printf("  store asked (page_mkwrite)   %10s times\n", text_count(stat->notifications).s);
	printf("  pages granted                %10s\n", text_count(stat->pages_granted).s);
	printf("  accesses refused             %10s\n", text_count(stat->refusals).s);
	printf("  pages written back           %10s in %s runs\n",
	       text_count(stat->pages_written).s, text_count(stat->writes).s);
	printf("  granted but never written    %10s given back\n",
	       text_count(stat->pages_unwritten).s);
	printf("  most pages dirty at once     %10s of %s allowed\n",
	       text_count(stat->dirty_peak_bytes / MKW_PAGE_SIZE).s,
	       text_count(stat->dirty_limit_bytes / MKW_PAGE_SIZE).s);
	printf("  time: packing, sync, check   %10s, %s, %s\n", text_seconds(pack_ns).s,
	       text_seconds(demo->time_ns[PHASE_SYNC]).s,
	       text_seconds(demo->time_ns[PHASE_CHECK]).s);
	printf("  packing speed                %10s\n", text_rate(demo->size_bytes, pack_ns).s);
}

static void json_refusal(struct json *json, const struct demo *demo)
{
	char address[32];

	if (demo->refusals == 0) {
		json_null(json, "first_refusal");
		return;
	}
	snprintf(address, sizeof(address), "0x%" PRIxPTR, (uintptr_t)demo->refusal.address);
	json_object(json, "first_refusal");
	json_text(json, "address", address);
	json_number(json, "offset", demo->refusal.offset);
	json_text(json, "errno", strerrorname_np(-demo->refusal.error));
	json_text(json, "message", demo->refusal.message);
	json_number(json, "quota_bytes", demo->quota_bytes);
	json_number(json, "raised_to_bytes", demo->raised_bytes);
	json_end(json);
}

static void json_report(const struct demo *demo, int code)
{
	static const char *const phases[PHASES] = {"pack_seconds", "sync_seconds", "check_seconds"};
	const struct mkw_stat *stat = &demo->stat;
	struct json json;

	json_begin(&json, stdout);
	json_object(&json, NULL);
	json_flag(&json, "equal", code == 0);
	json_number(&json, "files", demo->files.count);
	json_number(&json, "archive_bytes", demo->size_bytes);
	json_refusal(&json, demo);
	json_number(&json, "notifications", stat->notifications);
	json_number(&json, "pages_granted", stat->pages_granted);
	json_number(&json, "refusals", stat->refusals);
	json_number(&json, "pages_written", stat->pages_written);
	json_number(&json, "pages_unwritten", stat->pages_unwritten);
	json_number(&json, "dirty_peak_bytes", stat->dirty_peak_bytes);
	json_number(&json, "dirty_limit_bytes", stat->dirty_limit_bytes);
	for (int i = 0; i < PHASES; i++)
		json_real(&json, phases[i], (double)demo->time_ns[i] / 1e9);
	json_array(&json, "differing");
	for (size_t i = 0; demo->comparison.differing && i < demo->files.count; i++)
		if (strcmp(demo->comparison.originals[i].hex, demo->comparison.copies[i].hex) != 0)
			json_text(&json, NULL, demo->files.entries[i].path);
	json_end(&json);
	json_end(&json);
}

/* ---- Packing ------------------------------------------------------------------------------- */

/* More than the archive needs, since a store may reserve whole extents around what is written; more
 * than it was, should the store still not be content. */
static int quota_raise(struct demo *demo)
{
	uint64_t quota_bytes = demo->size_bytes + demo->size_bytes / 4 + (1u << 20);
	char assignment[64];
	int error;

	if (quota_bytes <= demo->raised_bytes)
		quota_bytes = demo->raised_bytes * 2;
	snprintf(assignment, sizeof(assignment), "quota=%" PRIu64, quota_bytes);
	error = mkw_control(demo->handle, assignment);
	if (error != 0)
		return tool_library_error(demo->options, assignment, error);
	demo->raised_bytes = quota_bytes;
	tell(demo, "quota raised", "%s -> %s by mkw_control; going on with the same bytes",
	     text_size(demo->quota_bytes).s, text_size(quota_bytes).s);
	return 0;
}

/* A write was refused: show it, and remove its cause if that is the quota. */
static int refusal_handle(struct demo *demo, const struct mkw_refusal *refusal)
{
	const char *name = strerrorname_np(-refusal->error);

	if (demo->refusals++ == 0)
		demo->refusal = *refusal;
	tell(demo, "refused", "write to %p, byte %s of the archive", refusal->address,
	     text_count(refusal->offset).s);
	tell(demo, "why", "%s: %s", name ? name : "?", refusal->message);
	if (refusal->error != -ENOSPC && refusal->error != -EDQUOT) {
		tool_error(demo->options, "%s: %s (a quota would not help)", demo->path,
			   refusal->message);
		return TOOL_REFUSED;
	}
	/* Twice the quota each time: soon it is larger than any store. */
	if (demo->raised_bytes > demo->size_bytes * 8 + (1u << 30)) {
		tool_error(demo->options, "%s: %s (make room in the file system)", demo->path,
			   refusal->message);
		return TOOL_REFUSED;
	}
	tell(demo, "caught",
	     "by mkw_guard as an errno, not a death by SIGBUS; %s of %s files are packed",
	     text_count(demo->packed).s, text_count(demo->files.count).s);
	return quota_raise(demo);
}

struct piece {
	unsigned char *to;
	const void *from;
	size_t length;
};

static void piece_copy(void *arg)
{
	const struct piece *piece = arg;

	memcpy(piece->to, piece->from, piece->length);
}

/* memcpy may have begun anywhere, so a refused piece is copied again from its beginning; pages that
 * were granted are not asked for again (contract S1.5). */
static int packing_copy(void *arg, unsigned char *to, const void *from, size_t length)
{
	struct demo *demo = arg;
	struct piece piece = {.to = to, .from = from, .length = length};
	struct mkw_refusal refusal;
	int code;

	do {
		memset(&refusal, 0, sizeof(refusal));
		if (mkw_guard(piece_copy, &piece, &refusal) == 0)
			return 0;
		code = refusal_handle(demo, &refusal);
	} while (code == 0);
	return code;
}

static int packing_next(void *arg, size_t index, uint64_t offset)
{
	struct demo *demo = arg;

	demo->packed = index + 1;
	progress_show(&demo->progress, offset);
	return 0;
}

/* Sparse and of the archive's size: what is reserved is asked for write by write. */
static int packing_open(struct demo *demo)
{
	struct mkw_space_options space_options = MKW_SPACE_OPTIONS_INIT;
	char *file_uri = uri_from_path(demo->path);
	char *uri = NULL;
	int error;

	if (!file_uri || asprintf(&uri, "%s?quota=%" PRIu64, file_uri, demo->quota_bytes) < 0) {
		free(file_uri);
		return tool_errno(demo->options, demo->path);
	}
	free(file_uri);
	tell(demo, "store", "%s, a quota of %s", uri, text_size(demo->quota_bytes).s);
	space_options.dirty_limit_bytes = demo->dirty_limit_bytes;
	space_options.log = tool_log;
	space_options.log_arg = (void *)(uintptr_t)demo->options;
	error = mkw_space_create(&space_options, &demo->space);
	if (error == 0)
		error = mkw_open(demo->space, uri, MKW_RDWR | MKW_CREATE | MKW_EXCL, &demo->handle);
	if (error == 0)
		error = mkw_truncate(demo->handle, demo->size_bytes);
	if (error == 0)
		error = mkw_map(demo->handle, demo->size_bytes, MKW_READ | MKW_WRITE,
				demo->map_flags, 0, &demo->view);
	if (error == 0)
		tell(demo, "mapped", "at %p, shared and writable; faults are served %s", demo->view,
		     demo->map_flags ? "in this thread (inline)" : "by other threads (uffd)");
	free(uri);
	return error == 0 ? 0 : tool_library_error(demo->options, demo->path, error);
}

static int packing_run(struct demo *demo)
{
	uint64_t start_ns = tool_now_ns();
	int code, error;

	demo->writer = (struct archive_writer){
		.bytes = demo->view,
		.size_bytes = demo->size_bytes,
		.copy = packing_copy,
		.packed = packing_next,
		.arg = demo,
	};
	progress_begin(&demo->progress, "packing", demo->size_bytes, demo->options);
	code = archive_write(&demo->writer, &demo->files, demo->options);
	progress_end(&demo->progress);
	demo->time_ns[PHASE_PACK] = tool_now_ns() - start_ns;
	if (code != 0)
		return code;
	if (demo->refusals == 0)
		tell(demo, "not refused", "a quota of %s was enough",
		     text_size(demo->quota_bytes).s);
	tell(demo, "packed", "%s files by memory writes, with at most %s dirty at a time",
	     text_count(demo->packed).s, text_size(demo->dirty_limit_bytes).s);

	start_ns = tool_now_ns();
	error = mkw_sync(demo->handle, 0, 0);
	demo->time_ns[PHASE_SYNC] = tool_now_ns() - start_ns;
	if (error != 0) {
		tool_library_error(demo->options, demo->path, error);
		return error_is_refusal(error) ? TOOL_REFUSED : TOOL_FAILED;
	}
	error = mkw_space_stat(demo->space, &demo->stat, sizeof(demo->stat));
	return error == 0 ? 0 : tool_library_error(demo->options, "statistics", error);
}

/* Whatever had gone wrong before; code is what the demo has come to so far. */
static int packing_close(struct demo *demo, int code)
{
	int errors[3] = {0};

	if (demo->view)
		errors[0] = mkw_unmap(demo->view, demo->size_bytes);
	if (demo->handle && code != 0)
		mkw_discard(demo->handle, 0, demo->size_bytes);
	if (demo->handle)
		errors[1] = mkw_close(demo->handle);
	if (demo->space)
		errors[2] = mkw_space_destroy(demo->space, code ? MKW_DISCARD : 0);
	demo->view = NULL;
	demo->handle = NULL;
	demo->space = NULL;
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]) && code == 0; i++)
		if (errors[i] != 0)
			code = tool_library_error(demo->options, demo->path, errors[i]);
	return code;
}

/* ---- Checking, without the library --------------------------------------------------------- */

static int archive_check(struct demo *demo)
{
	uint64_t start_ns = tool_now_ns();
	int code = comparison_run(&demo->comparison, demo->path, &demo->files, demo->options);

	demo->time_ns[PHASE_CHECK] = tool_now_ns() - start_ns;
	if (code == 0)
		tell(demo, "compared",
		     "read with read(2), sha256sum of %s files and their originals: all equal",
		     text_count(demo->files.count).s);
	if (code == 0 && demo->stat.dirty_peak_bytes > demo->dirty_limit_bytes) {
		tool_error(demo->options, "%s of memory were dirty, the limit is %s (a bug)",
			   text_size(demo->stat.dirty_peak_bytes).s,
			   text_size(demo->dirty_limit_bytes).s);
		code = TOOL_FAILED;
	}
	return code;
}

/* ---- The whole ----------------------------------------------------------------------------- */

static int files_collect(struct demo *demo, int argc, char **argv)
{
	int code = 0;

	if (argc == 1)
		code = files_add(&demo->files, DEFAULT_TREE, DEFAULT_FILES_BYTES, demo->options);
	for (int i = 1; i < argc && code == 0; i++)
		code = files_add(&demo->files, argv[i], 0, demo->options);
	if (code != 0)
		return code;
	if (demo->files.count == 0) {
		tool_error(demo->options, "%s: no files there (name some on the command line)",
			   argc == 1 ? DEFAULT_TREE : argv[1]);
		return TOOL_FAILED;
	}
	demo->size_bytes = archive_size(&demo->files);
	if (demo->quota_bytes == 0)
		demo->quota_bytes = (demo->size_bytes / 8 * 5 / MKW_PAGE_SIZE + 1) * MKW_PAGE_SIZE;
	demo->raised_bytes = demo->quota_bytes;
	return 0;
}

/* A temporary directory of our own. */
static int directory_make(const struct tool_options *options)
{
	const char *parent = getenv("TMPDIR");
	char *directory;

	if (!parent || parent[0] == '\0')
		parent = "/tmp";
	if (asprintf(&directory, "%s/mkwrite-demo.XXXXXX", parent) < 0)
		return tool_errno(options, parent);
	if (!mkdtemp(directory)) {
		free(directory);
		return tool_errno(options, parent);
	}
	temporary_directory = directory;
	return 0;
}

static int path_make(struct demo *demo)
{
	int code = 0;

	if (!demo->keep)
		code = directory_make(demo->options);
	else if (mkdir(demo->keep, 0777) != 0 && errno != EEXIST)
		code = tool_errno(demo->options, demo->keep);
	if (code != 0)
		return code;
	if (asprintf(&demo->path, "%s/%s", demo->keep ? demo->keep : temporary_directory,
		     DEFAULT_ARCHIVE_NAME) < 0) {
		demo->path = NULL;
		return tool_errno(demo->options, DEFAULT_ARCHIVE_NAME);
	}
	if (!demo->keep)
		temporary_path = demo->path;
	return 0;
}

static void demo_clean(struct demo *demo)
{
	temporaries_remove();
	temporary_path = NULL;
	free(temporary_directory);
	temporary_directory = NULL;
	free(demo->path);
	comparison_free(&demo->comparison);
	files_free(&demo->files);
}

static int demo_run(struct demo *demo)
{
	int code;

	tell(demo, "files", "%s with %s, for an archive of %s", text_count(demo->files.count).s,
	     text_size(demo->files.size_bytes).s, text_size(demo->size_bytes).s);
	code = path_make(demo);
	if (code == 0)
		code = packing_open(demo);
	if (code == 0)
		code = packing_run(demo);
	code = packing_close(demo, code);
	if (code == 0) {
		tell(demo, "synced", "in %s, and closed",
		     text_seconds(demo->time_ns[PHASE_SYNC]).s);
		code = archive_check(demo);
		table_print(demo);
		if (demo->keep)
			tell(demo, "\nkept", "%s", demo->path);
		if (demo->options->json)
			json_report(demo, code);
	}
	return code;
}

int demo_main(int argc, char **argv, const struct tool_options *options)
{
	struct demo demo = {.options = options, .dirty_limit_bytes = DEFAULT_DIRTY_BYTES};
	const struct option_spec specs[] = {
		{"backend", OPTION_BACKEND, &demo.map_flags},
		{"dirty-limit", OPTION_SIZE, &demo.dirty_limit_bytes},
		{"quota", OPTION_SIZE, &demo.quota_bytes},
		{"keep", OPTION_TEXT, &demo.keep},
		{NULL, OPTION_FLAG, NULL},
	};
	int code = options_take(&argc, argv, specs, options);

	if (code != 0)
		return code;
	/* An instruction may write across a boundary of pages, and needs both at a time. */
	if (demo.dirty_limit_bytes < 2 * MKW_PAGE_SIZE)
		return tool_usage(options, "--dirty-limit: two pages (%u bytes) are the least",
				  2 * MKW_PAGE_SIZE);
	interrupts_catch();
	code = files_collect(&demo, argc, argv);
	if (code == 0)
		code = demo_run(&demo);
	demo_clean(&demo);
	return code;
}
