#pragma once

#include <cstddef>
#include <string>
#include <unordered_map>

#include "coordinator/core/jobs/job.hpp"

namespace tessera::coordinator {

// Bytes of results that were sent to clients, or are being fetched for them, and that they have not
// acknowledged: a client that does not read must not fill the sockets. A chunk's share of it is in
// Chunk::sent_bytes, and is counted for the job's client of that moment.
class ClientCredit {
 public:
  explicit ClientCredit(std::size_t bytes_max) : bytes_max_(bytes_max) {}

  // Whether the job's client may be sent so much more. One result of each job always goes, so that
  // a client that waits for one of its jobs is not held up by another.
  bool allows(const Job& job, std::size_t bytes) const {
    return job.sent == 0 || taken_by(job.peer) + bytes <= bytes_max_;
  }
  // Takes so much for the chunk, in place of what it had taken before.
  void take(const Job& job, Chunk& chunk, std::size_t bytes);
  void give_back(const Job& job, Chunk& chunk);

  std::size_t taken_by(const std::string& client) const {
    const auto found = taken_.find(client);
    return found == taken_.end() ? 0 : found->second;
  }

 private:
  const std::size_t bytes_max_;
  std::unordered_map<std::string, std::size_t> taken_;  // By client; none has 0.
};

}  // namespace tessera::coordinator
