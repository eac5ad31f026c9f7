/* SPDX-License-Identifier: MIT */
/* env_sim.h - what a check may ask of the simulated environment. */
#ifndef ENV_SIM_H
#define ENV_SIM_H

#include <stdbool.h>
#include <stdint.h>
#include <vm/env.h>

/* Locks, conditions and memory that were made and not unmade. */
int64_t env_sim_live(void);
bool env_sim_mutex_is_free(const struct env_mutex *m);
bool env_sim_rwlock_is_written(const struct env_rwlock *l);

#endif
