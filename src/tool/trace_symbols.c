/* SPDX-License-Identifier: MIT */
/*
 * trace_symbols.c - names of functions, read by libelf; without it there are none.
 *
 * The paths come from traces: nothing but regular files is opened. libelf reads them rather than
 * map them, so that a file which is cut meanwhile is an error and no signal.
 */
#include "trace_symbols.h"

#if defined(HAVE_LIBELF)
#include "trace_map.h"

#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct symbol {
	uint64_t address, size;
	char *name;
};

struct segment {
	uint64_t offset, size, address;
};

struct symbols {
	struct symbol *symbols; /* ascending */
	size_t count, capacity;
	struct segment *segments;
	size_t segment_count, segment_capacity;
};

bool symbols_known(void)
{
	return true;
}

static void segments_read(struct symbols *symbols, Elf *elf)
{
	size_t count = 0;

	elf_getphdrnum(elf, &count);
	for (size_t i = 0; i < count; i++) {
		GElf_Phdr header;

		if (!gelf_getphdr(elf, (int)i, &header) || header.p_type != PT_LOAD ||
		    !(header.p_flags & PF_X))
			continue;
		if (!array_grow(&symbols->segments, symbols->segment_count,
				&symbols->segment_capacity, sizeof(*symbols->segments)))
			return;
		symbols->segments[symbols->segment_count++] =
			(struct segment){header.p_offset, header.p_filesz, header.p_vaddr};
	}
}

static void symbol_add(struct symbols *symbols, const GElf_Sym *symbol, const char *name)
{
	if (!array_grow(&symbols->symbols, symbols->count, &symbols->capacity,
			sizeof(*symbols->symbols)))
		return;
	symbols->symbols[symbols->count] =
		(struct symbol){symbol->st_value, symbol->st_size, strdup(name)};
	if (symbols->symbols[symbols->count].name)
		symbols->count++;
}

static void table_read(struct symbols *symbols, Elf *elf, Elf_Scn *section, const GElf_Shdr *header)
{
	Elf_Data *data = elf_getdata(section, NULL);
	size_t count = data && header->sh_entsize ? data->d_size / header->sh_entsize : 0;

	for (size_t i = 0; i < count; i++) {
		const char *name;
		GElf_Sym symbol;

		if (!gelf_getsym(data, (int)i, &symbol) || symbol.st_shndx == SHN_UNDEF ||
		    (GELF_ST_TYPE(symbol.st_info) != STT_FUNC &&
		     GELF_ST_TYPE(symbol.st_info) != STT_GNU_IFUNC))
			continue;
		name = elf_strptr(elf, header->sh_link, symbol.st_name);
		if (name && name[0] != '\0')
			symbol_add(symbols, &symbol, name);
	}
}

static int symbol_order(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;

	if (x->address != y->address)
		return x->address < y->address ? -1 : 1;
	return strcmp(x->name, y->name);
}

/* The symbols for the linker if they are there, else those for the loader. */
static void tables_read(struct symbols *symbols, Elf *elf)
{
	const GElf_Word types[] = {SHT_SYMTAB, SHT_DYNSYM};

	for (size_t i = 0; i < 2 && symbols->count == 0; i++) {
		Elf_Scn *section = NULL;

		while ((section = elf_nextscn(elf, section)) != NULL) {
			GElf_Shdr header;

			if (gelf_getshdr(section, &header) && header.sh_type == types[i])
				table_read(symbols, elf, section, &header);
		}
	}
	if (symbols->count > 0)
		qsort(symbols->symbols, symbols->count, sizeof(*symbols->symbols), symbol_order);
}

static bool is_unchanged(const struct stat *st, uint64_t size_bytes, uint64_t modified_ns)
{
	return S_ISREG(st->st_mode) && (uint64_t)st->st_size == size_bytes &&
	       (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec ==
		       modified_ns;
}

struct symbols *symbols_open(const char *path, uint64_t size_bytes, uint64_t modified_ns)
{
	struct symbols *symbols;
	struct stat st;
	Elf *elf;
	int fd;

	if (elf_version(EV_CURRENT) == EV_NONE || stat(path, &st) != 0 ||
	    !is_unchanged(&st, size_bytes, modified_ns))
		return NULL;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return NULL;
	symbols = calloc(1, sizeof(*symbols));
	elf = symbols ? elf_begin(fd, ELF_C_READ, NULL) : NULL;
	if (elf && elf_kind(elf) == ELF_K_ELF) {
		segments_read(symbols, elf);
		tables_read(symbols, elf);
	}
	if (elf)
		elf_end(elf);
	close(fd);
	return symbols;
}

void symbols_close(struct symbols *symbols)
{
	if (!symbols)
		return;
	for (size_t i = 0; i < symbols->count; i++)
		free(symbols->symbols[i].name);
	free(symbols->symbols);
	free(symbols->segments);
	free(symbols);
}

static bool address_of(const struct symbols *symbols, uint64_t offset, uint64_t *address)
{
	for (size_t i = 0; i < symbols->segment_count; i++) {
		const struct segment *segment = &symbols->segments[i];

		if (offset >= segment->offset && offset - segment->offset < segment->size) {
			*address = segment->address + (offset - segment->offset);
			return true;
		}
	}
	return false;
}

const char *symbols_find(const struct symbols *symbols, uint64_t offset, uint64_t *inside)
{
	size_t low = 0, high;
	uint64_t address;

	if (!symbols || !address_of(symbols, offset, &address))
		return NULL;
	for (high = symbols->count; low < high;) {
		size_t middle = low + (high - low) / 2;

		if (symbols->symbols[middle].address <= address)
			low = middle + 1;
		else
			high = middle;
	}
	/* Functions may have several names, and some no size. */
	for (; low > 0; low--) {
		const struct symbol *symbol = &symbols->symbols[low - 1];

		*inside = address - symbol->address;
		if (*inside < symbol->size || *inside == 0)
			return symbol->name;
		if (symbol->size > 0)
			return NULL;
	}
	return NULL;
}

#else

bool symbols_known(void)
{
	return false;
}

struct symbols *symbols_open(const char *path, uint64_t size_bytes, uint64_t modified_ns)
{
	(void)path;
	(void)size_bytes;
	(void)modified_ns;
	return NULL;
}

void symbols_close(struct symbols *symbols)
{
	(void)symbols;
}

const char *symbols_find(const struct symbols *symbols, uint64_t offset, uint64_t *inside)
{
	(void)symbols;
	(void)offset;
	(void)inside;
	return NULL;
}
#endif
