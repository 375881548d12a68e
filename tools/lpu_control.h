/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket of `millrace lpu sim`: one line in, one line out, one connection at a time. For tests.
 *   poke CHIP ADDRESS VALUE   changes a byte of SRAM: "ok OLD"
 *   damage LIST               applies the sram faults of --fault's language to the active program: "ok"
 *   fault LIST                hands the others over to the device: "ok"
 *   faults                    how many of each have struck: "ok late=N lost=N ..."
 *   assert                    the firmware asserts at once: STATUS.FATAL: "ok"
 *   sense MK:MW               the chips' temperature in millikelvin, the group's power in milliwatts: "ok"
 *   ecc CORRECTED:LOST        so many more words of SRAM were wrong: "ok"
 * What cannot be done is answered with "error NAME text".
 */
#ifndef MR_TOOLS_LPU_CONTROL_H
#define MR_TOOLS_LPU_CONTROL_H

#include <millrace/lpu_port.h>

#define LPU_CONTROL_LINE 512 /* bytes of a line at most */

struct lpu_control;

/*
 * Serves the control socket at @path for @port on a thread until @stop_fd is readable. 0 or a status.
 * lpu_control_stop waits for the thread and removes the socket; NULL is allowed.
 */
int lpu_control_start(const char *path, const struct mr_lpu_port *port, int stop_fd,
		      struct lpu_control **control);
void lpu_control_stop(struct lpu_control *control);

/* Sends @line to the socket at @path and waits for its answer, without the newline: 0 or a status. */
int lpu_control_ask(const char *path, const char *line, char answer[LPU_CONTROL_LINE]);

#endif /* MR_TOOLS_LPU_CONTROL_H */
