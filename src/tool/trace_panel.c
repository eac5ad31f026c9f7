/* SPDX-License-Identifier: MIT */
/*
 * trace_panel.c - what happened to one file: a plot of offsets over time. A first write is a bar as
 * high as it is long; a sync a line, as high as its range.
 *
 * Many writes are counted in cells instead, each of the colour that most of its writes have, and
 * the paler the fewer they are; many syncs are counted in a strip above the plot. So the size of
 * the picture does not grow with that of the trace.
 */
#include "trace_svg.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TIME_TICKS  10u
#define SHADES	    5u
#define FEW_MARKS   2000u
#define MARK_WIDTH  1.6
#define MARK_HEIGHT 1.6 /* at least */
#define BASELINE    4u	/* from the middle of digits down to their baseline */

/* ---- Places -------------------------------------------------------------------------------- */

static double time_x(const struct panel *panel, uint64_t time_ns)
{
	return MARGIN_LEFT + (double)time_ns * PLOT_WIDTH / (double)panel->end_ns;
}

static double offset_y(const struct panel *panel, uint64_t offset)
{
	return panel->top + panel->height -
	       (double)(offset - panel->from) * panel->height / (double)(panel->to - panel->from);
}

/* Syncs may reach farther than writes. */
static uint64_t inside(const struct panel *panel, uint64_t offset)
{
	return offset < panel->from ? panel->from : offset > panel->to ? panel->to : offset;
}

static unsigned below(double value, unsigned limit)
{
	return value < 0 ? 0 : value >= limit ? limit - 1 : (unsigned)value;
}

static unsigned column_of(uint64_t time_ns, const struct panel *panel, unsigned side)
{
	return below((time_x(panel, time_ns) - MARGIN_LEFT) / side, PLOT_WIDTH / side);
}

int panel_begin(struct panel *panel, const struct summary_file *file, uint64_t end_ns, unsigned top,
		unsigned height, unsigned side)
{
	unsigned size_ticks = height / 40;

	*panel = (struct panel){
		.file = file,
		.top = top,
		.height = height,
		.from = file->first,
		.to = file->end,
		.end_ns = end_ns + end_ns / 100 + 1, /* the last mark is seen as well */
		.side = side,
		.strip = file->doings.syncs > SYNC_LINES_MAX,
	};
	/* What begins near the beginning of the file is shown from there. */
	if (panel->from < panel->to / 3)
		panel->from = 0;
	if (panel->to == 0) /* nothing was written */
		panel->to = file->size_bytes ? file->size_bytes : MKW_PAGE_SIZE;
	/* Round, and below what is shown by no more than that spans. */
	for (uint64_t round = 1; round < panel->to - panel->from && round <= panel->from;
	     round *= 2)
		panel->base = panel->from - panel->from % (2 * round);
	panel->times = ticks_time(panel->end_ns, TIME_TICKS);
	panel->sizes = ticks_size(panel->to - panel->from, size_ticks);
	panel->marks = open_memstream(&panel->marks_text, &panel->marks_size);
	panel->syncs = open_memstream(&panel->syncs_text, &panel->syncs_size);
	panel->strip_counts = calloc(PLOT_WIDTH / STRIP_SIDE, sizeof(*panel->strip_counts));
	if (side > 0) {
		panel->columns = PLOT_WIDTH / side;
		panel->rows = height / side;
		panel->cells = calloc((size_t)panel->columns * panel->rows, sizeof(*panel->cells));
	}
	return panel->marks && panel->syncs && panel->strip_counts && (!side || panel->cells)
		       ? 0
		       : -ENOMEM;
}

void panel_free(struct panel *panel)
{
	if (panel->marks)
		fclose(panel->marks);
	if (panel->syncs)
		fclose(panel->syncs);
	free(panel->marks_text);
	free(panel->syncs_text);
	free(panel->strip_counts);
	free(panel->cells);
}

/* ---- Events -------------------------------------------------------------------------------- */

static void title_put(FILE *out, const struct panel *panel, const struct trace_record *record,
		      const char *what, const char *who)
{
	fprintf(out, "<title>%s: %s", time_text(&panel->times, record->time_ns).s, what);
	if (record->length > 0)
		fprintf(out, " %s at offset %s (%s)", text_size(record->length).s,
			text_count(record->offset).s, text_size(record->offset).s);
	fputs(", ", out);
	svg_text(out, who, ACTOR_TEXT_MAX, false);
	fputs("</title>", out);
}

static void mark_take(struct panel *panel, const struct trace_record *record, unsigned category,
		      const char *who)
{
	/* The fewer there are the easier they are to see; small is still not smaller than that. */
	double width = panel->file->doings.writes > FEW_MARKS ? 1.8 : 3;
	double x = time_x(panel, record->time_ns) - width / 2;
	double y = offset_y(panel, record->offset + record->length);
	double height = offset_y(panel, record->offset) - y;

	if (height < width) {
		y -= (width - height) / 2;
		height = width;
	}
	fprintf(panel->marks, "<path class=\"c%u\" d=\"M%.1f %.1fh%.1fv%.1fh-%.1fz\">", category, x,
		y, width, height, width);
	title_put(panel->marks, panel, record,
		  record->kind == TRACE_CALL ? "first write, by a system call," : "first write,",
		  who);
	fputs("</path>\n", panel->marks);
}

static void cell_take(struct cell *cell, unsigned category)
{
	cell->count++;
	if (cell->balance == 0)
		cell->category = (uint8_t)category;
	if (cell->category == category)
		cell->balance++;
	else
		cell->balance--;
}

static void cells_take(struct panel *panel, const struct trace_record *record, unsigned category)
{
	unsigned column = column_of(record->time_ns, panel, panel->side);
	double bytes = (double)(panel->to - panel->from) / panel->rows;
	unsigned first = below((double)(record->offset - panel->from) / bytes, panel->rows);
	unsigned last = below((double)(record->offset + record->length - 1 - panel->from) / bytes,
			      panel->rows);

	for (unsigned row = first; row <= last; row++)
		cell_take(&panel->cells[(size_t)row * panel->columns + column], category);
}

static void sync_take(struct panel *panel, const struct trace_record *record, const char *who)
{
	double x = time_x(panel, record->time_ns);
	double top = panel->top, bottom = panel->top + panel->height;
	bool part = record->length > 0 &&
		    (record->offset > panel->from || record->offset + record->length < panel->to);

	if (panel->strip) {
		panel->strip_counts[column_of(record->time_ns, panel, STRIP_SIDE)]++;
		return;
	}
	if (part) {
		top = offset_y(panel, inside(panel, record->offset + record->length));
		bottom = offset_y(panel, inside(panel, record->offset));
		if (bottom - top < 3) { /* to be seen at all */
			top -= 1.5;
			bottom += 1.5;
		}
	}
	fprintf(panel->syncs, "<path class=\"%s\" d=\"M%.1f %.1fV%.1f\">", part ? "rs" : "ws", x,
		top, bottom);
	title_put(panel->syncs, panel, record, record->length > 0 ? "sync of" : "sync of all", who);
	fputs("</path>\n", panel->syncs);
}

void panel_take(struct panel *panel, const struct trace_record *record, unsigned category,
		const char *who)
{
	bool fits = record->offset >= panel->from && record->offset + record->length <= panel->to;

	if (record->time_ns > panel->end_ns || (record->kind != TRACE_SYNC && !fits))
		return; /* somebody changed the trace since its first pass */
	if (record->kind == TRACE_SYNC)
		sync_take(panel, record, who);
	else if (panel->side == 0)
		mark_take(panel, record, category, who);
	else
		cells_take(panel, record, category);
}

/* ---- Drawing ------------------------------------------------------------------------------- */

static void axes_draw(const struct panel *panel, FILE *out)
{
	unsigned bottom = panel->top + panel->height, right = MARGIN_LEFT + PLOT_WIDTH;
	uint64_t step = panel->sizes.step;
	uint64_t first = panel->from % step ? panel->from - panel->from % step + step : panel->from;

	fputs("<g class=\"axis\">\n", out);
	for (uint64_t at = first; at <= panel->to; at += step) {
		double y = offset_y(panel, at);

		fprintf(out,
			"<path class=\"grid\" d=\"M%u %.1fH%u\"/>"
			"<text class=\"y\" x=\"%u\" y=\"%.1f\">%s%s</text>\n",
			MARGIN_LEFT, y, right, MARGIN_LEFT - 8, y + BASELINE,
			panel->base ? "+" : "", tick_text(&panel->sizes, at - panel->base).s);
	}
	for (uint64_t at = 0; at <= panel->end_ns; at += panel->times.step) {
		double x = time_x(panel, at);

		fprintf(out,
			"<path class=\"grid\" d=\"M%.1f %uV%u\"/>"
			"<text class=\"x\" x=\"%.1f\" y=\"%u\">%s</text>\n",
			x, panel->top, bottom + 4, x, bottom + 18, tick_text(&panel->times, at).s);
	}
	fprintf(out, "<path class=\"frame\" d=\"M%u %uV%uH%u\"/>\n</g>\n", MARGIN_LEFT, panel->top,
		bottom, right);
}

static unsigned shade_of(uint32_t count, uint32_t most)
{
	double part = most > 1 ? log(count) / log(most) : 1;

	return below(part * SHADES, SHADES);
}

static void cell_draw(const struct panel *panel, unsigned column, unsigned row, uint32_t most,
		      FILE *out)
{
	const struct cell *cell = &panel->cells[(size_t)row * panel->columns + column];
	double bytes = (double)(panel->to - panel->from) / panel->rows;
	uint64_t time_ns = (uint64_t)((double)panel->end_ns * column / panel->columns);
	uint64_t offset = panel->from + (uint64_t)(bytes * row);

	fprintf(out, "<path class=\"c%u o%u\" d=\"M%u %uh%uv%uh-%uz\"><title>", cell->category,
		shade_of(cell->count, most), MARGIN_LEFT + column * panel->side,
		panel->top + panel->height - (row + 1) * panel->side, panel->side, panel->side,
		panel->side);
	fprintf(out, "%s, %s: %s</title></path>\n", time_text(&panel->times, time_ns).s,
		text_size(offset).s, text_count(cell->count).s);
}

static void cells_draw(const struct panel *panel, FILE *out)
{
	size_t count = (size_t)panel->columns * panel->rows;
	uint32_t most = 0;

	for (size_t i = 0; i < count; i++)
		if (panel->cells[i].count > most)
			most = panel->cells[i].count;
	for (unsigned row = 0; row < panel->rows; row++)
		for (unsigned column = 0; column < panel->columns; column++)
			if (panel->cells[(size_t)row * panel->columns + column].count > 0)
				cell_draw(panel, column, row, most, out);
}

static void strip_draw(const struct panel *panel, FILE *out)
{
	unsigned columns = PLOT_WIDTH / STRIP_SIDE;
	uint32_t most = 0;

	for (unsigned i = 0; i < columns; i++)
		if (panel->strip_counts[i] > most)
			most = panel->strip_counts[i];
	for (unsigned i = 0; i < columns; i++) {
		uint64_t time_ns = (uint64_t)((double)panel->end_ns * i / columns);

		if (panel->strip_counts[i] == 0)
			continue;
		fprintf(out, "<path class=\"st o%u\" d=\"M%u %uh%uv%uh-%uz\">",
			shade_of(panel->strip_counts[i], most), MARGIN_LEFT + i * STRIP_SIDE,
			panel->top - STRIP_HEIGHT - 2, STRIP_SIDE, STRIP_HEIGHT, STRIP_SIDE);
		fprintf(out, "<title>%s: %s syncs</title></path>\n",
			time_text(&panel->times, time_ns).s, text_count(panel->strip_counts[i]).s);
	}
}

/* What labels are relative to, exactly. */
static void base_draw(uint64_t base, FILE *out)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
	size_t unit = 0;

	while (unit + 1 < sizeof(units) / sizeof(units[0]) && base % 1024 == 0) {
		base /= 1024;
		unit++;
	}
	fprintf(out, "; offsets from %s %s on", text_count(base).s, units[unit]);
}

static void head_draw(const struct panel *panel, FILE *out)
{
	const struct doings *doings = &panel->file->doings;
	unsigned y = panel->top - (panel->strip ? STRIP_HEIGHT + 10 : 9);
	const char *path = panel->file->path[0] ? panel->file->path : "(no name)";

	fprintf(out, "<text class=\"file\" x=\"%u\" y=\"%u\"><title>", MARGIN_LEFT, y);
	svg_text(out, path, TRACE_TEXT_MAX, false);
	fputs("</title>", out);
	svg_text(out, path, 90, true);
	fprintf(out,
		"</text>\n<text class=\"counts\" x=\"%u\" y=\"%u\">%s first write%s, %s; %s "
		"sync%s",
		MARGIN_LEFT + PLOT_WIDTH, y, text_count(doings->writes).s,
		text_plural(doings->writes), text_size(doings->bytes).s,
		text_count(doings->syncs).s, text_plural(doings->syncs));
	if (panel->base > 0)
		base_draw(panel->base, out);
	fputs("</text>\n", out);
}

void panel_draw(struct panel *panel, FILE *out)
{
	head_draw(panel, out);
	axes_draw(panel, out);
	if (panel->cells)
		cells_draw(panel, out);
	fflush(panel->marks);
	fflush(panel->syncs);
	fwrite(panel->marks_text, 1, panel->marks_size, out);
	fwrite(panel->syncs_text, 1, panel->syncs_size, out);
	if (panel->strip)
		strip_draw(panel, out);
}
