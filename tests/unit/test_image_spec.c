/* src/shell/image_spec.h: [NAME=][NODE:]PATH[+PATH...][,KEY=VALUE...] */
#include "shell/image_spec.h"
#include "unit.h"

static void good(void **state) {
  (void)state;
  static const struct {
    const char *why, *text, *name, *node, *first, *second, *meta;
    bool overwrite;
  } rows[] = {
      {"a path", "/a.img", "", "", "/a.img", NULL, "", false},
      {"a relative path", "./a.img", "", "", "./a.img", NULL, "", false},
      {"one folder up", "../a.img", "", "", "../a.img", NULL, "", false},
      {"a name", "x=/a", "x", "", "/a", NULL, "", false},
      {"a node", "n1:/a", "", "n1", "/a", NULL, "", false},
      {"name and node", "x=n1:/a", "x", "n1", "/a", NULL, "", false},
      {"an equals sign inside a path", "/a=b", "", "", "/a=b", NULL, "", false},
      {"a colon inside a path", "/a:/b", "", "", "/a:/b", NULL, "", false},
      {"name, and an equals sign inside the path", "x=/a=/b", "x", "", "/a=/b", NULL, "", false},
      {"a path per volume", "x=/a+/b", "x", "", "/a", "/b", "", false},
      {"escaped plus and comma", "/a%2Bb%2cc", "", "", "/a+b,c", NULL, "", false},
      {"an escaped percent sign", "/a%252B", "", "", "/a%2B", NULL, "", false},
      {"any other percent sign is itself", "/a%20b%", "", "", "/a%20b%", NULL, "", false},
      {"a blank and other bytes", "/a b\xff", "", "", "/a b\xff", NULL, "", false},
      {"the policy that there is", "/a,policy=sync", "", "", "/a", NULL, "", false},
      {"overwrite", "/a,overwrite", "", "", "/a", NULL, "", true},
      {"metadata elsewhere", "/a,meta=/m%2Cn", "", "", "/a", NULL, "/m,n", false},
      {"all keys", "x=/a+./b,overwrite,meta=./m,policy=sync", "x", "", "/a", "./b", "./m", true},
  };
  static struct image_spec spec, again;
  static char text[IMAGE_SPEC_TEXT];
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct why why = {""};
    if (image_spec_parse(rows[i].text, &spec, &why) != TARN_OK) fail_msg("row \"%s\": %s", rows[i].why, why.text);
    row_true(rows[i].why, strcmp(spec.name, rows[i].name) == 0);
    row_true(rows[i].why, strcmp(spec.node, rows[i].node) == 0);
    row_true(rows[i].why, spec.path_count == (rows[i].second ? 2 : 1));
    row_true(rows[i].why, strcmp(spec.paths[0], rows[i].first) == 0);
    row_true(rows[i].why, !rows[i].second || strcmp(spec.paths[1], rows[i].second) == 0);
    row_true(rows[i].why, strcmp(spec.meta, rows[i].meta) == 0);
    row_true(rows[i].why, spec.overwrite == rows[i].overwrite);
    image_spec_format(&spec, text);
    row_true(rows[i].why, image_spec_parse(text, &again, &why) == TARN_OK);
    row_true(rows[i].why, memcmp(&spec, &again, sizeof spec) == 0);
  }
}

static void bad(void **state) {
  (void)state;
  static const struct {
    const char *why, *text;
    tarn_err err;
    const char *says;
  } rows[] = {
      {"nothing", "", TARN_INVALID, "empty"},
      {"a bare word may be a typo of anything", "a.img", TARN_INVALID, "./"},
      {"a name without a path", "a=", TARN_INVALID, "path"},
      {"a node without a path", "n1:", TARN_INVALID, "path"},
      {"a folder", "/a/", TARN_INVALID, "folder"},
      {"this folder", "./", TARN_INVALID, "folder"},
      {"a plus that is meant as itself", "/a+b", TARN_INVALID, "%2B"},
      {"a plus at the end", "/a+", TARN_INVALID, "%2B"},
      {"nine volumes", "/1+/2+/3+/4+/5+/6+/7+/8+/9", TARN_INVALID, "8"},
      {"a line break", "/a\nb", TARN_INVALID, "line break"},
      {"an odd name", "a b=/x", TARN_INVALID, "a b="},
      {"a comma that is meant as itself", "/a,b", TARN_INVALID, "'b'"},
      {"a key that nearly is one", "/a,overwrit", TARN_INVALID, "'overwrite'"},
      {"a key without its value", "/a,meta", TARN_INVALID, "value"},
      {"a key with an empty value", "/a,meta=", TARN_INVALID, "value"},
      {"a flag with a value", "/a,overwrite=yes", TARN_INVALID, "no value"},
      {"twice the same", "/a,overwrite,overwrite", TARN_INVALID, "twice"},
      {"a policy of later", "/a,policy=async", TARN_INVALID, "async"},
      {"metadata that is no path", "/a,meta=m", TARN_INVALID, "m"},
      {"a comma at the end", "/a,", TARN_INVALID, "key"},
      {"an NBD server", "nbd://host/x", TARN_UNSUPPORTED, "not supported yet"},
      {"an NBD server on a Unix socket, named", "x=nbd+unix:///x?socket=/s", TARN_UNSUPPORTED, "not supported yet"},
      {"a concatenation", "concat:/a;/b", TARN_UNSUPPORTED, "not supported yet"},
  };
  static struct image_spec spec;
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct why why = {""};
    row_true(rows[i].why, image_spec_parse(rows[i].text, &spec, &why) == rows[i].err);
    if (!strstr(why.text, rows[i].says))
      fail_msg("row \"%s\": '%s' does not say '%s'", rows[i].why, why.text, rows[i].says);
  }
}

static void long_paths(void **state) {
  (void)state;
  static struct image_spec spec;
  static char text[2 * PATH_BYTES_MAX];
  memset(text, 'x', sizeof text);
  text[0] = '/';
  text[PATH_BYTES_MAX] = 0;
  assert_int_equal(image_spec_parse(text, &spec, NULL), TARN_OK);
  text[PATH_BYTES_MAX] = 'x';
  text[PATH_BYTES_MAX + 1] = 0;
  assert_int_equal(image_spec_parse(text, &spec, NULL), TARN_INVALID);
}

static void absolute(void **state) {
  (void)state;
  static const struct {
    const char *why, *path, *folder, *result;
  } rows[] = {
      {"absolute stays", "/a", "/home", "/a"},
      {"a dot is dropped", "./a", "/home", "/home/a"},
      {"two dots stay: the kernel knows about links", "../a", "/home/x", "/home/x/../a"},
      {"at the root", "./a", "/", "/a"},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    char path[PATH_BYTES_MAX + 1];
    strcpy(path, rows[i].path);
    row_true(rows[i].why, path_absolute(path, rows[i].folder, NULL) == TARN_OK);
    row_true(rows[i].why, strcmp(path, rows[i].result) == 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(good), cmocka_unit_test(bad), cmocka_unit_test(long_paths),
                                     cmocka_unit_test(absolute)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
