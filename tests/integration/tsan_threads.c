/* tsan_threads - C11 threads as POSIX threads, for programs under the thread sanitizer.
 *
 * The sanitizer knows of threads, mutexes and conditions by their POSIX names. A library that uses
 * C11's (librdkafka) would run threads it has never heard of, and crash in the first call that it
 * intercepts; and what its locks order would look like races of ours. In glibc the types are the
 * same. tests/run preloads this for the parts that run under the thread sanitizer. */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>

typedef struct beginning {
    thrd_start_t run;
    void *arg;
} beginning;

static int code_of(int failure)
{
    return failure == 0           ? thrd_success
           : failure == EBUSY     ? thrd_busy
           : failure == ETIMEDOUT ? thrd_timedout
           : failure == ENOMEM    ? thrd_nomem
                                  : thrd_error;
}

/* ---- threads --------------------------------------------------------------------------------- */

static void *begin(void *own)
{
    beginning b = *(beginning *)own;
    free(own);
    return (void *)(intptr_t)b.run(b.arg);
}

int thrd_create(thrd_t *out, thrd_start_t run, void *arg)
{
    beginning *b = malloc(sizeof *b);
    if (!b)
        return thrd_nomem;
    *b = (beginning){run, arg};
    int failure = pthread_create(out, NULL, begin, b);
    if (failure)
        free(b);
    return code_of(failure);
}

int thrd_join(thrd_t thread, int *result)
{
    void *value = NULL;
    int failure = pthread_join(thread, &value);
    if (result)
        *result = (int)(intptr_t)value;
    return code_of(failure);
}

int thrd_detach(thrd_t thread)
{
    return code_of(pthread_detach(thread));
}

/* ---- mutexes --------------------------------------------------------------------------------- */

int mtx_init(mtx_t *mutex, int type)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    if (type & mtx_recursive)
        pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    int failure = pthread_mutex_init((pthread_mutex_t *)mutex, &attr);
    pthread_mutexattr_destroy(&attr);
    return code_of(failure);
}

int mtx_lock(mtx_t *mutex)
{
    return code_of(pthread_mutex_lock((pthread_mutex_t *)mutex));
}

int mtx_trylock(mtx_t *mutex)
{
    return code_of(pthread_mutex_trylock((pthread_mutex_t *)mutex));
}

int mtx_unlock(mtx_t *mutex)
{
    return code_of(pthread_mutex_unlock((pthread_mutex_t *)mutex));
}

void mtx_destroy(mtx_t *mutex)
{
    pthread_mutex_destroy((pthread_mutex_t *)mutex);
}

/* ---- conditions ------------------------------------------------------------------------------ */

int cnd_init(cnd_t *cond)
{
    return code_of(pthread_cond_init((pthread_cond_t *)cond, NULL));
}

int cnd_signal(cnd_t *cond)
{
    return code_of(pthread_cond_signal((pthread_cond_t *)cond));
}

int cnd_broadcast(cnd_t *cond)
{
    return code_of(pthread_cond_broadcast((pthread_cond_t *)cond));
}

int cnd_wait(cnd_t *cond, mtx_t *mutex)
{
    return code_of(pthread_cond_wait((pthread_cond_t *)cond, (pthread_mutex_t *)mutex));
}

int cnd_timedwait(cnd_t *cond, mtx_t *mutex, const struct timespec *at)
{
    return code_of(pthread_cond_timedwait((pthread_cond_t *)cond, (pthread_mutex_t *)mutex, at));
}

void cnd_destroy(cnd_t *cond)
{
    pthread_cond_destroy((pthread_cond_t *)cond);
}
