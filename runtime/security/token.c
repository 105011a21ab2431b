#include "security/token.h"

#include "security/secretfile.h"
#include "tls/cert.h"

static bool may_stand_in_a_header(outr_str text)
{
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (c < 0x20 || c > 0x7e)
            return false;
    }
    return true;
}

/* *out becomes the token alone. */
static outr_code read_token(outr_buf *out, const char *path, const char *variable, outr_err *err)
{
    outr_buf file = {0};
    outr_code rc = outr_secretfile_read(&file, path, OUTR_TOKEN_MAX_BYTES, OUTR_FILE_ANY, err);
    outr_str text = outr_str_trim(outr_buf_view(&file));
    if (!rc && text.n == 0)
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "%s: no token is in it", path);
    if (!rc && !may_stand_in_a_header(text))
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "%s: more than one line of plain text", path);
    *out = OUTR_BUF_MAX(OUTR_TOKEN_MAX_BYTES);
    if (!rc)
        outr_buf_str(out, text);
    outr_secret_done(&file);
    return rc ? outr_wrap(err, "%s", variable) : OUTR_OK;
}

outr_code outr_token_open(outr_token *token, const char *path, const char *variable, outr_err *err)
{
    outr_watched watched = {0};
    outr_buf text = {0};
    if (!path || !path[0])
        return OUTR_OK;
    outr_watched_note(&watched, path);
    outr_code rc = read_token(&text, path, variable, err);
    if (rc)
        return rc;
    *token =
        (outr_token){.text = text, .generation = 1, .variable = variable, .watched = watched};
    pthread_mutex_init(&token->lock, NULL);
    return OUTR_OK;
}

static bool on_file(outr_watched *watched)
{
    outr_token *token = OUTR_CONTAINER(watched, outr_token, watched);
    const outr_log *log = outr_loop_log(watched->loop);
    outr_buf text;
    outr_err err;
    outr_code rc = read_token(&text, watched->path, token->variable, &err);
    if (rc && !token->was_bad) /* perhaps half written: it is looked at again, and told of once */
        OUTR_LOG(log, WARN, "a token's file cannot be used, the former token stays",
                 OUTR_ERR(&err));
    token->was_bad = rc != OUTR_OK;
    bool is_other = !rc && !outr_str_eq(outr_buf_view(&text), outr_buf_view(&token->text));
    if (is_other) {
        pthread_mutex_lock(&token->lock);
        outr_buf before = token->text;
        token->text = text;
        text = before;
        __atomic_store_n(&token->generation, OUTR_MAX(token->generation + 1, 1u), __ATOMIC_RELEASE);
        pthread_mutex_unlock(&token->lock);
        OUTR_LOG(log, INFO, "a token has changed", OUTR_Z("variable", token->variable));
    }
    outr_secret_done(&text);
    return rc == OUTR_OK;
}

void outr_token_watch(outr_token *token, outr_loop *loop)
{
    if (token->generation)
        outr_watched_start(&token->watched, loop, on_file);
}

void outr_token_stop(outr_token *token)
{
    outr_watched_stop(&token->watched);
}

void outr_token_close(outr_token *token)
{
    if (!token->generation)
        return;
    outr_secret_done(&token->text);
    pthread_mutex_destroy(&token->lock);
    token->generation = 0;
}

outr_str outr_token_get(outr_token_view *view, outr_str otherwise)
{
    outr_token *token = view->token;
    unsigned now = token ? __atomic_load_n(&token->generation, __ATOMIC_ACQUIRE) : 0;
    if (now == 0)
        return otherwise;
    if (now != view->generation) {
        outr_secret_done(&view->text);
        view->text = OUTR_BUF_MAX(OUTR_TOKEN_MAX_BYTES);
        pthread_mutex_lock(&token->lock);
        outr_buf_str(&view->text, outr_buf_view(&token->text));
        view->generation = __atomic_load_n(&token->generation, __ATOMIC_RELAXED);
        pthread_mutex_unlock(&token->lock);
    }
    return outr_buf_view(&view->text);
}

void outr_token_view_done(outr_token_view *view)
{
    outr_secret_done(&view->text);
    *view = (outr_token_view){0};
}
