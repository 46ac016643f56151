/* tarn.h - the command line: `tarn [--state DIR | --control PATH] [--json] COMMAND ...`.
 *
 * Each command is a row of tarn_commands[]: its words, its arguments, its help, and how its result is shown to people. From
 * the arguments' rows the command line is parsed, checked, turned into the daemon's request, and documented; so a new
 * command is a new row here and a handler in the daemon. Exit status: 0 done, 1 refused or failed, 2 bad usage. */
#ifndef TARN_SHELL_TARN_H
#define TARN_SHELL_TARN_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "shell/settings.h"

#define EXIT_DONE    0
#define EXIT_REFUSED 1
#define EXIT_USAGE   2

struct tarn {
  char control[600]; /* path of the daemon's control socket */
  bool json;
  bool watch, wait, help;
  bool quiet; /* mistakes are not told */
};

/* Options that every command takes, as getopt_long() wants them. */
enum global { GLOBAL_STATE = 256, GLOBAL_CONTROL, GLOBAL_JSON, GLOBAL_HELP, GLOBAL_VERSION };
#define GLOBAL_OPTIONS                                                                                    \
  {"state", required_argument, NULL, GLOBAL_STATE}, {"control", required_argument, NULL, GLOBAL_CONTROL}, \
      {"json", no_argument, NULL, GLOBAL_JSON}, {"help", no_argument, NULL, GLOBAL_HELP}, {               \
    "version", no_argument, NULL, GLOBAL_VERSION                                                          \
  }
#define GLOBAL_COUNT 5

enum argument_kind {
  ARGUMENT_POSITIONAL, /* NAME */
  ARGUMENT_REST,       /* KEY=VALUE ..., at least one if required */
  ARGUMENT_FLAG,       /* --force */
  ARGUMENT_VALUE,      /* --size SIZE */
  ARGUMENT_LIST,       /* --image IMAGE, again and again */
};

/* Checks one text that was typed, and may replace it by its canonical form (allocated). */
typedef tarn_err argument_check(char **text, struct why *why);

struct tarn_argument {
  enum argument_kind kind;
  const char *name;  /* "NAME", "--size" */
  const char *key;   /* in the request; NULL: for the client alone (--watch, --wait) */
  const char *value; /* "SIZE", for help */
  bool required;
  argument_check *check; /* may be NULL */
  const char *help;
};

#define ARGUMENTS_MAX 8
struct tarn_command {
  const char *name; /* "mirror create" */
  const char *summary;
  const char *help;                      /* paragraphs and examples; NULL: none */
  const struct settings_table *settings; /* that it takes: listed in the help; NULL: none */
  struct tarn_argument arguments[ARGUMENTS_MAX];
  /* Sends the request and shows the result; NULL: tarn_ask() and `show`. */
  int (*run)(struct tarn *tarn, json_t *request);
  void (*show)(const json_t *result, const json_t *request);
};
extern const struct tarn_command tarn_commands[];
extern const size_t tarn_command_count;

/* What can stand for an argument. */
enum argument_words {
  WORDS_NONE, /* anything, or a path: the shell's own completion */
  WORDS_MIRRORS,
  WORDS_IMAGES,
  WORDS_MIRROR_KEYS,
  WORDS_IMAGE_KEYS,
  WORDS_MIRROR_SETTINGS,
  WORDS_IMAGE_SETTINGS,
  WORDS_FAULTS,
  WORDS_FAULT_OPS,
};
enum argument_words argument_words(const struct tarn_command *command, const struct tarn_argument *argument);

/* ---- tarn_complete.c: `tarn --complete WORD...` ---- */
/* For a shell: prints what the last of these words (behind "tarn") can become, a line each. Asks the daemon for names, and gives up
 * after two seconds. Says nothing about mistakes. */
int complete_run(struct tarn *tarn, int argc, char **argv);
/* The daemon's control socket in that folder. */
tarn_err tarn_control_path(struct tarn *tarn, const char *folder, const char *file, struct why *why);

/* ---- tarn_client.c ---- */
/* One line on standard error; with --json also {"ok": false, "error": ...} on standard output. Returns `status`. */
__attribute__((format(printf, 3, 4))) int tarn_fail(const struct tarn *tarn, int status, const char *format, ...);
/* Sends `request` (taken) and waits for the answer. EXIT_DONE and the result (a new reference), or NULL and
 * tells why not. */
int tarn_ask(const struct tarn *tarn, json_t *request, json_t **result);
/* The same for what takes long: `tick` is called a few times a second until the answer is here. After interrupt_watch() a signal
 * ends the wait: EXIT_REFUSED and no result, with `left` told. */
int tarn_ask_long(const struct tarn *tarn, json_t *request, json_t **result,
                  void (*tick)(const struct tarn *tarn, const json_t *request), const char *left);
/* The same, and then every line that follows goes to `line`, until it answers false or the daemon ends. */
int tarn_stream(const struct tarn *tarn, json_t *request, bool (*line)(const struct tarn *tarn, const json_t *json));
/* One document on standard output. */
void tarn_print_json(const json_t *json, bool one_line);
/* What a member of an answer is; "" and 0: it is not there. */
static inline const char *text_of(const json_t *json, const char *key) {
  const char *text = json_string_value(json_object_get(json, key));
  return text ? text : "";
}
static inline uint64_t number_of(const json_t *json, const char *key) {
  return (uint64_t)json_integer_value(json_object_get(json, key));
}

/* ---- tarn_status.c ---- */
int status_run(struct tarn *tarn, json_t *request);

/* ---- tarn_verdict.c: what is wrong, since when, what is at risk, what happens by itself, what to do ---- */
/* How text is shown. */
struct look {
  bool colour;
  unsigned width; /* of the terminal; 0: lines are not wrapped */
};
/* One line for all mirrors of `status`: all is well, or the worst that there is. */
void verdict_print(FILE *out, const json_t *status, const struct look *look);
/* A paragraph for a mirror that is not well; nothing for one that is. */
void trouble_print(FILE *out, const json_t *status, const json_t *mirror, const struct look *look);

/* ---- tarn_image.c: operations on images, verify ---- */
int image_run(struct tarn *tarn, json_t *request);
int verify_run(struct tarn *tarn, json_t *request);
void show_fault(const json_t *result, const json_t *request);

/* ---- tarn_examine.c: what a disk is; needs no daemon ---- */
int examine_run(struct tarn *tarn, json_t *request);

/* ---- tarn_progress.c: one line that is drawn over and over, where standard output is a terminal ---- */
void progress_draw(const struct tarn *tarn, const char *what, uint64_t done, uint64_t total, const char *note);
/* Wipes it, before something else is printed. */
void progress_end(void);
/* From now on Ctrl-C (and SIGTERM) does not end this program, but what waits: poll() and the like fail with EINTR. */
void interrupt_watch(void);
bool interrupted(void);

/* ---- tarn_table.c: aligned columns ---- */
struct table {
  unsigned column_count, row_count;
  unsigned right_aligned; /* bit per column */
  struct table_row *rows;
};
/* Cells are texts, `column_count` of them; copied. */
void table_add(struct table *table, ...);
void table_print(const struct table *table, unsigned indent, FILE *out);
void table_free(struct table *table);

#endif
