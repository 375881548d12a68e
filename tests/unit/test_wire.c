// SPDX-License-Identifier: Apache-2.0
/* The wire's pure parts: codec and tags, frames, the assembly of fragments, key files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include <millrace/status.h>

#include "driver/net/assemble.h"
#include "driver/net/frame.h"
#include "driver/net/key.h"
#include "driver/net/wire.h"

static struct mr_wire_key key;
static uint8_t datagram[MR_WIRE_DATAGRAM_MAX + 64];

static int setup(void **state)
{
	for (int i = 0; i < MR_WIRE_KEY_BYTES; i++)
		key.bytes[i] = (uint8_t)(i * 7);
	mr_wire_key_id(&key);
	return 0;
}

/* Digests from Python: hashlib.blake2b(data, key=bytes(i * 7 % 256 for i in range(32)), digest_size=16). */
static void test_known_tag(void **state)
{
	static const uint8_t tag[16] = {0x8a, 0xbd, 0x6a, 0x3d, 0x81, 0xba, 0xeb, 0xd9,
					0x9a, 0xa5, 0x50, 0x17, 0xf0, 0x18, 0xfb, 0x96};

	assert_int_equal(key.id, 0xab7344e2620954f7u);
	mr_wire_begin(&key, MR_WIRE_CANCEL, 0x1122334455667788, datagram);
	assert_int_equal(mr_wire_seal(&key, datagram, 0), 48);
	assert_memory_equal(datagram + 32, tag, sizeof(tag));
}

static size_t make_submit(uint32_t offset, uint32_t total, const struct mr_sampling *sampling)
{
	struct mr_wire_submit submit = {.offset = offset, .total = total, .max_tokens = 9};
	uint8_t *body = mr_wire_begin(&key, MR_WIRE_SUBMIT, 77, datagram);
	uint32_t n = total - offset < MR_WIRE_FRAGMENT ? total - offset : MR_WIRE_FRAGMENT;

	if (sampling)
		submit.sampling = *sampling;
	mr_wire_put_submit(body, &submit);
	for (uint32_t i = 0; i < n; i++)
		body[sizeof(submit) + i] = (uint8_t)((offset + i) * 31);
	return mr_wire_seal(&key, datagram, sizeof(submit) + n);
}

static int parse(enum mr_wire_direction direction, size_t bytes, struct mr_wire_in *in)
{
	/* An allocation of its own, so that ASan sees a read beyond the end; odd, as in a frame. */
	uint8_t *copy = malloc(bytes + 1);
	int status;

	memcpy(copy + 1, datagram, bytes);
	status = mr_wire_parse(&key, direction, copy + 1, bytes, in);
	/* The tail outlives the copy. */
	if (status == 0 && in->tail)
		in->tail = datagram + (in->tail - (copy + 1));
	free(copy);
	return status;
}

static void test_every_type(void **state)
{
	uint64_t copies[MR_WIRE_COPY_SITES_MAX], want_copies = 3;
	struct mr_wire_done done = {.status = MR_E_DEVICE,
				    .finish = MR_WIRE_FINISH_ERROR,
				    .tokens = 4,
				    .total_ns = 1ull << 40,
				    .copy_sites = 3};
	struct mr_wire_token token = {.id = 5, .logprob = -0.5f, .cycles = 1ull << 50};
	struct mr_wire_in in = {0};
	uint8_t *body;

	assert_int_equal(parse(MR_WIRE_TO_SERVER, make_submit(1024, 3000, NULL), &in), 0);
	assert_int_equal(in.type, MR_WIRE_SUBMIT);
	assert_int_equal(in.request, 77);
	assert_int_equal(in.fragment_bytes, 1024);
	assert_int_equal(in.submit.total, 3000);
	assert_int_equal(in.tail[5], (uint8_t)((1024 + 5) * 31));

	body = mr_wire_begin(&key, MR_WIRE_RESEND, 1, datagram);
	mr_wire_put_resend(body, &(struct mr_wire_resend){.first = 3, .count = 9});
	assert_int_equal(parse(MR_WIRE_TO_SERVER, mr_wire_seal(&key, datagram, 8), &in), 0);
	assert_int_equal(in.resend.first + in.resend.count, 12);

	body = mr_wire_begin(&key, MR_WIRE_TOKENS, 1, datagram);
	mr_wire_put_tokens(body, &(struct mr_wire_tokens){.first = 3, .count = 2});
	memcpy(body + 8 + 16, &token, sizeof(token));
	assert_int_equal(parse(MR_WIRE_TO_CLIENT, mr_wire_seal(&key, datagram, 8 + 32), &in), 0);
	token = mr_wire_token_at(&in, 1);
	assert_int_equal(token.id, 5);
	assert_true(token.logprob == -0.5f && token.cycles == 1ull << 50);

	for (uint64_t i = 0; i < 3; i++)
		copies[i] = want_copies * i;
	body = mr_wire_begin(&key, MR_WIRE_DONE, 1, datagram);
	mr_wire_put_done(body, &done, copies);
	assert_int_equal(parse(MR_WIRE_TO_CLIENT, mr_wire_seal(&key, datagram, 64 + 24), &in), 0);
	assert_memory_equal(&in.done, &done, sizeof(done));
	assert_int_equal(mr_wire_copies_at(&in, 2), 6);

	body = mr_wire_begin(&key, MR_WIRE_ERROR, 1, datagram);
	mr_wire_put_error(body, &(struct mr_wire_error){.status = MR_E_FULL});
	assert_int_equal(parse(MR_WIRE_TO_CLIENT, mr_wire_seal(&key, datagram, 8), &in), 0);
	assert_int_equal(in.error.status, MR_E_FULL);

	body = mr_wire_begin(&key, MR_WIRE_WANT, 1, datagram);
	mr_wire_put_want(body, &(struct mr_wire_want){.have = 5, .total = 3000});
	assert_int_equal(parse(MR_WIRE_TO_CLIENT, mr_wire_seal(&key, datagram, 16), &in), 0);
	assert_int_equal(in.want.have, 5);
}

/* Every bit of a datagram matters: any single flip is refused, and none as the wrong thing. */
static void test_every_bit(void **state)
{
	struct mr_wire_in in;
	size_t bytes = make_submit(0, 10, NULL);

	for (size_t bit = 0; bit < bytes * 8; bit++) {
		int status;

		datagram[bit / 8] ^= (uint8_t)(1 << bit % 8);
		status = parse(MR_WIRE_TO_SERVER, bytes, &in);
		assert_true(status < 0);
		if (bit / 8 == 2)
			assert_int_equal(status, MR_E_VERSION);
		if (bit / 8 >= 8 && bit / 8 < 24)
			assert_int_equal(status, MR_E_CHECKSUM);
		if (bit / 8 >= 32)
			assert_int_equal(status, MR_E_CHECKSUM);
		datagram[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_int_equal(parse(MR_WIRE_TO_SERVER, bytes, &in), 0);
	for (size_t n = 0; n < bytes; n++)
		assert_int_equal(parse(MR_WIRE_TO_SERVER, n, &in), MR_E_TRUNCATED);
	assert_int_equal(parse(MR_WIRE_TO_SERVER, bytes + 1, &in), MR_E_FORMAT);
	/* Sent back to its sender. */
	assert_int_equal(parse(MR_WIRE_TO_CLIENT, bytes, &in), MR_E_FORMAT);
}

/* Authentic and still refused: a client's mistake, each by itself. */
static void refuse_submit(size_t at, uint32_t value, int32_t extra, int want)
{
	struct mr_wire_in in;
	size_t bytes = make_submit(1024, 3000, NULL);

	memcpy(datagram + 32 + at, &value, sizeof(value));
	bytes = mr_wire_seal(&key, datagram, (size_t)((int)bytes - 48 + extra));
	assert_int_equal(parse(MR_WIRE_TO_SERVER, bytes, &in), want);
}

static void test_bad_bodies(void **state)
{
	struct mr_wire_in in;
	uint8_t *body;

	refuse_submit(0, 1024, 0, 0);
	refuse_submit(0, 1000, 0, MR_E_FORMAT); /* offset between fragments */
	refuse_submit(0, 3072, 0, MR_E_FORMAT); /* offset beyond the end */
	refuse_submit(4, 0, 0, MR_E_FORMAT);    /* empty prompt */
	refuse_submit(4, 2000, 0,
		      MR_E_FORMAT); /* a shorter prompt's last fragment has fewer bytes */
	refuse_submit(4, 65537, 0, MR_E_TOO_LARGE);
	refuse_submit(4, UINT32_MAX, 0, MR_E_TOO_LARGE);
	refuse_submit(8, 0, 0, MR_E_FORMAT);        /* no tokens wanted */
	refuse_submit(12, 4, 0, MR_E_FORMAT);       /* unknown flag */
	refuse_submit(0, 1024, -1, MR_E_FORMAT);    /* a byte too few */
	refuse_submit(0, 1024, 1, MR_E_FORMAT);     /* a byte too many */
	refuse_submit(0, 1024, -1030, MR_E_FORMAT); /* not even the parameters */

	body = mr_wire_begin(&key, MR_WIRE_TOKENS, 1, datagram);
	mr_wire_put_tokens(body, &(struct mr_wire_tokens){.first = 0, .count = 0});
	assert_int_equal(parse(MR_WIRE_TO_CLIENT, mr_wire_seal(&key, datagram, 8), &in),
			 MR_E_FORMAT);
	mr_wire_put_tokens(body, &(struct mr_wire_tokens){.first = UINT32_MAX, .count = 1});
	assert_int_equal(parse(MR_WIRE_TO_CLIENT, mr_wire_seal(&key, datagram, 24), &in),
			 MR_E_FORMAT);
	mr_wire_put_tokens(body, &(struct mr_wire_tokens){.first = 0, .count = 0x10000001});
	assert_int_equal(parse(MR_WIRE_TO_CLIENT, mr_wire_seal(&key, datagram, 24), &in),
			 MR_E_FORMAT);
	body = mr_wire_begin(&key, MR_WIRE_ERROR, 1, datagram);
	mr_wire_put_error(body, &(struct mr_wire_error){.status = 0});
	assert_int_equal(parse(MR_WIRE_TO_CLIENT, mr_wire_seal(&key, datagram, 8), &in),
			 MR_E_FORMAT);
	/* A server's type from a client, and one that nobody knows. */
	mr_wire_begin(&key, MR_WIRE_CANCEL, 1, datagram);
	datagram[3] = MR_WIRE_DONE;
	assert_int_equal(parse(MR_WIRE_TO_SERVER, mr_wire_seal(&key, datagram, 0), &in),
			 MR_E_FORMAT);
	datagram[3] = MR_WIRE_WANT + 1;
	assert_int_equal(parse(MR_WIRE_TO_SERVER, mr_wire_seal(&key, datagram, 0), &in),
			 MR_E_FORMAT);
	datagram[3] = MR_WIRE_CANCEL;
	datagram[31] = 1; /* reserved */
	assert_int_equal(parse(MR_WIRE_TO_SERVER, mr_wire_seal(&key, datagram, 0), &in),
			 MR_E_FORMAT);
	assert_int_equal(mr_wire_drop_metric(MR_E_CHECKSUM), MR_M_wire_bad_tag);
	assert_int_equal(mr_wire_drop_metric(MR_E_VERSION), MR_M_wire_bad_version);
	assert_int_equal(mr_wire_drop_metric(MR_E_TRUNCATED), MR_M_wire_bad_format);
	assert_int_equal(mr_wire_drop_metric(MR_E_TOO_LARGE), MR_M_wire_too_large);
}

static enum assembly_result add(struct assembly *a, uint32_t offset, uint32_t total,
				const struct mr_sampling *sampling, int first)
{
	struct mr_wire_in in;

	assert_int_equal(parse(MR_WIRE_TO_SERVER, make_submit(offset, total, sampling), &in), 0);
	if (first)
		mr_assembly_start(a, a->text, &in);
	return mr_assembly_add(a, &in);
}

static void test_assembly(void **state)
{
	static const uint32_t totals[] = {1, 1023, 1024, 1025, 5000, 65535, 65536};
	struct mr_sampling other = {.top_k = 3};
	char text[MR_WIRE_PROMPT_MAX];
	struct assembly a = {.text = text};

	for (size_t t = 0; t < sizeof(totals) / sizeof(totals[0]); t++) {
		uint32_t total = totals[t], n = (total + 1023) / 1024;
		uint64_t copied = mr_metric_read(MR_M_copy_prompt_wire);

		memset(text, 0, sizeof(text));
		for (uint32_t i = 0; i < n; i++) {
			/* Last first, then the others upwards. */
			uint32_t k = (i + n - 1) % n;
			enum assembly_result r = add(&a, k * 1024, total, NULL, i == 0);

			assert_int_equal(r, i + 1 == n ? ASSEMBLY_COMPLETE : ASSEMBLY_MORE);
			assert_int_equal(add(&a, k * 1024, total, NULL, 0), ASSEMBLY_DUPLICATE);
			assert_int_equal(add(&a, k * 1024, total, &other, 0), ASSEMBLY_CONTRADICTS);
		}
		for (uint32_t i = 0; i < total; i++)
			assert_int_equal((uint8_t)text[i], (uint8_t)(i * 31));
		assert_int_equal(mr_metric_read(MR_M_copy_prompt_wire) - copied, total);
	}
	assert_int_equal(add(&a, 0, 5000, NULL, 1), ASSEMBLY_MORE);
	assert_int_equal(add(&a, 0, 4999, NULL, 0), ASSEMBLY_CONTRADICTS);
}

static const struct frame_end us = {{2, 0, 0, 0, 0, 1}, 7878, 0x0a4d0001};
static const struct frame_end them = {{2, 0, 0, 0, 0, 2}, 40000, 0x0a4d0002};

static enum frame_kind kind_of(const uint8_t *frame, size_t bytes, struct frame_in *in)
{
	uint8_t *copy = malloc(bytes ? bytes : 1);

	memcpy(copy, frame, bytes);
	mr_frame_parse(&us, copy, bytes, in);
	free(copy);
	return in->kind;
}

static void test_frames(void **state)
{
	uint8_t frame[256] = {0};
	struct frame_in in;

	for (size_t payload = 0; payload < 100; payload++) {
		size_t bytes;

		frame[FRAME_UDP_BYTES + payload] = (uint8_t)(payload * 3 + 1);
		bytes = mr_frame_udp(&them, &us, 5, frame, payload + 1);
		assert_int_equal(bytes, FRAME_UDP_BYTES + payload + 1);
		assert_int_equal(kind_of(frame, bytes, &in), FRAME_UDP);
		assert_int_equal(in.payload_bytes, payload + 1);
		assert_memory_equal(&in.from, &them, sizeof(them));
		/* Ethernet's padding after the datagram is not payload. */
		assert_int_equal(kind_of(frame, bytes + 20, &in), FRAME_UDP);
		assert_int_equal(in.payload_bytes, payload + 1);
		for (size_t n = 0; n < bytes; n++)
			assert_int_equal(kind_of(frame, n, &in), FRAME_OTHER);
		/* Any flipped bit: never taken, except in the sender's MAC and where no sum covers. */
		for (size_t bit = 0; bit < bytes * 8; bit++) {
			enum frame_kind kind;

			frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
			kind = kind_of(frame, bytes, &in);
			frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
			if (bit / 8 >= 6 && bit / 8 < 12)
				assert_int_equal(kind, FRAME_UDP);
			else
				assert_int_not_equal(kind, FRAME_UDP);
		}
	}
	/* No UDP checksum is allowed by IPv4; the tag stands in for it. */
	frame[40] = frame[41] = 0;
	assert_int_equal(kind_of(frame, FRAME_UDP_BYTES + 100, &in), FRAME_UDP);

	mr_frame_arp_request(&them, us.ip, frame);
	assert_int_equal(kind_of(frame, FRAME_ARP_BYTES, &in), FRAME_ARP_REQUEST);
	assert_int_equal(in.from.ip, them.ip);
	assert_int_equal(kind_of(frame, FRAME_ARP_BYTES - 1, &in), FRAME_OTHER);
	mr_frame_arp_request(&them, us.ip + 1, frame);
	assert_int_equal(kind_of(frame, FRAME_ARP_BYTES, &in), FRAME_OTHER);
	mr_frame_arp_reply(&them, &us, frame);
	assert_int_equal(kind_of(frame, FRAME_ARP_BYTES, &in), FRAME_ARP_REPLY);
	assert_memory_equal(in.from.mac, them.mac, sizeof(them.mac));
}

static void test_key_files(void **state)
{
	char dir[] = "/tmp/millrace-test-XXXXXX", path[64];
	struct mr_wire_key made, read;
	struct stat st;
	FILE *file;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/key", dir);
	assert_int_equal(mr_key_load(path, &read), MR_E_NOT_FOUND);
	umask(0);
	assert_int_equal(mr_key_create(path, &made), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(mr_key_create(path, &read), MR_E_EXISTS);
	assert_int_equal(mr_key_load(path, &read), 0);
	assert_memory_equal(&made, &read, sizeof(made));
	assert_true(made.id != 0);
	for (int bit = 1; bit < 0100; bit <<= 1) {
		assert_int_equal(chmod(path, 0600 | (unsigned)bit), 0);
		assert_int_equal(mr_key_load(path, &read), MR_E_PERMISSION);
	}
	assert_int_equal(chmod(path, 0600), 0);
	file = fopen(path, "a");
	assert_non_null(file);
	fputc('x', file);
	fclose(file);
	assert_int_equal(mr_key_load(path, &read), MR_E_FORMAT);
	assert_int_equal(truncate(path, 31), 0);
	assert_int_equal(mr_key_load(path, &read), MR_E_FORMAT);
	assert_int_equal(mr_key_load(dir, &read), MR_E_FORMAT);
	unlink(path);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_tag), cmocka_unit_test(test_every_type),
		cmocka_unit_test(test_every_bit), cmocka_unit_test(test_bad_bodies),
		cmocka_unit_test(test_assembly),  cmocka_unit_test(test_frames),
		cmocka_unit_test(test_key_files),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
