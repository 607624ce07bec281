// The kernels for any machine of this architecture.
#define DET_ISA 0
#define DET_TABLE baseline_kernels
#include "isa_table.h"
