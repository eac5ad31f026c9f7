/* SPDX-License-Identifier: MIT */
/*
 * slab.c - memory of the fault path: fixed sizes, straight from the kernel, kept until the space
 * ends. Never malloc: an inline fault may have interrupted it.
 */
#include "vm.h"

#include <string.h>

#define CHUNK_BYTES (256u << 10)

struct chunk {
	struct list link;
	size_t size;
};

struct slot { /* a free piece */
	struct slot *next;
};

/* => slab_lock held. */
static bool slab_grow(struct space *s, void **freelist, size_t size, size_t chunk_bytes)
{
	struct chunk *chunk = env_alloc(chunk_bytes);
	size_t start = size > MKW_PAGE_SIZE ? MKW_PAGE_SIZE : 64;

	if (chunk == NULL)
		return false;
	chunk->size = chunk_bytes;
	list_push_back(&s->chunks, &chunk->link);
	for (size_t at = start; at + size <= chunk_bytes; at += size) {
		struct slot *slot = (struct slot *)((char *)chunk + at);
		slot->next = *freelist;
		*freelist = slot;
	}
	return true;
}

static void *slab_get(struct space *s, void **freelist, size_t size, size_t chunk_bytes)
{
	struct slot *slot = NULL;

	size = (size + 63) & ~(size_t)63;
	env_lock(&s->slab_lock);
	if (*freelist != NULL || slab_grow(s, freelist, size, chunk_bytes)) {
		slot = *freelist;
		*freelist = slot->next;
	}
	env_unlock(&s->slab_lock);
	return slot;
}

static void slab_put(struct space *s, void **freelist, void *p)
{
	struct slot *slot = p;

	env_lock(&s->slab_lock);
	slot->next = *freelist;
	*freelist = slot;
	env_unlock(&s->slab_lock);
}

struct fault *slab_fault(struct space *s)
{
	struct fault *f = slab_get(s, &s->free_faults, sizeof(*f), CHUNK_BYTES);

	if (f != NULL)
		memset(f, 0, offsetof(struct fault, refusal));
	return f;
}

void slab_fault_free(struct space *s, struct fault *f)
{
	slab_put(s, &s->free_faults, f);
}

struct region *slab_region(struct space *s)
{
	struct region *r = slab_get(s, &s->free_regions, sizeof(*r), CHUNK_BYTES);

	if (r != NULL)
		memset(r, 0, sizeof(*r));
	return r;
}

void slab_region_free(struct space *s, struct region *r)
{
	slab_put(s, &s->free_regions, r);
}

struct private_chunk *slab_private(struct space *s)
{
	struct private_chunk *c = slab_get(s, &s->free_chunks, sizeof(*c), CHUNK_BYTES);

	if (c != NULL)
		memset(c, 0, sizeof(*c));
	return c;
}

void slab_private_free(struct space *s, struct private_chunk *c)
{
	slab_put(s, &s->free_chunks, c);
}

void *slab_buffer(struct space *s)
{
	const size_t size = FILL_PAGES_MAX * MKW_PAGE_SIZE;

	return slab_get(s, &s->free_buffers, size, size + MKW_PAGE_SIZE);
}

void slab_buffer_free(struct space *s, void *buffer)
{
	slab_put(s, &s->free_buffers, buffer);
}

void slab_destroy(struct space *s)
{
	struct list *node;

	while ((node = list_pop(&s->chunks)) != NULL) {
		struct chunk *chunk = container_of(node, struct chunk, link);
		env_free(chunk, chunk->size);
	}
}
