/* SPDX-License-Identifier: MIT */
/* model.c - the reference: which values each word may hold (race.h). */
#include "race.h"
#include "threads.h"

#define NOW UINT64_MAX

static uint64_t now;

uint64_t model_now(void)
{
	return ++now;
}

void model_reset(void)
{
	now = 0;
}

static struct value *value_add(struct word *w, uint64_t value)
{
	struct value *v;

	if (w->count == VALUES_MAX)
		threads_fail("the model has no room for another value");
	v = &w->values[w->count++];
	*v = (struct value){.value = value, .since = model_now(), .until = NOW};
	v->last = v->since;
	return v;
}

void model_init(struct model *m, unsigned word, uint64_t value)
{
	m->words[word].count = 0;
	value_add(&m->words[word], value);
}

/* Candidates that nothing keeps end here. */
static void values_close(struct word *w, uint64_t older_than, uint64_t except)
{
	uint64_t time = model_now();

	for (unsigned i = 0; i < w->count; i++) {
		struct value *v = &w->values[i];

		if (v->until == NOW && v->calls == 0 && !v->sticky && v->last < older_than &&
		    v->value != except)
			v->until = time;
	}
}

void model_commit(struct model *m, unsigned word, uint64_t value, bool past_end)
{
	struct word *w = &m->words[word];

	values_close(w, NOW, value);
	value_add(w, value)->sticky = past_end;
	if (past_end)
		value_add(w, 0)->sticky = true;
}

uint64_t model_call(struct model *m, unsigned word, uint64_t value)
{
	struct value *v = value_add(&m->words[word], value);

	v->calls = 1;
	return v->since;
}

void model_call_end(struct model *m, unsigned word, uint64_t value, uint64_t begun, bool done)
{
	struct word *w = &m->words[word];

	for (unsigned i = 0; i < w->count; i++) {
		struct value *v = &w->values[i];

		v->sticky &= !done || v->last > begun;
		if (v->since != begun || v->value != value)
			continue;
		v->calls = 0;
		v->last = model_now();
		if (!done)
			v->until = model_now();
	}
	if (done)
		values_close(w, begun, NOW);
}

bool model_may(const struct model *m, unsigned word, uint64_t value)
{
	const struct word *w = &m->words[word];
	bool found = false;

	for (unsigned i = 0; i < w->count; i++)
		found |= w->values[i].until == NOW && w->values[i].value == value;
	return found;
}

void model_read(struct model *m, unsigned word, uint64_t value)
{
	if (!model_may(m, word, value))
		threads_fail("word %u reads %llu, which it cannot hold", word,
			     (unsigned long long)value);
	values_close(&m->words[word], NOW, value);
}

bool model_had(const struct model *m, unsigned word, uint64_t value, uint64_t time)
{
	const struct word *w = &m->words[word];

	for (unsigned i = 0; i < w->count; i++)
		if (w->values[i].value == value && w->values[i].until >= time)
			return true;
	return false;
}
