#include "tally.h"

static bool is_space(unsigned char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

void tally_start(struct tally *t)
{
    *t = (struct tally){0};
}

void tally_feed(struct tally *t, const void *piece, size_t length)
{
    const unsigned char *byte = piece;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = byte[i];
        if (c == '\n')
            t->lines++;
        if ((c & 0xC0) != 0x80)
            t->characters++;
        bool space = is_space(c);
        if (!space && !t->in_word)
            t->words++;
        t->in_word = !space;
    }
    t->bytes += length;
}

void tally_add(struct tally *t, const struct tally *other)
{
    t->lines += other->lines;
    t->words += other->words;
    t->characters += other->characters;
    t->bytes += other->bytes;
}
