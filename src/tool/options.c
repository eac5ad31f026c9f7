/* SPDX-License-Identifier: MIT */
/*
 * options.c - command lines: --name, --name=value, --name value. Every value is checked here.
 */
#include "tool.h"

#include <mkwrite/store.h>
#include <string.h>

static const struct option_spec *spec_find(const struct option_spec *specs, const char *name,
					   size_t length)
{
	for (; specs->name; specs++)
		if (strlen(specs->name) == length && strncmp(specs->name, name, length) == 0)
			return specs;
	return NULL;
}

static int backend_set(unsigned *flags, const char *value, const struct tool_options *options)
{
	if (strcmp(value, "uffd") == 0)
		*flags = 0;
	else if (strcmp(value, "inline") == 0)
		*flags = MKW_INLINE;
	else
		return tool_usage(options, "--backend: \"%s\" is neither uffd nor inline", value);
	return 0;
}

static int value_set(const struct option_spec *spec, const char *value,
		     const struct tool_options *options)
{
	switch (spec->kind) {
	case OPTION_FLAG:
		*(bool *)spec->value = true;
		return 0;
	case OPTION_TEXT:
		*(const char **)spec->value = value;
		return 0;
	case OPTION_SIZE:
		if (mkw_parse_size(spec->name, value, spec->value) != 0)
			return tool_usage(options, "--%s: \"%s\" is not a size such as 64M",
					  spec->name, value);
		return 0;
	case OPTION_BACKEND:
		return backend_set(spec->value, value, options);
	}
	return TOOL_USAGE;
}

/* The option at argv[*i]; a value that stands by itself moves *i on. */
static int option_take(int argc, char **argv, int *i, const struct option_spec *specs,
		       const struct tool_options *options)
{
	const char *name = argv[*i] + 2;
	const char *equals = strchr(name, '=');
	size_t length = equals ? (size_t)(equals - name) : strlen(name);
	const struct option_spec *spec = NULL;

	if (argv[*i][1] == '-')
		spec = spec_find(specs, name, length);
	if (!spec)
		return tool_usage(options, "%s: no such option", argv[*i]);
	if (spec->kind == OPTION_FLAG) {
		if (equals)
			return tool_usage(options, "--%s takes no value", spec->name);
		return value_set(spec, NULL, options);
	}
	if (equals)
		return value_set(spec, equals + 1, options);
	if (*i + 1 >= argc)
		return tool_usage(options, "--%s needs a value", spec->name);
	return value_set(spec, argv[++*i], options);
}

int options_take(int *argc, char **argv, const struct option_spec *specs,
		 const struct tool_options *options)
{
	int kept = 1;
	bool done = false;

	for (int i = 1; i < *argc; i++) {
		int code;

		if (done || argv[i][0] != '-' || argv[i][1] == '\0') {
			argv[kept++] = argv[i];
			continue;
		}
		if (strcmp(argv[i], "--") == 0) {
			done = true;
			continue;
		}
		code = option_take(*argc, argv, &i, specs, options);
		if (code != 0)
			return code;
	}
	*argc = kept;
	argv[kept] = NULL;
	return 0;
}
