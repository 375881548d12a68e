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
#include <unistd.h>

#include "driver/bus/vfio.h"
#include "driver/lpu/lpu.h"
#include "driver/mem/arena.h"
#include "driver/model/model.h"
#include "tests/guest/guest.h"
#include "tools/tools.h"

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
	/* Regions follow one another, with a page between them, or up to the next huge page. */
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

/* One step at @position, slept for: armed before it is posted, so that an interrupt must come. The token. */
static uint32_t step(struct mr_device *dev, struct mr_slot slot, uint32_t position, uint32_t token,
		     crypto_hash_sha256_state *logits)
{
	const struct mr_decode_entry entry = {
		.slot = slot,
		.position = position,
		.token = token,
		.flags = logits ? MR_DECODE_LOGITS : 0,
	};
	struct pollfd p = {.fd = dev->wait_fd, .events = POLLIN};
	uint32_t made = UINT32_MAX;
	struct mr_event event;

	/* The end of SLOT_SET, which makes no event, may still come: poll takes it. */
	for (int i = 0; i == 0 || dev->work->arm(dev); i++) {
		CHECK(i < 5000 && !dev->work->poll(dev, &event, 1),
		      "position %u: an event of nothing", position);
		usleep(i ? 1000 : 0);
	}
	int status = dev->work->decode(dev, &entry, 1, 1, position);
	CHECK(!status, "decode: %s", mr_strerror(status));
	CHECK(poll(&p, 1, 10000) == 1, "position %u: no interrupt in 10 s", position);
	for (int idle = 0; idle < 10000; idle++) {
		int n = dev->work->poll(dev, &event, 1);

		CHECK(n >= 0 && (!n || !event.status), "position %u: %s", position,
		      mr_strerror(n < 0 ? n : event.status));
		if (n && event.type == MR_EVENT_TOKEN) {
			made = event.token;
			if (logits)
				crypto_hash_sha256_update(logits,
							  (const unsigned char *)event.logits,
							  dev->caps.vocab * sizeof(float));
		} else if (n) {
			CHECK(made != UINT32_MAX, "position %u: an end without a token", position);
			return made;
		} else {
			usleep(1000);
		}
	}
	guest_fail("position %u: no end in 10 s", position);
}

static void decode(struct mr_device *dev)
{
	const struct mr_slot_config config = {.owner = 7, .positions = PROMPT + TOKENS};
	unsigned char sum[crypto_hash_sha256_BYTES];
	char digest[2 * crypto_hash_sha256_BYTES + 1];
	crypto_hash_sha256_state hash;
	uint32_t made[TOKENS], next = 0;
	struct mr_slot slot;

	crypto_hash_sha256_init(&hash);
	CHECK(!dev->mem->slot_open(dev, &config, &slot), "slot_open");
	for (uint32_t i = 0; i < PROMPT + TOKENS - 1; i++) {
		next = i < PROMPT ? step(dev, slot, i, prompt[i], &hash)
				  : step(dev, slot, i, next, NULL);
		if (i >= PROMPT - 1)
			made[i - (PROMPT - 1)] = next;
	}
	crypto_hash_sha256_final(&hash, sum);
	sodium_bin2hex(digest, sizeof(digest), sum, sizeof(sum));
	printf("digest %s\ntokens", digest);
	for (uint32_t i = 0; i < TOKENS; i++)
		printf(" %u", made[i]);
	printf("\n");
	guest_ok("%u tokens on %s, an interrupt for each of %u steps", TOKENS, dev->caps.name,
		 (unsigned)(PROMPT + TOKENS - 1));
}

static void check_counts(struct mr_device *dev)
{
	struct mr_lpu_counters c;

	CHECK(mr_lpu_log(dev, MR_LPU_LOG_COUNTERS, &c, sizeof(c)) == sizeof(c), "GET_LOG");
	CHECK(c.records == PROMPT + TOKENS - 1 && c.steps == PROMPT + TOKENS - 1 && !c.dma_faults &&
		      !c.bad_doorbell,
	      "the device counts %llu records, %llu steps, %llu DMA faults, %llu bad doorbells",
	      (unsigned long long)c.records, (unsigned long long)c.steps,
	      (unsigned long long)c.dma_faults, (unsigned long long)c.bad_doorbell);
	guest_ok("the device counts %llu records, as many as tokens",
		 (unsigned long long)c.records);
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
	check_counts(dev);
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

/* As `millrace run --lpu vfio:ADDRESS` does it: tools/devices.c. */
void guest_tool(void)
{
	struct tool_devices_options options = {
		.quiet = 1, .arena_log = 1, .decode_only = 1, .context = 128};
	struct tool_devices devices;
	struct mr_model *model;
	char address[16], lpu[40], why[256];

	guest_bind(guest_find(VENDOR, DEVICE, 0, address));
	CHECK(!mr_model_open("/tiny.gguf", &model, why, sizeof(why)), "tiny.gguf: %s", why);
	options.lpu = lpu;
	snprintf(lpu, sizeof(lpu), "vfio:%s@1234:5678", address);
	CHECK(tool_devices_open(&options, model, &devices) == MR_E_VERSION,
	      "other ids are not refused");
	snprintf(lpu, sizeof(lpu), "vfio:%s@f00d:4c50", address + 5); /* domain 0 left out */
	CHECK(!tool_devices_open(&options, model, &devices), "--lpu %s", lpu);
	struct mr_vfio_place place;
	CHECK(!mr_vfio_find("/sys", address, &place), "place");
	check_node(devices.arena, place.node);
	decode(devices.decode);
	tool_devices_close(&devices);
	mr_model_close(model);
	guest_ok("--lpu %s", lpu);
}
