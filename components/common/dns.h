/* dns - messages of DNS as multicast DNS has them: reading and writing, no I/O. RFC 1035 section 4,
 * RFC 6762 section 18, RFC 6763.
 *
 * Names are text, labels with a dot between them and none at the end; a dot within a label is read
 * as '-', so that no stranger's label passes for two. Compared without case. What is malformed ends
 * the reading; compression pointers must lead backwards, so that no message makes a loop. */
#ifndef OUTR_COMPONENTS_COMMON_DNS_H
#define OUTR_COMPONENTS_COMMON_DNS_H

#include "base/str.h"

#define OUTR_DNS_NAME_MAX    255
#define OUTR_DNS_MESSAGE_MAX 9000 /* RFC 6762 section 17 */

enum {
    OUTR_DNS_A = 1,
    OUTR_DNS_PTR = 12,
    OUTR_DNS_TXT = 16,
    OUTR_DNS_AAAA = 28,
    OUTR_DNS_SRV = 33,
    OUTR_DNS_ANY = 255,
};

typedef struct outr_dns_name {
    char text[OUTR_DNS_NAME_MAX + 1];
    size_t n;
} outr_dns_name;

/* A question (is_question: name and type alone) or a record. */
typedef struct outr_dns_record {
    bool is_question;
    outr_dns_name name;
    uint16_t type;
    uint32_t ttl_s;
    outr_dns_name target;      /* PTR, SRV */
    uint16_t port;             /* SRV */
    uint16_t priority, weight; /* SRV: RFC 2782 */
    uint8_t ip[16];            /* A: 4 bytes; AAAA */
    outr_str texts;            /* TXT: for outr_dns_text; the message's */
} outr_dns_record;

typedef struct outr_dns_reader {
    outr_str message;
    size_t at;
    uint16_t questions, records; /* still to come */
    bool is_response;
} outr_dns_reader;
/* False: no message of DNS. */
bool outr_dns_read(outr_dns_reader *reader, outr_str message);
/* The next question or record; false at the end, or where the rest is malformed. */
bool outr_dns_next(outr_dns_reader *reader, outr_dns_record *out);

/* The next of a TXT record's strings; false after the last, or where the rest is malformed. */
bool outr_dns_text(outr_str *texts, outr_str *out);

/* Writes into memory of its own; what does not fit is left out and is_full set. */
typedef struct outr_dns_writer {
    char bytes[1400];
    size_t n;
    bool is_full;
} outr_dns_writer;
void outr_dns_begin(outr_dns_writer *w, bool is_response);
void outr_dns_ask(outr_dns_writer *w, outr_str name, uint16_t type);
void outr_dns_put_pointer(outr_dns_writer *w, outr_str name, uint32_t ttl_s, outr_str to);
void outr_dns_put_service(outr_dns_writer *w, outr_str name, uint32_t ttl_s, uint16_t port,
                          outr_str host);
/* Each of 255 bytes at most. */
void outr_dns_put_texts(outr_dns_writer *w, outr_str name, uint32_t ttl_s, const outr_str *texts,
                        size_t count);
/* n: 4 or 16. */
void outr_dns_put_address(outr_dns_writer *w, outr_str name, uint32_t ttl_s, const uint8_t *ip,
                          size_t n);

#endif
