/* The library on its own: every text is fed whole and in every possible pair of pieces. */
#include "../src/tally.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct example {
    const char *text;
    uint64_t lines, words, characters;
};

static const struct example examples[] = {
    {"", 0, 0, 0},
    {"\n", 1, 0, 1},
    {"one", 0, 1, 3},
    {"one two\n", 1, 2, 8},
    {"  leading and trailing  \n\n", 2, 3, 26},
    {"tabs\tand\vfeeds\f\r\n", 1, 3, 17},
    {"gr\xC3\xBC\xC3\x9F dich\n", 1, 2, 10},
    {"\xE2\x82\xAC 5", 0, 2, 3},
};

static int check(const struct example *e, const struct tally *t, size_t cut)
{
    size_t length = strlen(e->text);
    if (t->lines == e->lines && t->words == e->words && t->characters == e->characters && t->bytes == length)
        return 0;
    printf("not ok: \"%s\" cut at %zu: %" PRIu64 " lines, %" PRIu64 " words, %" PRIu64 " characters\n", e->text, cut, t->lines,
           t->words, t->characters);
    return 1;
}

int main(void)
{
    int failures = 0, checks = 0;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        const struct example *e = &examples[i];
        size_t length = strlen(e->text);
        for (size_t cut = 0; cut <= length; cut++) {
            struct tally t;
            tally_start(&t);
            tally_feed(&t, e->text, cut);
            tally_feed(&t, e->text + cut, length - cut);
            failures += check(e, &t, cut);
            checks++;
        }
    }
    printf("%d checks, %d failures\n", checks, failures);
    return failures > 0;
}
