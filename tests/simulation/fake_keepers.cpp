#include "tests/simulation/fake_keepers.hpp"

#include <algorithm>

namespace tessera::coordinator::simulation {
namespace {

constexpr std::uint32_t kLeaseMs = 1500;
constexpr Micros kLeaseUs = Micros{kLeaseMs} * 1000;
constexpr Micros kPatienceUs = 1'000'000;
const std::string kRecord = "shared";

}  // namespace

FakeKeepers::FakeKeepers(World world) : world_(std::move(world)), keepers_(2) {
  keepers_[0].peer = "keeper 0";
  keepers_[1].peer = "keeper 1";
}

void FakeKeepers::tick(Micros now) {
  for (Keeper& keeper : keepers_) {
    if (keeper.asked != Asked::kNothing && now - keeper.asked_at < kPatienceUs) {
      continue;
    }
    if (keeper.asked != Asked::kNothing) {
      keeper.version.reset();  // Whether it was done is not known.
    }
    const bool holds = now < keeper.holds_until - kLeaseUs / 2;
    ask(keeper,
        !keeper.version                 ? Asked::kQuery
        : holds || *keeper.version == 0 ? Asked::kPut
                                        : Asked::kClaim,
        now);
  }
}

void FakeKeepers::ask(Keeper& keeper, Asked what, Micros now) {
  keeper.asked = what;
  keeper.asked_at = now;
  keeper.request_id = next_request_++;
  keeper.acknowledged_before = highest_;
  if (what == Asked::kQuery) {
    world_.send(keeper.peer, protocol::RecordQuery{.request_id = keeper.request_id, .id = kRecord});
  } else if (what == Asked::kClaim) {
    world_.send(keeper.peer, protocol::RecordClaim{.request_id = keeper.request_id,
                                                   .id = kRecord,
                                                   .owner = keeper.peer,
                                                   .lease_ms = kLeaseMs});
  } else {
    keeper.content = keeper.peer;
    keeper.content.append(" ").append(std::to_string(keeper.request_id));
    const auto* data = reinterpret_cast<const std::byte*>(keeper.content.data());
    world_.send(keeper.peer, protocol::RecordPut{.request_id = keeper.request_id,
                                                 .id = kRecord,
                                                 .expected_version = *keeper.version,
                                                 .payload = {data, data + keeper.content.size()}});
  }
}

bool FakeKeepers::receives(const std::string& peer, const protocol::Message& message, Micros now) {
  const auto keeper = std::ranges::find(keepers_, peer, &Keeper::peer);
  if (keeper == keepers_.end()) {
    return false;
  }
  const auto* reply = std::get_if<protocol::RecordsReply>(&message);
  const auto* error = std::get_if<protocol::ErrorReply>(&message);
  if (reply != nullptr && reply->request_id == keeper->request_id &&
      keeper->asked != Asked::kNothing) {
    on_record(*keeper, *reply, now);
  } else if (error != nullptr && error->request_id == keeper->request_id &&
             keeper->asked != Asked::kNothing) {
    on_error(*keeper, *error);
  }
  return true;  // Others come late, or twice.
}

void FakeKeepers::on_record(Keeper& keeper, const protocol::RecordsReply& reply, Micros now) {
  const protocol::RecordInfo& record = reply.records.at(0);
  const std::string content(reinterpret_cast<const char*>(reply.payload.data()),
                            reply.payload.size());
  if (record.version < keeper.acknowledged_before) {
    world_.problem("a record's version went back from " +
                   std::to_string(keeper.acknowledged_before) + " to " +
                   std::to_string(record.version));
  }
  const auto [known, is_new] = acknowledged_.try_emplace(record.version, content);
  if (!is_new && known->second != content) {
    world_.problem("version " + std::to_string(record.version) + " of a record was \"" +
                   known->second + "\" and is \"" + content + "\"");
  }
  if (keeper.asked == Asked::kPut && content != keeper.content) {
    world_.problem("another's content was acknowledged: " + content);
  }
  changes_ += keeper.asked == Asked::kPut ? 1 : 0;
  highest_ = std::max(highest_, record.version);
  if (keeper.asked == Asked::kClaim && record.owner == keeper.peer) {
    keeper.holds_until = keeper.asked_at + kLeaseUs;
    for (const Keeper& other : keepers_) {
      if (&other != &keeper && other.holds_until > now) {
        world_.problem("two hold one lease");
      }
    }
  }
  keeper.version = record.version;
  keeper.asked = Asked::kNothing;
}

void FakeKeepers::on_error(Keeper& keeper, const protocol::ErrorReply& error) {
  const bool is_absent = error.code == ErrorCode::kNotFound && keeper.asked == Asked::kQuery;
  if (is_absent && keeper.acknowledged_before > 0) {
    world_.problem("an acknowledged record is gone");
  }
  if (!is_absent && error.code != ErrorCode::kConflict && error.code != ErrorCode::kUnavailable &&
      error.code != ErrorCode::kNotFound) {
    world_.problem("a keeper was refused: " + error.message);
  }
  keeper.version = is_absent ? std::optional<std::uint64_t>(0) : std::nullopt;
  keeper.asked = Asked::kNothing;
}

}  // namespace tessera::coordinator::simulation
