/* config.h - the daemon's options: from the command line, and from STATE/tarnd.conf.
 *
 * One table; the command line wins over the file. A list option (nbd) that is on the command line replaces the file's.
 * tarnd.conf is `KEY = VALUE` per line, `#` and `;` at the start of a line or behind a blank begin a comment. Plain text, UTF-8;
 * lines may end as DOS ends them. A mistake is one sentence with the line's number: what, why, what to do. */
#ifndef TARN_SHELL_CONFIG_H
#define TARN_SHELL_CONFIG_H

#include "format/record.h"
#include "shell/listen.h"

#define CONFIG_NBD_MAX   16u
#define CONFIG_STATE_MAX 400u

struct config {
  char state[CONFIG_STATE_MAX]; /* as given; made absolute by the caller */
  char name[TARN_NAME_MAX + 1]; /* the node's */
  uint32_t nbd_count;
  struct address nbd[CONFIG_NBD_MAX];
  uint64_t memory_bytes; /* buffers */
  bool insecure;         /* --nbd-insecure */
  bool faults;           /* --enable-faults */
  /* on the command line */
  bool state_given, name_given, memory_given, nbd_given, insecure_given, faults_given;
  bool help, version;
};

void config_init(struct config *config);
/* TARN_INVALID with a sentence. */
CHECKED tarn_err config_arguments(struct config *config, int argc, char **argv, struct why *why);
/* Reads `path`, which may be missing. */
CHECKED tarn_err config_file(struct config *config, const char *path, struct why *why);
/* The same from memory, for tests. */
CHECKED tarn_err config_text(struct config *config, const char *text, const char *path, struct why *why);
/* Sockets that were passed on stand beside the addresses that were given, and replace the default. */
CHECKED tarn_err config_sockets(struct config *config, const struct address *passed, uint32_t count, struct why *why);
/* Fills in what was not said: name = host name, nbd = unix:STATE/nbd.sock; and tells the addresses whether they may be exposed. */
CHECKED tarn_err config_complete(struct config *config, struct why *why);
const char *config_help(void);

#endif
