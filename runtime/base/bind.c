#include "base/bind.h"

static bool has_alias(const char *aliases, outr_str name)
{
    outr_str rest = outr_str_from(aliases), alias;
    while (rest.p) {
        rest = outr_str_cut(rest, '|', &alias);
        if (outr_str_ieq(alias, name))
            return true;
    }
    return false;
}

static bool is_row(const outr_bind_row *row, outr_str name)
{
    return outr_str_iis(name, row->name) || (row->aliases && has_alias(row->aliases, name));
}

bool outr_bind_is_known(const outr_bind_row *rows, size_t count, outr_str name)
{
    for (size_t i = 0; i < count; i++) {
        if (is_row(&rows[i], name))
            return true;
    }
    return false;
}

static bool in_range(const outr_bind_row *row, int64_t value)
{
    return (row->min == 0 && row->max == 0) || (value >= row->min && value <= row->max);
}

static bool set_number(const outr_bind_row *row, int64_t *to, int64_t value)
{
    if (!in_range(row, value))
        return false;
    *to = value;
    return true;
}

static bool set_choice(const outr_bind_row *row, int *to, outr_str text)
{
    for (int i = 0; row->choices[i]; i++) {
        if (outr_str_iis(text, row->choices[i])) {
            *to = i;
            return true;
        }
    }
    return false;
}

static bool set_duration(const outr_bind_row *row, int64_t *to, outr_str text)
{
    int64_t value = 0, number;
    bool is_read = outr_str_to_duration(text, &value);
    if (!is_read && row->unit_ns && outr_str_to_i64(text, -1, INT64_MAX / row->unit_ns, &number)) {
        value = number * row->unit_ns;
        is_read = true;
    }
    return is_read && set_number(row, to, value);
}

static bool set(const outr_bind_row *row, void *out, outr_str text)
{
    void *to = (char *)out + row->offset;
    int64_t value = 0;
    switch (row->type) {
    case OUTR_BIND_STR:
        *(outr_str *)to = text;
        return true;
    case OUTR_BIND_BOOL:
        return outr_str_to_bool(text, to);
    case OUTR_BIND_I64:
        return outr_str_to_i64(text, INT64_MIN, INT64_MAX, &value) && set_number(row, to, value);
    case OUTR_BIND_DOUBLE:
        return outr_str_to_double(text, to);
    case OUTR_BIND_DURATION:
        return set_duration(row, to, text);
    case OUTR_BIND_QUANTITY:
        return outr_str_to_quantity(text, &value) && set_number(row, to, value);
    case OUTR_BIND_ENUM:
        return set_choice(row, to, text);
    }
    return false;
}

static const char *type_text(outr_bind_type type)
{
    static const char *const texts[] = {
        [OUTR_BIND_STR] = "a text",
        [OUTR_BIND_BOOL] = "true or false",
        [OUTR_BIND_I64] = "an integer in range",
        [OUTR_BIND_DOUBLE] = "a number",
        [OUTR_BIND_DURATION] = "a duration in range",
        [OUTR_BIND_QUANTITY] = "a quantity in range",
        [OUTR_BIND_ENUM] = "one of its choices",
    };
    return texts[type];
}

static void complain(const outr_bind_row *row, outr_str text, outr_err_list *errs)
{
    if (row->flags & OUTR_BIND_SECRET)
        outr_err_list_add(errs, OUTR_INVALID_ARGUMENT, "%s: not %s", row->name,
                          type_text(row->type));
    else
        outr_err_list_add(errs, OUTR_INVALID_ARGUMENT, "%s: not %s: \"" OUTR_FMT "\"", row->name,
                          type_text(row->type), OUTR_ARG(text));
}

static const outr_kv *given(const outr_bind_row *row, outr_kvs kvs)
{
    for (size_t i = 0; i < kvs.count; i++) {
        if (is_row(row, kvs.items[i].key))
            return &kvs.items[i];
    }
    return NULL;
}

outr_code outr_bind_kvs(const outr_bind_row *rows, size_t count, void *out, outr_kvs kvs,
                        outr_err_list *errs)
{
    size_t before = errs->count;
    for (size_t i = 0; i < count; i++) {
        const outr_bind_row *row = &rows[i];
        const outr_kv *kv = given(row, kvs);
        if (row->otherwise)
            set(row, out, outr_str_from(row->otherwise));
        if (kv && (kv->value.n > 0 || row->type == OUTR_BIND_STR) && !set(row, out, kv->value))
            complain(row, kv->value, errs);
        if ((row->flags & OUTR_BIND_REQUIRED) && (!kv || kv->value.n == 0))
            outr_err_list_add(errs, OUTR_INVALID_ARGUMENT, "%s: required but not given", row->name);
    }
    return errs->count > before ? errs->items[before].code : OUTR_OK;
}
