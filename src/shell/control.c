/* A connection is in one of these, left to right and back to reading:
 *
 *     reading -- a line is complete --> calling -- answered --> sending -- sent --> reading
 *                                                                  `--> streaming ("events"), until either side ends it */
#include "shell/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shell/words.h"

#define LINE_FIRST_BYTES 4096u
#define STREAM_BYTES     65536u
#define STREAM_LINE_MAX  2048u
#define CALL_ROOM_BYTES \
  (1u << 20) /* what a call may need for its JSON: libjansson stops the process where it finds none */

struct connection {
  struct list link; /* in control->connections */
  struct control *control;
  int fd;
  struct call call;
  struct reactor_op hangup; /* during a call that wants to know */
  bool calling, streaming;
  bool last;    /* hang up once `out` is sent */
  bool closing; /* hanging up */
  /* receiving */
  struct reactor_op recv;
  char *line;
  size_t line_bytes, line_room, line_scanned;
  /* sending */
  struct reactor_op send;
  char *out;
  size_t out_bytes, out_sent;
  uint64_t next_event; /* 0: the oldest that is kept */
  struct event step;   /* never from within a callback of somebody else */
};

/* Descriptors set aside, so that the administrator gets in when clients have taken all others. */
#define SPARE_FILES     4u
#define ACCEPT_RETRY_NS (100 * NS_PER_MS)
#define STOP_WAIT_NS    NS_PER_S

struct control {
  struct control_options options;
  struct env *env;
  struct address address;
  int fd;
  struct reactor_op accept;
  struct timer accept_retry;
  int spare[SPARE_FILES]; /* -1: given away, or not to be had */
  struct list connections;
  uint32_t connection_count;
  struct event pump;    /* new events for the streams */
  bool stopping, hurry; /* hurry: what has not been sent by now is not waited for */
  struct timer patience;
  void *stopped_owner;
  void (*stopped)(void *owner);
};

/* ---- the table of commands ---- */

static uint32_t streams_count(const struct control *control) {
  uint32_t count = 0;
  LIST_EACH(&control->connections, node) count += LIST_ENTRY(node, struct connection, link)->streaming;
  return count;
}

static void events_call(struct manager *manager, struct call *call) {
  static const char *const known[] = {NULL};
  struct connection *connection = CONTAINER_OF(call, struct connection, call);
  struct why why;
  (void)manager;
  if (request_only(&call->request, known, &why) != TARN_OK) {
    call_misused(call, "%s", why.text);
    return;
  }
  if (streams_count(connection->control) >= CONTROL_STREAMS_MAX) {
    call_refuse(
        call,
        "%u readers follow the events already, and the other connections are kept for commands; end one of them, "
        "or read the daemon's log",
        CONTROL_STREAMS_MAX);
    return;
  }
  connection->streaming = true;
  call_done(call, json_pack("{s:b}", "stream", 1));
}

static const struct {
  const char *name;
  void (*run)(struct manager *manager, struct call *call);
} commands[] = {
    {"status", manager_status},
    {"events", events_call},
    {"mirror create", manager_mirror_create},
    {"mirror import", manager_mirror_import},
    {"mirror activate", manager_mirror_activate},
    {"mirror deactivate", manager_mirror_deactivate},
    {"mirror destroy", manager_mirror_destroy},
    {"mirror set", manager_mirror_set},
    {"mirror get", manager_mirror_get},
    {"mirror verify", manager_mirror_verify},
    {"image add", manager_image_add},
    {"image remove", manager_image_operation},
    {"image sync", manager_image_operation},
    {"image fracture", manager_image_operation},
    {"image restore", manager_image_operation},
    {"image promote", manager_image_operation},
    {"image demote", manager_image_operation},
    {"image set", manager_image_set},
    {"image get", manager_image_get},
    {"fault", manager_fault},
};

static const char *command_name(const void *context, size_t index) {
  (void)context;
  return index < COUNT_OF(commands) ? commands[index].name : NULL;
}

/* That are under way, with the one that begins. */
static uint32_t calls_count(const struct control *control) {
  uint32_t count = 0;
  LIST_EACH(&control->connections, node) count += LIST_ENTRY(node, struct connection, link)->calling;
  return count;
}

static void command_run(struct control *control, struct call *call) {
  if (calls_count(control) > CONTROL_CALLS_MAX && strcmp(call->request.command, "status") != 0) {
    call_refuse(
        call,
        "%u commands wait or are under way already, and the other connections are kept for 'tarn status', which "
        "shows what is being done; try again when some of them have ended",
        CONTROL_CALLS_MAX);
    return;
  }
  for (size_t i = 0; i < COUNT_OF(commands); i++) {
    if (strcmp(commands[i].name, call->request.command) != 0) continue;
    commands[i].run(control->options.manager, call);
    return;
  }
  char hint[HINT_TEXT];
  call_misused(call, "unknown command '%.80s'%s", call->request.command,
               hint_text(nearest_word(call->request.command, command_name, NULL), hint));
}

/* ---- spare files ---- */

static void spare_take(struct control *control) {
  for (uint32_t i = 0; i < SPARE_FILES; i++)
    if (control->spare[i] < 0) control->spare[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static bool spare_give(struct control *control) {
  for (uint32_t i = 0; i < SPARE_FILES; i++) {
    if (control->spare[i] < 0) continue;
    close(control->spare[i]);
    control->spare[i] = -1;
    return true;
  }
  return false;
}

/* ---- one connection ---- */

static void stopped_check(struct control *control) {
  if (!control->stopped || control->connection_count > 0 || control->accept.busy) return;
  void (*stopped)(void *) = control->stopped;
  control->stopped = NULL;
  timer_cancel(&control->patience);
  stopped(control->stopped_owner);
}

/* Ends it once nothing is under way that points to it. */
static void connection_close(struct connection *connection) {
  struct control *control = connection->control;
  if (!connection->closing) {
    connection->closing = true;
    shutdown(connection->fd, SHUT_RDWR);
    if (connection->recv.busy) reactor_cancel(control->options.reactor, &connection->recv);
    if (connection->send.busy) reactor_cancel(control->options.reactor, &connection->send);
    if (connection->hangup.busy) reactor_cancel(control->options.reactor, &connection->hangup);
  }
  if (connection->recv.busy || connection->send.busy || connection->hangup.busy || connection->calling) return;
  event_cancel(&connection->step);
  list_remove(&connection->link);
  control->connection_count--;
  close(connection->fd);
  spare_take(control);
  free(connection->line);
  free(connection->out);
  free(connection);
  stopped_check(control);
}

static void connection_step(struct connection *connection);
static void step_run(struct event *event) { connection_step(CONTAINER_OF(event, struct connection, step)); }
static void step_post(struct connection *connection) {
  if (!event_is_posted(&connection->step)) event_post(&connection->control->env->queue, &connection->step);
}

/* An answer that is ready by now has a second to be taken. */
static void patience_begin(struct control *control) {
  control->hurry = false;
  timer_set(control->env, &control->patience, control->env->now_ns + STOP_WAIT_NS);
}

static void call_answered(struct call *call) {
  struct connection *connection = CONTAINER_OF(call, struct connection, call);
  require(connection->calling);
  require(!connection->out);
  connection->calling = false;
  call->gone = NULL;
  if (connection->hangup.busy) reactor_cancel(connection->control->options.reactor, &connection->hangup);
  connection->out = call_answer_text(call);
  connection->out_bytes = connection->out ? strlen(connection->out) : 0;
  connection->out_sent = 0;
  if (!connection->out) connection->closing = true;
  if (connection->control->stopping) patience_begin(connection->control);
  step_post(connection);
}

/* Only a peer that closed both ways is gone: one that has said all it wants to may still listen. */
static void hangup_watch(struct connection *connection) {
  if (connection->calling && connection->call.gone && !connection->hangup.busy)
    reactor_poll(connection->control->options.reactor, &connection->hangup, connection->fd, POLLHUP);
}

static void hung_up(struct reactor_op *op, int result) {
  struct connection *connection = CONTAINER_OF(op, struct connection, hangup);
  struct call *call = &connection->call;
  void (*gone)(struct call *) = connection->calling ? call->gone : NULL;
  if (result > 0 && gone) {
    call->gone = NULL;
    gone(call);
  }
  hangup_watch(connection); /* it was the watch of the call before, which has ended */
  if (connection->closing) connection_close(connection);
}

static void call_begin(struct connection *connection, const char *line, size_t bytes) {
  struct call *call = &connection->call;
  struct why why;
  *call = (struct call){.done = call_answered};
  list_init(&call->link);
  connection->calling = true;
  void *room = malloc(CALL_ROOM_BYTES);
  if (!room) {
    call_refuse(call, "there is not enough memory");
    return;
  }
  free(room);
  if (request_parse(line, bytes, &call->request, &why) == TARN_OK) command_run(connection->control, call);
  else call_misused(call, "%s", why.text);
  hangup_watch(connection);
}

/* Takes the next whole line off the buffer and begins its call. False: there is none. */
static bool line_take(struct connection *connection) {
  size_t unseen = connection->line_bytes - connection->line_scanned;
  char *end = unseen > 0 ? memchr(connection->line + connection->line_scanned, '\n', unseen) : NULL;
  connection->line_scanned = connection->line_bytes;
  if (!end) return false;
  size_t bytes = (size_t)(end - connection->line), used = bytes + 1;
  if (bytes > 0) call_begin(connection, connection->line, bytes);
  memmove(connection->line, connection->line + used, connection->line_bytes - used);
  connection->line_bytes -= used;
  connection->line_scanned = 0;
  return true;
}

/* The next lines of the event log, as many as fit. */
static void stream_fill(struct connection *connection) {
  const struct event_log *log = connection->control->options.events;
  const struct event_line *line;
  uint64_t lost = 0;
  char *out = NULL;
  size_t used = 0;
  while (used + STREAM_LINE_MAX <= STREAM_BYTES && (line = event_log_at(log, &connection->next_event, &lost)) != NULL &&
         lost == 0) {
    char time[TIME_TEXT];
    json_t *json = json_pack("{s:I, s:s, s:s, s:o, s:o}", "number", (json_int_t)line->number, "time",
                             time_text(line->wall_ns, time), "level", report_level_name(line->level), "subject",
                             call_sentence(line->subject), "text", call_sentence(line->text));
    if (!out) out = malloc(STREAM_BYTES);
    size_t bytes = json && out ? json_dumpb(json, out + used, STREAM_BYTES - used - 1, JSON_COMPACT) : 0;
    json_decref(json);
    connection->next_event++;
    if (bytes == 0 || bytes > STREAM_BYTES - used - 1) continue;
    out[used + bytes] = '\n';
    used += bytes + 1;
  }
  if (lost > 0) {
    connection->streaming = false;
    connection->last = true;
    free(out);
    out = malloc(256);
    used = out ? (size_t)snprintf(
                     out, 256,
                     "{\"ok\":false,\"usage\":false,\"error\":\"this reader was too slow: %llu events were lost\"}\n",
                     (unsigned long long)lost)
               : 0;
  }
  if (used == 0) {
    free(out);
    return;
  }
  connection->out = out;
  connection->out_bytes = used;
  connection->out_sent = 0;
}

static void line_refuse(struct connection *connection) {
  struct call *call = &connection->call;
  *call = (struct call){.done = call_answered};
  connection->calling = true;
  connection->last = true;
  call_misused(call, "a request is longer than %u bytes", REQUEST_LINE_MAX);
}

static void receive(struct connection *connection) {
  if (connection->line_bytes == connection->line_room) {
    size_t room = connection->line_room ? min_u64(2 * connection->line_room, REQUEST_LINE_MAX + 1) : LINE_FIRST_BYTES;
    char *line = connection->line_room <= REQUEST_LINE_MAX ? realloc(connection->line, room) : NULL;
    if (!line) {
      line_refuse(connection);
      return;
    }
    connection->line = line;
    connection->line_room = room;
  }
  reactor_recv(connection->control->options.reactor, &connection->recv, connection->fd,
               connection->line + connection->line_bytes, connection->line_room - connection->line_bytes);
}

/* Does the next thing there is to do. */
static void connection_step(struct connection *connection) {
  struct control *control = connection->control;
  bool over = control->hurry || !connection->out;
  if (connection->closing || (control->stopping && !connection->calling && over)) {
    connection_close(connection);
    return;
  }
  if (connection->calling || connection->send.busy) return;
  if (!connection->out && connection->streaming) stream_fill(connection);
  if (connection->out) {
    reactor_send(control->options.reactor, &connection->send, connection->fd, connection->out + connection->out_sent,
                 connection->out_bytes - connection->out_sent);
    return;
  }
  if (connection->recv.busy) return;
  if (connection->streaming) receive(connection); /* only to learn that it is gone */
  else if (line_take(connection)) step_post(connection);
  else receive(connection);
}

static void sent(struct reactor_op *op, int result) {
  struct connection *connection = CONTAINER_OF(op, struct connection, send);
  if (result <= 0) {
    connection_close(connection);
    return;
  }
  connection->out_sent += (size_t)result;
  if (connection->out_sent == connection->out_bytes) {
    free(connection->out);
    connection->out = NULL;
    if (connection->last) {
      connection_close(connection);
      return;
    }
  }
  connection_step(connection);
}

static void received(struct reactor_op *op, int result) {
  struct connection *connection = CONTAINER_OF(op, struct connection, recv);
  if (result <= 0) {
    connection_close(connection);
    return;
  }
  if (!connection->streaming) connection->line_bytes += (size_t)result; /* a reader of events has nothing to say */
  connection_step(connection);
}

/* ---- the socket ---- */

static void refuse_connection(int fd) {
  static const char text[] =
      "{\"ok\":false,\"usage\":false,\"error\":\"too many control connections are open; close some and try again\"}\n";
  ssize_t ignored = send(fd, text, sizeof text - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  (void)ignored;
  close(fd);
}

/* Somebody who connected and says nothing must not keep others out: the one that has been silent longest goes. */
static bool make_room(struct control *control) {
  if (control->connection_count < CONTROL_CONNECTIONS_MAX) return true;
  LIST_EACH(&control->connections, node) {
    struct connection *connection = LIST_ENTRY(node, struct connection, link);
    if (connection->closing || connection->calling || connection->streaming || connection->out) continue;
    connection_close(connection);
    return true;
  }
  return false;
}

static void accepted(struct reactor_op *op, int result) {
  struct control *control = CONTAINER_OF(op, struct control, accept);
  if (control->stopping) {
    if (result >= 0) close(result);
    stopped_check(control);
    return;
  }
  struct connection *connection = result >= 0 && make_room(control) ? calloc(1, sizeof *connection) : NULL;
  if (connection) {
    connection->control = control;
    connection->fd = result;
    list_init(&connection->link);
    list_push(&control->connections, &connection->link);
    control->connection_count++;
    reactor_op_init(&connection->recv, received);
    reactor_op_init(&connection->send, sent);
    reactor_op_init(&connection->hangup, hung_up);
    event_init(&connection->step, step_run);
    connection_step(connection);
  } else if (result >= 0) refuse_connection(result);
  bool full = result == -EMFILE || result == -ENFILE;
  if (result >= 0 || result == -ECONNABORTED || result == -EINTR || (full && spare_give(control)))
    reactor_accept(control->options.reactor, &control->accept, control->fd);
  else timer_set(control->env, &control->accept_retry, control->env->now_ns + ACCEPT_RETRY_NS);
}

static void accept_again(struct timer *timer) {
  struct control *control = CONTAINER_OF(timer, struct control, accept_retry);
  reactor_accept(control->options.reactor, &control->accept, control->fd);
}

static void pump_run(struct event *event) {
  struct control *control = CONTAINER_OF(event, struct control, pump);
  LIST_EACH(&control->connections, node) {
    struct connection *connection = LIST_ENTRY(node, struct connection, link);
    if (connection->streaming && !connection->out) step_post(connection);
  }
}

void control_events_added(struct control *control) {
  if (!event_is_posted(&control->pump)) event_post(&control->env->queue, &control->pump);
}

static void all_step(struct control *control) {
  LIST_EACH(&control->connections, node) step_post(LIST_ENTRY(node, struct connection, link));
}

static void patience_over(struct timer *timer) {
  struct control *control = CONTAINER_OF(timer, struct control, patience);
  control->hurry = true;
  all_step(control);
}

struct control *control_create(const struct control_options *options) {
  struct control *control = calloc(1, sizeof *control);
  if (!control) return NULL;
  control->options = *options;
  control->env = reactor_env(options->reactor);
  control->fd = -1;
  list_init(&control->connections);
  event_init(&control->pump, pump_run);
  reactor_op_init(&control->accept, accepted);
  timer_init(&control->accept_retry, accept_again);
  timer_init(&control->patience, patience_over);
  memset(control->spare, 0xff, sizeof control->spare);
  spare_take(control);
  return control;
}

tarn_err control_listen(struct control *control, const struct address *address, struct why *why) {
  require(control->fd < 0);
  require(address->is_unix);
  control->address = *address;
  mode_t before = umask(0177);
  tarn_err err = listen_open(&control->address, &control->fd, why);
  umask(before);
  if (err == TARN_OK) reactor_accept(control->options.reactor, &control->accept, control->fd);
  return err;
}

void control_stop(struct control *control, void *owner, void (*stopped)(void *owner)) {
  control->stopping = true;
  control->stopped_owner = owner;
  control->stopped = stopped;
  timer_cancel(&control->accept_retry);
  if (control->accept.busy) reactor_cancel(control->options.reactor, &control->accept);
  patience_begin(control);
  all_step(control);
  stopped_check(control);
}

void control_destroy(struct control *control) {
  require(control->connection_count == 0 && !control->accept.busy);
  event_cancel(&control->pump);
  while (spare_give(control)) continue;
  if (control->fd >= 0) close(control->fd);
  free(control);
}
