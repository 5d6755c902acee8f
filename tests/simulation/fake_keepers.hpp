#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/wire/protocol.hpp"
#include "coordinator/core/items/ids.hpp"

namespace tessera::coordinator::simulation {

// Two gateways that share one record: each claims the lease and, while it holds it, changes the
// record again and again. Checked: what was acknowledged is not lost, nobody reads what is older
// than an acknowledged change, and no two hold the lease at one time.
class FakeKeepers {
 public:
  struct World {
    std::function<void(const std::string& peer, protocol::Message message)> send;
    std::function<void(const std::string& what)> problem;
  };
  explicit FakeKeepers(World world);

  void tick(Micros now);  // Each takes its next step; call every few milliseconds.
  // False when the peer is none of them.
  bool receives(const std::string& peer, const protocol::Message& message, Micros now);
  std::uint64_t changes() const { return changes_; }

 private:
  enum class Asked : std::uint8_t { kNothing, kQuery, kClaim, kPut };
  struct Keeper {
    std::string peer;
    Asked asked = Asked::kNothing;
    std::uint64_t request_id = 0;
    Micros asked_at = 0;
    std::uint64_t acknowledged_before = 0;  // The highest version when it asked.
    std::optional<std::uint64_t> version;   // As it knows it; 0: there is no record.
    std::string content;                    // What it is writing.
    Micros holds_until = 0;                 // At the least.
  };

  void ask(Keeper& keeper, Asked what, Micros now);
  void on_record(Keeper& keeper, const protocol::RecordsReply& reply, Micros now);
  void on_error(Keeper& keeper, const protocol::ErrorReply& error);

  const World world_;
  std::vector<Keeper> keepers_;
  std::map<std::uint64_t, std::string> acknowledged_;  // Content by version.
  std::uint64_t highest_ = 0;
  std::uint64_t next_request_ = 1;
  std::uint64_t changes_ = 0;
};

}  // namespace tessera::coordinator::simulation
