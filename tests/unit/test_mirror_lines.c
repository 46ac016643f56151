/* Lives of a mirror at random, in which rule 9 must hold: images that are away, state directories that are copied, or put back from a copy,
 * forced starts and promotions, processes that die, also as they start. Each write is answered once and has a place of its own, so that an
 * image tells by its bytes which answers it holds.
 *
 * Of each image and each state directory the test knows the answers that its line has given (`given`), and those of them and of others that an
 * administrator gave up in it by force (`let_go`). After an unforced command no answer may be gone from an image, and none may be missing from
 * what is served, that was not given up. And a mirror that was never used with another state directory starts, and becomes whole, once all its images
 * are here.
 *
 * LINES=FROM-TO runs these histories instead of the first ones, and LINES_TELL=1 tells what happens in them. */
#include <stdlib.h>

#include "mirror_world.h"

#define MIB      (1u << 20)
#define PLACE    4096u
#define ANSWERS  (MIB / PLACE)
#define HOMES    3u
#define IMAGES   3u
#define LIVES    7u
#define META_MAX (1u << 20)
#define MARK     0xfd /* the bytes of an image as it was made never have sixteen of these in a row */

/* What may happen in a history, beside the rest. */
enum happening { DISKS_FAIL, A_STOP_IS_CUT_OFF, IMAGES_COME_LATE, AN_IMAGE_IS_PUT_BACK, HOMES_ARE_LOST, HAPPENINGS };

struct answers {
  uint64_t bits[ANSWERS / 64];
};

struct line {
  struct answers given, let_go;
};

static struct {
  uint64_t random;
  bool tells;
  struct {
    uint8_t bytes[RECORD_AREA_BYTES];
    struct line line;
    struct answers heard;
  } homes[HOMES];
  struct line images[IMAGES];
  struct answers kept[IMAGES];  /* that were not given up of this image: it was left apart */
  struct answers heard[IMAGES]; /* of these, too, its record may tell: it was there when a start was cut off */
  struct answers held[IMAGES];  /* as the life began */
  bool copied[IMAGES];          /* to, by its own record: it has nothing of its own */
  bool descends[IMAGES];        /* by its own record, from that of the state directory */
  struct {
    bool is_there;
    uint32_t home, image;
    struct line home_line, line;
    struct answers heard, kept;
    uint8_t home_bytes[RECORD_AREA_BYTES], data[MIB], meta[META_MAX];
  } backup;                      /* of a state directory and of an image */
  struct answers synced[IMAGES]; /* given up by a command of this life */
  uint32_t home, next, count;
  uint32_t here;        /* images, a bit each */
  struct answers never; /* what was written there was not answered */
  bool fractured;       /* it is for the administrator to bring one back */
  bool one_home;        /* no state directory was copied yet */
  bool cut_off;         /* a forced start, or what was recorded before it: an image may count as written apart */
  char what[128];
  uint32_t late;    /* images that come during the life */
  bool troubled;    /* disks failed in this life */
  uint32_t happens; /* enum happening, a bit each */
} s;

/* ---- small things ---- */

static uint32_t pick(uint32_t n) { /* SplitMix64 */
  uint64_t z = s.random += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return (uint32_t)((z ^ z >> 31) >> 33) % n;
}

static void tell(const char *format, ...) {
  if (!s.tells) return;
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
}

static void add(struct answers *to, const struct answers *from) {
  for (uint32_t k = 0; k < ANSWERS / 64; k++) to->bits[k] |= from->bits[k];
}

static void take(struct answers *from, const struct answers *what) {
  for (uint32_t k = 0; k < ANSWERS / 64; k++) from->bits[k] &= ~what->bits[k];
}

static int first_of(const struct answers *answers) {
  for (uint32_t k = 0; k < ANSWERS; k++)
    if (answers->bits[k / 64] >> k % 64 & 1) return (int)k;
  return -1;
}

static struct answers held_by(uint32_t i) {
  struct answers answers = {0};
  for (uint32_t k = 0; k < ANSWERS; k++) {
    const uint8_t *at = w.data[i].bytes + (uint64_t)k * PLACE;
    bool marked = true;
    for (uint32_t b = 0; b < 16; b++) marked &= at[b] == MARK;
    if (marked) answers.bits[k / 64] |= UINT64_C(1) << k % 64;
  }
  return answers;
}

static struct record newest_record(const uint8_t *bytes) {
  struct record slots[2];
  bool good[2];
  for (uint32_t k = 0; k < 2; k++) {
    good[k] = record_decode(&slots[k], bytes + k * RECORD_SLOT_BYTES) == TARN_OK;
    if (!good[k]) slots[k] = (struct record){0}; /* of a state directory that is lost */
  }
  return slots[!good[0] || (good[1] && slots[1].sequence > slots[0].sequence)];
}

static bool happens(enum happening what) { return s.happens >> what & 1; }

static bool is_here(uint32_t i) { return s.here >> i & 1; }

static bool is_current(uint32_t i) { return is_here(i) && world_image(&w, i).state == IMAGE_SYNCHRONIZED; }

static bool is_apart(uint32_t i) {
  return !is_current(i) && strstr(world_image(&w, i).reason, "written apart") != NULL;
}

/* What `needed` has and was not given up is all in `there`. */
static void check_none_missing(struct answers needed, const struct answers *there, const struct answers *let_go,
                               const struct answers *more, const char *what, uint32_t which) {
  take(&needed, there);
  take(&needed, let_go);
  take(&needed, more);
  take(&needed, &s.never);
  int lost = first_of(&needed);
  if (lost >= 0) fail_msg("%s: answer %d, which %s %u had, is gone", s.what, lost, what, which);
}

/* ---- a life ---- */

static uint32_t online_now(void) {
  uint32_t mask = 0;
  for (uint32_t i = 0; i < s.count; i++) {
    enum image_state state = world_image(&w, i).state;
    if (is_here(i) && (state == IMAGE_SYNCHRONIZED || state == IMAGE_SYNCHRONIZING)) mask |= 1u << i;
  }
  return mask;
}

static void left_since(uint32_t before, const struct line *line) {
  uint32_t left = before & ~online_now();
  for (uint32_t i = 0; i < s.count; i++)
    if (left >> i & 1) {
      tell(" (%c left)", 'a' + i);
      s.images[i] = *line;
    }
}

static void write_some(struct line *line) {
  for (uint32_t n = pick(3); n > 0 && s.next < ANSWERS; n--) {
    uint32_t k = s.next++;
    struct line was = *line;
    uint32_t before = online_now();
    tarn_err err = client_do(&w, DISK_WRITE, (uint64_t)k * PLACE, PLACE, MARK);
    if (err != TARN_OK && !s.troubled) fail_msg("%s: a write fails", s.what);
    tell(" write %u%s", k, err == TARN_OK ? "" : " fails");
    left_since(before, &was);
    if (err == TARN_OK) line->given.bits[k / 64] |= UINT64_C(1) << k % 64;
    else s.never.bits[k / 64] |= UINT64_C(1) << k % 64;
  }
  uint32_t before = online_now();
  tarn_err err = world_flush(&w);
  if (!s.troubled) assert_int_equal(err, TARN_OK);
  left_since(before, line);
}

static void end_trouble(void) {
  w.home.fails = 0;
  for (uint32_t i = 0; i < s.count; i++) w.meta[i].fails = w.data[i].fails = 0;
}

static void trouble(struct line *line) {
  s.troubled = true;
  uint32_t i = pick(s.count), what = pick(4);
  if (what == 0 || what == 3) w.home.fails = RAM_WRITES;
  if (what == 1 || what == 3) w.meta[i].fails = RAM_WRITES;
  if (what == 2) w.data[i].fails = RAM_WRITES;
  tell(" [trouble %s%s%s %c", w.home.fails ? "home " : "", w.meta[i].fails ? "meta" : "", w.data[i].fails ? "data" : "",
       'a' + i);
  uint32_t before = online_now();
  struct line was = *line;
  if (pick(3) == 0) {
    uint32_t x = pick(s.count), current = 0;
    for (uint32_t k = 0; k < s.count; k++) current += is_current(k);
    if (is_current(x) && current >= 2) {
      tell(" %c fails", 'a' + x);
      mirror_image_failed(w.m, x, "a test");
    }
  }
  write_some(line);
  if (pick(2)) world_pass(&w, 3 * NS_PER_S);
  if (pick(2)) end_trouble();
  write_some(line);
  end_trouble();
  world_pass(&w, 5 * NS_PER_S);
  left_since(before, &was);
  tell("]");
}

static void let_out(uint32_t i, const struct line *line) {
  uint32_t current = 0;
  for (uint32_t k = 0; k < s.count; k++) current += is_current(k);
  if (!is_current(i) || current < 2) return;
  tell(" %c fails", 'a' + i);
  s.images[i] = *line;
  mirror_image_failed(w.m, i, "a test");
}

/* Those that are wanted back, for as long as it takes. */
static void bring_back(uint32_t steps) {
  for (uint32_t step = 0; step < steps; step++) {
    world_pass(&w, 2 * NS_PER_S);
    for (uint32_t i = 0; i < s.count; i++) {
      if (!(w.reopened & 1u << i)) continue;
      w.reopened &= ~(1u << i);
      mirror_image_reopened(w.m, i, &w.config.images[i]);
    }
  }
}

/* A command for one that is here. What only it has is given up by a sync. */
static void command(uint32_t i, struct line *line) {
  static const struct {
    enum mirror_image_op op;
    const char *text;
  } commands[] = {{IMAGE_OP_FRACTURE, "fracture"}, {IMAGE_OP_RESTORE, "restore"}, {IMAGE_OP_SYNC, "sync"}};
  uint32_t k = pick(COUNT_OF(commands));
  if (!is_here(i)) return;
  bool was_current = is_current(i);
  mirror_image_do(w.m, i, commands[k].op, false, world_done, &w);
  for (uint32_t step = 0; step < 1000 && !w.done; step++) {
    world_pass(&w, NS_PER_S / 10);
    if (!(w.reopened & 1u << i)) continue;
    w.reopened &= ~(1u << i);
    mirror_image_reopened(w.m, i, &w.config.images[i]);
  }
  assert_int_not_equal(w.done, false);
  w.done = false;
  tell(" %s %c: %s", commands[k].text, 'a' + i, w.err == TARN_OK ? "ok" : w.why);
  if (w.err != TARN_OK) return;
  if (commands[k].op == IMAGE_OP_FRACTURE && was_current) {
    s.images[i] = *line;
    s.fractured = true;
  }
  if (commands[k].op != IMAGE_OP_SYNC) return;
  struct answers given_up = held_by(i);
  add(&given_up, &s.held[i]);
  add(&s.synced[i], &given_up);
  memset(&s.kept[i], 0, sizeof s.kept[i]);
}

/* As somebody leaves, or something is written that is not answered: some of it lands. */
static void die_recording(struct line *line, bool stops) {
  uint32_t written = UINT32_MAX;
  struct ram_disk *stores[IMAGES + 1] = {&w.home};
  for (uint32_t i = 0; i < s.count; i++) stores[i + 1] = &w.meta[i];
  for (uint32_t k = 0; k <= s.count; k++)
    if (pick(2)) stores[k]->holds = RAM_WRITES;
  static struct client_io write;
  memset(&write, 0, sizeof write);
  if (pick(2) && s.next < ANSWERS) {
    uint32_t k = s.next++;
    written = k;
    tell(" write %u, and", k);
    client_begin(&w, &write, DISK_WRITE, (uint64_t)k * PLACE, PLACE, MARK);
  }
  if (stops) {
    uint32_t x = pick(s.count);
    tell(" stopping, data %c fails", 'a' + x);
    w.data[x].fails = RAM_WRITES;
    if (pick(2)) world_run(&w);
    mirror_deactivate(w.m, false, world_done, &w);
  } else let_out(pick(s.count), line);
  uint32_t most = pick(3) ? 12 : 60;
  for (uint32_t n = pick(most); n > 0; n--) {
    world_run(&w);
    struct ram_disk *store = stores[pick(s.count + 1)];
    if (store->held_count > 0) ram_answer(store);
  }
  if (written != UINT32_MAX) {
    if (write.done && write.io.err == TARN_OK) {
      tell(" (answered)");
      uint32_t on = online_now();
      line->given.bits[written / 64] |= UINT64_C(1) << written % 64;
      for (uint32_t i = 0; i < s.count; i++)
        if (on >> i & 1) s.images[i].given.bits[written / 64] |= UINT64_C(1) << written % 64;
    } else s.never.bits[written / 64] |= UINT64_C(1) << written % 64;
  }
  world_die(&w);
  w.done = false;
  end_trouble();
  for (uint32_t k = 0; k <= s.count; k++) stores[k]->holds = 0;
}

/* What is served, by an image that is current. */
static uint32_t served_by(void) {
  for (uint32_t i = 0; i < s.count; i++)
    if (is_current(i)) return i;
  fail_msg("%s: nobody is current", s.what);
  return 0;
}

/* By force: what this state directory, or an image that is here, knows of, and the one that is used has not. */
static struct answers given_up(const struct answers *served) {
  struct answers all = s.homes[s.home].line.given;
  add(&all, &s.homes[s.home].heard);
  for (uint32_t i = 0; i < s.count; i++) {
    if (!is_here(i)) continue;
    add(&all, &s.held[i]);
    add(&all, &s.images[i].given);
    add(&all, &s.heard[i]);
  }
  take(&all, served);
  return all;
}

static void check_equal(void) {
  uint32_t served = served_by();
  for (uint32_t i = 0; i < s.count; i++)
    if (is_current(i) && memcmp(w.data[i].bytes, w.data[served].bytes, MIB) != 0)
      fail_msg("%s: images %u and %u are not equal", s.what, served, i);
}

/* Nothing is gone that was not given up. */
static void check_kept(const struct line *line) {
  for (uint32_t i = 0; i < s.count; i++) {
    struct answers now = held_by(i), let_go = line->let_go;
    add(&let_go, &s.images[i].let_go);
    take(&let_go, &s.kept[i]);
    add(&let_go, &s.synced[i]);
    check_none_missing(s.held[i], &now, &let_go, &let_go, "image", i);
  }
}

static void check_newest(const struct line *line, const struct answers *served) {
  const struct line *home = &s.homes[s.home].line;
  check_none_missing(home->given, served, &line->let_go, &home->let_go, "state directory", s.home);
  for (uint32_t i = 0; i < s.count; i++)
    if (is_here(i) && (!is_apart(i) || s.descends[i]) && !s.copied[i])
      check_none_missing(s.images[i].given, served, &line->let_go, &s.images[i].let_go, "image", i);
}

static void remember_home(const struct line *line) {
  memcpy(s.homes[s.home].bytes, w.home.bytes, RECORD_AREA_BYTES);
  s.homes[s.home].line = *line;
}

static void serve(bool forced) {
  uint32_t source = served_by();
  struct answers served = s.held[source];
  struct line line = {.given = served, .let_go = s.images[source].let_go};
  add(&line.let_go, &s.homes[s.home].line.let_go);
  if (forced) {
    struct answers more = given_up(&served), before = line.let_go;
    add(&line.let_go, &more);
    for (uint32_t i = 0; i < s.count; i++) {
      if (!is_here(i)) continue;
      memset(&s.kept[i], 0, sizeof s.kept[i]);
      if (is_apart(i)) s.kept[i] = s.held[i];
      take(&s.kept[i], &before);
    }
  }
  tell(" %c is served", 'a' + source);
  for (uint32_t i = 0; i < s.count; i++)
    if (is_here(i) && !is_current(i)) tell(" (%c: %s)", 'a' + i, world_image(&w, i).reason);
  if (!forced) check_newest(&line, &served);
  for (uint32_t step = 0; step < 3; step++) {
    write_some(&line);
    uint32_t what = pick(8);
    if (what < 2) let_out(pick(s.count), &line);
    if (what == 2) command(pick(s.count), &line);
    if (s.late && pick(2)) {
      for (uint32_t i = 0; i < s.count; i++)
        if (s.late >> i & 1) {
          tell(" %c comes", 'a' + i);
          world_give_back(&w, i);
          s.here |= 1u << i;
        }
      s.late = 0;
    }
    if (happens(DISKS_FAIL) && pick(4) == 0) trouble(&line);
    if (what > 4) bring_back(pick(4) ? 10 : 60);
  }
  if (s.one_home && !s.troubled && !s.cut_off && !s.fractured && s.here == (1u << s.count) - 1 &&
      w.limits.history == mirror_limits_default.history) {
    bring_back(300);
    for (uint32_t i = 0; i < s.count; i++)
      if (!is_current(i)) fail_msg("%s: image %u does not come back: %s", s.what, i, world_image(&w, i).reason);
  }
  check_kept(&line);
  bool online[IMAGES];
  for (uint32_t i = 0; i < s.count; i++) {
    enum image_state state = world_image(&w, i).state;
    online[i] = is_here(i) && (state == IMAGE_SYNCHRONIZED || state == IMAGE_SYNCHRONIZING);
  }
  for (uint32_t i = 0; i < s.count; i++)
    if (w.reopened >> i & 1) mirror_image_reopened(w.m, i, &w.config.images[i]);
  w.reopened = 0;
  bool dies = pick(3) == 0;
  if (!dies && pick(2) == 0) bring_back(10);
  if (!dies) check_equal();
  for (uint32_t i = 0; i < s.count; i++)
    if (online[i] || (is_here(i) && is_current(i))) s.images[i] = line;
  if (dies && pick(2)) die_recording(&line, happens(A_STOP_IS_CUT_OFF) && pick(2));
  else if (dies) world_die(&w);
  else world_deactivate(&w);
  tell(dies ? " dies\n" : " stops\n");
  check_kept(&line);
  remember_home(&line);
}

/* Some of what it writes lands. */
static void die_starting(const struct mirror_activation *how) {
  struct ram_disk *stores[IMAGES + 1] = {&w.home};
  for (uint32_t i = 0; i < s.count; i++) stores[i + 1] = &w.meta[i];
  for (uint32_t k = 0; k <= s.count; k++)
    if (pick(2)) stores[k]->holds = RAM_WRITES;
  tell(" dies as it starts\n");
  mirror_activate(w.m, how, world_done, &w);
  for (uint32_t n = pick(12); n > 0; n--) {
    world_run(&w);
    struct ram_disk *store = stores[pick(s.count + 1)];
    if (store->held_count > 0) ram_answer(store);
  }
  world_die(&w);
  w.done = false;
  for (uint32_t k = 0; k <= s.count; k++) stores[k]->holds = 0;
  struct answers none = {0}, all = given_up(&none);
  struct answers let_go = s.homes[s.home].line.let_go;
  for (uint32_t i = 0; i < s.count; i++)
    if (is_here(i)) add(&let_go, &s.images[i].let_go);
  add(&s.homes[s.home].line.let_go, &let_go); /* they may be of one line now */
  for (uint32_t i = 0; i < s.count; i++) {
    if (!is_here(i)) continue;
    add(&s.images[i].let_go, &let_go);
    add(&s.heard[i], &all);
  }
  struct line *home = &s.homes[s.home].line;
  add(&s.homes[s.home].heard, &all);
  s.cut_off |= how->force;
  if (how->force) add(&home->let_go, &all);
  for (uint32_t i = 0; i < s.count; i++) {
    if (!is_here(i)) continue;
    if (how->force) add(&s.images[i].let_go, &all);
  }
  memcpy(s.homes[s.home].bytes, w.home.bytes, RECORD_AREA_BYTES);
}

static void tell_record(const char *whose, const struct record *r) {
  tell("  %s: generation %llu.%03llx settled %llu sequence %llu completed %llu%s", whose,
       (unsigned long long)r->generation.number, (unsigned long long)r->generation.id >> 52,
       (unsigned long long)r->settled_number, (unsigned long long)r->sequence, (unsigned long long)r->completed,
       r->clean ? " clean;" : ";");
  for (uint32_t i = 0; i < s.count; i++) tell(" %c %s", 'a' + i, image_state_name(r->images[i].state));
  tell("; before");
  for (uint32_t h = 0; h < 6 && r->history[h].number != 0; h++)
    tell(" %llu.%03llx", (unsigned long long)r->history[h].number, (unsigned long long)r->history[h].id >> 52);
  tell("\n");
}

static void tell_records(void) {
  if (!s.tells) return;
  struct record r = newest_record(w.home.bytes);
  tell_record("home", &r);
  for (uint32_t i = 0; i < s.count; i++) {
    r = newest_record(w.meta[i].bytes);
    tell_record((char[]){(char)('a' + i), 0}, &r);
  }
}

static bool descends(const struct record *r, const struct generation *from) {
  bool found = r->generation.number == from->number && r->generation.id == from->id;
  if (from->number == 0) return false;
  for (uint32_t h = 0; h < HISTORY_MAX; h++)
    found |= r->history[h].number == from->number && r->history[h].id == from->id;
  return found;
}

/* Of one node: its state directory, and an image there. */
static void back_up(void) {
  uint32_t i = s.backup.image = pick(s.count), h = s.backup.home = s.home;
  uint64_t bytes = mirror_meta_bytes(&w.config);
  require(bytes <= META_MAX);
  tell("backup of home %u and %c\n", h, 'a' + i);
  s.backup.is_there = true;
  s.backup.home_line = s.homes[h].line;
  s.backup.line = s.images[i];
  s.backup.heard = s.heard[i];
  s.backup.kept = s.kept[i];
  memcpy(s.backup.home_bytes, s.homes[h].bytes, RECORD_AREA_BYTES);
  memcpy(s.backup.data, w.data[i].bytes, MIB);
  memcpy(s.backup.meta, w.meta[i].bytes, bytes);
}

static void put_back_image(void) {
  uint32_t i = s.backup.image;
  if (!s.backup.is_there) return;
  tell("%c is put back\n", 'a' + i);
  s.one_home = false;
  s.images[i] = s.backup.line;
  s.heard[i] = s.backup.heard;
  s.kept[i] = s.backup.kept;
  memcpy(w.data[i].bytes, s.backup.data, MIB);
  memcpy(w.meta[i].bytes, s.backup.meta, mirror_meta_bytes(&w.config));
}

static void put_back(void) {
  uint32_t h = s.backup.home;
  if (!s.backup.is_there) return;
  tell("home %u is put back, and ", h);
  s.homes[h].line = s.backup.home_line;
  memcpy(s.homes[h].bytes, s.backup.home_bytes, RECORD_AREA_BYTES);
  put_back_image();
}

static void live(void) {
  struct mirror_activation how = {0};
  s.here = s.late = 0;
  s.troubled = false;
  while (s.here == 0) s.here = pick(3) == 0 ? (1u << s.count) - 1 : pick(1u << s.count);
  memcpy(w.home.bytes, s.homes[s.home].bytes, RECORD_AREA_BYTES);
  struct record home = newest_record(w.home.bytes);
  for (uint32_t i = 0; i < s.count; i++) {
    s.held[i] = held_by(i);
    struct record own = newest_record(w.meta[i].bytes);
    s.descends[i] = descends(&own, &home.generation);
    s.copied[i] = own.images[i].state != IMAGE_SYNCHRONIZED;
    s.synced[i] = s.copied[i] ? s.held[i] : (struct answers){0};
    if (is_here(i)) world_give_back(&w, i);
    else world_take_away(&w, i);
  }
  uint32_t command = pick(8);
  how.force = command < 3;
  how.promote = command == 0;
  s.cut_off |= how.force && home.generation.number > home.settled_number;
  while (how.promote && !is_here(how.image)) how.image = pick(s.count);
  if (happens(IMAGES_COME_LATE))
    for (uint32_t i = 0; i < s.count; i++)
      if (!is_here(i) && pick(3) == 0) s.late |= 1u << i;
  tell_records();
  tell("home %u, here", s.home);
  for (uint32_t i = 0; i < s.count; i++)
    if (is_here(i)) tell(" %c", 'a' + i);
  tell(how.promote ? ", promote %c by force:" : how.force ? ", by force:" : ":", 'a' + how.image);
  w.reopened = 0;
  w.log[0] = 0;
  world_open(&w);
  if (pick(6) == 0) {
    die_starting(&how);
    return;
  }
  mirror_activate(w.m, &how, world_done, &w);
  tarn_err err = world_wait(&w);
  if (err == TARN_OK) {
    serve(how.force);
    return;
  }
  tell(" refused: %s\n", w.why);
  if (how.promote) fail_msg("%s: a promotion by force is refused: %s", s.what, w.why);
  if (s.one_home && !s.cut_off && s.here == (1u << s.count) - 1)
    fail_msg("%s: refused, though all is here: %s", s.what, w.why);
  world_close(&w);
  memcpy(s.homes[s.home].bytes, w.home.bytes, RECORD_AREA_BYTES);
}

static void run_history(uint32_t number) {
  memset(&s, 0, sizeof s);
  s.random = number;
  s.tells = getenv("LINES_TELL") != NULL;
  s.count = 2 + pick(2);
  s.happens = pick(1u << HAPPENINGS);
  s.one_home = true;
  snprintf(s.what, sizeof s.what, "history %u", number);
  tell("history %u\n", number);
  world_init(&w, s.count, MIB, 512);
  if (pick(4) == 0) w.limits = mirror_limits_tiny;
  w.limits.witnesses = 0;
  world_format(&w);
  world_settle(&w);
  world_deactivate(&w);
  bool alone = pick(3) == 0; /* one state directory, for ever */
  for (uint32_t h = 0; h < HOMES; h++) memcpy(s.homes[h].bytes, w.home.bytes, RECORD_AREA_BYTES);
  for (uint32_t n = 0; n < LIVES; n++) {
    if (!alone && pick(3) == 0) {
      uint32_t other = pick(HOMES);
      s.one_home &= other == s.home;
      s.home = other;
    }
    if (!alone && pick(4) == 0) {
      uint32_t from = pick(HOMES), to = pick(HOMES);
      s.homes[to] = s.homes[from];
      s.one_home &= from == to;
      if (from != to) tell("home %u is copied to %u\n", from, to);
    }
    if (!alone && pick(8) == 0) back_up();
    if (!alone && pick(8) == 0) put_back();
    if (!alone && happens(AN_IMAGE_IS_PUT_BACK) && pick(6) == 0) put_back_image();
    if (!alone && happens(HOMES_ARE_LOST) && pick(8) == 0) {
      tell("home %u is lost\n", s.home);
      s.one_home = false;
      memset(&s.homes[s.home], 0, sizeof s.homes[s.home]);
    }
    live();
  }
  world_end(&w);
}

static void histories(void **state) {
  (void)state;
  uint32_t from = 1, to = 60;
  const char *asked = getenv("LINES");
  if (asked) assert_int_equal(sscanf(asked, "%u-%u", &from, &to), 2);
  for (uint32_t number = from; number <= to; number++) run_history(number);
}

int main(void) {
  const struct CMUnitTest tests[] = {WORLD_TEST(histories)};
  return cmocka_run_group_tests_name("mirror_lines", tests, NULL, NULL);
}
