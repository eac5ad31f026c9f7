/* SPDX-License-Identifier: MIT */
/*
 * trace_summary.h - what a trace says in all: by file, by process and thread, by caller. One pass
 * over the records makes it; the memory it takes does not depend on the number of events.
 */
#ifndef TRACE_SUMMARY_H
#define TRACE_SUMMARY_H

#include "tool.h"
#include "trace_actors.h"
#include "trace_file.h"

/* How often which number was seen; exactly, as there cannot be many different ones whose sum is the
 * number of events. */
struct distribution {
	struct {
		uint64_t value, times;
	} * values; /* ascending */
	size_t count, capacity;
	uint64_t total; /* of times */
};

struct summary_file {
	uint32_t number;
	char *path; /* "" if it has none */
	uint64_t dev, ino, size_bytes;
	bool wanted; /* chosen by the user; nothing else is counted */
	struct doings doings;
	uint64_t by_access, sequential;
	uint64_t first, end;		   /* the range of offsets that was written or synced */
	bool ranged;			   /* there is one */
	uint64_t last_end;		   /* of the last first write */
	uint64_t first_ns, last_ns;	   /* of the first writes */
	uint64_t pause_ns, pause_start_ns; /* the longest between two */
	uint64_t since_sync;		   /* first writes since the last sync */
	struct distribution between_syncs;
};

struct summary {
	struct summary_file *files;
	size_t file_count, file_capacity;
	uint32_t numbers[TRACE_FILES]; /* place in files + 1; 0: none */
	struct actors actors;
	struct doings doings;
	uint64_t lost, last_ns;
	uint64_t events_end_ns; /* of the chosen files */
	bool ended, cut;
	uint32_t status; /* of wait, if ended */
	uint64_t wall_ns;
};

/* Called for each event of a chosen file. */
typedef void summary_event(void *arg, const struct trace_record *record,
			   const struct summary_file *file, const struct deed *deed);

/* Read the whole trace. name chooses files by the path, or the end of it that follows a '/'; NULL:
 * all. 0, or TOOL_FAILED with a message. */
int summary_make(struct summary *summary, struct trace_reader *reader, const char *name,
		 struct progress *progress, const struct tool_options *options);
/* Read it again, for its events. */
int summary_walk(struct summary *summary, struct trace_reader *reader, summary_event *event,
		 void *arg, struct progress *progress, const struct tool_options *options);
void summary_free(struct summary *summary);

uint64_t distribution_median(const struct distribution *distribution);
uint64_t distribution_max(const struct distribution *distribution);

/* ---- What is made of it (trace_print.c, trace_json.c, trace_svg.c)
 * -------------------------------- */

void summary_print(const struct summary *summary, FILE *out);
int summary_json(struct summary *summary, struct trace_reader *reader, FILE *out,
		 struct progress *progress, const struct tool_options *options);
int summary_csv(struct summary *summary, struct trace_reader *reader, FILE *out,
		struct progress *progress, const struct tool_options *options);
/* Draw into out, coloured by callers or by threads. */
int summary_svg(struct summary *summary, struct trace_reader *reader, bool by_caller, FILE *out,
		struct progress *progress, const struct tool_options *options);
/* The numbers of the functions, threads or files, those with the most bytes written first. To be
 * freed; NULL: no memory, or none. */
uint32_t *summary_functions(const struct summary *summary);
uint32_t *summary_threads(const struct summary *summary);
uint32_t *summary_files(const struct summary *summary);
const char *summary_kind(enum trace_kind kind);

#endif
