/* SPDX-License-Identifier: MIT */
/*
 * run_elf.c - the reader of ELF headers that `mkwrite run` judges programs by, with files that are
 * cut or damaged anywhere: it may be wrong about them, but reads nothing that is not there.
 */
#include "harness/test.h"

#include "tool/run.h"

#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define INTERPRETER "/lib64/ld.so"

struct image {
	ElfW(Ehdr) head;
	ElfW(Phdr) load, interpreter;
	char name[sizeof(INTERPRETER)];
};

static int fd;

/* The command's own headers are those of a program that can be run; the rest is made of them. */
static struct image image_make(void)
{
	struct image image = {0};
	FILE *self = fopen("/proc/self/exe", "re");

	REQUIRE(self && fread(&image.head, sizeof(image.head), 1, self) == 1);
	fclose(self);
	image.head.e_phoff = offsetof(struct image, load);
	image.head.e_phentsize = sizeof(image.load);
	image.head.e_phnum = 2;
	image.load.p_type = PT_LOAD;
	image.interpreter.p_type = PT_INTERP;
	image.interpreter.p_offset = offsetof(struct image, name);
	image.interpreter.p_filesz = sizeof(image.name);
	memcpy(image.name, INTERPRETER, sizeof(image.name));
	return image;
}

static enum elf_kind kind_of(const void *image, size_t length)
{
	static struct elf_info info;

	REQUIRE_EQ(ftruncate(fd, 0), 0);
	REQUIRE_EQ(pwrite(fd, image, length, 0), (ssize_t)length);
	REQUIRE_EQ(elf_read(fd, &info), 0);
	CHECK(info.kind != ELF_DYNAMIC || strlen(info.interpreter) > 0);
	CHECK(memchr(info.interpreter, '\0', sizeof(info.interpreter)) != NULL);
	return info.kind;
}

static struct image begin(void)
{
	fd = memfd_create("elf", MFD_CLOEXEC);
	REQUIRE(fd >= 0);
	return image_make();
}

TEST(run_elf_kinds, "A program is known for what it is, the test's own among them")
{
	struct image image = begin();
	struct elf_info info;

	CHECK_EQ(kind_of(&image, sizeof(image)), ELF_DYNAMIC);
	image.head.e_machine ^= 1;
	CHECK_EQ(kind_of(&image, sizeof(image)), ELF_FOREIGN);
	image = image_make();
	image.head.e_ident[EI_CLASS] ^= ELFCLASS32 ^ ELFCLASS64;
	CHECK_EQ(kind_of(&image, sizeof(image)), ELF_FOREIGN);
	image = image_make();
	image.head.e_ident[EI_DATA] ^= ELFDATA2LSB ^ ELFDATA2MSB;
	CHECK_EQ(kind_of(&image, sizeof(image)), ELF_FOREIGN);
	image = image_make();
	image.head.e_phnum = 1;
	CHECK_EQ(kind_of(&image, sizeof(image)), ELF_STATIC);
	CHECK_EQ(kind_of("#!/bin/sh\n", 10), ELF_NOT);
	CHECK_EQ(kind_of("", 0), ELF_NOT);
	close(fd);
	fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	REQUIRE_EQ(elf_read(fd, &info), 0);
	CHECK_EQ(info.kind, ELF_DYNAMIC);
	close(fd);
}

TEST(run_elf_cut, "A file that ends within its headers is damaged")
{
	struct image image = begin();

	for (size_t length = 0; length < SELFMAG; length++)
		CHECK_EQ(kind_of(&image, length), ELF_NOT);
	for (size_t length = SELFMAG; length < sizeof(image.head) + 2 * sizeof(image.load);
	     length++)
		CHECK_EQ(kind_of(&image, length), ELF_DAMAGED);
	for (size_t length = offsetof(struct image, name); length < sizeof(INTERPRETER); length++)
		CHECK_EQ(kind_of(&image, offsetof(struct image, name) + length), ELF_DAMAGED);
	close(fd);
}

TEST(run_elf_damaged, "Whatever a byte is changed to, nothing beyond the file is read")
{
	const struct image good = begin();
	unsigned char bytes[sizeof(good)];

	for (size_t at = 0; at < sizeof(good); at++) {
		for (unsigned value = 0; value < 256; value += 5) {
			memcpy(bytes, &good, sizeof(good));
			bytes[at] = (unsigned char)value;
			kind_of(bytes, sizeof(bytes));
		}
	}
	close(fd);
}

TEST(run_elf_wild, "Offsets and lengths at the ends of their ranges")
{
	static const uint64_t wild[] = {0,
					1,
					PATH_MAX,
					PATH_MAX + 1,
					UINT32_MAX,
					INT64_MAX,
					INT64_MAX - 63,
					INT64_MAX - 65536,
					1ull << 63,
					UINT64_MAX - 1,
					UINT64_MAX};
	struct image image = begin();

	for (size_t i = 0; i < sizeof(wild) / sizeof(wild[0]); i++) {
		image = image_make();
		image.head.e_phoff = (ElfW(Off))wild[i];
		CHECK(kind_of(&image, sizeof(image)) != ELF_DYNAMIC);
		image = image_make();
		image.interpreter.p_offset = (ElfW(Off))wild[i];
		CHECK(kind_of(&image, sizeof(image)) != ELF_STATIC);
		image = image_make();
		image.interpreter.p_filesz = (__typeof__(image.interpreter.p_filesz))wild[i];
		CHECK_EQ(kind_of(&image, sizeof(image)), ELF_DAMAGED);
		image = image_make();
		image.head.e_phnum = (uint16_t)wild[i];
		kind_of(&image, sizeof(image));
		image.head.e_phentsize = (uint16_t)wild[i];
		CHECK_EQ(kind_of(&image, sizeof(image)), ELF_DAMAGED);
	}
	/* A name that does not end within its length, or is none. */
	image = image_make();
	image.name[sizeof(image.name) - 1] = 'x';
	CHECK_EQ(kind_of(&image, sizeof(image)), ELF_DAMAGED);
	image = image_make();
	image.head.e_type = ET_CORE;
	CHECK_EQ(kind_of(&image, sizeof(image)), ELF_DAMAGED);
	close(fd);
}
