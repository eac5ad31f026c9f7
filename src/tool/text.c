/* SPDX-License-Identifier: MIT */
/*
 * text.c - numbers as people read them, and texts that are not our own.
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

struct text text_duration(uint64_t time_ns)
{
	struct text text;

	if (time_ns >= 1000000000u)
		return text_seconds(time_ns);
	if (time_ns >= 1000000u)
		snprintf(text.s, sizeof(text.s), "%.2f ms", (double)time_ns / 1e6);
	else
		snprintf(text.s, sizeof(text.s), "%.2f us", (double)time_ns / 1e3);
	return text;
}

const char *text_plural(uint64_t number)
{
	return number == 1 ? "" : "s";
}

size_t text_utf8_length(const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	unsigned second_min = 0x80, second_max = 0xbf;
	size_t length;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		length = 2;
	else if (s[0] >= 0xe0 && s[0] <= 0xef)
		length = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		length = 4;
	else
		return 0;
	if (s[0] == 0xe0)
		second_min = 0xa0;
	else if (s[0] == 0xed)
		second_max = 0x9f;
	else if (s[0] == 0xf0)
		second_min = 0x90;
	else if (s[0] == 0xf4)
		second_max = 0x8f;
	if (s[1] < second_min || s[1] > second_max)
		return 0;
	for (size_t i = 2; i < length; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return length;
}

void text_print(FILE *out, const char *text)
{
	while (*text) {
		const unsigned char *s = (const unsigned char *)text;
		size_t length = text_utf8_length(text);
		bool control = s[0] < 0x20 || s[0] == 0x7f || (s[0] == 0xc2 && s[1] < 0xa0);

		if (length == 0 || control)
			fprintf(out, "\\x%02x", s[0]);
		else
			fwrite(text, 1, length, out);
		text += length && !control ? length : 1;
	}
}

uint64_t tool_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
