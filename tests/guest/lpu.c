// SPDX-License-Identifier: Apache-2.0
/*
 * The whole driver over VFIO: bus, arena and driver/lpu decode tests/tiny.gguf on an LPU that is a PCI function of
 * the guest. Prints the digest of the logits of a prompt and the tokens after it, which must be those of the
 * simulated LPU on the host; and demands that the arena lies on the device's NUMA node. It sleeps for interrupts.
 */
#include <numaif.h>
#include <poll.h>
#include <sodium.h>
#include <string.h>

#include "driver/bus/vfio.h"
#include "driver/lpu/lpu.h"
#include "driver/mem/arena.h"
#include "driver/model/model.h"
#include "tests/guest/guest.h"

#include <millrace/lpu_spec.h>
#include <millrace/status.h>

#define VENDOR 0xf00d /* of `millrace lpu sim` */
#define DEVICE 0x4c50
#define TOKENS 8u

static const uint32_t prompt[] = {1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233};
#define PROMPT (sizeof(prompt) / sizeof(prompt[0]))

static void say_region(void *arg, const char *line)
{
	printf("%s\n", line);
}

static void check_node(const struct mr_arena *arena, int node)
{
	unsigned pages = 0;

	CHECK(mr_arena_node(arena) == (node < 0 ? 0 : node),
	      "the arena's node is %d, the device's %d", mr_arena_node(arena), node);
	/* The regions lie side by side, with a page between them. */
	for (uint64_t iova = ((uint64_t)mr_arena_node(arena) << 40) + (4ull << 30), gap = 0;
	     gap < 4; iova += 4096) {
		void *page = mr_arena_at(arena, iova, 4096);
		int where = -1;

		gap = page ? 0 : gap + 1;
		if (!page)
			continue;
		CHECK(!move_pages(0, 1, &page, NULL, &where, 0), "move_pages");
		CHECK(where == mr_arena_node(arena), "IOVA 0x%llx: its page is on node %d",
		      (unsigned long long)iova, where);
		pages++;
	}
	CHECK(pages > 100, "only %u pages of an arena", pages);
	guest_ok("%u pages of the arena, all on node %d, which is the device's", pages,
		 mr_arena_node(arena));
}

/* One step at @position; the event is good until the next one. */
static struct mr_event step(struct mr_device *dev, struct mr_slot slot, uint32_t position,
			    uint32_t token, uint32_t flags, unsigned *sleeps)
{
	const struct mr_decode_entry entry = {
		.slot = slot, .position = position, .token = token, .flags = flags};
	struct mr_event event, token_event = {0};
	int status = dev->work->decode(dev, &entry, 1, 1, position);

	CHECK(!status, "decode: %s", mr_strerror(status));
	for (;;) {
		int n = dev->work->poll(dev, &event, 1);

		CHECK(n >= 0, "poll: %s", mr_strerror(n));
		if (n && event.type == MR_EVENT_TOKEN) {
			token_event = event;
			return token_event;
		}
		CHECK(!n || !event.status, "position %u: %s", position, mr_strerror(event.status));
		if (n || dev->work->arm(dev))
			continue;
		struct pollfd p = {.fd = dev->wait_fd, .events = POLLIN};
		CHECK(poll(&p, 1, 10000) == 1, "position %u: no interrupt in 10 s", position);
		++*sleeps;
	}
}

static void decode(struct mr_device *dev)
{
	const struct mr_slot_config config = {.owner = 7, .positions = PROMPT + TOKENS};
	unsigned char sum[crypto_hash_sha256_BYTES];
	char digest[2 * crypto_hash_sha256_BYTES + 1];
	crypto_hash_sha256_state hash;
	uint32_t made[TOKENS], next = 0;
	struct mr_slot slot;
	unsigned sleeps = 0;

	crypto_hash_sha256_init(&hash);
	CHECK(!dev->mem->slot_open(dev, &config, &slot), "slot_open");
	for (uint32_t i = 0; i < PROMPT + TOKENS - 1; i++) {
		uint32_t in_prompt = i < PROMPT;
		struct mr_event e = step(dev, slot, i, in_prompt ? prompt[i] : next,
					 in_prompt ? MR_DECODE_LOGITS : 0, &sleeps);

		if (in_prompt)
			crypto_hash_sha256_update(&hash, (const unsigned char *)e.logits,
						  dev->caps.vocab * sizeof(float));
		next = e.token;
		if (i >= PROMPT - 1)
			made[i - (PROMPT - 1)] = next;
	}
	crypto_hash_sha256_final(&hash, sum);
	sodium_bin2hex(digest, sizeof(digest), sum, sizeof(sum));
	printf("digest %s\ntokens", digest);
	for (uint32_t i = 0; i < TOKENS; i++)
		printf(" %u", made[i]);
	printf("\n");
	CHECK(sleeps, "not one interrupt was slept for");
	guest_ok("%u tokens on %s, %u of %u steps slept for an interrupt", TOKENS, dev->caps.name,
		 sleeps, (unsigned)(PROMPT + TOKENS - 1));
}

void guest_lpu(void)
{
	struct mr_lpu_options options = {.context = 128};
	const struct mr_vfio_facts *f;
	struct mr_arena *arena;
	struct mr_model *model;
	struct mr_device *dev;
	char address[16], why[256];
	int status;

	guest_bind(guest_find(VENDOR, DEVICE, 0, address));
	options.bus = guest_open(address);
	f = mr_bus_vfio_facts(options.bus);
	CHECK(f->is_msix && f->function.msix_bar == 4 && f->can_reset && f->function.flr,
	      "facts: %u vectors, MSI-X %d in BAR%u, can be reset %d, FLR %d", f->vectors,
	      f->is_msix, f->function.msix_bar, f->can_reset, f->function.flr);
	guest_ok("%s: %u vectors, node %d, registers %s, doorbells %s", address, f->vectors,
		 f->place.node, f->mapped[0] ? "mapped" : "by calls",
		 f->mapped[1] ? "mapped" : "by calls");
	const struct mr_arena_options arena_options = {.node = f->place.node, .log = say_region};
	status = mr_model_open("/tiny.gguf", &model, why, sizeof(why));
	CHECK(!status, "tiny.gguf: %s", why);
	CHECK(!mr_arena_create(&arena_options, &arena), "arena");
	options.arena = arena;
	status = mr_lpu_open(&options, &dev);
	CHECK(!status, "lpu: %s: %s", mr_strerror(status), mr_bus_vfio_why(options.bus));
	status = dev->work->load(dev, model, NULL, NULL);
	CHECK(!status, "load: %s: %s", mr_strerror(status), mr_lpu_why(dev));
	check_node(arena, f->place.node);
	decode(dev);
	dev->admin->close(dev);
	CHECK(!(guest_command(address) & MR_VFIO_COMMAND_MASTER), "masters the bus after its end");
	mr_arena_destroy(arena);
	mr_model_close(model);
}

/* Reset through the bus: registers as after power-on. */
void guest_reset(void)
{
	char address[16];
	struct mr_bus *bus;

	guest_bind(guest_find(VENDOR, DEVICE, 0, address));
	bus = guest_open(address);
	CHECK(bus->ops->reg_read(bus, MR_LPU_REG_MAGIC) == MR_LPU_MAGIC, "MAGIC");
	bus->ops->reg_write(bus, MR_LPU_REG_ADMIN_ENTRIES, 64);
	CHECK(bus->ops->reg_read(bus, MR_LPU_REG_ADMIN_ENTRIES) == 64, "ADMIN_ENTRIES");
	int status = bus->ops->reset(bus);
	CHECK(!status, "reset: %s", mr_bus_vfio_why(bus));
	CHECK(bus->ops->reg_read(bus, MR_LPU_REG_ADMIN_ENTRIES) == 0,
	      "ADMIN_ENTRIES after a reset");
	bus->ops->close(bus);
	guest_ok("function-level reset of the LPU");
}
