/* SPDX-License-Identifier: MIT */
/*
 * fuzz.c - around one input: how a target fails, and a look at what it left behind.
 */
#include "fuzz/fuzz.h"

#include <dirent.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE_S	20u /* with one input */
#define MAPS_LOOK_EVERY 64u /* reading the list of mappings costs more than most inputs */

_Noreturn void fuzz_fail(const char *file, int line, const char *format, ...)
{
	va_list list;

	fprintf(stderr, "%s:%d: ", file, line);
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fprintf(stderr, " (last sentence: \"%s\")\n", mkw_error_message());
	abort();
}

bool fuzz_tracing(void)
{
	static int tracing = -1;

	if (tracing < 0)
		tracing = getenv("FUZZ_TRACE") != NULL;
	return tracing;
}

void fuzz_trace(const char *format, ...)
{
	va_list list;

	if (!fuzz_tracing())
		return;
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fputc('\n', stderr);
}

const char *fuzz_unable(void)
{
	static struct mkw_backend_info info[8];
	size_t count = mkw_backends(info, 8);

	for (size_t i = 0; i < count && i < 8; i++)
		if (!info[i].usable)
			return info[i].reason;
	return NULL;
}

/* ---- What is left behind ------------------------------------------------------------------ */

/* Those of the library: libFuzzer has some that come and go. */
static unsigned descriptors_count(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	unsigned count = 0;
	char target[256];

	EXPECT(dir, "no /proc");
	while ((entry = readdir(dir))) {
		ssize_t length = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		target[length > 0 ? length : 0] = '\0';
		count += strstr(target, "userfaultfd") || strstr(target, "pagemap") ||
			 strstr(target, "mkwrite");
	}
	closedir(dir);
	return count;
}

/* Views and frames are mappings of memfds; a store's memory is larger than the allocator asks
 * for. */
static unsigned mappings_count(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned count = 0;
	char line[512];

	EXPECT(maps, "no /proc");
	while (fgets(line, sizeof(line), maps))
		count += strstr(line, "memfd:mkwrite") != NULL;
	fclose(maps);
	return count;
}

/* ---- Hangs -------------------------------------------------------------------------------- */

/* The library keeps signals away from a thread that sleeps in it: an alarm would not be heard. */
static _Atomic unsigned inputs_begun, inputs_ended;

static void *watch(void *unused)
{
	unsigned input = 0, seconds = 0;

	(void)unused;
	for (;; seconds++) {
		sleep(1);
		if (inputs_begun == inputs_ended || inputs_begun != input)
			seconds = 0;
		input = inputs_begun;
		EXPECT(seconds < PATIENCE_S, "no end after %u s", seconds);
	}
	return NULL;
}

static void watch_start(void)
{
	pthread_t thread;

	EXPECT(!pthread_create(&thread, NULL, watch, NULL), "no thread");
	pthread_detach(thread);
}

/* ---- One input ---------------------------------------------------------------------------- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static unsigned runs, descriptors, mappings;

	if (!runs) {
		/* What the first input sets up once and for all is no leak. */
		confine_directory();
		watch_start();
		fuzz_one((const uint8_t *)"", 0);
		descriptors = descriptors_count();
		mappings = mappings_count();
	}
	inputs_begun++;
	fuzz_one(data, size);
	inputs_ended++;
	confine_empty();
	unsigned now = descriptors_count();

	EXPECT(now <= descriptors, "%u descriptors, %u before", now, descriptors);
	if (runs++ % MAPS_LOOK_EVERY)
		return 0;
	now = mappings_count();
	EXPECT(now <= mappings, "%u mappings of frames, %u before", now, mappings);
	return 0;
}
