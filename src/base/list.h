/* list.h - a circular, intrusive, doubly linked list.
 *
 * A head and its nodes are the same type. A node that is in no list points to itself once initialised, so that
 * list_remove() is safe twice and list_is_linked() tells. The list owns nothing. */
#ifndef TARN_BASE_LIST_H
#define TARN_BASE_LIST_H

#include "base/require.h"

struct list {
  struct list *next, *prev;
};

static inline void list_init(struct list *node) { node->next = node->prev = node; }
static inline bool list_is_empty(const struct list *head) { return head->next == head; }
static inline bool list_is_linked(const struct list *node) { return node->next != node; }

static inline void list_insert_before(struct list *at, struct list *node) {
  require(!list_is_linked(node));
  node->prev = at->prev;
  node->next = at;
  at->prev->next = node;
  at->prev = node;
}
static inline void list_push(struct list *head, struct list *node) { list_insert_before(head, node); } /* at the tail */
static inline void list_push_front(struct list *head, struct list *node) { list_insert_before(head->next, node); }

static inline void list_remove(struct list *node) {
  node->prev->next = node->next;
  node->next->prev = node->prev;
  list_init(node);
}
static inline struct list *list_first(const struct list *head) { return list_is_empty(head) ? NULL : head->next; }
static inline struct list *list_pop(struct list *head) {
  struct list *node = list_first(head);
  if (node) list_remove(node);
  return node;
}
/* Moves every node of `source` to the tail of `target`, in order. */
static inline void list_splice(struct list *target, struct list *source) {
  if (list_is_empty(source)) return;
  source->next->prev = target->prev;
  target->prev->next = source->next;
  source->prev->next = target;
  target->prev = source->prev;
  list_init(source);
}

#define LIST_ENTRY(node, type, member) CONTAINER_OF(node, type, member)
/* `node` may be removed inside the loop; nothing else may. */
#define LIST_EACH(head, node)                                                       \
  for (struct list *node = (head)->next, *node##_next = node->next; node != (head); \
       node = node##_next, node##_next = node->next)

#endif
