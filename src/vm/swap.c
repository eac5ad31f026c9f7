/* SPDX-License-Identifier: MIT */
/*
 * swap.c - the slots of a swap file: which are free, and how many users each of the others has.
 *
 * A slot has a user for each private page whose bytes are there: several after a fork. It is free
 * when the last has gone, and its bytes have been dropped from the file: until then nobody takes
 * it. Slots are given out in runs, from the first that is free, so that what is written at a time
 * can be read at a time. The tables grow in pieces of 65536 slots and are never given back before
 * the end.
 *
 * One slot is spare: the file has room for it, and it is taken only by who gives another one back
 * by that, or soon. With memory and file full a page can still be read back: another one goes to
 * the spare slot, and the slot of the first is the spare one then. Without it nobody could come by
 * what was swapped out.
 *
 * swap->lock (RANK_LEAF) is not held across the file's reads, writes and drops.
 */
#include "vm.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define NO_SLOT UINT64_MAX
/* Words of 64 slots to look at for a run as long as is wanted; then the longest so far will do. */
#define SEARCH_WORDS 4096u

static int spare_make(struct swap *swap);

static void pieces_free(struct swap *swap)
{
	for (size_t i = 0; i < SWAP_PIECES; i++)
		if (swap->pieces[i] != NULL)
			env_free(swap->pieces[i], sizeof(struct swap_piece));
	env_free(swap->pieces, SWAP_PIECES * sizeof(struct swap_piece *));
	swap->pieces = NULL;
}

int swap_open(struct swap *swap, const char *path, uint64_t limit_bytes)
{
	const uint64_t most = (uint64_t)SWAP_PIECES * SWAP_PIECE_SLOTS;
	uint64_t limit = limit_bytes >> PAGE_SHIFT;
	int error;

	env_mutex_init(&swap->lock, RANK_LEAF);
	if (path == NULL)
		return 0;
	swap->limit = limit == 0 || limit > most ? most : limit;
	swap->pieces = env_alloc(SWAP_PIECES * sizeof(struct swap_piece *));
	if (swap->pieces == NULL)
		return mkw_set_error(-ENOMEM, "no memory for the table of a swap file");
	error = swap_file_open(path, &swap->file);
	if (error == 0) {
		error = spare_make(swap);
		if (error == 0)
			return 0;
		swap_file_close(swap->file);
		swap->file = NULL;
	}
	pieces_free(swap);
	return error;
}

void swap_close(struct swap *swap)
{
	assert(swap->used == 0);
	if (swap->file != NULL) {
		swap_file_close(swap->file);
		pieces_free(swap);
	}
	env_mutex_destroy(&swap->lock);
}

/* ---- Which are free: all => swap->lock held ----------------------------------------------- */

static struct swap_piece *slot_piece(const struct swap *swap, uint64_t slot)
{
	return swap->pieces[slot / SWAP_PIECE_SLOTS];
}

static bool slot_taken(const struct swap *swap, uint64_t slot)
{
	const struct swap_piece *piece = slot_piece(swap, slot);

	return piece != NULL &&
	       (piece->taken[slot % SWAP_PIECE_SLOTS / 64] >> (slot % 64) & 1) != 0;
}

/* The first free slot at or after slot, or NO_SLOT. */
static uint64_t slot_next_free(const struct swap *swap, uint64_t slot)
{
	while (slot < swap->limit) {
		const struct swap_piece *piece = slot_piece(swap, slot);
		uint64_t word;

		if (piece == NULL)
			return slot;
		if (piece->used == SWAP_PIECE_SLOTS) {
			slot = (slot / SWAP_PIECE_SLOTS + 1) * SWAP_PIECE_SLOTS;
			continue;
		}
		word = ~piece->taken[slot % SWAP_PIECE_SLOTS / 64] >> (slot % 64);
		if (word != 0)
			slot += (uint64_t)__builtin_ctzll(word);
		else
			slot = (slot / 64 + 1) * 64;
		if (word != 0)
			return slot < swap->limit ? slot : NO_SLOT;
	}
	return NO_SLOT;
}

/* How many free slots follow each other from slot on, at most want. A run lies in one piece. */
static size_t slot_run(const struct swap *swap, uint64_t slot, size_t want)
{
	size_t n = 1;

	while (n < want && slot + n < swap->limit && (slot + n) % SWAP_PIECE_SLOTS != 0 &&
	       !slot_taken(swap, slot + n))
		n++;
	return n;
}

/* A run of want slots, or the longest near the beginning; *first NO_SLOT: nothing is free. */
static size_t slot_search(struct swap *swap, size_t want, uint64_t *first)
{
	uint64_t slot = slot_next_free(swap, swap->hint);
	const uint64_t end = swap->hint + SEARCH_WORDS * 64;
	size_t best = 0;

	*first = NO_SLOT;
	swap->hint = slot == NO_SLOT ? swap->limit : slot;
	while (slot != NO_SLOT && best < want && (best == 0 || slot < end)) {
		size_t n = slot_run(swap, slot, want);

		if (n > best) {
			best = n;
			*first = slot;
		}
		slot = slot_next_free(swap, slot + n);
	}
	return best;
}

static bool piece_ensure(struct swap *swap, uint64_t slot)
{
	struct swap_piece **piece = &swap->pieces[slot / SWAP_PIECE_SLOTS];

	if (*piece == NULL)
		*piece = env_alloc(sizeof(struct swap_piece));
	return *piece != NULL;
}

static void slot_mark(struct swap *swap, uint64_t slot, bool taken)
{
	struct swap_piece *piece = slot_piece(swap, slot);
	uint64_t *word = &piece->taken[slot % SWAP_PIECE_SLOTS / 64];
	const uint64_t bit = 1ull << (slot % 64);

	assert(((*word & bit) != 0) != taken);
	*word ^= bit;
	piece->used += taken ? 1u : UINT32_MAX;
	swap->used += taken ? 1u : UINT64_MAX;
	if (!taken && slot < swap->hint)
		swap->hint = slot;
}

static uint16_t *slot_refs(struct swap *swap, uint32_t slot)
{
	return &slot_piece(swap, slot)->refs[slot % SWAP_PIECE_SLOTS];
}

/* ---- The spare one ------------------------------------------------------------------------ */

static int spare_make(struct swap *swap)
{
	static const char zeros[MKW_PAGE_SIZE];
	size_t done;
	int error;

	if (!piece_ensure(swap, 0))
		return mkw_set_error(-ENOMEM, "no memory for the table of a swap file");
	error = swap_file_write(swap->file, 0, zeros, sizeof(zeros), &done);
	if (error != 0)
		return mkw_set_error(error, "swap_path: cannot write a page there: errno %d",
				     -error);
	slot_mark(swap, 0, true);
	swap->used = 0;
	swap->spare = 0;
	swap->has_spare = true;
	return 0;
}

bool swap_take_spare(struct swap *swap, uint32_t *slot)
{
	bool had;

	env_lock(&swap->lock);
	had = swap->has_spare;
	if (had) {
		*slot = swap->spare;
		*slot_refs(swap, *slot) = 1;
		swap->has_spare = false;
		swap->used++;
	}
	env_unlock(&swap->lock);
	return had;
}

bool swap_is_tight(struct swap *swap)
{
	bool tight;

	env_lock(&swap->lock);
	tight = swap->file != NULL && !swap->has_spare;
	env_unlock(&swap->lock);
	return tight;
}

/* ---- Taking and giving back --------------------------------------------------------------- */

size_t swap_take(struct swap *swap, size_t want, uint32_t *first, int *error)
{
	uint64_t slot, limit_bytes = swap->limit << PAGE_SHIFT;
	size_t n;

	if (swap->file == NULL) {
		*error = mkw_set_error(-ENOMEM, "the space has no swap file");
		return 0;
	}
	env_lock(&swap->lock);
	n = slot_search(swap, want, &slot);
	*error = n == 0 ? -ENOSPC : 0;
	if (n > 0 && !piece_ensure(swap, slot)) {
		*error = -ENOMEM;
		n = 0;
	}
	for (size_t i = 0; i < n; i++) {
		slot_mark(swap, slot + i, true);
		*slot_refs(swap, (uint32_t)(slot + i)) = 1;
	}
	env_unlock(&swap->lock);
	if (*error == -ENOSPC)
		mkw_set_error(*error, "the swap file is full: its limit is %llu bytes",
			      (unsigned long long)limit_bytes);
	else if (*error != 0)
		mkw_set_error(*error, "no memory for the table of the swap file");
	*first = (uint32_t)slot;
	return n;
}

int swap_get(struct swap *swap, uint32_t slot)
{
	int error = 0;

	env_lock(&swap->lock);
	assert(slot_taken(swap, slot) && *slot_refs(swap, slot) > 0);
	if (*slot_refs(swap, slot) == UINT16_MAX)
		error = -EMFILE;
	else
		++*slot_refs(swap, slot);
	env_unlock(&swap->lock);
	return error;
}

/* A run of slots from *first on, before end, that nobody uses any more, but are not free yet. One
 * user of each up to there has gone. */
static size_t put_some(struct swap *swap, uint32_t *first, uint32_t end)
{
	uint32_t slot = *first;
	size_t n = 0;

	env_lock(&swap->lock);
	for (; slot < end; slot++) {
		uint16_t *refs = slot_refs(swap, slot);

		assert(slot_taken(swap, slot) && *refs > 0);
		if (*refs == 1 && n == 0)
			*first = slot;
		if (*refs > 1 && n > 0)
			break;
		n += --*refs == 0;
	}
	env_unlock(&swap->lock);
	if (n == 0)
		*first = end;
	return n;
}

/* The slot, which nobody uses any more, is the spare one, if there is none. */
static bool put_spare(struct swap *swap, uint32_t slot)
{
	bool lacking;

	env_lock(&swap->lock);
	lacking = !swap->has_spare;
	if (lacking) {
		swap->spare = slot;
		swap->has_spare = true;
		swap->used--;
	}
	env_unlock(&swap->lock);
	return lacking;
}

/* written: the file has room for all of them. True: there is a spare slot again. */
static bool put_run(struct swap *swap, uint32_t first, size_t count, bool written)
{
	const uint32_t end = first + (uint32_t)count;
	bool spared = false;

	env_assert_unlocked();
	while (first < end) {
		size_t n = put_some(swap, &first, end);

		if (n == 0)
			break;
		if (written && !spared && put_spare(swap, first)) {
			spared = true;
			first++;
			if (--n == 0)
				continue;
		}
		swap_file_drop(swap->file, (uint64_t)first << PAGE_SHIFT,
			       (uint64_t)n << PAGE_SHIFT);
		env_lock(&swap->lock);
		for (size_t i = 0; i < n; i++)
			slot_mark(swap, first + i, false);
		env_unlock(&swap->lock);
		first += (uint32_t)n;
	}
	return spared;
}

bool swap_put(struct swap *swap, uint32_t first, size_t count)
{
	return put_run(swap, first, count, true);
}

void swap_cancel(struct swap *swap, uint32_t first, size_t count)
{
	put_run(swap, first, count, false);
}

uint64_t swap_used(struct swap *swap)
{
	uint64_t used;

	env_lock(&swap->lock);
	used = swap->used;
	env_unlock(&swap->lock);
	return used;
}

/* ---- Bytes -------------------------------------------------------------------------------- */

size_t swap_write(struct swap *swap, uint32_t first, size_t count, const void *src, int *error)
{
	size_t done;

	env_assert_unlocked();
	*error = swap_file_write(swap->file, (uint64_t)first << PAGE_SHIFT, src,
				 count << PAGE_SHIFT, &done);
	if (*error == -ENOSPC)
		mkw_set_error(*error, "the swap file is full: its file system gives no more");
	else if (*error != 0)
		mkw_set_error(*error, "cannot write to the swap file: errno %d", -*error);
	return done >> PAGE_SHIFT;
}

int swap_read(struct swap *swap, uint32_t first, size_t count, void *dst)
{
	int error;

	env_assert_unlocked();
	error = swap_file_read(swap->file, (uint64_t)first << PAGE_SHIFT, dst, count << PAGE_SHIFT);
	return error == 0
		       ? 0
		       : mkw_set_error(-EIO, "cannot read a page back from the swap file: errno %d",
				       -error);
}
