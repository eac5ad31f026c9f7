/* SPDX-License-Identifier: MIT */
/*
 * report.c - messages on stderr: what, why, and what to do about it.
 */
#include "tool.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* In one write, as far as memory goes: others may write to the same terminal. */
static void message_print(const struct tool_options *options, const char *format, va_list args)
{
	char *text = NULL;

	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	fprintf(stderr, "mkwrite%s%s: %s\n", options->verb ? " " : "",
		options->verb ? options->verb : "", text ? text : format);
	free(text);
}

void tool_error(const struct tool_options *options, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	message_print(options, format, args);
	va_end(args);
}

int tool_usage(const struct tool_options *options, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	message_print(options, format, args);
	va_end(args);
	fprintf(stderr, "Try: mkwrite%s%s --help\n", options->verb ? " " : "",
		options->verb ? options->verb : "");
	return TOOL_USAGE;
}

/* What a user can do about an error of the library; "" where its sentence has to do. */
static const char *error_remedy(int error)
{
	switch (-error) {
	case EPERM:
	case ENOSYS:
	case ENOTSUP:
		return " (mkwrite doctor says what this host allows)";
	case EBUSY:
		return " (close it there first)";
	case ENOSPC:
	case EDQUOT:
		return " (make room, or raise the quota)";
	case EMFILE:
		return " (raise ulimit -n)";
	default:
		return "";
	}
}

bool error_is_refusal(int error)
{
	switch (-error) {
	case ENOSPC:
	case EDQUOT:
	case EACCES:
	case EROFS:
	case EIO:
		return true;
	default:
		return false;
	}
}

int tool_library_error(const struct tool_options *options, const char *what, int error)
{
	const char *why = mkw_error_message();

	if (why[0] == '\0')
		why = strerror(-error);
	tool_error(options, "%s: %s%s", what, why, error_remedy(error));
	return error == -ENOSYS || error == -EPERM || error == -ENOTSUP ? TOOL_NOT_POSSIBLE
									: TOOL_FAILED;
}

int tool_errno(const struct tool_options *options, const char *what)
{
	tool_error(options, "%s: %s", what, errno ? strerror(errno) : "write error");
	return TOOL_FAILED;
}

void tool_log(void *arg, enum mkw_log_level level, const char *message)
{
	const struct tool_options *options = arg;

	if (level != MKW_LOG_INFO)
		tool_error(options, "%s: %s", level == MKW_LOG_ERROR ? "error" : "warning",
			   message);
}
