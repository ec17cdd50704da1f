/* Plain C, one lane: the vocabulary as ordinary arithmetic. The reference every other file is compared with. */
#include "begin.h"
#include "half.h"
#include "../lattice.h"

static int forge_isa_supported(void) { return 1; }

#include "one_lane.h"

#define FORGE_BACKEND forge_scalar
#define FORGE_BACKEND_NAME "scalar"
#include "vocabulary.h"
#include "table.h"
