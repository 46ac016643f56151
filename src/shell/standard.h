/* standard.h - the three descriptors that every program is born with, and may be born without. */
#ifndef TARN_SHELL_STANDARD_H
#define TARN_SHELL_STANDARD_H

/* First thing in a program: standard input, output and error are open, on /dev/null if nothing else. What is opened later never
 * gets their numbers, so that no message is written into a socket, or into somebody's data. */
void standard_files_open(void);

#endif
