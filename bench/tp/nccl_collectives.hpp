#pragma once

#include <cstdint>

namespace tessera::bench {

// Times NCCL's all-reduce, reduce-scatter and all-gather of [rows, hidden] bf16 on GPUs 0 to
// size - 1, a thread each: from plain memory, from symmetric windows (NCCL 2.27 and later) and, for
// the all-gather, by copy engines (2.28 and later). Results are checked first. NVLink multicast
// stays off. Prints a table; throws FatalError where NCCL is missing or fails.
void measure_nccl(int size, std::int64_t hidden);

}  // namespace tessera::bench
