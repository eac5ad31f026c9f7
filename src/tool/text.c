/* SPDX-License-Identifier: MIT */
/*
 * text.c - numbers as people read them.
 */
#include "tool.h"

#include <inttypes.h>
#include <time.h>

struct text text_size(uint64_t bytes)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	struct text text;
	uint64_t unit_bytes = 1;
	size_t unit = 0;

	while (unit + 1 < sizeof(units) / sizeof(units[0]) && bytes / unit_bytes >= 1024) {
		unit_bytes *= 1024;
		unit++;
	}
	if (bytes % unit_bytes == 0)
		snprintf(text.s, sizeof(text.s), "%" PRIu64 " %s", bytes / unit_bytes, units[unit]);
	else
		snprintf(text.s, sizeof(text.s), "%.1f %s", (double)bytes / (double)unit_bytes,
			 units[unit]);
	return text;
}

struct text text_count(uint64_t number)
{
	char digits[TEXT_MAX];
	struct text text;
	int length = snprintf(digits, sizeof(digits), "%" PRIu64, number);
	size_t to = 0;

	for (int i = 0; i < length; i++) {
		if (i > 0 && (length - i) % 3 == 0)
			text.s[to++] = ',';
		text.s[to++] = digits[i];
	}
	text.s[to] = '\0';
	return text;
}

struct text text_rate(uint64_t bytes, uint64_t time_ns)
{
	struct text text;

	/* bytes per nanosecond * 1000 = 10^6 bytes per second */
	snprintf(text.s, sizeof(text.s), "%.0f MB/s",
		 (double)bytes * 1000.0 / (double)(time_ns ? time_ns : 1));
	return text;
}

struct text text_seconds(uint64_t time_ns)
{
	struct text text;

	snprintf(text.s, sizeof(text.s), "%.2f s", (double)time_ns / 1e9);
	return text;
}

uint64_t tool_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
