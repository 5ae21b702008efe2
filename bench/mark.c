/* The program that is measured: it says when its first instruction ran.
 *
 *   mark        print CLOCK_MONOTONIC in nanoseconds, end
 *   mark true   end at once (what `exec` runs)
 *   mark idle   wait for SIGTERM
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void end(int number) { (void)number; _exit(0); }

int main(int count, char **words) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (count > 1 && !strcmp(words[1], "true")) return 0;
  if (count > 1) {
    signal(SIGTERM, end);
    for (;;) pause();
  }
  printf("%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
  return 0;
}
