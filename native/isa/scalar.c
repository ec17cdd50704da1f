/* Plain C, one lane: the vocabulary as ordinary arithmetic. The reference every other file is compared with. */
#include "../backend.h"

static int forge_isa_supported(void) { return 1; }

#define FORGE_BACKEND forge_scalar
#define FORGE_BACKEND_NAME "scalar"
#include "table.h"
