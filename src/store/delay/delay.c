/* SPDX-License-Identifier: MIT */
/*
 * delay.c - a layer that makes operations of the store beneath slow: mkwrite-delay(7).
 *
 * States: two numbers, each changed at any time; an operation under way keeps those it began with.
 */
#include "store/driver.h"
#include "store/layer.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define US_MAX (3600ull * 1000 * 1000)

struct delay {
	struct layer layer;
	_Atomic uint64_t us;
	_Atomic unsigned op; /* LAYER_OPS: all */
};

static void delay_look(struct layer *layer, const struct layer_call *call,
		       struct layer_verdict *verdict)
{
	struct delay *delay = (struct delay *)layer;
	uint64_t us = atomic_load(&delay->us);
	unsigned op = atomic_load(&delay->op);
	struct timespec until;

	(void)verdict;
	if (!us || (op != LAYER_OPS && op != call->op))
		return;
	clock_gettime(CLOCK_MONOTONIC, &until);
	uint64_t ns = (uint64_t)until.tv_nsec + us % 1000000 * 1000;

	until.tv_sec += (time_t)(us / 1000000 + ns / 1000000000);
	until.tv_nsec = (long)(ns % 1000000000);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

static int delay_set(struct layer *layer, const char *key, const char *value)
{
	struct delay *delay = (struct delay *)layer;
	uint64_t us;
	enum layer_op op;
	int error;

	if (!strcmp(key, "us")) {
		error = mkw_parse_uint(key, value, 0, US_MAX, &us);
		if (!error)
			atomic_store(&delay->us, us);
	} else if (!strcmp(key, "op")) {
		error = layer_parse_op(value, "all", &op);
		if (!error)
			atomic_store(&delay->op, op);
	} else {
		return 1;
	}
	return error;
}

static void delay_free(struct layer *layer)
{
	free(layer);
}

static int delay_open(struct mkw_open_args *args)
{
	struct delay *delay = calloc(1, sizeof(*delay));
	int error = 0;

	if (!delay)
		return mkw_set_error(-ENOMEM, "delay: no memory for a layer");
	delay->op = LAYER_OPS;
	delay->layer.look = delay_look;
	delay->layer.control = delay_set;
	delay->layer.free = delay_free;
	for (size_t i = 0; i < args->option_count && !error; i++)
		error = delay_set(&delay->layer, args->options[i].key, args->options[i].value);
	if (!error)
		error = layer_open(&delay->layer, args);
	if (error)
		free(delay);
	return error;
}

const struct mkw_store_driver delay_driver = {
	.struct_size = sizeof(struct mkw_store_driver),
	.scheme = "delay",
	.summary = "a layer that makes operations slow, for tests",
	.options = "us=N\tmicroseconds to sleep before an operation; default 0\n"
		   "op=OPERATION\twhich one; default all\n",
	.layer = true,
	.open = delay_open,
};
