/* range_lock.c - a treap of intervals.
 *
 * Key: (start, ticket). Heap: a parent's priority is above its children's. end_max: the largest end in the subtree, so a
 * search skips what ends before the range begins. All loops; depth is O(log n) because priorities are hashes. */
#include "core/range_lock.h"

#include "base/prng.h"

void range_lock_init(struct range_lock *lock, struct env *env) {
  *lock = (struct range_lock){.env = env, .next_ticket = 1};
}

static bool conflicts(const struct range_hold *a, const struct range_hold *b) {
  return a->start < b->end && b->start < a->end && (a->mode == RANGE_EXCLUSIVE || b->mode == RANGE_EXCLUSIVE);
}

static bool is_before(const struct range_hold *a, const struct range_hold *b) {
  return a->start != b->start ? a->start < b->start : a->ticket < b->ticket;
}

/* ---- the tree ---- */

static uint64_t end_max_of(const struct range_hold *node) {
  uint64_t end = node->end;
  if (node->left) end = max_u64(end, node->left->end_max);
  if (node->right) end = max_u64(end, node->right->end_max);
  return end;
}

/* The pointer that points to `node`. */
static struct range_hold **link_to(struct range_lock *lock, struct range_hold *node) {
  struct range_hold *parent = node->parent;
  if (!parent) return &lock->root;
  return parent->left == node ? &parent->left : &parent->right;
}

/* `child` takes the place of its parent, which becomes its child on the other side. */
static void rotate_up(struct range_lock *lock, struct range_hold *child) {
  struct range_hold *parent = child->parent;
  require(parent != NULL);
  struct range_hold **link = link_to(lock, parent), *moved;
  if (parent->left == child) {
    moved = parent->left = child->right;
    child->right = parent;
  } else {
    moved = parent->right = child->left;
    child->left = parent;
  }
  if (moved) moved->parent = parent;
  child->parent = parent->parent;
  parent->parent = child;
  *link = child;
  parent->end_max = end_max_of(parent);
  child->end_max = end_max_of(child);
}

static void tree_insert(struct range_lock *lock, struct range_hold *hold) {
  struct range_hold **link = &lock->root;
  while (*link) {
    hold->parent = *link;
    hold->parent->end_max = max_u64(hold->parent->end_max, hold->end);
    link = is_before(hold, *link) ? &hold->parent->left : &hold->parent->right;
  }
  *link = hold;
  while (hold->parent && hold->parent->priority < hold->priority) rotate_up(lock, hold);
}

static void tree_remove(struct range_lock *lock, struct range_hold *hold) {
  while (hold->left || hold->right) {
    struct range_hold *left = hold->left, *right = hold->right;
    rotate_up(lock, !right || (left && left->priority > right->priority) ? left : right);
  }
  *link_to(lock, hold) = NULL;
  for (struct range_hold *node = hold->parent; node; node = node->parent) node->end_max = end_max_of(node);
  hold->parent = NULL;
}

/* First node in order, in the subtree, that ends after `start`. */
static struct range_hold *first_ending_after(struct range_hold *node, uint64_t start) {
  if (!node || node->end_max <= start) return NULL;
  for (;;) {
    if (node->left && node->left->end_max > start) node = node->left;
    else if (node->end > start) return node;
    else node = node->right;
    require(node != NULL); /* end_max promised one */
  }
}

static struct range_hold *next_ending_after(const struct range_hold *node, uint64_t start) {
  struct range_hold *found = first_ending_after(node->right, start);
  if (found) return found;
  for (struct range_hold *parent = node->parent; parent; node = parent, parent = parent->parent) {
    if (parent->left != node) continue;
    if (parent->end > start) return parent;
    found = first_ending_after(parent->right, start);
    if (found) return found;
  }
  return NULL;
}

/* ---- the lock ---- */

struct range_hold *range_next_overlap(const struct range_lock *lock, uint64_t start, uint64_t length,
                                      const struct range_hold *after) {
  require(length > 0);
  require(start + length > start);
  struct range_hold *hold = after ? next_ending_after(after, start) : first_ending_after(lock->root, start);
  /* In order of start: when the first that ends late enough starts too late, so do all behind it. */
  return hold && hold->start < start + length ? hold : NULL;
}

static void hold_granted(struct event *event) {
  struct range_hold *hold = CONTAINER_OF(event, struct range_hold, event);
  require(hold->blockers == 0);
  hold->granted(hold);
}

bool range_acquire(struct range_lock *lock, struct range_hold *hold, uint64_t start, uint64_t length,
                   enum range_mode mode, uint32_t tag, void (*granted)(struct range_hold *hold)) {
  require(length > 0);
  require(start + length > start);
  *hold = (struct range_hold){.start = start,
                              .end = start + length,
                              .ticket = lock->next_ticket++,
                              .mode = mode,
                              .tag = tag,
                              .granted = granted};
  hold->end_max = hold->end;
  hold->priority = mix_u64(hold->ticket);
  event_init(&hold->event, hold_granted);
  for (struct range_hold *other = NULL; (other = range_next_overlap(lock, start, length, other)) != NULL;) {
    require(other != hold); /* acquired twice */
    if (conflicts(hold, other)) hold->blockers++;
  }
  tree_insert(lock, hold);
  lock->hold_count++;
  if (hold->blockers == 0) return true;
  require(granted != NULL);
  lock->waiting_count++;
  return false;
}

void range_release(struct range_lock *lock, struct range_hold *hold) {
  require(hold->ticket != 0);
  require(*link_to(lock, hold) == hold); /* it is in the tree, and in this one if it is its root */
  if (hold->blockers > 0) lock->waiting_count--;
  event_cancel(&hold->event); /* granted, and not told yet */
  tree_remove(lock, hold);
  lock->hold_count--;
  uint64_t length = hold->end - hold->start;
  for (struct range_hold *other = NULL; (other = range_next_overlap(lock, hold->start, length, other)) != NULL;) {
    if (other->ticket < hold->ticket || !conflicts(hold, other)) continue;
    require(other->blockers > 0);
    if (--other->blockers > 0) continue;
    lock->waiting_count--;
    event_post(&lock->env->queue, &other->event);
  }
  hold->ticket = 0; /* a second release trips */
}

/* ---- invariants ---- */

static struct range_hold *next_in_order(const struct range_lock *lock, const struct range_hold *node) {
  return node ? next_ending_after(node, 0) : first_ending_after(lock->root, 0); /* every end is above 0 */
}

static void check_node(const struct range_lock *lock, const struct range_hold *hold) {
  require(hold->start < hold->end);
  require(hold->ticket > 0);
  require(hold->ticket < lock->next_ticket);
  require(hold->end_max == end_max_of(hold));
  require(implies(hold->left, hold->left->parent == hold && hold->left->priority < hold->priority));
  require(implies(hold->right, hold->right->parent == hold && hold->right->priority < hold->priority));
  require(implies(hold->blockers > 0, !event_is_posted(&hold->event)));
  uint32_t blockers = 0;
  for (struct range_hold *other = NULL; (other = next_in_order(lock, other)) != NULL;)
    if (other->ticket < hold->ticket && conflicts(hold, other)) blockers++;
  require(hold->blockers == blockers);
}

void range_lock_check(const struct range_lock *lock) {
  uint32_t count = 0, waiting = 0;
  require(implies(lock->root, lock->root->parent == NULL));
  for (struct range_hold *hold = NULL, *next; (next = next_in_order(lock, hold)) != NULL; hold = next) {
    require(implies(hold, is_before(hold, next)));
    check_node(lock, next);
    count++;
    waiting += next->blockers > 0;
  }
  require(count == lock->hold_count);
  require(waiting == lock->waiting_count);
}
