/* SPDX-License-Identifier: MIT */
/*
 * api.c - fuzz target: sequences of calls, compared with a model.
 *
 * An input is text: letters that name calls (calls.c), each followed by numbers of one character;
 * blanks and whatever else means nothing between calls is passed over. At the beginning 'N' and
 * five numbers ask for a space of one's own. An example: "o01 11 m0091 s00a D000" opens a mem:
 * store, maps it, stores a byte and lists what is dirty.
 */
#include "fuzz/world.h"

#define CALLS_MAX 100u

void fuzz_one(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};

	world_begin(&in);
	for (unsigned calls = 0; calls < CALLS_MAX && !input_ended(&in);)
		calls += call_one(&in, *in.at++);
	world_finish(size % 2);
}
