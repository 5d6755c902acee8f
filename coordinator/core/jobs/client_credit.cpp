#include "coordinator/core/jobs/client_credit.hpp"

#include <utility>

#include "common/check.hpp"

namespace tessera::coordinator {

void ClientCredit::take(const Job& job, Chunk& chunk, std::size_t bytes) {
  give_back(job, chunk);
  if (bytes > 0) {
    chunk.sent_bytes = bytes;
    taken_[job.peer] += bytes;
  }
}

void ClientCredit::give_back(const Job& job, Chunk& chunk) {
  if (chunk.sent_bytes == 0) {
    return;
  }
  const auto taken = taken_.find(job.peer);
  CHECK(taken != taken_.end() && taken->second >= chunk.sent_bytes);
  taken->second -= std::exchange(chunk.sent_bytes, 0);
  if (taken->second == 0) {
    taken_.erase(taken);
  }
}

}  // namespace tessera::coordinator
