#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "coordinator/core/events/events.hpp"

namespace tessera::coordinator {

struct RecordLimits {
  std::size_t records_max = 10'000;
  std::size_t tenant_records_max = 2000;
  std::size_t bytes_max = 64U << 20;  // Of all contents.
};

// Keeps records for clients (common/wire/protocol_records.hpp): all of them in memory and, before a
// change is answered, in the ledger. One change of a record is under way at a time; whoever comes
// meanwhile would change a version that is about to be another's, and is refused. Who holds a lease
// is in the ledger, when it ends only here: after a restart every lease runs anew.
class RecordDesk {
 public:
  explicit RecordDesk(const RecordLimits& limits) : limits_(limits) {}

  void restore(std::vector<ledger::StoredRecord> stored, Micros now);

  // Ids of its RunLedger actions have the highest bit set: they are not the job desk's.
  static bool is_own(std::uint64_t operation) { return (operation & kIdBit) != 0; }
  void on_ledger_reply(LedgerReply reply, Micros now, Actions& actions);
  void on_ledger_state(bool up) { ledger_up_ = up; }

  void on_put(const std::string& peer, protocol::RecordPut put, Micros now, Actions& actions);
  void on_query(const std::string& peer, const protocol::RecordQuery& query, Micros now,
                Actions& actions) const;
  void on_claim(const std::string& peer, const protocol::RecordClaim& claim, Micros now,
                Actions& actions);
  void on_delete(const std::string& peer, const protocol::RecordDelete& request, Micros now,
                 Actions& actions);

  std::size_t ledger_operations() const { return changes_.size(); }
  std::size_t records() const { return records_.size(); }
  std::size_t open_records() const;
  std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::uint64_t kIdBit = 1ULL << 63;

  struct Record {
    std::string tenant;
    std::uint64_t version = 0;
    std::uint64_t order = 0;
    bool open = false;
    std::string owner;
    std::uint32_t lease_ms = 0;
    Micros lease_until = 0;
    protocol::Bytes content;
  };
  // Under way in the ledger.
  struct Change {
    std::string peer;
    std::uint64_t request_id = 0;
    std::string id;
    bool is_deletion = false;
    bool takes_lease = false;
    Record after;
  };

  // The refusal of any change that is not possible now, whatever it is.
  std::optional<Error> refusal(const std::string& id, const std::string& tenant,
                               std::uint64_t expected_version) const;
  std::optional<Error> no_room(const protocol::RecordPut& put) const;
  void begin(Change change, Actions& actions);
  void commit(Change& change, Micros now);
  void answer(const std::string& peer, std::uint64_t request_id, const std::string& id, Micros now,
              Actions& actions) const;
  static protocol::RecordInfo info(const std::string& id, const Record& record, Micros now);

  const RecordLimits limits_;
  std::map<std::string, Record> records_;
  std::map<std::uint64_t, std::string> by_order_;
  std::map<std::string, std::size_t> tenant_records_;
  std::set<std::string> changing_;           // Ids with a change under way.
  std::map<std::uint64_t, Change> changes_;  // By id of the RunLedger.
  std::uint64_t next_operation_ = 1;
  std::uint64_t next_order_ = 1;
  std::size_t creating_ = 0;
  std::size_t bytes_ = 0;
  bool ledger_up_ = true;
};

}  // namespace tessera::coordinator
