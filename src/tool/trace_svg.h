/* SPDX-License-Identifier: MIT */
/*
 * trace_svg.h - between the parts of the picture: trace_svg.c lays it out, trace_panel.c draws what
 * happened to one file.
 */
#ifndef TRACE_SVG_H
#define TRACE_SVG_H

#include "trace_scale.h"
#include "trace_summary.h"

#define PICTURE_WIDTH  1200u
#define MARGIN_LEFT    96u
#define MARGIN_RIGHT   24u
#define PLOT_WIDTH     (PICTURE_WIDTH - MARGIN_LEFT - MARGIN_RIGHT)
#define CATEGORIES_MAX 8u	      /* that have a colour of their own */
#define CATEGORY_OTHER CATEGORIES_MAX /* and one for all others */
#define MARKS_MAX      8000u	      /* drawn one by one, in all panels */
#define SYNC_LINES_MAX 250u	      /* in one panel; more are a strip above it */

/* Write a text that may hold anything, as XML; past max characters it is cut, at its beginning if
 * keep_end. */
void svg_text(FILE *out, const char *text, size_t max, bool keep_end);

struct cell {
	uint32_t count;	  /* first writes */
	uint32_t balance; /* of the category seen most, if one is seen more than all others */
	uint8_t category;
};

/* A file's part of the picture. Marks are kept as the text that they will be. */
struct panel {
	const struct summary_file *file;
	unsigned top, height; /* of the plot */
	uint64_t from, to;    /* offsets at its lower and upper edge */
	uint64_t base;	      /* labels are relative to it */
	uint64_t end_ns;      /* at the right edge */
	struct ticks times, sizes;
	unsigned side; /* of a cell; 0: marks are drawn one by one */
	unsigned columns, rows;
	struct cell *cells;
	bool strip;		/* for syncs */
	uint32_t *strip_counts; /* of columns of STRIP_SIDE */
	FILE *marks, *syncs;
	char *marks_text, *syncs_text;
	size_t marks_size, syncs_size;
};

#define STRIP_SIDE   4u
#define STRIP_HEIGHT 8u

/* Lay out: with cells of that side, or, side being 0, with marks. 0 or -ENOMEM. */
int panel_begin(struct panel *panel, const struct summary_file *file, uint64_t end_ns, unsigned top,
		unsigned height, unsigned side);
/* An event, of that colour; who: what the mark says of it. */
void panel_take(struct panel *panel, const struct trace_record *record, unsigned category,
		const char *who);
void panel_draw(struct panel *panel, FILE *out);
void panel_free(struct panel *panel);

#endif
