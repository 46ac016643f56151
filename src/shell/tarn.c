/* tarn - the command line's main: finds the command, parses its arguments by its row of the table, runs it. */
#include "shell/tarn.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "shell/standard.h"
#include "shell/words.h"

/* ---- help ---- */

static void print_global_help(void) {
  printf(
      "Usage: tarn [--state DIR | --control PATH] [--json] COMMAND ...\n\n"
      "Talks to tarnd, which keeps mirrors of files and block devices and serves them over NBD.\n\n");
  for (size_t i = 0; i < tarn_command_count; i++)
    printf("  %-20s %s\n", tarn_commands[i].name, tarn_commands[i].summary);
  printf(
      "\n  --state DIR          the daemon's state directory [$TARN_STATE, or /var/lib/tarn]\n"
      "  --control PATH       its control socket [DIR/control.sock]\n"
      "  --json               one JSON document on standard output\n"
      "  --help               this, or with a command: about that command\n"
      "  --version\n\n"
      "First steps:\n"
      "  tarnd --state ./state &\n"
      "  tarn --state ./state mirror create vol0 --size 1G --image ./a.img --image ./b.img --activate\n"
      "  tarn --state ./state status\n"
      "  nbdinfo 'nbd+unix:///vol0?socket=./state/nbd.sock'\n\n"
      "Something is wrong? 'tarn status' says what, what is at risk, and what to do. 'tarn COMMAND --help' explains a\n"
      "command with an example; tarn(1) has it all.\n"
      "Exit status: 0 done, 1 refused or failed, 2 bad usage.\n");
}

static const char *argument_usage(const struct tarn_argument *argument, char out[80]) {
  bool repeats = argument->kind == ARGUMENT_REST || argument->kind == ARGUMENT_LIST;
  snprintf(out, 80, "%s%s%s%s%s%s", argument->required ? "" : "[", argument->name, argument->value ? " " : "",
           argument->value ? argument->value : "", argument->required ? "" : "]", repeats ? "..." : "");
  return out;
}

static void print_settings(const struct settings_table *settings) {
  struct table table = {.column_count = 4};
  char first[SETTING_TEXT], range[SETTING_RANGE_TEXT];
  for (const struct setting *row = settings->rows; row < settings->rows + settings->count; row++)
    table_add(&table, row->name, setting_range_text(row, range), setting_text(row, row->value, first), row->help);
  printf("\nSettings (allowed, default):\n");
  table_print(&table, 2, stdout);
  table_free(&table);
}

static void print_command_help(const struct tarn_command *command) {
  char usage[80];
  printf("Usage: tarn %s", command->name);
  for (const struct tarn_argument *argument = command->arguments; argument->name; argument++)
    printf(" %s", argument_usage(argument, usage));
  printf("\n\n%c%s.\n\n", command->summary[0] - 'a' + 'A', command->summary + 1);
  for (const struct tarn_argument *argument = command->arguments; argument->name; argument++) {
    snprintf(usage, sizeof usage, "%s%s%s", argument->name, argument->value ? " " : "",
             argument->value ? argument->value : "");
    printf("  %-20s %s\n", usage, argument->help);
  }
  printf("  %-20s %s\n", "--json", "one JSON document on standard output");
  if (command->help) printf("\n%s", command->help);
  if (command->settings) print_settings(command->settings);
}

static void print_group_help(const char *group) {
  size_t bytes = strlen(group);
  printf("Usage: tarn %s COMMAND ...\n\n", group);
  for (size_t i = 0; i < tarn_command_count; i++)
    if (strncmp(tarn_commands[i].name, group, bytes) == 0 && tarn_commands[i].name[bytes] == ' ')
      printf("  %-20s %s\n", tarn_commands[i].name, tarn_commands[i].summary);
  printf("\n'tarn %s COMMAND --help' tells more.\n", group);
}

/* ---- which command ---- */

static bool is_group(const char *word) {
  size_t bytes = strlen(word);
  for (size_t i = 0; i < tarn_command_count; i++)
    if (strncmp(tarn_commands[i].name, word, bytes) == 0 && tarn_commands[i].name[bytes] == ' ') return true;
  return false;
}

static const char *command_name(const void *context, size_t index) {
  (void)context;
  return index < tarn_command_count ? tarn_commands[index].name : NULL;
}

/* The words that commands begin with. */
struct first_words {
  char text[16][32];
  size_t count;
};
static const char *first_word(const void *context, size_t index) {
  const struct first_words *words = context;
  return index < words->count ? words->text[index] : NULL;
}
static void first_words_collect(struct first_words *words) {
  words->count = 0;
  for (size_t i = 0; i < tarn_command_count; i++) {
    char *word = words->text[words->count];
    snprintf(word, sizeof words->text[0], "%.*s", (int)strcspn(tarn_commands[i].name, " "), tarn_commands[i].name);
    if (words->count == 0 || strcmp(words->text[words->count - 1], word) != 0) words->count++;
    require(words->count < COUNT_OF(words->text));
  }
}

/* Unknown: names what may have been meant, by both words, by a second word that lacks its first, or by the first. */
static int command_unknown(const struct tarn *tarn, const char *first, const char *second) {
  static struct first_words words;
  char typed[64], hint[HINT_TEXT];
  first_words_collect(&words);
  const char *near = NULL;
  for (size_t i = 0; i < tarn_command_count && !near; i++) {
    const char *space = strchr(tarn_commands[i].name, ' ');
    if (space && strcmp(space + 1, first) == 0) near = tarn_commands[i].name;
  }
  snprintf(typed, sizeof typed, "%.30s%s%.30s", first, second ? " " : "", second ? second : "");
  if (!near) near = is_group(first) ? nearest_word(typed, command_name, NULL) : nearest_word(first, first_word, &words);
  return tarn_fail(tarn, EXIT_USAGE, "unknown command '%s'%s; 'tarn --help' lists them",
                   is_group(first) ? typed : first, hint_text(near, hint));
}

/* The command that argv begins with, and how many words it took. NULL: told. */
static const struct tarn_command *command_find(const struct tarn *tarn, int argc, char **argv, int *words,
                                               int *status) {
  for (size_t i = 0; i < tarn_command_count; i++) {
    const char *name = tarn_commands[i].name, *space = strchr(name, ' ');
    size_t first_bytes = space ? (size_t)(space - name) : strlen(name);
    if (strlen(argv[0]) != first_bytes || strncmp(argv[0], name, first_bytes) != 0) continue;
    if (space && (argc < 2 || strcmp(argv[1], space + 1) != 0)) continue;
    *words = space ? 2 : 1;
    return &tarn_commands[i];
  }
  bool bare = is_group(argv[0]) && (argc < 2 || argv[1][0] == '-');
  if (bare && (tarn->help || (argc > 1 && strcmp(argv[1], "--help") == 0))) {
    print_group_help(argv[0]);
    *status = EXIT_DONE;
  } else if (bare)
    *status = tarn_fail(tarn, EXIT_USAGE, "'%s' needs a command; 'tarn %s --help' lists them", argv[0], argv[0]);
  else *status = command_unknown(tarn, argv[0], argc > 1 ? argv[1] : NULL);
  return NULL;
}

/* ---- arguments ---- */

tarn_err tarn_control_path(struct tarn *tarn, const char *folder, const char *file, struct why *why) {
  if (!folder[0]) return because(why, TARN_INVALID, "the path that was given is empty");
  int bytes = snprintf(tarn->control, sizeof tarn->control, "%s%s", folder, file);
  return bytes < (int)sizeof tarn->control ? TARN_OK
                                           : because(why, TARN_INVALID, "the path '%.80s...' is too long", folder);
}

/* Handles an option that is known everywhere; false if it is none. */
static bool global_option(struct tarn *tarn, int option, tarn_err *err, struct why *why) {
  *err = TARN_OK;
  switch (option) {
    case GLOBAL_STATE: *err = tarn_control_path(tarn, optarg, "/control.sock", why); return true;
    case GLOBAL_CONTROL: *err = tarn_control_path(tarn, optarg, "", why); return true;
    case GLOBAL_JSON: tarn->json = true; return true;
    case GLOBAL_HELP: tarn->help = true; return true;
    case GLOBAL_VERSION: printf("tarn %s\n", TARN_BUILD_VERSION); exit(EXIT_DONE);
    default: return false;
  }
}

static const char *option_name(const void *context, size_t index) {
  return ((const struct option *)context)[index].name;
}

static int option_unknown(const struct tarn *tarn, const struct option *options, int option, const char *typed,
                          const char *help) {
  char word[64], hint[HINT_TEXT] = "";
  if (option == ':') return tarn_fail(tarn, EXIT_USAGE, "the option %s needs a value", typed);
  snprintf(word, sizeof word, "%.*s", (int)strcspn(typed, "="), typed);
  if (word[1] != '-')
    return tarn_fail(tarn, EXIT_USAGE,
                     "unknown option '%s': options are words, like --json, and a name starts with a letter or digit; "
                     "'tarn %s--help' lists them",
                     word, help);
  const char *near = nearest_word(word + strspn(word, "-"), option_name, options);
  for (const struct option *known = options; known->name; known++) /* "--activate=yes" */
    if (strcmp(known->name, word + strspn(word, "-")) == 0)
      return tarn_fail(tarn, EXIT_USAGE, "the option %s takes no value", word);
  if (near) snprintf(hint, sizeof hint, " (did you mean '--%s'?)", near);
  return tarn_fail(tarn, EXIT_USAGE, "unknown option '%s'%s; 'tarn %s--help' lists them", word, hint, help);
}

/* Puts one checked text into the request. */
static tarn_err argument_put(json_t *request, const struct tarn_argument *argument, const char *typed,
                             struct why *why) {
  char *text = strdup(typed);
  require(text != NULL);
  struct why inner;
  tarn_err err = argument->check ? argument->check(&text, &inner) : TARN_OK;
  if (err != TARN_OK) {
    because(why, err, "%s%s%s", argument->kind >= ARGUMENT_VALUE ? argument->name : "",
            argument->kind >= ARGUMENT_VALUE ? ": " : "", inner.text);
  } else if (argument->kind == ARGUMENT_LIST || argument->kind == ARGUMENT_REST) {
    if (!json_object_get(request, argument->key)) json_object_set_new(request, argument->key, json_array());
    json_array_append_new(json_object_get(request, argument->key), json_string_nocheck(text));
  } else if (json_object_get(request, argument->key)) {
    err = because(why, TARN_INVALID, "%s is given twice", argument->name);
  } else json_object_set_new(request, argument->key, json_string_nocheck(text));
  free(text);
  return err;
}

static int usage_fail(const struct tarn *tarn, const struct tarn_command *command, const char *text) {
  return tarn_fail(tarn, EXIT_USAGE, "%s ('tarn %s --help' shows the usage)", text, command->name);
}

/* A list of paths may be followed by a name, as in "mirror import PATH... [NAME]": a path has a slash. */
static bool is_last_name(const struct tarn_argument *argument, const char *word, int left) {
  return argument->kind == ARGUMENT_POSITIONAL && left == 1 && !strchr(word, '/');
}

static int positionals_put(const struct tarn *tarn, const struct tarn_command *command, json_t *request, int argc,
                           char **argv) {
  struct why why;
  char text[200];
  int next = 0;
  for (const struct tarn_argument *argument = command->arguments; argument->name; argument++) {
    bool rest = argument->kind == ARGUMENT_REST;
    if (argument->kind > ARGUMENT_REST) continue;
    do {
      if (next == argc && !argument->required) break;
      if (next == argc) {
        snprintf(text, sizeof text, "%s is missing", argument->name);
        return usage_fail(tarn, command, text);
      }
      if (argument_put(request, argument, argv[next++], &why) != TARN_OK)
        return tarn_fail(tarn, EXIT_USAGE, "%s", why.text);
    } while (rest && next < argc && !(argument[1].name && is_last_name(argument + 1, argv[next], argc - next)));
  }
  if (next < argc) {
    snprintf(text, sizeof text, "unexpected argument '%.100s'", argv[next]);
    return usage_fail(tarn, command, text);
  }
  for (const struct tarn_argument *argument = command->arguments; argument->name; argument++)
    if (argument->required && argument->kind >= ARGUMENT_FLAG && !json_object_get(request, argument->key)) {
      snprintf(text, sizeof text, "%s %s is missing", argument->name, argument->value);
      return usage_fail(tarn, command, text);
    }
  return EXIT_DONE;
}

/* argv behind the command's words, into `request`. */
static int arguments_parse(struct tarn *tarn, const struct tarn_command *command, json_t *request, int argc,
                           char **argv) {
  struct option options[ARGUMENTS_MAX + GLOBAL_COUNT + 1] = {GLOBAL_OPTIONS};
  const struct tarn_argument *by_option[ARGUMENTS_MAX];
  struct why why;
  tarn_err err = TARN_OK;
  int count = 0;
  char help[64];
  for (const struct tarn_argument *argument = command->arguments; argument->name; argument++) {
    if (argument->kind < ARGUMENT_FLAG) continue;
    by_option[count] = argument;
    options[GLOBAL_COUNT + count] = (struct option){
        argument->name + 2, argument->kind == ARGUMENT_FLAG ? no_argument : required_argument, NULL, count};
    count++;
  }
  snprintf(help, sizeof help, "%s ", command->name);
  optind = 0; /* anew: argv[0] stands for the command */
  for (int option, index = -1; (option = getopt_long(argc, argv, ":", options, &index)) != -1; index = -1) {
    const char *word = option_word(argv, optind, optarg, option == '?' ? optopt : 0);
    if (index >= 0 && !option_is_whole(word, options[index].name)) option = '?';
    if (option == '?' || option == ':') return option_unknown(tarn, options, option, word, help);
    if (!global_option(tarn, option, &err, &why)) {
      const struct tarn_argument *argument = by_option[option];
      if (argument->kind != ARGUMENT_FLAG) err = argument_put(request, argument, optarg, &why);
      else if (argument->key) json_object_set_new(request, argument->key, json_true());
      else if (strcmp(argument->name, "--watch") == 0) tarn->watch = true;
      else tarn->wait = true; /* these two are the client's alone */
    }
    if (err != TARN_OK) return tarn_fail(tarn, EXIT_USAGE, "%s", why.text);
  }
  return tarn->help ? EXIT_DONE : positionals_put(tarn, command, request, argc - optind, argv + optind);
}

static int command_run(struct tarn *tarn, const struct tarn_command *command, json_t *request) {
  json_t *result;
  if (command->run) return command->run(tarn, request);
  int status = tarn_ask(tarn, json_incref(request), &result);
  if (status == EXIT_DONE && tarn->json) tarn_print_json(result, false);
  if (status == EXIT_DONE && !tarn->json) command->show(result, request);
  json_decref(result);
  json_decref(request);
  return status;
}

static int run(int argc, char **argv) {
  static const struct option globals[] = {GLOBAL_OPTIONS, {NULL, 0, NULL, 0}};
  struct tarn tarn = {.json = false};
  struct why why;
  const char *state = getenv("TARN_STATE");
  tarn_err err = tarn_control_path(&tarn, state && state[0] ? state : "/var/lib/tarn", "/control.sock", &why);
  if (argc > 1 && strcmp(argv[1], "--complete") == 0) return complete_run(&tarn, argc - 2, argv + 2);
  opterr = 0;
  for (int option, index = -1; err == TARN_OK && (option = getopt_long(argc, argv, "+:h", globals, &index)) != -1;
       index = -1) {
    const char *word = option_word(argv, optind, optarg, option == '?' ? optopt : 0);
    if (index >= 0 && !option_is_whole(word, globals[index].name)) option = '?';
    if (option == '?' || option == ':') return option_unknown(&tarn, globals, option, word, "");
    if (option == 'h') tarn.help = true;
    else global_option(&tarn, option, &err, &why);
  }
  if (err != TARN_OK) return tarn_fail(&tarn, EXIT_USAGE, "%s", why.text);
  if (optind == argc && tarn.help) return print_global_help(), EXIT_DONE;
  if (optind == argc) return tarn_fail(&tarn, EXIT_USAGE, "no command; 'tarn --help' lists them");
  argc -= optind, argv += optind;
  if (strcmp(argv[0], "help") == 0 && argc == 1) return print_global_help(), EXIT_DONE;
  if (strcmp(argv[0], "help") == 0) tarn.help = true, argc--, argv++;
  for (int i = 1; i < argc && !tarn.json; i++)
    tarn.json = strcmp(argv[i], "--json") == 0; /* also for what fails before it is parsed */
  int words, status = EXIT_USAGE;
  const struct tarn_command *command = command_find(&tarn, argc, argv, &words, &status);
  if (!command) return status;
  json_t *request = json_pack("{s:s}", "command", command->name);
  status = arguments_parse(&tarn, command, request, argc - words + 1, argv + words - 1);
  if (status == EXIT_DONE && !tarn.help) return command_run(&tarn, command, request);
  json_decref(request);
  if (status == EXIT_DONE) print_command_help(command);
  return status;
}

int main(int argc, char **argv) {
  standard_files_open();
  int status = run(argc, argv);
  bool written = fflush(stdout) == 0 && !ferror(stdout);
  if (written || status != EXIT_DONE) return status;
  fprintf(stderr, "tarn: it is done, but the answer cannot be written: %s\n", strerror(errno));
  return EXIT_REFUSED;
}
