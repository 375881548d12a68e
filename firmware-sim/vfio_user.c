// SPDX-License-Identifier: Apache-2.0
/* One connection: messages in, the handler that a command has, replies out. */
#include "firmware-sim/vfio_user.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <millrace/lpu_spec.h>

#include "firmware-sim/vfio_user_server.h"

#define REFUSALS_SAID 8 /* of a connection, in the log */

void mr_vu_say(const struct mr_vfio_user *s, const char *format, ...)
{
	char line[256];
	va_list args;

	if (!s->o.log)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	s->o.log(s->o.log_arg, line);
}

/* The client's capabilities, or NULL: none given. *@error: not JSON of the shape that the protocol has. */
static struct json_object *parse_capabilities(const char *text, uint32_t bytes,
					      struct json_object **root, int *error)
{
	struct json_tokener *tok;
	struct json_object *caps = NULL;

	*root = NULL;
	*error = 0;
	if (!bytes)
		return NULL;
	if (bytes > MR_VU_VERSION_BYTES_MAX || text[bytes - 1]) {
		*error = EINVAL;
		return NULL;
	}
	tok = json_tokener_new_ex(8);
	*root = tok ? json_tokener_parse_ex(tok, text, (int)bytes) : NULL;
	if (!*root || !json_object_is_type(*root, json_type_object) ||
	    (json_object_object_get_ex(*root, "capabilities", &caps) &&
	     !json_object_is_type(caps, json_type_object)))
		*error = EINVAL;
	if (tok)
		json_tokener_free(tok);
	return *error ? NULL : caps;
}

static void offer(struct json_object *to, const struct json_object *asked, const char *name,
		  struct json_object *value)
{
	struct json_object *found;

	/* What the client does not name it does not know. */
	if (asked && json_object_object_get_ex(asked, name, &found))
		json_object_object_add(to, name, value);
	else
		json_object_put(value);
}

static struct json_object *our_capabilities(const struct json_object *asked)
{
	struct json_object *root = json_object_new_object(), *o = json_object_new_object();

	/* These two bind the client whether it named them or not. */
	json_object_object_add(o, MR_VU_CAP_FDS, json_object_new_int64(MR_VU_FDS_MAX));
	json_object_object_add(o, MR_VU_CAP_XFER, json_object_new_int64(MR_VU_XFER_MAX));
	offer(o, asked, MR_VU_CAP_MAPS, json_object_new_int64(VU_MAPS));
	offer(o, asked, MR_VU_CAP_PAGES, json_object_new_int64(4096));
	offer(o, asked, MR_VU_CAP_MULTI, json_object_new_boolean(1));
	json_object_object_add(root, "capabilities", o);
	return root;
}

int mr_vu_version(struct mr_vfio_user *s, struct vu_message *m)
{
	struct mr_vu_version v;
	struct json_object *root, *asked, *ours;
	const char *text;
	size_t bytes;
	int error;

	if (m->in_bytes < sizeof(v) || s->versioned)
		return EINVAL;
	memcpy(&v, m->in, sizeof(v));
	if (v.major != MR_VU_MAJOR) {
		mr_vu_say(s, "the client speaks version %u.%u; this is %u.%u", v.major, v.minor,
			  MR_VU_MAJOR, MR_VU_MINOR);
		return ENOTSUP;
	}
	asked = parse_capabilities((const char *)m->in + sizeof(v), m->in_bytes - sizeof(v), &root,
				   &error);
	if (!error) {
		ours = our_capabilities(asked);
		text = json_object_to_json_string_ext(ours, JSON_C_TO_STRING_PLAIN);
		bytes = strlen(text) + 1;
		if (v.minor > MR_VU_MINOR)
			v.minor = MR_VU_MINOR;
		memcpy(m->out, &v, sizeof(v));
		memcpy(m->out + sizeof(v), text, bytes);
		m->out_bytes = (uint32_t)(sizeof(v) + bytes);
		json_object_put(ours);
		s->versioned = 1;
	}
	json_object_put(root);
	return error;
}

static int device_info(struct vu_message *m)
{
	struct mr_vu_device_info c;

	if (m->in_bytes != sizeof(c))
		return EINVAL;
	memcpy(&c, m->in, sizeof(c));
	if (c.argsz < sizeof(c))
		return EINVAL;
	c = (struct mr_vu_device_info){
		.argsz = sizeof(c),
		.flags = MR_VU_DEVICE_RESETS | MR_VU_DEVICE_PCI,
		.regions = MR_VU_REGIONS,
		.irqs = MR_VU_IRQS,
	};
	memcpy(m->out, &c, sizeof(c));
	m->out_bytes = sizeof(c);
	return 0;
}

static int handle(struct mr_vfio_user *s, struct vu_message *m)
{
	switch (m->head.command) {
	case MR_VU_VERSION:
		return mr_vu_version(s, m);
	case MR_VU_DMA_MAP:
		return mr_vu_dma_map(s, m);
	case MR_VU_DMA_UNMAP:
		return mr_vu_dma_unmap(s, m);
	case MR_VU_DEVICE_GET_INFO:
		return device_info(m);
	case MR_VU_DEVICE_GET_REGION_INFO:
		return mr_vu_region_info(s, m);
	case MR_VU_DEVICE_GET_IRQ_INFO:
		return mr_vu_irq_info(s, m);
	case MR_VU_DEVICE_SET_IRQS:
		return mr_vu_irq_set(s, m);
	case MR_VU_REGION_READ:
		return mr_vu_region_read(s, m);
	case MR_VU_REGION_WRITE:
		return mr_vu_region_write(s, m);
	case MR_VU_REGION_WRITE_MULTI:
		return mr_vu_region_write_multi(s, m);
	case MR_VU_DEVICE_RESET:
		return m->in_bytes ? EINVAL : mr_vu_reset(s);
	default:
		return ENOTSUP; /* migration, I/O descriptors */
	}
}

/* Reads a whole message: 0, MR_E_PROTOCOL where its header cannot be, or what the transport said. */
static int receive(struct mr_vfio_user *s, const struct mr_vfio_user_transport *t,
		   struct vu_message *m)
{
	int status =
		t->receive(t->ctx, &m->head, sizeof(m->head), m->fds, MR_VU_FDS_MAX, &m->fd_count);

	if (status)
		return status;
	if (m->head.bytes < sizeof(m->head) || m->head.bytes - sizeof(m->head) > sizeof(s->in) ||
	    m->head.flags & ~MR_VU_FLAG_NO_REPLY ||
	    (!s->versioned && m->head.command != MR_VU_VERSION))
		return MR_E_PROTOCOL;
	m->in = s->in;
	m->in_bytes = m->head.bytes - (uint32_t)sizeof(m->head);
	return m->in_bytes ? t->receive(t->ctx, s->in, m->in_bytes, NULL, 0, NULL) : 0;
}

static int answer(struct mr_vfio_user *s, const struct mr_vfio_user_transport *t,
		  struct vu_message *m, int error)
{
	struct mr_vu_header head = {
		.id = m->head.id,
		.command = m->head.command,
		.bytes = (uint32_t)sizeof(head) + (error ? 0 : m->out_bytes),
		.flags = MR_VU_FLAG_REPLY | (error ? MR_VU_FLAG_ERROR : 0),
		.error = (uint32_t)error,
	};

	if (m->head.flags & MR_VU_FLAG_NO_REPLY)
		return 0;
	memcpy(s->out, &head, sizeof(head));
	return t->send(t->ctx, s->out, head.bytes, error ? -1 : m->out_fd);
}

static int one_message(struct mr_vfio_user *s, const struct mr_vfio_user_transport *t)
{
	struct vu_message m = {.out = s->out + sizeof(struct mr_vu_header), .out_fd = -1};
	int status = receive(s, t, &m);

	if (!status) {
		int error = handle(s, &m);
		s->stats.messages++;
		s->stats.refused += error != 0;
		if (error && s->quiet) {
			s->quiet--;
			mr_vu_say(s, "command %u (%u bytes) refused: %s", m.head.command,
				  m.head.bytes, strerrorname_np(error));
		}
		status = answer(s, t, &m, error);
		/* Without a version there is nothing to talk about. */
		if (!status && !s->versioned)
			status = MR_E_PROTOCOL;
	}
	for (uint32_t i = 0; i < m.fd_count; i++)
		if (m.fds[i] >= 0)
			close(m.fds[i]);
	return status;
}

int mr_vfio_user_serve(struct mr_vfio_user *s, const struct mr_vfio_user_transport *t)
{
	int status;

	s->versioned = 0;
	s->quiet = REFUSALS_SAID;
	s->stats.connections++;
	do
		status = one_message(s, t);
	while (!status);
	mr_vu_irq_forget(s);
	mr_vu_dma_forget(s);
	if (status == MR_E_PROTOCOL)
		s->stats.broken++;
	return status == MR_E_DISCONNECTED ? 0 : status;
}

int mr_vfio_user_create(const struct mr_vfio_user_options *o, struct mr_vfio_user **server)
{
	uint64_t bar2 = o->doorbell_bytes ? o->doorbell_bytes : 32768;
	struct mr_vfio_user *s;

	if (bar2 & (bar2 - 1) || bar2 < MR_LPU_DOORBELL_STRIDE || bar2 > 1u << 30 ||
	    o->vectors > VU_VECTORS_MAX)
		return MR_E_INVALID;
	s = calloc(1, sizeof(*s));
	if (!s)
		return MR_E_NO_MEMORY;
	s->o = *o;
	s->bar2_bytes = bar2;
	if (!s->o.vectors)
		s->o.vectors = 5;
	if (!s->o.vendor)
		s->o.vendor = MR_SIM_PCI_VENDOR;
	if (!s->o.device)
		s->o.device = MR_SIM_PCI_DEVICE;
	for (uint32_t i = 0; i < VU_VECTORS_MAX; i++)
		s->irq[i] = -1;
	mr_vu_pci_init(s);
	*server = s;
	return 0;
}

void mr_vfio_user_stats(const struct mr_vfio_user *server, struct mr_vfio_user_stats *out)
{
	*out = server->stats;
}

void mr_vfio_user_destroy(struct mr_vfio_user *server)
{
	free(server);
}
