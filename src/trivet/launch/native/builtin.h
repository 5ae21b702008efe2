/* Functions that run in place of a program, after everything else was set up; they return the exit status.
 *
 * `root` is an O_PATH descriptor of the instance's root directory; nothing of the image is executed, and
 * standard input and output carry the data.
 */
#ifndef TRIVET_BUILTIN_H
#define TRIVET_BUILTIN_H

int builtin_archive_read(int root, const char *path);
int builtin_layer_read(int root, const char *path);
int builtin_archive_write(int root, const char *path);
int builtin_stat(int root, const char *path);
int builtin_processes(int root, const char *path);
int builtin_vitals(int root, const char *path);
int builtin_nothing(int root, const char *path); /* for what was set up on the way there */

typedef int builtin_function(int root, const char *path);

/* Find a builtin by name ("archive-read", "layer-read", "archive-write", "stat", "processes", "vitals", "nothing"); NULL when there is none. */
builtin_function *builtin_find(const char *name);

#endif
