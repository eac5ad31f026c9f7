/* SPDX-License-Identifier: MIT */
/*
 * trace_svg.c - the picture of a trace: a head, a panel for each file, a legend. Colours are those
 * of a style sheet with a dark and a light half; texts come from the trace, and are escaped.
 */
#include "trace_svg.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PANELS_MAX	8u
#define HEAD_HEIGHT	58u
#define PANEL_HEAD	44u /* above a plot */
#define PANEL_FOOT	28u /* below it */
#define LEGEND_COLUMNS	3u
#define LEGEND_ROW	20u
#define LEGEND_TEXT_MAX 48u

struct picture {
	struct summary *summary;
	bool by_caller;
	uint8_t *categories; /* of threads or functions */
	uint32_t *ranked;    /* them, the busiest first */
	size_t actor_count;
	unsigned used; /* categories, without that of others */
	bool others;
	struct panel panels[PANELS_MAX];
	unsigned panel_count;
	size_t files_left; /* that had no place */
	uint32_t *places;  /* of files: number of the panel + 1 */
	unsigned legend_top, height;
};

static const char style[] =
	"<style>\n"
	"svg{font-family:system-ui,'DejaVu Sans',Helvetica,Arial,sans-serif;font-size:12px}\n"
	".bg{fill:#fff}text{fill:#1f2328}.soft,.counts,.axis text{fill:#59636e}\n"
	".head{font-size:17px;font-weight:600}.file{font-weight:600;font-size:13px}\n"
	".counts,.y{text-anchor:end}.x{text-anchor:middle}.axis text{font-size:11px}\n"
	".grid{stroke:#e6e9ed}.frame{stroke:#8b949e;fill:none}\n"
	".ws,.rs{stroke:#d1242f}.ws{stroke-opacity:.6}.rs{stroke-width:2.4}.st{fill:#d1242f}\n"
	".o0{fill-opacity:.32}.o1{fill-opacity:.48}.o2{fill-opacity:.64}.o3{fill-opacity:.82}\n"
	".c0{fill:#2f6fd0}.c1{fill:#e38b06}.c2{fill:#2b9a57}.c3{fill:#8a5fd3}.c4{fill:#0d9fb0}\n"
	".c5{fill:#a5642a}.c6{fill:#d452a8}.c7{fill:#7f8d16}.c8{fill:#858e98}\n"
	"path:hover{stroke:#1f2328;stroke-opacity:1}.grid:hover,.frame:hover{stroke:#8b949e}\n"
	"@media(prefers-color-scheme:dark){\n"
	".bg{fill:#0d1117}text{fill:#e6edf3}.soft,.counts,.axis text{fill:#9aa4af}\n"
	".grid{stroke:#252b33}.frame{stroke:#6e7681}\n"
	".ws,.rs{stroke:#ff7b72}.st{fill:#ff7b72}\n"
	".c0{fill:#58a0ff}.c1{fill:#f2a33a}.c2{fill:#4cc17c}.c3{fill:#b08cf0}.c4{fill:#39c5d6}\n"
	".c5{fill:#cd8c52}.c6{fill:#f07cc6}.c7{fill:#b2c03c}.c8{fill:#8b949e}\n"
	"path:hover{stroke:#e6edf3}\n"
	"}\n"
	"</style>\n";

/* ---- Texts --------------------------------------------------------------------------------- */

/* Characters that XML has no place for, and bytes that are none. */
static bool is_foreign(const char *text, size_t length)
{
	const unsigned char *s = (const unsigned char *)text;

	return length == 0 || s[0] < 0x20 || s[0] == 0x7f || (s[0] == 0xc2 && s[1] < 0xa0) ||
	       (s[0] == 0xef && s[1] == 0xbf && s[2] >= 0xbe);
}

static size_t characters(const char *text)
{
	size_t count = 0;

	for (; *text; count++) {
		size_t length = text_utf8_length(text);

		text += length ? length : 1;
	}
	return count;
}

static void character_put(FILE *out, const char *text, size_t length)
{
	if (is_foreign(text, length))
		fputs("\xef\xbf\xbd", out);
	else if (*text == '<')
		fputs("&lt;", out);
	else if (*text == '>')
		fputs("&gt;", out);
	else if (*text == '&')
		fputs("&amp;", out);
	else
		fwrite(text, 1, length, out);
}

void svg_text(FILE *out, const char *text, size_t max, bool keep_end)
{
	static const char ellipsis[] = "\xe2\x80\xa6";
	size_t count = characters(text), skip = count > max && keep_end ? count - max + 1 : 0;
	size_t end = count > max && !keep_end ? max - 1 : count;

	if (skip > 0)
		fputs(ellipsis, out);
	for (size_t i = 0; i < end; i++) {
		size_t length = text_utf8_length(text);

		if (i >= skip)
			character_put(out, text, length);
		text += length ? length : 1;
	}
	if (end < count)
		fputs(ellipsis, out);
}

/* ---- Colours ------------------------------------------------------------------------------- */

static const struct doings *actor_doings(const struct picture *picture, uint32_t number)
{
	const struct actors *actors = &picture->summary->actors;

	return picture->by_caller ? &actors->functions[number].doings
				  : &actors->threads[number].doings;
}

/* The busiest have a colour of their own. */
static int categories_make(struct picture *picture)
{
	const struct actors *actors = &picture->summary->actors;
	bool by_caller = picture->by_caller;

	picture->actor_count = by_caller ? actors->function_count : actors->thread_count;
	picture->categories = malloc(picture->actor_count + 1);
	picture->ranked =
		by_caller ? summary_functions(picture->summary) : summary_threads(picture->summary);
	if (!picture->categories || (picture->actor_count > 0 && !picture->ranked))
		return -ENOMEM;
	memset(picture->categories, CATEGORY_OTHER, picture->actor_count + 1);
	for (size_t i = 0; i < picture->actor_count; i++) {
		if (actor_doings(picture, picture->ranked[i])->writes == 0)
			continue;
		if (picture->used == CATEGORIES_MAX) {
			picture->others = true;
			break;
		}
		picture->ranked[picture->used] = picture->ranked[i];
		picture->categories[picture->ranked[i]] = (uint8_t)picture->used++;
	}
	return 0;
}

static unsigned category_of(struct picture *picture, const struct deed *deed)
{
	const struct actors *actors = &picture->summary->actors;
	size_t number = deed->thread;

	if (picture->by_caller)
		number = deed->caller == UINT32_MAX ? NO_FUNCTION
						    : actors->callers[deed->caller].function;
	if (number < picture->actor_count)
		return picture->categories[number];
	picture->others = true; /* callers that nobody told of */
	return CATEGORY_OTHER;
}

/* ---- Layout -------------------------------------------------------------------------------- */

static bool has_events(const struct summary_file *file)
{
	return file->wanted && file->doings.writes + file->doings.syncs > 0;
}

/* The busiest files have a panel. */
static int panels_make(struct picture *picture)
{
	struct summary *summary = picture->summary;
	uint32_t *order = summary_files(summary);
	size_t count = 0, marks_max;
	unsigned top = HEAD_HEIGHT, height, side;
	int error = 0;

	picture->places = calloc(summary->file_count + 1, sizeof(*picture->places));
	if (!picture->places || (summary->file_count > 0 && !order)) {
		free(order);
		return -ENOMEM;
	}
	for (size_t i = 0; i < summary->file_count; i++)
		count += has_events(&summary->files[i]);
	height = count <= 1 ? 420 : count <= 3 ? 240 : 162; /* multiples of side */
	side = count <= 1 ? 4 : count <= 3 ? 5 : 6;
	marks_max = MARKS_MAX / (count < 1 ? 1 : count < PANELS_MAX ? count : PANELS_MAX);
	for (size_t i = 0; i < summary->file_count && error == 0; i++) {
		const struct summary_file *file = &summary->files[order[i]];

		if (!has_events(file) || picture->panel_count == PANELS_MAX)
			continue;
		error = panel_begin(&picture->panels[picture->panel_count++], file,
				    summary->events_end_ns, top + PANEL_HEAD, height,
				    file->doings.writes > marks_max ? side : 0);
		picture->places[order[i]] = picture->panel_count;
		top += PANEL_HEAD + height + PANEL_FOOT;
	}
	free(order);
	picture->files_left = count - picture->panel_count;
	picture->legend_top = top + 12;
	return error;
}

/* ---- The head and the legend --------------------------------------------------------------- */

static void svg_begin(const struct picture *picture, FILE *out)
{
	fprintf(out,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" "
		"viewBox=\"0 0 %u %u\" role=\"img\">\n"
		"<title>First writes and syncs</title>\n%s"
		"<path class=\"bg\" pointer-events=\"none\" d=\"M0 0H%uV%uH0z\"/>\n",
		PICTURE_WIDTH, picture->height, PICTURE_WIDTH, picture->height, style,
		PICTURE_WIDTH, picture->height);
}

/* The program that the trace is about. */
static const char *command_text(const struct actors *actors)
{
	for (size_t i = 0; i < actors->process_count; i++)
		if (actors->processes[i].command[0])
			return actors->processes[i].command;
	return "first writes and syncs";
}

static void head_draw(const struct picture *picture, FILE *out)
{
	const struct summary *summary = picture->summary;
	const struct doings *doings = &summary->doings;
	time_t seconds = (time_t)(summary->wall_ns / 1000000000u);
	char date[64] = "";
	struct tm tm;

	if (localtime_r(&seconds, &tm))
		strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S %z", &tm);
	fprintf(out, "<text class=\"head\" x=\"24\" y=\"32\">");
	svg_text(out, command_text(&summary->actors), 110, false);
	fprintf(out,
		"</text>\n<text class=\"soft\" x=\"24\" y=\"52\">%s, %s: %s first write%s, %s; "
		"%s sync%s",
		date, text_duration(summary->last_ns).s, text_count(doings->writes).s,
		text_plural(doings->writes), text_size(doings->bytes).s,
		text_count(doings->syncs).s, text_plural(doings->syncs));
	if (summary->cut || !summary->ended)
		fputs("; the end is missing", out);
	if (summary->lost > 0)
		fprintf(out, "; %s events are missing", text_count(summary->lost).s);
	if (picture->files_left > 0)
		fprintf(out, "; the busiest %u of %zu files are shown", picture->panel_count,
			picture->panel_count + picture->files_left);
	fputs("</text>\n", out);
}

/* Entries go down first. */
static void entry_place(const struct picture *picture, unsigned index, unsigned *x, unsigned *y)
{
	unsigned count = picture->used + picture->others + 1;
	unsigned rows = (count + LEGEND_COLUMNS - 1) / LEGEND_COLUMNS;

	*x = MARGIN_LEFT + index / rows * (PLOT_WIDTH / LEGEND_COLUMNS);
	*y = picture->legend_top + 20 + index % rows * LEGEND_ROW;
}

static void entry_draw(const struct picture *picture, unsigned index, const char *class,
		       const char *label, FILE *out)
{
	unsigned x, y;

	entry_place(picture, index, &x, &y);
	if (strcmp(class, "ws") == 0)
		fprintf(out, "<path class=\"rs\" d=\"M%u %uv12\"/>", x + 6, y - 10);
	else
		fprintf(out, "<path class=\"%s\" d=\"M%u %uh12v12h-12z\"/>", class, x, y - 10);
	fprintf(out, "<text x=\"%u\" y=\"%u\"><title>", x + 20, y);
	svg_text(out, label, ACTOR_TEXT_MAX, false);
	fputs("</title>", out);
	svg_text(out, label, LEGEND_TEXT_MAX, false);
	fputs("</text>\n", out);
}

static void legend_draw(const struct picture *picture, FILE *out)
{
	const struct actors *actors = &picture->summary->actors;
	bool lines = false, strips = false;
	char text[ACTOR_TEXT_MAX], class[16];

	fprintf(out, "<text class=\"soft\" x=\"24\" y=\"%u\">%s</text>\n", picture->legend_top + 20,
		picture->by_caller ? "caller" : "thread");
	for (unsigned i = 0; i < picture->used; i++) {
		if (picture->by_caller)
			actors_function_text(actors, picture->ranked[i], text, sizeof(text));
		else
			actors_thread_text(actors, picture->ranked[i], text, sizeof(text));
		snprintf(class, sizeof(class), "c%u", i);
		entry_draw(picture, i, class, text, out);
	}
	if (picture->others)
		entry_draw(picture, picture->used, "c8", "others", out);
	for (unsigned i = 0; i < picture->panel_count; i++) {
		lines |= !picture->panels[i].strip;
		strips |= picture->panels[i].strip;
	}
	snprintf(text, sizeof(text), "sync%s",
		 !strips ? ""
		 : lines ? " (many: strip above)"
			 : "s (strip above)");
	entry_draw(picture, picture->used + picture->others, lines ? "ws" : "st", text, out);
}

/* ---- The whole ----------------------------------------------------------------------------- */

static void event_draw(void *arg, const struct trace_record *record,
		       const struct summary_file *file, const struct deed *deed)
{
	struct picture *picture = arg;
	const struct actors *actors = &picture->summary->actors;
	uint32_t place = picture->places[file - picture->summary->files];
	char thread[ACTOR_TEXT_MAX], caller[ACTOR_TEXT_MAX], who[2 * ACTOR_TEXT_MAX + 8];
	unsigned category = 0;

	if (place == 0)
		return;
	if (record->kind != TRACE_SYNC)
		category = category_of(picture, deed);
	who[0] = '\0';
	if (picture->panels[place - 1].side == 0 || record->kind == TRACE_SYNC) {
		actors_thread_text(actors, deed->thread, thread, sizeof(thread));
		actors_caller_text(actors, deed->caller, caller, sizeof(caller));
		snprintf(who, sizeof(who), "%s%s%s", thread, caller[0] ? ", " : "", caller);
	}
	panel_take(&picture->panels[place - 1], record, category, who);
}

static void picture_draw(struct picture *picture, FILE *out)
{
	unsigned entries = picture->used + picture->others + 1;
	unsigned rows = (entries + LEGEND_COLUMNS - 1) / LEGEND_COLUMNS;

	picture->height = picture->legend_top + rows * LEGEND_ROW + 24;
	svg_begin(picture, out);
	head_draw(picture, out);
	for (unsigned i = 0; i < picture->panel_count; i++)
		panel_draw(&picture->panels[i], out);
	legend_draw(picture, out);
	fputs("</svg>\n", out);
}

int summary_svg(struct summary *summary, struct trace_reader *reader, bool by_caller, FILE *out,
		struct progress *progress, const struct tool_options *options)
{
	struct picture picture = {.summary = summary, .by_caller = by_caller};
	int code = TOOL_OK;

	if (categories_make(&picture) != 0 || panels_make(&picture) != 0) {
		tool_error(options, "no memory");
		code = TOOL_FAILED;
	}
	if (code == TOOL_OK)
		code = summary_walk(summary, reader, event_draw, &picture, progress, options);
	if (code == TOOL_OK)
		picture_draw(&picture, out);
	for (unsigned i = 0; i < picture.panel_count; i++)
		panel_free(&picture.panels[i]);
	free(picture.places);
	free(picture.categories);
	free(picture.ranked);
	return code;
}
