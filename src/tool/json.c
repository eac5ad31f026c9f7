/* SPDX-License-Identifier: MIT */
/*
 * json.c - one JSON value on a stream, written as it is found. Errors of the stream show at its end
 * (main.c).
 */
#include "tool.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

/* Length of the UTF-8 sequence at s; 0 if it is none (overlong, surrogate, cut, beyond U+10FFFF).
 */
static size_t utf8_length(const unsigned char *s)
{
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

static void string_put(FILE *out, const char *value)
{
	const unsigned char *s = (const unsigned char *)value;

	fputc('"', out);
	while (*s) {
		size_t length = utf8_length(s);

		if (length == 0)
			fputs("\xef\xbf\xbd", out);
		else if (*s == '"' || *s == '\\')
			fprintf(out, "\\%c", *s);
		else if (*s < 0x20 || *s == 0x7f)
			fprintf(out, "\\u%04x", *s);
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
