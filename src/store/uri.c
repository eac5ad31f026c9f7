/* SPDX-License-Identifier: MIT */
/*
 * uri.c - the text that names storage, taken apart (uri.h has the grammar). All of it may be
 * hostile: every length is bounded, nothing is decoded twice.
 */
#include "store/uri.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

size_t uri_scheme_length(const char *text)
{
	size_t length = 0;

	if (text[0] < 'a' || text[0] > 'z')
		return 0;
	while ((text[length] >= 'a' && text[length] <= 'z') ||
	       (text[length] >= '0' && text[length] <= '9') || text[length] == '-')
		length++;
	return text[length] == ':' || text[length] == '?' ? length : 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* In place: decoded text is never longer. */
static int percent_decode(char *text)
{
	char *to = text;

	for (const char *from = text; *from; from++) {
		if (*from != '%') {
			*to++ = *from;
			continue;
		}
		int high = hex_digit(from[1]);
		int low = high < 0 ? -1 : hex_digit(from[2]);

		if (low < 0)
			return mkw_set_error(-EINVAL,
					     "\"%.3s\" in the URI: two hexadecimal digits belong "
					     "behind %%; the character itself is %%25",
					     from);
		if (!high && !low)
			return mkw_set_error(-EINVAL, "the URI has a NUL byte (%%00): no path and "
						      "no option can hold one");
		*to++ = (char)(high * 16 + low);
		from += 2;
	}
	*to = '\0';
	return 0;
}

static int option_add(struct uri *uri, const char *scheme, char *text)
{
	char *equals = strchr(text, '=');
	char *value = equals ? equals + 1 : text + strlen(text);

	if (equals)
		*equals = '\0';
	int error = percent_decode(text);

	if (!error && equals)
		error = percent_decode(value);
	if (error)
		return error;
	if (!*text)
		return mkw_set_error(-EINVAL,
				     "%s: an option without a name: options are key=value, "
				     "separated by &",
				     scheme);
	for (size_t i = 0; i < uri->option_count; i++)
		if (!strcmp(uri->options[i].key, text))
			return mkw_set_error(-EINVAL, "%s: option %.40s is given twice", scheme,
					     text);
	if (uri->option_count == URI_MAX_OPTIONS)
		return mkw_set_error(-EINVAL, "%s: more than %u options", scheme, URI_MAX_OPTIONS);
	uri->options[uri->option_count++] = (struct mkw_option){.key = text, .value = value};
	return 0;
}

static int options_parse(struct uri *uri, const char *scheme, char *text)
{
	char *next;

	for (; text; text = next) {
		next = strchr(text, '&');
		if (next)
			*next++ = '\0';
		int error = option_add(uri, scheme, text);

		if (error)
			return error;
	}
	return 0;
}

static int leaf_parse(struct uri *uri, const char *scheme, char *rest)
{
	if (*rest == '?')
		return mkw_set_error(-EINVAL, "%s: options come behind the path: %s:PATH?key=value",
				     scheme, scheme);
	char *path = rest + 1;
	char *options = strchr(path, '?');

	if (options)
		*options++ = '\0';
	uri->path = path;
	if (!*path)
		return mkw_set_error(-EINVAL, "%s: nothing behind the colon: write %s:PATH", scheme,
				     scheme);
	int error = percent_decode(path);

	return error ? error : options_parse(uri, scheme, options);
}

static int layer_parse(struct uri *uri, const char *scheme, char *rest)
{
	char *colon = strchr(rest, ':');

	if (!colon || !colon[1])
		return mkw_set_error(-EINVAL,
				     "%s is a layer: a colon and the URI of what is beneath belong "
				     "behind it, as %s:mem:1M (a colon in an option is %%3A)",
				     scheme, scheme);
	*colon = '\0';
	uri->path = colon + 1;
	return options_parse(uri, scheme, *rest == '?' ? rest + 1 : NULL);
}

int uri_parse(struct uri *uri, const char *scheme, const char *rest, bool layer)
{
	memset(uri, 0, sizeof(*uri));
	uri->text = strdup(rest);
	if (!uri->text)
		return mkw_set_error(-ENOMEM, "no memory for a URI");
	int error =
		layer ? layer_parse(uri, scheme, uri->text) : leaf_parse(uri, scheme, uri->text);

	if (error)
		uri_free(uri);
	return error;
}

void uri_free(struct uri *uri)
{
	free(uri->text);
	uri->text = NULL;
}
