/* SPDX-License-Identifier: MIT */
/*
 * report.c - medians, counts per page and ratios, as a table for people or as JSON.
 */
#include "bench.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <tool/tool.h>

struct spread {
	double median, min, max;
};

static const char *const unit_names[] = {"ns/page", "ops/s", "%", "MiB"};

double bench_figure(enum bench_unit unit, const struct bench_sample *sample)
{
	double units = sample->units ? (double)sample->units : 1;
	double elapsed = sample->elapsed_ns ? (double)sample->elapsed_ns : 1;

	if (unit == BENCH_NS_PER_PAGE)
		return elapsed / units;
	return unit == BENCH_OPS_PER_SECOND ? units * 1e9 / elapsed : sample->value;
}

static int double_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static struct spread row_spread(const struct bench_row *row)
{
	double figures[BENCH_RUNS_MAX];
	size_t n = row->runs;

	if (n == 0)
		return (struct spread){0, 0, 0};
	for (size_t i = 0; i < n; i++)
		figures[i] = bench_figure(row->measure->unit, &row->samples[i]);
	qsort(figures, n, sizeof(figures[0]), double_compare);
	return (struct spread){.median = (figures[(n - 1) / 2] + figures[n / 2]) / 2,
			       .min = figures[0],
			       .max = figures[n - 1]};
}

/* Counts of all runs together, per page or operation. */
struct per_unit {
	bool has_events;
	double faults, events, calls, wakeups, kernel_faults;
};

static struct per_unit row_counts(const struct bench_row *row)
{
	struct per_unit sum = {0};
	double units = 0;

	for (size_t i = 0; i < row->runs; i++) {
		const struct bench_counts *counts = &row->samples[i].counts;

		units += (double)row->samples[i].units;
		sum.has_events |= counts->has_events;
		sum.faults += (double)counts->faults;
		sum.events += (double)counts->events;
		sum.calls += (double)counts->calls;
		sum.wakeups += (double)counts->wakeups;
		sum.kernel_faults += (double)counts->kernel_faults;
	}
	if (units > 0) {
		sum.faults /= units;
		sum.events /= units;
		sum.calls /= units;
		sum.wakeups /= units;
		sum.kernel_faults /= units;
	}
	return sum;
}

/* ---- Targets ------------------------------------------------------------------------------ */

struct verdict {
	bool judged, met;
	const struct bench_row *baseline;
	double ratio;
};

static bool matches_any(const char *patterns, const char *name)
{
	char pattern[64];
	size_t length;

	for (; *patterns; patterns += length + (patterns[length] == ' ')) {
		length = strcspn(patterns, " ");
		snprintf(pattern, sizeof(pattern), "%.*s", (int)length, patterns);
		if (!fnmatch(pattern, name, 0))
			return true;
	}
	return false;
}

/* "The kernel", "the bare mechanism": the best of what stands for it. */
static const struct bench_row *baseline_find(const struct bench *bench, const struct bench_row *row)
{
	const struct bench_row *best = NULL;
	bool more = row->measure->unit == BENCH_OPS_PER_SECOND;

	for (size_t i = 0; row->measure->against && i < bench->row_count; i++) {
		const struct bench_row *other = &bench->rows[i];

		if (other->runs == 0 || other->error ||
		    !matches_any(row->measure->against, other->measure->name))
			continue;
		if (!best || (row_spread(other).median > row_spread(best).median) == more)
			best = other;
	}
	return best;
}

static bool limit_met(enum bench_target target, double value, double limit)
{
	if (target == BENCH_RATIO_AT_MOST || target == BENCH_FIGURE_AT_MOST)
		return value <= limit;
	return value >= limit;
}

static struct verdict row_judge(const struct bench *bench, const struct bench_row *row)
{
	const struct bench_measure *measure = row->measure;
	struct verdict verdict = {.baseline = baseline_find(bench, row)};
	double figure = row_spread(row).median;

	if (row->runs == 0 || row->error)
		return verdict;
	if (verdict.baseline)
		verdict.ratio = figure / row_spread(verdict.baseline).median;
	/* What is small and run once says nothing about speed. */
	if (bench->options.quick) {
		verdict.judged = false;
	} else if (measure->target == BENCH_FIGURE_AT_MOST ||
		   measure->target == BENCH_FIGURE_AT_LEAST) {
		verdict.judged = true;
		verdict.met = limit_met(measure->target, figure, measure->limit);
	} else if (measure->target != BENCH_NO_TARGET && verdict.baseline) {
		verdict.judged = true;
		verdict.met = limit_met(measure->target, verdict.ratio, measure->limit);
	}
	if (measure->event_free) {
		verdict.met = (!verdict.judged || verdict.met) && !bench_row_counts_broken(row);
		verdict.judged = true;
	}
	return verdict;
}

bool bench_row_counts_broken(const struct bench_row *row)
{
	struct per_unit counts = row_counts(row);

	return row->measure->event_free && (counts.events > 0 || counts.faults > 0);
}

/* ---- Text --------------------------------------------------------------------------------- */

static const char *target_text(const struct bench_measure *measure, char *text, size_t size)
{
	switch (measure->target) {
	case BENCH_RATIO_AT_MOST:
		snprintf(text, size, "<= %.2f x", measure->limit);
		break;
	case BENCH_RATIO_AT_LEAST:
		snprintf(text, size, ">= %.2f x", measure->limit);
		break;
	case BENCH_FIGURE_AT_MOST:
		snprintf(text, size, "<= %.0f %s", measure->limit, unit_names[measure->unit]);
		break;
	case BENCH_FIGURE_AT_LEAST:
		snprintf(text, size, ">= %.0f %s", measure->limit, unit_names[measure->unit]);
		break;
	default:
		snprintf(text, size, "%s", measure->event_free ? "no event" : "");
	}
	return text;
}

static void count_print(FILE *out, bool known, double count)
{
	if (!known)
		fprintf(out, " %7s", "-");
	else
		fprintf(out, " %7.*f", count < 0.01 && count > 0 ? 5 : 3, count);
}

static int figure_digits(double figure)
{
	return figure < 10 ? 2 : figure < 100 ? 1 : 0;
}

static void row_print(const struct bench_row *row, FILE *out)
{
	struct spread spread = row_spread(row);
	struct per_unit counts = row_counts(row);
	int digits = figure_digits(spread.median);
	char range[48];

	fprintf(out, "  %-28s", row->measure->name);
	if (row->error || row->runs == 0) {
		fprintf(out, " %s: %s\n", row->failed ? "FAILED" : "skipped", row->reason);
		return;
	}
	snprintf(range, sizeof(range), "%.*f - %.*f", digits, spread.min, digits, spread.max);
	fprintf(out, " %8.*f %-7s %17s", digits, spread.median, unit_names[row->measure->unit],
		range);
	count_print(out, counts.has_events, counts.faults);
	count_print(out, counts.has_events, counts.events);
	count_print(out, counts.has_events, counts.calls);
	count_print(out, counts.has_events, counts.wakeups);
	count_print(out, row->measure->unit <= BENCH_OPS_PER_SECOND, counts.kernel_faults);
	fprintf(out, "  %s\n", row->measure->text);
}

static void target_print(const struct bench *bench, const struct bench_row *row, FILE *out)
{
	struct verdict verdict = row_judge(bench, row);
	struct spread spread = row_spread(row);
	char target[32], ratio[16] = "";

	fprintf(out, "  %-28s", row->measure->name);
	if (row->error || row->runs == 0) {
		fprintf(out, " %s: %s\n", row->failed ? "FAILED" : "skipped", row->reason);
		return;
	}
	if (verdict.baseline)
		snprintf(ratio, sizeof(ratio), "%.2f x", verdict.ratio);
	fprintf(out, " %8.*f %-7s %9s %-26s %14s  %s\n", figure_digits(spread.median),
		spread.median, unit_names[row->measure->unit], ratio,
		verdict.baseline ? verdict.baseline->measure->name : "",
		target_text(row->measure, target, sizeof(target)),
		!verdict.judged ? "not judged"
		: verdict.met	? "met"
				: "NOT MET");
}

static bool has_target(const struct bench_row *row)
{
	return row->measure->target != BENCH_NO_TARGET || row->measure->event_free;
}

void bench_report_text(const struct bench *bench, FILE *out)
{
	struct utsname host;
	bool any = false;

	uname(&host);
	fprintf(out,
		"mkwrite bench: Linux %s %s, object of %zu MiB, medians of %u runs (min - "
		"max)%s%s\n"
		"counts are per page or operation: faults served, userfaultfd events read, system\n"
		"calls that answered, wake-ups of handlers, faults that the kernel counts\n\n",
		host.release, host.machine, bench->size >> 20, bench->options.runs,
		bench->directory[0] ? ", images in " : "", bench->directory);
	fprintf(out, "  %-28s %8s %-7s %17s %7s %7s %7s %7s %7s\n", "measure", "median", "",
		"min - max", "faults", "events", "calls", "wakeups", "kernel");
	for (size_t i = 0; i < bench->row_count; i++) {
		if (bench->rows[i].selected)
			row_print(&bench->rows[i], out);
		any |= bench->rows[i].selected && has_target(&bench->rows[i]);
	}
	if (!any)
		return;
	fprintf(out, "\n  %-28s %8s %-7s %9s %-26s %14s\n", "target", "median", "", "ratio",
		"to the best of its kind", "target");
	for (size_t i = 0; i < bench->row_count; i++)
		if (bench->rows[i].selected && has_target(&bench->rows[i]))
			target_print(bench, &bench->rows[i], out);
}

/* ---- JSON --------------------------------------------------------------------------------- */

static void counts_json(struct json *json, const struct bench_row *row)
{
	struct per_unit counts = row_counts(row);

	json_object(json, "per_unit");
	if (counts.has_events) {
		json_real(json, "faults", counts.faults);
		json_real(json, "events", counts.events);
		json_real(json, "calls", counts.calls);
		json_real(json, "wakeups", counts.wakeups);
	}
	json_real(json, "kernel_faults", counts.kernel_faults);
	json_end(json);
}

static void row_json(const struct bench *bench, struct json *json, const struct bench_row *row)
{
	struct verdict verdict = row_judge(bench, row);
	struct spread spread = row_spread(row);
	char target[32];

	json_object(json, NULL);
	json_text(json, "name", row->measure->name);
	json_text(json, "text", row->measure->text);
	if (row->error || row->runs == 0) {
		json_text(json, row->failed ? "failed" : "skipped", row->reason);
		json_end(json);
		return;
	}
	json_text(json, "unit", unit_names[row->measure->unit]);
	json_real(json, "median", spread.median);
	json_real(json, "min", spread.min);
	json_real(json, "max", spread.max);
	counts_json(json, row);
	if (verdict.baseline) {
		json_text(json, "baseline", verdict.baseline->measure->name);
		json_real(json, "ratio", verdict.ratio);
	}
	if (has_target(row)) {
		json_text(json, "target", target_text(row->measure, target, sizeof(target)));
		if (verdict.judged)
			json_flag(json, "met", verdict.met);
	}
	json_end(json);
}

void bench_report_json(const struct bench *bench, FILE *out)
{
	struct json json;
	struct utsname host;

	uname(&host);
	json_begin(&json, out);
	json_object(&json, NULL);
	json_text(&json, "kernel", host.release);
	json_text(&json, "machine", host.machine);
	json_number(&json, "object_bytes", bench->size);
	json_number(&json, "runs", bench->options.runs);
	json_text(&json, "images", bench->directory);
	json_array(&json, "rows");
	for (size_t i = 0; i < bench->row_count; i++)
		if (bench->rows[i].selected)
			row_json(bench, &json, &bench->rows[i]);
	json_end(&json);
	json_end(&json);
}
