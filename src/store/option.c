/* SPDX-License-Identifier: MIT */
/*
 * option.c - values of options, as text, made into numbers. Each failure leaves a sentence that
 * names the key and says what would have been right.
 */
#include <mkwrite/store.h>

#include <errno.h>
#include <string.h>

/* Digits and nothing else, no sign, no blank: strtoull takes far more. -ERANGE: too large. */
static int digits_parse(const char *text, size_t length, uint64_t *number)
{
	uint64_t value = 0;

	if (!length)
		return -EINVAL;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
			return -ERANGE;
	}
	*number = value;
	return 0;
}

static unsigned suffix_shift(char suffix)
{
	switch (suffix) {
	case 'k':
	case 'K':
		return 10;
	case 'm':
	case 'M':
		return 20;
	case 'g':
	case 'G':
		return 30;
	case 't':
	case 'T':
		return 40;
	default:
		return 0;
	}
}

int mkw_parse_size(const char *key, const char *value, uint64_t *bytes)
{
	size_t length = strlen(value);
	unsigned shift = length ? suffix_shift(value[length - 1]) : 0;
	uint64_t number;
	int error = digits_parse(value, shift ? length - 1 : length, &number);

	if (error == -EINVAL)
		return mkw_set_error(-EINVAL,
				     "%s=%.40s is not a size: write a number of bytes, or one "
				     "with K, M, G or T behind it, as 64M",
				     key, value);
	/* What no file offset can express is no size either. */
	if (error || number > (uint64_t)INT64_MAX >> shift)
		return mkw_set_error(-EINVAL, "%s=%.40s is too large: the most is %lld bytes", key,
				     value, (long long)INT64_MAX);
	*bytes = number << shift;
	return 0;
}

int mkw_parse_uint(const char *key, const char *value, uint64_t min, uint64_t max, uint64_t *number)
{
	uint64_t parsed;

	if (digits_parse(value, strlen(value), &parsed) || parsed < min || parsed > max)
		return mkw_set_error(-EINVAL, "%s=%.40s: write a whole number from %llu to %llu",
				     key, value, (unsigned long long)min, (unsigned long long)max);
	*number = parsed;
	return 0;
}

int mkw_parse_bool(const char *key, const char *value, bool *flag)
{
	static const char *const yes[] = {"", "1", "yes", "on"};
	static const char *const no[] = {"0", "no", "off"};

	for (size_t i = 0; i < sizeof(yes) / sizeof(*yes); i++) {
		if (!strcmp(value, yes[i])) {
			*flag = true;
			return 0;
		}
	}
	for (size_t i = 0; i < sizeof(no) / sizeof(*no); i++) {
		if (!strcmp(value, no[i])) {
			*flag = false;
			return 0;
		}
	}
	return mkw_set_error(-EINVAL, "%s=%.40s: write 1, yes or on, or 0, no or off", key, value);
}

/* Names that the C library gives to the same number by another name. */
static int errno_alias(const char *name)
{
	if (!strcmp(name, "EWOULDBLOCK"))
		return EWOULDBLOCK;
	if (!strcmp(name, "EDEADLOCK"))
		return EDEADLOCK;
	if (!strcmp(name, "EOPNOTSUPP"))
		return EOPNOTSUPP;
	if (!strcmp(name, "ENOTSUP"))
		return ENOTSUP;
	return 0;
}

#define ERRNO_LAST 133 /* EHWPOISON, the highest there is */

int mkw_parse_errno(const char *key, const char *value, int *number)
{
	uint64_t parsed;

	if (!digits_parse(value, strlen(value), &parsed) && parsed >= 1 && parsed <= ERRNO_LAST) {
		*number = (int)parsed;
		return 0;
	}
	for (int i = 1; i <= ERRNO_LAST; i++) {
		const char *name = strerrorname_np(i);

		if (name && !strcmp(value, name)) {
			*number = i;
			return 0;
		}
	}
	*number = errno_alias(value);
	if (*number)
		return 0;
	return mkw_set_error(-EINVAL, "%s=%.40s: write an error's name or number, as ENOSPC or 28",
			     key, value);
}
