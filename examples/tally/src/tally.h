/* Counts lines, words, characters and bytes of UTF-8 text, fed in pieces of any size. */
#ifndef TALLY_H
#define TALLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tally {
    uint64_t lines;      /* newline characters */
    uint64_t words;      /* runs of anything but white space */
    uint64_t characters; /* UTF-8 sequences begun; a stray continuation byte counts as none */
    uint64_t bytes;
    bool in_word; /* the last byte belonged to a word: a word may cross two pieces */
};

/* All counters at zero. */
void tally_start(struct tally *t);

/* Takes the next piece; `piece` may be NULL when `length` is 0. */
void tally_feed(struct tally *t, const void *piece, size_t length);

/* Adds the counters of `other` to `t`, as for several files. */
void tally_add(struct tally *t, const struct tally *other);

#endif
