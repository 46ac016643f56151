/* negotiate.c - the handshake: fixed newstyle, one option after the other until the client has chosen an export.
 *
 *     server: NBDMAGIC IHAVEOPT flags(16)                    client: flags(32)
 *     client: IHAVEOPT option(32) length(32) data            server: magic(64) option(32) type(32) length(32) data, ...
 *
 * An option is taken up when all of it has arrived and the answer to the one before has been sent, so one answer's
 * memory is enough. No TLS here, so that STARTTLS is refused by policy.
 *
 * Metadata contexts are chosen for an export before it is entered, and hold if that is the one that is entered then. A choice
 * replaces the last one, also when it fails. */
#include <string.h>

#include "base/bytes.h"
#include "nbd/internal.h"

#define CLIENT_FLAGS          (uint32_t)(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES)
#define PREFERRED_BLOCK_BYTES 4096u

/* ---- what is sent ---- */

static void answer_begin(struct nbd_session *session, struct writer *answer) {
  require(!list_is_linked(&session->handshake.link));
  writer_init(answer, session->handshake_data, NBD_HANDSHAKE_BYTES);
}

static void answer_send(struct nbd_session *session, const struct writer *answer) {
  require(!answer->bad);
  require(writer_used(answer) > 0);
  session->handshake.data = session->handshake_data;
  session->handshake.data_bytes = (uint32_t)writer_used(answer);
  nbd_out_push(session, NULL, &session->handshake);
}

static void put_reply(const struct nbd_session *session, struct writer *answer, uint32_t type, size_t bytes) {
  put_be64(answer, NBD_MAGIC_REPLY);
  put_be32(answer, session->option);
  put_be32(answer, type);
  put_be32(answer, (uint32_t)bytes);
}

/* The whole answer to an option; `text` is for people and goes with errors only. */
static void answer_status(struct nbd_session *session, uint32_t type, const char *text) {
  require(implies(text[0] != '\0', (type & NBD_REP_ERROR) != 0));
  struct writer answer;
  answer_begin(session, &answer);
  put_reply(session, &answer, type, strlen(text));
  put_bytes(&answer, text, strlen(text));
  answer_send(session, &answer);
}

void nbd_greet(struct nbd_session *session) {
  struct writer answer;
  answer_begin(session, &answer);
  put_be64(&answer, NBD_MAGIC_INIT);
  put_be64(&answer, NBD_MAGIC_OPTION);
  put_be16(&answer, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
  require(writer_used(&answer) == NBD_GREETING_BYTES);
  answer_send(session, &answer);
}

/* ---- what an export can do, in the protocol's words ---- */

static uint64_t export_bytes(const struct nbd_export *export) {
  const struct disk_caps *caps = &export->disk->caps;
  return align_down(caps->size_bytes, caps->block_bytes);
}

/* CAN_MULTI_CONN: a flush covers every write that was answered before it on any connection, because all of them end in
 * the same disk, and a disk's flush covers all I/O that was completed before it was submitted. FAST_ZERO may always be
 * offered: it is answered at once, by doing it or by ENOTSUP. */
static uint16_t export_flags(const struct nbd_session *session, const struct nbd_export *export) {
  const struct disk_caps *caps = &export->disk->caps;
  unsigned flags =
      NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;
  if (caps->read_only) flags |= NBD_FLAG_READ_ONLY;
  if (caps->rotational) flags |= NBD_FLAG_ROTATIONAL;
  if (!caps->read_only) flags |= NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
  if (!caps->read_only && caps->can_trim) flags |= NBD_FLAG_SEND_TRIM;
  if (session->structured) flags |= NBD_FLAG_SEND_DF;
  return (uint16_t)flags;
}

static const char *const context_names[NBD_CONTEXT_COUNT] = {
    [NBD_CONTEXT_ALLOCATION] = "base:allocation", [NBD_CONTEXT_STATE] = "tarn:state"};

static uint32_t contexts_of(const struct nbd_export *export) {
  if (!export->disk->caps.can_extents) return 0;
  return 1u << NBD_CONTEXT_ALLOCATION | (export->state ? 1u << NBD_CONTEXT_STATE : 0);
}

static void attach(struct nbd_session *session, struct nbd_export *export) {
  require(!session->export);
  require(export->session_count < UINT32_MAX);
  session->export = export;
  session->losses = export->disk->losses;
  export->session_count++;
  if (session->contexts_of != export) session->contexts = 0;
  session->contexts &= contexts_of(export);
  session->phase = NBD_PHASE_REQUEST;
}

/* ---- options ---- */

/* The rest of `data`, or its next `bytes` bytes, as a name. False when it is no text that could name something. */
static bool get_name(struct reader *data, size_t bytes, char *name) {
  if (bytes > NBD_NAME_MAX || bytes > reader_left(data)) return false;
  get_bytes(data, name, bytes);
  name[bytes] = '\0';
  return strlen(name) == bytes;
}

/* No errors can be told here: the protocol has only success or hanging up. */
static void option_export_name(struct nbd_session *session, struct reader *data) {
  char name[NBD_NAME_MAX + 1];
  struct nbd_export *export = NULL;
  if (get_name(data, reader_left(data), name)) export = session->options.exports->find(session->options.exports, name);
  if (!export) {
    nbd_hang_up(session, "asked for an export that is not there");
    return;
  }
  struct writer answer;
  answer_begin(session, &answer);
  put_be64(&answer, export_bytes(export));
  put_be16(&answer, export_flags(session, export));
  if (!session->no_zeroes) put_zeroes(&answer, NBD_EXPORT_ZEROES);
  answer_send(session, &answer);
  attach(session, export);
}

static void put_info_text(const struct nbd_session *session, struct writer *answer, enum nbd_info info,
                          const char *text) {
  size_t bytes = strnlen(text, NBD_NAME_MAX);
  put_reply(session, answer, NBD_REP_INFO, 2 + bytes);
  put_be16(answer, (uint16_t)info);
  put_bytes(answer, text, bytes);
}

static void put_info(const struct nbd_session *session, struct writer *answer, const struct nbd_export *export,
                     uint32_t asked) {
  put_reply(session, answer, NBD_REP_INFO, 12);
  put_be16(answer, NBD_INFO_EXPORT);
  put_be64(answer, export_bytes(export));
  put_be16(answer, export_flags(session, export));
  if (asked & 1u << NBD_INFO_NAME) put_info_text(session, answer, NBD_INFO_NAME, export->name);
  if (asked & 1u << NBD_INFO_DESCRIPTION && export->description)
    put_info_text(session, answer, NBD_INFO_DESCRIPTION, export->description);
  /* Asked for or not: who did not ask skips it, and who forgot to ask may learn something. */
  uint32_t block_bytes = export->disk->caps.block_bytes;
  put_reply(session, answer, NBD_REP_INFO, 14);
  put_be16(answer, NBD_INFO_BLOCK_SIZE);
  put_be32(answer, block_bytes);
  put_be32(answer, (uint32_t)max_u64(block_bytes, PREFERRED_BLOCK_BYTES));
  put_be32(answer, NBD_PAYLOAD_MAX);
}

/* INFO and GO are one question; GO also enters transmission. Data: name length(32), name, count(16), info types(16)...
 * */
static void option_info(struct nbd_session *session, struct reader *data) {
  char name[NBD_NAME_MAX + 1];
  uint32_t name_bytes = get_be32(data);
  if (name_bytes > NBD_NAME_MAX && !data->bad)
    return answer_status(session, NBD_REP_ERR_TOO_BIG, "the name is too long");
  bool name_ok = !data->bad && get_name(data, name_bytes, name);
  uint32_t count = get_be16(data), asked = 0;
  if (!name_ok || data->bad || reader_left(data) != count * 2u)
    return answer_status(session, NBD_REP_ERR_INVALID, "malformed option");
  while (reader_left(data) > 0) {
    uint16_t info = get_be16(data);
    if (info < 32) asked |= 1u << info;
  }
  struct nbd_export *export = session->options.exports->find(session->options.exports, name);
  if (!export) return answer_status(session, NBD_REP_ERR_UNKNOWN, "no such export, or it is not active");

  struct writer answer;
  answer_begin(session, &answer);
  put_info(session, &answer, export, asked);
  put_reply(session, &answer, NBD_REP_ACK, 0);
  answer_send(session, &answer);
  if (session->option == NBD_OPT_GO) attach(session, export);
}

/* One more stretch of the list, as much as fits; called again when it has been sent. */
static void list_go_on(struct nbd_session *session) {
  struct nbd_exports *exports = session->options.exports;
  struct writer answer;
  answer_begin(session, &answer);
  while (NBD_HANDSHAKE_BYTES - writer_used(&answer) >= NBD_OPTION_REPLY_BYTES + 4 + 2 * NBD_NAME_MAX) {
    struct nbd_export *export = exports->at(exports, session->option_index++);
    if (!export) {
      put_reply(session, &answer, NBD_REP_ACK, 0);
      session->phase = NBD_PHASE_OPTION;
      break;
    }
    const char *description = export->description ? export->description : "";
    size_t name_bytes = strnlen(export->name, NBD_NAME_MAX), text_bytes = strnlen(description, NBD_NAME_MAX);
    put_reply(session, &answer, NBD_REP_SERVER, 4 + name_bytes + text_bytes);
    put_be32(&answer, (uint32_t)name_bytes);
    put_bytes(&answer, export->name, name_bytes);
    put_bytes(&answer, description, text_bytes);
  }
  answer_send(session, &answer);
}

static void option_list(struct nbd_session *session) {
  session->option_index = 0;
  session->phase = NBD_PHASE_LIST;
}

/* The contexts that a query names: one by its whole name; a namespace alone stands for all of its contexts, in LIST only. What
 * is not known is nothing. */
static uint32_t query_contexts(const char *query, bool is_list) {
  uint32_t found = 0;
  for (uint32_t i = 0; i < NBD_CONTEXT_COUNT; i++) {
    size_t namespace_bytes = strcspn(context_names[i], ":") + 1;
    bool whole = strcmp(query, context_names[i]) == 0;
    bool wild = is_list && strlen(query) == namespace_bytes && memcmp(query, context_names[i], namespace_bytes) == 0;
    if (whole || wild) found |= 1u << i;
  }
  return found;
}

static void contexts_reply(struct nbd_session *session, uint32_t contexts) {
  struct writer answer;
  answer_begin(session, &answer);
  for (uint32_t i = 0; i < NBD_CONTEXT_COUNT; i++) {
    if (!(contexts & 1u << i)) continue;
    size_t bytes = strlen(context_names[i]);
    put_reply(session, &answer, NBD_REP_META_CONTEXT, 4 + bytes);
    put_be32(&answer, session->option == NBD_OPT_SET_META_CONTEXT ? i + 1 : 0);
    put_bytes(&answer, context_names[i], bytes);
  }
  put_reply(session, &answer, NBD_REP_ACK, 0);
  answer_send(session, &answer);
}

/* LIST_META_CONTEXT, SET_META_CONTEXT: name length(32), name, count(32), queries of length(32), text. */
static void option_contexts(struct nbd_session *session, struct reader *data) {
  char name[NBD_NAME_MAX + 1], query[NBD_NAME_MAX + 1];
  bool is_list = session->option == NBD_OPT_LIST_META_CONTEXT;
  if (!session->structured) return answer_status(session, NBD_REP_ERR_INVALID, "structured replies come first");
  uint32_t name_bytes = get_be32(data);
  bool fine = !data->bad && get_name(data, name_bytes, name);
  uint32_t count = get_be32(data), found = 0;
  for (uint32_t i = 0; i < count && fine && !data->bad; i++) {
    uint32_t bytes = get_be32(data);
    fine = !data->bad && get_name(data, bytes, query) && strchr(query, ':') && query[0] != ':';
    if (fine) found |= query_contexts(query, is_list);
  }
  if (!fine || data->bad || reader_left(data) > 0)
    return answer_status(session, NBD_REP_ERR_INVALID, "malformed option");
  struct nbd_export *export = session->options.exports->find(session->options.exports, name);
  if (!export) return answer_status(session, NBD_REP_ERR_UNKNOWN, "no such export, or it is not active");
  if (is_list && count == 0) found = UINT32_MAX;
  found &= contexts_of(export);
  if (!is_list) {
    session->contexts = found;
    session->contexts_of = export;
  }
  contexts_reply(session, found);
}

static void option_structured(struct nbd_session *session) {
  session->structured = true;
  answer_status(session, NBD_REP_ACK, "");
}

static void option_abort(struct nbd_session *session) {
  answer_status(session, NBD_REP_ACK, "");
  session->phase = NBD_PHASE_DRAIN;
}

static void option_run(struct nbd_session *session, struct reader *data) {
  bool bare = reader_left(data) == 0;
  if (session->option == NBD_OPT_SET_META_CONTEXT) session->contexts = 0;
  switch (session->option) {
    case NBD_OPT_EXPORT_NAME: return option_export_name(session, data);
    case NBD_OPT_ABORT: return option_abort(session); /* with data or not: the client is leaving */
    case NBD_OPT_INFO:
    case NBD_OPT_GO: return option_info(session, data);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT: return option_contexts(session, data);
    case NBD_OPT_LIST:
      if (bare) return option_list(session);
      break;
    case NBD_OPT_STRUCTURED_REPLY:
      if (bare) return option_structured(session);
      break;
    case NBD_OPT_STARTTLS:
      if (bare) return answer_status(session, NBD_REP_ERR_POLICY, "TLS is not offered here");
      break;
    default: return answer_status(session, NBD_REP_ERR_UNSUP, "unknown option");
  }
  answer_status(session, NBD_REP_ERR_INVALID, "this option takes no data");
}

/* ---- steps ---- */

static enum nbd_step hello_step(struct nbd_session *session) {
  if (nbd_in_bytes(session) < NBD_CLIENT_FLAGS_BYTES) return NBD_STEP_INPUT;
  struct reader reader;
  reader_init(&reader, session->in + session->in_start, NBD_CLIENT_FLAGS_BYTES);
  uint32_t flags = get_be32(&reader);
  session->in_start += NBD_CLIENT_FLAGS_BYTES;
  if (flags & ~CLIENT_FLAGS) nbd_hang_up(session, "sent flags that are not known");
  session->no_zeroes = (flags & NBD_FLAG_C_NO_ZEROES) != 0;
  session->phase = NBD_PHASE_OPTION;
  return NBD_STEP_AGAIN;
}

static enum nbd_step option_step(struct nbd_session *session) {
  if (nbd_in_bytes(session) < NBD_OPTION_HEADER_BYTES) return NBD_STEP_INPUT;
  struct reader reader;
  reader_init(&reader, session->in + session->in_start, nbd_in_bytes(session));
  uint64_t magic = get_be64(&reader);
  session->option = get_be32(&reader);
  uint32_t bytes = get_be32(&reader);
  if (magic != NBD_MAGIC_OPTION) {
    nbd_hang_up(session, "does not speak NBD");
    return NBD_STEP_AGAIN;
  }
  if (bytes > NBD_OPTION_BYTES_MAX) {
    if (bytes > NBD_OPTION_DROP_MAX || session->option == NBD_OPT_EXPORT_NAME)
      nbd_hang_up(session, "sent an endless option");
    session->in_start += NBD_OPTION_HEADER_BYTES;
    session->skip_bytes = bytes;
    session->phase = NBD_PHASE_SKIP;
    return NBD_STEP_AGAIN;
  }
  if (reader_left(&reader) < bytes) return NBD_STEP_INPUT;
  struct reader data;
  reader_init(&data, session->in + session->in_start + NBD_OPTION_HEADER_BYTES, bytes);
  session->in_start += NBD_OPTION_HEADER_BYTES + bytes;
  option_run(session, &data);
  return NBD_STEP_AGAIN;
}

static enum nbd_step skip_step(struct nbd_session *session) {
  uint32_t bytes = (uint32_t)min_u64(session->skip_bytes, nbd_in_bytes(session));
  session->in_start += bytes;
  session->skip_bytes -= bytes;
  if (session->skip_bytes > 0) return NBD_STEP_INPUT;
  session->phase = NBD_PHASE_OPTION;
  if (session->option == NBD_OPT_SET_META_CONTEXT) session->contexts = 0;
  answer_status(session, NBD_REP_ERR_TOO_BIG, "the option is too long");
  return NBD_STEP_AGAIN;
}

enum nbd_step nbd_negotiate_step(struct nbd_session *session) {
  require(session->phase < NBD_PHASE_REQUEST);
  require(!session->export);
  /* The greeting does not wait for the client, and the client's flags do not wait for the greeting. */
  if (session->phase == NBD_PHASE_HELLO) return hello_step(session);
  if (list_is_linked(&session->handshake.link)) return NBD_STEP_BLOCKED;
  if (session->phase == NBD_PHASE_SKIP) return skip_step(session);
  if (session->phase == NBD_PHASE_OPTION) return option_step(session);
  list_go_on(session);
  return NBD_STEP_AGAIN;
}
