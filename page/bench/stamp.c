/* Prints the time at which it writes, a line each: stamp COUNT PAUSE_US */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    long count = argc > 1 ? atol(argv[1]) : 100, pause = argc > 2 ? atol(argv[2]) : 20000;
    for (long i = 0; i < count; i++) {
        struct timespec now;
        char line[64];
        clock_gettime(CLOCK_REALTIME, &now);
        int length = snprintf(line, sizeof line, "stamp %ld.%06ld\n", now.tv_sec, now.tv_nsec / 1000);
        if (write(1, line, length) != length) return 1;
        usleep(pause);
    }
    return 0;
}
