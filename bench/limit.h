/* SPDX-License-Identifier: MIT */
/* limit.h - the sizes that both sides of the limited measures use. */
#ifndef BENCH_LIMIT_H
#define BENCH_LIMIT_H

#include "bench.h"

uint64_t limit_bytes(const struct bench *bench); /* the object has four times as many */
size_t limit_operations(const struct bench *bench);

#endif
