/* What limits cost a call: CPU of this thread, per call, of the very functions that calls run
 * through, on a clock that stands still. Prints a JSON object a line: {"name": ..., "us": ...}. */
#include "bench/measure.h"
#include "lib/wire.h"
#include "mesh/limits.h"
#include "mesh/rate.h"
#include "mesh/throttle.h"

#define CALLS 500000

static wire net;
static outr_throttle *throttle;
static outr_throttle_port *port;
static outr_rate *rate;
static outr_limits limits;

static void take_a_place(void *ctx OUTR_UNUSED, unsigned i OUTR_UNUSED)
{
    outr_ticket ticket;
    outr_op op;
    outr_op_init(&op, net.loop, NULL, 0, NULL);
    outr_ticket_take(&ticket, throttle, port, false, &op);
    outr_ticket_give_back(&ticket, true);
}

static void ask_a_rate(void *ctx OUTR_UNUSED, unsigned i)
{
    char key[64] = "spiffe://public/ns/default/caller-0000";
    memcpy(key + 34, (const char[]){(char)('0' + i % 10), (char)('0' + i / 10 % 10)}, 2);
    outr_rate_take(rate, outr_str_of(key, 38), net.now);
}

static void pass_bulkheads(void *ctx OUTR_UNUSED, unsigned i OUTR_UNUSED)
{
    outr_limits_enter(&limits);
    outr_limits_placed(&limits);
    outr_limits_leave(&limits, false);
}

static void measure(const char *name, void (*run)(void *ctx, unsigned i))
{
    measure_print_us(name, measure_calls(CALLS, run, NULL));
}

int main(void)
{
    const outr_gradient_options gradient = {3, 1000, 5, 1000, 5 * OUTR_MS, 100 * OUTR_MS};
    const outr_rate_options often = {OUTR_RATE_REQUESTS_MAX, OUTR_SEC, 1000000, 16384, .seed = 7};
    wire_init(&net, 1);
    throttle = outr_throttle_new(&gradient, net.now);
    port = outr_throttle_port_new(net.loop);
    rate = outr_rate_new(&often);
    outr_limits_init(&limits);
    measure("a rate limit per identity is asked", ask_a_rate);
    measure("a place of the adaptive limit, there and back", take_a_place);
    measure("the bulkheads of a callee", pass_bulkheads);
    outr_limits_done(&limits);
    outr_rate_free(rate);
    outr_throttle_port_free(port);
    outr_throttle_unref(throttle);
    wire_done(&net);
    return 0;
}
