/* listen.h - addresses as people write them, and listening sockets.
 *
 *     unix:PATH[,mode=OCTAL][,group=GROUP][,OPTION...]   HOST:PORT[,OPTION...]   [IPv6]:PORT[,OPTION...]
 *
 * HOST is a name, an IPv4 address or `*`; PORT is 0..65535, 0 picks one; the OPTIONs are those of door.h. Who may connect to a Unix
 * socket is who may write to its file: its owner alone (mode 0600), whatever the umask is, unless mode and group say otherwise. A TCP
 * socket listens on loopback only, unless `exposed` is set
 *
 * or a listening socket that whoever started this program has opened already (socket activation). Blocking calls, for the start of
 * a program. */
#ifndef TARN_SHELL_LISTEN_H
#define TARN_SHELL_LISTEN_H

#include "shell/door.h"
#include "shell/why.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct address {
  bool is_unix;
  char path[108]; /* of the socket */
  mode_t mode;    /* of its file */
  gid_t group;    /* or (gid_t)-1: ours */
  char host[256]; /* without brackets */
  char port[6];
  char text[384]; /* as people write it, without its options */
  struct door door;
  bool exposed;         /* other machines may be able to connect */
  uint32_t patience_ms; /* that listen_open() waits for an address in use; 2 s unless its owner says otherwise */
  bool passed;          /* `passed_fd` listens there already; its file is not ours to remove */
  int passed_fd;
};

/* TARN_INVALID with the reason. */
CHECKED tarn_err address_parse(const char *text, struct address *address, struct why *why);
CHECKED tarn_err address_unix(const char *path, struct address *address, struct why *why);

/* The address of a descriptor that was passed on to this program. TARN_INVALID with the reason, unless it is a socket that listens
 * for streams, on Unix, IPv4 or IPv6. From then on it is close-on-exec, and blocking, which io_uring needs. */
CHECKED tarn_err address_passed(int fd, struct address *address, struct why *why);

/* TARN_INVALID, with the reason, if listen_open() will refuse it since other machines could connect: to be said before anything is
 * made. What a name stands for may change until then. */
CHECKED tarn_err listen_check(const struct address *address, struct why *why);
/* A listening socket for reactor_accept(), close-on-exec. An address that is in use is tried again for a while: a daemon that was
 * just killed is gone before the kernel has closed its sockets. A socket file that nobody listens on is replaced, unless a stranger's
 * link may have led there (trusted.h). `address` is updated with the port that was picked. TARN_EXISTS in use, TARN_INVALID beyond
 * loopback and not exposed, else TARN_REFUSED; with the reason. */
CHECKED tarn_err listen_open(struct address *address, int *fd, struct why *why);
/* Removes the socket file, unless it was passed on to us, or a stranger's link may have led there (trusted.h). Before the socket is
 * closed: after that somebody else may have his there. Blocks: for workers. */
void listen_remove(const struct address *address);
/* A connected socket, blocking: for clients like the command line. TARN_NOT_FOUND nobody listens there. */
CHECKED tarn_err address_connect(const struct address *address, int *fd, struct why *why);
/* The other end of a connection, for reports: "10.0.0.1:4711", "unix (pid 4711, uid 1000)". */
void peer_text(int fd, char *text, unsigned bytes);

#endif
