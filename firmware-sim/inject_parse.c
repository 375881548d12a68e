// SPDX-License-Identifier: Apache-2.0
/* The language of faults (sim.h), and how they reach the device's thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "firmware-sim/device.h"

#define SCRIPT_BYTES_MAX 65536u

static const char *const names[MR_SIM_FAULT_KINDS] = {
	[MR_SIM_FAULT_LATE] = "late",           [MR_SIM_FAULT_LOST] = "lost",
	[MR_SIM_FAULT_REPEATED] = "repeated",   [MR_SIM_FAULT_REORDERED] = "reordered",
	[MR_SIM_FAULT_CORRUPTED] = "corrupted", [MR_SIM_FAULT_RECORD] = "record",
	[MR_SIM_FAULT_GARBAGE] = "garbage",     [MR_SIM_FAULT_INTERRUPT] = "interrupt",
	[MR_SIM_FAULT_DOORBELL] = "doorbell",   [MR_SIM_FAULT_ECC] = "ecc",
	[MR_SIM_FAULT_ECC_LOST] = "ecc-lost",   [MR_SIM_FAULT_DMA] = "dma",
	[MR_SIM_FAULT_LINK] = "link",           [MR_SIM_FAULT_ASSERT] = "assert",
	[MR_SIM_FAULT_HANG] = "hang",           [MR_SIM_FAULT_SLOW] = "slow",
	[MR_SIM_FAULT_REMOVAL] = "removal",
};
static const char *const units[] = {"command", "completion", "step"};

const char *mr_sim_fault_name(enum mr_sim_fault_kind kind)
{
	return (unsigned)kind < MR_SIM_FAULT_KINDS ? names[kind] : "?";
}

struct text {
	const char *at, *end;
};

/* The longest word of letters and dashes. */
static struct text take_word(struct text *t)
{
	struct text word = {t->at, t->at};

	while (word.end < t->end && ((*word.end >= 'a' && *word.end <= 'z') || *word.end == '-'))
		word.end++;
	t->at = word.end;
	return word;
}

static int is(struct text word, const char *name)
{
	size_t n = (size_t)(word.end - word.at);

	return strlen(name) == n && !memcmp(word.at, name, n);
}

static int find(struct text word, const char *const *table, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (is(word, table[i]))
			return (int)i;
	return -1;
}

static int take_char(struct text *t, char c)
{
	if (t->at == t->end || *t->at != c)
		return 0;
	t->at++;
	return 1;
}

static int take_number(struct text *t, uint64_t *n)
{
	const char *from = t->at;

	for (*n = 0; t->at < t->end && *t->at >= '0' && *t->at <= '9'; t->at++) {
		if (*n > UINT64_MAX / 100)
			return 0;
		*n = *n * 10 + (uint64_t)(*t->at - '0');
	}
	return t->at > from;
}

/* random=EVERY[:KIND+KIND...] */
static int parse_random(struct text *t, struct sim_faults *out)
{
	if (!take_char(t, '=') || !take_number(t, &out->every) || !out->every)
		return MR_E_INVALID;
	out->kinds = (1u << MR_SIM_FAULT_KINDS) - 1;
	if (!take_char(t, ':'))
		return 0;
	out->kinds = 0;
	do {
		int kind = find(take_word(t), names, MR_SIM_FAULT_KINDS);
		if (kind < 0)
			return MR_E_INVALID;
		out->kinds |= 1u << kind;
	} while (take_char(t, '+'));
	return 0;
}

/* KIND[@[UNIT:]N][=MICROSECONDS] */
static int parse_one(struct text *t, struct sim_faults *out)
{
	struct sim_fault f = {.us = MR_SIM_FAULT_US};
	struct text word = take_word(t), unit;
	int kind = find(word, names, MR_SIM_FAULT_KINDS), at = SIM_AT_COMMAND;

	if (is(word, "random"))
		return parse_random(t, out);
	if (is(word, "plug"))
		return !(out->plug = 1);
	if (is(word, "off"))
		return !(out->off = 1);
	if (kind < 0)
		return MR_E_INVALID;
	f.kind = (enum mr_sim_fault_kind)kind;
	if (take_char(t, '@')) {
		unit = take_word(t);
		if (unit.at != unit.end) {
			at = find(unit, units, 3);
			if (at < 0 || !take_char(t, ':'))
				return MR_E_INVALID;
		}
		if (!take_number(t, &f.at))
			return MR_E_INVALID;
	}
	f.unit = (enum sim_fault_unit)at;
	if (take_char(t, '=') && !take_number(t, &f.us))
		return MR_E_INVALID;
	if (out->count == SIM_FAULTS_MAX)
		return MR_E_FULL;
	out->fault[out->count++] = f;
	return 0;
}

static int parse_text(const char *text, const char *end, int lines, struct sim_faults *out)
{
	while (text < end) {
		const char *stop = text;
		struct text item;
		int status = 0;

		while (stop < end && *stop != ',' && !(lines && *stop == '\n'))
			stop++;
		item = (struct text){text, stop};
		while (lines && item.at < item.end && (*item.at == ' ' || *item.at == '\t'))
			item.at++;
		while (lines && item.at < item.end && (item.end[-1] == ' ' || item.end[-1] == '\r'))
			item.end--;
		if (lines && (item.at == item.end || *item.at == '#')) {
			while (stop < end && *stop != '\n')
				stop++;
		} else {
			status = parse_one(&item, out);
			if (!status && item.at != item.end)
				status = MR_E_INVALID;
		}
		if (status)
			return status;
		text = stop + 1;
	}
	return 0;
}

static int parse_script(const char *path, struct sim_faults *out)
{
	FILE *f = fopen(path, "rb");
	char *text = f ? malloc(SCRIPT_BYTES_MAX + 1) : NULL;
	size_t n = text ? fread(text, 1, SCRIPT_BYTES_MAX + 1, f) : 0;
	int status = !f                     ? MR_E_NOT_FOUND
		     : !text                ? MR_E_NO_MEMORY
		     : n > SCRIPT_BYTES_MAX ? MR_E_TOO_LARGE
					    : parse_text(text, text + n, 1, out);

	free(text);
	if (f)
		fclose(f);
	return status;
}

int mr_sim_faults_parse(const char *list, struct sim_faults *out)
{
	memset(out, 0, sizeof(*out));
	if (!list || !*list)
		return 0;
	if (*list == '@')
		return parse_script(list + 1, out);
	return parse_text(list, list + strlen(list), 0, out);
}

int mr_sim_inject_start(struct sim *sim, uint64_t seed)
{
	struct sim_inject *f = &sim->inject;

	/* xorshift stays at 0 for ever. */
	f->seed = seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du;
	if (!f->seed)
		f->seed = 1;
	return pthread_mutex_init(&f->lock, NULL) ? MR_E_NO_MEMORY : 0;
}

void mr_sim_inject_stop(struct sim *sim)
{
	pthread_mutex_destroy(&sim->inject.lock);
}

int mr_sim_inject_add(struct sim *sim, const struct sim_faults *faults)
{
	struct sim_inject *f = &sim->inject;
	int status = 0;

	pthread_mutex_lock(&f->lock);
	if (faults->off) {
		f->count = 0;
		f->off = 1;
		__atomic_store_n(&f->every, 0, __ATOMIC_RELEASE);
	}
	if (faults->count > SIM_FAULTS_MAX - f->count)
		status = MR_E_FULL;
	for (uint32_t i = 0; !status && i < faults->count; i++)
		f->waiting[f->count++] = faults->fault[i];
	if (!status && faults->every) {
		f->kinds = faults->kinds;
		__atomic_store_n(&f->every, faults->every, __ATOMIC_RELEASE);
	}
	if (f->count || f->off)
		__atomic_store_n(&f->fresh, 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&f->lock);
	if (!status && faults->plug) {
		uint32_t removed = SIM_REMOVED;
		/* Without power nothing stayed but what counts since the first power-on. */
		__atomic_compare_exchange_n(&f->link, &removed, SIM_LINK_DOWN, 0, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST);
	}
	mr_sim_wake(sim);
	return status;
}
