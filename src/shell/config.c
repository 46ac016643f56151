#include "shell/config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shell/trusted.h"
#include "shell/words.h"

#define MEMORY_DEFAULT (64ull << 20)
#define MEMORY_MIN     (4ull << 20)

enum key { KEY_STATE, KEY_NAME, KEY_NBD, KEY_INSECURE, KEY_MEMORY, KEY_FAULTS, KEY_COUNT };
static const struct {
  const char *name;
  bool in_file;
} keys[KEY_COUNT] = {
    [KEY_STATE] = {"state", false},          [KEY_NAME] = {"name", true},     [KEY_NBD] = {"nbd", true},
    [KEY_INSECURE] = {"nbd-insecure", true}, [KEY_MEMORY] = {"memory", true}, [KEY_FAULTS] = {"enable-faults", true}};

const char *config_help(void) {
  return "Usage: tarnd [--state DIR] [--name NODE] [--nbd ADDRESS]... [--nbd-insecure] [--memory SIZE] "
         "[--enable-faults]\n"
         "\n"
         "The Tarn daemon: keeps mirrors of files and block devices, and serves them over NBD.\n"
         "Runs in the foreground, logs to standard error, is ready when it says 'ready'. SIGTERM ends it cleanly.\n"
         "\n"
         "  --state DIR     what it remembers, and its control socket [/var/lib/tarn]\n"
         "  --name NODE     the name of this node [the host name]\n"
         "  --nbd ADDRESS   serve NBD there; may be given again [unix:DIR/nbd.sock]\n"
         "                  unix:PATH, HOST:PORT or [IPv6]:PORT; who may connect, and how often, can stand behind it:\n"
         "                  ,mode=OCTAL ,group=GROUP ,uid=USER+... (unix) ,allow=ADDRESS/BITS+... (TCP)\n"
         "                  ,connections=N ,per-peer=N\n"
         "  --nbd-insecure  HOST may be reached from other machines, though there is no authentication and no TLS\n"
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

static tarn_err switch_set(bool *is_on, enum key key, const char *value, struct why *why) {
  *is_on = strcmp(value, "on") == 0;
  if (*is_on || strcmp(value, "off") == 0) return TARN_OK;
  return because(why, TARN_INVALID, "%s '%.40s' is neither on nor off", keys[key].name, value);
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
    case KEY_INSECURE: return switch_set(&config->insecure, key, value, why);
    case KEY_FAULTS: return switch_set(&config->faults, key, value, why);
    case KEY_COUNT: break;
  }
  return TARN_INVALID;
}

/* ---- the command line ---- */

static const struct option options[] = {
    {"state", required_argument, NULL, KEY_STATE},
    {"name", required_argument, NULL, KEY_NAME},
    {"nbd", required_argument, NULL, KEY_NBD},
    {"nbd-insecure", no_argument, NULL, KEY_INSECURE},
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
    tarn_err err = key_set(config, (enum key)option, optarg ? optarg : "on", &inner);
    if (err != TARN_OK) return because(why, TARN_INVALID, "--%s: %s", keys[option].name, inner.text);
  }
  if (optind < argc) return because(why, TARN_INVALID, "unexpected argument '%s'", argv[optind]);
  config->state_given = given[KEY_STATE], config->name_given = given[KEY_NAME];
  config->nbd_given = given[KEY_NBD], config->memory_given = given[KEY_MEMORY];
  config->insecure_given = given[KEY_INSECURE], config->faults_given = given[KEY_FAULTS];
  return TARN_OK;
}

/* ---- the file ---- */

#define FILE_BYTES_MAX 65536u
#define LINE_BYTES_MAX 1000u

struct parse {
  struct config *config;
  bool given[KEY_COUNT];
};
static const char *key_name(const void *context, size_t index) {
  (void)context;
  return index + 1 < KEY_COUNT ? keys[index + 1].name : NULL; /* state is not for the file */
}

/* What cannot be text, and where: a byte's place from 1 on; 0: all is well. */
static size_t odd_byte(const char *line, size_t bytes, const char **what) {
  const unsigned char *at = (const unsigned char *)line;
  for (size_t i = 0; i < bytes;) {
    size_t more = at[i] < 0x80 ? 0 : at[i] >= 0xc2 && at[i] < 0xe0 ? 1 : at[i] >= 0xe0 && at[i] < 0xf0 ? 2 : 3;
    *what = at[i] < 0x80 ? "a control character" : "not UTF-8";
    if ((at[i] < 0x20 && at[i] != '\t') || at[i] == 0x7f || (at[i] >= 0x80 && at[i] < 0xc2) || at[i] > 0xf4)
      return i + 1;
    for (size_t j = 1; j <= more; j++)
      if (i + j >= bytes || (at[i + j] & 0xc0) != 0x80) return i + 1;
    i += more + 1;
  }
  return 0;
}

static bool is_blank(char byte) { return byte == ' ' || byte == '\t'; }
static char *trimmed(char *text) {
  while (is_blank(*text)) text++;
  size_t bytes = strlen(text);
  while (bytes > 0 && is_blank(text[bytes - 1])) bytes--;
  text[bytes] = 0;
  return text;
}

/* A comment begins with # or ; at the start of a line, or behind a blank. */
static void comment_cut(char *line) {
  for (char *at = line; *at; at++)
    if ((*at == '#' || *at == ';') && (at == line || is_blank(at[-1]))) {
      *at = 0;
      return;
    }
}

static tarn_err pair_set(struct parse *parse, const char *name, const char *value, struct why *why) {
  struct config *config = parse->config;
  char hint[HINT_TEXT];
  if (strcmp(name, keys[KEY_STATE].name) == 0)
    return because(why, TARN_INVALID, "'state' is the folder of this very file: give it as --state DIR");
  enum key key = 0;
  while (key < KEY_COUNT && !(keys[key].in_file && strcmp(keys[key].name, name) == 0)) key++;
  if (key == KEY_COUNT)
    return because(why, TARN_INVALID, "unknown key '%.40s'%s; known are name, nbd, nbd-insecure, memory, enable-faults",
                   name, hint_text(nearest_word(name, key_name, NULL), hint));
  if (!value[0]) return because(why, TARN_INVALID, "'%s' has no value; give it one, or remove the line", name);
  if (parse->given[key] && key != KEY_NBD)
    return because(why, TARN_INVALID, "'%s' is given twice; remove one of the lines", name);
  parse->given[key] = true;
  bool over = (key == KEY_NAME && config->name_given) || (key == KEY_NBD && config->nbd_given) ||
              (key == KEY_MEMORY && config->memory_given) || (key == KEY_FAULTS && config->faults_given) ||
              (key == KEY_INSECURE && config->insecure_given);
  struct config scratch = *config;
  if (over) scratch.nbd_count = 0;
  return key_set(over ? &scratch : config, key, value, why);
}

/* One line without its end. */
static tarn_err line_parse(struct parse *parse, const char *from, size_t bytes, struct why *why) {
  char line[LINE_BYTES_MAX + 1];
  const char *what;
  if (bytes > 0 && from[bytes - 1] == '\r') bytes--;
  if (bytes > LINE_BYTES_MAX)
    return because(why, TARN_INVALID, "this line has %zu bytes, at most %u are allowed", bytes, LINE_BYTES_MAX);
  size_t odd = odd_byte(from, bytes, &what);
  if (odd > 0) return because(why, TARN_INVALID, "byte %zu of this line is %s; save the file as plain text", odd, what);
  memcpy(line, from, bytes);
  line[bytes] = 0;
  comment_cut(line);
  char *name = trimmed(line), *equals = strchr(name, '=');
  if (!name[0]) return TARN_OK;
  if (name[0] == '[')
    return because(why, TARN_INVALID, "sections like %.40s are not known here; remove the line", name);
  if (!equals || equals == name)
    return because(why, TARN_INVALID, "'%.40s' is no KEY = VALUE, as in 'nbd = 127.0.0.1:10809'", name);
  *equals = 0;
  return pair_set(parse, trimmed(name), trimmed(equals + 1), why);
}

static tarn_err bytes_parse(struct config *config, const char *text, size_t bytes, const char *path, struct why *why) {
  static const char mark[] = "\xef\xbb\xbf"; /* some editors put it first */
  struct parse parse = {.config = config};
  const char *at = text, *end = text + bytes;
  if (bytes >= 3 && memcmp(text, mark, 3) == 0) at += 3;
  for (unsigned number = 1; at < end; number++) {
    const char *stop = memchr(at, '\n', (size_t)(end - at));
    struct why inner;
    if (!stop) stop = end;
    if (line_parse(&parse, at, (size_t)(stop - at), &inner) != TARN_OK)
      return because(why, TARN_INVALID, "%s:%u: %s", path, number, inner.text);
    at = stop < end ? stop + 1 : end;
  }
  return TARN_OK;
}

tarn_err config_text(struct config *config, const char *text, const char *path, struct why *why) {
  return bytes_parse(config, text, strlen(text), path, why);
}

tarn_err config_file(struct config *config, const char *path, struct why *why) {
  struct stat status;
  tarn_err err = TARN_INVALID;
  char *text = NULL;
  struct why inner;
  int fd;
  tarn_err found = trusted_open(path, O_RDONLY, TRUSTED_OWN, &fd, &inner);
  if (found == TARN_NOT_FOUND && lstat(path, &status) != 0) return TARN_OK;
  if (found != TARN_OK) {
    because(why, err, "%s; put a file with options there that tarnd can read, or nothing", inner.text);
  } else if (!(text = malloc(FILE_BYTES_MAX + 1))) {
    because(why, err, "there is not enough memory for reading %s", path);
  } else {
    size_t used = 0;
    ssize_t bytes = 0;
    while (used <= FILE_BYTES_MAX && (bytes = read(fd, text + used, FILE_BYTES_MAX + 1 - used)) > 0)
      used += (size_t)bytes;
    if (bytes < 0) because(why, err, "%s cannot be read: %s", path, strerror(errno));
    else if (used > FILE_BYTES_MAX)
      because(why, err, "%s is longer than %u bytes; that is no file with options", path, FILE_BYTES_MAX);
    else err = bytes_parse(config, text, used, path, why);
  }
  free(text);
  if (fd >= 0) close(fd);
  return err;
}

tarn_err config_sockets(struct config *config, const struct address *passed, uint32_t count, struct why *why) {
  if (config->nbd_count + count > CONFIG_NBD_MAX)
    return because(why, TARN_INVALID, "%u NBD addresses and %u sockets that were passed on are more than %u",
                   config->nbd_count, count, CONFIG_NBD_MAX);
  for (uint32_t i = 0; i < count; i++) config->nbd[config->nbd_count++] = passed[i];
  return TARN_OK;
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
  for (uint32_t i = 0; i < config->nbd_count; i++) config->nbd[i].exposed = config->insecure;
  if (config->nbd_count > 0) return TARN_OK;
  snprintf(text, sizeof text, "unix:%s/nbd.sock", config->state);
  return nbd_add(config, text, why);
}
