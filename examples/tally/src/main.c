/* tally [FILE]...: lines, words, characters and bytes of each file, and their sum. `-`: standard input. */
#include "tally.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void print(const struct tally *t, const char *name)
{
    printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n", t->lines, t->words, t->characters, t->bytes, name);
}

static int count(const char *name, struct tally *t)
{
    FILE *file = strcmp(name, "-") == 0 ? stdin : fopen(name, "rb");
    if (file == NULL) {
        fprintf(stderr, "tally: %s: %s\n", name, strerror(errno));
        return -1;
    }
    char piece[65536];
    size_t length;
    tally_start(t);
    while ((length = fread(piece, 1, sizeof piece, file)) > 0)
        tally_feed(t, piece, length);
    int failed = ferror(file);
    if (failed)
        fprintf(stderr, "tally: %s: cannot read\n", name);
    if (file != stdin)
        fclose(file);
    return failed ? -1 : 0;
}

int main(int argc, char **argv)
{
    static char *standard_input[] = {"-"};
    char **names = argc > 1 ? argv + 1 : standard_input;
    int n = argc > 1 ? argc - 1 : 1;
    int status = 0;
    struct tally sum;

    tally_start(&sum);
    for (int i = 0; i < n; i++) {
        struct tally t;
        if (count(names[i], &t) != 0) {
            status = 1;
            continue;
        }
        print(&t, names[i]);
        tally_add(&sum, &t);
    }
    if (n > 1)
        print(&sum, "total");
    return status;
}
