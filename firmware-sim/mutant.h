/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mutants: for a rule of the specification a way to break it, chosen at run time by MR_MUTANT=Q-3 in a program
 * that was built for that (tests/integration/mutants.sh): it must be the check of that very rule that notices.
 * MUTANT(Q_3) is the constant 0 everywhere else. Device thread.
 */
#ifndef MR_FIRMWARE_SIM_MUTANT_H
#define MR_FIRMWARE_SIM_MUTANT_H

#include <stddef.h>
#include <stdint.h>

#ifdef MR_MUTANTS
#define MUTANT(rule) mr_sim_mutant(#rule)
#else
#define MUTANT(rule) 0
#endif

struct sim_dma;

/* 1 = this is the mutant that was chosen. Any thread. */
int mr_sim_mutant(const char *rule);
/* Keeps a write to host memory back, one at a time, until the next flush, which waits a little first. */
void mr_sim_mutant_defer(struct sim_dma *dma, uint64_t iova, const void *from, size_t bytes);
void mr_sim_mutant_flush(struct sim_dma *dma);
void mr_sim_mutant_pause(void);     /* long enough for a host to notice */
extern uint64_t mr_sim_mutant_word; /* a mutant's own memory */

#endif /* MR_FIRMWARE_SIM_MUTANT_H */
