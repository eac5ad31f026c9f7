/* SPDX-License-Identifier: MIT */
/*
 * volume.h - file systems of their own for a test, on loop devices or in memory: mounted in a mount
 * namespace of the test's process, they are gone with it however it ends. Needs root: a test that
 * cannot have one is skipped.
 */
#ifndef VOLUME_H
#define VOLUME_H

#include <stdint.h>

enum volume_kind {
	VOLUME_EXT4,
	VOLUME_XFS,
	VOLUME_BTRFS,
	VOLUME_TMPFS,
	VOLUME_EXT2, /* no fallocate */
	VOLUME_FUSE, /* neither, and it is asked for space only when it gets the bytes */
};

#define VOLUME_AT "/tmp/volume"

/* The least that all of them can be made with. */
#define VOLUME_BYTES (320ull << 20)

/* Mount an empty one at VOLUME_AT. */
void volume_mount(enum volume_kind kind, uint64_t size_bytes);
/* Put an overlay on it: VOLUME_AT shows that from now on. */
void volume_overlay(void);
/* Take all its room but about so many bytes, by a file; volume_drain gives it back. */
void volume_fill(uint64_t leave_bytes);
void volume_drain(void);
/* Run a command of the shell, quietly. It has to succeed. */
void volume_command(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
