// SPDX-License-Identifier: Apache-2.0
/* SIGINT and SIGTERM become a word that loops read, so that a command ends by its own hand. */
#include <signal.h>

#include "tools/tools.h"

volatile int tool_stop;

static void on_signal(int number)
{
	tool_stop = number;
}

void tool_catch_signals(void)
{
	/*
	 * SA_RESETHAND: the second signal ends a program that does not come to its stop. No
	 * SA_RESTART: a sleeping loop must wake up to see the word.
	 */
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}
