/* SPDX-License-Identifier: MIT */
/*
 * run_elf.c - the headers of an ELF file, which may be anybody's: every number in it is looked at
 * before it is used. Only files of our own class and byte order are read further than that.
 */
#include "run.h"

#include <errno.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define OWN_CLASS (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32)
#define OWN_DATA  (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB)
/* The kernel takes no more program headers than that. */
#define HEADERS_BYTES_MAX 65536u

#if defined(__x86_64__)
#define OWN_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OWN_MACHINE EM_AARCH64
#elif defined(__i386__)
#define OWN_MACHINE EM_386
#elif defined(__arm__)
#define OWN_MACHINE EM_ARM
#elif defined(__riscv)
#define OWN_MACHINE EM_RISCV
#elif defined(__powerpc64__)
#define OWN_MACHINE EM_PPC64
#elif defined(__s390x__)
#define OWN_MACHINE EM_S390
#else
#error "the ELF number of this machine is not known here"
#endif

const char *elf_machine_name(unsigned machine)
{
	static char other[TEXT_MAX];

	switch (machine) {
	case EM_X86_64:
		return "x86-64";
	case EM_AARCH64:
		return "aarch64";
	case EM_386:
		return "i386";
	case EM_ARM:
		return "arm";
	case EM_RISCV:
		return "riscv";
	case EM_PPC64:
		return "ppc64";
	case EM_S390:
		return "s390";
	default:
		snprintf(other, sizeof(other), "machine %u", machine);
		return other;
	}
}

const char *elf_own_machine_name(void)
{
	return elf_machine_name(OWN_MACHINE);
}

/* 1: all of it was there. 0: the file ends before. */
static int read_at(int fd, void *to, size_t length, uint64_t offset)
{
	size_t done = 0;

	if (offset > INT64_MAX - length)
		return 0;
	while (done < length) {
		ssize_t n = pread(fd, (char *)to + done, length - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		done += (size_t)n;
	}
	return 1;
}

static int interpreter_read(int fd, const ElfW(Phdr) * header, struct elf_info *info)
{
	size_t length = header->p_filesz;
	int got;

	info->kind = ELF_DAMAGED;
	if (length < 2 || length > sizeof(info->interpreter))
		return 0;
	got = read_at(fd, info->interpreter, length, header->p_offset);
	if (got < 0)
		return got;
	if (got == 1 && info->interpreter[0] != '\0' && info->interpreter[length - 1] == '\0')
		info->kind = ELF_DYNAMIC;
	else
		info->interpreter[0] = '\0';
	return 0;
}

static int program_headers_read(int fd, const ElfW(Ehdr) * head, struct elf_info *info)
{
	bool loads = false;

	info->kind = ELF_DAMAGED;
	if (head->e_phentsize != sizeof(ElfW(Phdr)) ||
	    head->e_phnum > HEADERS_BYTES_MAX / sizeof(ElfW(Phdr)))
		return 0;
	for (unsigned i = 0; i < head->e_phnum; i++) {
		ElfW(Phdr) header;
		int got = head->e_phoff > INT64_MAX - HEADERS_BYTES_MAX
				  ? 0
				  : read_at(fd, &header, sizeof(header),
					    head->e_phoff + i * sizeof(header));

		if (got != 1)
			return got;
		loads |= header.p_type == PT_LOAD;
		/* The kernel takes the first one. */
		if (header.p_type == PT_INTERP)
			return interpreter_read(fd, &header, info);
	}
	if (loads)
		info->kind = ELF_STATIC;
	return 0;
}

int elf_read(int fd, struct elf_info *info)
{
	ElfW(Ehdr) head = {0};
	int got = read_at(fd, head.e_ident, SELFMAG, 0);

	*info = (struct elf_info){.kind = ELF_NOT};
	if (got != 1 || memcmp(head.e_ident, ELFMAG, SELFMAG) != 0)
		return got < 0 ? got : 0;
	info->kind = ELF_DAMAGED;
	/* The members up to e_machine are at the same places in both classes. */
	got = read_at(fd, &head, offsetof(ElfW(Ehdr), e_version), 0);
	if (got != 1)
		return got;
	if (head.e_ident[EI_CLASS] != ELFCLASS32 && head.e_ident[EI_CLASS] != ELFCLASS64)
		return 0;
	info->bits = head.e_ident[EI_CLASS] == ELFCLASS64 ? 64 : 32;
	info->machine = head.e_machine;
	if (head.e_ident[EI_DATA] != OWN_DATA)
		info->machine = (uint16_t)__builtin_bswap16(head.e_machine);
	if (head.e_ident[EI_DATA] != OWN_DATA || head.e_ident[EI_CLASS] != OWN_CLASS ||
	    head.e_machine != OWN_MACHINE) {
		info->kind = ELF_FOREIGN;
		return 0;
	}
	got = read_at(fd, &head, sizeof(head), 0);
	if (got != 1 || (head.e_type != ET_EXEC && head.e_type != ET_DYN))
		return got < 0 ? got : 0;
	return program_headers_read(fd, &head, info);
}
