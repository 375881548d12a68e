/* SPDX-License-Identifier: Apache-2.0 */
/* Where the demo's real model lies, for tests that need it and skip without it. */
#ifndef MR_TESTS_REAL_MODEL_H
#define MR_TESTS_REAL_MODEL_H

/* MR_MODEL, or the file that scripts/model.sh keeps in its cache; NULL where neither is there. */
const char *real_model_path(void);

#endif /* MR_TESTS_REAL_MODEL_H */
