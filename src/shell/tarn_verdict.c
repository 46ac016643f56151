/* tarn_verdict.c - the part of `tarn status` that is read at three in the morning: one line that says whether anything is
 * wrong, and for each mirror that is not well a paragraph
 *
 *     mirror vol0: ONE COPY LEFT
 *       wrong      image b is out since 02:11:04 (14 min): a write failed
 *       at risk    the disk of image a is the only good copy: losing it loses what was written since 02:11:04
 *       by itself  image b is tried again in 40 s; then what it missed (4.1M) is copied to it
 *       to do      see to /srv/b.img; then, if you cannot wait: tarn image restore vol0 b
 *
 * All of it comes from the document of `tarn status --json`: whoever has a program that watches Tarn can say the same. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/require.h"
#include "base/text.h"
#include "shell/tarn.h"
#include "shell/words.h"

#define LABEL_CELLS 13 /* "  by itself  " */
#define SAY_TEXT    6000

static bool is(const json_t *json, const char *key, const char *word) { return strcmp(text_of(json, key), word) == 0; }

/* ---- what is the matter with a mirror: from the best to the worst ---- */

enum matter {
  MATTER_NONE,
  MATTER_IDLE,       /* INACTIVE, as somebody wanted it */
  MATTER_VERIFY,     /* being compared */
  MATTER_ERRORS,     /* all copies are good, but a disk could not read something */
  MATTER_HELD,       /* INACTIVE, and cannot be activated before a disk has answered */
  MATTER_UNCLEAN,    /* INACTIVE, and its copies may differ where something was being written */
  MATTER_RECOVERY,   /* copies are being made equal after a crash */
  MATTER_COPYING,    /* an image is being copied to; two or more are good */
  MATTER_FEWER,      /* an image is out; two or more are good */
  MATTER_LAST_COPY,  /* one is good, of several */
  MATTER_LOG_OFF,    /* the intent log was switched off */
  MATTER_STATE,      /* the state directory cannot be written */
  MATTER_DIFFERS,    /* verify found places where the images do not agree */
  MATTER_UNKNOWN,    /* not served, and nobody has said where the disk of an image is, which may be the newest */
  MATTER_UNWRITTEN,  /* what failed on the last good image cannot be written again */
  MATTER_UNREADABLE, /* data is lost on all images */
  MATTER_ATTENTION,
};

/* Copies, counted. */
struct copies {
  uint32_t all, good, out, copying, unknown /* without a record */, no_disk /* of unknown disks */;
  const json_t *last_good; /* one of them */
  const json_t *first_bad; /* one that is not */
  uint64_t read_errors;    /* of good ones */
  const char *next_best;   /* until when the newest of the others was equal; NULL: none of them is of use */
};

static bool is_unknown(const json_t *image) { return json_is_true(json_object_get(image, "disk_unknown")); }
static bool is_good(const json_t *image) {
  return is(image, "state", "SYNCHRONIZED") && !text_of(image, "missing")[0] && !is_unknown(image);
}
static bool is_copied_to(const json_t *image) { return is(image, "state", "SYNCHRONIZING"); }

/* Times of one form sort as texts. What is being copied to, or never was complete, is of no moment. */
static const char *left_at(const json_t *image) {
  const char *moment = text_of(json_object_get(image, "moment"), "time");
  if (moment[0]) return moment;
  return is_copied_to(image) || is(image, "missing", "fractured") ? "" : text_of(image, "out_since");
}

/* Since when it is out, or fractured. */
static const char *out_at(const json_t *image) {
  const char *left = is(image, "missing", "fractured") ? left_at(image) : "";
  return left[0] ? left : text_of(image, "out_since");
}

static struct copies copies_count(const json_t *mirror) {
  struct copies copies = {.all = 0};
  size_t index;
  json_t *image;
  json_array_foreach(json_object_get(mirror, "images"), index, image) {
    copies.all++;
    copies.no_disk += is_unknown(image);
    if (is_good(image)) {
      copies.good++;
      copies.last_good = image;
      copies.read_errors += number_of(image, "read_errors");
      continue;
    }
    if (!text_of(image, "state")[0]) {
      copies.unknown++;
      continue;
    }
    if (!copies.first_bad) copies.first_bad = image;
    if (is_copied_to(image)) copies.copying++;
    else copies.out++;
    const char *left = left_at(image);
    if (left[0] && (!copies.next_best || strcmp(left, copies.next_best) > 0)) copies.next_best = left;
  }
  return copies;
}

static uint64_t unreadable_of(const json_t *mirror) {
  return number_of(json_array_get(json_object_get(mirror, "images"), 0), "unreadable_bytes");
}
static bool is_recovering(const json_t *mirror) {
  return json_is_true(json_object_get(json_object_get(mirror, "last_recovery"), "running"));
}

static bool is_unclean(const json_t *mirror) { return json_is_true(json_object_get(mirror, "unclean")); }

/* It is closed, as far as it can be: a disk still has requests. */
static bool is_held(const json_t *mirror) {
  return is(mirror, "state", "INACTIVE") && strstr(text_of(mirror, "reason"), "a disk has not answered");
}

static enum matter matter_of(const json_t *mirror, const struct copies *copies) {
  if (is(mirror, "state", "ATTENTION")) return MATTER_ATTENTION;
  if (unreadable_of(mirror) > 0) return MATTER_UNREADABLE;
  if (text_of(mirror, "recovery_waits_for")[0]) return MATTER_UNWRITTEN;
  if (copies->no_disk > 0 && is(mirror, "state", "INACTIVE")) return MATTER_UNKNOWN;
  if (json_is_object(json_object_get(mirror, "differs")) && copies->all > 1) return MATTER_DIFFERS;
  if (json_is_true(json_object_get(mirror, "state_unwritable"))) return MATTER_STATE;
  if (json_is_true(json_object_get(mirror, "log_off"))) return MATTER_LOG_OFF;
  if (is_recovering(mirror) && copies->out == 0) return MATTER_RECOVERY;
  if (copies->unknown == copies->all && copies->all > 0) return MATTER_UNCLEAN;
  if (copies->out == 0 && is_held(mirror)) return MATTER_HELD;
  if (is_unclean(mirror) && copies->out == 0 && copies->all > 1) return MATTER_UNCLEAN;
  if (copies->good < copies->all && copies->good <= 1) return MATTER_LAST_COPY;
  if (copies->out > 0) return MATTER_FEWER;
  if (copies->copying > 0) return MATTER_COPYING;
  if (copies->read_errors > 0) return MATTER_ERRORS;
  if (json_is_object(json_object_get(mirror, "verify"))) return MATTER_VERIFY;
  return is(mirror, "state", "INACTIVE") ? MATTER_IDLE : MATTER_NONE;
}

/* ---- times ---- */

static bool time_read(const char *text, time_t *out) {
  struct tm parts = {.tm_year = 0};
  char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &parts);
  *out = end ? timegm(&parts) : 0;
  return end != NULL;
}

#define SINCE_TEXT 64
/* "02:11:04", or with the day if that is another one; of where the reader is. */
static const char *clock_text(const char *iso, const char *now_iso, char *out) {
  time_t then, now;
  struct tm parts, today;
  snprintf(out, SINCE_TEXT, "%.40s", iso);
  if (!time_read(iso, &then) || !time_read(now_iso, &now)) return out;
  localtime_r(&then, &parts);
  localtime_r(&now, &today);
  bool same_day = parts.tm_year == today.tm_year && parts.tm_yday == today.tm_yday;
  strftime(out, SINCE_TEXT, same_day ? "%H:%M:%S" : "%Y-%m-%d %H:%M", &parts);
  return out;
}

/* " since 02:11:04 (14 min)"; nothing when that is not known. */
static const char *since_text(const char *iso, const char *now_iso, char *out) {
  time_t then, now;
  char clock[SINCE_TEXT], ago[DURATION_TEXT];
  out[0] = 0;
  if (!time_read(iso, &then) || !time_read(now_iso, &now)) return out;
  uint64_t seconds = now > then ? (uint64_t)(now - then) : 0;
  snprintf(out, SINCE_TEXT, " since %.30s (%s)", clock_text(iso, now_iso, clock), duration_text(seconds, ago));
  return out;
}

/* ---- lines ---- */

static const char *colour_of(enum matter matter) {
  return matter >= MATTER_LAST_COPY ? "\033[1;31m" : matter > MATTER_VERIFY ? "\033[1;33m" : "\033[1;32m";
}
static const char *paint(const struct look *look, const char *colour) { return look->colour ? colour : ""; }

/* A line with a label, wrapped between words under its first. */
__attribute__((format(printf, 4, 5))) static void say(FILE *out, const struct look *look, const char *label,
                                                      const char *format, ...) {
  char *text = malloc(SAY_TEXT);
  require(text != NULL);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, SAY_TEXT, format, arguments);
  va_end(arguments);
  text_printable(text);
  fprintf(out, "  %s%-9s%s  ", paint(look, "\033[1m"), label, paint(look, "\033[0m"));
  size_t room = look->width > LABEL_CELLS + 30 ? look->width - LABEL_CELLS - 1 : SAY_TEXT;
  const char *at = text;
  while (strlen(at) > room) {
    size_t cut = room;
    while (cut > 0 && at[cut] != ' ') cut--;
    if (cut == 0) cut = strcspn(at, " "); /* one word that is longer than a line */
    fprintf(out, "%.*s\n%*s", (int)cut, at, LABEL_CELLS, "");
    at += cut + strspn(at + cut, " ");
  }
  fprintf(out, "%s\n", at);
  free(text);
}

static const char *first_disk(const json_t *image) {
  const char *path = json_string_value(json_array_get(json_object_get(image, "disks"), 0));
  return path ? path : "its disk";
}

/* What is known of why: the core's reason, and what the system said of its files. */
static const char *why_of(const json_t *image, char *out, size_t bytes) {
  const char *reason = text_of(image, "reason"), *error = text_of(image, "error");
  bool both = reason[0] && error[0] && strcmp(reason, error) != 0;
  snprintf(out, bytes, "%s%s%s", reason, both ? "; " : "", both || !reason[0] ? error : "");
  return out;
}

/* ---- images that are not good ---- */

/* What a paragraph is about. */
struct topic {
  FILE *out;
  const struct look *look;
  const json_t *mirror;
  const char *name, *now;
  struct copies copies;
};

static void copying_wrong(const struct topic *topic, const json_t *image) {
  const json_t *sync = json_object_get(image, "sync");
  uint64_t done = number_of(sync, "done_bytes"), total = number_of(sync, "total_bytes"),
           speed = number_of(sync, "bytes_per_second");
  char done_text[SIZE_TEXT], total_text[SIZE_TEXT], speed_text[SIZE_TEXT], left[DURATION_TEXT], how[200] = "";
  const char *waiting = text_of(sync, "waiting_for");
  if (speed > 0)
    snprintf(how, sizeof how, ", %s/s, done in %s", size_text(speed, speed_text),
             duration_text(number_of(sync, "eta_seconds"), left));
  if (waiting[0] && strcmp(waiting, "its rate limit") != 0) snprintf(how, sizeof how, "; it waits for %.80s", waiting);
  say(topic->out, topic->look, "wrong", "image %s is not complete yet: %s is being copied to it, %.0f%% (%s of %s)%s",
      text_of(image, "name"),
      is(sync, "kind", "full")     ? "everything"
      : is(sync, "kind", "intent") ? "what was being written at the crash"
                                   : "what it missed",
      total > 0 ? (double)done * 100 / (double)total : 0, size_text(done, done_text), size_text(total, total_text),
      how);
}

/* How far it is behind is known while the mirror is open. */
static void fractured_wrong(const struct topic *topic, const json_t *image, const char *since, const char *why) {
  const json_t *missed = json_object_get(image, "missed_bytes");
  char size[SIZE_TEXT], behind[SIZE_TEXT + 32] = "";
  if (json_is_integer(missed) && json_integer_value(missed) == 0)
    snprintf(behind, sizeof behind, ", and has missed nothing");
  else if (json_is_integer(missed))
    snprintf(behind, sizeof behind, ", and is %s behind", size_text((uint64_t)json_integer_value(missed), size));
  if (is(image, "state", "CONSISTENT"))
    say(topic->out, topic->look, "wrong", "image %s is fractured%s: it stays as it was then%s", text_of(image, "name"),
        since, behind);
  else if (why[0] && strncmp(why, "it was fractured", 16) != 0) /* the core knows better */
    say(topic->out, topic->look, "wrong", "image %s is fractured%s, and is not what it was then: %s",
        text_of(image, "name"), since, why);
  else
    say(topic->out, topic->look, "wrong", "image %s is fractured%s: it was not whole then, and is of no use as a copy",
        text_of(image, "name"), since);
}

static void image_wrong(const struct topic *topic, const json_t *image) {
  char since[SINCE_TEXT], why[1200], held[80] = "";
  const char *name = text_of(image, "name");
  uint64_t requests = number_of(image, "held_requests");
  if (is_good(image)) return;
  if (is_copied_to(image) && json_is_object(json_object_get(image, "sync"))) {
    copying_wrong(topic, image);
    return;
  }
  since_text(out_at(image), topic->now, since);
  why_of(image, why, sizeof why);
  if (requests > 0)
    snprintf(held, sizeof held, "; it still holds %" PRIu64 " request%s", requests, requests == 1 ? "" : "s");
  if (is(image, "missing", "fractured")) fractured_wrong(topic, image, since, why);
  else if (text_of(image, "missing")[0])
    say(topic->out, topic->look, "wrong", "image %s is out%s: %s%s", name, since, why[0] ? why : "it failed", held);
  else
    say(topic->out, topic->look, "wrong", "image %s is no complete copy%s%s%s", name, since, why[0] ? ": " : "", why);
}

/* `restore` was refused (manager_reopen.c). */
static bool is_kept(const char *why) { return strstr(why, "if that may go, 'tarn image sync ") != NULL; }

/* `restore` may yet be refused. */
static bool may_be_kept(const char *why) {
  return strstr(why, "its file is another one than it was") || strstr(why, "that may go, 'tarn image sync'");
}

/* The command that an image waits for, which is not copied over by itself, whatever is tried; NULL: it waits for none. */
static const char *asks_for(const json_t *image) {
  char why[1200];
  if (text_of(image, "missing")[0] == 0) return NULL;
  why_of(image, why, sizeof why);
  if (strstr(why, "'tarn image sync' gives up") || is_kept(why)) return "sync";
  bool other = is(image, "missing", "failed") && may_be_kept(why);
  return other || strstr(why, "'tarn image restore' copies it in full") ? "restore" : NULL;
}

static void asked_to_do(const struct topic *topic, const json_t *image) {
  const char *name = text_of(image, "name"), *mirror = topic->name;
  char why[1200], sync[400] = "";
  why_of(image, why, sizeof why);
  if (is_kept(why)) {
    say(topic->out, topic->look, "to do",
        "put back what was there; or, if what is there now may go: tarn image sync %s %s", mirror, name);
    return;
  }
  if (may_be_kept(why))
    snprintf(sync, sizeof sync, "; where that is refused, and what is there now may go: tarn image sync %s %s", mirror,
             name);
  say(topic->out, topic->look, "to do",
      "put back what was there; or, if nothing is needed that only image %s has: tarn image %s %s %s copies it in "
      "full%s",
      name, asks_for(image), mirror, name, sync);
}

static void image_by_itself(const struct topic *topic, const json_t *image) {
  const json_t *soon = json_object_get(image, "return_in_seconds");
  char when[DURATION_TEXT], missed[SIZE_TEXT];
  const char *name = text_of(image, "name");
  if (is_good(image)) return;
  size_text(number_of(image, "missed_bytes"), missed);
  if (is_unknown(image)) say(topic->out, topic->look, "by itself", "nothing: the disk of image %s is unknown", name);
  else if (asks_for(image))
    say(topic->out, topic->look, "by itself", "nothing: image %s is not overwritten unasked", name);
  else if (is(image, "missing", "fractured"))
    say(topic->out, topic->look, "by itself", "nothing: image %s stays as it is until you restore it", name);
  else if (is_copied_to(image))
    say(topic->out, topic->look, "by itself", "the copy goes on, and image %s is good again at its end", name);
  else if (json_is_true(json_object_get(image, "returning")))
    say(topic->out, topic->look, "by itself", "the files of image %s are being opened again", name);
  else if (number_of(image, "held_requests") > 0)
    say(topic->out, topic->look, "by itself", "nothing, before the disk of image %s has answered%s", name,
        is(image, "return", "auto") ? "; then it comes back" : "");
  else if (text_of(topic->mirror, "busy")[0] && is(topic->mirror, "state", "INACTIVE"))
    say(topic->out, topic->look, "by itself", "the mirror %s; then image %s is seen to", text_of(topic->mirror, "busy"),
        name);
  else if (json_is_integer(soon))
    say(topic->out, topic->look, "by itself",
        "image %s is tried again in %s; if that works, what it missed (%s) is copied to it", name,
        duration_text((uint64_t)json_integer_value(soon), when), missed[0] == '0' ? "nothing so far" : missed);
  else if (is(topic->mirror, "state", "INACTIVE"))
    say(topic->out, topic->look, "by itself", "image %s is copied to once the mirror is active", name);
  else if (is(image, "missing", "failed") && is(image, "return", "manual"))
    say(topic->out, topic->look, "by itself", "nothing: image %s waits for you (its setting is return=manual)", name);
  else say(topic->out, topic->look, "by itself", "nothing, before you have done something about image %s", name);
}

static void image_to_do(const struct topic *topic, const json_t *image) {
  const char *name = text_of(image, "name"), *mirror = topic->name;
  bool busy = text_of(topic->mirror, "busy")[0] && is(topic->mirror, "state", "INACTIVE");
  if (is_good(image) || is_copied_to(image) || busy) return;
  if (is_unknown(image))
    say(topic->out, topic->look, "to do",
        "forget the image whose disk is unknown: tarn image remove %s %s; and add another: tarn image add %s PATH",
        mirror, name, mirror);
  else if (asks_for(image)) asked_to_do(topic, image);
  else if (is(image, "missing", "fractured"))
    say(topic->out, topic->look, "to do", "when you have done what you fractured it for: tarn image restore %s %s",
        mirror, name);
  else if (is(topic->mirror, "state", "INACTIVE"))
    say(topic->out, topic->look, "to do", "tarn mirror activate %s", mirror);
  else
    say(topic->out, topic->look, "to do",
        "see to %s; then: tarn image restore %s %s; if it is lost: tarn image add %s PATH, and tarn image remove %s %s",
        first_disk(image), mirror, name, mirror, mirror, name);
}

static void unclean_wrong(const struct topic *topic) {
  const char *reason = text_of(topic->mirror, "reason");
  say(topic->out, topic->look, "wrong", "%s",
      reason[0] ? reason : "it was stopped before all was equal; activation makes its images equal");
}

static void each_image(const struct topic *topic, void (*visit)(const struct topic *topic, const json_t *image)) {
  size_t index;
  json_t *image;
  json_array_foreach(json_object_get(topic->mirror, "images"), index, image) visit(topic, image);
}

/* ---- what is at risk ---- */

static void copies_risk(const struct topic *topic) {
  const struct copies *copies = &topic->copies;
  const char *good = text_of(copies->last_good, "name");
  char clock[SINCE_TEXT];
  if (copies->good >= 2) say(topic->out, topic->look, "at risk", "nothing yet: %u good copies are left", copies->good);
  else if (copies->good == 0) say(topic->out, topic->look, "at risk", "no image is a good copy");
  else if (copies->next_best)
    say(topic->out, topic->look, "at risk", "one copy left: losing image %s's disk loses data written since %s", good,
        clock_text(copies->next_best, topic->now, clock));
  else
    say(topic->out, topic->look, "at risk", "one copy left: losing image %s's disk loses all data of this mirror",
        good);
}

/* ---- ATTENTION ---- */

static void clients_risk(const struct topic *topic) {
  uint64_t clients = 0, waiting = number_of(topic->mirror, "waiting_requests");
  const json_t *fail = json_object_get(topic->mirror, "requests_fail_in_seconds");
  char left[DURATION_TEXT], requests[64] = "";
  size_t index;
  json_t *volume;
  json_array_foreach(json_object_get(topic->mirror, "volumes"), index, volume) clients += number_of(volume, "clients");
  if (waiting > 0) snprintf(requests, sizeof requests, " (%" PRIu64 " request%s)", waiting, waiting == 1 ? "" : "s");
  const char *who = clients == 1 ? "1 client is" : "clients are";
  if (clients == 0) say(topic->out, topic->look, "at risk", "the mirror is not served; no client is connected");
  else if (!json_is_integer(fail))
    say(topic->out, topic->look, "at risk", "%s connected, and waiting%s", who, requests);
  else if (json_integer_value(fail) == 0)
    say(topic->out, topic->look, "at risk", "%s connected, and all requests fail (ESHUTDOWN)", who);
  else
    say(topic->out, topic->look, "at risk", "%s connected, and waiting%s; in %s requests begin to fail (ESHUTDOWN)",
        who, requests, duration_text((uint64_t)json_integer_value(fail), left));
}

static void attention_by_itself(const struct topic *topic) {
  const json_t *retry = json_object_get(topic->mirror, "retry_in_seconds");
  char when[DURATION_TEXT];
  if (json_is_integer(retry))
    say(topic->out, topic->look, "by itself", "it is tried again in %s, and goes on when the cause is over",
        duration_text((uint64_t)json_integer_value(retry), when));
  else if (!json_is_true(json_object_get(topic->mirror, "auto")))
    say(topic->out, topic->look, "by itself", "nothing: its setting is auto=off");
  else if (strstr(text_of(topic->mirror, "reason"), "not answer"))
    say(topic->out, topic->look, "by itself", "it goes on when the disk answers");
  else if (strstr(text_of(topic->mirror, "reason"), "put it back"))
    say(topic->out, topic->look, "by itself", "it goes on when the file is back at its path");
  else say(topic->out, topic->look, "by itself", "nothing, before you have done something");
}

/* The remedy is in the cause; the cause is a sentence of the core (mirror_judge.c, mirror.c) or of the manager. The first that
 * fits; %s is the mirror's name, as often as it stands there. */
static const struct {
  const char *cause, *remedy;
} remedies[] = {
    {"is the metadata of image",
     "put each file back at its own path, with its metadata ('tarn image examine PATH' says whose it is); then: tarn "
     "mirror activate %s"},
    {"locked) by another process",
     "stop the process that has it open ('fuser -v FILE' names it; it may be another tarnd); then: tarn mirror "
     "activate "
     "%s"},
    {"/proc/",
     "do not stop tarnd, which alone still reaches the data: first put the file back, or copy it from that place; "
     "'tarn mirror "
     "deactivate %s' then gives the old file up"},
    {"state directory",
     "bring the state directory back, and see what became of its disk; then: tarn mirror activate %s"},
    {"max-missing", "bring images back, or go on with those that are left: tarn mirror set %s max-missing=-1"},
    {"min-images", "bring images back, or go on with those that are left: tarn mirror set %s min-images=-1"},
    {"has no master", "say which image is right: tarn image promote %s IMAGE"},
    {"another one than it was", NULL},
    {"written to while", NULL},
    {"an older state", NULL},
    {"written apart",
     "put back what was there; or look at the images, and say which one is right: tarn image promote --force %s "
     "IMAGE; then: tarn mirror activate %s"},
    {"not answer",
     "see to the disk that is named; if it will never answer: stop tarnd, take the disk away, start tarnd, and read "
     "here what is left"},
    {"absent", NULL},
    {"--force",
     "bring back the disk that is named; only if it is lost for good, go on with what there is: tarn mirror activate "
     "--force %s"},
    {"", "do what it says; then: tarn mirror activate %s"},
};

/* Force helps only where the cause says so: without a sound record of any image there is nothing that it could go on with. */
static const char *remedy_of(const char *reason) {
  size_t i = 0;
  while (!strstr(reason, remedies[i].cause)) i++;
  while (!remedies[i].remedy) i++; /* that of the next that has one */
  if (strcmp(remedies[i].cause, "--force") != 0 || strstr(reason, "--force")) return remedies[i].remedy;
  return "bring back what is named, with its metadata (PATH.tarn); only if the metadata of all images is lost for "
         "good, "
         "make the mirror anew of the image that is right: tarn mirror deactivate %s; tarn mirror destroy --force %s; "
         "tarn mirror create %s --image PATH, and each other one with --image PATH,overwrite";
}

static void attention_to_do(const struct topic *topic) {
  const char *reason = text_of(topic->mirror, "reason");
  char text[1000], *out = text;
  for (const char *at = remedy_of(reason); *at; at++) {
    size_t room = sizeof text - (size_t)(out - text);
    require(room > 80);
    if (at[0] == '%' && at[1] == 's') out += snprintf(out, room, "%s", topic->name), at++;
    else *out++ = *at;
  }
  *out = 0;
  bool tried_again = json_is_integer(json_object_get(topic->mirror, "retry_in_seconds"));
  if (tried_again || !strstr(text, "tarn mirror set")) say(topic->out, topic->look, "to do", "%s", text);
  else say(topic->out, topic->look, "to do", "%s; then: tarn mirror activate %s", text, topic->name);
}

static void attention_print(const struct topic *topic) {
  char since[SINCE_TEXT];
  say(topic->out, topic->look, "wrong", "it is stopped%s: %s",
      since_text(text_of(topic->mirror, "since"), topic->now, since),
      text_of(topic->mirror, "reason")[0] ? text_of(topic->mirror, "reason") : "'tarn events' tells why");
  each_image(topic, image_wrong);
  clients_risk(topic);
  if (topic->copies.good == 1 && topic->copies.all > 1) copies_risk(topic);
  attention_by_itself(topic);
  attention_to_do(topic);
}

/* ---- the others ---- */

static void unclean_print(const struct topic *topic) {
  const char *busy = text_of(topic->mirror, "busy");
  unclean_wrong(topic);
  say(topic->out, topic->look, "at risk",
      "nothing that was flushed; but before it was active again, its images may differ where it was being written");
  if (busy[0]) say(topic->out, topic->look, "by itself", "it %s", busy);
  else say(topic->out, topic->look, "by itself", "nothing, before it is activated");
  if (!busy[0]) say(topic->out, topic->look, "to do", "tarn mirror activate %s", topic->name);
}

static void held_print(const struct topic *topic) {
  say(topic->out, topic->look, "wrong", "%s", text_of(topic->mirror, "reason"));
  say(topic->out, topic->look, "at risk",
      "nothing that was flushed; but the mirror cannot be activated before that disk has answered");
  say(topic->out, topic->look, "by itself", "its files are closed when the disk has answered");
  say(topic->out, topic->look, "to do",
      "see to that disk; when it has answered: tarn mirror activate %s; if it never will: stop tarnd, take the disk "
      "away, start tarnd",
      topic->name);
}

static void recovery_print(const struct topic *topic) {
  say(topic->out, topic->look, "wrong",
      "the mirror was not closed cleanly (a crash, a power cut, a flush that failed): what was being written then is "
      "made equal on all images");
  each_image(topic, image_wrong);
  if (topic->copies.all > 1)
    say(topic->out, topic->look, "at risk",
        "nothing that was flushed; until it is done image %s is the only copy that is complete everywhere",
        text_of(topic->copies.last_good, "name"));
  else say(topic->out, topic->look, "at risk", "nothing that was flushed");
  say(topic->out, topic->look, "by itself", "it ends soon; clients are served meanwhile");
}

static void state_print(const struct topic *topic, const char *place) {
  say(topic->out, topic->look, "wrong",
      "the state directory %s cannot be written: who holds the newest data cannot be recorded there", place);
  say(topic->out, topic->look, "at risk",
      "clients are served; but no image can come or go by your command, and a crash now may need your decision");
  say(topic->out, topic->look, "by itself", "it is tried again with the next change");
  say(topic->out, topic->look, "to do", "make room on that file system, or repair it (df %s; 'tarn events')", place);
  each_image(topic, image_wrong);
}

static void log_off_print(const struct topic *topic) {
  say(topic->out, topic->look, "wrong", "its intent log was switched off, by 'tarn fault %s log off'", topic->name);
  say(topic->out, topic->look, "at risk",
      "what a crash, or an image that fails, leaves different from now on is known to nobody, and never made equal");
  say(topic->out, topic->look, "by itself", "nothing, before the mirror is closed: then it is on again");
  say(topic->out, topic->look, "to do", "when you have measured: tarn fault %s log on", topic->name);
  each_image(topic, image_wrong);
}

static void differs_print(const struct topic *topic) {
  const json_t *differs = json_object_get(topic->mirror, "differs");
  char size[SIZE_TEXT], since[SINCE_TEXT];
  say(topic->out, topic->look, "wrong", "its images do not agree%s: %s differ, as 'tarn mirror verify' found",
      since_text(text_of(differs, "found"), topic->now, since), size_text(number_of(differs, "bytes"), size));
  say(topic->out, topic->look, "at risk",
      "a read there gets what one of the images has; which of them is right only somebody who knows the data can tell");
  say(topic->out, topic->look, "by itself", "nothing");
  say(topic->out, topic->look, "to do",
      "tarn mirror verify %s, which lists the places; then say which image is right: tarn mirror verify %s "
      "--repair=IMAGE; and see to the disk of the other",
      topic->name, topic->name);
  each_image(topic, image_wrong);
}

static void unreadable_print(const struct topic *topic) {
  char size[SIZE_TEXT];
  const json_t *first = json_array_get(json_object_get(topic->mirror, "images"), 0);
  say(topic->out, topic->look, "wrong", "%s cannot be read from any image%s%s",
      size_text(unreadable_of(topic->mirror), size), text_of(first, "reason")[0] ? ": " : "", text_of(first, "reason"));
  say(topic->out, topic->look, "at risk", "reads of that place fail; what was there is lost, unless you have a backup");
  say(topic->out, topic->look, "by itself", "nothing; whatever is written there heals it");
  say(topic->out, topic->look, "to do",
      "find the file that lies there, and write it again from a backup; and replace the disk that fails");
  each_image(topic, image_wrong);
}

static void unwritten_print(const struct topic *topic) {
  bool flushes_fail = json_is_true(json_object_get(topic->mirror, "flushes_fail"));
  const char *good = topic->copies.last_good ? text_of(topic->copies.last_good, "name") : "";
  say(topic->out, topic->look, "wrong",
      "what was under way when a write or a flush failed on image %s, the last good one, cannot be written again, "
      "because of %s",
      good, text_of(topic->mirror, "recovery_waits_for"));
  say(topic->out, topic->look, "at risk", "%s",
      flushes_fail ? "every flush fails until that is done: what was written since the last good one may be lost"
                   : "what failed was told to its client; the rest is served");
  say(topic->out, topic->look, "by itself", "it is tried again every second");
  say(topic->out, topic->look, "to do",
      "give it another good image, which puts image %s out: tarn image add %s PATH; or see to the disk of image %s "
      "('tarn events'), for example when it is full",
      good, topic->name, good);
  each_image(topic, image_wrong);
  each_image(topic, image_to_do);
}

static void unknown_wrong(const struct topic *topic, const json_t *image) {
  if (!is_unknown(image)) return;
  say(topic->out, topic->look, "wrong",
      "the disk of image %s is unknown (it was not named at import, or config.json is an old one): newer data may be "
      "on "
      "it",
      text_of(image, "name"));
}

static void unknown_print(const struct topic *topic) {
  each_image(topic, unknown_wrong);
  say(topic->out, topic->look, "at risk", "what only that disk has, if it is given up");
  say(topic->out, topic->look, "by itself", "nothing");
  say(topic->out, topic->look, "to do",
      "find that disk; then: tarn mirror destroy --force %s, which leaves all metadata in place as long as a disk is "
      "unknown; and: tarn mirror import PATH..., with all disks",
      topic->name);
  say(topic->out, topic->look, "or",
      "only if that disk is lost for good, go on with what there is: tarn mirror activate --force %s", topic->name);
}

static void image_errors(const struct topic *topic, const json_t *image) {
  uint64_t errors = number_of(image, "read_errors");
  if (!is_good(image) || errors == 0) return;
  say(topic->out, topic->look, "wrong",
      "the disk of image %s (%s) could not read %" PRIu64 " time%s since it was opened; %" PRIu64
      " block%s repaired from another image",
      text_of(image, "name"), first_disk(image), errors, errors == 1 ? "" : "s", number_of(image, "repaired_blocks"),
      number_of(image, "repaired_blocks") == 1 ? " was" : "s were");
}

static void errors_print(const struct topic *topic) {
  each_image(topic, image_errors);
  say(topic->out, topic->look, "at risk", "nothing yet; but a disk that begins to fail often goes on to");
  say(topic->out, topic->look, "by itself", "what one image cannot read is answered by another");
  say(topic->out, topic->look, "to do",
      "look at that disk (dmesg, smartctl -a); compare all copies: tarn mirror verify %s; replace it: tarn image add "
      "%s "
      "PATH --wait, then tarn image remove %s IMAGE",
      topic->name, topic->name, topic->name);
}

static void fewer_print(const struct topic *topic) {
  if (is_unclean(topic->mirror)) unclean_wrong(topic);
  each_image(topic, image_wrong);
  copies_risk(topic);
  each_image(topic, image_by_itself);
  each_image(topic, image_to_do);
}

/* ---- the whole ---- */

static const char *matter_text(enum matter matter) {
  switch (matter) {
    case MATTER_NONE: return "well";
    case MATTER_IDLE: return "INACTIVE";
    case MATTER_VERIFY: return "well, its images are being compared";
    case MATTER_ERRORS: return "a disk has errors";
    case MATTER_HELD: return "INACTIVE, and a disk has not answered yet";
    case MATTER_UNCLEAN: return "INACTIVE, and its images are not known to be equal";
    case MATTER_RECOVERY: return "recovering from a crash";
    case MATTER_COPYING: return "an image is being copied to";
    case MATTER_FEWER: return "an image is out, two or more copies are good";
    case MATTER_LAST_COPY: return "ONE COPY LEFT";
    case MATTER_LOG_OFF: return "its intent log is OFF";
    case MATTER_STATE: return "the state directory cannot be written";
    case MATTER_DIFFERS: return "its images DO NOT AGREE";
    case MATTER_UNKNOWN: return "INACTIVE, and the disk of an image is UNKNOWN";
    case MATTER_UNWRITTEN: return "something CANNOT BE WRITTEN";
    case MATTER_UNREADABLE: return "a part of its DATA CANNOT BE READ";
    case MATTER_ATTENTION: return "STOPPED, it needs attention";
  }
  return "";
}

/* Of a mirror whose last copy is not good either, or that never had a good one. */
static const char *headline(enum matter matter, const struct copies *copies) {
  return matter == MATTER_LAST_COPY && copies->good == 0 ? "NO GOOD COPY" : matter_text(matter);
}

/* ", image b is out since 02:11:04 (14 min)": the short of it, for the first line. */
static void headline_more(FILE *out, enum matter matter, const json_t *mirror, const struct copies *copies,
                          const char *now) {
  char since[SINCE_TEXT];
  const json_t *image = copies->first_bad;
  if (matter == MATTER_ATTENTION) fprintf(out, "%s", since_text(text_of(mirror, "since"), now, since));
  if ((matter != MATTER_LAST_COPY && matter != MATTER_FEWER) || !image) return;
  fprintf(out, ", image %s is ", text_of(image, "name"));
  if (is_copied_to(image)) fprintf(out, "being copied to");
  else
    fprintf(out, "%s%s", is(image, "missing", "fractured") ? "fractured" : "out",
            since_text(out_at(image), now, since));
}

void trouble_print(FILE *out, const json_t *status, const json_t *mirror, const struct look *look) {
  struct topic topic = {.out = out, .look = look, .mirror = mirror, .now = text_of(status, "time")};
  topic.name = text_of(mirror, "name");
  topic.copies = copies_count(mirror);
  enum matter matter = matter_of(mirror, &topic.copies);
  if (matter <= MATTER_VERIFY) return;
  fprintf(out, "\nmirror %s: %s%s%s\n", topic.name, paint(look, colour_of(matter)), headline(matter, &topic.copies),
          paint(look, "\033[0m"));
  switch (matter) {
    case MATTER_NONE:
    case MATTER_IDLE:
    case MATTER_VERIFY: break;
    case MATTER_ERRORS: errors_print(&topic); break;
    case MATTER_HELD: held_print(&topic); break;
    case MATTER_UNCLEAN: unclean_print(&topic); break;
    case MATTER_RECOVERY: recovery_print(&topic); break;
    case MATTER_COPYING:
    case MATTER_FEWER:
    case MATTER_LAST_COPY: fewer_print(&topic); break;
    case MATTER_LOG_OFF: log_off_print(&topic); break;
    case MATTER_STATE: state_print(&topic, text_of(status, "state_directory")); break;
    case MATTER_DIFFERS: differs_print(&topic); break;
    case MATTER_UNKNOWN: unknown_print(&topic); break;
    case MATTER_UNWRITTEN: unwritten_print(&topic); break;
    case MATTER_UNREADABLE: unreadable_print(&topic); break;
    case MATTER_ATTENTION: attention_print(&topic); break;
  }
}

void verdict_print(FILE *out, const json_t *status, const struct look *look) {
  const json_t *mirrors = json_object_get(status, "mirrors"), *worst = NULL;
  enum matter most = MATTER_NONE;
  uint32_t all = 0, idle = 0, unwell = 0;
  struct copies of_worst = {.all = 0};
  size_t index;
  json_t *mirror;
  json_array_foreach((json_t *)mirrors, index, mirror) {
    struct copies copies = copies_count(mirror);
    enum matter matter = matter_of(mirror, &copies);
    all++;
    idle += matter == MATTER_IDLE;
    unwell += matter > MATTER_VERIFY;
    if (worst && matter <= most) continue;
    worst = mirror, most = matter, of_worst = copies;
  }
  fprintf(out, "%s", paint(look, colour_of(most)));
  if (all == 0) fprintf(out, "all is well: there are no mirrors yet");
  else if (unwell == 0 && all == 1)
    fprintf(out, "all is well: mirror %s is %s", text_of(worst, "name"), text_of(worst, "state"));
  else if (unwell == 0) fprintf(out, "all is well: %u of %u mirrors are ACTIVE", all - idle, all);
  else
    fprintf(out, "%s mirror %s: %s", most >= MATTER_LAST_COPY ? "NOT WELL:" : "not quite well:", text_of(worst, "name"),
            headline(most, &of_worst));
  fprintf(out, "%s", paint(look, "\033[0m"));
  if (unwell > 0) headline_more(out, most, worst, &of_worst, text_of(status, "time"));
  if (unwell > 1) fprintf(out, "; %u of %u mirrors are not well", unwell, all);
  if (unwell == 0 && all == 1 && of_worst.all > 1) fprintf(out, ", its %u copies are good", of_worst.all);
  if (unwell == 0 && all == 1 && of_worst.all == 1)
    fprintf(out, "; it has one copy only: 'tarn image add %s PATH' gives it another", text_of(worst, "name"));
  fputc('\n', out);
}
