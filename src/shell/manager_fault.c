/* `tarn fault`: makes an image's disks fail, for tests and for those who want to see what happens. Only with tarnd
 * --enable-faults: then each data disk is wrapped (fault_disk.h). It waits for no operation, because one may be waiting for what
 * it ends. And `tarn fault MIRROR log off`: writes take no marks, to measure what the intent log costs. */
#include <stdlib.h>
#include <string.h>

#include "shell/manager_internal.h"
#include "shell/words.h"

static struct faults *faults_of(struct managed *managed, uint32_t slot) {
  if (managed->faults[slot]) return managed->faults[slot];
  managed->faults[slot] = calloc(1, sizeof *managed->faults[slot]);
  if (managed->faults[slot]) faults_init(managed->faults[slot]);
  return managed->faults[slot];
}

void faults_wrap(struct managed *managed, uint32_t slot, struct image_disks *disks) {
  struct faults *faults = managed->manager->options.faults ? faults_of(managed, slot) : NULL;
  for (uint32_t i = 0; i < VOLUMES_MAX && faults; i++)
    if (disks->data[i] && fault_disk_new(faults, i, disks->data[i], &disks->data[i]) != TARN_OK)
      report(managed->manager->env, REPORT_WARNING, managed->file.name,
             "a disk of image %s takes no faults: there is not enough memory", managed->file.images[slot].name);
}

void faults_forget(struct managed *managed, uint32_t slot) {
  if (!managed->faults[slot]) return;
  faults_destroy(managed->faults[slot]);
  free(managed->faults[slot]);
  managed->faults[slot] = NULL;
}

json_t *faults_json(const struct managed *managed, uint32_t slot) {
  const struct faults *faults = managed->faults[slot];
  char text[FAULT_SPEC_TEXT_MAX];
  json_t *json = json_array();
  for (uint32_t i = 0; faults && i < faults->count; i++) {
    fault_spec_text(&faults->list[i].spec, text);
    json_array_append_new(json, json_string(text));
  }
  return json;
}

/* ---- what is typed ---- */

static tarn_err what_parse(const char *text, struct fault_spec *spec, bool *heal, struct why *why) {
  static const struct {
    const char *word;
    enum fault_kind kind;
  } words[] = {{"fail", FAULT_FAIL}, {"hang", FAULT_HANG}, {"corrupt", FAULT_CORRUPT}};
  int64_t ms;
  *heal = strcmp(text, "heal") == 0;
  if (*heal) return TARN_OK;
  for (size_t i = 0; i < COUNT_OF(words); i++) {
    if (strcmp(text, words[i].word) != 0) continue;
    spec->kind = words[i].kind;
    return TARN_OK;
  }
  if (strncmp(text, "delay=", 6) != 0 || number_parse(text + 6, &ms, NULL) != TARN_OK || ms < 1 ||
      (uint64_t)ms > FAULT_DELAY_NS_MAX / NS_PER_MS)
    return because(why, TARN_INVALID,
                   "'%.40s' is no fault: write fail, hang, delay=MS (milliseconds, at least 1), corrupt or heal", text);
  spec->kind = FAULT_DELAY;
  spec->delay_ns = (uint64_t)ms * NS_PER_MS;
  return TARN_OK;
}

static tarn_err range_parse(const char *text, struct fault_spec *spec, struct why *why) {
  char offset[24];
  const char *plus = strchr(text, '+');
  size_t bytes = plus ? (size_t)(plus - text) : 0;
  if (bytes == 0 || bytes >= sizeof offset) goto bad;
  memcpy(offset, text, bytes);
  offset[bytes] = 0;
  if (strcmp(offset, "0") != 0 && size_parse(offset, &spec->offset, NULL) != TARN_OK) goto bad;
  if (size_parse(plus + 1, &spec->length, NULL) == TARN_OK && spec->offset <= INT64_MAX - spec->length) return TARN_OK;
bad:
  return because(why, TARN_INVALID, "'%.60s' is no range: write OFFSET+LENGTH, like 1M+64K", text);
}

static tarn_err on_parse(const char *text, struct fault_spec *spec, struct why *why) {
  static const struct {
    const char *word;
    enum fault_on on;
  } words[] = {{"read", FAULT_ON_READ}, {"write", FAULT_ON_WRITE}, {"flush", FAULT_ON_FLUSH}};
  for (const char *at = text;; at++) {
    size_t bytes = strcspn(at, ","), i = 0;
    while (i < COUNT_OF(words) && (strlen(words[i].word) != bytes || strncmp(at, words[i].word, bytes) != 0)) i++;
    if (i == COUNT_OF(words))
      return because(why, TARN_INVALID,
                     "'%.40s' is not what a fault can be on: read, write, flush, with commas between", text);
    spec->on |= words[i].on;
    at += bytes;
    if (!*at) return TARN_OK;
  }
}

static tarn_err fault_parse(const struct request *request, struct fault_spec *spec, bool *heal, struct why *why) {
  static const char *const known[] = {"mirror", "image", "fault", "range", "on", NULL};
  const char *what, *range, *on;
  *spec = (struct fault_spec){.on = 0};
  tarn_err err = request_only(request, known, why);
  if (err == TARN_OK) err = request_text(request, "fault", &what, why);
  if (err == TARN_OK) err = request_text(request, "range", &range, why);
  if (err == TARN_OK) err = request_text(request, "on", &on, why);
  if (err == TARN_OK) err = what_parse(what ? what : "", spec, heal, why);
  if (err == TARN_OK && *heal && (range || on))
    err = because(why, TARN_INVALID, "heal ends all faults of the image: it takes neither --range nor --on");
  if (err == TARN_OK && range) err = range_parse(range, spec, why);
  if (err == TARN_OK && on) err = on_parse(on, spec, why);
  return err;
}

/* ---- the intent log ---- */

static bool is_switch(const char *text) { return text && (strcmp(text, "on") == 0 || strcmp(text, "off") == 0); }

static void log_switch(struct manager *manager, struct call *call) {
  static const char *const known[] = {"mirror", "image", "fault", NULL};
  struct why why;
  const char *mirror, *image, *word;
  tarn_err err = request_only(&call->request, known, &why);
  if (err == TARN_OK) err = request_text(&call->request, "mirror", &mirror, &why);
  if (err == TARN_OK) err = request_text(&call->request, "image", &image, &why);
  if (err == TARN_OK) err = request_text(&call->request, "fault", &word, &why);
  if (err == TARN_OK && (!image || strcmp(image, "log") != 0))
    err = because(&why, TARN_INVALID, "'%s' is for the intent log: write 'tarn fault MIRROR log %s'", word, word);
  if (err != TARN_OK) {
    call_misused(call, "%s", why.text);
    return;
  }
  struct managed *managed = managed_find(manager, mirror ? mirror : "");
  if (!manager->options.faults)
    call_refuse(call, "this tarnd takes no faults: start it with --enable-faults, and never where data matters");
  else if (!managed) call_refuse(call, "there is no mirror '%.80s'; 'tarn status' lists them", mirror ? mirror : "");
  else if (!managed->mirror) call_refuse(call, "mirror %s is not open: activate it first", managed->file.name);
  if (call->answered) return;
  mirror_set_log(managed->mirror, strcmp(word, "on") == 0);
  report(manager->env, REPORT_WARNING, managed->file.name, "its intent log is %s", word);
  call_done(call, json_pack("{s:s, s:s}", "mirror", managed->file.name, "log", word));
}

/* ---- the command ---- */

void manager_fault(struct manager *manager, struct call *call) {
  struct fault_spec spec;
  struct why why;
  const char *mirror, *image;
  uint32_t slot;
  bool heal;
  const char *word = NULL;
  if (request_text(&call->request, "fault", &word, NULL) == TARN_OK && is_switch(word)) {
    log_switch(manager, call);
    return;
  }
  tarn_err err = fault_parse(&call->request, &spec, &heal, &why);
  if (err == TARN_OK) err = request_text(&call->request, "mirror", &mirror, &why);
  if (err == TARN_OK) err = request_text(&call->request, "image", &image, &why);
  if (err != TARN_OK) {
    call_misused(call, "%s", why.text);
    return;
  }
  struct managed *managed = managed_find(manager, mirror ? mirror : "");
  struct faults *faults = NULL;
  if (!manager->options.faults)
    call_refuse(call, "this tarnd takes no faults: start it with --enable-faults, and never where data matters");
  else if (!managed) call_refuse(call, "there is no mirror '%.80s'; 'tarn status' lists them", mirror ? mirror : "");
  else if (!managed_image(managed, image ? image : "", &slot))
    call_refuse(call, "mirror %s has no image '%.80s'; 'tarn status %s' lists them", managed->file.name,
                image ? image : "", managed->file.name);
  else if ((faults = faults_of(managed, slot)) == NULL) call_refuse(call, "there is not enough memory");
  else if (heal) faults_heal(faults);
  else if (faults_inject(faults, &spec, &why) != TARN_OK) call_refuse(call, "%s", why.text);
  if (call->answered) return;
  if (heal) report(manager->env, REPORT_WARNING, managed->file.name, "the faults of image %s are healed", image);
  else report(manager->env, REPORT_WARNING, managed->file.name, "a fault is injected into image %s", image);
  call_done(call, json_pack("{s:s, s:s, s:o}", "mirror", managed->file.name, "image", image, "faults",
                            faults_json(managed, slot)));
}
