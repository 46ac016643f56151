/* replay.c - runs a fuzz target over files, without a fuzzer: `replay_x FILE_OR_FOLDER ...`. Prints TAP, a line per file. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

static int file_count;

static bool replay_file(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) return false;
  static uint8_t bytes[1 << 20];
  size_t length = fread(bytes, 1, sizeof(bytes), file);
  fclose(file);
  /* A heap copy of the exact length, so that a sanitizer sees a read past the end. */
  uint8_t *copy = malloc(length ? length : 1);
  require(copy != NULL);
  memcpy(copy, bytes, length);
  (void)LLVMFuzzerTestOneInput(copy, length);
  free(copy);
  const char *slash = strrchr(path, '/');
  printf("ok %d - %s\n", ++file_count, slash ? slash + 1 : path);
  fflush(stdout);
  return true;
}

static bool replay_folder(const char *path) {
  struct dirent **entries;
  int count = scandir(path, &entries, NULL, alphasort);
  if (count < 0) return false;
  bool good = true;
  for (int i = 0; i < count; i++) {
    char name[4096];
    snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
    if (entries[i]->d_name[0] != '.' && !replay_file(name)) good = false;
    free(entries[i]);
  }
  free(entries);
  return good;
}

int main(int argc, char **argv) {
  bool good = true;
  for (int i = 1; i < argc; i++)
    if (!replay_folder(argv[i]) && !replay_file(argv[i])) good = false;
  if (!good || file_count == 0) {
    printf("not ok %d - nothing to replay, or a file that cannot be read\n", ++file_count);
    good = false;
  }
  printf("1..%d\n", file_count);
  return good ? 0 : 1;
}
