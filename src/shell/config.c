#include "shell/config.h"

#include <errno.h>
#include <getopt.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shell/words.h"

#define MEMORY_DEFAULT (64ull << 20)
#define MEMORY_MIN     (4ull << 20)

enum key { KEY_STATE, KEY_NAME, KEY_NBD, KEY_MEMORY, KEY_FAULTS, KEY_COUNT };
static const struct {
  const char *name;
  bool in_file;
} keys[KEY_COUNT] = {[KEY_STATE] = {"state", false},
                     [KEY_NAME] = {"name", true},
                     [KEY_NBD] = {"nbd", true},
                     [KEY_MEMORY] = {"memory", true},
                     [KEY_FAULTS] = {"enable-faults", true}};

const char *config_help(void) {
  return "Usage: tarnd [--state DIR] [--name NODE] [--nbd ADDRESS]... [--memory SIZE] [--enable-faults]\n"
         "\n"
         "The Tarn daemon: keeps mirrors of files and block devices, and serves them over NBD.\n"
         "Runs in the foreground, logs to standard error, is ready when it says 'ready'. SIGTERM ends it cleanly.\n"
         "\n"
         "  --state DIR     what it remembers, and its control socket [/var/lib/tarn]\n"
         "  --name NODE     the name of this node [the host name]\n"
         "  --nbd ADDRESS   serve NBD there; may be given again [unix:DIR/nbd.sock]\n"
         "                  unix:PATH, HOST:PORT or [IPv6]:PORT\n"
         "  --memory SIZE   buffers for data on its way [64M]\n"
         "  --enable-faults lets 'tarn fault' make disks fail: for tests, never where data matters\n"
         "  --help, --version\n"
         "\n"
         "All but --state may stand in DIR/tarnd.conf, as in 'nbd = 127.0.0.1:10809'; the command "
         "line wins.\n"
         "See tarnd(8), tarn(1).\n";
}

void config_init(struct config *config) {
  *config = (struct config){.memory_bytes = MEMORY_DEFAULT};
  strcpy(config->state, "/var/lib/tarn");
}

static tarn_err nbd_add(struct config *config, const char *value, struct why *why) {
  if (config->nbd_count == CONFIG_NBD_MAX)
    return because(why, TARN_INVALID, "at most %u NBD addresses", CONFIG_NBD_MAX);
  tarn_err err = address_parse(value, &config->nbd[config->nbd_count], why);
  if (err == TARN_OK) config->nbd_count++;
  return err;
}

static tarn_err key_set(struct config *config, enum key key, const char *value, struct why *why) {
  tarn_err err;
  switch (key) {
    case KEY_STATE:
      if (strlen(value) == 0 || strlen(value) >= CONFIG_STATE_MAX)
        return because(why, TARN_INVALID, "the state directory's path is empty or too long");
      strcpy(config->state, value);
      return TARN_OK;
    case KEY_NAME:
      err = name_check("node", value, why);
      if (err == TARN_OK) strcpy(config->name, value);
      return err;
    case KEY_NBD: return nbd_add(config, value, why);
    case KEY_MEMORY:
      err = size_parse(value, &config->memory_bytes, why);
      if (err == TARN_OK && (config->memory_bytes < MEMORY_MIN || config->memory_bytes > 1ull << 40))
        err = because(why, TARN_INVALID, "memory '%s' is out of range: 4M to 1T", value);
      return err;
    case KEY_FAULTS:
      config->faults = strcmp(value, "on") == 0;
      if (config->faults || strcmp(value, "off") == 0) return TARN_OK;
      return because(why, TARN_INVALID, "enable-faults '%.40s' is neither on nor off", value);
    case KEY_COUNT: break;
  }
  return TARN_INVALID;
}

/* ---- the command line ---- */

static const struct option options[] = {
    {"state", required_argument, NULL, KEY_STATE},
    {"name", required_argument, NULL, KEY_NAME},
    {"nbd", required_argument, NULL, KEY_NBD},
    {"memory", required_argument, NULL, KEY_MEMORY},
    {"enable-faults", no_argument, NULL, KEY_FAULTS},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};
static const char *option_name(const void *context, size_t index) {
  (void)context;
  return options[index].name;
}

static tarn_err option_unknown(const char *typed, struct why *why) {
  char word[64], hint[HINT_TEXT] = "";
  snprintf(word, sizeof word, "%.*s", (int)strcspn(typed, "="), typed);
  const char *near = nearest_word(word + strspn(word, "-"), option_name, NULL);
  if (near) snprintf(hint, sizeof hint, " (did you mean '--%s'?)", near);
  return because(why, TARN_INVALID, "unknown option '%s'%s; 'tarnd --help' lists them", word, hint);
}

tarn_err config_arguments(struct config *config, int argc, char **argv, struct why *why) {
  bool given[KEY_COUNT] = {false};
  opterr = 0;
  optind = 0;
  for (int option, index = -1; (option = getopt_long(argc, argv, ":h", options, &index)) != -1; index = -1) {
    const char *word = option_word(argv, optind, optarg, option == '?' ? optopt : 0);
    if (option == '?' || (index >= 0 && !option_is_whole(word, options[index].name))) return option_unknown(word, why);
    if (option == 'h') config->help = true;
    if (option == 'V') config->version = true;
    if (option == 'h' || option == 'V') continue;
    if (option == ':') return because(why, TARN_INVALID, "the option %s needs a value", argv[optind - 1]);
    if (given[option] && option != KEY_NBD) return because(why, TARN_INVALID, "--%s is given twice", keys[option].name);
    struct why inner;
    given[option] = true;
    tarn_err err = key_set(config, (enum key)option, option == KEY_FAULTS ? "on" : optarg, &inner);
    if (err != TARN_OK) return because(why, TARN_INVALID, "--%s: %s", keys[option].name, inner.text);
  }
  if (optind < argc) return because(why, TARN_INVALID, "unexpected argument '%s'", argv[optind]);
  config->state_given = given[KEY_STATE], config->name_given = given[KEY_NAME];
  config->nbd_given = given[KEY_NBD], config->memory_given = given[KEY_MEMORY];
  config->faults_given = given[KEY_FAULTS];
  return TARN_OK;
}

/* ---- the file ---- */

struct parse {
  struct config *config;
  struct why why;
  bool failed;
  bool given[KEY_COUNT];
};
static const char *key_name(const void *context, size_t index) {
  (void)context;
  return index + 1 < KEY_COUNT ? keys[index + 1].name : NULL; /* state is not for the file */
}

/* inih calls this for each line, and stops counting at the first that answers 0. */
static int line_set(void *context, const char *section, const char *name, const char *value) {
  struct parse *parse = context;
  struct config *config = parse->config;
  char hint[HINT_TEXT];
  if (parse->failed) return 0;
  parse->failed = true;
  if (section[0]) return because(&parse->why, TARN_INVALID, "sections like [%.40s] are not known here", section), 0;
  enum key key = 0;
  while (key < KEY_COUNT && !(keys[key].in_file && strcmp(keys[key].name, name) == 0)) key++;
  if (key == KEY_COUNT)
    return because(&parse->why, TARN_INVALID, "unknown key '%.40s'%s", name,
                   hint_text(nearest_word(name, key_name, NULL), hint)),
           0;
  if (parse->given[key] && key != KEY_NBD) return because(&parse->why, TARN_INVALID, "'%s' is given twice", name), 0;
  parse->given[key] = true;
  bool over = (key == KEY_NAME && config->name_given) || (key == KEY_NBD && config->nbd_given) ||
              (key == KEY_MEMORY && config->memory_given) || (key == KEY_FAULTS && config->faults_given);
  struct config scratch = *config;
  if (over) scratch.nbd_count = 0;
  parse->failed = key_set(over ? &scratch : config, key, value, &parse->why) != TARN_OK;
  return !parse->failed;
}

static tarn_err parse_result(int line, const struct parse *parse, const char *path, struct why *why) {
  if (line == 0) return TARN_OK;
  if (line < 0) return because(why, TARN_INVALID, "%s cannot be read: %s", path, strerror(errno));
  return because(why, TARN_INVALID, "%s:%d: %s", path, line,
                 parse->failed ? parse->why.text : "this is no KEY = VALUE");
}

tarn_err config_file(struct config *config, const char *path, struct why *why) {
  if (access(path, F_OK) != 0 && errno == ENOENT) return TARN_OK;
  struct parse parse = {.config = config};
  return parse_result(ini_parse(path, line_set, &parse), &parse, path, why);
}

tarn_err config_text(struct config *config, const char *text, const char *path, struct why *why) {
  struct parse parse = {.config = config};
  return parse_result(ini_parse_string(text, line_set, &parse), &parse, path, why);
}

tarn_err config_complete(struct config *config, struct why *why) {
  char text[CONFIG_STATE_MAX + 32];
  if (!config->name[0]) {
    gethostname(text, sizeof text - 1);
    text[strcspn(text, ".")] = 0; /* n1.example.org is node n1 */
    if (name_check("node", text, NULL) != TARN_OK)
      return because(why, TARN_INVALID, "the host name '%.80s' is no node name; give --name", text);
    strcpy(config->name, text);
  }
  if (config->nbd_count > 0) return TARN_OK;
  snprintf(text, sizeof text, "unix:%s/nbd.sock", config->state);
  return nbd_add(config, text, why);
}
