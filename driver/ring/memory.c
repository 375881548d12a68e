/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two kinds of memfd: the ring memory of one client, written by both sides, and the vocabulary, sealed
 * against writing and the same for all. Control plane: called while a client connects and at start.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "driver/model/model.h"
#include "driver/model/tokenizer.h"
#include "driver/ring/internal.h"

#define PAGE 4096u

static uint64_t round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

static uint32_t entries(uint32_t wish, uint32_t otherwise, uint32_t least)
{
	uint32_t n = least;

	if (!wish)
		wish = otherwise;
	while (n < wish)
		n *= 2;
	return n;
}

static int os_error(void)
{
	return errno == ENOMEM || errno == ENOSPC || errno == EMFILE || errno == ENFILE
		       ? MR_E_NO_MEMORY
		       : MR_E_IO;
}

/* Every sequence word as of one lap before, so that from the first entry on there are two legal values. */
static void start_queues(struct ring_memory *mem, uint32_t first)
{
	struct mr_ring_header *h = mem->header;
	uint32_t i;

	for (i = 0; i <= mem->sq_mask; i++)
		mem->sq[(first + i) & mem->sq_mask].published = first + i + 1 - (mem->sq_mask + 1);
	for (i = 0; i <= mem->cq_mask; i++)
		mem->cq[(first + i) & mem->cq_mask].published = first + i + 1 - (mem->cq_mask + 1);
	h->sq_head = first;
	h->cq_head = first;
}

int mr_ring_memory_create(const struct mr_ring_server *server, const struct mr_hello *hello,
			  const struct ring_client *client, struct ring_memory *mem)
{
	const struct mr_ring_server_options *o = &server->options;
	uint32_t sq = entries(hello->sq_entries, o->sq_entries, MR_SQ_ENTRIES_MIN);
	uint32_t cq = entries(hello->cq_entries, o->cq_entries, MR_CQ_ENTRIES_MIN);
	uint64_t data = hello->data_bytes ? hello->data_bytes : o->data_bytes;
	uint64_t sq_at = sizeof(struct mr_ring_header);
	uint64_t cq_at = sq_at + round_up(sq * sizeof(struct mr_sqe), PAGE);
	uint64_t data_at = cq_at + round_up(cq * sizeof(struct mr_cqe), PAGE);
	char *base;
	int rc;

	data = round_up(data < MR_DATA_BYTES_MIN ? MR_DATA_BYTES_MIN : data, PAGE);
	*mem = (struct ring_memory){.fd = -1, .bytes = data_at + data, .data_bytes = data};
	mem->fd = memfd_create("millrace-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (mem->fd < 0)
		return os_error();
	base = MAP_FAILED;
	if (!ftruncate(mem->fd, (off_t)mem->bytes) &&
	    !fcntl(mem->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		base = mmap(NULL, mem->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			    mem->fd, 0);
	if (base == MAP_FAILED) {
		rc = os_error();
		close(mem->fd);
		return rc;
	}
	mem->header = (struct mr_ring_header *)base;
	mem->sq = (struct mr_sqe *)(base + sq_at);
	mem->cq = (struct mr_cqe *)(base + cq_at);
	mem->data = (const unsigned char *)base + data_at;
	mem->sq_mask = sq - 1;
	mem->cq_mask = cq - 1;
	*mem->header = (struct mr_ring_header){
		.magic = MR_RING_MAGIC,
		.version = MR_RING_VERSION,
		.header_bytes = sizeof(struct mr_ring_header),
		.features = client->features,
		.memory_bytes = mem->bytes,
		.sq_entries = sq,
		.cq_entries = cq,
		.sq_offset = sq_at,
		.cq_offset = cq_at,
		.data_offset = data_at,
		.data_bytes = data,
		.requests_max = o->requests_max < cq / 4 ? o->requests_max : cq / 4,
		.prompt_bytes_max = MR_PROMPT_BYTES_MAX,
		.context = o->sched ? mr_sched_context(o->sched) : 0,
		.vocab = server->vocab_count,
		.client = client->id,
	};
	start_queues(mem, o->first_index);
	return 0;
}

void mr_ring_memory_destroy(struct ring_memory *mem)
{
	if (mem->header)
		munmap(mem->header, mem->bytes);
	if (mem->fd >= 0)
		close(mem->fd);
	*mem = (struct ring_memory){.fd = -1};
}

static void fill_vocab(const struct mr_tokenizer *tokenizer, struct mr_vocab_header *h,
		       uint32_t count, uint64_t text_bytes)
{
	struct mr_vocab_entry *entry = (struct mr_vocab_entry *)(h + 1);
	char *text = (char *)(entry + count);
	uint32_t at = 0;

	*h = (struct mr_vocab_header){.magic = MR_VOCAB_MAGIC,
				      .version = MR_RING_VERSION,
				      .count = count,
				      .bytes = text_bytes};
	for (uint32_t id = 0; id < count; id++) {
		size_t n = 0;
		const char *s = mr_token_bytes(tokenizer, id, &n);

		entry[id].offset = at;
		entry[id].bytes = s ? (uint16_t)n : 0;
		entry[id].flags = mr_token_is_control(tokenizer, id) ? MR_VOCAB_CONTROL : 0;
		/* A loop: set-up, and byte counts of a vocabulary belong to no site of the ledger. */
		for (size_t i = 0; s && i < n; i++)
			text[at++] = s[i];
	}
}

int mr_ring_vocab_create(struct mr_ring_server *server)
{
	const struct mr_model *model = server->options.model;
	const struct mr_tokenizer *tokenizer = model ? model->tokenizer : NULL;
	uint32_t count = tokenizer ? mr_tokenizer_vocab(tokenizer) : 0;
	uint64_t text = 0, bytes;
	void *p;
	int rc;

	for (uint32_t id = 0; id < count; id++) {
		size_t n = 0;

		if (mr_token_bytes(tokenizer, id, &n) && n > UINT16_MAX)
			return MR_E_TOO_LARGE;
		text += n;
	}
	if (text > UINT32_MAX)
		return MR_E_TOO_LARGE;
	bytes = sizeof(struct mr_vocab_header) + count * sizeof(struct mr_vocab_entry) + text;
	server->vocab_fd = memfd_create("millrace-vocab", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (server->vocab_fd < 0)
		return os_error();
	if (ftruncate(server->vocab_fd, (off_t)bytes))
		return os_error();
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, server->vocab_fd, 0);
	if (p == MAP_FAILED)
		return os_error();
	fill_vocab(tokenizer, p, count, text);
	munmap(p, bytes);
	rc = fcntl(server->vocab_fd, F_ADD_SEALS,
		   F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	server->vocab_bytes = bytes;
	server->vocab_count = count;
	return rc ? os_error() : 0;
}
