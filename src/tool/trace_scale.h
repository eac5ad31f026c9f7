/* SPDX-License-Identifier: MIT */
/*
 * trace_scale.h - axes: where their ticks are, and what stands there.
 */
#ifndef TRACE_SCALE_H
#define TRACE_SCALE_H

#include "tool.h"

struct ticks {
	uint64_t step;
	uint64_t unit_value;
	const char *unit;
	int decimals;
};

/* Times in ns from 0 to end, about count ticks; and what one time is called between them. */
struct ticks ticks_time(uint64_t end_ns, unsigned count);
/* Offsets that span so many bytes, about count ticks, by powers of two. */
struct ticks ticks_size(uint64_t span_bytes, unsigned count);
/* "12 s", "0.25 GiB", "0". */
struct text tick_text(const struct ticks *ticks, uint64_t value);
/* With digits for what lies between ticks: "1.234 s". */
struct text time_text(const struct ticks *ticks, uint64_t time_ns);

#endif
