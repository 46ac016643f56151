/* The checker is checked: each row is a short story of requests at one byte range, and what a read at its end may return. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "sim/model.h"

#define BYTES 64

/* A story is a word per step. Writes are a, b, c: "+a" begins, "-a" is answered, "!a" is answered with an error, "~a" is
 * abandoned (its connection is gone). "+fa" begins with FUA. Likewise z (write zeroes), t (trim), F and G (flush). "ra" is a read
 * that begins, returns a, and ends at once; "r0" one that returns what was there first; "la" is "ra" where one image is current.
 * "+r" begins a read that "=a" ends.
 * "K" the process dies, "P" power is lost, "V" the mirror falls, and "W" comes back; "X" is both, "Y" the same with a cache
 * lost. */
static const struct {
  const char *why;
  bool calm;
  const char *story;
  const char *good; /* what a read may return then, a letter each */
  const char *bad;  /* what it may not */
} rows[] = {
    {"before any write there are zeroes", false, "", "0", "a"},
    {"an answered write is seen", false, "+a -a", "a", "0"},
    {"a write in flight may be seen or not", false, "+a", "a0", "b"},
    {"new, then old, is wrong", false, "+a ra", "a", "0"},
    {"new, then old, is wrong also when it is answered later", false, "+a ra -a", "a", "0"},
    {"two writes in flight together may end in any order", false, "+a +b -a -b", "ab", "0"},
    {"the order of two writes is settled by the first read", false, "+a +b -a -b ra", "a", "b0"},
    {"a write begun after another was answered wins", false, "+a -a +b -b", "b", "a0"},
    {"a read that began before a write ended may return what was before", false, "+a +r -a =0", "a", "0"},
    {"a read that began after the answer may not be older", false, "+a -a +r +b =a", "ab", "0"},
    {"a failed write has happened or not", false, "+a -a +b !b", "ab", "0"},
    {"the first read settles a failed write: not", false, "+a -a +b !b ra", "a", "b"},
    {"the first read settles a failed write: it has", false, "+a -a +b !b rb", "b", "a"},
    {"a hang-up leaves its write open", false, "+a -a +b ~b", "ab", "0"},
    {"a trim may do nothing", false, "+a -a +t -t", "a0", "b"},
    {"a trim that was seen stays", false, "+a -a +t -t r0", "0", "a"},
    {"zeroes are written", false, "+a -a +z -z", "0", "a"},
    {"the process dies: answered writes stay", false, "+a -a K", "a", "0"},
    {"the process dies: one in flight may be there or not", false, "+a -a +b K", "ab", "0"},
    {"the process dies: that is settled by the first read", false, "+a -a +b K ra", "a", "b"},
    {"a write that was seen but not answered may be undone by the death of the process", false, "+a -a +b rb K", "ab",
     "0"},
    {"but not where all is calm", true, "+a -a +b rb K", "b", "a"},
    {"power is lost: what was not flushed may be", false, "+a -a P", "a0", "b"},
    {"power is lost: any version since the durable one", false, "+a -a +b -b +c -c P", "abc0", ""},
    {"a flush makes what was answered before it durable", false, "+a -a +F -F P", "a", "0"},
    {"a flush does not cover what was answered after it began", false, "+a +F -a -F P", "a0", "b"},
    {"a flush does not cover what came later", false, "+a -a +F -F +b -b P", "ab", "0"},
    {"FUA makes its own bytes durable", false, "+a -a +fb -b P", "b", "a0"},
    {"a failed flush promises nothing", false, "+a -a +F !F P", "a0", "b"},
    {"a flush begun after another failed proves all again: the mirror has written it again", false,
     "+a -a +F !F +F -F P", "a", "0"},
    {"a flush that had begun before another failed proves as much", false, "+a -a +F +G !F -G P", "a", "0b"},
    {"written again and flushed it is durable", false, "+a -a +F !F +b -b +F -F P", "b", "a0"},
    {"what was seen of a failed write, and flushed, is durable: the mirror has written it again", false,
     "+fa -a +b !b rb +F -F P", "b", "a0"},
    {"where one image is current it need not be, though reads agree with it", false, "+fa -a +b !b lb", "b", "a0"},
    {"where one image is current a power loss may undo it", false, "+fa -a +b !b lb +F -F P", "ab", "0"},
    {"the death of the process may not", false, "+fa -a +b !b lb K", "b", "a0"},
    {"where one image is current, but a write overwrites it", false, "+fa -a +b !b lb +c -c +F -F P", "c", "ab0"},
    {"it is read again when there are several", false, "+fa -a +b !b lb rb +F -F P", "b", "a0"},
    {"where one image is current an answered write is as durable as ever", false, "+fa -a +b -b lb +F -F P", "b", "a0"},
    {"a trim that was not seen is open after a power loss, flushed or not", false, "+fa -a +t -t +F -F P", "a0", "b"},
    {"a trim that was seen and flushed stays", false, "+fa -a +t -t r0 +F -F P", "0", "a"},
    {"what was seen of a write in flight, and flushed, may be lost with power", false, "+fa -a +b rb +F -F P", "ab",
     "0"},
    {"what was read after a power loss may be lost by the next", false, "+a -a P ra P", "a0", "b"},
    {"but not where all is calm", true, "+a -a P ra P", "a", "0"},
    {"the death of the process does not make anything durable", true, "+a -a K ra P", "a0", "b"},
    {"a power loss after the death of the process", false, "+a -a +F -F +b K P", "ab", "0"},
    {"an overwritten write does not come back by the death of the process", false, "+a -a +b -b K", "b", "a0"},
    {"a mirror falls: answered writes stay", false, "+a -a X", "a", "0"},
    {"a mirror falls: what was seen of a write in flight may be gone", false, "+a -a +b rb X", "ab", "0"},
    {"a mirror falls: a write in flight is done afterwards", false, "+a -a +b rb X ra -b", "b", "a"},
    {"a mirror falls: a write in flight may be done again over a later one", false, "+a +b rb +c rc -c X -b", "bc",
     "0"},
    {"a mirror falls: also over one that made it gone", false, "+b rb +fc -c X -b", "bc", "0"},
    {"a mirror falls: two writes in flight are done again, and seen before", false, "+a +b X rb ra rb", "ab", "0"},
    {"a mirror falls: that ends with the answer", false, "+a +b X rb ra -a -b rb", "b", "a0"},
    {"a mirror falls: what came later is done once", false, "+a -a +b -b V +b +c W rb rc", "c", "ab0"},
    {"a mirror falls and loses a cache: what was not flushed may be gone", false, "+a -a Y", "a0", "b"},
    {"a mirror falls and loses a cache: what was flushed stays", false, "+a -a +F -F Y", "a", "0"},
    {"a mirror falls and loses a cache: so may a write whose answer was on its way", false, "+a Y -a", "a0", "b"},
    {"a mirror falls and loses a cache: not so one with FUA", false, "+fa Y -a", "a", "0"},
    {"a mirror falls and loses a cache: what is written afterwards is there", false, "Y +a -a", "a", "0"},
    {"a mirror falls and loses a cache: a read that began before proves nothing of what is left", false,
     "+a -a +F -F +b -b +r Y =b", "ab", "0"},
    {"a read that met two versions at once keeps both in play", false, "+a +b +r =a", "ab", "0"},
};

struct story {
  struct world world;
  struct model *model;
  struct model_op ops[256];
};

static void fill(const struct story *story, char who, uint8_t *out) {
  if (who == '0' || who == 'z' || who == 't') memset(out, 0, BYTES);
  else if (story->ops[(uint8_t)who].id == 0) memset(out, 0xff, BYTES);
  else model_fill(story->model, story->ops[(uint8_t)who].tag, 0, BYTES, out);
}

static void op_begin(struct story *story, const char *word) {
  bool fua = word[0] == 'f';
  char who = fua ? word[1] : word[0];
  static const char letters[] = "rzFGt";
  static const enum model_kind kinds[] = {MODEL_READ, MODEL_ZERO, MODEL_FLUSH, MODEL_FLUSH, MODEL_TRIM};
  const char *letter = strchr(letters, who);
  struct model_op *op = &story->ops[(uint8_t)who];
  *op = (struct model_op){.kind = letter ? kinds[letter - letters] : MODEL_WRITE, .length = BYTES, .fua = fua};
  assert_true(model_begin(story->model, op));
}

static void read_ends(struct story *story, char who) {
  uint8_t data[BYTES];
  fill(story, who, data);
  const char *wrong = model_end(story->model, &story->ops['r'], true, data);
  if (wrong) fail_msg("a read within the story: %s", wrong);
}

static void step(struct story *story, const char *word) {
  struct model_op *op = &story->ops[(uint8_t)word[1]];
  switch (word[0]) {
    case '+': op_begin(story, word + 1); break;
    case '-': assert_null(model_end(story->model, op, true, NULL)); break;
    case '!': assert_null(model_end(story->model, op, false, NULL)); break;
    case '~': model_abandon(story->model, op); break;
    case '=': read_ends(story, word[1]); break;
    case 'r':
      op_begin(story, "r");
      read_ends(story, word[1]);
      break;
    case 'l':
      op_begin(story, "r");
      story->ops['r'].lone = true;
      read_ends(story, word[1]);
      break;
    case 'K': model_crash(story->model, false); break;
    case 'P': model_crash(story->model, true); break;
    case 'V': model_fell(story->model); break;
    case 'W': model_fall(story->model, false); break;
    case 'X':
      model_fell(story->model);
      model_fall(story->model, false);
      break;
    case 'Y':
      model_fell(story->model);
      model_fall(story->model, true);
      break;
    default: fail_msg("no such step: %s", word);
  }
  model_check(story->model);
}

/* `extents`: the zeroes at its end are not read, but said to be a hole. */
static const char *tell(struct story *story, size_t row, char last, bool extents) {
  static sigjmp_buf failed;
  char words[200];
  uint8_t data[BYTES];
  memset(story, 0, sizeof *story);
  world_init(&story->world, row);
  story->world.failed = &failed;
  if (sigsetjmp(failed, 0) != 0) fail_msg("%s", story->world.failure);
  story->model = model_new(&story->world, 0, 8192, rows[row].calm);
  snprintf(words, sizeof words, "%s", rows[row].story);
  char *save = NULL;
  for (char *word = strtok_r(words, " ", &save); word; word = strtok_r(NULL, " ", &save)) step(story, word);
  fill(story, last, data);
  struct model_op read = {.kind = MODEL_READ, .length = BYTES};
  assert_true(model_begin(story->model, &read));
  struct disk_extent runs[] = {{.length = 1, .flags = 0}, {.length = BYTES - 1, .flags = EXTENT_HOLE | EXTENT_ZERO}};
  if (extents) return model_end_extents(story->model, &read, runs, 2);
  return model_end(story->model, &read, true, data);
}

static void test_stories(void **state) {
  (void)state;
  static struct story story;
  for (size_t row = 0; row < COUNT_OF(rows); row++) {
    for (const char *c = rows[row].good; *c; c++) {
      const char *wrong = tell(&story, row, *c, false);
      if (wrong) fail_msg("%s (%s): reading %c is fine, but: %s", rows[row].why, rows[row].story, *c, wrong);
      world_destroy(&story.world);
      if (*c != '0') continue;
      wrong = tell(&story, row, *c, true);
      if (wrong) fail_msg("%s (%s): a hole is fine, but: %s", rows[row].why, rows[row].story, wrong);
      world_destroy(&story.world);
    }
    for (const char *c = rows[row].bad; *c; c++) {
      if (!tell(&story, row, *c, false))
        fail_msg("%s (%s): reading %c was not found", rows[row].why, rows[row].story, *c);
      world_destroy(&story.world);
      if (*c != '0') continue;
      if (!tell(&story, row, *c, true)) fail_msg("%s (%s): a hole was not found", rows[row].why, rows[row].story);
      world_destroy(&story.world);
    }
  }
}

/* One wrong byte anywhere in a read is found; bytes of another place, and of a write long gone, too. */
static void test_wrong_bytes_are_found(void **state) {
  (void)state;
  static struct story story;
  enum { LENGTH = 6000 };
  static uint8_t data[LENGTH];
  memset(&story, 0, sizeof story);
  world_init(&story.world, 1);
  story.model = model_new(&story.world, 0, 16384, false);
  struct model_op write = {.kind = MODEL_WRITE, .offset = 1001, .length = LENGTH};
  assert_true(model_begin(story.model, &write));
  assert_null(model_end(story.model, &write, true, NULL));
  model_fill(story.model, write.tag, 1001, LENGTH, data);
  assert_null(model_peek(story.model, 1001, LENGTH, data));
  for (size_t i = 0; i < LENGTH; i++) {
    data[i] ^= (uint8_t)(1u << i % 8);
    assert_non_null(model_peek(story.model, 1001, LENGTH, data));
    data[i] ^= (uint8_t)(1u << i % 8);
  }
  model_fill(story.model, write.tag, 1002, LENGTH, data);
  assert_non_null(model_peek(story.model, 1001, LENGTH, data));
  model_check(story.model);
  world_destroy(&story.world);
}

/* Two writes after one that was answered, none of them answered themselves, and what a read of 1024 bytes finds: runs
 * of "where it ends, whose bytes". */
static const struct {
  const char *why;
  uint32_t sector_bytes;
  struct {
    uint64_t start, end;
  } a, b;
  struct {
    uint64_t end;
    char who; /* o: the old one */
  } shown[5];
  bool torn;
} sectors[] = {
    {"a write that has happened", 512, {0, 1024}, {0, 0}, {{1024, 'a'}}, false},
    {"one sector has it, the next one has not", 512, {0, 1024}, {0, 0}, {{512, 'a'}, {1024, 'o'}}, false},
    {"but that is one sector of 4096", 4096, {0, 1024}, {0, 0}, {{512, 'a'}, {1024, 'o'}, {4096, 'o'}}, true},
    {"a part of a sector has it", 512, {0, 1024}, {0, 0}, {{700, 'a'}, {1024, 'o'}}, true},
    {"the write was of a part only", 512, {0, 700}, {0, 0}, {{700, 'a'}, {1024, 'o'}}, false},
    {"half of each of two writes", 512, {0, 512}, {0, 512}, {{256, 'a'}, {512, 'b'}, {1024, 'o'}}, true},
    {"two writes that overlap, the first one on top",
     512,
     {0, 300},
     {200, 512},
     {{300, 'a'}, {512, 'b'}, {1024, 'o'}},
     false},
    {"the second one on top", 512, {0, 300}, {200, 512}, {{200, 'a'}, {512, 'b'}, {1024, 'o'}}, false},
    {"each on top somewhere", 512, {0, 300}, {200, 512}, {{250, 'a'}, {512, 'b'}, {1024, 'o'}}, true},
    {"only the second one", 512, {0, 300}, {200, 512}, {{200, 'o'}, {512, 'b'}, {1024, 'o'}}, false},
};

static void fill_shown(const struct model *model, size_t row, const struct model_op ops[3], uint8_t *data) {
  uint64_t at = 0;
  for (size_t i = 0; i < COUNT_OF(sectors[row].shown) && sectors[row].shown[i].end > 0; i++) {
    char who = sectors[row].shown[i].who;
    uint32_t tag = ops[who == 'o' ? 0 : who == 'a' ? 1 : 2].tag;
    model_fill(model, tag, at, sectors[row].shown[i].end - at, data + at);
    at = sectors[row].shown[i].end;
  }
}

static void test_sectors_are_whole(void **state) {
  (void)state;
  static struct world world;
  static uint8_t data[4096];
  for (size_t row = 0; row < COUNT_OF(sectors); row++) {
    world_init(&world, row);
    struct model *model = model_new(&world, 0, 8192, false);
    model->sector_bytes = sectors[row].sector_bytes;
    struct model_op ops[3] = {{.kind = MODEL_WRITE, .length = 4096},
                              {.kind = MODEL_WRITE, .offset = sectors[row].a.start},
                              {.kind = MODEL_WRITE, .offset = sectors[row].b.start}};
    ops[1].length = sectors[row].a.end - sectors[row].a.start;
    ops[2].length = sectors[row].b.end - sectors[row].b.start;
    assert_true(model_begin(model, &ops[0]));
    assert_null(model_end(model, &ops[0], true, NULL));
    for (int i = 1; i < 3; i++) assert_true(ops[i].length == 0 || model_begin(model, &ops[i]));
    model_fill(model, ops[0].tag, 0, 4096, data);
    fill_shown(model, row, ops, data);
    uint64_t length = max_u64(sectors[row].sector_bytes, 1024);
    struct model_op read = {.kind = MODEL_READ, .length = length};
    assert_true(model_begin(model, &read));
    const char *wrong = model_end(model, &read, true, data);
    if (!wrong != !sectors[row].torn) fail_msg("%s: %s", sectors[row].why, wrong ? wrong : "nothing was found");
    model_check(model);
    world_destroy(&world);
  }
}

static void test_what_never_came_whole_is_not_seen(void **state) {
  (void)state;
  static struct story story;
  uint8_t data[BYTES];
  memset(&story, 0, sizeof story);
  world_init(&story.world, 1);
  story.model = model_new(&story.world, 0, 8192, false);
  step(&story, "+a");
  step(&story, "-a");
  step(&story, "+b");
  model_never(story.model, &story.ops['b']);
  fill(&story, 'b', data);
  assert_non_null(model_peek(story.model, 0, BYTES, data));
  fill(&story, 'a', data);
  assert_null(model_peek(story.model, 0, BYTES, data));
  model_crash(story.model, true);
  fill(&story, 'b', data);
  assert_non_null(model_peek(story.model, 0, BYTES, data));
  world_destroy(&story.world);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_stories),
      cmocka_unit_test(test_wrong_bytes_are_found),
      cmocka_unit_test(test_sectors_are_whole),
      cmocka_unit_test(test_what_never_came_whole_is_not_seen),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
