/* SPDX-License-Identifier: MIT */
/*
 * error.c - a layer that makes operations of the store beneath fail: mkwrite-error(7).
 *
 * The rule: of the calls of one operation that touch the range, those from the nth on fail, each if
 * the dice say so (prob), until count have failed. Calls are counted from the opening or the last
 * change of the rule. The dice depend on the seed and the number of the call alone, so that a run
 * can be repeated.
 *
 * Locks: rule_lock, a leaf.
 */
#include "store/driver.h"
#include "store/layer.h"
#include "store/lock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct rule {
	enum layer_op op; /* LAYER_OPS: none */
	int error;	  /* negative errno */
	const char *code; /* what to answer in its place; NULL: nothing */
	uint64_t nth, count;
	bool count_given;
	uint64_t prob, seed; /* one in prob; 0: each */
	uint64_t first, end; /* pages */
};

struct error {
	struct layer layer;
	struct store_lock rule_lock;
	struct rule rule;
	uint64_t calls, failures;
};

static const struct mkw_lock_class rule_class = {.name = "error rule", .rank = RULE_RANK};

static const struct {
	const char *name;
	mkw_fault_t code;
} codes[] = {
	{"NOPAGE", MKW_FAULT_NOPAGE},
	{"RETRY", MKW_FAULT_RETRY},
	{"OOM", MKW_FAULT_OOM},
	{"0", 0},
};
#define CODES (sizeof(codes) / sizeof(*codes))

/* splitmix64: neighbouring numbers give unrelated ones. */
static uint64_t dice_roll(uint64_t seed, uint64_t call)
{
	uint64_t z = seed + (call + 1) * 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static bool call_touches(const struct rule *rule, const struct layer_call *call)
{
	if (!call->writeback)
		return call->first < rule->end && rule->first < call->end;
	for (size_t i = 0; i < call->writeback->count; i++) {
		const struct mkw_wb_run *run = &call->writeback->runs[i];

		if (run->first < rule->end && rule->first < run->first + run->count)
			return true;
	}
	return false;
}

/* => rule_lock held */
static bool call_fails(struct error *error, const struct layer_call *call)
{
	const struct rule *rule = &error->rule;
	uint64_t count = rule->count_given ? rule->count : rule->prob ? 0 : 1;

	if (rule->op != call->op || !call_touches(rule, call) || ++error->calls < rule->nth)
		return false;
	if (count && error->failures >= count)
		return false;
	if (rule->prob && dice_roll(rule->seed, error->calls) % rule->prob)
		return false;
	error->failures++;
	return true;
}

static void code_verdict(const char *name, struct layer_verdict *verdict)
{
	for (size_t i = 0; i < CODES; i++) {
		if (strcmp(codes[i].name, name))
			continue;
		verdict->what = codes[i].code ? LAYER_ANSWER : LAYER_UNLOCKED;
		verdict->code = codes[i].code;
	}
}

static void error_look(struct layer *layer, const struct layer_call *call,
		       struct layer_verdict *verdict)
{
	struct error *error = (struct error *)layer;

	store_lock(&error->rule_lock);
	if (call_fails(error, call)) {
		verdict->what = LAYER_FAIL;
		verdict->error = error->rule.error;
		verdict->first = error->rule.first;
		verdict->end = error->rule.end;
		if (error->rule.code && (call->op == LAYER_FAULT || call->op == LAYER_PAGE_MKWRITE))
			code_verdict(error->rule.code, verdict);
	}
	store_unlock(&error->rule_lock);
}

/* ---- Options ------------------------------------------------------------------------------ */

static int code_set(struct rule *rule, const char *value)
{
	for (size_t i = 0; i < CODES; i++) {
		if (!strcmp(value, codes[i].name)) {
			rule->code = codes[i].name;
			return 0;
		}
	}
	return mkw_set_error(-EINVAL, "code=%.40s: write NOPAGE, RETRY, OOM or 0", value);
}

/* "1/N" */
static int prob_set(struct rule *rule, const char *value)
{
	if (strncmp(value, "1/", 2))
		return mkw_set_error(-EINVAL, "prob=%.40s: write 1/N, as 1/100", value);
	return mkw_parse_uint("prob=1/N, N", value + 2, 1, UINT32_MAX, &rule->prob);
}

/* "FIRST-LAST", or one page */
static int range_set(struct rule *rule, const char *value)
{
	char first_text[24];
	size_t length = strcspn(value, "-");
	uint64_t first, last;

	if (length >= sizeof(first_text))
		return mkw_set_error(-EINVAL, "range=%.60s: write FIRST-LAST, in pages", value);
	memcpy(first_text, value, length);
	first_text[length] = '\0';
	int error = mkw_parse_uint("range, FIRST", first_text, 0, INT64_MAX, &first);

	last = first;
	if (!error && value[length])
		error = mkw_parse_uint("range, LAST", value + length + 1, first, INT64_MAX, &last);
	if (error)
		return error;
	rule->first = first;
	rule->end = last + 1;
	return 0;
}

static int errno_set(struct rule *rule, const char *value)
{
	int number;
	int error = mkw_parse_errno("errno", value, &number);

	if (error)
		return error;
	rule->error = -number;
	rule->code = NULL;
	return 0;
}

/* 0, a negative errno, or 1: no such option. */
static int rule_set(struct rule *rule, const char *key, const char *value)
{
	if (!strcmp(key, "op"))
		return layer_parse_op(value, "none", &rule->op);
	if (!strcmp(key, "errno"))
		return errno_set(rule, value);
	if (!strcmp(key, "code"))
		return code_set(rule, value);
	if (!strcmp(key, "nth"))
		return mkw_parse_uint(key, value, 1, INT64_MAX, &rule->nth);
	if (!strcmp(key, "seed"))
		return mkw_parse_uint(key, value, 0, UINT64_MAX, &rule->seed);
	if (!strcmp(key, "prob"))
		return prob_set(rule, value);
	if (!strcmp(key, "range"))
		return range_set(rule, value);
	if (strcmp(key, "count"))
		return 1;
	rule->count_given = true;
	return mkw_parse_uint(key, value, 0, INT64_MAX, &rule->count);
}

/* A code is an answer to a fault, of which the others have none. */
static int rule_check(const struct rule *rule)
{
	if (!rule->code || rule->op == LAYER_FAULT || rule->op == LAYER_PAGE_MKWRITE ||
	    rule->op == LAYER_OPS)
		return 0;
	return mkw_set_error(-EINVAL, "error: code goes with op=fault and op=page_mkwrite; others "
				      "take errno");
}

static int error_control(struct layer *layer, const char *key, const char *value)
{
	struct error *error = (struct error *)layer;

	store_lock(&error->rule_lock);
	struct rule rule = error->rule;
	int result = rule_set(&rule, key, value);

	if (!result)
		result = rule_check(&rule);
	if (!result) {
		error->rule = rule;
		error->calls = error->failures = 0;
	}
	store_unlock(&error->rule_lock);
	return result;
}

static void error_free(struct layer *layer)
{
	struct error *error = (struct error *)layer;

	store_lock_destroy(&error->rule_lock);
	free(error);
}

static int error_open(struct mkw_open_args *args)
{
	struct error *error = calloc(1, sizeof(*error));
	int result = 0;
	bool errno_given = false, code_given = false;

	if (!error)
		return mkw_set_error(-ENOMEM, "error: no memory for a layer");
	store_lock_init(&error->rule_lock, &rule_class);
	error->rule = (struct rule){.op = LAYER_OPS, .error = -EIO, .nth = 1, .end = UINT64_MAX};
	error->layer.look = error_look;
	error->layer.control = error_control;
	error->layer.free = error_free;
	for (size_t i = 0; i < args->option_count && !result; i++) {
		errno_given |= !strcmp(args->options[i].key, "errno");
		code_given |= !strcmp(args->options[i].key, "code");
		result = rule_set(&error->rule, args->options[i].key, args->options[i].value);
	}
	if (!result && errno_given && code_given)
		result = mkw_set_error(-EINVAL, "error: errno and code exclude one another");
	if (!result)
		result = rule_check(&error->rule);
	if (!result)
		result = layer_open(&error->layer, args);
	if (result)
		error_free(&error->layer);
	return result;
}

const struct mkw_store_driver error_driver = {
	.struct_size = sizeof(struct mkw_store_driver),
	.scheme = "error",
	.summary = "a layer that makes operations fail, for tests",
	.options =
		"op=OPERATION\twhich one fails; default none\n"
		"errno=ERRNO\twith which error; default EIO\n"
		"code=CODE\tfault and page_mkwrite: answer NOPAGE, RETRY, OOM or 0 in its place\n"
		"nth=N\tthe first call to fail; default 1\n"
		"count=N\thow many fail; 0: no end; default 1\n"
		"prob=1/N\tone call in N fails, count then being 0 by default\n"
		"seed=K\twhich ones those are\n"
		"range=FIRST-LAST\tonly calls that touch these pages\n",
	.layer = true,
	.open = error_open,
};
