#include "base/cel.h"

#include <math.h>
#include <regex.h>

#define DEPTH_MAX 64
#define CHAIN_MAX                                                                                  \
    500 /* a + b + c ..., a.b.c...: what hangs on one another is evaluated by recursion */
#define STEPS_MAX 100000
/* POSIX patterns are compiled to what they repeat, so that few bytes can ask for any memory. */
#define PATTERN_MAX    1024
#define REPEATS_MAX    1000 /* product of all {m,n} in a pattern, as in RE2 */
#define GROUPS_MAX     32
#define MATCH_TEXT_MAX 65536

typedef enum node_kind {
    LITERAL,
    NAME,
    MEMBER,
    INDEX,
    CALL,
    UNARY,
    BINARY,
    TERNARY,
    LIST,
    MACRO
} node_kind;

typedef struct node {
    node_kind kind;
    unsigned chain;         /* nodes hanging on one another below this one, itself among them */
    outr_str text;          /* name, member, function or operator */
    struct node *a, *b, *c; /* operands; CALL and LIST: a is the first argument */
    struct node *next;      /* sibling argument */
    struct value *literal;
} node;

/* NONE is an error: it spreads, except where && and || have the other side's answer. */
typedef enum value_kind { NONE, NULL_VALUE, BOOL, INT, DOUBLE, STRING, JSON, VALUES } value_kind;

typedef struct value {
    value_kind kind;
    bool boolean;
    int64_t integer;
    double number;
    outr_str text;
    const outr_json *json;      /* ARRAY or OBJECT */
    struct value *items, *next; /* VALUES: a list literal */
    size_t count;
} value;

struct outr_cel {
    node *root;
};

/* ---- parsing --------------------------------------------------------------------------------- */

typedef struct parser {
    outr_arena *arena;
    outr_str text;
    size_t at;
    int depth;
    outr_err *err;
    bool has_failed;
} parser;

static node *parse_expression(parser *p);

static node *fail(parser *p, const char *what)
{
    if (!p->has_failed)
        outr_fail(p->err, OUTR_INVALID_ARGUMENT, "CEL: %s at byte %zu of \"" OUTR_FMT "\"", what,
                  p->at, OUTR_ARG(outr_str_head(p->text, 100)));
    p->has_failed = true;
    return NULL;
}

static void skip(parser *p)
{
    while (p->at < p->text.n && (p->text.p[p->at] == ' ' || p->text.p[p->at] == '\t' ||
                                 p->text.p[p->at] == '\n' || p->text.p[p->at] == '\r'))
        p->at++;
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* The token when it stands next; a word only as a whole. */
static bool take(parser *p, const char *token)
{
    outr_str t = outr_str_from(token);
    skip(p);
    if (!outr_str_starts(outr_str_skip(p->text, p->at), t))
        return false;
    if (is_word(token[0]) && p->at + t.n < p->text.n && is_word(p->text.p[p->at + t.n]))
        return false;
    p->at += t.n;
    return true;
}

static node *new_node(parser *p, node_kind kind, outr_str text, node *a, node *b)
{
    node *n = outr_arena_try(p->arena, sizeof *n);
    if (!n)
        return fail(p, "expression is too large");
    *n = (node){.kind = kind, .text = text, .a = a, .b = b};
    n->chain = 1 + OUTR_MAX(a ? a->chain : 0, b ? b->chain : 0);
    return n->chain <= CHAIN_MAX ? n : fail(p, "expression is too long");
}

static node *literal(parser *p, value v)
{
    node *n = new_node(p, LITERAL, OUTR_STR_NONE, NULL, NULL);
    if (!n)
        return NULL;
    n->literal = outr_arena_try(p->arena, sizeof v);
    if (!n->literal)
        return fail(p, "expression is too large");
    *n->literal = v;
    return n;
}

static node *parse_string(parser *p, bool is_raw)
{
    char quote = p->text.p[p->at++];
    size_t n = 0, end = p->at;
    while (end < p->text.n && p->text.p[end] != quote)
        end += p->text.p[end] == '\\' && !is_raw ? 2 : 1;
    if (end >= p->text.n)
        return fail(p, "string without end");
    char *out = outr_arena_try(p->arena, end - p->at + 1);
    if (!out)
        return fail(p, "expression is too large");
    while (p->at < end) {
        char c = p->text.p[p->at++];
        if (c == '\\' && !is_raw) {
            static const char from[] = "nrtbf\\\"'", to[] = "\n\r\t\b\f\\\"'";
            c = p->text.p[p->at++];
            const char *found = c ? strchr(from, c) : NULL;
            if (!found)
                return fail(p, "unknown escape in string");
            c = to[found - from];
        }
        out[n++] = c;
    }
    p->at++;
    return literal(p, (value){.kind = STRING, .text = outr_str_of(out, n)});
}

static node *parse_number(parser *p)
{
    size_t start = p->at;
    bool is_double = false;
    while (p->at < p->text.n) {
        char c = p->text.p[p->at];
        bool is_sign =
            (c == '+' || c == '-') && p->at > start && (p->text.p[p->at - 1] | 0x20) == 'e';
        is_double |= c == '.' || c == 'e' || c == 'E';
        if (!((c >= '0' && c <= '9') || c == '.' || c == 'e' || c == 'E' || is_sign))
            break;
        p->at++;
    }
    outr_str text = outr_str_of(p->text.p + start, p->at - start);
    value v = {.kind = is_double ? DOUBLE : INT};
    bool is_read = is_double ? outr_str_to_double(text, &v.number)
                             : outr_str_to_i64(text, INT64_MIN, INT64_MAX, &v.integer);
    if (p->at < p->text.n && (p->text.p[p->at] == 'u' || p->text.p[p->at] == 'U'))
        p->at++;
    return is_read ? literal(p, v) : fail(p, "malformed number");
}

/* Expressions up to the closing token; the opening one is behind us. */
static node *parse_list(parser *p, const char *close)
{
    node *first = NULL, **tail = &first;
    if (take(p, close))
        return NULL;
    do {
        *tail = parse_expression(p);
        if (!*tail)
            return NULL;
        tail = &(*tail)->next;
    } while (take(p, ","));
    if (!take(p, close))
        fail(p, "a closing bracket is expected");
    return first;
}

static outr_str parse_word(parser *p)
{
    size_t start = (skip(p), p->at);
    while (p->at < p->text.n && is_word(p->text.p[p->at]))
        p->at++;
    return outr_str_of(p->text.p + start, p->at - start);
}

static node *parse_primary(parser *p)
{
    skip(p);
    if (p->at == p->text.n)
        return fail(p, "an expression is expected");
    char c = p->text.p[p->at];
    if (take(p, "(")) {
        node *n = parse_expression(p);
        return n && take(p, ")") ? n : fail(p, "\")\" is expected");
    }
    if (take(p, "[")) {
        node *n = new_node(p, LIST, OUTR_STR_NONE, NULL, NULL);
        if (n)
            n->a = parse_list(p, "]");
        return n;
    }
    if (c == '"' || c == '\'')
        return parse_string(p, false);
    if ((c == 'r' || c == 'R') && p->at + 1 < p->text.n &&
        (p->text.p[p->at + 1] == '"' || p->text.p[p->at + 1] == '\''))
        return p->at++, parse_string(p, true);
    if (c >= '0' && c <= '9')
        return parse_number(p);
    outr_str word = parse_word(p);
    if (word.n == 0)
        return fail(p, "an expression is expected");
    if (outr_str_is(word, "true") || outr_str_is(word, "false"))
        return literal(p, (value){.kind = BOOL, .boolean = word.p[0] == 't'});
    if (outr_str_is(word, "null"))
        return literal(p, (value){.kind = NULL_VALUE});
    if (take(p, "(")) {
        node *n = new_node(p, CALL, word, NULL, NULL);
        if (n)
            n->a = parse_list(p, ")");
        return n;
    }
    return new_node(p, NAME, word, NULL, NULL);
}

static bool is_macro(outr_str name)
{
    return outr_str_is(name, "all") || outr_str_is(name, "exists") ||
           outr_str_is(name, "exists_one") || outr_str_is(name, "filter") ||
           outr_str_is(name, "map");
}

/* a.b, a.f(x), a[i], and macros a.exists(x, test): b is the receiver, a the arguments. */
static node *parse_postfix(parser *p)
{
    node *n = parse_primary(p);
    while (n && !p->has_failed) {
        if (take(p, ".")) {
            outr_str word = parse_word(p);
            if (word.n == 0)
                return fail(p, "a member name is expected");
            if (take(p, "(")) {
                node *receiver = n;
                n = new_node(p, is_macro(word) ? MACRO : CALL, word, NULL, receiver);
                if (n)
                    n->a = parse_list(p, ")");
                if (n && n->kind == MACRO && (!n->a || n->a->kind != NAME || !n->a->next))
                    return fail(p, "a variable and an expression are expected");
            } else {
                n = new_node(p, MEMBER, word, n, NULL);
            }
        } else if (take(p, "[")) {
            node *index = parse_expression(p);
            if (!index || !take(p, "]"))
                return fail(p, "\"]\" is expected");
            n = new_node(p, INDEX, OUTR_STR_NONE, n, index);
        } else {
            break;
        }
    }
    return p->has_failed ? NULL : n;
}

static node *parse_unary(parser *p)
{
    static const char *const operators[] = {"!", "-"};
    if (++p->depth > DEPTH_MAX)
        return fail(p, "nested too deeply");
    node *n = NULL;
    for (size_t i = 0; i < OUTR_LEN(operators) && !n; i++) {
        if (take(p, operators[i])) {
            node *a = parse_unary(p);
            n = a ? new_node(p, UNARY, outr_str_from(operators[i]), a, NULL) : NULL;
            p->depth--;
            return n;
        }
    }
    n = parse_postfix(p);
    p->depth--;
    return n;
}

/* Operators by rising precedence; longer ones before their prefixes. */
static const char *const levels[][7] = {
    {"||", NULL},     {"&&", NULL},          {"==", "!=", "<=", ">=", "<", ">", "in"},
    {"+", "-", NULL}, {"*", "/", "%", NULL},
};

static node *parse_binary(parser *p, size_t level)
{
    if (level == OUTR_LEN(levels))
        return parse_unary(p);
    node *left = parse_binary(p, level + 1);
    for (bool goes_on = true; left && goes_on;) {
        goes_on = false;
        for (size_t i = 0; i < 7 && levels[level][i] && !goes_on; i++) {
            if (!take(p, levels[level][i]))
                continue;
            node *right = parse_binary(p, level + 1);
            if (!right)
                return NULL;
            left = new_node(p, BINARY, outr_str_from(levels[level][i]), left, right);
            goes_on = true;
        }
    }
    return left;
}

static node *parse_expression(parser *p)
{
    if (++p->depth > DEPTH_MAX)
        return fail(p, "nested too deeply");
    node *n = parse_binary(p, 0);
    if (n && take(p, "?")) {
        node *yes = parse_expression(p), *no = yes && take(p, ":") ? parse_expression(p) : NULL;
        if (!no)
            return fail(p, "\":\" is expected");
        n = new_node(p, TERNARY, OUTR_STR_NONE, n, yes);
        if (n)
            n->c = no;
    }
    p->depth--;
    return p->has_failed ? NULL : n;
}

outr_code outr_cel_compile(outr_cel **out, outr_arena *arena, outr_str text, outr_err *err)
{
    parser p = {.arena = arena, .text = text, .err = err};
    node *root = parse_expression(&p);
    skip(&p);
    if (root && p.at != text.n)
        root = fail(&p, "unexpected text");
    if (!root)
        return OUTR_INVALID_ARGUMENT;
    outr_cel *cel = outr_arena_try(arena, sizeof *cel);
    if (!cel) {
        fail(&p, "expression is too large");
        return OUTR_INVALID_ARGUMENT;
    }
    cel->root = root;
    *out = cel;
    return OUTR_OK;
}

/* ---- evaluation ------------------------------------------------------------------------------ */

typedef struct binding {
    outr_str name;
    value v;
    const struct binding *outer;
} binding;

typedef struct machine {
    outr_arena *arena;
    outr_err *err;
    size_t steps;
} machine;

static value eval(machine *m, const node *n, const binding *scope);

static value none(machine *m, const char *what, outr_str subject)
{
    outr_fail(m->err, OUTR_INVALID_ARGUMENT, "CEL: %s" OUTR_FMT, what, OUTR_ARG(subject));
    return (value){.kind = NONE};
}

/* Memory of an evaluation, whose size the tested value chooses. NULL: an error was noted. */
static void *reserve(machine *m, size_t n)
{
    void *p = outr_arena_try(m->arena, n);
    if (!p)
        none(m, "values are too large", OUTR_STR_NONE);
    return p;
}

static value of_bool(bool b)
{
    return (value){.kind = BOOL, .boolean = b};
}

static value of_json(const outr_json *j)
{
    value v = {.kind = NULL_VALUE};
    switch (j->kind) {
    case OUTR_JSON_NULL:
        break;
    case OUTR_JSON_BOOL:
        return of_bool(j->boolean);
    case OUTR_JSON_STRING:
        return (value){.kind = STRING, .text = j->text};
    case OUTR_JSON_NUMBER: /* JSON numbers are doubles, as in Dapr's reading of the event */
        v.kind = DOUBLE;
        outr_str_to_double(j->text, &v.number);
        break;
    default:
        return (value){.kind = JSON, .json = j, .count = j->count};
    }
    return v;
}

static bool as_number(const value *v, double *out)
{
    *out = v->kind == INT ? (double)v->integer : v->number;
    return v->kind == INT || v->kind == DOUBLE;
}

static bool equal(const value *a, const value *b)
{
    double x, y;
    if (as_number(a, &x) && as_number(b, &y))
        return x == y;
    if (a->kind != b->kind)
        return false;
    if (a->kind == STRING)
        return outr_str_eq(a->text, b->text);
    if (a->kind == BOOL)
        return a->boolean == b->boolean;
    return a->kind == NULL_VALUE || (a->kind == JSON && outr_str_eq(a->json->raw, b->json->raw));
}

/* Items of a list, one after the other; false at the end. */
static bool next_item(const value *list, const void **cursor, value *out)
{
    if (list->kind == JSON) {
        const outr_json *j = *cursor ? ((const outr_json *)*cursor)->next : list->json->child;
        if (!j)
            return false;
        *cursor = j;
        *out = list->json->kind == OUTR_JSON_OBJECT ? (value){.kind = STRING, .text = j->key}
                                                    : of_json(j);
        return true;
    }
    const value *v = *cursor ? ((const value *)*cursor)->next : list->items;
    if (!v)
        return false;
    *cursor = v;
    *out = *v;
    return true;
}

static value member(machine *m, const value *of, outr_str name)
{
    if (of->kind == NONE)
        return *of;
    if (of->kind != JSON || of->json->kind != OUTR_JSON_OBJECT)
        return none(m, "no member ", name);
    const outr_json *found = NULL;
    for (const outr_json *j = of->json->child; j; j = j->next) {
        if (outr_str_eq(j->key, name))
            found = j;
    }
    return found ? of_json(found) : none(m, "no such key: ", name);
}

static value eval_index(machine *m, const value *of, const value *index)
{
    double number;
    if (of->kind == NONE || index->kind == NONE)
        return none(m, "index", OUTR_STR_NONE);
    if (index->kind == STRING)
        return member(m, of, index->text);
    if (!as_number(index, &number) || number < 0)
        return none(m, "index must be a number or a string", OUTR_STR_NONE);
    const void *cursor = NULL;
    value item;
    for (double i = 0; (of->kind == JSON || of->kind == VALUES) && next_item(of, &cursor, &item);
         i++) {
        if (i == number)
            return item;
    }
    return none(m, "index out of range", OUTR_STR_NONE);
}

static value concatenate(machine *m, outr_str a, outr_str b)
{
    char *text = reserve(m, a.n + b.n + 1);
    if (!text)
        return (value){.kind = NONE};
    if (a.n)
        memcpy(text, a.p, a.n);
    if (b.n)
        memcpy(text + a.n, b.p, b.n);
    return (value){.kind = STRING, .text = outr_str_of(text, a.n + b.n)};
}

static value arithmetic(machine *m, char op, const value *a, const value *b)
{
    double x, y;
    if (op == '+' && a->kind == STRING && b->kind == STRING)
        return concatenate(m, a->text, b->text);
    if (!as_number(a, &x) || !as_number(b, &y))
        return none(m, "operands are no numbers", OUTR_STR_NONE);
    bool is_int = a->kind == INT && b->kind == INT;
    if ((op == '/' || op == '%') && is_int && (b->integer == 0 || b->integer == -1))
        return b->integer == 0 ? none(m, "division by zero", OUTR_STR_NONE)
               : op == '%'     ? (value){.kind = INT}
                               : (value){.kind = DOUBLE, .number = -x};
    if (is_int && (op == '/' || op == '%'))
        return (value){.kind = INT,
                       .integer = op == '/' ? a->integer / b->integer : a->integer % b->integer};
    double r = op == '+'   ? x + y
               : op == '-' ? x - y
               : op == '*' ? x * y
               : op == '/' ? x / y
                           : fmod(x, y);
    if (is_int && fabs(r) < 9e15)
        return (value){.kind = INT, .integer = (int64_t)r};
    return (value){.kind = DOUBLE, .number = r};
}

static value compare(machine *m, outr_str op, const value *a, const value *b)
{
    double x, y;
    int c;
    if (as_number(a, &x) && as_number(b, &y))
        c = (x > y) - (x < y);
    else if (a->kind == STRING && b->kind == STRING)
        c = outr_str_cmp(a->text, b->text);
    else
        return none(m, "values cannot be compared", OUTR_STR_NONE);
    bool or_equal = op.n == 2;
    return of_bool(op.p[0] == '<' ? (or_equal ? c <= 0 : c < 0) : (or_equal ? c >= 0 : c > 0));
}

/* An error on one side does not matter when the other decides. */
static value logical(machine *m, const node *n, const binding *scope)
{
    bool decides = n->text.p[0] == '|';
    value a = eval(m, n->a, scope);
    if (a.kind == BOOL && a.boolean == decides)
        return a;
    value b = eval(m, n->b, scope);
    if (b.kind == BOOL && b.boolean == decides)
        return b;
    if (a.kind == BOOL && b.kind == BOOL)
        return of_bool(!decides);
    return a.kind == NONE || b.kind == NONE ? (value){.kind = NONE}
                                            : none(m, "operands are no booleans", OUTR_STR_NONE);
}

static value eval_binary(machine *m, const node *n, const binding *scope)
{
    if (outr_str_is(n->text, "||") || outr_str_is(n->text, "&&"))
        return logical(m, n, scope);
    value a = eval(m, n->a, scope), b = eval(m, n->b, scope);
    if (a.kind == NONE || b.kind == NONE)
        return (value){.kind = NONE};
    if (outr_str_is(n->text, "=="))
        return of_bool(equal(&a, &b));
    if (outr_str_is(n->text, "!="))
        return of_bool(!equal(&a, &b));
    if (outr_str_is(n->text, "in")) {
        const void *cursor = NULL;
        value item;
        if (b.kind != JSON && b.kind != VALUES)
            return none(m, "\"in\" wants a list or a map", OUTR_STR_NONE);
        while (next_item(&b, &cursor, &item)) {
            if (equal(&a, &item))
                return of_bool(true);
        }
        return of_bool(false);
    }
    if (n->text.p[0] == '<' || n->text.p[0] == '>')
        return compare(m, n->text, &a, &b);
    return arithmetic(m, n->text.p[0], &a, &b);
}

static value eval_macro(machine *m, const node *n, const binding *scope)
{
    value list = eval(m, n->b, scope), item, *tail = NULL;
    const node *test = n->a->next;
    const void *cursor = NULL;
    size_t matches = 0;
    bool has_error = false, is_all = outr_str_is(n->text, "all"),
         is_filter = outr_str_is(n->text, "filter"), is_map = outr_str_is(n->text, "map");
    value out = {.kind = VALUES};
    if (list.kind != JSON && list.kind != VALUES)
        return list.kind == NONE ? list : none(m, "a list is expected before ", n->text);
    while (next_item(&list, &cursor, &item)) {
        const binding inner = {n->a->text, item, scope};
        value r = eval(m, test, &inner);
        if (is_map || (is_filter && r.kind == BOOL && r.boolean)) {
            value *copy = reserve(m, sizeof *copy);
            if (!copy)
                return (value){.kind = NONE};
            *copy = is_map ? r : item;
            copy->next = NULL;
            if (tail)
                tail->next = copy;
            else
                out.items = copy;
            tail = copy;
            out.count++;
        }
        has_error |= r.kind != BOOL;
        matches += r.kind == BOOL && r.boolean;
        if (is_all && r.kind == BOOL && !r.boolean)
            return of_bool(false);
        if (outr_str_is(n->text, "exists") && r.kind == BOOL && r.boolean)
            return of_bool(true);
    }
    if (is_filter || is_map)
        return out;
    if (has_error)
        return none(m, "test failed in ", n->text);
    return of_bool(is_all || (outr_str_is(n->text, "exists_one") && matches == 1));
}

/* The largest number of the braces opening at text. */
static uint64_t repeats(outr_str text)
{
    uint64_t most = 1, n = 0;
    for (size_t i = 1; i < text.n && text.p[i] != '}'; i++) {
        n = text.p[i] >= '0' && text.p[i] <= '9' ? n * 10 + (uint64_t)(text.p[i] - '0') : 0;
        n = OUTR_MIN(n, (uint64_t)REPEATS_MAX + 1);
        most = OUTR_MAX(most, n);
    }
    return most;
}

static bool is_harmless(outr_str pattern)
{
    uint64_t product = 1;
    size_t groups = 0;
    for (size_t i = 0; i < pattern.n; i++) {
        if (pattern.p[i] == '{')
            product *= repeats(outr_str_skip(pattern, i));
        groups += pattern.p[i] == '(';
        if (product > REPEATS_MAX)
            return false;
    }
    return pattern.n <= PATTERN_MAX && groups <= GROUPS_MAX;
}

/* A copy with NUL behind; NULL when it does not fit or has a NUL of its own. */
static const char *as_z(machine *m, outr_str s)
{
    char *copy = s.n && memchr(s.p, 0, s.n) ? NULL : reserve(m, s.n + 1);
    if (copy && s.n)
        memcpy(copy, s.p, s.n);
    return copy;
}

static bool matches(machine *m, outr_str text, outr_str pattern, bool *out)
{
    regex_t regex;
    const char *text_z = text.n <= MATCH_TEXT_MAX ? as_z(m, text) : NULL,
               *pattern_z = is_harmless(pattern) ? as_z(m, pattern) : NULL;
    if (!text_z || !pattern_z || regcomp(&regex, pattern_z, REG_EXTENDED | REG_NOSUB))
        return false;
    *out = regexec(&regex, text_z, 0, NULL, 0) == 0;
    regfree(&regex);
    return true;
}

static value string_call(machine *m, outr_str name, const value *on, const value *arg)
{
    bool yes;
    if (on->kind != STRING || arg->kind != STRING)
        return none(m, "strings are expected by ", name);
    if (outr_str_is(name, "startsWith"))
        return of_bool(outr_str_starts(on->text, arg->text));
    if (outr_str_is(name, "endsWith"))
        return of_bool(outr_str_ends(on->text, arg->text));
    if (outr_str_is(name, "contains"))
        return of_bool(outr_str_search(on->text, arg->text) >= 0);
    if (outr_str_is(name, "matches"))
        return matches(m, on->text, arg->text, &yes) ? of_bool(yes)
                                                     : none(m, "bad pattern or text for ", name);
    return none(m, "unknown function ", name);
}

static value as_string(machine *m, const value *v)
{
    char text[40];
    double number;
    if (v->kind == STRING)
        return *v;
    if (v->kind == BOOL)
        return (value){.kind = STRING, .text = outr_str_from(v->boolean ? "true" : "false")};
    if (!as_number(v, &number))
        return none(m, "no text of this kind of value", OUTR_STR_NONE);
    if (v->kind == INT)
        snprintf(text, sizeof text, "%lld", (long long)v->integer);
    else
        snprintf(text, sizeof text, "%.17g", number);
    return concatenate(m, outr_str_from(text), OUTR_STR_NONE);
}

static value convert(machine *m, outr_str name, const value *v)
{
    double number;
    bool is_number =
        as_number(v, &number) || (v->kind == STRING && outr_str_to_double(v->text, &number));
    if (outr_str_is(name, "size") && v->kind == STRING)
        return (value){.kind = INT, .integer = (int64_t)v->text.n};
    if (outr_str_is(name, "size") && (v->kind == JSON || v->kind == VALUES))
        return (value){.kind = INT, .integer = (int64_t)v->count};
    if ((outr_str_is(name, "int") || outr_str_is(name, "uint")) && is_number &&
        fabs(number) < 9.2e18)
        return (value){.kind = INT, .integer = (int64_t)number};
    if (outr_str_is(name, "double") && is_number)
        return (value){.kind = DOUBLE, .number = number};
    if (outr_str_is(name, "string"))
        return as_string(m, v);
    if (outr_str_is(name, "bool") && v->kind == BOOL)
        return *v;
    return none(m, "unknown function or argument: ", name);
}

static value eval_has(machine *m, const node *arg, const binding *scope)
{
    if (!arg || arg->kind != MEMBER)
        return none(m, "has() wants a member", OUTR_STR_NONE);
    value of = eval(m, arg->a, scope);
    if (of.kind == NONE)
        return of;
    for (const outr_json *j = of.kind == JSON && of.json->kind == OUTR_JSON_OBJECT ? of.json->child
                                                                                   : NULL;
         j; j = j->next) {
        if (outr_str_eq(j->key, arg->text))
            return of_bool(true);
    }
    return of_bool(false);
}

static value eval_call(machine *m, const node *n, const binding *scope)
{
    if (!n->b && outr_str_is(n->text, "has"))
        return eval_has(m, n->a, scope);
    const node *first = n->b ? n->b : n->a, *second = n->b ? n->a : n->a ? n->a->next : NULL;
    if (!first)
        return none(m, "arguments are missing for ", n->text);
    value on = eval(m, first, scope);
    if (on.kind == NONE || !second)
        return on.kind == NONE ? on : convert(m, n->text, &on);
    value arg = eval(m, second, scope);
    return arg.kind == NONE ? arg : string_call(m, n->text, &on, &arg);
}

static value eval_unary(machine *m, const node *n, const binding *scope)
{
    value v = eval(m, n->a, scope);
    if (v.kind == NONE)
        return v;
    if (n->text.p[0] == '!')
        return v.kind == BOOL ? of_bool(!v.boolean)
                              : none(m, "\"!\" wants a boolean", OUTR_STR_NONE);
    v.number = -v.number;
    v.integer = v.integer == INT64_MIN ? INT64_MAX : -v.integer;
    return v.kind == INT || v.kind == DOUBLE ? v : none(m, "\"-\" wants a number", OUTR_STR_NONE);
}

static value eval_list(machine *m, const node *n, const binding *scope)
{
    value out = {.kind = VALUES}, *tail = NULL;
    for (const node *e = n->a; e; e = e->next) {
        value *v = reserve(m, sizeof *v);
        if (!v)
            return (value){.kind = NONE};
        *v = eval(m, e, scope);
        v->next = NULL;
        if (v->kind == NONE)
            return *v;
        if (tail)
            tail->next = v;
        else
            out.items = v;
        tail = v;
        out.count++;
    }
    return out;
}

static value eval(machine *m, const node *n, const binding *scope)
{
    value a, b;
    if (++m->steps > STEPS_MAX)
        return none(m, "too many steps", OUTR_STR_NONE);
    switch (n->kind) {
    case LITERAL:
        return *n->literal;
    case NAME:
        for (; scope; scope = scope->outer) {
            if (outr_str_eq(scope->name, n->text))
                return scope->v;
        }
        return none(m, "no such attribute: ", n->text);
    case MEMBER:
        a = eval(m, n->a, scope);
        return member(m, &a, n->text);
    case INDEX:
        a = eval(m, n->a, scope);
        b = eval(m, n->b, scope);
        return eval_index(m, &a, &b);
    case CALL:
        return eval_call(m, n, scope);
    case MACRO:
        return eval_macro(m, n, scope);
    case UNARY:
        return eval_unary(m, n, scope);
    case BINARY:
        return eval_binary(m, n, scope);
    case TERNARY:
        a = eval(m, n->a, scope);
        if (a.kind != BOOL)
            return a.kind == NONE ? a : none(m, "\"?\" wants a boolean", OUTR_STR_NONE);
        return eval(m, a.boolean ? n->b : n->c, scope);
    case LIST:
        return eval_list(m, n, scope);
    }
    return (value){.kind = NONE};
}

static outr_code test(const outr_cel *cel, outr_arena *arena, const binding *scope, bool *out,
                      outr_err *err)
{
    machine m = {.arena = arena, .err = err};
    value r = eval(&m, cel->root, scope);
    if (r.kind == NONE)
        return OUTR_INVALID_ARGUMENT;
    if (r.kind != BOOL)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "CEL: the result is no boolean");
    *out = r.boolean;
    return OUTR_OK;
}

outr_code outr_cel_test(const outr_cel *cel, outr_arena *arena, const char *name,
                        const outr_json *v, bool *out, outr_err *err)
{
    const binding scope = {outr_str_from(name), of_json(v), NULL};
    return test(cel, arena, &scope, out, err);
}

outr_code outr_cel_test_all(const outr_cel *cel, outr_arena *arena, const outr_json *variables,
                            bool *out, outr_err *err)
{
    const binding *scope = NULL;
    for (const outr_json *v = variables->child; v; v = v->next) {
        binding *b = outr_arena_alloc(arena, sizeof *b);
        *b = (binding){v->key, of_json(v), scope};
        scope = b;
    }
    return test(cel, arena, scope, out, err);
}
