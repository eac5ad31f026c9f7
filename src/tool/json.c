/* SPDX-License-Identifier: MIT */
/*
 * json.c - one JSON value on a stream, written as it is found. Errors of the stream show at its end
 * (main.c).
 */
#include "tool.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

static void string_put(FILE *out, const char *s)
{
	fputc('"', out);
	while (*s) {
		size_t length = text_utf8_length(s);

		if (length == 0)
			fputs("\xef\xbf\xbd", out);
		else if (*s == '"' || *s == '\\')
			fprintf(out, "\\%c", *s);
		else if ((unsigned char)*s < 0x20 || *s == 0x7f)
			fprintf(out, "\\u%04x", (unsigned char)*s);
		else
			fwrite(s, 1, length, out);
		s += length ? length : 1;
	}
	fputc('"', out);
}

/* What comes before a value: the comma, a new line, its key. */
static void value_begin(struct json *json, const char *key)
{
	if (json->depth > 0) {
		fputs(json->empty ? "\n" : ",\n", json->out);
		fprintf(json->out, "%*s", (int)json->depth * 2, "");
	}
	json->empty = false;
	if (key) {
		string_put(json->out, key);
		fputs(": ", json->out);
	}
}

static void level_begin(struct json *json, const char *key, char opener, char closer)
{
	assert(json->depth < JSON_DEPTH_MAX);
	value_begin(json, key);
	fputc(opener, json->out);
	json->closers[json->depth++] = closer;
	json->empty = true;
}

void json_begin(struct json *json, FILE *out)
{
	*json = (struct json){.out = out};
}

void json_object(struct json *json, const char *key)
{
	level_begin(json, key, '{', '}');
}

void json_array(struct json *json, const char *key)
{
	level_begin(json, key, '[', ']');
}

void json_end(struct json *json)
{
	assert(json->depth > 0);
	json->depth--;
	if (!json->empty)
		fprintf(json->out, "\n%*s", (int)json->depth * 2, "");
	fputc(json->closers[json->depth], json->out);
	json->empty = false;
	if (json->depth == 0)
		fputc('\n', json->out);
}

void json_text(struct json *json, const char *key, const char *value)
{
	value_begin(json, key);
	string_put(json->out, value);
}

void json_number(struct json *json, const char *key, uint64_t value)
{
	value_begin(json, key);
	fprintf(json->out, "%" PRIu64, value);
}

void json_real(struct json *json, const char *key, double value)
{
	value_begin(json, key);
	fprintf(json->out, "%.6f", value);
}

void json_flag(struct json *json, const char *key, bool value)
{
	value_begin(json, key);
	fputs(value ? "true" : "false", json->out);
}

void json_null(struct json *json, const char *key)
{
	value_begin(json, key);
	fputs("null", json->out);
}
