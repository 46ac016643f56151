/* The default mix, and narrower ones made of the same parts: mirrors are formatted, and the node that has them lives several lives,
 * each from their activation to a crash or a stop, under a load and in some weather; then the world is healed, and must be
 * well. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/commands.h"
#include "sim/mix.h"
#include "sim/rounds.h"
#include "sim/scenario.h"
#include "sim/troubles.h"

#define READ_ALL_BYTES (128u << 10)
#define HEAL_NS        (900 * NS_PER_S)
#define HUNG_NS        (300 * NS_PER_S) /* so long a client may take that rests now and then */

static struct weather *weather_of(struct mix *mix, const struct sim_mirror *mirror) {
  return &mix->weathers[mirror->index];
}

static bool in_chaos(struct mix *mix, const struct sim_mirror *mirror) {
  return weather_of(mix, mirror)->kind == WEATHER_CHAOS;
}

/* ---- what is drawn once for a seed ---- */

static void draw_mirror(struct mix *mix, struct sim_mirror_options *options) {
  static const uint32_t images[] = {1, 2, 2, 2, 2, 3, 3, 3, 4, 8};
  static const uint64_t volumes[] = {256u << 10, 512u << 10, 1u << 20, 2u << 20, (3u << 20) + 512 * 7};
  static const uint32_t marks[] = {16, 16, 24, 64}, extents[] = {4096, 4096, 16384};
  struct prng *prng = &mix->prng;
  options->image_count = images[prng_below(prng, COUNT_OF(images))];
  options->volume_count = prng_one_in(prng, 4) ? 2 : 1;
  for (uint32_t v = 0; v < SIM_VOLUMES_MAX; v++)
    options->volume_bytes[v] = volumes[prng_below(prng, COUNT_OF(volumes))];
  options->mark_count = marks[prng_below(prng, COUNT_OF(marks))];
  options->extent_bytes = extents[prng_below(prng, COUNT_OF(extents))];
  options->parts = true;
  options->tiny = world_is_tiny(mix->world);
  options->witnesses = true;
}

/* The first image is adopted with data on it; the others hold something old, or nothing. */
static void adopt_data(struct mix *mix, struct sim_mirror *mirror) {
  uint8_t page[4096];
  if (!prng_one_in(&mix->prng, 4)) return;
  bool junk = prng_one_in(&mix->prng, 2);
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    uint64_t size = align_down(mirror->config.volumes[v].size_bytes, 4096);
    for (uint64_t at = 0; at < size; at += 4096) {
      uint32_t tag = (uint32_t)prng_below(&mix->prng, 255);
      model_adopt(mirror->models[v], at, 4096, tag);
      model_fill(mirror->models[v], tag, at, 4096, page);
      medium_write(mirror->images[0].data[v].medium, at, 4096, page, true);
      for (uint32_t i = 1; i < mirror->image_count && junk; i++) {
        model_fill(mirror->models[v], (tag + i) % 255, at, 4096, page);
        medium_write(mirror->images[i].data[v].medium, at, 4096, page, true);
      }
    }
  }
  for (uint32_t i = 0; i < mirror->image_count; i++) mirror->images[i].blank = false;
}

static void add_clients(struct mix *mix, struct sim_mirror *mirror, uint32_t count) {
  char name[16];
  mirror->client_count = count;
  for (uint32_t c = 0; c < mirror->client_count; c++) {
    uint32_t volume = c % mirror->volume_count;
    if (mirror->index == 0) snprintf(name, sizeof name, "client%u", c % 10);
    else snprintf(name, sizeof name, "%s:client%u", mirror->name, c % 10);
    struct client_options options = {.name = name,
                                     .model = mirror->models[volume],
                                     .workload = &mirror->workloads[volume],
                                     .rules = &mirror->rules,
                                     .recovering = &mirror->recovering,
                                     .places = &mirror->places[volume],
                                     .index = mirror->index * SIM_CLIENTS_MAX + c,
                                     .asks_extents = true};
    client_init(&mirror->clients[c], mix->world, &options);
    if (mix->brink == BRINK_DOUBT || mix->brink == BRINK_MAPS || mix->brink == BRINK_ROUNDS)
      mirror->clients[c].drop_one_in = 0; /* all is read often, by one of them */
    if (mix->brink == BRINK_AGAIN || mix->brink == BRINK_MAPS || mix->brink == BRINK_READS ||
        mix->brink == BRINK_DOUBT || mix->brink == BRINK_ROUNDS)
      mirror->clients[c].depth = CLIENT_DEPTH_MAX;
  }
}

static bool is_slow(const struct mix *mix) {
  return mix->brink == BRINK_SOURCE || mix->brink == BRINK_ALL || mix->brink == BRINK_DOUBT ||
         mix->brink == BRINK_READS || mix->brink == BRINK_CLOSE || mix->brink == BRINK_COPY ||
         mix->brink == BRINK_TROUBLES;
}

/* Images come back soon, and are copied to for a while; or stay away. */
static void set_policies(struct mix *mix, struct sim_mirror *mirror) {
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    struct image_policy *policy = &mirror->images[i].policy;
    policy->return_by_itself = mix->brink != BRINK_MAPS;
    if (!policy->return_by_itself) continue;
    policy->return_after_ns = prng_between(&mix->prng, NS_PER_MS, 20 * NS_PER_MS);
    policy->rate = prng_between(&mix->prng, 2u << 20, 8u << 20);
  }
}

static void add_mirror(struct mix *mix, const struct sim_mirror_options *options) {
  struct node *node = mix->node;
  struct sim_mirror *mirror = &node->mirrors[node->mirror_count++];
  sim_mirror_init(mirror, node, node->mirror_count - 1, options);
  mix_set_workload(mix, mirror);
  for (uint32_t i = 0; i < mirror->image_count && is_slow(mix); i++)
    mirror->images[i].data[0].latency_ns = NS_PER_MS; /* a recovery takes a while */
  for (uint32_t i = 0; i < mirror->image_count && mix->brink == BRINK_MAPS; i++)
    mirror->images[i].data[0].latency_ns = NS_PER_MS / 100; /* a flush is over long before a round is */
  for (uint32_t i = 0; i < mirror->image_count && mix->brink == BRINK_COMMANDS; i++)
    mirror->images[i].data[0].latency_ns = prng_one_in(&mix->prng, 2) ? NS_PER_MS / 10 : 3 * NS_PER_MS;
  if (mix->brink == BRINK_ALL || mix->brink == BRINK_MAPS || mix->brink == BRINK_READS || mix->brink == BRINK_COPY ||
      mix->brink == BRINK_TROUBLES || mix->brink == BRINK_COMMANDS || mix->brink == BRINK_ROUNDS)
    set_policies(mix, mirror);
  if (mix->brink == BRINK_ROUNDS) rounds_set_paces(mirror, &mix->prng);
  adopt_data(mix, mirror);
  add_clients(mix, mirror, (uint32_t)prng_between(&mix->prng, mirror->volume_count, SIM_CLIENTS_MAX));
  struct weather *weather = weather_of(mix, mirror);
  mirror->verify_must_agree = mirror->stalls = true;
  operator_init(&mix->operators[mirror->index], mirror);
  weather_init(weather, mirror);
  weather->brink = mix->brink;
  weather->storm_percent = mix->storm_percent;
  weather->chaos_percent = mix->chaos_percent;
}

static void format_all(struct mix *mix) {
  struct node *node = mix->node;
  node_start(node);
  EACH_MIRROR(node, mirror) {
    sim_mirror_open(mirror);
    sim_mirror_format(mirror);
    (void)sim_mirror_wait(mirror, UINT64_MAX);
    if (mirror->err != TARN_OK) world_fail(mix->world, "format failed: %s", mirror->why);
    sim_mirror_close(mirror);
  }
  node_stop(node);
}

static uint32_t draw_one(struct mix *mix, const struct sim_mirror *mirror) {
  if (prng_one_in(&mix->prng, 2)) return weather_master(mirror);
  return weather_next_member(mirror, (uint32_t)prng_below(&mix->prng, mirror->image_count));
}

/* ---- one life ---- */

static void crash(struct mix *mix) {
  mix->stopped = false;
  bool power = prng_one_in(&mix->prng, 2);
  if (mix->next != CRASH_ANY) power = mix->next == CRASH_POWER;
  mix->next = CRASH_ANY;
  EACH_MIRROR(mix->node, mirror) {
    operator_end(&mix->operators[mirror->index]);
    weather_end(weather_of(mix, mirror), false);
  }
  node_crash(mix->node, power);
}

static bool any_busy(const struct node *node) {
  for (uint32_t k = 0; k < node->mirror_count; k++)
    if (node->mirrors[k].busy) return true;
  return false;
}

/* Those of a mirror that serves are still to come before load_begins(). */
static bool all_done(const struct node *node) {
  for (uint32_t k = 0; k < node->mirror_count; k++) {
    const struct sim_mirror *mirror = &node->mirrors[k];
    if (mirror->clients_started ? !sim_mirror_clients_done(mirror) : mirror->serving) return false;
  }
  return true;
}

/* False when the steps have run out. */
static bool wait_for_all(struct mix *mix, uint64_t steps) {
  EACH_MIRROR(mix->node, mirror) {
    uint64_t before = mix->world->steps;
    if (!sim_mirror_wait(mirror, steps)) return false;
    if (steps != UINT64_MAX) steps -= min_u64(steps, mix->world->steps - before);
  }
  return true;
}

/* What a disk that hangs still has ends only with the process, if the disk says so: then false. */
static bool closes(struct mix *mix, struct sim_mirror *mirror) {
  uint64_t deadline_ns = world_now(mix->world) + 10 * NS_PER_S;
  while (mirror->core && !sim_mirror_can_close(mirror) && world_now(mix->world) < deadline_ns &&
         node_can_step(mix->node))
    node_step(mix->node);
  if (!mirror->core) return true;
  if (!sim_mirror_can_close(mirror)) return false;
  sim_mirror_close(mirror);
  return true;
}

/* A mirror that was refused is tried again in this life, or is left alone. Returns how many go on. */
static uint32_t take_refusals(struct mix *mix) {
  uint32_t count = 0;
  EACH_MIRROR(mix->node, mirror) {
    mirror->keep = prng_below(&mix->prng, 4) != 0 && mix->brink != BRINK_SOURCE;
    if (mirror->serving || mirror->quiet) {
      count++;
      continue;
    }
    require(!weather_promises_activation(weather_of(mix, mirror)) || mirror->how.promote);
    mirror->keep |= mirror->how.promote;
    weather_end(weather_of(mix, mirror), false);
    count += mirror->keep;
  }
  return count;
}

static bool all_close(struct mix *mix) {
  bool closed = true;
  EACH_MIRROR(mix->node, mirror) closed &= closes(mix, mirror);
  return closed;
}

/* False: the process dies in a round of its activation. */
static bool activates_whole(struct mix *mix) {
  const struct sim_mirror *mirror = &mix->node->mirrors[0];
  while (mirror->busy) {
    node_step(mix->node);
    if (mirror->busy && rounds_watch(weather_of(mix, mirror))) return false;
  }
  return true;
}

/* True if a mirror serves, or will be tried again; false if this life is over already. */
static bool life_begins(struct mix *mix) {
  struct node *node = mix->node;
  bool crash_early = prng_one_in(&mix->prng, 6);
  uint64_t steps = prng_between(&mix->prng, 1, prng_one_in(&mix->prng, 2) ? 60 : 1000);
  node_start(node);
  EACH_MIRROR(node, mirror) {
    weather_begin(weather_of(mix, mirror));
    sim_mirror_open(mirror);
    struct mirror_activation how = {0};
    if (mix->brink == BRINK_TROUBLES) how = troubles_activation(weather_of(mix, mirror));
    if (mix->brink == BRINK_COMMANDS) how = commands_activation(weather_of(mix, mirror));
    if (mix->brink == BRINK_ROUNDS) how = rounds_activation(weather_of(mix, mirror));
    sim_mirror_activate(mirror, &how);
  }
  bool whole = mix->brink == BRINK_ROUNDS ? activates_whole(mix) : wait_for_all(mix, crash_early ? steps : UINT64_MAX);
  if (!whole) {
    require(any_busy(node));
    mix->world->counters.crash_in_activation++;
    crash(mix);
    return false;
  }
  if (take_refusals(mix) > 0) return true;
  if (all_close(mix)) node_stop(node);
  else crash(mix);
  return false;
}

/* The faults of chaos end, so that what is asked must be answered; not yet without an error. False: they have ended before. */
static bool chaos_ends(struct mix *mix, struct sim_mirror *mirror) {
  struct client_rules rules = mirror->rules;
  if (!in_chaos(mix, mirror) || mirror->healed) return false;
  world_trace(mix->world, "%s: its faults end", mirror->name);
  sim_mirror_heal(mirror);
  mirror->rules = rules;
  return true;
}

static void run_until_gone(struct mix *mix, struct sim_mirror *mirror) {
  uint64_t deadline_ns = world_now(mix->world) + HEAL_NS;
  sim_mirror_clients_leave(mirror);
  while (!sim_mirror_clients_gone(mirror)) {
    bool late = world_now(mix->world) > deadline_ns || !node_can_step(mix->node);
    if (late && !chaos_ends(mix, mirror)) world_fail(mix->world, "a request is not answered");
    if (late) deadline_ns = world_now(mix->world) + HEAL_NS;
    node_step(mix->node);
  }
}

/* One that has fallen, or was refused, is not tried again, and who waits at its gates is told so. */
static bool fallen_stops(struct mix *mix, struct sim_mirror *mirror) {
  world_cancel(mix->world, &mirror->again);
  mirror->rules.stopping = true;
  for (uint32_t v = 0; v < mirror->volume_count; v++) gate_fail(&mirror->gates[v]);
  run_until_gone(mix, mirror);
  weather_end(weather_of(mix, mirror), false);
  return closes(mix, mirror);
}

/* In chaos, or with a failing home store, nothing promises that a stop succeeds: then false. */
static bool mirror_stops(struct mix *mix, struct sim_mirror *mirror) {
  struct weather *weather = weather_of(mix, mirror);
  (void)sim_mirror_wait(mirror, UINT64_MAX);
  mirror->keep = false;
  if (mirror->fallen || !mirror->core) return fallen_stops(mix, mirror);
  bool under_load = mix->brink == BRINK_CLOSE || prng_one_in(&mix->prng, 3);
  if (under_load) mirror->rules.stopping = true;
  else run_until_gone(mix, mirror);
  if (mirror->fallen || !mirror->core) return fallen_stops(mix, mirror); /* meanwhile */
  sim_mirror_deactivate(mirror);
  (void)sim_mirror_wait(mirror, UINT64_MAX);
  if (mirror->err != TARN_OK && !in_chaos(mix, mirror) && !weather->home_troubled)
    world_fail(mix->world, "deactivation failed: %s", mirror->why);
  run_until_gone(mix, mirror);
  if (mirror->err != TARN_OK) return false;
  weather_end(weather, true);
  return closes(mix, mirror);
}

static void life_stops(struct mix *mix) {
  EACH_MIRROR(mix->node, mirror) {
    if (mirror_stops(mix, mirror)) continue;
    crash(mix);
    return;
  }
  node_stop(mix->node);
  mix->stopped = true;
}

static uint64_t faults_struck(const struct sim_counters *counters) {
  return counters->io_fails_once + counters->io_fails_for_a_while + counters->io_fails_for_good + counters->bad_sector;
}

/* Some moments are worth more crashes than chance would give them: after a fault, while an image is being taken out,
 * while a client has seen what a recovery has not finished yet, and when a mark is about to go whose region had a witness. Returns how many steps the life has left. */
static uint64_t crash_sooner(struct mix *mix, const struct sim_counters *before, uint64_t steps) {
  const struct sim_counters *now = &mix->world->counters;
  struct prng *prng = &mix->prng;
  uint64_t sooner = steps;
  if (now->image_failed != before->image_failed) sooner = prng_between(prng, 1, prng_one_in(prng, 2) ? 15 : 60);
  else if (faults_struck(now) != faults_struck(before) && prng_one_in(prng, 4)) sooner = prng_between(prng, 100, 200);
  else if (now->read_in_recovery != before->read_in_recovery && prng_one_in(prng, 8))
    sooner = prng_between(prng, 1, 40);
  else if (now->witness_dropped != before->witness_dropped && prng_one_in(prng, 2)) {
    mix->next = CRASH_POWER;
    sooner = prng_between(prng, 1, 20);
  }
  return min_u64(steps, sooner);
}

/* Where all images have failed together: when a flush is answered that may rest on what is in doubt; or a while after a client
 * was told of an error, when he has asked again. */
static uint64_t crash_after_all(struct mix *mix, const struct sim_counters *before, uint64_t steps) {
  const struct sim_counters *now = &mix->world->counters;
  struct prng *prng = &mix->prng;
  uint64_t sooner = steps;
  struct weather *weather = weather_of(mix, &mix->node->mirrors[0]);
  if (weather->kind != WEATHER_CHAOS) return steps;
  brink_watch(weather);
  bool error = now->client_error != before->client_error, flushed = now->flush_ok != before->flush_ok;
  switch (weather->story) {
    case STORY_DOUBT:
      if (flushed && now->client_error != mix->errors_before && prng_one_in(prng, 2)) {
        mix->next = CRASH_POWER;
        sooner = prng_between(prng, 1, 20);
      } else if (error && prng_one_in(prng, 3)) {
        mix->next = prng_one_in(prng, 4) ? CRASH_POWER : CRASH_KILL;
        sooner = prng_between(prng, 50, 600);
      }
      break;
    case STORY_MARKS:
      if (!error || mix->crash_is_aimed) break;
      mix->crash_is_aimed = true;
      mix->next = CRASH_KILL;
      sooner = prng_between(prng, 50, 600);
      break;
    case STORY_COPYING: /* it is seen in this life */
    case STORY_COUNT: break;
  }
  return min_u64(steps, sooner);
}

/* As soon as something may have been answered too early. */
static uint64_t crash_after_healing(struct mix *mix, const struct sim_counters *before, uint64_t steps) {
  const struct sim_counters *now = &mix->world->counters;
  bool chaos = in_chaos(mix, &mix->node->mirrors[0]);
  uint64_t sooner = steps;
  if (now->place_healed != before->place_healed) sooner = prng_between(&mix->prng, 1, 60);
  else if (mix->brink == BRINK_HOME && chaos && now->image_failed != before->image_failed)
    sooner = prng_between(&mix->prng, 20, 600);
  return min_u64(steps, sooner);
}

/* While marks are being cleared by what it has flushed. */
static uint64_t crash_after_flush(struct mix *mix, const struct sim_counters *before, uint64_t steps) {
  bool flushed = mix->world->counters.flush_ok != before->flush_ok;
  if (!in_chaos(mix, &mix->node->mirrors[0]) || !flushed || !prng_one_in(&mix->prng, 30)) return steps;
  mix->next = prng_one_in(&mix->prng, 3) ? CRASH_POWER : CRASH_KILL;
  return min_u64(steps, prng_between(&mix->prng, 1, 60));
}

/* What a flush has lost that failed on all images is being written again. */
static uint64_t stop_after_error(struct mix *mix, const struct sim_counters *before, uint64_t steps) {
  bool error = mix->world->counters.client_error != before->client_error;
  return error && !mix->node->mirrors[0].fallen ? min_u64(steps, prng_between(&mix->prng, 1, 100)) : steps;
}

/* A FUA has lost what was written before it, and a flush was answered that was under way beside it, or behind it; or a FUA is good only
 * because another one was told what it was to be told. */
static uint64_t crash_behind_fua(struct mix *mix, const struct sim_counters *before, uint64_t steps) {
  struct sim_counters *now = &mix->world->counters;
  if (now->fua_untold != before->fua_untold) {
    mix->next = CRASH_POWER;
    return min_u64(steps, prng_between(&mix->prng, 1, 40));
  }
  mix->flush_failed |= now->fua_poisons != before->fua_poisons;
  if (!mix->flush_failed || now->flush_ok == before->flush_ok) return steps;
  mix->flush_failed = false;
  mix->next = CRASH_POWER;
  now->flush_behind_fua++;
  return min_u64(steps, prng_between(&mix->prng, 1, 6));
}

/* A read has seen what the others may not have got. */
static uint64_t crash_when_seen(struct mix *mix, const struct sim_counters *before, uint64_t steps) {
  if (!commands_watch(weather_of(mix, &mix->node->mirrors[0]), before)) return steps;
  mix->next = prng_one_in(&mix->prng, 5) ? CRASH_POWER : CRASH_KILL;
  return min_u64(steps, prng_between(&mix->prng, 1, 8));
}

/* A round has landed as far as it is to. */
static uint64_t crash_in_round(struct mix *mix, uint64_t steps) {
  if (!rounds_watch(weather_of(mix, &mix->node->mirrors[0]))) return steps;
  mix->crash_is_aimed = true;
  return 1;
}

/* The same where all lives are about the failure of the master: a flush has failed, and nobody was told; the failed image is being
 * taken out; a flush was answered that may rest on what the process before has left in doubt. */
static uint64_t crash_at_brink(struct mix *mix, const struct sim_counters *before, uint64_t steps) {
  const struct sim_counters *now = &mix->world->counters;
  struct prng *prng = &mix->prng;
  uint64_t sooner = steps;
  if (mix->brink == BRINK_BACK || mix->brink == BRINK_AGAIN) return steps;
  if (mix->brink == BRINK_TROUBLES) {
    struct weather *weather = weather_of(mix, &mix->node->mirrors[0]);
    troubles_watch(weather);
    return steps == 1 && troubles_hold(weather) ? 2 : steps;
  }
  if (mix->brink == BRINK_FUA) return crash_behind_fua(mix, before, steps);
  if (mix->brink == BRINK_ROUNDS) return crash_in_round(mix, steps);
  if (mix->brink == BRINK_COMMANDS) return crash_when_seen(mix, before, steps);
  if (mix->brink == BRINK_READS) {
    struct weather *weather = weather_of(mix, &mix->node->mirrors[0]);
    if (now->client_error != before->client_error) brink_error(weather);
    if (faults_struck(now) != faults_struck(before)) brink_struck(weather);
    return steps;
  }
  if (mix->brink == BRINK_MAPS) return crash_after_flush(mix, before, steps);
  if (mix->brink == BRINK_CLOSE) return stop_after_error(mix, before, steps);
  if (mix->brink == BRINK_COPY) {
    brink_watch(weather_of(mix, &mix->node->mirrors[0]));
    return steps;
  }
  if (mix->brink == BRINK_ALL) return crash_after_all(mix, before, steps);
  if (mix->brink == BRINK_HOME || mix->brink == BRINK_PLACES) return crash_after_healing(mix, before, steps);
  if (mix->brink == BRINK_SOURCE) {
    bool chaos = in_chaos(mix, &mix->node->mirrors[0]), seen = now->read_in_recovery != before->read_in_recovery;
    mix->source_failed |= now->image_failed != before->image_failed || now->fallen != before->fallen;
    mix->next = chaos ? CRASH_KILL : CRASH_POWER; /* which leaves the images very different */
    return chaos && mix->source_failed && seen ? min_u64(steps, prng_between(prng, 1, 100)) : steps;
  }
  if (mix->brink == BRINK_DOUBT) {
    mix->flush_failed |= now->client_error != before->client_error || now->flush_fails != before->flush_fails;
    if (!mix->flush_failed || now->flush_ok == before->flush_ok) return steps;
    mix->flush_failed = false;
    mix->next = CRASH_POWER;
    bool in_doubt = sim_mirror_status(&mix->node->mirrors[0])->recovery.running; /* it comes too early */
    return in_doubt || prng_one_in(prng, 4) ? min_u64(steps, prng_between(prng, 1, 8)) : steps;
  }
  if (now->flush_fails != before->flush_fails && prng_below(prng, 3) != 0) {
    mix->next = CRASH_KILL;
    sooner = prng_between(prng, 1, 25);
  } else if (now->image_failed != before->image_failed) {
    mix->next = prng_one_in(prng, 4) ? CRASH_POWER : CRASH_KILL;
    sooner = prng_between(prng, 1, 80);
  } else if (now->flush_ok != before->flush_ok && mix->node->mirrors[0].recovering) {
    mix->next = CRASH_POWER;
    sooner = prng_between(prng, 1, 20);
  }
  return min_u64(steps, sooner);
}

/* After chaos a calm life lasts until all images are well, more often than not, so that there can be storms again. Where all is about
 * commands few lives do. */
static void settle(struct mix *mix, struct sim_mirror *mirror) {
  const struct weather *weather = weather_of(mix, mirror);
  operator_end(&mix->operators[mirror->index]);
  if (mix->brink == BRINK_COMMANDS) commands_end(weather_of(mix, mirror));
  if (mix->brink == BRINK_ROUNDS) rounds_end(weather_of(mix, mirror), mix->crash_is_aimed);
  if (mix->brink == BRINK_ROUNDS && mix->crash_is_aimed) return;
  if (!mirror->serving || weather->kind != WEATHER_CALM) return;
  if (mix->brink == BRINK_COMMANDS ? !prng_one_in(&mix->prng, 4) : mirror->calm || prng_one_in(&mix->prng, 4)) return;
  for (uint32_t steps = 0; steps < 20000 && !weather_all_sure(weather); steps++) {
    sim_mirror_tend(mirror);
    node_step(mix->node);
  }
}

/* In chaos so much longer when all faults have ended. Returns until when there must be progress. */
static uint64_t check_progress(struct mix *mix, uint64_t deadline_ns) {
  if (world_now(mix->world) <= deadline_ns && node_can_step(mix->node)) return deadline_ns;
  EACH_MIRROR(mix->node, mirror) {
    if (!mirror->clients_started || sim_mirror_clients_done(mirror) || chaos_ends(mix, mirror)) continue;
    world_fail(mix->world, "requests to mirror %s make no progress", mirror->name);
  }
  return world_now(mix->world) + HEAL_NS;
}

/* Not where nothing may step back: a promotion may choose an image that has not got what was seen and never answered. In a storm
 * he spares the anchor. */
static void operator_comes(struct mix *mix, struct sim_mirror *mirror) {
  const struct weather *weather = weather_of(mix, mirror);
  if (mirror->calm || prng_below(&mix->prng, 100) >= mix->operator_percent) return;
  if (weather->kind == WEATHER_STORM && weather->home_troubled) return; /* who is current cannot be recorded */
  uint32_t spared = weather->kind == WEATHER_STORM ? weather->anchor : NO_ANCHOR;
  operator_begin(&mix->operators[mirror->index], spared, weather->kind == WEATHER_CHAOS);
}

static void read_volume(struct mix *mix, struct sim_mirror *mirror, uint32_t c) {
  struct client *client = &mirror->clients[c];
  uint64_t size = client->model->size_bytes, deadline_ns = world_now(mix->world) + HEAL_NS;
  for (uint64_t at = 0; at < size;) {
    uint64_t bytes = min_u64(size - at, READ_ALL_BYTES);
    if (client->wire->ready && !client->wire->closing && client->open < CLIENT_DEPTH_MAX) {
      client_ask(client, MODEL_READ, at, bytes, false);
      at += bytes;
      continue;
    }
    if (!client->connected) world_fail(mix->world, "%s was lost while reading everything", client->name);
    if (world_now(mix->world) > deadline_ns) world_fail(mix->world, "reading everything takes for ever");
    node_step(mix->node);
  }
}

static void read_all(struct mix *mix, struct sim_mirror *mirror) {
  for (uint32_t v = 0; v < mirror->volume_count; v++) read_volume(mix, mirror, v);
  while (!sim_mirror_clients_done(mirror)) node_step(mix->node);
}

/* Half of the lives begin with a look at what the one before has left, and go on with the image that is to fail as the master; the
 * others begin at once. */
static void prepare_brink(struct mix *mix, struct sim_mirror *mirror) {
  const struct weather *weather = weather_of(mix, mirror);
  bool master = mix->brink == BRINK_MASTER || mix->brink == BRINK_FUA;
  bool half = mix->brink == BRINK_MASTER || mix->brink == BRINK_COMMANDS || mix->brink == BRINK_ROUNDS;
  if (half ? prng_one_in(&mix->prng, 2) : weather->kind == WEATHER_CHAOS) return;
  read_all(mix, mirror);
  if (!master) return;
  uint64_t deadline_ns = world_now(mix->world) + 10 * NS_PER_S;
  while (!sim_mirror_all_synchronized(mirror) && world_now(mix->world) < deadline_ns) {
    sim_mirror_tend(mirror);
    node_step(mix->node);
  }
  uint32_t other = weather->anchor == 0 ? 1 : 0;
  (void)sim_mirror_wait(mirror, UINT64_MAX);
  if (!sim_mirror_all_synchronized(mirror) || mirror->status.images[other].master) return;
  sim_mirror_image_do(mirror, other, IMAGE_OP_PROMOTE, false);
  (void)sim_mirror_wait(mirror, UINT64_MAX);
}

/* As soon as it serves, in this life. */
static void load_begins(struct mix *mix, struct sim_mirror *mirror) {
  if (mix->brink == BRINK_ROUNDS && mirror->quiet) rounds_begin(weather_of(mix, mirror));
  if (!mirror->serving || mirror->clients_started) return;
  mirror->clients_started = true;
  uint32_t budget = (uint32_t)prng_between(&mix->prng, 10, mix->budget_max);
  if (mix->brink == BRINK_ALL || mix->brink == BRINK_CLOSE || mix->brink == BRINK_COPY) budget *= 3;
  sim_mirror_clients_start(mirror, mix->brink ? 0 : budget);
  for (uint32_t c = 0; c < mirror->client_count && mix->brink == BRINK_AGAIN; c++) mirror->clients[c].drop_one_in = 0;
  if (mix->brink == BRINK_COMMANDS) commands_begin(weather_of(mix, mirror));
  if (mix->brink) prepare_brink(mix, mirror);
  for (uint32_t c = 0; c < mirror->client_count && mix->brink == BRINK_AGAIN; c++) mirror->clients[c].drop_one_in = 8;
  if (mix->brink == BRINK_ROUNDS) rounds_begin(weather_of(mix, mirror));
  weather_strike(weather_of(mix, mirror));
  if (!mix->brink) operator_comes(mix, mirror);
  for (uint32_t c = 0; c < mirror->client_count && mix->brink; c++) client_more(&mirror->clients[c], budget);
}

/* ---- an image is put back ---- */

/* All are well: nothing but what the others know tells that this one is of another time. */
static void put_back_or_keep(struct mix *mix) {
  struct sim_mirror *mirror = &mix->node->mirrors[0];
  bool settled = weather_of(mix, mirror)->settled;
  if (mix->kept.taken && settled && (mix->stopped || !mix->kept.served)) image_put_back(mirror, &mix->kept);
  mix->kept.taken = false;
  if (settled && mix->stopped && prng_one_in(&mix->prng, 2))
    image_keep(mirror, draw_one(mix, mirror), &mix->kept, false);
}

/* What is kept of one that serves can be put back after a clean stop only: until then the others need not know better. */
static void keep_while_serving(struct mix *mix, bool stop) {
  struct sim_mirror *mirror = &mix->node->mirrors[0];
  if (mix->brink != BRINK_BACK || !stop || mix->kept.taken || !mirror->serving) return;
  if (!sim_mirror_all_synchronized(mirror)) return;
  image_keep(mirror, draw_one(mix, mirror), &mix->kept, true);
}

static void one_life(struct mix *mix) {
  struct node *node = mix->node;
  if (!life_begins(mix)) return;
  bool aimed = prng_below(&mix->prng, 100) < mix->aimed_percent;
  EACH_MIRROR(node, mirror) aimed &= !in_chaos(mix, mirror); /* how it goes on there is what counts */
  bool quick = prng_below(&mix->prng, 100) < mix->quick_crash_percent;
  bool stop = prng_below(&mix->prng, 100) < mix->stop_percent;
  if (mix->brink == BRINK_ALL || mix->brink == BRINK_COPY)
    stop = !in_chaos(mix, &node->mirrors[0]); /* so that no mark is left to the next life */
  uint64_t steps = prng_between(&mix->prng, 1, quick ? 400 : mix->brink == BRINK_SOURCE ? 1000 : 12000);
  uint64_t keep_at = steps - prng_below(&mix->prng, min_u64(steps, 3000));
  EACH_MIRROR(node, mirror) mirror->clients_started = false;
  mix->source_failed = mix->flush_failed = mix->crash_is_aimed = false;
  mix->errors_before = mix->world->counters.client_error;
  uint64_t deadline_ns = world_now(mix->world) + HEAL_NS;
  for (; steps > 0 && !(stop && all_done(node)) && node_can_step(node); steps--) {
    deadline_ns = check_progress(mix, deadline_ns);
    EACH_MIRROR(node, mirror) load_begins(mix, mirror);
    struct sim_counters before = mix->world->counters;
    node_step(node);
    if (steps == keep_at) keep_while_serving(mix, stop);
    if (mix->brink) steps = crash_at_brink(mix, &before, steps);
    else if (aimed && !stop) steps = crash_sooner(mix, &before, steps);
  }
  while (!node_can_step(node) && !all_done(node)) {
    (void)check_progress(mix, UINT64_MAX);
    node_step(node);
  }
  EACH_MIRROR(node, mirror) settle(mix, mirror);
  if (mix->brink == BRINK_TROUBLES && !stop) troubles_settle(weather_of(mix, &node->mirrors[0]));
  if (stop && !(mix->brink == BRINK_ROUNDS && mix->crash_is_aimed)) life_stops(mix);
  else crash(mix);
}

/* ---- healed: it must be well ---- */

static void wait_until_well(struct mix *mix, struct sim_mirror *mirror) {
  uint64_t deadline_ns = world_now(mix->world) + HEAL_NS;
  while (!sim_mirror_clients_done(mirror)) {
    if (world_now(mix->world) > deadline_ns) world_fail(mix->world, "a request is not answered, though all is healed");
    node_step(mix->node);
  }
  while (!sim_mirror_all_synchronized(mirror)) {
    if (world_now(mix->world) > deadline_ns) {
      for (uint32_t i = 0; i < mirror->image_count; i++)
        world_trace(mix->world, "image %s: %s, misses %" PRIu64 ", %s", mirror->images[i].name,
                    image_state_name(mirror->status.images[i].state), mirror->status.images[i].missed_bytes,
                    mirror->status.images[i].sync.waiting_for);
      world_fail(mix->world, "the images do not become SYNCHRONIZED, though all is healed");
    }
    sim_mirror_tend(mirror);
    node_step(mix->node);
  }
}

/* It may be reading still what its witnesses are to be. */
static void wait_until_equal(struct mix *mix, struct sim_mirror *mirror) {
  uint64_t deadline_ns = world_now(mix->world) + HEAL_NS;
  uint32_t count = (uint32_t)__builtin_popcount(sim_mirror_members(mirror));
  while (count > 1 && sim_mirror_compare(mirror) < count) {
    if (world_now(mix->world) > deadline_ns)
      world_fail(mix->world, "all is quiet, and the mirror does not call its images equal");
    node_step(mix->node);
  }
}

static void mirror_ends(struct mix *mix, struct sim_mirror *mirror) {
  wait_until_well(mix, mirror);
  for (uint32_t v = 0; v < mirror->volume_count; v++) read_volume(mix, mirror, v);
  run_until_gone(mix, mirror);
  wait_until_equal(mix, mirror);
  sim_mirror_deactivate(mirror);
  (void)sim_mirror_wait(mirror, UINT64_MAX);
  if (mirror->err != TARN_OK) world_fail(mix->world, "deactivation failed, though all is healed: %s", mirror->why);
  sim_mirror_close(mirror);
  sim_mirror_compare_all(mirror);
}

/* What no image could read in chaos, as an administrator would who reads `tarn status`. */
static void write_unreadable(struct mix *mix, struct sim_mirror *mirror) {
  if (mirror_unreadable(mirror->core)->count == 0) return;
  sim_mirror_clients_start(mirror, 0);
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    while (!mirror->clients[v].wire->ready) node_step(mix->node);
  sim_mirror_write_unreadable(mirror);
  run_until_gone(mix, mirror);
}

static void mix_end(struct mix *mix) {
  struct node *node = mix->node;
  world_trace(mix->world, "---- healed ----");
  node_start(node);
  EACH_MIRROR(node, mirror) {
    sim_mirror_heal(mirror);
    weather_of(mix, mirror)->kind = WEATHER_CALM;
    mirror->keep = true; /* one that was demoted takes a few tries */
    mirror->config.max_missing = mirror->config.min_images = -1;
    sim_mirror_open(mirror);
    sim_mirror_activate(mirror, NULL);
  }
  EACH_MIRROR(node, mirror) {
    while (!mirror->serving) node_step(node);
    for (uint32_t c = 0; c < mirror->client_count; c++) mirror->clients[c].drop_one_in = 0;
    mirror->stalls = false;
    write_unreadable(mix, mirror);
    sim_mirror_clients_start(mirror, (uint32_t)prng_between(&mix->prng, 1, 40));
  }
  EACH_MIRROR(node, mirror) mirror_ends(mix, mirror);
  node_stop(node);
}

/* ---- the scenarios ---- */

static struct mix mix_begin(struct world *world, struct node *node) {
  static const uint64_t pools[] = {1500u << 10, 4u << 20, 8u << 20};
  struct mix mix = {.world = world,
                    .node = node,
                    .prng = world_stream(world, "mix", 0),
                    .strange = world_stream(world, "strange", 0),
                    .edits = world_stream(world, "edits", 0)};
  mix.lives = (uint32_t)prng_between(&mix.prng, 4, 16);
  mix.budget_max = prng_one_in(&mix.prng, 4) ? 600 : 200;
  mix.quick_crash_percent = 35;
  mix.stop_percent = 25;
  mix.operator_percent = 50;
  mix.aimed_percent = 50;
  node_init(node, world, pools[prng_below(&mix.prng, COUNT_OF(pools))]);
  return mix;
}

static void run_mix(struct mix *mix) {
  format_all(mix);
  for (uint32_t life = 0; life < mix->lives; life++) {
    EACH_MIRROR(mix->node, mirror) {
      if (mix->brink == BRINK_BACK) put_back_or_keep(mix);
      else {
        strangers_come(mirror, &mix->strange);
        edits_come(mirror, &mix->edits);
      }
    }
    one_life(mix);
  }
  mix_end(mix);
}

/* Of several mirrors each has its own weather, and a life is shared. */
static uint32_t draw_mirror_count(struct mix *mix) {
  if (!prng_one_in(&mix->prng, 8)) return 1;
  mix->lives = (mix->lives + 1) / 2;
  mix->world->counters.several_mirrors++;
  return (uint32_t)prng_between(&mix->prng, 2, NODE_MIRRORS_MAX);
}

/* ---- one disk hangs for good, and keeps what it has of the shared buffers: it harms nobody else ---- */

/* Few buffers, and clients that ask for much at once. */
static void hung_disk_begin(struct mix *mix) {
  mix->node->pool_bytes = 1500u << 10;
  for (uint64_t count = prng_between(&mix->prng, 2, NODE_MIRRORS_MAX); count > 0; count--) {
    struct sim_mirror_options options = {0};
    draw_mirror(mix, &options);
    options.image_count = (uint32_t)prng_between(&mix->prng, 2, 3);
    options.volume_count = 1;
    options.volume_bytes[0] = 3u << 20;
    options.mark_count = 64;
    add_mirror(mix, &options);
  }
  struct workload *workload = &mix->node->mirrors[0].workloads[0];
  /* Much is in flight, and nothing waits for anything else. */
  add_clients(mix, &mix->node->mirrors[0], SIM_CLIENTS_MAX);
  workload->hot_percent = workload->fua_percent = workload->rest_one_in = 0;
  workload->aligned_percent = 100;
  workload->weight[MODEL_WRITE] = 100;
  format_all(mix);
  node_start(mix->node);
  EACH_MIRROR(mix->node, mirror) {
    mirror->stalls = false;
    sim_mirror_open(mirror);
    sim_mirror_activate(mirror, NULL);
  }
  (void)wait_for_all(mix, UINT64_MAX);
  EACH_MIRROR(mix->node, mirror) {
    while (!sim_mirror_all_synchronized(mirror)) node_step(mix->node);
    for (uint32_t c = 0; c < mirror->client_count; c++) {
      mirror->clients[c].drop_one_in = 0;
      mirror->clients[c].depth = CLIENT_DEPTH_MAX;
    }
  }
}

static void hung_disk_strikes(struct mix *mix, struct sim_mirror *mirror) {
  struct fault fault = {.kind = FAULT_HANG, .ops = FAULT_ALL, .until_ns = UINT64_MAX, .end = UINT64_MAX, .never = true};
  fault.from_ns = world_now(mix->world) + prng_between(&mix->prng, 0, 5 * NS_PER_MS);
  struct sim_image *image = &mirror->images[prng_below(&mix->prng, mirror->image_count)];
  (void)faults_add(&image->data[0].faults, &fault);
  world_trace(mix->world, "image %s hangs soon, for good", image->label);
}

void scenario_hung_disk(struct world *world, struct node *node) {
  struct mix mix = mix_begin(world, node);
  hung_disk_begin(&mix);
  hung_disk_strikes(&mix, &node->mirrors[0]);
  EACH_MIRROR(node, mirror) {
    sim_mirror_clients_start(mirror, (uint32_t)prng_between(&mix.prng, 50, 200));
    mirror->clients_started = true;
  }
  uint64_t deadline_ns = world_now(world) + HUNG_NS;
  while (!all_done(node)) {
    (void)check_progress(&mix, deadline_ns);
    node_step(node);
  }
  world->counters.hung_harmless++;
  EACH_MIRROR(node, mirror) sim_mirror_heal(mirror);
  EACH_MIRROR(node, mirror) mirror_ends(&mix, mirror);
  node_stop(node);
}

/* Everything; one seed in 25 for data that rots: where it may, nothing else can be told from it; one in 25
 * for a disk that hangs beside others; of those that are left one in 25 for commands beside recoveries, one for FUAs that fail beside
 * flushes, one for crashes within a round of metadata, one more for maps, and one for reads beside what fails: drawn from a stream of their own, so that all others stay what they were. Of the seeds that have all weathers a third is for two troubles at once. */
void scenario_mix(struct world *world, struct node *node) {
  static mix_setter *const brinks[] = {
      mix_set_brink,    mix_set_brink,    mix_set_brink, mix_set_source_lost, mix_set_source_lost, mix_set_all_fail,
      mix_set_all_fail, mix_set_all_fail, mix_set_reads, mix_set_reads,       mix_set_home_fails,  mix_set_home_fails,
      mix_set_places,   mix_set_doubt,    mix_set_doubt, mix_set_maps,        mix_set_maps,        mix_set_back,
      mix_set_back,     mix_set_again,    mix_set_close, mix_set_close,       mix_set_copy,        mix_set_copy,
      mix_set_reads,    mix_set_doubt,    mix_set_apart, mix_set_apart};
  struct prng prng = world_stream(world, "share", 0);
  if (prng_one_in(&prng, 25)) {
    scenario_verify(world, node);
    return;
  }
  if (prng_one_in(&prng, 25)) {
    scenario_hung_disk(world, node);
    return;
  }
  struct prng later = world_stream(world, "later shares", 0);
  switch (prng_below(&later, 25)) {
    case 0: scenario_commands(world, node); return;
    case 1: scenario_fua(world, node); return;
    case 2: scenario_rounds(world, node); return;
    case 3: scenario_maps(world, node); return;
    case 24: scenario_reads(world, node); return;
    default: break;
  }
  bool troubles = prng_one_in(&prng, 3);
  struct mix mix = mix_begin(world, node);
  mix_setter *set = NULL;
  uint64_t pick = prng_below(&mix.prng, 44); /* docs/fault-model.md gives the shares */
  bool calm = pick < 7, brink = pick >= 7 && pick < 7 + COUNT_OF(brinks);
  if (pick < 4) set = mix_set_crash_recovery;
  if (brink) set = brinks[pick - 7];
  if (!calm && !brink && troubles) {
    set = mix_set_troubles;
    brink = true;
  }
  mix.storm_percent = 65;
  mix.chaos_percent = 20;
  for (uint32_t count = brink ? 1 : draw_mirror_count(&mix); count > 0; count--) {
    struct sim_mirror_options options = {.calm = calm};
    draw_mirror(&mix, &options);
    if (set) set(&mix, &options);
    add_mirror(&mix, &options);
  }
  run_mix(&mix);
}

/* One story of the mix, by itself. */
static void run_one(struct world *world, struct node *node, mix_setter *set) {
  struct mix mix = mix_begin(world, node);
  struct sim_mirror_options options = {0};
  draw_mirror(&mix, &options);
  set(&mix, &options);
  add_mirror(&mix, &options);
  run_mix(&mix);
}

void scenario_crash_recovery(struct world *world, struct node *node) { run_one(world, node, mix_set_crash_recovery); }
void scenario_brink(struct world *world, struct node *node) { run_one(world, node, mix_set_brink); }
void scenario_source_lost(struct world *world, struct node *node) { run_one(world, node, mix_set_source_lost); }
void scenario_doubt(struct world *world, struct node *node) { run_one(world, node, mix_set_doubt); }
void scenario_all_fail(struct world *world, struct node *node) { run_one(world, node, mix_set_all_fail); }
void scenario_home_fails(struct world *world, struct node *node) { run_one(world, node, mix_set_home_fails); }
void scenario_places(struct world *world, struct node *node) { run_one(world, node, mix_set_places); }
void scenario_maps(struct world *world, struct node *node) { run_one(world, node, mix_set_maps); }
void scenario_reads(struct world *world, struct node *node) { run_one(world, node, mix_set_reads); }
void scenario_put_back(struct world *world, struct node *node) { run_one(world, node, mix_set_back); }
void scenario_close(struct world *world, struct node *node) { run_one(world, node, mix_set_close); }
void scenario_copy(struct world *world, struct node *node) { run_one(world, node, mix_set_copy); }
void scenario_apart(struct world *world, struct node *node) { run_one(world, node, mix_set_apart); }
void scenario_troubles(struct world *world, struct node *node) { run_one(world, node, mix_set_troubles); }
void scenario_commands(struct world *world, struct node *node) { run_one(world, node, mix_set_commands); }
void scenario_fua(struct world *world, struct node *node) { run_one(world, node, mix_set_fua); }
void scenario_rounds(struct world *world, struct node *node) { run_one(world, node, mix_set_rounds); }
void scenario_again(struct world *world, struct node *node) { run_one(world, node, mix_set_again); }
void scenario_failing_image(struct world *world, struct node *node) { run_one(world, node, mix_set_failing_image); }
void scenario_full_marks(struct world *world, struct node *node) { run_one(world, node, mix_set_full_marks); }
