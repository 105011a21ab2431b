/* details - what an error tells beyond code and text: google.rpc.ErrorInfo metadata, ResourceInfo,
 * BadRequest, Help. Both front ends print the same value. Source: contract/error-codes.csv. */
#ifndef OUTR_API_CORE_DETAILS_H
#define OUTR_API_CORE_DETAILS_H

#include "base/map.h"
#include "base/str.h"

typedef struct outr_details {
    /* HTTP: the body carries details[]; gRPC has them whenever the reason has a text for ErrorInfo.
     * The order is Help, BadRequest, ResourceInfo, ErrorInfo as each is present. */
    bool is_rich;
    /* HTTP: false: metadata is printed as null, true: as an object, also when empty */
    bool has_metadata;
    outr_kv metadata[4];
    size_t metadata_count;
    bool has_resource;
    outr_str resource_type, resource_name, resource_owner, resource_description;
    outr_str field,
        field_description; /* BadRequest when field.p is set; an empty name is left out */
    outr_str help_url, help_description;
} outr_details;

#endif
