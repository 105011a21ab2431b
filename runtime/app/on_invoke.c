#include "app/channel.h"

void outr_app_invoke_start(outr_app *app, outr_app_call *call, outr_op *op)
{
    outr_app_call_start(app, call, op);
}
