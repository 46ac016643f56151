/* tarn_complete.c - what a word of a command line can become, for a shell (dist/tarn.bash). From the same tables as parsing and
 * help, so that a new command, option or setting completes by itself; names of mirrors and images come from the daemon. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/require.h"
#include "shell/tarn.h"
#include "shell/words.h"

#define PATIENCE_S 2u

/* The words before the one to be completed, looked at from left to right. */
struct line {
  struct tarn *tarn;
  const char *last;                     /* the one to be completed, perhaps empty */
  char prefix[64];                      /* "--repair=", when that stands before it in the same word */
  const struct tarn_command *found;     /* NULL: not yet */
  const char *group;                    /* "mirror", and the second word is still to come */
  const struct tarn_argument *value_of; /* the last word is the value of this option */
  bool free_value;                      /* ... or of --state or --control */
  const char *positionals[8];
  size_t positional_count;
  bool lost; /* a word that is no command: nothing can follow */
};

static void offer(const struct line *line, const char *word) {
  if (strncmp(word, line->last, strlen(line->last)) == 0) printf("%s%s\n", line->prefix, word);
}

static bool begins(const char *name, const char *group, size_t bytes) {
  return strncmp(name, group, bytes) == 0 && name[bytes] == ' ';
}

static const struct tarn_command *find(const char *first, const char *second) {
  char name[64];
  snprintf(name, sizeof name, "%.30s%s%.30s", first, second ? " " : "", second ? second : "");
  for (size_t i = 0; i < tarn_command_count; i++)
    if (strcmp(tarn_commands[i].name, name) == 0) return &tarn_commands[i];
  return NULL;
}

static bool is_group(const char *word) {
  for (size_t i = 0; i < tarn_command_count; i++)
    if (begins(tarn_commands[i].name, word, strlen(word))) return true;
  return false;
}

/* ---- what stands there already ---- */

static void option_read(struct line *line, const char *word) {
  static const struct option globals[] = {GLOBAL_OPTIONS, {NULL, 0, NULL, 0}};
  for (const struct option *global = globals; global->name; global++)
    if (strcmp(word + 2, global->name) == 0) line->free_value = global->has_arg == required_argument;
  for (const struct tarn_argument *argument = line->found ? line->found->arguments : NULL; argument && argument->name;
       argument++)
    if (argument->kind >= ARGUMENT_VALUE && strcmp(argument->name, word) == 0) line->value_of = argument;
}

static void value_read(struct line *line, const char *option, const char *value) {
  struct why why;
  tarn_err err = TARN_OK;
  if (strcmp(option, "--state") == 0) err = tarn_control_path(line->tarn, value, "/control.sock", &why);
  if (strcmp(option, "--control") == 0) err = tarn_control_path(line->tarn, value, "", &why);
  if (err != TARN_OK) line->tarn->control[0] = 0;
}

static void word_read(struct line *line, const char *word) {
  if (strncmp(word, "--", 2) == 0) option_read(line, word);
  else if (line->found && line->positional_count < COUNT_OF(line->positionals))
    line->positionals[line->positional_count++] = word;
  else if (line->group) {
    line->found = find(line->group, word);
    line->group = NULL;
    line->lost = !line->found;
  } else if (is_group(word)) line->group = word;
  else line->lost = !(line->found = find(word, NULL));
}

/* ---- names that the daemon knows ---- */

/* Of all mirrors; or of the images of one. */
static void names_offer(const struct line *line, const char *images_of) {
  json_t *result, *mirror, *image;
  size_t index, image_index;
  alarm(PATIENCE_S); /* a daemon that is stopped must not hang the shell */
  if (tarn_ask(line->tarn, json_pack("{s:s}", "command", "status"), &result) == EXIT_DONE) {
    json_array_foreach(json_object_get(result, "mirrors"), index, mirror) {
      if (!images_of) offer(line, text_of(mirror, "name"));
      else if (strcmp(text_of(mirror, "name"), images_of) == 0)
        json_array_foreach(json_object_get(mirror, "images"), image_index, image) offer(line, text_of(image, "name"));
    }
  }
  json_decref(result);
  alarm(0);
}

/* ---- settings ---- */

static void keys_offer(const struct line *line, const struct settings_table *settings) {
  for (const struct setting *row = settings->rows; row < settings->rows + settings->count; row++)
    offer(line, row->name);
}

/* "KEY=" until there is one; then its words, or the default of a number. */
static void settings_offer(const struct line *line, const struct settings_table *settings) {
  bool creating = strcmp(line->found->name, "mirror create") == 0;
  for (const struct setting *row = settings->rows; row < settings->rows + settings->count; row++) {
    char word[96], value[SETTING_TEXT];
    size_t bytes = strlen(row->name);
    if (row->at_create && !creating) continue;
    if (strncmp(line->last, row->name, bytes) != 0 || line->last[bytes] != '=') {
      snprintf(word, sizeof word, "%s=", row->name);
      offer(line, word);
      continue;
    }
    for (size_t i = 0; row->unit == SETTING_WORD && i < COUNT_OF(row->words); i++) {
      snprintf(word, sizeof word, "%s=%s", row->name, row->words[i]);
      offer(line, word);
    }
    if (row->unit == SETTING_WORD) continue;
    snprintf(word, sizeof word, "%s=%s", row->name, setting_text(row, row->value, value));
    offer(line, word);
  }
}

/* ---- what can come now ---- */

static void argument_offer(const struct line *line, const struct tarn_argument *argument) {
  static const char *const faults[] = {"fail", "hang", "delay=", "corrupt", "heal"};
  static const char *const ops[] = {"read", "write", "flush"};
  switch (argument_words(line->found, argument)) {
    case WORDS_NONE: break;
    case WORDS_MIRRORS: names_offer(line, NULL); break;
    case WORDS_IMAGES:
      if (line->positional_count > 0) names_offer(line, line->positionals[0]);
      if (strcmp(line->found->name, "fault") == 0) offer(line, "log");
      break;
    case WORDS_MIRROR_KEYS: keys_offer(line, &mirror_settings); break;
    case WORDS_IMAGE_KEYS: keys_offer(line, &image_settings); break;
    case WORDS_MIRROR_SETTINGS: settings_offer(line, &mirror_settings); break;
    case WORDS_IMAGE_SETTINGS: settings_offer(line, &image_settings); break;
    case WORDS_FAULTS:
      if (line->positional_count > 1 && strcmp(line->positionals[1], "log") == 0) {
        offer(line, "off");
        offer(line, "on");
        break;
      }
      for (size_t i = 0; i < COUNT_OF(faults); i++) offer(line, faults[i]);
      break;
    case WORDS_FAULT_OPS:
      for (size_t i = 0; i < COUNT_OF(ops); i++) offer(line, ops[i]);
      break;
  }
}

static void options_offer(const struct line *line) {
  static const struct option globals[] = {GLOBAL_OPTIONS, {NULL, 0, NULL, 0}};
  char word[64];
  for (const struct tarn_argument *argument = line->found ? line->found->arguments : NULL; argument && argument->name;
       argument++)
    if (argument->kind >= ARGUMENT_FLAG) offer(line, argument->name);
  for (const struct option *global = globals; global->name; global++) {
    snprintf(word, sizeof word, "--%s", global->name);
    offer(line, word);
  }
}

static void commands_offer(const struct line *line) {
  char before[32] = "";
  for (size_t i = 0; i < tarn_command_count; i++) {
    const char *name = tarn_commands[i].name, *space = strchr(name, ' ');
    char word[32];
    if (line->group && !begins(name, line->group, strlen(line->group))) continue;
    snprintf(word, sizeof word, "%.*s", line->group ? 30 : (int)strcspn(name, " "), line->group ? space + 1 : name);
    if (strcmp(word, before) != 0) offer(line, word); /* those of a group stand together */
    memcpy(before, word, sizeof before);
  }
}

static void positional_offer(const struct line *line) {
  size_t position = 0;
  for (const struct tarn_argument *argument = line->found->arguments; argument->name; argument++) {
    if (argument->kind > ARGUMENT_REST) continue;
    bool here =
        position == line->positional_count || (argument->kind == ARGUMENT_REST && position < line->positional_count);
    if (here) argument_offer(line, argument);
    position++;
  }
}

/* "--option=val": val is to be completed. */
static void last_split(struct line *line) {
  const char *equals = strncmp(line->last, "--", 2) == 0 ? strchr(line->last, '=') : NULL;
  if (!equals || (size_t)(equals - line->last) + 2 > sizeof line->prefix) return;
  snprintf(line->prefix, sizeof line->prefix, "%.*s", (int)(equals - line->last), line->last);
  option_read(line, line->prefix);
  if (!line->value_of && !line->free_value) line->lost = true;
  strcat(line->prefix, "=");
  line->last = equals + 1;
}

int complete_run(struct tarn *tarn, int argc, char **argv) {
  struct line line = {.tarn = tarn, .last = argc > 0 ? argv[argc - 1] : ""};
  tarn->quiet = true;
  for (int i = 0; i + 1 < argc; i++) {
    bool value = line.value_of || line.free_value;
    if (value) {
      value_read(&line, argv[i - 1], argv[i]);
      line.value_of = NULL;
      line.free_value = false;
    } else word_read(&line, argv[i]);
  }
  if (!line.value_of && !line.free_value) last_split(&line);
  if (line.value_of) argument_offer(&line, line.value_of);
  else if (line.free_value) return EXIT_DONE; /* a path */
  else if (line.last[0] == '-') options_offer(&line);
  else if (line.lost) return EXIT_DONE;
  else if (line.found) positional_offer(&line);
  else commands_offer(&line);
  return EXIT_DONE;
}
