/* A disk whose every sync takes the same time: preloaded, it answers fsync and fdatasync after FSYNC_US microseconds
   and writes nothing down.  For measuring only: what it says is kept is lost with the machine. */

#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

static long nanoseconds = -1;

static int wait_for_the_disk(void)
{
    static __thread int sharp;
    struct timespec rest;

    if (nanoseconds < 0) {
        const char *given = getenv("FSYNC_US");
        nanoseconds = given ? atol(given) * 1000 : 0;
    }
    if (!sharp) { /* else the kernel adds up to 50 microseconds to each sleep */
        prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
        sharp = 1;
    }
    rest.tv_sec = nanoseconds / 1000000000L;
    rest.tv_nsec = nanoseconds % 1000000000L;
    if (nanoseconds > 0)
        nanosleep(&rest, NULL);
    return 0;
}

int fsync(int descriptor)
{
    (void)descriptor;
    return wait_for_the_disk();
}

int fdatasync(int descriptor)
{
    (void)descriptor;
    return wait_for_the_disk();
}
