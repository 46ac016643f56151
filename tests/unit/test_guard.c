/* guard.h: one clear failure of a disk that hangs or is gone, and what it still holds. */
#include "core/guard.h"

#include "held_disk.h"
#include "unit.h"

#define SLOTS 8u
#define HANG  (10 * NS_PER_S)

static struct env env;
static struct arena arena;
static struct buffer_pool pool;
static struct guard guard;
static struct held_disk lower;

static void died(struct guard *of) {
  assert_ptr_equal(of, &guard);
  assert_true(of->dead);
  say("died ");
}
static void quiet(struct guard *of) {
  assert_ptr_equal(of, &guard);
  assert_true(guard_is_quiet(of));
  say("quiet ");
}

static int setup(void **state) {
  (void)state;
  env_init(&env);
  env.now_ns = 7;
  arena_init(&arena);
  held_disk_init(&lower, &env);
  lower.disk.caps.tells_losses = true;
  said[0] = 0;
  if (buffer_pool_init(&pool, &env, &arena, 0) != TARN_OK) return -1;
  if (guard_init(&guard, &env, &arena, SLOTS) != TARN_OK) return -1;
  guard.died = died;
  guard.quiet = quiet;
  guard_attach(&guard, &lower.disk, HANG);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  bool whole = buffer_pool_is_whole(&pool);
  arena_destroy(&arena);
  return whole && lower.count == 0 ? 0 : -1;
}

static struct disk_io *submit(uint32_t index, enum disk_op op, struct buffer *buffer) {
  struct disk_io *io = &ios[index];
  *io = (struct disk_io){.op = op, .length = op == DISK_FLUSH ? 0 : 512, .buffer = buffer, .done = io_done};
  if (buffer) io->data = buffer->base;
  disk_io_init(io);
  disk_submit(&guard.disk, io);
  return io;
}
static void flush(uint32_t index) { submit(index, DISK_FLUSH, NULL); }
static void answer(uint32_t index, tarn_err err) { held_disk_answer(&lower, index, err); }

/* ---- alive ---- */

static void it_passes_everything_on(void **state) {
  (void)state;
  static const struct {
    const char *why;
    enum disk_op op;
    uint32_t flags;
    uint64_t offset, length;
    tarn_err err;
  } rows[] = {
      {"read", DISK_READ, 0, 512, 1024, TARN_OK},
      {"an error is the disk's, and kills nobody", DISK_READ, 0, 512, 1024, TARN_IO},
      {"write with FUA", DISK_WRITE, DISK_FUA, 1024, 512, TARN_OK},
      {"no space left", DISK_WRITE, 0, 1024, 512, TARN_NO_SPACE},
      {"extents", DISK_EXTENTS, 0, 4096, 65536, TARN_OK},
      {"flush", DISK_FLUSH, 0, 0, 0, TARN_OK},
      {"a flush that fails", DISK_FLUSH, 0, 0, 0, TARN_IO},
      {"trim", DISK_TRIM, DISK_FUA, 512, 2048, TARN_OK},
      {"zeroes", DISK_WRITE_ZEROES, DISK_FUA | DISK_NO_HOLE, 0, 1 << 20, TARN_UNSUPPORTED},
  };
  struct buffer *buffer = buffer_get(&pool, 4096);
  assert_memory_equal(&guard.disk.caps, &lower.disk.caps, sizeof lower.disk.caps);
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    bool has_data = rows[i].op == DISK_READ || rows[i].op == DISK_WRITE || rows[i].op == DISK_EXTENTS;
    ios[0] = (struct disk_io){.op = rows[i].op,
                              .flags = rows[i].flags,
                              .offset = rows[i].offset,
                              .length = rows[i].length,
                              .buffer = has_data ? buffer : NULL,
                              .data = has_data ? buffer->base + rows[i].offset : NULL,
                              .done = io_done};
    disk_io_init(&ios[0]);
    disk_submit(&guard.disk, &ios[0]);
    struct disk_io *below = held_disk_io(&lower, 0);
    row_true(rows[i].why, below != &ios[0]); /* a disk that hangs keeps the guard's, not the submitter's */
    row_true(rows[i].why, is_passed_on(below, &ios[0]));
    row_true(rows[i].why, buffer->refs == 1);
    answer(0, rows[i].err);
    row_true(rows[i].why, said_so(""));
    assert_true(event_run_one(&env.queue)); /* one event for both */
    row_true(rows[i].why, said[0] == 'a' && ios[0].err == rows[i].err);
    row_true(rows[i].why, !guard.dead && guard_is_quiet(&guard) && guard.disk.in_flight == 0);
    said[0] = 0;
  }
  buffer_unref(buffer);
}

static void a_read_may_come_back_with_another_buffer(void **state) {
  (void)state;
  struct buffer *given = buffer_get(&pool, 512), *other = buffer_get(&pool, 512);
  submit(0, DISK_EXTENTS, given);
  held_disk_io(&lower, 0)->buffer = other;
  held_disk_io(&lower, 0)->data = other->base;
  answer(0, TARN_OK);
  run_events(&env);
  assert_ptr_equal(ios[0].buffer, other);
  assert_int_equal(ios[0].extent_count, 1);
  assert_true(said_so("a:ok "));
  submit(0, DISK_READ, given);
  struct disk_io *below = held_disk_io(&lower, 0);
  below->buffer = other;
  below->data = other->base + 512;
  answer(0, TARN_OK);
  run_events(&env);
  assert_ptr_equal(ios[0].buffer, other);
  assert_ptr_equal(ios[0].data, other->base + 512);
  assert_true(said_so("a:ok "));
  buffer_unref(given); /* the disk that exchanged them owns it; here that is the test */
  buffer_unref(ios[0].buffer);
}

static void a_place_is_free_again_inside_its_own_completion(void **state) {
  (void)state;
  for (uint32_t i = 0; i < SLOTS; i++) flush(i);
  answer(3, TARN_OK);
  run_events(&env);
  flush(3);
  assert_int_equal(lower.count, SLOTS);
  while (lower.count > 0) answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("d:ok a:ok b:ok c:ok e:ok f:ok g:ok h:ok d:ok "));
}

/* A hung EXTENTS is like any other I/O: what the disk writes later goes where nobody looks. */
static void a_hung_extents_keeps_its_buffer(void **state) {
  (void)state;
  struct buffer_account account;
  buffer_account_init(&account);
  struct buffer *buffer = buffer_get_for(&pool, &account, 512);
  submit(0, DISK_EXTENTS, buffer);
  assert_true(account.used[0] == 1 && account.held[0] == 0);
  pass(&env, 2 * HANG);
  assert_true(account.used[0] == 0 && account.held[0] == 1);
  assert_true(said_so("died a:hung "));
  assert_int_equal(ios[0].extent_count, 0);
  assert_true(buffer_is_shared(buffer));
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("quiet "));
  assert_int_equal(ios[0].extent_count, 0);
  assert_false(buffer_is_shared(buffer));
  buffer_unref(buffer);
  assert_true(buffer_account_is_empty(&account));
}

/* ---- time ---- */

static void when_an_io_has_hung(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint64_t hang_ns, start_ns;
  } rows[] = {
      {"the shortest hang", NS_PER_MS, 0},
      {"the default", 10 * NS_PER_S, 123456789},
      {"the longest", 600 * NS_PER_S, 1},
      {"not a multiple of four", NS_PER_MS + 3, 5},
      {"one nanosecond", 1, 0},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    uint64_t hang = rows[i].hang_ns;
    /* The I/O comes at different places of a step: a first one, answered at once, has armed the timer. */
    for (uint64_t part = 0; part < 8; part++) {
      guard_detach(&guard);
      guard_attach(&guard, &lower.disk, hang);
      pass(&env, rows[i].start_ns);
      flush(1);
      answer(0, TARN_OK);
      run_events(&env);
      pass(&env, hang * part / 16);
      said[0] = 0;
      flush(0);
      pass(&env, hang - 1);
      row_true(rows[i].why, !guard.dead);
      row_true(rows[i].why, guard_oldest_ns(&guard) == hang - 1);
      pass(&env, hang / 2 + 5); /* 5: steps are rounded up to whole nanoseconds */
      row_true(rows[i].why, guard.dead && guard.err == TARN_HUNG);
      row_true(rows[i].why, said_so("died a:hung "));
      row_true(rows[i].why, !timer_is_armed(&guard.timer));
      answer(0, TARN_OK);
      run_events(&env);
      row_true(rows[i].why, said_so("quiet "));
    }
  }
}

static void the_timer_rests_when_nothing_is_in_flight(void **state) {
  (void)state;
  assert_false(timer_is_armed(&guard.timer));
  flush(0);
  uint64_t deadline = guard.timer.deadline_ns;
  assert_true(timer_is_armed(&guard.timer));
  for (int i = 0; i < 5; i++) { /* not armed anew for each I/O */
    pass(&env, 1);
    answer(0, TARN_OK);
    run_events(&env);
    flush(0);
    assert_true(guard.timer.deadline_ns == deadline);
  }
  answer(0, TARN_OK);
  pass(&env, HANG);
  assert_false(timer_is_armed(&guard.timer));
  assert_true(timers_next_ns(&env) == UINT64_MAX);
}

static void a_disk_that_answers_always_is_never_judged(void **state) {
  (void)state;
  flush(0);
  for (uint32_t i = 1; i < 50; i++) { /* two in flight all the time, each for nearly `hang` */
    pass(&env, HANG / 2 - 1);
    if (i > 1) answer(0, TARN_OK);
    run_events(&env);
    flush(i % 2);
    assert_false(guard.dead);
  }
  while (lower.count > 0) answer(0, TARN_OK);
  run_events(&env);
}

static void a_stopped_process_hears_its_disks_first(void **state) {
  (void)state;
  flush(0);
  pass(&env, HANG);               /* one step is left */
  assert_false(guard.dead);       /* the disk is slow, but ... */
  turn_at(&env, 3600 * NS_PER_S); /* ... we were stopped, and its answer is fetched at the end of this turn */
  assert_false(guard.dead);
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("a:ok "));

  flush(1); /* one that has really hung is found out after a stop too, and by a process that is always late */
  for (uint64_t i = 1; i < 12; i++) turn_at(&env, env.now_ns + 3600 * NS_PER_S);
  assert_true(said_so("died b:hung "));
  answer(0, TARN_OK);
  run_events(&env);
}

static void a_new_patience(void **state) {
  (void)state;
  flush(0);
  pass(&env, HANG / 2);
  guard_set_hang(&guard, 600 * NS_PER_S);
  pass(&env, 600 * NS_PER_S - 1);
  assert_false(guard.dead);
  guard_set_hang(&guard, NS_PER_S); /* the step under way was one of 150 s */
  pass(&env, NS_PER_S - 1);
  assert_false(guard.dead);
  pass(&env, NS_PER_S / 2);
  assert_true(said_so("died a:hung "));
  guard_set_hang(&guard, HANG);
  assert_false(timer_is_armed(&guard.timer));
  answer(0, TARN_OK);
  run_events(&env);

  guard_detach(&guard);
  guard_attach(&guard, &lower.disk, HANG);
  said[0] = 0;
  flush(0);
  for (int i = 0; i < 30; i++) { /* set to what it is: changes nothing, however often */
    guard_set_hang(&guard, HANG);
    pass(&env, HANG / 20);
  }
  assert_true(said_so("died a:hung "));
  answer(0, TARN_OK);
  run_events(&env);
}

/* ---- death ---- */

static void a_hang_fails_everything_once(void **state) {
  (void)state;
  struct buffer *buffer = buffer_get(&pool, 512);
  submit(0, DISK_WRITE, buffer);
  pass(&env, HANG / 2);
  flush(1); /* young, and fails with the old one: who hangs is not asked again */
  pass(&env, HANG);
  assert_true(said_so("died a:hung b:hung "));
  assert_int_equal(guard.held, 2);
  assert_true(guard.died_ns > HANG);
  assert_int_equal(guard.disk.in_flight, 0);
  assert_false(guard_is_quiet(&guard));

  uint32_t submitted = lower.submitted;
  flush(2); /* posted, never inside the call, and nothing more goes down */
  assert_true(said_so(""));
  run_events(&env);
  assert_true(said_so("c:hung "));
  assert_int_equal(lower.submitted, submitted);

  answer(1, TARN_OK); /* late answers go nowhere, whatever they are */
  run_events(&env);
  assert_int_equal(guard.held, 1);
  answer(0, TARN_GONE);
  run_events(&env);
  assert_true(said_so("quiet "));
  assert_true(guard.err == TARN_HUNG);
  buffer_unref(buffer);
}

static void the_buffer_of_a_held_io_is_not_free(void **state) {
  (void)state;
  static const struct {
    const char *why;
    enum disk_op op;
  } rows[] = {{"a held write may still read it", DISK_WRITE}, {"a held read may still change it", DISK_READ}};
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct buffer *buffer = buffer_get(&pool, 512);
    uint32_t free_before = pool.free_count[0];
    submit(0, rows[i].op, buffer);
    row_true(rows[i].why, !buffer_is_shared(buffer)); /* alive, it costs no reference */
    pass(&env, 2 * HANG);
    row_true(rows[i].why, said_so("died a:hung "));
    row_true(rows[i].why, buffer_is_shared(buffer));
    buffer_unref(buffer); /* its owner has gone on */
    row_true(rows[i].why, pool.free_count[0] == free_before);
    answer(0, TARN_OK);
    run_events(&env);
    row_true(rows[i].why, pool.free_count[0] == free_before + 1);
    said[0] = 0;
    guard_detach(&guard);
    guard_attach(&guard, &lower.disk, HANG);
  }
}

static void a_held_read_may_exchange_its_buffer_too(void **state) {
  (void)state;
  struct buffer *given = buffer_get(&pool, 512), *other = buffer_get(&pool, 512);
  submit(0, DISK_READ, given);
  pass(&env, 2 * HANG);
  assert_ptr_equal(ios[0].buffer, given); /* the submitter has its own back */
  buffer_unref(given);
  struct disk_io *below = held_disk_io(&lower, 0);
  below->buffer = other; /* now the guard's reference is to this one, and the disk has that to the old one ... */
  below->data = other->base;
  answer(0, TARN_OK);
  run_events(&env);
  assert_int_equal(other->refs, 0);
  assert_int_equal(given->refs, 1);
  buffer_unref(given); /* ... and gives it back */
}

static void gone_is_for_ever(void **state) {
  (void)state;
  struct buffer *buffer = buffer_get(&pool, 512);
  flush(0);
  submit(1, DISK_WRITE, buffer);
  flush(2);
  answer(1, TARN_GONE);
  answer(0, TARN_OK); /* the disk had this flush done, but its answer comes behind the loss: nobody may lean on it */
  run_events(&env);
  assert_true(said_so("died a:gone c:gone b:gone "));
  assert_int_equal(guard.held, 1);
  flush(3); /* the connection may be back by now */
  run_events(&env);
  assert_true(said_so("d:gone "));
  assert_int_equal(lower.count, 1);
  answer(0, TARN_GONE);
  run_events(&env);
  assert_true(said_so("quiet "));
  assert_int_equal(buffer->refs, 1);
  buffer_unref(buffer);
}

static void an_answer_on_its_way_when_it_dies(void **state) {
  (void)state;
  flush(0);
  answer(0, TARN_OK);
  guard_kill(&guard, TARN_IO); /* before the answer has run: it is too late */
  assert_true(said_so(""));
  run_events(&env);
  assert_true(said_so("died a:io quiet ")); /* quiet last, though the held I/O was answered first */
}

static void killed_by_its_user(void **state) {
  (void)state;
  flush(0);
  guard_kill(&guard, TARN_GONE);
  guard_kill(&guard, TARN_IO); /* one death */
  assert_true(said_so(""));
  run_events(&env);
  assert_true(said_so("died a:gone "));
  assert_true(guard.err == TARN_GONE);
  guard_kill(&guard, TARN_IO);
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("quiet "));
  guard_detach(&guard);
  guard_kill(&guard, TARN_IO);
  run_events(&env);
  assert_true(said_so(""));
}

static void killed_with_nothing_in_flight(void **state) {
  (void)state;
  guard_kill(&guard, TARN_GONE);
  assert_true(guard_is_quiet(&guard));
  run_events(&env);
  assert_true(said_so("died "));
  guard_kill(&guard, TARN_GONE);
  guard_detach(&guard);
  guard_attach(&guard, &lower.disk, HANG);
  guard_kill(&guard, TARN_GONE);
  guard_detach(&guard); /* before it was told */
  run_events(&env);
  assert_true(said_so(""));
}

/* ---- another life ---- */

static void it_lives_again_with_a_new_disk(void **state) {
  (void)state;
  flush(0);
  pass(&env, 2 * HANG);
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("died a:hung quiet "));
  guard_detach(&guard);
  assert_true(guard.lower == NULL && guard.dead);

  flush(1); /* between two disks it fails what comes, with the reason it died of */
  run_events(&env);
  assert_true(said_so("b:hung "));

  struct held_disk next;
  held_disk_init(&next, &env);
  next.disk.caps.size_bytes = 4096;
  guard_attach(&guard, &next.disk, NS_PER_S);
  assert_false(guard.dead);
  assert_int_equal(guard.disk.caps.size_bytes, 4096);
  flush(0);
  held_disk_answer(&next, 0, TARN_OK);
  run_events(&env);
  assert_true(said_so("a:ok "));
  assert_int_equal(lower.submitted, 1);
  flush(0);
  pass(&env, 2 * NS_PER_S); /* and dies again */
  held_disk_answer(&next, 0, TARN_OK);
  run_events(&env);
  assert_true(said_so("died a:hung quiet "));
}

static void before_its_first_disk(void **state) {
  (void)state;
  struct guard fresh;
  assert_int_equal(guard_init(&fresh, &env, &arena, 1), TARN_OK);
  ios[0] = (struct disk_io){.op = DISK_WRITE_ZEROES, .offset = 12345, .length = 1ull << 50, .done = io_done};
  disk_io_init(&ios[0]);
  disk_submit(&fresh.disk, &ios[0]);
  run_events(&env);
  assert_true(said_so("a:gone "));
  assert_true(guard_is_quiet(&fresh));
  assert_true(guard_oldest_ns(&fresh) == 0);
}

/* ---- lines of ours ---- */

static void what_stands_in_a_line_that_moves_does_not_age(void **state) {
  (void)state;
  uint64_t moved = 7;
  flush(0);
  flush(1);
  struct disk_io *waits = held_disk_io(&lower, 1), behind = {.line = &moved};
  waits->under = &behind; /* of a disk that has passed it on */
  answer(0, TARN_OK);
  for (uint32_t i = 0; i < 10; i++, moved++) pass(&env, HANG / 2);
  assert_true(said_so("a:ok "));
  assert_false(guard.dead);
  disk_io_set_line(&behind, NULL); /* the disk has it: now it counts, and from now on */
  pass(&env, HANG / 2);
  assert_false(guard.dead);
  pass(&env, HANG);
  assert_true(said_so("died b:hung "));
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("quiet "));
}

/* As over parts of one disk that does one thing at a time: each piece takes less than `hang`, all of them more. */
static void each_piece_has_its_own_time(void **state) {
  (void)state;
  struct disk_io pieces[4] = {{.line = NULL}};
  flush(0);
  for (uint32_t i = 0; i < 4; i++) {
    held_disk_io(&lower, 0)->under = &pieces[i];
    pass(&env, HANG / 2);
    assert_false(guard.dead);
  }
  pass(&env, HANG);
  assert_true(said_so("died a:hung "));
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("quiet "));
}

/* All that the disk has is another user's, which waits longer, or has been answered by its own guard already: then nothing of this one's
 * is with the disk, and the line does not move. */
static void a_line_that_stands_still_hangs(void **state) {
  (void)state;
  uint64_t moved = 7;
  flush(0);
  disk_io_set_line(held_disk_io(&lower, 0), &moved);
  pass(&env, HANG / 2);
  assert_false(guard.dead);
  pass(&env, HANG);
  assert_true(said_so("died a:hung "));
  assert_int_equal(guard.held, 1);
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("quiet "));
}

static void it_fails_with_those_that_it_waits_for(void **state) {
  (void)state;
  uint64_t moved = 0;
  flush(0);
  flush(1);
  disk_io_set_line(held_disk_io(&lower, 1), &moved);
  for (uint32_t i = 0; i < 4; i++, moved++) pass(&env, HANG / 2);
  assert_true(said_so("died a:hung b:hung "));
  answer(0, TARN_OK);
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("quiet "));
}

/* As a disk does it that takes long for each, and does one after the other: half of `hang` for each of six. */
static void long_work_is_given_out_by_and_by(void **state) {
  (void)state;
  for (uint32_t i = 0; i < 6; i++) submit(i, i % 2 ? DISK_TRIM : DISK_WRITE_ZEROES, NULL);
  flush(6);
  assert_int_equal(lower.count, GUARD_LONG_MAX + 1); /* the flush passes them */
  answer(GUARD_LONG_MAX, TARN_OK);
  for (uint32_t i = 0; i < 6; i++) {
    pass(&env, HANG / 2);
    answer(0, i == 2 ? TARN_IO : TARN_OK);
    run_events(&env);
    assert_true(lower.count == min_u64(GUARD_LONG_MAX, 5 - i));
  }
  assert_true(said_so("g:ok a:ok b:ok c:io d:ok e:ok f:ok "));
  assert_true(guard_is_quiet(&guard) && !guard.dead);
}

static void long_work_in_line_dies_with_the_rest(void **state) {
  (void)state;
  for (uint32_t i = 0; i < 5; i++) submit(i, DISK_WRITE_ZEROES, NULL);
  pass(&env, 2 * HANG);
  assert_true(said_so("died a:hung b:hung c:hung d:hung e:hung "));
  assert_int_equal(guard.held, GUARD_LONG_MAX); /* the disk has nothing of the others, and gets nothing */
  while (lower.count > 0) answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("quiet "));
  assert_int_equal(lower.submitted, GUARD_LONG_MAX);
  guard_detach(&guard);
  guard_attach(&guard, &lower.disk, HANG);
  submit(0, DISK_TRIM, NULL);
  answer(0, TARN_GONE); /* the next in line is not begun on a disk that is gone */
  run_events(&env);
  assert_true(said_so("died a:gone "));
}

static void long_work_in_line_is_spared_a_disk_that_lives(void **state) {
  (void)state;
  for (uint32_t i = 0; i < 4; i++) submit(i, DISK_WRITE_ZEROES, NULL);
  guard_spare(&guard);
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("c:hung d:hung a:ok "));
  assert_int_equal(lower.count, 1); /* and gets none of them later */
  submit(2, DISK_TRIM, NULL);
  assert_int_equal(lower.count, 2);
  answer(0, TARN_OK);
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("b:ok c:ok "));
}

/* ---- a FUA, or a FLUSH, that fails beside others ---- */

static int setup_untold(void **state) {
  if (setup(state) != 0) return -1;
  guard.disk.caps.tells_losses = false;
  return 0;
}

static struct disk_io *zero_fua(uint32_t index) {
  struct disk_io *io = &ios[index];
  *io = (struct disk_io){.op = DISK_WRITE_ZEROES, .flags = DISK_FUA, .length = 512, .done = io_done};
  disk_io_init(io);
  disk_submit(&guard.disk, io);
  return io;
}

static void a_failed_fua_fails_a_flush(void **state) {
  (void)state;
  zero_fua(0);
  flush(1);
  answer(0, TARN_IO);
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("a:io b:io ")); /* one of the two was told of a loss, nobody knows whose */
  flush(2);
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("c:ok ")); /* that has been told now */
  zero_fua(0);
  answer(0, TARN_IO);
  run_events(&env);
  flush(1);
  answer(0, TARN_OK);
  run_events(&env);
  flush(2);
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("a:io b:io c:ok ")); /* the next one, too */
}

/* The FUA may have taken the error already when the flush ends. */
static void a_flush_waits_for_the_fuas_beside_it(void **state) {
  static const struct {
    tarn_err err;
    const char *said, *later;
  } rows[] = {{TARN_OK, "b:ok ", "c:ok a:ok "}, {TARN_IO, "a:io b:io ", "c:io "}};
  (void)state;
  for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
    zero_fua(0);
    flush(1);
    answer(1, TARN_OK);
    run_events(&env);
    assert_true(said_so(""));
    zero_fua(2); /* a later one says nothing of it, and is beside the first */
    answer(0, rows[row].err);
    run_events(&env);
    assert_true(said_so(rows[row].said));
    answer(0, TARN_OK);
    run_events(&env);
    assert_true(said_so(rows[row].later));
  }
}

/* ... and the flush that of a FUA: a good FUA means nothing beside a flush that fails, whoever of them ends first. */
static void a_fua_waits_for_the_flush_beside_it(void **state) {
  (void)state;
  zero_fua(0);
  flush(1);
  answer(1, TARN_IO);
  run_events(&env);
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("b:io a:io "));
  zero_fua(0);
  flush(1);
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so(""));
  answer(0, TARN_IO);
  run_events(&env);
  assert_true(said_so("b:io a:io "));
  guard.disk.caps.tells_losses = true; /* the disk sees to it */
  zero_fua(0);
  flush(1);
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("a:ok "));
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("b:ok "));
}

static void a_flush_that_waits_for_a_fua_dies_with_the_guard(void **state) {
  (void)state;
  zero_fua(0);
  flush(1);
  answer(1, TARN_OK);
  guard_kill(&guard, TARN_HUNG);
  run_events(&env);
  assert_true(said_so("died a:hung b:hung "));
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("quiet "));
}

/* What it was told was of that disk, or of that connection. */
static void what_a_fua_was_told_ends_with_its_disk(void **state) {
  (void)state;
  zero_fua(0);
  answer(0, TARN_IO);
  run_events(&env);
  guard_kill(&guard, TARN_GONE);
  run_events(&env);
  assert_true(said_so("a:io died "));
  guard_detach(&guard);
  guard_attach(&guard, &lower.disk, HANG);
  flush(1);
  answer(0, TARN_OK);
  run_events(&env);
  assert_true(said_so("b:ok "));
}

/* ---- what is required of its user ---- */

static void submit_flush(void *context) {
  (void)context;
  flush(SLOTS);
}
static void detach(void *context) {
  (void)context;
  guard_detach(&guard);
}
static void attach(void *context) {
  (void)context;
  guard_attach(&guard, &lower.disk, HANG);
}

static void wrong_use_is_a_bug_of_ours(void **state) {
  (void)state;
  assert_true(panics(attach, NULL)); /* it has a disk */
  for (uint32_t i = 0; i < SLOTS; i++) flush(i);
  assert_true(panics(submit_flush, NULL)); /* more than it has places for */
  assert_true(panics(detach, NULL));       /* in flight */
  guard_kill(&guard, TARN_GONE);
  run_events(&env);
  assert_true(panics(detach, NULL)); /* held */
  while (lower.count > 1) answer(0, TARN_OK);
  run_events(&env);
  assert_true(panics(detach, NULL)); /* one still is */
  answer(0, TARN_OK);
  run_events(&env);
  assert_false(panics(detach, NULL));
}

#define GUARD_TEST(name)  cmocka_unit_test_setup_teardown(name, setup, teardown)
#define UNTOLD_TEST(name) cmocka_unit_test_setup_teardown(name, setup_untold, teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      GUARD_TEST(it_passes_everything_on),
      GUARD_TEST(a_read_may_come_back_with_another_buffer),
      GUARD_TEST(a_hung_extents_keeps_its_buffer),
      GUARD_TEST(a_place_is_free_again_inside_its_own_completion),
      GUARD_TEST(when_an_io_has_hung),
      GUARD_TEST(the_timer_rests_when_nothing_is_in_flight),
      GUARD_TEST(a_disk_that_answers_always_is_never_judged),
      GUARD_TEST(a_stopped_process_hears_its_disks_first),
      GUARD_TEST(a_new_patience),
      GUARD_TEST(what_stands_in_a_line_that_moves_does_not_age),
      GUARD_TEST(a_line_that_stands_still_hangs),
      GUARD_TEST(each_piece_has_its_own_time),
      GUARD_TEST(it_fails_with_those_that_it_waits_for),
      GUARD_TEST(long_work_is_given_out_by_and_by),
      GUARD_TEST(long_work_in_line_dies_with_the_rest),
      GUARD_TEST(long_work_in_line_is_spared_a_disk_that_lives),
      UNTOLD_TEST(a_failed_fua_fails_a_flush),
      UNTOLD_TEST(a_flush_waits_for_the_fuas_beside_it),
      UNTOLD_TEST(a_fua_waits_for_the_flush_beside_it),
      UNTOLD_TEST(a_flush_that_waits_for_a_fua_dies_with_the_guard),
      UNTOLD_TEST(what_a_fua_was_told_ends_with_its_disk),
      GUARD_TEST(a_hang_fails_everything_once),
      GUARD_TEST(the_buffer_of_a_held_io_is_not_free),
      GUARD_TEST(a_held_read_may_exchange_its_buffer_too),
      GUARD_TEST(gone_is_for_ever),
      GUARD_TEST(an_answer_on_its_way_when_it_dies),
      GUARD_TEST(killed_by_its_user),
      GUARD_TEST(killed_with_nothing_in_flight),
      GUARD_TEST(it_lives_again_with_a_new_disk),
      GUARD_TEST(before_its_first_disk),
      GUARD_TEST(wrong_use_is_a_bug_of_ours),
  };
  return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
