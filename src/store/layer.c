/* SPDX-License-Identifier: MIT */
/*
 * layer.c - a store that forwards to the store beneath, after a hook has had its say (layer.h).
 *
 * No state of its own changes after opening, so it needs no lock; hooks bring theirs.
 */
#include "store/layer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const op_names[LAYER_OPS] = {
	[LAYER_FAULT] = "fault",	 [LAYER_PAGE_MKWRITE] = "page_mkwrite",
	[LAYER_UNRESERVE] = "unreserve", [LAYER_WRITEPAGES] = "writepages",
	[LAYER_TRUNCATE] = "truncate",	 [LAYER_PUNCH_HOLE] = "punch_hole",
	[LAYER_FSYNC] = "fsync",	 [LAYER_ATTACH] = "attach",
	[LAYER_CONTROL] = "control",	 [LAYER_CAPACITY] = "capacity",
};

int layer_parse_op(const char *value, const char *extra, enum layer_op *op)
{
	char known[200] = "";

	for (unsigned i = 0; i < LAYER_OPS; i++) {
		size_t used = strlen(known);

		if (!strcmp(value, op_names[i])) {
			*op = (enum layer_op)i;
			return 0;
		}
		snprintf(known + used, sizeof(known) - used, "%s, ", op_names[i]);
	}
	if (!strcmp(value, extra)) {
		*op = LAYER_OPS;
		return 0;
	}
	return mkw_set_error(-EINVAL, "op=%.40s: write one of %s%s", value, known, extra);
}

/* Let the hook look at a call about [first, end). */
static struct layer_verdict layer_look(struct layer *layer, enum layer_op op, uint64_t first,
				       uint64_t end)
{
	struct layer_call call = {.op = op, .first = first, .end = end};
	struct layer_verdict verdict = {.what = LAYER_PASS};

	layer->look(layer, &call, &verdict);
	return verdict;
}

static int error_inject(const struct layer *layer, const struct layer_verdict *verdict,
			enum layer_op op)
{
	return mkw_set_error(verdict->error, "%s: %s was made to fail: %s", layer->ops.name,
			     op_names[op], strerrordesc_np(-verdict->error));
}

/* ---- Faults ------------------------------------------------------------------------------- */

static mkw_fault_t layer_fault(void *store, struct mkw_object *object, struct mkw_run *run,
			       void *buffer)
{
	struct layer *layer = store;
	struct layer_verdict verdict =
		layer_look(layer, LAYER_FAULT, run->first, run->first + run->count);

	if (verdict.what == LAYER_FAIL)
		return mkw_fault_from_errno(error_inject(layer, &verdict, LAYER_FAULT));
	if (verdict.what == LAYER_ANSWER)
		return verdict.code;
	mkw_fault_t code = layer->inner.fault(layer->store, object, run, buffer);

	if (verdict.what == LAYER_UNLOCKED)
		code &= ~MKW_FAULT_LOCKED;
	return code;
}

/* The 0 of old (contract 3.4, S4.1): granted, and not locked. */
static mkw_fault_t run_give_unlocked(struct mkw_run *run, mkw_fault_t code)
{
	if (code & MKW_FAULT_LOCKED)
		mkw_run_unlock(run);
	return code & ~MKW_FAULT_LOCKED;
}

static mkw_fault_t layer_page_mkwrite(void *store, struct mkw_object *object, struct mkw_run *run)
{
	struct layer *layer = store;
	struct layer_verdict verdict =
		layer_look(layer, LAYER_PAGE_MKWRITE, run->first, run->first + run->count);

	if (verdict.what == LAYER_FAIL)
		return mkw_fault_from_errno(error_inject(layer, &verdict, LAYER_PAGE_MKWRITE));
	if (verdict.what == LAYER_ANSWER)
		return verdict.code;
	if (!layer->inner.page_mkwrite)
		return 0;
	mkw_fault_t code = layer->inner.page_mkwrite(layer->store, object, run);

	return verdict.what == LAYER_UNLOCKED ? run_give_unlocked(run, code) : code;
}

/* Made to fail it is lost, which is all the failure that it has. */
static void layer_unreserve(void *store, struct mkw_object *object, uint64_t first, uint64_t count)
{
	struct layer *layer = store;
	struct layer_verdict verdict = layer_look(layer, LAYER_UNRESERVE, first, first + count);

	if (verdict.what != LAYER_FAIL)
		layer->inner.unreserve(layer->store, object, first, count);
}

/* ---- Write-back --------------------------------------------------------------------------- */

static bool run_touches(const struct mkw_wb_run *run, const struct layer_verdict *verdict)
{
	return run->first < verdict->end && verdict->first < run->first + run->count;
}

/* Hand on rows of runs that are spared; the others fail. */
static int writepages_fail(struct layer *layer, struct mkw_object *object,
			   struct mkw_writeback *writeback, const struct layer_verdict *verdict)
{
	int error = 0;

	for (size_t i = 0, next; i < writeback->count; i = next) {
		struct mkw_wb_run *runs = writeback->runs;

		next = i;
		while (next < writeback->count && !run_touches(&runs[next], verdict))
			next++;
		if (next == i) {
			runs[next++].result = error_inject(layer, verdict, LAYER_WRITEPAGES);
			continue;
		}
		struct mkw_writeback row = *writeback;

		row.runs = runs + i;
		row.count = next - i;
		error = layer->inner.writepages(layer->store, object, &row);
		for (; error && i < next; i++)
			runs[i].result = error;
	}
	return 0;
}

static int layer_writepages(void *store, struct mkw_object *object, struct mkw_writeback *writeback)
{
	struct layer *layer = store;
	const struct mkw_wb_run *last = writeback->runs + writeback->count;
	struct layer_call call = {.op = LAYER_WRITEPAGES, .writeback = writeback};
	struct layer_verdict verdict = {.what = LAYER_PASS};

	if (writeback->count) {
		call.first = writeback->runs[0].first;
		call.end = last[-1].first + last[-1].count;
	}
	layer->look(layer, &call, &verdict);
	if (verdict.what == LAYER_FAIL)
		return writepages_fail(layer, object, writeback, &verdict);
	return layer->inner.writepages(layer->store, object, writeback);
}

static int layer_fsync(void *store, struct mkw_object *object, uint64_t offset, uint64_t length)
{
	struct layer *layer = store;
	uint64_t end = offset + length;
	struct layer_verdict verdict =
		layer_look(layer, LAYER_FSYNC, offset / MKW_PAGE_SIZE,
			   length ? (end + MKW_PAGE_SIZE - 1) / MKW_PAGE_SIZE : UINT64_MAX);

	if (verdict.what == LAYER_FAIL)
		return error_inject(layer, &verdict, LAYER_FSYNC);
	return layer->inner.fsync ? layer->inner.fsync(layer->store, object, offset, length) : 0;
}

/* ---- Size --------------------------------------------------------------------------------- */

static int layer_truncate(void *store, struct mkw_object *object, uint64_t size_bytes)
{
	struct layer *layer = store;
	struct layer_verdict verdict =
		layer_look(layer, LAYER_TRUNCATE, size_bytes / MKW_PAGE_SIZE, UINT64_MAX);

	if (verdict.what == LAYER_FAIL)
		return error_inject(layer, &verdict, LAYER_TRUNCATE);
	return layer->inner.truncate(layer->store, object, size_bytes);
}

static int layer_punch_hole(void *store, struct mkw_object *object, uint64_t offset,
			    uint64_t length)
{
	struct layer *layer = store;
	struct layer_verdict verdict = layer_look(layer, LAYER_PUNCH_HOLE, offset / MKW_PAGE_SIZE,
						  (offset + length) / MKW_PAGE_SIZE);

	if (verdict.what == LAYER_FAIL)
		return error_inject(layer, &verdict, LAYER_PUNCH_HOLE);
	return layer->inner.punch_hole(layer->store, object, offset, length);
}

/* ---- The rest ----------------------------------------------------------------------------- */

static int layer_attach(void *store, struct mkw_object *object)
{
	struct layer *layer = store;
	struct layer_verdict verdict = layer_look(layer, LAYER_ATTACH, 0, UINT64_MAX);

	if (verdict.what == LAYER_FAIL)
		return error_inject(layer, &verdict, LAYER_ATTACH);
	return layer->inner.attach ? layer->inner.attach(layer->store, object) : 0;
}

static void layer_release(void *store)
{
	struct layer *layer = store;

	if (layer->inner.release)
		layer->inner.release(layer->store);
	layer->free(layer);
}

static void layer_map(void *store, struct mkw_object *object)
{
	struct layer *layer = store;

	layer->inner.map(layer->store, object);
}

static void layer_unmap(void *store, struct mkw_object *object)
{
	struct layer *layer = store;

	layer->inner.unmap(layer->store, object);
}

static int layer_control(void *store, struct mkw_object *object, const char *key, const char *value)
{
	struct layer *layer = store;
	int result = layer->control ? layer->control(layer, key, value) : 1;

	if (result <= 0)
		return result;
	struct layer_verdict verdict = layer_look(layer, LAYER_CONTROL, 0, UINT64_MAX);

	if (verdict.what == LAYER_FAIL)
		return error_inject(layer, &verdict, LAYER_CONTROL);
	if (!layer->inner.control)
		return mkw_set_error(-EINVAL,
				     "%s: neither it nor the %s beneath has an option "
				     "%.40s to change",
				     layer->ops.name, layer->inner.name, key);
	return layer->inner.control(layer->store, object, key, value);
}

static int layer_capacity(void *store, uint64_t *free_bytes, uint64_t *total_bytes)
{
	struct layer *layer = store;
	struct layer_verdict verdict = layer_look(layer, LAYER_CAPACITY, 0, UINT64_MAX);

	if (verdict.what == LAYER_FAIL)
		return error_inject(layer, &verdict, LAYER_CAPACITY);
	return layer->inner.capacity(layer->store, free_bytes, total_bytes);
}

/* ---- Opening ------------------------------------------------------------------------------ */

/* Operations whose absence means something are absent where the store beneath has none. */
static void ops_fill(struct layer *layer, const char *name)
{
	const struct mkw_store_ops *inner = &layer->inner;

	layer->ops = (struct mkw_store_ops){
		.struct_size = sizeof(struct mkw_store_ops),
		.name = name,
		.flags = inner->flags,
		.run_max_pages = inner->run_max_pages,
		.fault = layer_fault,
		.page_mkwrite = layer_page_mkwrite,
		.unreserve = inner->unreserve ? layer_unreserve : NULL,
		.writepages = inner->writepages ? layer_writepages : NULL,
		.truncate = inner->truncate ? layer_truncate : NULL,
		.punch_hole = inner->punch_hole ? layer_punch_hole : NULL,
		.fsync = layer_fsync,
		.attach = layer_attach,
		.release = layer_release,
		.map = inner->map ? layer_map : NULL,
		.unmap = inner->unmap ? layer_unmap : NULL,
		.control = layer_control,
		.capacity = inner->capacity ? layer_capacity : NULL,
	};
}

/* FNV-1a over 128 bits: names too long for an identity are told apart by it. */
static void identity_hash(unsigned char *out, const unsigned char *bytes, size_t length)
{
	unsigned __int128 hash = (unsigned __int128)0x6c62272e07bb0142 << 64 | 0x62b821756295c58d;
	const unsigned __int128 prime = (unsigned __int128)1 << 88 | 0x13b;

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ bytes[i]) * prime;
	memcpy(out, &hash, sizeof(hash));
}

/*
 * The same layer with the same options over the same storage is the same storage; over it, or
 * beside it, something else is not: it would see other errors. The identity is a hash of the
 * layer's own words, and then the identity beneath, hashed as well where it is too long.
 */
static void identity_make(struct mkw_open_args *args, const struct mkw_open_args *inner)
{
	unsigned char own[16], beneath[16];
	char words[1024];
	size_t used = (size_t)snprintf(words, sizeof(words), "%s", args->scheme);

	for (size_t i = 0; i < args->option_count && used < sizeof(words); i++)
		used += (size_t)snprintf(words + used, sizeof(words) - used, "&%s=%s",
					 args->options[i].key, args->options[i].value);
	/* Without an identity beneath, or too wordy to tell: shared with nobody. */
	if (!inner->identity_length || used >= sizeof(words))
		return;
	identity_hash(own, (const unsigned char *)words, used);
	memcpy(args->identity, own, sizeof(own));
	if (inner->identity_length <= sizeof(args->identity) - sizeof(own)) {
		memcpy(args->identity + sizeof(own), inner->identity, inner->identity_length);
		args->identity_length = sizeof(own) + inner->identity_length;
		return;
	}
	identity_hash(beneath, inner->identity, inner->identity_length);
	memcpy(args->identity + sizeof(own), beneath, sizeof(beneath));
	args->identity_length = sizeof(own) + sizeof(beneath);
}

int layer_open(struct layer *layer, struct mkw_open_args *args)
{
	struct mkw_open_args inner;
	int error = mkw_store_open(args->path, args->flags, &inner);

	if (error)
		return error;
	size_t size = inner.ops->struct_size;

	memcpy(&layer->inner, inner.ops, size < sizeof(layer->inner) ? size : sizeof(layer->inner));
	layer->store = inner.store;
	if (!layer->inner.fault) {
		if (layer->inner.release)
			layer->inner.release(layer->store);
		return mkw_set_error(-EINVAL, "%s: the store beneath has no fault operation",
				     args->scheme);
	}
	ops_fill(layer, args->scheme);
	args->ops = &layer->ops;
	args->store = layer;
	args->size_bytes = inner.size_bytes;
	args->dev = inner.dev;
	args->ino = inner.ino;
	identity_make(args, &inner);
	return 0;
}
