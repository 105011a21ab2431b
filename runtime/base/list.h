/* list - intrusive doubly linked list. An item is in at most one list per link. */
#ifndef OUTR_BASE_LIST_H
#define OUTR_BASE_LIST_H

#include "base/base.h"

typedef struct outr_link {
    struct outr_link *next, *prev; /* both NULL: in no list */
} outr_link;
typedef outr_link outr_list; /* the head */

static inline void outr_list_init(outr_list *list)
{
    list->next = list->prev = list;
}
static inline bool outr_list_is_empty(const outr_list *list)
{
    return list->next == list || !list->next;
}
static inline bool outr_link_is_in(const outr_link *link)
{
    return link->next != NULL;
}
static inline void outr_list_push(outr_list *list, outr_link *link) /* at the end */
{
    link->prev = list->prev;
    link->next = list;
    list->prev->next = link;
    list->prev = link;
}
static inline void outr_list_push_front(outr_list *list, outr_link *link)
{
    outr_list_push(list->next, link);
}
static inline void outr_link_remove(outr_link *link) /* nothing when in no list */
{
    if (!link->next)
        return;
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->next = link->prev = NULL;
}
static inline outr_link *outr_list_pop(outr_list *list) /* first, or NULL */
{
    outr_link *link = list->next;
    if (outr_list_is_empty(list))
        return NULL;
    outr_link_remove(link);
    return link;
}
#define OUTR_LIST_ITEM(link, type, fld) OUTR_CONTAINER(link, type, fld)
#define OUTR_LIST_EACH(it, list)                                                                   \
    for (outr_link *it = (list)->next, *it##_next = it->next; it != (list);                        \
         it = it##_next, it##_next = it->next)

#endif
