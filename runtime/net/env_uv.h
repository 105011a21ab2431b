/* env_uv - the parts of the real environment that live in files of their own. */
#ifndef OUTR_NET_ENV_UV_H
#define OUTR_NET_ENV_UV_H

#include "loop/loop.h"
#include "net/listen.h"

outr_code outr_uv_listen(outr_loop *loop, const outr_listen_options *options, outr_listener **out,
                         outr_err *err);

#endif
