#include "base/regex.h"

#include "base/arena.h"

#define PATTERN_MAX 4096
#define DEPTH_MAX   100
#define REPEAT_MAX  1000 /* RE2's */
#define PROGRAM_MAX 20000
#define WORK_MAX    (4 * PROGRAM_MAX)

typedef struct set {
    uint64_t bits[4];
} set;

typedef enum kind {
    EMPTY,
    SET,
    CAT,
    ALT,
    REPEAT,
    BEGIN,
    END,
    BOUNDARY,
    NO_BOUNDARY,
} kind;

typedef struct node {
    kind kind;
    set set;
    struct node *a, *b;
    int min, max; /* REPEAT; max -1: no end */
    uint32_t place; /* SET: its place in the program's sets and one more; 0: none yet */
} node;

typedef enum opcode { OP_SET, OP_SPLIT, OP_JUMP, OP_ASSERT, OP_MATCH } opcode;

typedef struct instruction {
    opcode op;
    uint32_t to, or_to; /* JUMP, SPLIT; SET, ASSERT: the next one is meant */
    kind what;          /* ASSERT */
    uint32_t set;       /* SET: index */
} instruction;

struct outr_regex {
    instruction *program;
    set *sets;
    uint32_t count, set_count, cap;
    uint32_t work; /* nodes compiled: repeating nothing a million times emits nothing */
};

typedef struct parser {
    outr_arena *arena;
    outr_str pattern;
    size_t at;
    int depth;
    bool ignores_case, dot_is_all;
    outr_err *err;
} parser;

/* ---- parsing --------------------------------------------------------------------------------- */

static node *parse_alternatives(parser *p);

static node *fail(parser *p, const char *what)
{
    if (!p->err->code)
        outr_fail(p->err, OUTR_INVALID_ARGUMENT, "regular expression: %s at byte %zu", what, p->at);
    return NULL;
}

static bool is_at_end(const parser *p)
{
    return p->at >= p->pattern.n;
}

static char peek(const parser *p)
{
    return is_at_end(p) ? 0 : p->pattern.p[p->at];
}

static bool accepts(parser *p, const char *text)
{
    if (!outr_str_starts(outr_str_skip(p->pattern, p->at), outr_str_from(text)))
        return false;
    p->at += strlen(text);
    return true;
}

static node *new_node(parser *p, kind what)
{
    node *n = outr_arena_alloc(p->arena, sizeof *n);
    n->kind = what;
    return n;
}

static void set_add(set *s, unsigned char c)
{
    s->bits[c / 64] |= 1ull << (c % 64);
}

static bool set_has(const set *s, unsigned char c)
{
    return s->bits[c / 64] >> (c % 64) & 1;
}

static void set_range(set *s, unsigned from, unsigned to)
{
    for (unsigned c = from; c <= to; c++)
        set_add(s, (unsigned char)c);
}

static void set_invert(set *s)
{
    for (size_t i = 0; i < OUTR_LEN(s->bits); i++)
        s->bits[i] = ~s->bits[i];
}

static void set_join(set *s, const set *more)
{
    for (size_t i = 0; i < OUTR_LEN(s->bits); i++)
        s->bits[i] |= more->bits[i];
}

static void set_fold(set *s)
{
    for (unsigned c = 'a'; c <= 'z'; c++) {
        if (set_has(s, (unsigned char)c) || set_has(s, (unsigned char)(c - 32))) {
            set_add(s, (unsigned char)c);
            set_add(s, (unsigned char)(c - 32));
        }
    }
}

/* \d, \w, \s and their opposites. */
static bool perl_class(set *s, char c)
{
    *s = (set){{0}};
    switch (c | 0x20) {
    case 'd':
        set_range(s, '0', '9');
        break;
    case 'w':
        set_range(s, '0', '9');
        set_range(s, 'a', 'z');
        set_range(s, 'A', 'Z');
        set_add(s, '_');
        break;
    case 's':
        set_add(s, ' ');
        set_add(s, '\t');
        set_add(s, '\n');
        set_add(s, '\f');
        set_add(s, '\r');
        break;
    default:
        return false;
    }
    if (!(c & 0x20))
        set_invert(s);
    return true;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Behind "\x". -1: not a byte of ASCII. */
static int hex_escape(parser *p)
{
    bool is_braced = accepts(p, "{");
    int value = 0, digits = 0, d;
    while (digits < (is_braced ? 8 : 2) && (d = hex(peek(p))) >= 0) {
        value = value * 16 + d;
        p->at++;
        digits++;
        if (value > 0x7f)
            return -1;
    }
    return (is_braced ? digits > 0 && accepts(p, "}") : digits == 2) ? value : -1;
}

/* What stands behind a backslash for one byte. -1: nothing that is known. */
static int escaped_byte(parser *p)
{
    static const char names[] = "abfnrtv", bytes[] = "\a\b\f\n\r\t\v";
    char c = peek(p);
    p->at++;
    if (c == 'x')
        return hex_escape(p);
    const char *name = c && c != 'b' ? strchr(names, c) : NULL;
    if (name)
        return bytes[name - names];
    bool is_alnum = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
    return is_alnum || c <= ' ' || (unsigned char)c > 0x7e ? -1 : c;
}

static bool posix_class(parser *p, set *s)
{
    static const struct {
        const char *name;
        const char *ranges; /* pairs */
    } classes[] = {{"[:alnum:]", "09azAZ"}, {"[:alpha:]", "azAZ"}, {"[:digit:]", "09"},
                   {"[:lower:]", "az"},     {"[:upper:]", "AZ"},   {"[:xdigit:]", "09afAF"},
                   {"[:word:]", "09azAZ__"}, {"[:punct:]", "!/:@[`{~"}, {"[:space:]", "\t\r  "}};
    for (size_t i = 0; i < OUTR_LEN(classes); i++) {
        if (!accepts(p, classes[i].name))
            continue;
        for (const char *r = classes[i].ranges; *r; r += 2)
            set_range(s, (unsigned char)r[0], (unsigned char)r[1]);
        return true;
    }
    return false;
}

/* One end of a range in brackets. -1: failed. */
static int class_byte(parser *p)
{
    char c = peek(p);
    if ((unsigned char)c >= 0x80) {
        fail(p, "a class of other than ASCII characters");
        return -1;
    }
    p->at++;
    if (c != '\\')
        return c;
    int byte = escaped_byte(p);
    if (byte < 0)
        fail(p, "an escape that is not known");
    return byte;
}

static node *parse_class(parser *p)
{
    node *n = new_node(p, SET);
    bool is_inverted = accepts(p, "^");
    for (bool is_first = true; is_first || peek(p) != ']'; is_first = false) {
        set perl;
        if (is_at_end(p))
            return fail(p, "a class without its end");
        if (peek(p) == '[' && p->at + 1 < p->pattern.n && p->pattern.p[p->at + 1] == ':') {
            if (!posix_class(p, &n->set))
                return fail(p, "a class that is not known");
            continue;
        }
        if (peek(p) == '\\' && p->at + 1 < p->pattern.n &&
            perl_class(&perl, p->pattern.p[p->at + 1])) {
            set_join(&n->set, &perl);
            p->at += 2;
            continue;
        }
        int from = class_byte(p), to = from;
        if (from >= 0 && peek(p) == '-' && p->at + 1 < p->pattern.n &&
            p->pattern.p[p->at + 1] != ']') {
            p->at++;
            to = class_byte(p);
        }
        if (from < 0 || to < 0)
            return NULL;
        if (to < from)
            return fail(p, "a range that ends before it begins");
        set_range(&n->set, (unsigned)from, (unsigned)to);
    }
    p->at++;
    if (p->ignores_case)
        set_fold(&n->set);
    if (is_inverted)
        set_invert(&n->set);
    return n;
}

static node *one_byte(parser *p, unsigned char c)
{
    node *n = new_node(p, SET);
    set_add(&n->set, c);
    if (p->ignores_case)
        set_fold(&n->set);
    return n;
}

static node *parse_escape(parser *p)
{
    set perl;
    char c = peek(p);
    if (is_at_end(p))
        return fail(p, "a backslash at the end");
    if (perl_class(&perl, c)) {
        node *n = new_node(p, SET);
        n->set = perl;
        p->at++;
        return n;
    }
    if (accepts(p, "A"))
        return new_node(p, BEGIN);
    if (accepts(p, "z"))
        return new_node(p, END);
    if (accepts(p, "b"))
        return new_node(p, BOUNDARY);
    if (accepts(p, "B"))
        return new_node(p, NO_BOUNDARY);
    int byte = escaped_byte(p);
    return byte < 0 ? fail(p, "an escape that is not known") : one_byte(p, (unsigned char)byte);
}

/* Behind "(?": i and s, on or off. False: failed. */
static bool parse_flags(parser *p, bool *is_group)
{
    bool is_on = true;
    for (;; p->at++) {
        char c = peek(p);
        if (c == ')' || c == ':') {
            p->at++;
            *is_group = c == ':';
            return true;
        }
        if (c == '-')
            is_on = false;
        else if (c == 'i')
            p->ignores_case = is_on;
        else if (c == 's')
            p->dot_is_all = is_on;
        else if (c != 'U') { /* which match is found does not matter */
            fail(p, "a flag that is not known");
            return false;
        }
    }
}

static node *parse_group(parser *p)
{
    bool ignores_case = p->ignores_case, dot_is_all = p->dot_is_all, is_group = true;
    if (p->depth++ >= DEPTH_MAX)
        return fail(p, "groups nested too deeply");
    if (accepts(p, "?P<") || accepts(p, "?<")) {
        while (!is_at_end(p) && peek(p) != '>' && peek(p) != '=' && peek(p) != '!')
            p->at++;
        if (!accepts(p, ">"))
            return fail(p, "a group that is not known");
    } else if (accepts(p, "?") && !parse_flags(p, &is_group)) {
        return NULL;
    }
    if (!is_group) { /* flags for the rest of the group around it */
        p->depth--;
        return new_node(p, EMPTY);
    }
    node *n = parse_alternatives(p);
    if (n && !accepts(p, ")"))
        return fail(p, "a group without its end");
    p->ignores_case = ignores_case;
    p->dot_is_all = dot_is_all;
    p->depth--;
    return n;
}

static node *parse_atom(parser *p)
{
    char c = peek(p);
    p->at++;
    switch (c) {
    case '(':
        return parse_group(p);
    case '[':
        return parse_class(p);
    case '\\':
        return parse_escape(p);
    case '^':
        return new_node(p, BEGIN);
    case '$':
        return new_node(p, END);
    case '*':
    case '+':
    case '?':
        return fail(p, "nothing to repeat");
    case '.': {
        node *n = new_node(p, SET);
        if (!p->dot_is_all)
            set_add(&n->set, '\n');
        set_invert(&n->set);
        return n;
    }
    default:
        return one_byte(p, (unsigned char)c);
    }
}

/* "{2}", "{2,}", "{2,5}"; anything else behind a brace is text. */
static bool parse_counts(parser *p, int *min, int *max)
{
    size_t before = p->at;
    int values[2] = {0, -1}, which = 0;
    bool has_digit = false;
    for (p->at++; !is_at_end(p); p->at++) {
        char c = peek(p);
        if (c >= '0' && c <= '9' && OUTR_MAX(values[which], 0) <= REPEAT_MAX) {
            values[which] = OUTR_MAX(values[which], 0) * 10 + (c - '0');
            has_digit = true;
        } else if (c == ',' && which == 0 && has_digit) {
            which = 1;
        } else if (c == '}' && has_digit) {
            p->at++;
            *min = values[0];
            *max = which == 0 ? values[0] : values[1];
            return true;
        } else {
            break;
        }
    }
    p->at = before;
    return false;
}

static node *parse_repeat(parser *p)
{
    node *n = parse_atom(p);
    bool is_repeated = false;
    while (n) {
        int min = 0, max = -1;
        if (accepts(p, "*")) {
        } else if (accepts(p, "+")) {
            min = 1;
        } else if (accepts(p, "?")) {
            max = 1;
        } else if (peek(p) != '{' || !parse_counts(p, &min, &max)) {
            return n;
        }
        if (min > REPEAT_MAX || max > REPEAT_MAX || (max >= 0 && max < min))
            return fail(p, "a count out of range");
        if (is_repeated)
            return fail(p, "a repetition of a repetition");
        accepts(p, "?"); /* fewest first: the same answer */
        node *r = new_node(p, REPEAT);
        *r = (node){.kind = REPEAT, .a = n, .min = min, .max = max};
        n = r;
        is_repeated = true;
    }
    return NULL;
}

static node *pair(parser *p, kind what, node *a, node *b)
{
    node *n = new_node(p, what);
    n->a = a;
    n->b = b;
    return n;
}

static node *parse_sequence(parser *p)
{
    node *all = NULL;
    while (!is_at_end(p) && peek(p) != '|' && peek(p) != ')') {
        node *one = parse_repeat(p);
        if (!one)
            return NULL;
        all = all ? pair(p, CAT, all, one) : one;
    }
    return all ? all : new_node(p, EMPTY);
}

static node *parse_alternatives(parser *p)
{
    node *all = parse_sequence(p);
    while (all && accepts(p, "|")) {
        node *one = parse_sequence(p);
        all = one ? pair(p, ALT, all, one) : NULL;
    }
    return all;
}

/* ---- the program ----------------------------------------------------------------------------- */

/* Its place; what does not fit is told at the end. */
static uint32_t emit(outr_regex *r, instruction i)
{
    if (r->count < PROGRAM_MAX) {
        if (r->count == r->cap) {
            r->cap = r->cap ? r->cap * 2 : 64;
            r->program = outr_realloc(r->program, r->cap * sizeof *r->program);
        }
        r->program[r->count] = i;
    }
    return r->count < PROGRAM_MAX ? r->count++ : PROGRAM_MAX - 1;
}

static bool is_too_large(const outr_regex *r)
{
    return r->count >= PROGRAM_MAX - 1 || r->work > WORK_MAX;
}

static void compile(outr_regex *r, node *n);

/* Once for a node, however often what it stands in is repeated. */
static uint32_t place_set(outr_regex *r, node *n)
{
    if (!n->place) {
        r->sets = outr_realloc(r->sets, (r->set_count + 1) * sizeof *r->sets);
        r->sets[r->set_count++] = n->set;
        n->place = r->set_count;
    }
    return n->place - 1;
}

static void compile_repeat(outr_regex *r, node *n)
{
    for (int i = 0; i < n->min && !is_too_large(r); i++)
        compile(r, n->a);
    if (n->max < 0) {
        uint32_t split = emit(r, (instruction){.op = OP_SPLIT});
        compile(r, n->a);
        emit(r, (instruction){.op = OP_JUMP, .to = split});
        r->program[split].to = split + 1;
        r->program[split].or_to = r->count;
        return;
    }
    uint32_t last = UINT32_MAX; /* they all leave to the end: linked until that is known */
    for (int i = n->min; i < n->max && !is_too_large(r); i++) {
        uint32_t split = emit(r, (instruction){.op = OP_SPLIT, .or_to = last});
        last = split;
        compile(r, n->a);
    }
    while (last != UINT32_MAX && !is_too_large(r)) {
        uint32_t before = r->program[last].or_to;
        r->program[last].to = last + 1;
        r->program[last].or_to = r->count;
        last = before;
    }
}

static void compile(outr_regex *r, node *n)
{
    uint32_t split, jump;
    if (is_too_large(r)) /* nothing of it will be of use */
        return;
    r->work++;
    switch (n->kind) {
    case EMPTY:
        break;
    case SET:
        emit(r, (instruction){.op = OP_SET, .set = place_set(r, n)});
        break;
    case CAT:
        compile(r, n->a);
        compile(r, n->b);
        break;
    case ALT:
        split = emit(r, (instruction){.op = OP_SPLIT});
        compile(r, n->a);
        jump = emit(r, (instruction){.op = OP_JUMP});
        r->program[split].to = split + 1;
        r->program[split].or_to = r->count;
        compile(r, n->b);
        r->program[jump].to = r->count;
        break;
    case REPEAT:
        compile_repeat(r, n);
        break;
    default:
        emit(r, (instruction){.op = OP_ASSERT, .what = n->kind});
        break;
    }
}

outr_code outr_regex_new(outr_regex **out, outr_str pattern, outr_err *err)
{
    outr_err failure = {.code = OUTR_OK};
    if (pattern.n > PATTERN_MAX)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "regular expression: longer than %d bytes",
                         PATTERN_MAX);
    parser p = {.arena = outr_arena_new(4 * OUTR_MIB), .pattern = pattern, .err = &failure};
    node *n = parse_alternatives(&p);
    if (n && !is_at_end(&p))
        fail(&p, "an end without its group");
    if (!failure.code) {
        outr_regex *r = outr_alloc(sizeof *r);
        compile(r, n);
        if (!is_too_large(r)) {
            emit(r, (instruction){.op = OP_MATCH});
            *out = r;
        } else {
            outr_fail(&failure, OUTR_RESOURCE_EXHAUSTED, "regular expression: too large");
            outr_regex_free(r);
        }
    }
    outr_arena_free(p.arena);
    if (failure.code && err)
        *err = failure;
    return failure.code;
}

void outr_regex_free(outr_regex *regex)
{
    if (!regex)
        return;
    free(regex->program);
    free(regex->sets);
    free(regex);
}

/* ---- searching ------------------------------------------------------------------------------- */

typedef struct states {
    uint32_t *items;
    size_t count;
} states;

typedef struct search {
    const outr_regex *regex;
    outr_str text;
    uint32_t *seen; /* position + 1 at which an instruction was last added */
    uint32_t *stack;
} search;

static bool is_word(outr_str text, size_t at)
{
    set word;
    perl_class(&word, 'w');
    return at < text.n && set_has(&word, (unsigned char)text.p[at]);
}

static bool holds(const search *s, kind what, size_t at)
{
    if (what == BEGIN)
        return at == 0;
    if (what == END)
        return at == s->text.n;
    bool is_edge = (at > 0 && is_word(s->text, at - 1)) != is_word(s->text, at);
    return is_edge == (what == BOUNDARY);
}

/* Where an automaton at `from` may be without reading on. True: it is at the end. */
static bool add(search *s, states *to, uint32_t from, size_t at)
{
    size_t n = 0;
    s->stack[n++] = from;
    while (n > 0) {
        uint32_t place = s->stack[--n];
        const instruction *i = &s->regex->program[place];
        if (s->seen[place] == at + 1)
            continue;
        s->seen[place] = (uint32_t)at + 1;
        switch (i->op) {
        case OP_MATCH:
            return true;
        case OP_JUMP:
            s->stack[n++] = i->to;
            break;
        case OP_SPLIT:
            s->stack[n++] = i->or_to;
            s->stack[n++] = i->to;
            break;
        case OP_ASSERT:
            if (holds(s, i->what, at))
                s->stack[n++] = place + 1;
            break;
        case OP_SET:
            to->items[to->count++] = place;
            break;
        }
    }
    return false;
}

bool outr_regex_search(const outr_regex *regex, outr_str text)
{
    size_t count = regex->count;
    uint32_t *memory = outr_alloc(5 * count * sizeof *memory + sizeof *memory);
    states now = {memory, 0}, next = {memory + count, 0};
    search s = {regex, text, memory + 2 * count, memory + 3 * count};
    bool is_found = text.n >= UINT32_MAX - 1;
    for (size_t at = 0; !is_found; at++) {
        is_found = add(&s, &now, 0, at); /* a match may begin anywhere */
        if (is_found || at == text.n)
            break;
        next.count = 0;
        for (size_t i = 0; i < now.count && !is_found; i++) {
            const instruction *in = &regex->program[now.items[i]];
            if (set_has(&regex->sets[in->set], (unsigned char)text.p[at]))
                is_found = add(&s, &next, now.items[i] + 1, at + 1);
        }
        const states former = now;
        now = next;
        next = former;
    }
    free(memory);
    return is_found;
}
