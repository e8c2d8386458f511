/* The search scorer: the same whole-number arithmetic as src/bento/search.py, some hundred times as fast.
 *
 *     cc -O2 -shared -fPIC -o src/bento/_score.so native/score.c
 */
#include <string.h>

#define WORD 24
#define QUERY_WORDS 8

static int min2(int a, int b) { return a < b ? a : b; }

/* Edit distance between two words (optimal string alignment). */
static int distance(const char *a, int la, const char *b, int lb) {
    int rows[3][WORD + 1];
    int *before = rows[0], *above = rows[1], *row = rows[2];
    for (int j = 0; j <= lb; j++) above[j] = j;
    for (int i = 1; i <= la; i++) {
        row[0] = i;
        for (int j = 1; j <= lb; j++) {
            int cost = min2(min2(above[j], row[j - 1]) + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                cost = min2(cost, before[j - 2] + 1);
            row[j] = cost;
        }
        int *spare = before;
        before = above;
        above = row;
        row = spare;
    }
    return above[lb];
}

/* 0 to 1000: how close a word of the query is to a word of the text. */
static int closeness(const char *word, int lw, const char *other, int lo) {
    if (lw == lo && memcmp(word, other, lw) == 0) return 1000;
    if (lw >= 3 && lw < lo && memcmp(word, other, lw) == 0) return 900;
    int longest = lw > lo ? lw : lo;
    int gap = lw > lo ? lw - lo : lo - lw;
    if (2 * gap > longest) return 0;
    return 800 * (longest - distance(word, lw, other, lo)) / longest;
}

/* The next word at or after *at: its length (cut at WORD), 0 at the end; *at moves behind it. */
static int next_word(const char **at, const char **word) {
    while (**at == ' ') (*at)++;
    *word = *at;
    while (**at && **at != ' ') (*at)++;
    return min2((int)(*at - *word), WORD);
}

/* How well a folded text answers a folded query: the mean of the best match of each word. */
int bento_score(const char *query, const char *text) {
    const char *word, *other, *at = query;
    int words = 0, sum = 0, length;
    while (words < QUERY_WORDS && (length = next_word(&at, &word))) {
        const char *in = text;
        int best = 0, size;
        while ((size = next_word(&in, &other))) {
            int close = closeness(word, length, other, size);
            if (close > best) best = close;
        }
        sum += best;
        words++;
    }
    return words ? sum / words : 0;
}
