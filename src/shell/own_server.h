/* own_server.h - does a connection of ours end at a server of ours?
 *
 * An export of this daemon is no place for an image: a mirror that lies on itself waits for itself, and one that lies on another of
 * the same daemon cannot be started or stopped before it. */
#ifndef TARN_SHELL_OWN_SERVER_H
#define TARN_SHELL_OWN_SERVER_H

#include <stdbool.h>

/* The NBD server listens there; and does not any more, to be said before it is closed. At most 64. */
void own_server_listens(int fd);
void own_server_ends(int fd);
/* `fd`: a connected socket. From any thread. */
bool own_server_is_at(int fd);

#endif
