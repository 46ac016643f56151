/* src/shell/config.h: tarnd's command line and tarnd.conf. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

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
      {"another switch", "--nbd *:1 --nbd-insecure", NULL},
      {"options of an address", "--nbd *:1,allow=10.0.0.0/8,per-peer=4 --nbd unix:/x,uid=0,mode=666", NULL},
      {"bad options of an address", "--nbd *:1,allow=10", "'10' is no IPv4"},
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
      {"another switch", "nbd-insecure = on\nnbd = *:1\n", NULL},
      {"a switch that is neither", "enable-faults = yes\n", "conf:1: enable-faults 'yes' is neither on nor off"},
      {"two addresses", "nbd = unix:/x\nnbd = unix:/y\n", NULL},
      {"unknown key, with the nearest", "\nnmae = x\n", "conf:2: unknown key 'nmae' (did you mean 'name'?)"},
      {"bad value", "name = a b\n", "conf:1: the node name 'a b'"},
      {"no key", "name = x\nwhat is this\n", "conf:2:"},
      {"a section", "[nbd]\nx = y\n", "section"},
      {"twice", "name = a\nname = b\n", "conf:2: 'name' is given twice"},
      {"the place of the file itself", "state = /x\n", "conf:1: 'state' is the folder of this very file"},
      {"an unknown key tells what is known", "x = y\n", "known are name, nbd, nbd-insecure, memory, enable-faults"},
      {"DOS ends its lines so", "name = n1\r\nmemory = 8M\r\n", NULL},
      {"a mark that some editors put first", "\xef\xbb\xbfname = n1\n", NULL},
      {"no end of the last line", "name = n1", NULL},
      {"blanks all around", "\t name\t=  n1  # the first\n", NULL},
      {"a comment needs a blank before it", "nbd = unix:/a#b;c\n", NULL},
      {"a value that is missing", "name =\n", "conf:1: 'name' has no value"},
      {"a key that is missing", "= n1\n", "conf:1: '= n1' is no KEY = VALUE"},
      {"not UTF-8", "name = n1\n# \xe4\n", "conf:2: byte 3 of this line is not UTF-8"},
      {"cut off in a letter", "# \xc3\n", "conf:1: byte 3 of this line is not UTF-8"},
      {"UTF-8 in a comment", "# \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80\n", NULL},
      {"a bell", "name = n\a\n", "conf:1: byte 9 of this line is a control character"},
  };
  static struct config config;
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct why why = {""};
    config_init(&config);
    row_true(rows[i].why, (config_text(&config, rows[i].text, "conf", &why) == TARN_OK) == (rows[i].says == NULL));
    if (rows[i].says && !strstr(why.text, rows[i].says)) fail_msg("row \"%s\": %s", rows[i].why, why.text);
  }
}

static void long_lines(void **state) {
  (void)state;
  static struct config config;
  static char text[80000];
  struct why why = {""};
  memset(text, 'x', 1002);
  text[0] = '#';
  text[1000] = '\n';
  config_init(&config);
  assert_int_equal(config_text(&config, text, "conf", &why), TARN_INVALID); /* the second line is no pair */
  assert_non_null(strstr(why.text, "conf:2:"));
  text[1000] = 'x';
  text[1001] = '\n';
  assert_int_equal(config_text(&config, text, "conf", &why), TARN_INVALID);
  assert_non_null(strstr(why.text, "conf:1: this line has 1001 bytes, at most 1000 are allowed"));
}

static const char *write_file(const char *path, const char *text, size_t bytes) {
  FILE *out = fopen(path, "w");
  assert_non_null(out);
  assert_int_equal(fwrite(text, 1, bytes, out), bytes);
  fclose(out);
  return path;
}

/* What stands where the file should be. */
static void not_a_file(void **state) {
  (void)state;
  static struct config config;
  static char large[65537];
  struct why why = {""};
  char folder[] = "/tmp/tarn-test-XXXXXX", path[64];
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/tarnd.conf", folder);
  config_init(&config);
  assert_int_equal(config_file(&config, path, &why), TARN_OK); /* missing */
  assert_int_equal(config_file(&config, write_file(path, "", 0), &why), TARN_OK);
  assert_int_equal(config_file(&config, write_file(path, "memory = 8M\n", 12), &why), TARN_OK);
  assert_int_equal(config.memory_bytes, 8 << 20);
  assert_int_equal(config_file(&config, write_file(path, "name = a\0b\n", 11), &why), TARN_INVALID);
  assert_non_null(strstr(why.text, ":1: byte 9 of this line is a control character"));
  memset(large, '\n', sizeof large);
  assert_int_equal(config_file(&config, write_file(path, large, 65536), &why), TARN_OK);
  assert_int_equal(config_file(&config, write_file(path, large, 65537), &why), TARN_INVALID);
  assert_non_null(strstr(why.text, "longer than 65536 bytes"));
  unlink(path);
  assert_int_equal(mkdir(path, 0700), 0);
  assert_int_equal(config_file(&config, path, &why), TARN_INVALID);
  assert_non_null(strstr(why.text, "is a directory"));
  rmdir(path);
  assert_int_equal(mkfifo(path, 0600), 0);
  assert_int_equal(config_file(&config, path, &why), TARN_INVALID); /* and does not wait for a writer */
  assert_non_null(strstr(why.text, "is a pipe"));
  unlink(path);
  assert_int_equal(symlink("nowhere", path), 0);
  assert_int_equal(config_file(&config, path, &why), TARN_INVALID);
  assert_non_null(strstr(why.text, "does not exist"));
  unlink(path);
  rmdir(folder);
}

/* Sockets that a service manager passed on replace the default, and stand beside what was asked for. */
static void passed_on(void **state) {
  (void)state;
  static struct config config;
  static struct address passed[CONFIG_NBD_MAX + 1];
  struct why why = {""};
  assert_int_equal(parse(&config, "--state /s --name n", NULL), TARN_OK);
  assert_int_equal(config_sockets(&config, passed, 2, &why), TARN_OK);
  assert_int_equal(config_complete(&config, &why), TARN_OK);
  assert_int_equal(config.nbd_count, 2);
  assert_int_equal(parse(&config, "--state /s --name n --nbd unix:/x", NULL), TARN_OK);
  assert_int_equal(config_sockets(&config, passed, 1, &why), TARN_OK);
  assert_string_equal(config.nbd[0].path, "/x");
  assert_int_equal(config.nbd_count, 2);
  assert_int_equal(config_sockets(&config, passed, CONFIG_NBD_MAX - 1, &why), TARN_INVALID);
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
                                     cmocka_unit_test(precedence),   cmocka_unit_test(long_lines),
                                     cmocka_unit_test(not_a_file),   cmocka_unit_test(passed_on)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
