/* buffer.c - for each class a free list; for each account, and class, a line of those who wait. */
#include "core/buffer.h"

#include "base/plant.h"

#define BUFFER_COUNT_MIN 4u

const uint32_t buffer_class_bytes[BUFFER_CLASS_COUNT] = {8 * 1024, 68 * 1024, 264 * 1024};
static const uint32_t class_share[BUFFER_CLASS_COUNT] = {4, 4, 2}; /* 1/share of the pool's bytes */

static unsigned class_of(const struct buffer *buffer) {
  for (unsigned size_class = 0; size_class < BUFFER_CLASS_COUNT; size_class++)
    if (buffer_class_bytes[size_class] == buffer->bytes) return size_class;
  tarn_panic("a buffer of no class", __FILE__, __LINE__);
}

static tarn_err class_init(struct buffer_pool *pool, struct arena *arena, unsigned size_class, uint64_t count) {
  uint32_t bytes = buffer_class_bytes[size_class];
  struct buffer *buffers = ARENA_NEW(arena, struct buffer, count);
  uint8_t *memory = arena_take(arena, bytes * count, BUFFER_ALIGN);
  if (!buffers || !memory) return TARN_FULL;
  for (uint64_t i = 0; i < count; i++) {
    buffers[i] = (struct buffer){.pool = pool, .base = memory + i * bytes, .bytes = bytes};
    list_init(&buffers[i].link);
    list_push(&pool->free[size_class], &buffers[i].link);
  }
  pool->free_count[size_class] = pool->total_count[size_class] = (uint32_t)count;
  return TARN_OK;
}

tarn_err buffer_pool_init(struct buffer_pool *pool, struct env *env, struct arena *arena, uint64_t bytes) {
  require(buffer_class_bytes[BUFFER_CLASS_COUNT - 1] == BUFFER_DATA_MAX + BUFFER_ALIGN);
  *pool = (struct buffer_pool){.env = env};
  list_init(&pool->accounts);
  buffer_account_init(&pool->nobody);
  for (unsigned size_class = 0; size_class < BUFFER_CLASS_COUNT; size_class++) list_init(&pool->free[size_class]);
  for (unsigned size_class = 0; size_class < BUFFER_CLASS_COUNT; size_class++) {
    uint64_t count = bytes / class_share[size_class] / buffer_class_bytes[size_class];
    require(count <= UINT32_MAX);
    tarn_err err = class_init(pool, arena, size_class, max_u64(count, BUFFER_COUNT_MIN));
    if (err) return err;
  }
  require(buffer_pool_is_whole(pool));
  return TARN_OK;
}

static unsigned class_for(uint32_t data_bytes) {
  require(data_bytes > 0);
  require(data_bytes <= BUFFER_DATA_MAX);
  unsigned size_class = 0;
  while (buffer_class_bytes[size_class] - BUFFER_ALIGN < data_bytes) size_class++;
  return size_class;
}

/* ---- accounts ---- */

void buffer_account_init(struct buffer_account *account) {
  *account = (struct buffer_account){0};
  list_init(&account->link);
  for (unsigned size_class = 0; size_class < BUFFER_CLASS_COUNT; size_class++) list_init(&account->waiting[size_class]);
}

static bool account_waits(const struct buffer_account *account) {
  for (unsigned size_class = 0; size_class < BUFFER_CLASS_COUNT; size_class++)
    if (!list_is_empty(&account->waiting[size_class])) return true;
  return false;
}

bool buffer_account_is_empty(const struct buffer_account *account) {
  for (unsigned size_class = 0; size_class < BUFFER_CLASS_COUNT; size_class++)
    if (account->used[size_class] > 0 || account->held[size_class] > 0) return false;
  return !account_waits(account);
}

/* The quota (see buffer.h), if so many are free. */
static bool may_take(const struct buffer_pool *pool, const struct buffer_account *account, unsigned size_class,
                     uint32_t free_count) {
  if (account == &pool->nobody || PLANTED(no_quota)) return free_count > 0;
  return 2 * account->used[size_class] + account->held[size_class] < 2 * free_count;
}

/* The smallest free buffer that will do. Who waits in a larger class while some are free there waits for its quota. */
static struct buffer *take(struct buffer_pool *pool, struct buffer_account *account, unsigned needed) {
  for (unsigned size_class = needed; size_class < BUFFER_CLASS_COUNT; size_class++) {
    if (!may_take(pool, account, size_class, pool->free_count[size_class])) continue;
    struct buffer *buffer = LIST_ENTRY(list_pop(&pool->free[size_class]), struct buffer, link);
    require(buffer->refs == 0);
    pool->free_count[size_class]--;
    account->used[size_class]++;
    buffer->refs = 1;
    buffer->account = account;
    buffer->held = false;
    return buffer;
  }
  return NULL;
}

struct buffer *buffer_get_for(struct buffer_pool *pool, struct buffer_account *account, uint32_t data_bytes) {
  unsigned size_class = class_for(data_bytes);
  if (!account) account = &pool->nobody;
  return list_is_empty(&account->waiting[size_class]) ? take(pool, account, size_class) : NULL;
}

/* ---- waiting ---- */

/* The first one of an account that waits in this class, if it may have a buffer now; its account has had its turn then.
 * */
static bool serve_account(struct buffer_pool *pool, struct buffer_account *account, unsigned size_class) {
  struct list *node = list_first(&account->waiting[size_class]);
  struct buffer *buffer = node ? take(pool, account, size_class) : NULL;
  if (!buffer) return false;
  struct buffer_wait *wait = LIST_ENTRY(node, struct buffer_wait, link);
  wait->buffer = buffer;
  list_remove(node);
  event_post(&pool->env->queue, &wait->event);
  list_remove(&account->link);
  if (account_waits(account)) list_push(&pool->accounts, &account->link);
  return true;
}

static bool serve_one(struct buffer_pool *pool, unsigned size_class) {
  LIST_EACH(&pool->accounts, node) {
    if (serve_account(pool, LIST_ENTRY(node, struct buffer_account, link), size_class)) return true;
  }
  return false;
}

/* Gives what there is to those who wait; large ones first, for they can take nothing else. */
static void serve_waiting(struct buffer_pool *pool) {
  if (list_is_empty(&pool->accounts)) return;
  for (unsigned size_class = BUFFER_CLASS_COUNT; size_class-- > 0;)
    while (serve_one(pool, size_class)) continue;
}

static bool is_used_up(const struct buffer_pool *pool, unsigned needed) {
  for (unsigned size_class = needed; size_class < BUFFER_CLASS_COUNT; size_class++)
    if (pool->free_count[size_class] > 0) return false;
  return true;
}

bool buffer_pool_is_crowded(const struct buffer_pool *pool, const struct buffer_account *account) {
  LIST_EACH(&pool->accounts, node) {
    const struct buffer_account *waiting = LIST_ENTRY(node, struct buffer_account, link);
    if (waiting == account) return true;
    for (unsigned size_class = 0; size_class < BUFFER_CLASS_COUNT; size_class++)
      if (!list_is_empty(&waiting->waiting[size_class]) && is_used_up(pool, size_class)) return true;
  }
  return false;
}

static void wait_ready(struct event *event) {
  struct buffer_wait *wait = CONTAINER_OF(event, struct buffer_wait, event);
  require(wait->buffer != NULL);
  wait->ready(wait);
}

void buffer_wait_init(struct buffer_wait *wait, void (*ready)(struct buffer_wait *wait)) {
  require(ready != NULL);
  *wait = (struct buffer_wait){.ready = ready};
  list_init(&wait->link);
  event_init(&wait->event, wait_ready);
}

void buffer_wait_for(struct buffer_pool *pool, struct buffer_account *account, struct buffer_wait *wait,
                     uint32_t data_bytes) {
  require(!list_is_linked(&wait->link));
  require(!event_is_posted(&wait->event));
  wait->data_bytes = data_bytes;
  wait->account = account ? account : &pool->nobody;
  wait->buffer = NULL;
  list_push(&wait->account->waiting[class_for(data_bytes)], &wait->link);
  if (!list_is_linked(&wait->account->link)) list_push(&pool->accounts, &wait->account->link);
  serve_waiting(pool);
  if (!wait->buffer) pool->waits++;
}

void buffer_wait_cancel(struct buffer_pool *pool, struct buffer_wait *wait) {
  if (list_is_linked(&wait->link)) {
    list_remove(&wait->link);
    if (!account_waits(wait->account)) list_remove(&wait->account->link);
    serve_waiting(pool); /* who stood behind it may need less */
  } else if (event_is_posted(&wait->event)) {
    event_cancel(&wait->event);
    buffer_unref(wait->buffer);
    wait->buffer = NULL;
  }
}

void buffer_ref(struct buffer *buffer) {
  require(buffer->refs > 0);
  require(buffer->refs < UINT32_MAX);
  buffer->refs++;
}

void buffer_hold(struct buffer *buffer) {
  if (!buffer->pool || buffer->held) return;
  require(buffer->refs > 0);
  unsigned size_class = class_of(buffer);
  require(buffer->account->used[size_class] > 0);
  buffer->held = true;
  buffer->account->used[size_class]--;
  buffer->account->held[size_class]++;
  serve_waiting(buffer->pool); /* what is held counts for less */
}

void buffer_unref(struct buffer *buffer) {
  require(buffer->refs > 0);
  if (--buffer->refs > 0) return;
  struct buffer_pool *pool = buffer->pool;
  unsigned size_class = class_of(buffer);
  uint32_t *charged = buffer->held ? &buffer->account->held[size_class] : &buffer->account->used[size_class];
  require(*charged > 0);
  --*charged;
  buffer->account = NULL;
  require(pool->free_count[size_class] < pool->total_count[size_class]);
  list_push_front(&pool->free[size_class], &buffer->link); /* the one used last is the one still in the CPU's cache */
  pool->free_count[size_class]++;
  serve_waiting(pool);
}

bool buffer_pool_is_whole(const struct buffer_pool *pool) {
  for (unsigned size_class = 0; size_class < BUFFER_CLASS_COUNT; size_class++)
    if (pool->free_count[size_class] != pool->total_count[size_class]) return false;
  return list_is_empty(&pool->accounts);
}

void buffer_init_private(struct buffer *buffer, uint8_t *memory, uint32_t bytes) {
  require(memory == NULL || (uintptr_t)memory % BUFFER_ALIGN == 0);
  *buffer = (struct buffer){.bytes = bytes, .refs = 1, .base = memory};
  list_init(&buffer->link);
}

bool buffer_new_private(struct buffer *buffer, struct arena *arena, uint32_t bytes) {
  buffer_init_private(buffer, arena_take(arena, bytes, BUFFER_ALIGN), bytes);
  return buffer->base != NULL;
}
