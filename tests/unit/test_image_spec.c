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
      {"metadata in the tail", "/dev/a,meta=tail", "", "", "/dev/a", NULL, "tail", false},
      {"an NBD server", "nbd://host/x%2By", "", "", "nbd://host/x%2By", NULL, "", false},
      {"an NBD server with a port, named", "x=nbd://[::1]:10810/", "x", "", "nbd://[::1]:10810/", NULL, "", false},
      {"the + of its scheme ends no path", "nbd+unix:///x?socket=/s+/b", "", "", "nbd+unix:///x?socket=/s", "/b", "",
       false},
      {"an NBD server on another node", "n1:nbd+unix:///?socket=/s", "", "n1", "nbd+unix:///?socket=/s", NULL, "",
       false},
      {"parts", "concat:/a;/b@0+1M", "", "", "concat:/a;/b@0+1M", NULL, "", false},
      {"parts, and a second volume", "concat:/a@4K+8K;/b+/c", "", "", "concat:/a@4K+8K;/b", "/c", "", false},
      {"the + of a range may be written as code", "concat:/a@4K%2B8K", "", "", "concat:/a@4K+8K", NULL, "", false},
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
      {"an NBD server without a name", "nbd:///x", TARN_INVALID, "host"},
      {"a port that is none", "nbd://h:x/y", TARN_INVALID, "port"},
      {"a port that is too large", "nbd://h:65536/y", TARN_INVALID, "port"},
      {"settings in the address", "nbd://h/x?tls-certificates=/c", TARN_INVALID, "nbd://HOST"},
      {"a Unix server without its socket", "nbd+unix:///x", TARN_INVALID, "?socket="},
      {"an empty socket", "nbd+unix:///x?socket=", TARN_INVALID, "empty"},
      {"metadata on an NBD server", "/a,meta=nbd://h/x", TARN_INVALID, "neither a path"},
      {"no part", "concat:", TARN_INVALID, "empty"},
      {"an empty part", "concat:/a;;/b", TARN_INVALID, "empty"},
      {"a part that is a folder", "concat:/a;/b/", TARN_INVALID, "folder"},
      {"a part that is a server", "concat:/a;nbd://h/x", TARN_INVALID, "only files"},
      {"an odd offset", "concat:/a@512+4K", TARN_INVALID, "multiples of 4096"},
      {"an odd length", "concat:/a@0+4097", TARN_INVALID, "@0+4096"},
      {"a range without a length", "concat:/a@4K+", TARN_INVALID, "%2B"},
      {"a range that ends nowhere", "concat:/a@7P+9007199254740992K", TARN_INVALID, "range"},
      {"parts that overlap", "concat:/a@0+8K;/b;/a@4K+8K", TARN_INVALID, "overlap"},
      {"a file and a part of it", "concat:/a;/a@0+8K", TARN_INVALID, "overlap"},
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
      {"every part", "concat:./a@0+4K;/b;../c", "/home", "concat:/home/a@0+4K;/b;/home/../c"},
      {"what would end a part is encoded", "concat:./a", "/x;y/%3B", "concat:/x%3By/%253B/a"},
      {"a folder that looks like a range", "concat:./a@0+4K;./b", "/x@0+4K", "concat:/x@0+4K/a@0+4K;/x@0+4K/b"},
      {"a server is not here", "nbd://h/./x", "/home", "nbd://h/./x"},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    char path[PATH_BYTES_MAX + 1];
    strcpy(path, rows[i].path);
    row_true(rows[i].why, path_absolute(path, rows[i].folder, NULL) == TARN_OK);
    row_true(rows[i].why, strcmp(path, rows[i].result) == 0);
  }
}

/* ---- disk_text.h: what the texts mean ---- */

static void parts(void **state) {
  (void)state;
  static struct disk_text disk;
  assert_int_equal(disk_text_parse("concat:/a@1M+2M;/b;/c%3Bd%40e@0+4K;/f@g;/h%40%3B;/i@1+j/k", &disk, NULL), TARN_OK);
  static const struct {
    const char *path;
    uint64_t offset, length;
  } rows[] = {{"/a", 1 << 20, 2 << 20}, {"/b", 0, 0},   {"/c;d@e", 0, 4096},
              {"/f@g", 0, 0},           {"/h@;", 0, 0}, {"/i@1+j/k", 0, 0}};
  assert_int_equal(disk.kind, DISK_KIND_CONCAT);
  assert_int_equal(disk.part_count, COUNT_OF(rows));
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    row_true(rows[i].path, strcmp(disk.parts[i].path, rows[i].path) == 0);
    row_true(rows[i].path, disk.parts[i].offset == rows[i].offset && disk.parts[i].length == rows[i].length);
  }
  assert_int_equal(disk_text_check("concat:/a;./b", NULL), TARN_INVALID); /* the daemon takes nothing relative */
  assert_int_equal(disk_text_check("nbd+unix:///x?socket=s", NULL), TARN_INVALID);
  assert_int_equal(disk_text_check("nbd+unix:///x?socket=%2Fs", NULL), TARN_OK);
  char many[8 * DISK_PARTS_MAX + 16] = "concat:/a@0+4K";
  for (uint32_t i = 1; i < DISK_PARTS_MAX; i++) sprintf(many + strlen(many), ";/b%u", i);
  assert_int_equal(disk_text_parse(many, &disk, NULL), TARN_OK);
  strcat(many, ";/c");
  assert_int_equal(disk_text_parse(many, &disk, NULL), TARN_INVALID);
}

static void keys(void **state) {
  (void)state;
  static const struct {
    const char *why, *a, *b;
    bool same;
  } rows[] = {
      {"the port that is meant", "nbd://h/x", "nbd://h:10809/x", true},
      {"another port", "nbd://h/x", "nbd://h:10810/x", false},
      {"names of hosts have no case", "nbd://Host/x", "nbd://hOST/x", true},
      {"exports have", "nbd://h/x", "nbd://h/X", false},
      {"the empty export", "nbd://h", "nbd://h/", true},
      {"codes", "nbd://h/%78", "nbd://h/x", true},
      {"another host", "nbd://[::1]/x", "nbd://[::2]/x", false},
      {"a port behind brackets", "nbd://[::1]/x", "nbd://[::1]:10809/x", true},
      {"sockets", "nbd+unix:///x?socket=%2Fs", "nbd+unix:///x?socket=/s", true},
      {"other sockets", "nbd+unix:///x?socket=/t", "nbd+unix:///x?socket=/s", false},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    char a[PATH_BYTES_MAX + 16], b[PATH_BYTES_MAX + 16];
    nbd_text_key(rows[i].a, a);
    nbd_text_key(rows[i].b, b);
    row_true(rows[i].why, (strcmp(a, b) == 0) == rows[i].same);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(parts), cmocka_unit_test(keys),       cmocka_unit_test(good),
                                     cmocka_unit_test(bad),   cmocka_unit_test(long_paths), cmocka_unit_test(absolute)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
