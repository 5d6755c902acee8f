#include "coordinator/core/records/record_desk.hpp"

#include <algorithm>
#include <utility>

#include "common/check.hpp"
#include "common/log.hpp"
#include "coordinator/core/events/replies.hpp"

namespace tessera::coordinator {
namespace {

using ledger::Status;

constexpr std::uint32_t kRetryMs = 1000;

bool is_name(const std::string& text) {
  return !text.empty() && text.size() <= protocol::kNameBytesMax;
}

std::uint32_t ms_left(Micros until, Micros now) {
  return until <= now ? 0 : static_cast<std::uint32_t>((until - now + 999) / 1000);
}

Error not_found() { return {ErrorCode::kNotFound, "no record has this id"}; }

}  // namespace

void RecordDesk::restore(std::vector<ledger::StoredRecord> stored, Micros now) {
  for (ledger::StoredRecord& entry : stored) {
    bytes_ += entry.content.size();
    ++tenant_records_[entry.tenant];
    by_order_[entry.order] = entry.id;
    next_order_ = std::max(next_order_, entry.order + 1);
    records_[entry.id] = {.tenant = std::move(entry.tenant),
                          .version = entry.version,
                          .order = entry.order,
                          .open = entry.open,
                          .owner = std::move(entry.owner),
                          .lease_ms = entry.lease_ms,
                          .lease_until = now + Micros{entry.lease_ms} * 1000,
                          .content = std::move(entry.content)};
  }
}

std::size_t RecordDesk::open_records() const {
  return static_cast<std::size_t>(
      std::ranges::count_if(records_, [](const auto& entry) { return entry.second.open; }));
}

protocol::RecordInfo RecordDesk::info(const std::string& id, const Record& record, Micros now) {
  const std::uint32_t left = ms_left(record.lease_until, now);
  return {.id = id,
          .tenant = record.tenant,
          .version = record.version,
          .open = record.open,
          .owner = left > 0 ? record.owner : std::string(),
          .lease_left_ms = left,
          .order = record.order,
          .bytes = static_cast<std::uint32_t>(record.content.size())};
}

void RecordDesk::answer(const std::string& peer, std::uint64_t request_id, const std::string& id,
                        Micros now, Actions& actions) const {
  const Record& record = records_.at(id);
  protocol::RecordsReply reply{
      .request_id = request_id, .records = {info(id, record, now)}, .payload = record.content};
  actions.push_back(SendClient{peer, std::move(reply)});
}

std::optional<Error> RecordDesk::refusal(const std::string& id, const std::string& tenant,
                                         std::uint64_t expected_version) const {
  const auto found = records_.find(id);
  const std::uint64_t version = found == records_.end() ? 0 : found->second.version;
  if (found != records_.end() && found->second.tenant != tenant) {
    return expected_version == 0
               ? Error{ErrorCode::kConflict, "another tenant's record has this id"}
               : not_found();
  }
  if (version == 0 && expected_version != 0) {
    return not_found();
  }
  if (version != expected_version || changing_.contains(id)) {
    return Error{ErrorCode::kConflict, "the record is not as it was at version " +
                                           std::to_string(expected_version) + ": read it again"};
  }
  if (!ledger_up_) {
    return Error{ErrorCode::kUnavailable, "no record can be made durable now"};
  }
  return std::nullopt;
}

std::optional<Error> RecordDesk::no_room(const protocol::RecordPut& put) const {
  const auto found = records_.find(put.id);
  const std::size_t before = found == records_.end() ? 0 : found->second.content.size();
  if (bytes_ - before + put.payload.size() > limits_.bytes_max) {
    return Error{ErrorCode::kResourceExhausted,
                 "the records hold as much as they may: delete some"};
  }
  if (found != records_.end()) {
    return std::nullopt;
  }
  const auto own = tenant_records_.find(put.tenant);
  if (records_.size() + creating_ >= limits_.records_max ||
      (own != tenant_records_.end() && own->second >= limits_.tenant_records_max)) {
    return Error{ErrorCode::kResourceExhausted, "there are as many records as may be: delete some"};
  }
  return std::nullopt;
}

void RecordDesk::on_put(const std::string& peer, protocol::RecordPut put, Micros /*now*/,
                        Actions& actions) {
  std::optional<Error> error;
  if (!is_name(put.id) || put.tenant.size() > protocol::kNameBytesMax) {
    error = Error{ErrorCode::kInvalidArgument, "a record's id has 1 to 256 bytes, a tenant 256"};
  } else if (put.payload.size() > protocol::kRecordBytesMax) {
    error = Error{ErrorCode::kInvalidArgument, "a record has at most 64 KiB"};
  } else if ((error = refusal(put.id, put.tenant, put.expected_version)); !error) {
    error = no_room(put);
  }
  if (error) {
    return reply_error(peer, put.request_id, *error, actions,
                       error->code == ErrorCode::kUnavailable ? kRetryMs : 0);
  }
  Change change{.peer = peer, .request_id = put.request_id, .id = std::move(put.id), .after = {}};
  if (put.expected_version > 0) {
    change.after = records_.at(change.id);
  } else {
    change.after.tenant = std::move(put.tenant);
    change.after.order = next_order_++;
    ++creating_;
  }
  change.after.version = put.expected_version + 1;
  change.after.open = put.open;
  change.after.content = std::move(put.payload);
  begin(std::move(change), actions);
}

void RecordDesk::on_delete(const std::string& peer, const protocol::RecordDelete& request,
                           Micros /*now*/, Actions& actions) {
  auto error = refusal(request.id, request.tenant, request.expected_version);
  if (!error && request.expected_version == 0) {
    error = not_found();
  }
  if (error) {
    return reply_error(peer, request.request_id, *error, actions,
                       error->code == ErrorCode::kUnavailable ? kRetryMs : 0);
  }
  Change change{.peer = peer,
                .request_id = request.request_id,
                .id = request.id,
                .is_deletion = true,
                .after = records_.at(request.id)};
  ++change.after.version;
  begin(std::move(change), actions);
}

void RecordDesk::on_claim(const std::string& peer, const protocol::RecordClaim& claim, Micros now,
                          Actions& actions) {
  const auto found = records_.find(claim.id);
  if (!is_name(claim.owner) || claim.lease_ms > protocol::kLeaseMsMax) {
    return reply_error(peer, claim.request_id,
                       {ErrorCode::kInvalidArgument,
                        "a lease has an owner of 1 to 256 bytes and lasts at most 600000 ms"},
                       actions);
  }
  if (found == records_.end()) {
    return reply_error(peer, claim.request_id, not_found(), actions);
  }
  Record& record = found->second;
  if (record.owner == claim.owner) {
    record.lease_until = now + Micros{claim.lease_ms} * 1000;
    return answer(peer, claim.request_id, claim.id, now, actions);
  }
  if (const std::uint32_t left = ms_left(record.lease_until, now); left > 0) {
    return reply_error(peer, claim.request_id,
                       {ErrorCode::kConflict, "another works on this record"}, actions, left);
  }
  if (const auto error = refusal(claim.id, record.tenant, record.version)) {
    return reply_error(peer, claim.request_id, *error, actions, kRetryMs);
  }
  if (claim.lease_ms == 0) {
    return answer(peer, claim.request_id, claim.id, now, actions);  // Nothing to give back.
  }
  Change change{.peer = peer,
                .request_id = claim.request_id,
                .id = claim.id,
                .takes_lease = true,
                .after = record};
  ++change.after.version;
  change.after.owner = claim.owner;
  change.after.lease_ms = claim.lease_ms;
  begin(std::move(change), actions);
}

void RecordDesk::begin(Change change, Actions& actions) {
  const std::uint64_t operation = kIdBit | next_operation_++;
  const Record& after = change.after;
  changing_.insert(change.id);
  if (change.is_deletion) {
    actions.push_back(RunLedger{operation, ledger::DropRecord{change.id, after.version}});
  } else {
    actions.push_back(RunLedger{operation, ledger::PutRecord{.id = change.id,
                                                             .tenant = after.tenant,
                                                             .version = after.version,
                                                             .order = after.order,
                                                             .open = after.open,
                                                             .owner = after.owner,
                                                             .lease_ms = after.lease_ms,
                                                             .content = after.content}});
  }
  changes_.emplace(operation, std::move(change));
}

void RecordDesk::on_ledger_reply(LedgerReply reply, Micros now, Actions& actions) {
  const auto found = changes_.find(reply.id);
  if (found == changes_.end()) {
    return;
  }
  if (reply.reply.status == Status::kFenced) {
    actions.push_back(Stop{"another coordinator has taken over this ledger"});
    return;
  }
  Change change = std::move(found->second);
  changes_.erase(found);
  changing_.erase(change.id);
  if (!change.is_deletion && change.after.version == 1) {
    --creating_;
  }
  if (reply.reply.status == Status::kDone) {
    commit(change, now);
    if (!change.is_deletion) {
      return answer(change.peer, change.request_id, change.id, now, actions);
    }
    protocol::RecordsReply gone{.request_id = change.request_id, .records = {}, .payload = {}};
    gone.records.push_back(info(change.id, change.after, now));
    gone.records.back().bytes = 0;
    actions.push_back(SendClient{change.peer, std::move(gone)});
    return;
  }
  const bool conflict = reply.reply.status == Status::kConflict;
  log::error("the ledger refused record {}: {}", change.id, reply.reply.message);
  reply_error(change.peer, change.request_id,
              {conflict ? ErrorCode::kConflict : ErrorCode::kUnavailable,
               "the ledger refused the record: " + reply.reply.message.substr(0, 200)},
              actions, kRetryMs);
}

void RecordDesk::commit(Change& change, Micros now) {
  Record& record = records_[change.id];
  bytes_ -= record.content.size();
  if (record.version == 0) {
    ++tenant_records_[change.after.tenant];
    by_order_[change.after.order] = change.id;
  }
  if (change.is_deletion) {
    by_order_.erase(record.order);
    if (--tenant_records_[record.tenant] == 0) {
      tenant_records_.erase(record.tenant);
    }
    records_.erase(change.id);
    return;
  }
  // A lease may have been renewed while the content was being written.
  const Micros lease_until =
      change.takes_lease ? now + Micros{change.after.lease_ms} * 1000 : record.lease_until;
  bytes_ += change.after.content.size();
  record = std::move(change.after);
  record.lease_until = lease_until;
}

void RecordDesk::on_query(const std::string& peer, const protocol::RecordQuery& query, Micros now,
                          Actions& actions) const {
  const auto visible = [&](const Record& record) {
    return (query.all_tenants || record.tenant == query.tenant) &&
           (record.open || !query.open_only);
  };
  const std::string& wanted = query.id.empty() ? query.after : query.id;
  const auto named = records_.find(wanted);
  if (!wanted.empty() &&
      (named == records_.end() || (!query.all_tenants && named->second.tenant != query.tenant))) {
    return reply_error(peer, query.request_id, not_found(), actions);
  }
  if (!query.id.empty()) {
    return answer(peer, query.request_id, query.id, now, actions);
  }
  const std::size_t limit = query.limit == 0 ? protocol::kRecordsPerReplyMax
                                             : std::min(query.limit, protocol::kRecordsPerReplyMax);
  protocol::RecordsReply reply{.request_id = query.request_id, .records = {}, .payload = {}};
  auto before = wanted.empty() ? by_order_.end() : by_order_.find(named->second.order);
  while (before != by_order_.begin() && !reply.more) {
    const std::string& id = (--before)->second;
    const Record& record = records_.at(id);
    if (!visible(record) || !id.starts_with(query.prefix)) {
      continue;
    }
    if (reply.records.size() == limit) {
      reply.more = true;
      break;
    }
    reply.records.push_back(info(id, record, now));
    reply.payload.insert(reply.payload.end(), record.content.begin(), record.content.end());
  }
  actions.push_back(SendClient{peer, std::move(reply)});
}

}  // namespace tessera::coordinator
