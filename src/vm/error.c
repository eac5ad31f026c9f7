/* SPDX-License-Identifier: MIT */
/*
 * error.c - the error of the calling thread: an errno and a sentence. Safe in a signal handler as
 * far as vsnprintf of plain formats is; it takes more of its stack than all else together, and is
 * left out where a sentence has nothing to be filled in.
 */
#include "vm.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char sentence[256];
static _Thread_local int last;

void sentence_copy(char *to, size_t size, const char *from)
{
	size_t length = strnlen(from, size - 1);

	memmove(to, from, length); /* it may be the same */
	to[length] = '\0';
}

int mkw_set_error(int error, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	if (strchr(format, '%') == NULL)
		sentence_copy(sentence, sizeof(sentence), format);
	else
		vsnprintf(sentence, sizeof(sentence), format, ap);
	va_end(ap);
	last = error;
	return error;
}

const char *mkw_error_message(void)
{
	return sentence;
}

const char *error_sentence(void)
{
	return sentence;
}

int error_last(void)
{
	return last;
}

void error_keep(struct error_record *record, int error)
{
	record->error = error;
	sentence_copy(record->sentence, sizeof(record->sentence), error == last ? sentence : "");
}

int error_say(const char *what, const struct error_record *record)
{
	if (record->sentence[0] != '\0')
		return mkw_set_error(record->error, "%s: %s", what, record->sentence);
	return mkw_set_error(record->error, "%s: errno %d", what, -record->error);
}

void error_clear(void)
{
	sentence[0] = '\0';
	last = 0;
}

/* vmf_fs_error in the kernel, contract 3.5. */
mkw_fault_t mkw_fault_from_errno(int error)
{
	switch (error) {
	case 0:
		return MKW_FAULT_LOCKED;
	case -EFAULT:
	case -EAGAIN:
		return MKW_FAULT_NOPAGE;
	case -ENOMEM:
		return MKW_FAULT_OOM;
	default:
		if (last != error)
			mkw_set_error(error, "the store failed");
		return MKW_FAULT_SIGBUS;
	}
}

const char *mkw_version(void)
{
	return MKW_VERSION;
}
