/* SPDX-License-Identifier: MIT */
/* scenarios.h - the scenarios by number. */
#ifndef SCENARIOS_H
#define SCENARIOS_H

#include "race.h"

size_t scenario_count(void);
/* Valid until the next call. */
const struct scenario *scenario(size_t n);

#endif
