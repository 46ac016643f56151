/* tarn-sim: runs seeds, says which fail and how to replay them. The only file of sim/ that uses the system's clock. */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/plant.h"
#include "sim/sweep.h"

struct options {
  const char *program;
  const struct scenario *scenario;
  uint64_t first, last;
  bool seeds_given;
  uint64_t minutes;
  const char *plant;  /* NULL: none */
  const char *limits; /* NULL: drawn */
  bool trace, stop;
  bool sweep;
  enum sweep_kind strike_kind;
  uint64_t strike_at; /* 0: no one fault of a sweep */
};

static const struct {
  const char *name, *text;
} plants[] = {
#define X(name, text) {#name, text},
    TARN_PLANT_LIST(X)
#undef X
};

/* ---- one seed ---- */

static struct world world;
static struct node node;
static sigjmp_buf failed;
static char replay[400];

/* Takes the place of the one in libtarn_base.a: here a broken promise fails the seed, and the next seed runs. */
void tarn_panic(const char *what, const char *file, int line) {
  const char *slash = strrchr(file, '/');
  world_fail(&world, "require(%s) at %s:%d", what, slash ? slash + 1 : file, line);
}

static void on_fault(int signal_number) {
  char line[600];
  int bytes = snprintf(line, sizeof line, "seed %" PRIu64 " failed: signal %d  replay: %s\n", world.seed, signal_number,
                       replay);
  fflush(stdout);
  if (write(STDOUT_FILENO, line, bytes > 0 ? (size_t)bytes : 0) < 0) _exit(3);
  _exit(1);
}

static void set_replay(const struct options *options, uint64_t seed) {
  bool is_default = options->scenario == scenario_at(0);
  snprintf(replay, sizeof replay, "%s --seed %" PRIu64 "%s%s%s%s%s%s --trace", options->program, seed,
           is_default ? "" : " --scenario ", is_default ? "" : options->scenario->name,
           options->plant ? " --plant " : "", options->plant ? options->plant : "", options->limits ? " --limits " : "",
           options->limits ? options->limits : "");
}

static bool run_seed(const struct options *options, uint64_t seed, struct sim_counters *sum) {
  set_replay(options, seed);
  world_init(&world, seed);
  memset(&node, 0, sizeof node);
  world.traced = options->trace;
  world.failed = &failed;
  if (options->limits) world.limits = strcmp(options->limits, "tiny") == 0 ? LIMITS_TINY : LIMITS_NORMAL;
  bool passed = sigsetjmp(failed, 0) == 0;
  if (passed) options->scenario->run(&world, &node);
  else printf("seed %" PRIu64 " failed: %s  replay: %s\n", seed, world.failure, replay);
  counters_add(sum, &world.counters);
  node_destroy(&node);
  world_destroy(&world);
  fflush(stdout);
  return passed;
}

/* ---- all of them ---- */

static uint64_t seconds_now(void) {
  struct timespec now;
  if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) exit(3);
  return (uint64_t)now.tv_sec;
}

static int run_all(const struct options *options) {
  struct sim_counters sum = {0};
  uint64_t passed = 0, failures = 0;
  uint64_t end = options->minutes ? seconds_now() + 60 * options->minutes : UINT64_MAX;
  for (uint64_t seed = options->first; seed <= options->last && (end == UINT64_MAX || seconds_now() < end); seed++) {
    if (run_seed(options, seed, &sum)) passed++;
    else failures++;
    if (failures && options->stop) break;
  }
  uint64_t seeds = passed + failures;
  if (seeds > 1) counters_print(&sum);
  if (options->scenario->kind == SCENARIO_COUNTED && seeds >= COUNTED_SEEDS && !options->plant &&
      counters_report_zero(&sum) > 0)
    failures++;
#ifdef TARN_PLANTS
  if (options->plant) printf("the mistake was reached %lu times\n", plant_hits);
#endif
  printf("%" PRIu64 " passed, %" PRIu64 " failed\n", passed, failures);
  return failures ? 1 : 0;
}

/* ---- sweeps ---- */

static int run_sweep(const struct options *options) {
  uint64_t passed = 0, failures = 0;
  for (uint32_t i = 0; scenario_at(i); i++) {
    const struct scenario *scenario = scenario_at(i);
    bool chosen = options->scenario == scenario_at(0) || options->scenario == scenario; /* the default: all of them */
    if (!chosen || scenario->kind != SCENARIO_SCRIPTED) continue;
    set_replay(options, 1);
    sweep_all(&world, &node, scenario, options->program, &passed, &failures);
  }
  printf("%" PRIu64 " passed, %" PRIu64 " failed\n", passed, failures);
  return failures ? 1 : 0;
}

static int run_strike(const struct options *options) {
  bool struck;
  bool passed =
      sweep_run(&world, &node, options->scenario, options->strike_kind, options->strike_at, options->trace, &struck);
  if (!struck) printf("there are fewer I/Os in this story\n");
  if (!passed) printf("failed: %s\n", world.failure);
  printf("%d passed, %d failed\n", passed, !passed);
  return passed ? 0 : 1;
}

/* ---- the planted mistakes: in another executable, beside this one ---- */

static int list_plants(void) {
  for (size_t i = 0; i < COUNT_OF(plants); i++) printf("%-24s %s\n", plants[i].name, plants[i].text);
  return 0;
}

static bool plant_exists(const char *name) {
  for (size_t i = 0; i < COUNT_OF(plants); i++)
    if (strcmp(plants[i].name, name) == 0) return true;
  return false;
}

#ifdef TARN_PLANTS
static int run_planted(const struct options *options, char **argv) {
  (void)argv;
  for (size_t i = 0; i < COUNT_OF(plants); i++)
    if (strcmp(plants[i].name, options->plant) == 0) plant_active = (enum plant)(i + 1);
  return run_all(options);
}
#else
static int run_planted(const struct options *options, char **argv) {
  (void)options;
  char path[4096];
  ssize_t bytes = readlink("/proc/self/exe", path, sizeof path - 16);
  if (bytes <= 0) return 3;
  snprintf(path + bytes, sizeof path - (size_t)bytes, "-planted");
  execv(path, argv);
  fprintf(stderr, "tarn-sim: cannot run %s: %s\n", path, strerror(errno));
  return 2;
}
#endif

/* ---- the command line ---- */

static const char usage_text[] =
    "Usage: tarn-sim [--seed N] [--seeds A-B] [--scenario NAME] [--minutes M] [--plant BUG] [--stop] [--trace]\n"
    "       tarn-sim --sweep [--scenario STORY]\n"
    "\n"
    "Runs a mirror on simulated disks, under simulated clients and disasters, and checks every byte they see.\n"
    "The same seed gives the same run, byte for byte.\n"
    "\n"
    "  --seed N          one seed\n"
    "  --seeds A-B       all seeds from A to B (default 1-100)\n"
    "  --scenario NAME   what happens; \"list\" names them all\n"
    "  --minutes M       go on from the first seed for so long\n"
    "  --plant BUG       switch on one planted mistake; \"list\" names them all\n"
    "  --limits KIND     \"tiny\" or \"normal\" for all seeds of the mix; without it half of them are tiny\n"
    "  --stop            end with the first seed that fails\n"
    "  --trace           print every event of the run\n"
    "  --sweep           scripted scenarios again and again: the 1st, 2nd, 3rd ... I/O fails, once and for good\n"
    "  --strike KIND:N   one run of that: the Nth I/O fails; \"once\", or its \"disk\" from then on, or \"all\" "
    "disks\n";

static int bad_usage(const char *what, const char *value) {
  fprintf(stderr, "tarn-sim: %s: %s (try --help)\n", what, value);
  return 2;
}

static bool parse_number(const char *text, const char **end, uint64_t *out) {
  if (*text < '0' || *text > '9') return false;
  char *stop = NULL;
  errno = 0;
  *out = strtoull(text, &stop, 10);
  *end = stop;
  return errno == 0;
}

static bool parse_seeds(struct options *options, const char *text, bool one) {
  const char *end = NULL;
  options->seeds_given = true;
  if (!parse_number(text, &end, &options->first)) return false;
  options->last = options->first;
  if (one) return *end == '\0';
  return *end == '-' && parse_number(end + 1, &end, &options->last) && *end == '\0' && options->first <= options->last;
}

static int list_scenarios(void) {
  for (uint32_t i = 0; scenario_at(i); i++) printf("%-16s %s\n", scenario_at(i)->name, scenario_at(i)->text);
  return 0;
}

static bool parse_strike(struct options *options, const char *text) {
  const char *end = NULL;
  for (enum sweep_kind kind = SWEEP_ONCE; kind < SWEEP_KIND_COUNT; kind++) {
    size_t length = strlen(sweep_kind_name(kind));
    if (strncmp(text, sweep_kind_name(kind), length) != 0 || text[length] != ':') continue;
    options->strike_kind = kind;
    return parse_number(text + length + 1, &end, &options->strike_at) && *end == '\0' && options->strike_at > 0;
  }
  return false;
}

/* -1: run; else the exit status. */
static int parse_value(struct options *options, const char *name, const char *value) {
  const char *end = NULL;
  if (strcmp(name, "--seed") == 0) return parse_seeds(options, value, true) ? -1 : bad_usage("not a seed", value);
  if (strcmp(name, "--seeds") == 0) return parse_seeds(options, value, false) ? -1 : bad_usage("not A-B", value);
  if (strcmp(name, "--minutes") == 0) {
    bool good = parse_number(value, &end, &options->minutes) && *end == '\0' && options->minutes > 0;
    return good && options->minutes < 1000000 ? -1 : bad_usage("not a number of minutes", value);
  }
  if (strcmp(name, "--scenario") == 0) {
    if (strcmp(value, "list") == 0) return list_scenarios();
    options->scenario = scenario_find(value);
    return options->scenario ? -1 : bad_usage("no such scenario", value);
  }
  if (strcmp(name, "--limits") == 0) {
    options->limits = value;
    bool known = strcmp(value, "tiny") == 0 || strcmp(value, "normal") == 0;
    return known ? -1 : bad_usage("neither tiny nor normal", value);
  }
  if (strcmp(name, "--strike") == 0) return parse_strike(options, value) ? -1 : bad_usage("not KIND:N", value);
  if (strcmp(name, "--plant") == 0) {
    if (strcmp(value, "list") == 0) return list_plants();
    options->plant = value;
    return plant_exists(value) ? -1 : bad_usage("no such mistake", value);
  }
  return bad_usage("unknown option", name);
}

static int parse(struct options *options, int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--trace") == 0) {
      options->trace = true;
      continue;
    }
    if (strcmp(argv[i], "--stop") == 0) {
      options->stop = true;
      continue;
    }
    if (strcmp(argv[i], "--sweep") == 0) {
      options->sweep = true;
      continue;
    }
    if (strcmp(argv[i], "--help") == 0) {
      fputs(usage_text, stdout);
      return 0;
    }
    if (strcmp(argv[i], "--version") == 0) {
      printf("tarn-sim %s\n", TARN_BUILD_VERSION);
      return 0;
    }
    if (strncmp(argv[i], "--", 2) != 0) return bad_usage("unknown argument", argv[i]);
    if (i + 1 == argc) return bad_usage("a value is missing after", argv[i]);
    int status = parse_value(options, argv[i], argv[i + 1]);
    if (status >= 0) return status;
    i++;
  }
  bool sweeps = options->sweep || options->strike_at != 0;
  if (sweeps && options->scenario->kind != SCENARIO_SCRIPTED &&
      (options->strike_at || options->scenario != scenario_at(0)))
    return bad_usage("not a scripted scenario", options->scenario->name);
  if (options->minutes && !options->seeds_given) options->first = 1;
  if (options->minutes) options->last = UINT64_MAX;
  return -1;
}

/* A run takes and gives back some megabytes again and again. What is smaller than this is kept and used once more; what is larger
 * is mostly never touched, and comes from the kernel each time. Without it half of the time goes into clearing pages. */
static void memory_for_many_runs(void) {
  mallopt(M_MMAP_THRESHOLD, 2000 << 10);
  mallopt(M_TRIM_THRESHOLD, 30 << 20);
  mallopt(M_TOP_PAD, 12 << 20);
}

int main(int argc, char **argv) {
  struct options options = {.program = argv[0], .scenario = scenario_at(0), .first = 1, .last = 100};
  memory_for_many_runs();
  int status = parse(&options, argc, argv);
  if (status >= 0) return status;
  if (options.plant == NULL) {
    signal(SIGSEGV, on_fault);
    signal(SIGBUS, on_fault);
    signal(SIGFPE, on_fault);
    if (options.strike_at) return run_strike(&options);
    if (options.sweep) return run_sweep(&options);
    return run_all(&options);
  }
  return run_planted(&options, argv);
}
