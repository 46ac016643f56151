/* src/shell/config.h: tarnd's command line and tarnd.conf. */
#include "shell/config.h"
#include "unit.h"

static tarn_err parse(struct config *config, const char *line, struct why *why) {
  static char words[512], *argv[16];
  int argc = 0;
  snprintf(words, sizeof words, "tarnd %s", line);
  for (char *at = strtok(words, " "); at; at = strtok(NULL, " ")) argv[argc++] = at;
  argv[argc] = NULL;
  config_init(config);
  return config_arguments(config, argc, argv, why);
}

static void command_line(void **state) {
  (void)state;
  static const struct {
    const char *why, *line, *says; /* says NULL: good */
  } rows[] = {
      {"nothing", "", NULL},
      {"everything", "--state /s --name n1 --nbd unix:/x --nbd 127.0.0.1:1 --memory 8M", NULL},
      {"with equals signs", "--state=/s --name=n1", NULL},
      {"help", "--help", NULL},
      {"unknown option, with the nearest", "--stat /x", "--state"},
      {"an option of later", "--http :80", "--http"},
      {"a switch", "--enable-faults", NULL},
      {"a switch with a value", "--enable-faults=on", "--enable-faults"},
      {"no value", "--name", "--name"},
      {"twice", "--name a --name b", "twice"},
      {"odd name", "--name a.b", "a.b"},
      {"bad address", "--nbd somewhere", "somewhere"},
      {"memory without a size", "--memory lots", "lots"},
      {"memory too small", "--memory 1M", "4M"},
      {"a word too many", "start", "start"},
  };
  static struct config config;
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct why why = {""};
    row_true(rows[i].why, (parse(&config, rows[i].line, &why) == TARN_OK) == (rows[i].says == NULL));
    if (rows[i].says && !strstr(why.text, rows[i].says)) fail_msg("row \"%s\": %s", rows[i].why, why.text);
  }
}

static void file(void **state) {
  (void)state;
  static const struct {
    const char *why, *text, *says;
  } rows[] = {
      {"empty", "", NULL},
      {"comments", "# one\n; two\n\nname = n1 ; three\n", NULL},
      {"a switch", "enable-faults = on\n", NULL},
      {"a switch that is neither", "enable-faults = yes\n", "conf:1: enable-faults 'yes' is neither on nor off"},
      {"two addresses", "nbd = unix:/x\nnbd = unix:/y\n", NULL},
      {"unknown key, with the nearest", "\nnmae = x\n", "conf:2: unknown key 'nmae' (did you mean 'name'?)"},
      {"bad value", "name = a b\n", "conf:1: the node name 'a b'"},
      {"no key", "name = x\nwhat is this\n", "conf:2:"},
      {"a section", "[nbd]\nx = y\n", "section"},
      {"twice", "name = a\nname = b\n", "conf:2: 'name' is given twice"},
      {"the place of the file itself", "state = /x\n", "unknown key 'state'"},
  };
  static struct config config;
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct why why = {""};
    config_init(&config);
    row_true(rows[i].why, (config_text(&config, rows[i].text, "conf", &why) == TARN_OK) == (rows[i].says == NULL));
    if (rows[i].says && !strstr(why.text, rows[i].says)) fail_msg("row \"%s\": %s", rows[i].why, why.text);
  }
}

static void precedence(void **state) {
  (void)state;
  static struct config config;
  assert_int_equal(parse(&config, "--state /s --name line --nbd unix:/line", NULL), TARN_OK);
  assert_int_equal(config_text(&config, "name = file\nnbd = unix:/f1\nnbd = unix:/f2\nmemory = 8M\n", "conf", NULL),
                   TARN_OK);
  assert_int_equal(config_complete(&config, NULL), TARN_OK);
  assert_string_equal(config.name, "line");
  assert_int_equal(config.nbd_count, 1);
  assert_string_equal(config.nbd[0].path, "/line");
  assert_int_equal(config.memory_bytes, 8 << 20);
  struct why why = {""};
  assert_int_equal(config_text(&config, "name = a b\n", "conf", &why), TARN_INVALID); /* wrong, though the line wins */
  assert_int_equal(parse(&config, "--state /s --name n", NULL), TARN_OK);
  assert_int_equal(config_complete(&config, NULL), TARN_OK);
  assert_string_equal(config.nbd[0].path, "/s/nbd.sock");
  assert_false(config.faults);
  assert_int_equal(config_text(&config, "enable-faults = on\n", "conf", NULL), TARN_OK);
  assert_true(config.faults);
  assert_int_equal(parse(&config, "--enable-faults", NULL), TARN_OK);
  assert_int_equal(config_text(&config, "enable-faults = off\n", "conf", NULL), TARN_OK);
  assert_true(config.faults);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(command_line), cmocka_unit_test(file),
                                     cmocka_unit_test(precedence)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
