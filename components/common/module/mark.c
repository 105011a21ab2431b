#include "components/module.h"

/* A part of every module. */

extern const outr_module_mark outr_module OUTR_MODULE;
const outr_module_mark outr_module = OUTR_MODULE_MARK;
