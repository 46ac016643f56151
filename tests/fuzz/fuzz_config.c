/* Property: a tarnd.conf, and a command line, of whatever bytes is taken, or refused by one line that names the line or the option.
 * What is taken is within bounds, and written down again it is taken as the same; the command line wins over the file.
 *
 * Text before a line "--" is the file; each line after it is a word of the command line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "shell/config.h"

#define TEXT_MAX  4096u
#define WORDS_MAX 40

static void check_why(const struct why *why) {
  require(why->text[0] != 0);
  require(memchr(why->text, 0, sizeof why->text) != NULL);
}

static void check(const struct config *config) {
  require(config->nbd_count <= CONFIG_NBD_MAX);
  require(memchr(config->state, 0, sizeof config->state) != NULL && config->state[0]);
  require(!config->name[0] || record_name_is_valid(config->name, strlen(config->name)));
  require(config->memory_bytes >= 4ull << 20 && config->memory_bytes <= 1ull << 40);
  for (uint32_t i = 0; i < config->nbd_count; i++) {
    struct address again;
    struct why why = {""};
    require(address_parse(config->nbd[i].text, &again, &why) == TARN_OK);
    require(strcmp(again.path, config->nbd[i].path) == 0 && strcmp(again.host, config->nbd[i].host) == 0);
    require(strcmp(again.port, config->nbd[i].port) == 0 && again.is_unix == config->nbd[i].is_unix);
  }
}

/* As a file that says the same. */
static void write_down(const struct config *config, char *out) {
  out += sprintf(out, "memory = %llu\nenable-faults = %s\n", (unsigned long long)config->memory_bytes,
                 config->faults ? "on" : "off");
  if (config->name[0]) out += sprintf(out, "name = %s\n", config->name);
  for (uint32_t i = 0; i < config->nbd_count; i++) out += sprintf(out, "nbd = %s\n", config->nbd[i].text);
}

/* The file trims white space, knows comments, and takes UTF-8 only: an address with such bytes cannot be written. */
static bool can_be_written(const struct config *config) {
  for (uint32_t i = 0; i < config->nbd_count; i++)
    for (const char *at = config->nbd[i].text; *at; at++)
      if (*at <= ' ' || *at >= 0x7f || strchr(";#\"'", *at)) return false;
  return true;
}

static void check_again(const struct config *config) {
  static struct config again;
  static char text[CONFIG_NBD_MAX * 400 + 400];
  struct why why = {""};
  if (!can_be_written(config)) return;
  write_down(config, text);
  config_init(&again);
  require(config_text(&again, text, "conf", &why) == TARN_OK);
  require(strcmp(again.name, config->name) == 0 && again.memory_bytes == config->memory_bytes);
  require(again.faults == config->faults && again.nbd_count == config->nbd_count);
  for (uint32_t i = 0; i < again.nbd_count; i++) require(strcmp(again.nbd[i].text, config->nbd[i].text) == 0);
}

static int words_of(char *text, char **argv) {
  int argc = 0;
  argv[argc++] = (char *)"tarnd";
  for (char *next; text && argc < WORDS_MAX; text = next) {
    next = strchr(text, '\n');
    if (next) *next++ = 0;
    argv[argc++] = text;
  }
  argv[argc] = NULL;
  return argc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  static struct config config;
  static char text[TEXT_MAX + 1];
  struct why why = {""};
  if (bytes > TEXT_MAX) return -1;
  if (bytes > 0) memcpy(text, data, bytes);
  text[bytes] = 0;
  char *line = strstr(text, "--\n"), *argv[WORDS_MAX + 1];
  config_init(&config);
  if (line) {
    *line = 0;
    int argc = words_of(line + 3, argv);
    if (config_arguments(&config, argc, argv, &why) != TARN_OK) {
      check_why(&why);
      config_init(&config);
    }
  }
  check(&config);
  struct config before = config;
  if (config_text(&config, text, "conf", &why) != TARN_OK) {
    check_why(&why);
    require(strncmp(why.text, "conf:", 5) == 0 && atoi(why.text + 5) >= 1);
    return 0;
  }
  check(&config);
  require(!before.name_given || strcmp(before.name, config.name) == 0);
  require(!before.memory_given || before.memory_bytes == config.memory_bytes);
  require(!before.nbd_given || before.nbd_count == config.nbd_count);
  require(!before.faults_given || before.faults == config.faults);
  check_again(&config);
  return 0;
}
