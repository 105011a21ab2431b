/* Messages of multicast DNS as strangers send them: reading ends, stays within the message, and gives
 * names that are text; what was read as a service can be written and is read again. */
#include "components/common/dns.h"
#include "tests/fuzz/property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_name(const outr_dns_name *name)
{
    PROPERTY(name->n <= OUTR_DNS_NAME_MAX && name->text[name->n] == 0);
    PROPERTY(strlen(name->text) == name->n);
}

static void check_again(const outr_dns_record *service)
{
    outr_dns_writer w;
    outr_dns_reader r;
    outr_dns_record again;
    outr_dns_begin(&w, true);
    outr_dns_put_service(&w, outr_str_of(service->name.text, service->name.n), service->ttl_s,
                         service->port, outr_str_of(service->target.text, service->target.n));
    PROPERTY(outr_dns_read(&r, outr_str_of(w.bytes, w.n)) && r.is_response);
    PROPERTY(outr_dns_next(&r, &again) && again.type == OUTR_DNS_SRV);
    PROPERTY(again.port == service->port && again.ttl_s == service->ttl_s);
    PROPERTY(strcmp(again.name.text, service->name.text) == 0);
    PROPERTY(strcmp(again.target.text, service->target.text) == 0);
    PROPERTY(!outr_dns_next(&r, &again));
}

static void check_texts(const outr_dns_record *record)
{
    outr_str rest = record->texts, one;
    size_t n = 0;
    while (outr_dns_text(&rest, &one))
        n += one.n + 1;
    PROPERTY(n + rest.n == record->texts.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outr_dns_reader r;
    outr_dns_record record;
    if (!outr_dns_read(&r, outr_str_of(data, size)))
        return 0;
    for (int n = 0; outr_dns_next(&r, &record); n++) {
        PROPERTY(r.at <= size && n < 70000);
        check_name(&record.name);
        if (!record.is_question && (record.type == OUTR_DNS_PTR || record.type == OUTR_DNS_SRV))
            check_name(&record.target);
        if (!record.is_question && record.type == OUTR_DNS_SRV)
            check_again(&record);
        if (!record.is_question && record.type == OUTR_DNS_TXT)
            check_texts(&record);
    }
    return 0;
}
