// SPDX-License-Identifier: Apache-2.0
/* What hardware does to a device, where something here can make it do so. */
#include "tools/conform/conform.h"

SCENARIO(a_word_is_lost, CONFORM_PROGRAM | CONFORM_QUEUE, "E-4")
{
	struct mr_lpu_health before = {0}, after = {0};
	struct mr_lpu_record r, again;
	int has_health = t->id.logs >> MR_LPU_LOG_HEALTH & 1;

	if (!t->stimulus.lose_word)
		conform_skip(t, "nothing here can break a word of SRAM");
	MUST(conform_slot(t, 1, 0, 5, 16) == 0);
	MUST(conform_decode(t, 0, 5, 0, 20, 1, &r) == 0);
	if (has_health)
		conform_log(t, MR_LPU_LOG_HEALTH, &before, sizeof(before));
	t->stimulus.lose_word(t->stimulus.arg);
	STATUS("E-4", conform_decode(t, 0, 5, 0, 20, 1, &again), MR_E_DEVICE);
	EXPECT("E-4", t->result == 0);
	if (has_health) {
		conform_log(t, MR_LPU_LOG_HEALTH, &after, sizeof(after));
		EXPECT("E-4", after.ecc_uncorrected == before.ecc_uncorrected + 1);
	}
	/* The word is not used: what comes after is as before, or refused again. */
	int status = conform_decode(t, 0, 5, 0, 20, 1, &again);
	conform_expect(t, "E-4",
		       status == MR_E_DEVICE || (status == 0 && again.token == r.token &&
						 again.logprob == r.logprob),
		       "after it: %s, token %u where %u was", mr_status_name(status), again.token,
		       r.token);
}

SCENARIO(hardware_is_heard, CONFORM_QUEUE, "EV-6 L-11 R-12")
{
	struct mr_lpu_completion c;
	struct mr_lpu_crash crash = {0};

	if (!t->stimulus.ecc || !t->stimulus.assert_firmware)
		conform_skip(t, "nothing here can make the device feel anything");
	conform_need(t, MR_LPU_ASYNC_EVENT);
	conform_need_log(t, MR_LPU_LOG_CRASH);
	MUST(conform_feature(t, MR_LPU_FEATURE_EVENTS, 0, 1u << MR_LPU_EVENT_ECC) == 0);
	POST(0, mr_lpu_cmd_async_event, {MR_LPU_ASYNC_EVENT});
	t->stimulus.ecc(t->stimulus.arg, 1, 0);
	MUST(conform_completion(t, 0, t->profile.wait_ms, &c));
	conform_expect(t, "EV-6", c.result == MR_LPU_EVENT(MR_LPU_EVENT_ECC, MR_LPU_LOG_HEALTH, 1),
		       "a corrected word is told as %#x", c.result);
	t->stimulus.assert_firmware(t->stimulus.arg);
	MUST(WAIT(conform_reg(t, MR_LPU_REG_STATUS) & MR_LPU_STATUS_FATAL, t->profile.wait_ms));
	EXPECT("R-12", conform_reg(t, MR_LPU_REG_FATAL_CODE) == MR_LPU_CRASH_ASSERT);
	conform_again(t);
	conform_log(t, MR_LPU_LOG_CRASH, &crash, sizeof(crash));
	EXPECT("L-11", crash.cause == MR_LPU_CRASH_ASSERT);
	/* A dump that was not read yet is told after the bring-up; this one was. */
	EXPECT("R-12", conform_reg(t, MR_LPU_REG_FATAL_CODE) == 0);
}
