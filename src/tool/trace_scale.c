/* SPDX-License-Identifier: MIT */
/*
 * trace_scale.c - axes whose ticks are round numbers: of seconds or parts of them by tens, of bytes
 * by powers of two.
 */
#include "trace_scale.h"

#include <string.h>

struct ticks ticks_time(uint64_t end_ns, unsigned count)
{
	static const struct {
		uint64_t value;
		const char *name;
	} units[] = {{1000000000u, "s"}, {1000000u, "ms"}, {1000u, "\xc2\xb5s"}, {1u, "ns"}};
	static const unsigned factors[] = {1, 2, 5};
	struct ticks ticks = {.step = 1};
	uint64_t power = 1;
	size_t unit = 0;

	for (size_t i = 0; ticks.step < end_ns / count; i++) {
		power *= i > 0 && i % 3 == 0 ? 10 : 1;
		ticks.step = power * factors[i % 3];
	}
	while (unit + 1 < sizeof(units) / sizeof(units[0]) && end_ns < units[unit].value)
		unit++;
	ticks.unit_value = units[unit].value;
	ticks.unit = units[unit].name;
	for (uint64_t part = ticks.unit_value; part > ticks.step; part /= 10)
		ticks.decimals++;
	return ticks;
}

struct ticks ticks_size(uint64_t span_bytes, unsigned count)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	struct ticks ticks = {.step = 1, .unit_value = 1};
	size_t unit = 0;

	while (ticks.step < span_bytes / count)
		ticks.step *= 2;
	while (unit + 1 < sizeof(units) / sizeof(units[0]) &&
	       span_bytes / 1024 >= 2 * ticks.unit_value) {
		ticks.unit_value *= 1024;
		unit++;
	}
	ticks.unit = units[unit];
	ticks.decimals = ticks.step % ticks.unit_value == 0	  ? 0
			 : ticks.step * 2 % ticks.unit_value == 0 ? 1
								  : 2;
	return ticks;
}

struct text tick_text(const struct ticks *ticks, uint64_t value)
{
	struct text text;

	if (value == 0)
		return text_count(0);
	if (ticks->decimals == 0)
		snprintf(text.s, sizeof(text.s), "%.25s %s",
			 text_count(value / ticks->unit_value).s, ticks->unit);
	else
		snprintf(text.s, sizeof(text.s), "%.*f %s", ticks->decimals,
			 (double)value / (double)ticks->unit_value, ticks->unit);
	return text;
}

struct text time_text(const struct ticks *ticks, uint64_t time_ns)
{
	int decimals = ticks->decimals + 3, most = 0;
	struct text text;

	for (uint64_t part = ticks->unit_value; part > 1; part /= 10)
		most++;
	snprintf(text.s, sizeof(text.s), "%.*f %s", decimals < most ? decimals : most,
		 (double)time_ns / (double)ticks->unit_value, ticks->unit);
	return text;
}
