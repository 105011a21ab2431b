/* rules - what of the API is open, and to whom: spec.api of the Configuration, DAPR_API_TOKEN. */
#ifndef OUTR_API_RULES_H
#define OUTR_API_RULES_H

#include "config/snapshot.h"

/* protocol: "http" or "grpc"; group and version as in contract/yaml-configuration.csv: "state",
 * "v1". Denied goes before allowed; a list of allowed closes all others of its protocol. */
bool outr_api_is_open(const outr_configuration *c, const char *protocol, const char *group,
                      const char *version);
/* Takes as long for a wrong token as for a right one. */
bool outr_api_token_is_right(outr_str given, outr_str token);

#endif
